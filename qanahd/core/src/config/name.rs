//! The name of a tunnel: of its interface, its file, its unit and its socket.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;

/// Longest interface name that Linux takes, in bytes (IFNAMSIZ without its final NUL).
pub const MAX_NAME_LEN: usize = 15;

/// Names that would meet something else: directories, the daemon's own socket, and the two
/// entries of `/proc/sys/net/*/conf` for which the kernel refuses an interface.
const RESERVED: [&str; 5] = [".", "..", "qanahd", "all", "default"];

/// Why a text is not the name of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TunnelNameError {
    /// No text at all.
    #[error("the tunnel name is empty, expected 1 to 15 characters such as `peer1`")]
    Empty,
    /// More bytes than an interface name may have.
    #[error(
        "the tunnel name is {0} bytes long, expected at most 15 (the limit of Linux interface \
         names); use a shorter one"
    )]
    TooLong(usize),
    /// A character outside the set of wg-quick(8).
    #[error(
        "the tunnel name contains {0:?}, expected only letters, digits and _ = + . - ; rename it"
    )]
    Character(char),
    /// A leading dash would make programs take the name for an option.
    #[error("the tunnel name starts with `-`, expected another first character; rename it")]
    LeadingDash,
    /// A name with another meaning.
    #[error("the tunnel name `{0}` is reserved; use another one")]
    Reserved(&'static str),
    /// A file whose name does not give a tunnel name.
    #[error(
        "{0:?} is not a configuration file name, expected the interface name followed by \
         `.conf`, such as `peer1.conf`; rename the file"
    )]
    NotConf(String),
}

/// The name of a tunnel, checked: `[a-zA-Z0-9_=+.-]{1,15}` as wg-quick(8) has it, without
/// the few names that mean something else, and without a leading `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelName(String);

impl TunnelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that a configuration file gives its tunnel: the file name without `.conf`.
    ///
    /// # Errors
    /// When the file name does not end in `.conf`, is not UTF-8, or its stem is no valid name.
    pub fn from_path(path: &Path) -> Result<Self, TunnelNameError> {
        path.file_name()
            .and_then(|file| file.to_str())
            .and_then(|file| file.strip_suffix(".conf"))
            .ok_or_else(|| TunnelNameError::NotConf(path.to_string_lossy().into_owned()))?
            .parse()
    }

    /// The name that the instance of a systemd unit stands for, as `%i` gives it: characters that
    /// unit names cannot have are written `\xHH` there (`systemd-escape`). Other names are as they are.
    ///
    /// # Errors
    /// When the text is no valid name, or has another escape than of one byte.
    pub fn from_instance(instance: &str) -> Result<Self, TunnelNameError> {
        unescape(instance).parse()
    }
}

/// Undoes `\xHH`. What is no such escape stays, and no name has a backslash. A dash stays a dash: in
/// paths it stands for a slash, but these are names, and people write `qanahd@home-lab`.
fn unescape(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::with_capacity(text.len());
    while let Some(at) = rest.find("\\x") {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let byte = escape.get(2..4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = escape.get(4..).unwrap_or_default();
            }
            None => {
                plain.push('\\');
                rest = escape.get(1..).unwrap_or_default();
            }
        }
    }
    plain.push_str(rest);
    plain
}

impl FromStr for TunnelName {
    type Err = TunnelNameError;

    fn from_str(text: &str) -> Result<Self, TunnelNameError> {
        if text.is_empty() {
            return Err(TunnelNameError::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_=+.-".contains(c);
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(TunnelNameError::Character(bad));
        }
        if text.len() > MAX_NAME_LEN {
            return Err(TunnelNameError::TooLong(text.len()));
        }
        if text.starts_with('-') {
            return Err(TunnelNameError::LeadingDash);
        }
        if let Some(name) = RESERVED.into_iter().find(|&name| name == text) {
            return Err(TunnelNameError::Reserved(name));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TunnelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TunnelName, TunnelNameError> {
        text.parse()
    }

    #[test]
    fn every_character_of_wg_quick_is_allowed_up_to_fifteen() {
        for good in ["a", "wg0", "peer1", "A_=+.-z", "123456789012345", "...", "default2"] {
            assert_eq!(parse(good).unwrap().as_str(), good);
        }
        assert_eq!(parse("1234567890123456"), Err(TunnelNameError::TooLong(16)));
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for reserved in RESERVED {
            assert_eq!(parse(reserved), Err(TunnelNameError::Reserved(reserved)));
        }
        assert_eq!(parse(""), Err(TunnelNameError::Empty));
        assert_eq!(parse("-a"), Err(TunnelNameError::LeadingDash));
        for (bad, c) in [("a/b", '/'), ("a b", ' '), ("a\0", '\0'), ("ä", 'ä'), ("a%i", '%')] {
            assert_eq!(parse(bad), Err(TunnelNameError::Character(c)));
        }
    }

    #[test]
    fn instances_of_units_are_unescaped_once_and_then_checked() {
        let from = |instance: &str| TunnelName::from_instance(instance);
        for (instance, name) in [
            ("peer1", "peer1"),
            ("home-lab", "home-lab"),
            ("home\\x2dlab", "home-lab"),
            ("a\\x2bb\\x3d.c", "a+b=.c"),
        ] {
            assert_eq!(from(instance).unwrap().as_str(), name);
        }
        assert_eq!(from("\\x2e\\x2e"), Err(TunnelNameError::Reserved("..")));
        for (bad, c) in [
            ("\\x2e\\x2e\\x2fa", '/'),
            ("a\\x5cx2b", '\\'),
            ("a\\x0a", '\n'),
            ("a\\x+1", '\\'),
            ("a\\xc3\\xa4", '\\'),
            ("a\\x", '\\'),
            ("a\\x2", '\\'),
            ("a\\x2ä", '\\'),
        ] {
            assert_eq!(from(bad), Err(TunnelNameError::Character(c)), "{bad}");
        }
    }

    #[test]
    fn the_file_name_gives_the_name() {
        let from = |path: &str| TunnelName::from_path(Path::new(path));
        assert_eq!(from("/etc/qanah/peer1.conf").unwrap().as_str(), "peer1");
        assert_eq!(from("a.b.conf").unwrap().as_str(), "a.b");
        assert_eq!(from(".conf"), Err(TunnelNameError::Empty));
        for bad in ["peer1", "peer1.CONF", "peer1.conf.bak", "/", ""] {
            assert!(matches!(from(bad), Err(TunnelNameError::NotConf(_))), "{bad}");
        }
        assert_eq!(from("averyveryverylongname.conf"), Err(TunnelNameError::TooLong(21)));
        assert_eq!(from("/etc/qanah/qanahd.conf"), Err(TunnelNameError::Reserved("qanahd")));
    }
}
