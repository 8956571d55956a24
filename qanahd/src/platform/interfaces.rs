//! Which interfaces of the machine are used to reach peers, as the options say it.

use std::str::FromStr;

/// The longest name of an interface, in bytes (IFNAMSIZ less one).
const MAX_NAME: usize = 15;

/// A name of an interface in which `*` stands for any text and `?` for one character, as in a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<u8>);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// There is nothing to match.
    #[error("is empty (expected the name of an interface, such as eth0 or wl*)")]
    Empty,
    /// Without its stars it is longer than any name.
    #[error("is longer than names of interfaces are ({MAX_NAME} bytes)")]
    Long,
    /// No name has such a character.
    #[error("has a character that no name of an interface has: {0:?}")]
    Character(char),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let strange = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ',');
        if let Some(strange) = text.chars().find(strange) {
            return Err(PatternError::Character(strange));
        }
        let mut bytes = text.as_bytes().to_vec();
        // Stars in a row are one star.
        bytes.dedup_by(|next, before| *next == b'*' && *before == b'*');
        if bytes.iter().filter(|byte| **byte != b'*').count() > MAX_NAME {
            return Err(PatternError::Long);
        }
        Ok(Self(bytes))
    }
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_slice(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last star was, and how far it reaches: one star back is enough, ever.
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, reach)) => {
                        star = Some((at, reach + 1));
                        p = at + 1;
                        n = reach + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
    }
}

/// Which interfaces are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interfaces {
    /// Only these, if there are any. Whoever names one means it, be it an overlay.
    pub(crate) only: Vec<Pattern>,
    /// Never these.
    pub(crate) except: Vec<Pattern>,
}

impl Interfaces {
    /// Whether an interface is used; `overlay` says that it leads through another overlay.
    pub(crate) fn allow(&self, name: &str, overlay: bool) -> bool {
        let named = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(name));
        if named(&self.except) {
            return false;
        }
        if self.only.is_empty() { !overlay } else { named(&self.only) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (text, name) in [
            ("eth0", "eth0"),
            ("eth*", "eth"),
            ("eth*", "eth12"),
            ("*", "x"),
            ("*0", "eth0"),
            ("*0", "a0b0"),
            ("e?h0", "eth0"),
            ("e*h*0", "enpheth00"),
            ("**", "eth0"),
            ("br-*-?", "br-a-b-c"),
        ] {
            assert!(pattern(text).matches(name), "{text} {name}");
        }
        for (text, name) in [
            ("eth0", "eth01"),
            ("eth", "eth0"),
            ("eth?", "eth"),
            ("*1", "eth0"),
            ("e*h*0x", "enpheth00"),
            ("ETH0", "eth0"),
        ] {
            assert!(!pattern(text).matches(name), "{text} {name}");
        }
        // No pattern takes long.
        let slow = pattern("*a*a*a*a*a*a*a*a*b");
        assert!(!slow.matches(&"a".repeat(MAX_NAME)));
    }

    #[test]
    fn what_no_name_can_be_is_refused() {
        assert_eq!("".parse::<Pattern>(), Err(PatternError::Empty));
        assert_eq!("a/b".parse::<Pattern>(), Err(PatternError::Character('/')));
        assert_eq!("a b".parse::<Pattern>(), Err(PatternError::Character(' ')));
        assert_eq!("sixteen-is-a-lot".parse::<Pattern>(), Err(PatternError::Long));
        assert!("*fifteen-is-okay*".parse::<Pattern>().is_ok());
    }

    #[test]
    fn exceptions_win_and_a_named_overlay_is_meant() {
        let all = Interfaces::default();
        assert!(all.allow("eth0", false) && !all.allow("wg0", true));
        let only = Interfaces { only: vec![pattern("wg*"), pattern("eth0")], except: vec![] };
        assert!(only.allow("eth0", false) && only.allow("wg0", true));
        assert!(!only.allow("eth1", false));
        let except = Interfaces { except: vec![pattern("wg1")], ..only };
        assert!(!except.allow("wg1", true) && except.allow("wg0", true));
        let docker = Interfaces { only: vec![], except: vec![pattern("docker*")] };
        assert!(!docker.allow("docker0", false) && docker.allow("eth0", false));
    }
}
