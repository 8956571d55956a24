//! Lines of a configuration file, before anybody knows what they mean.

use super::MAX_FILE_LEN;
use super::error::{ConfigError, ErrorKind, quote};
use super::keys::{Section, squeeze};

/// What stands on a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// `[Interface]` or `[Peer]`.
    Section(Section),
    /// `KEY = VALUE`.
    Pair(Pair<'a>),
    /// A line with nothing but a comment; without its `#` and outer white space.
    Comment(&'a str),
}

/// `KEY = VALUE`, all trimmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    /// Up to the first `#` of the line.
    pub(super) value: &'a str,
    /// Up to the end of the line: wg-quick(8) gives hooks to the shell with `#` and all.
    pub(super) value_with_comment: &'a str,
}

/// Checks that the bytes are text of a reasonable size and returns it without a byte order mark.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, ConfigError> {
    if bytes.len() > MAX_FILE_LEN {
        return Err(ConfigError::whole_file(ErrorKind::TooLarge(bytes.len())));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let line_of = |end: usize| 1 + bytes.iter().take(end).filter(|&&byte| byte == b'\n').count();
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ConfigError::at(line_of(e.valid_up_to()), None, ErrorKind::NotUtf8))?;
    match text.find('\0') {
        Some(at) => Err(ConfigError::at(line_of(at), None, ErrorKind::Nul)),
        None => Ok(text),
    }
}

/// Reads one line; `None` for a blank one.
pub(super) fn read_line(number: usize, line: &str) -> Result<Option<Content<'_>>, ConfigError> {
    let (code, comment) = match line.split_once('#') {
        Some((code, comment)) => (code, Some(comment)),
        None => (line, None),
    };
    let code = code.trim();
    if code.is_empty() {
        return Ok(comment.map(|comment| Content::Comment(comment.trim())));
    }
    if code.starts_with('[') {
        let unknown = || {
            let shown = quote(code).map(|text| format!(" {text}")).unwrap_or_default();
            ConfigError::at(number, None, ErrorKind::UnknownSection(shown))
        };
        let section = Section::from_header(&squeeze(code)).ok_or_else(unknown)?;
        return Ok(Some(Content::Section(section)));
    }
    let not_pair = || ConfigError::at(number, None, ErrorKind::NotKeyValue);
    // A `#` before the first `=` is caught here; otherwise both splits meet at the same `=`.
    let (key, value) = code.split_once('=').ok_or_else(not_pair)?;
    let (_, value_with_comment) = line.split_once('=').ok_or_else(not_pair)?;
    Ok(Some(Content::Pair(Pair {
        key: key.trim(),
        value: value.trim(),
        value_with_comment: value_with_comment.trim(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(key: &'a str, value: &'a str, full: &'a str) -> Content<'a> {
        Content::Pair(Pair { key, value, value_with_comment: full })
    }

    #[test]
    fn lines_are_sections_pairs_comments_or_nothing() {
        let read = |line| read_line(1, line).unwrap();
        assert_eq!(read(" \t\r"), None);
        assert_eq!(read("  # hello # you "), Some(Content::Comment("hello # you")));
        assert_eq!(read("[ iNTERFACE ] # x"), Some(Content::Section(Section::Interface)));
        assert_eq!(read("[peer]\r"), Some(Content::Section(Section::Peer)));
        assert_eq!(read("a=b"), Some(pair("a", "b", "b")));
        assert_eq!(read(" PostUp = a = b # c \r"), Some(pair("PostUp", "a = b", "a = b # c")));
        assert_eq!(read("MTU="), Some(pair("MTU", "", "")));
    }

    #[test]
    fn other_lines_are_errors() {
        let kind = |line| read_line(7, line).unwrap_err().kind;
        assert_eq!(kind("hello"), ErrorKind::NotKeyValue);
        assert_eq!(kind("PostUp # a = b"), ErrorKind::NotKeyValue);
        assert_eq!(kind("[Interfaces]"), ErrorKind::UnknownSection(" `[Interfaces]`".into()));
        assert!(matches!(kind("[Peer] MTU = 5"), ErrorKind::UnknownSection(_)));
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_with_their_line() {
        assert_eq!(text_of(b"\xEF\xBB\xBFa").unwrap(), "a");
        let refused = |bytes: &[u8]| {
            let error = text_of(bytes).unwrap_err();
            (error.line, error.kind)
        };
        assert_eq!(refused(b"a\nb\xff"), (Some(2), ErrorKind::NotUtf8));
        assert_eq!(refused(b"a\n\nb\0"), (Some(3), ErrorKind::Nul));
        // UTF-16 with its mark, as some editors save it.
        assert_eq!(refused(b"\xff\xfe[\0I\0"), (Some(1), ErrorKind::NotUtf8));
        let large = vec![b'\n'; MAX_FILE_LEN + 1];
        assert_eq!(refused(&large), (None, ErrorKind::TooLarge(MAX_FILE_LEN + 1)));
        assert!(text_of(&large[1..]).is_ok());
    }
}
