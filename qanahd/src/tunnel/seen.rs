//! The envelopes that came last, so that a copy costs nothing.

use std::collections::VecDeque;

/// How many envelopes of a peer are remembered: more than a session needs to begin.
const REMEMBERED: usize = 128;
/// Where the nonce of an envelope is: after the version byte (PROTOCOL.md, "Envelopes").
const NONCE: std::ops::Range<usize> = 1..25;

/// The nonces of the last envelopes from one peer.
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<[u8; 24]>);

impl Seen {
    /// Whether this is a copy of an envelope that was noted.
    pub(super) fn knows(&self, envelope: &[u8]) -> bool {
        nonce(envelope).is_some_and(|nonce| self.0.contains(nonce))
    }

    /// Notes an envelope that was opened. Others are not noted: a forgery with the nonce of a
    /// true message must not keep that message out.
    pub(super) fn note(&mut self, envelope: &[u8]) {
        if let Some(nonce) = nonce(envelope) {
            if self.0.len() == REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(*nonce);
        }
    }
}

fn nonce(envelope: &[u8]) -> Option<&[u8; 24]> {
    envelope.get(NONCE)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_and_memory_is_bounded() {
        let mut seen = Seen::default();
        let envelope = |n: u32| [vec![1], [n.to_be_bytes(); 6].concat(), vec![0; 40]].concat();
        for n in 0..1000 {
            assert!(!seen.knows(&envelope(n)));
            seen.note(&envelope(n));
        }
        assert!(seen.knows(&envelope(999)) && seen.knows(&envelope(900)));
        assert!(!seen.knows(&envelope(0)), "forgotten by now");
        assert_eq!(seen.0.len(), REMEMBERED);
        seen.note(b"short");
        assert!(!seen.knows(b"short"));
    }
}
