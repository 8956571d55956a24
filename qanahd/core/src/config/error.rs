//! What can be wrong with a configuration, in words for the person who wrote it.
//!
//! No message quotes a key, nor anything that looks like one: error texts end up in logs.

use std::fmt;

use ipnet::IpNet;
use thiserror::Error;

use super::{MAX_ADDRESSES, MAX_FILE_LEN, MAX_MTU, MAX_PEERS, MIN_MTU, MIN_MTU_IPV6};
use crate::key::KeyError;

/// Longest piece of a file that a message quotes, in characters.
const MAX_QUOTE: usize = 60;
/// A run of this many base64 characters is taken for a key and not quoted.
const KEY_LIKE: usize = 24;

/// The first thing that is wrong with a configuration, and where.
///
/// Displays as `FILE:LINE: KEY: what is wrong, expected what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the caller of the parser named it.
    pub file: String,
    /// The line, counted from 1; none when the file as a whole is wrong.
    pub line: Option<usize>,
    /// The key in the spelling of the manual page; none when the line has no known key.
    pub key: Option<&'static str>,
    /// What is wrong.
    pub kind: ErrorKind,
}

impl ConfigError {
    pub(super) fn at(line: usize, key: Option<super::keys::Key>, kind: ErrorKind) -> Self {
        Self { file: String::new(), line: Some(line), key: key.map(super::keys::Key::name), kind }
    }

    pub(super) fn whole_file(kind: ErrorKind) -> Self {
        Self { file: String::new(), line: None, key: None, kind }
    }

    /// The place alone (line and key), without a word of what the file says there: for callers
    /// who may not read the file.
    pub fn place(&self) -> String {
        match (self.line, self.key) {
            (Some(line), Some(key)) => format!("line {line}: {key}"),
            (Some(line), None) => format!("line {line}"),
            (None, _) => "the file as a whole".to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(key) = self.key {
            write!(f, "{key}: ")?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a configuration. Numbers called `first` are line numbers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The messages say it, next to each name.
pub enum ErrorKind {
    #[error("is {0} bytes long, expected at most {MAX_FILE_LEN}; is this a configuration file?")]
    TooLarge(usize),
    #[error("is not UTF-8 text, expected a text file; save it as UTF-8")]
    NotUtf8,
    #[error("contains a NUL byte, expected text; save the file as UTF-8 without NUL bytes")]
    Nul,
    #[error(
        "is neither a section nor `KEY = VALUE`, expected a line such as `MTU = 1400`; \
         correct it, or start it with `#` to make it a comment"
    )]
    NotKeyValue,
    #[error("unknown section{0}, expected [Interface] or [Peer]; correct or remove it")]
    UnknownSection(String),
    #[error("second [Interface] section, expected one (the first is at line {first}); merge them")]
    SecondInterface { first: usize },
    #[error("more than {MAX_PEERS} peers, expected at most that many; split the tunnel")]
    TooManyPeers,
    #[error("more than {MAX_ADDRESSES} addresses, expected at most that many; remove some")]
    TooManyAddresses,
    #[error("stands before any section, expected [Interface] or [Peer] above it; move it down")]
    OutsideSection,
    #[error(
        "unknown key{shown} in {section}, expected one of {keys}; \
         correct the spelling or remove the line"
    )]
    UnknownKey { shown: String, section: &'static str, keys: String },
    #[error("stands in {found}, expected in {belongs}; move it there")]
    WrongSection { found: &'static str, belongs: &'static str },
    #[error("given twice, expected once (the first is at line {first}); remove one of the two")]
    Duplicate { first: usize },
    #[error("there is no [Interface] section, expected one; add it with a PrivateKey")]
    MissingInterface,
    #[error("missing in [Interface], expected a key from `wg genkey`; add `PrivateKey = ...`")]
    MissingPrivateKey,
    #[error("missing in [Peer], expected the key of that peer; add `PublicKey = ...`")]
    MissingPublicKey,
    #[error("{0}; copy the whole key again")]
    Key(KeyError),
    #[error("is all zeros, which is no key; put in the key of this machine or peer")]
    ZeroKey,
    #[error(
        "is this machine's PrivateKey, which must stay secret, expected the public key of \
         another one; put that in"
    )]
    PrivateAsPublic,
    #[error(
        "is this machine's own key, expected the key of another one; \
         put in that peer's public key or remove the peer"
    )]
    OwnKey,
    #[error("is the key of the peer at line {first}, expected each peer once; merge the two")]
    PeerTwice { first: usize },
    #[error(
        "{net} belongs to the peer at line {first} already, expected each prefix with one peer; \
         remove it from one of the two"
    )]
    PrefixTwice { net: IpNet, first: usize },
    #[error("{0} is given twice, expected each address once; remove one of the two")]
    AddressTwice(std::net::IpAddr),
    #[error(
        "{0} is not an address that a host can have, expected a unicast address such as \
         10.0.0.1/24 or fd00::1/64"
    )]
    NotUnicast(std::net::IpAddr),
    #[error("is out of range, expected {MIN_MTU} to {MAX_MTU} bytes; 1400 suits most paths")]
    MtuRange,
    #[error(
        "{mtu} is too small for IPv6, expected at least {MIN_MTU_IPV6} (RFC 8200) because line \
         {first} has an IPv6 prefix; raise the MTU or remove the IPv6 prefixes"
    )]
    MtuForIpv6 { mtu: u32, first: usize },
    #[error(
        "{0} takes an address away, which only `wg set` can do, expected the whole list; \
         remove the entry"
    )]
    Subtraction(String),
    #[error("is empty, expected {0}; fill it in or remove the line")]
    Empty(&'static str),
    #[error("{shown}, expected {expected}")]
    Value { shown: String, expected: &'static str },
}

impl ErrorKind {
    /// A value that cannot be read: quoted unless it may be a secret.
    pub(super) fn value(text: &str, expected: &'static str) -> Self {
        if text.is_empty() {
            return Self::Empty(expected);
        }
        let shown = quote(text).map_or_else(
            || "a value that is not shown because it looks like a key".to_owned(),
            |text| format!("cannot read {text}"),
        );
        Self::Value { shown, expected }
    }
}

/// Quotes a piece of the file for a message: short, on one line, without control characters.
/// Nothing for what looks like a key, so that a key pasted into the wrong line stays secret.
pub(super) fn quote(text: &str) -> Option<String> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    if text.split(|c| !base64(c)).any(|run| run.len() >= KEY_LIKE) {
        return None;
    }
    let mut shown: String = text.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        shown.push('…');
    }
    Some(format!("`{shown}`"))
}

/// How much a [`Warning`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Probably not what was meant.
    Warning,
    /// Fine, but good to know.
    Notice,
}

/// Something in a configuration that does not stop it, but that its author should know.
///
/// Displays as `line LINE: KEY: text`; see [`Warning::in_file`] for the form with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// How much it matters.
    pub level: Level,
    /// The line, counted from 1.
    pub line: usize,
    /// The key or section that it is about.
    pub key: &'static str,
    /// What to know, and what to do.
    pub text: String,
}

impl Warning {
    /// `FILE:LINE: KEY: text`, as errors are shown.
    pub fn in_file(&self, file: &str) -> String {
        format!("{file}:{}: {}: {}", self.line, self.key, self.text)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.key, self.text)
    }
}

/// Collects warnings, and stops keeping them before they become a burden.
#[derive(Debug, Default)]
pub(super) struct Warnings(Vec<Warning>);

impl Warnings {
    /// A configuration of a mebibyte can earn a hundred thousand warnings; nobody reads these.
    const MAX: usize = 64;

    pub(super) fn add(&mut self, level: Level, line: usize, key: &'static str, text: String) {
        if self.0.len() < Self::MAX {
            self.0.push(Warning { level, line, key, text });
        } else if self.0.len() == Self::MAX {
            let text = "and more warnings like these, which are left out".to_owned();
            self.0.push(Warning { level: Level::Warning, line, key, text });
        }
    }

    pub(super) fn into_sorted(mut self) -> Vec<Warning> {
        self.0.sort_by_key(|warning| warning.line);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_printable_and_never_keys() {
        assert_eq!(quote("10.0.0.1/33").as_deref(), Some("`10.0.0.1/33`"));
        assert_eq!(quote("a\x1b[31m\n").as_deref(), Some("`a\\u{1b}[31m\\n`"));
        assert!(quote(&"x ".repeat(500)).unwrap().chars().count() <= MAX_QUOTE + 3);
        assert_eq!(quote("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="), None);
        assert_eq!(quote("ip yAnz5TF+lXXJte14tji3zlMN"), None);
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/129";
        assert!(quote(longest).unwrap().contains(longest));
    }

    #[test]
    fn warnings_are_bounded() {
        let mut warnings = Warnings::default();
        for line in 0..10_000 {
            warnings.add(Level::Notice, line, "AllowedIPs", "text".to_owned());
        }
        let kept = warnings.into_sorted();
        assert_eq!(kept.len(), Warnings::MAX + 1);
        assert!(kept.last().unwrap().text.contains("left out"));
    }
}
