//! The plaintext of a control frame: one message between the two ends of a session.
//!
//! `kind (1) | body`. Bodies have exactly the length their kind says; padding is the exception.

use thiserror::Error;

use super::{FrameBuf, FrameFull, Hop, OVERHEAD, reach};
use crate::signal::{MAX_ENVELOPE, PeerName};

/// The longest Noise message in a rekey, in bytes.
pub const MAX_REKEY_MESSAGE: usize = 1024;

const CONFIRM: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const REKEY_INIT: u8 = 4;
const REKEY_RESPONSE: u8 = 5;
const PATH_PROBE: u8 = 6;
const PROBE_ANSWER: u8 = 7;
const SIGNALING: u8 = 8;
const CLOSE: u8 = 9;
const REACH_QUERY: u8 = 10;
const REACH_ANSWER: u8 = 11;

/// Length of a frame with a path probe without any padding, in bytes.
const LEAST_PROBE: usize = OVERHEAD + 1;
/// Length of a frame with a ping without any padding, in bytes.
const PLAIN_PING: usize = LEAST_PROBE + 8;

/// One control message. Long bodies are borrowed from the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    /// The first frame under new keys: "I can open yours".
    Confirm,
    /// To be answered with a pong that holds the same number.
    Ping(u64),
    /// The same in a frame of this size: whether it arrives whole is asked too.
    PaddedPing {
        /// As in a ping.
        value: u64,
        /// Length of the whole frame, header and tag included, in bytes: more than that of a ping.
        size: u16,
    },
    /// The answer to a ping.
    Pong(u64),
    /// The first message of a new handshake inside the session.
    RekeyInit {
        /// Pairs the two messages of one attempt.
        id: u32,
        /// The Noise message.
        noise: &'a [u8],
    },
    /// The second message of that handshake.
    RekeyResponse {
        /// The id of the first message.
        id: u32,
        /// The Noise message.
        noise: &'a [u8],
    },
    /// Asks whether a frame of this size arrives.
    PathProbe {
        /// Length of the whole frame, header and tag included, in bytes.
        size: u16,
    },
    /// A path probe arrived.
    ProbeAnswer {
        /// Length of the whole frame that arrived, in bytes.
        size: u16,
    },
    /// Signaling that travels through the mesh, sealed for somebody else.
    Signaling {
        /// Whether it is to be passed on or has been.
        hop: Hop,
        /// Destination or source, as the hop says.
        name: PeerName,
        /// What would lie in the inbox of a broker.
        envelope: &'a [u8],
    },
    /// The sender has closed this session.
    Close,
    /// Asks with which of these peers the receiver has a direct session.
    ReachQuery {
        /// Comes back in the answer.
        id: u32,
        /// See [`reach::names`].
        names: &'a [u8],
    },
    /// With which it has.
    ReachAnswer {
        /// That of the query.
        id: u32,
        /// See [`reach::entries`].
        entries: &'a [u8],
    },
}

/// Why a control frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlError {
    /// There is no kind byte.
    #[error("empty control frame")]
    Empty,
    /// A kind of a later version; counted and ignored.
    #[error("unknown control message {0}")]
    UnknownKind(u8),
    /// The body is shorter or longer than its kind allows.
    #[error("control message {kind} with a body of {len} bytes")]
    Length {
        /// The kind byte.
        kind: u8,
        /// Length of the body, in bytes.
        len: usize,
    },
}

impl<'a> Control<'a> {
    /// Reads the plaintext of a control frame.
    ///
    /// # Errors
    /// When the kind is unknown or the body has a length that its kind does not allow.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, ControlError> {
        let (&kind, body) = plaintext.split_first().ok_or(ControlError::Empty)?;
        let message = match kind {
            CONFIRM => empty(body).map(|()| Self::Confirm),
            PING => ping(body),
            PONG => exactly(body).map(|n| Self::Pong(u64::from_be_bytes(n))),
            REKEY_INIT => rekey(body).map(|(id, noise)| Self::RekeyInit { id, noise }),
            REKEY_RESPONSE => rekey(body).map(|(id, noise)| Self::RekeyResponse { id, noise }),
            PATH_PROBE => {
                u16::try_from(LEAST_PROBE + body.len()).map(|size| Self::PathProbe { size }).ok()
            }
            PROBE_ANSWER => {
                exactly(body).map(|size| Self::ProbeAnswer { size: u16::from_be_bytes(size) })
            }
            SIGNALING => signaling(body),
            CLOSE => empty(body).map(|()| Self::Close),
            REACH_QUERY => numbered(body)
                .filter(|(_, names)| reach::are_names(names))
                .map(|(id, names)| Self::ReachQuery { id, names }),
            REACH_ANSWER => numbered(body)
                .filter(|(_, entries)| reach::are_entries(entries))
                .map(|(id, entries)| Self::ReachAnswer { id, entries }),
            unknown => return Err(ControlError::UnknownKind(unknown)),
        };
        message.ok_or(ControlError::Length { kind, len: body.len() })
    }

    /// The message as the plaintext of a frame.
    ///
    /// # Errors
    /// When a body is longer than its kind allows, or a probe is to be shorter than it can be.
    pub fn to_frame_buf(&self) -> Result<FrameBuf, FrameFull> {
        match *self {
            Self::Confirm => message(CONFIRM, &[]),
            Self::Ping(number) => message(PING, &[&number.to_be_bytes()]),
            Self::PaddedPing { value, size } if usize::from(size) > PLAIN_PING => {
                padded(PING, &value.to_be_bytes(), size)
            }
            Self::PaddedPing { .. } => Err(FrameFull),
            Self::Pong(number) => message(PONG, &[&number.to_be_bytes()]),
            Self::RekeyInit { id, noise } => {
                let noise = within(noise, MAX_REKEY_MESSAGE).ok_or(FrameFull)?;
                message(REKEY_INIT, &[&id.to_be_bytes(), noise])
            }
            Self::RekeyResponse { id, noise } => {
                let noise = within(noise, MAX_REKEY_MESSAGE).ok_or(FrameFull)?;
                message(REKEY_RESPONSE, &[&id.to_be_bytes(), noise])
            }
            Self::PathProbe { size } => padded(PATH_PROBE, &[], size),
            Self::ProbeAnswer { size } => message(PROBE_ANSWER, &[&size.to_be_bytes()]),
            Self::Signaling { hop, name, envelope } => {
                let envelope = within(envelope, MAX_ENVELOPE).ok_or(FrameFull)?;
                message(SIGNALING, &[&[hop as u8], &name.0, envelope])
            }
            Self::Close => message(CLOSE, &[]),
            Self::ReachQuery { id, names } => {
                if !reach::are_names(names) {
                    return Err(FrameFull);
                }
                message(REACH_QUERY, &[&id.to_be_bytes(), names])
            }
            Self::ReachAnswer { id, entries } => {
                if !reach::are_entries(entries) {
                    return Err(FrameFull);
                }
                message(REACH_ANSWER, &[&id.to_be_bytes(), entries])
            }
        }
    }
}

fn message(kind: u8, parts: &[&[u8]]) -> Result<FrameBuf, FrameFull> {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut buf = FrameBuf::with_capacity(1 + len);
    buf.push(&[kind])?;
    parts.iter().try_for_each(|part| buf.push(part))?;
    Ok(buf)
}

/// A message with as many zeros behind it as a frame of this size has room for.
fn padded(kind: u8, part: &[u8], size: u16) -> Result<FrameBuf, FrameFull> {
    let least = LEAST_PROBE + part.len();
    let padding = usize::from(size).checked_sub(least).ok_or(FrameFull)?;
    let mut buf = FrameBuf::with_capacity(1 + part.len() + padding);
    buf.push(&[kind])?;
    buf.push(part)?;
    buf.room_mut();
    buf.advance(padding)?;
    Ok(buf)
}

fn ping(body: &[u8]) -> Option<Control<'_>> {
    let (value, padding) = body.split_first_chunk()?;
    let value = u64::from_be_bytes(*value);
    if padding.is_empty() {
        return Some(Control::Ping(value));
    }
    let size = u16::try_from(PLAIN_PING + padding.len()).ok()?;
    Some(Control::PaddedPing { value, size })
}

fn empty(body: &[u8]) -> Option<()> {
    body.is_empty().then_some(())
}

fn exactly<const N: usize>(body: &[u8]) -> Option<[u8; N]> {
    body.try_into().ok()
}

fn within(body: &[u8], most: usize) -> Option<&[u8]> {
    (1..=most).contains(&body.len()).then_some(body)
}

fn rekey(body: &[u8]) -> Option<(u32, &[u8])> {
    let (id, noise) = numbered(body)?;
    Some((id, within(noise, MAX_REKEY_MESSAGE)?))
}

fn numbered(body: &[u8]) -> Option<(u32, &[u8])> {
    let (id, rest) = body.split_first_chunk()?;
    Some((u32::from_be_bytes(*id), rest))
}

fn signaling(body: &[u8]) -> Option<Control<'_>> {
    let (hop, rest) = body.split_first()?;
    let (name, envelope) = rest.split_first_chunk()?;
    let envelope = within(envelope, MAX_ENVELOPE)?;
    Some(Control::Signaling { hop: Hop::from_byte(*hop)?, name: PeerName(*name), envelope })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(control: Control<'_>) -> Vec<u8> {
        control.to_frame_buf().unwrap().plaintext().to_vec()
    }

    #[test]
    fn layout() {
        assert_eq!(bytes(Control::Confirm), [1]);
        assert_eq!(bytes(Control::Ping(0x0102)), [2, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(bytes(Control::Pong(3)), [3, 0, 0, 0, 0, 0, 0, 0, 3]);
        let (id, noise) = (0x0a0b, b"noise".as_slice());
        assert_eq!(bytes(Control::RekeyInit { id, noise }), b"\x04\0\0\x0a\x0bnoise");
        assert_eq!(bytes(Control::RekeyResponse { id, noise }), b"\x05\0\0\x0a\x0bnoise");
        assert_eq!(bytes(Control::PathProbe { size: 36 }), [6, 0, 0, 0]);
        assert_eq!(bytes(Control::ProbeAnswer { size: 0x0578 }), [7, 5, 0x78]);
        let (name, envelope) = (PeerName([7; 16]), b"sealed".as_slice());
        let signaling = Control::Signaling { hop: Hop::FromRelay, name, envelope };
        assert_eq!(bytes(signaling), [&[8, 2], &[7_u8; 16][..], envelope].concat());
        let query = Control::ReachQuery { id: 0x0a0b, names: &name.0 };
        assert_eq!(bytes(query), [&[10, 0, 0, 0x0a, 0x0b], &[7_u8; 16][..]].concat());
        let answer = Control::ReachAnswer { id: 1, entries: &[] };
        assert_eq!(bytes(answer), [11, 0, 0, 0, 1]);
        assert_eq!(bytes(Control::Close), [9]);
    }

    #[test]
    fn a_probe_frame_has_the_size_it_says() {
        let buf = Control::PathProbe { size: 1200 }.to_frame_buf().unwrap();
        assert_eq!(buf.len() + OVERHEAD, 1200);
        assert!(Control::PathProbe { size: 32 }.to_frame_buf().is_err());
        let largest = Control::PathProbe { size: u16::MAX };
        let plaintext = bytes(largest);
        assert_eq!(Control::parse(&plaintext), Ok(largest));
        let over = [plaintext, vec![0]].concat();
        assert!(Control::parse(&over).is_err());
        let ping = Control::PaddedPing { value: 0x0102, size: 1384 };
        let plaintext = bytes(ping);
        assert_eq!(plaintext.len() + OVERHEAD, 1384);
        assert_eq!(plaintext[..12], [2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0]);
        assert_eq!(Control::parse(&plaintext), Ok(ping));
        // Without padding it is a ping.
        assert!(Control::PaddedPing { value: 1, size: 41 }.to_frame_buf().is_err());
        assert!(Control::PaddedPing { value: 1, size: 42 }.to_frame_buf().is_ok());
        let largest = bytes(Control::PaddedPing { value: 1, size: u16::MAX });
        assert!(Control::parse(&[largest, vec![0]].concat()).is_err());
    }

    #[test]
    fn lengths_are_enforced_both_ways() {
        let wrong = |kind: u8, len: usize| {
            let plaintext = [vec![kind], vec![0; len]].concat();
            assert_eq!(Control::parse(&plaintext), Err(ControlError::Length { kind, len }));
        };
        wrong(CONFIRM, 1);
        wrong(PING, 7);
        wrong(PONG, 0);
        wrong(REKEY_INIT, 3);
        wrong(REKEY_INIT, 4);
        wrong(REKEY_RESPONSE, 4 + MAX_REKEY_MESSAGE + 1);
        wrong(PROBE_ANSWER, 1);
        wrong(SIGNALING, 0);
        wrong(SIGNALING, 17);
        // A hop of 0 is none.
        wrong(SIGNALING, 100);
        wrong(CLOSE, 1);
        wrong(REACH_QUERY, 4);
        wrong(REACH_QUERY, 4 + 17);
        wrong(REACH_QUERY, 4 + 16 * (reach::MAX_NAMES + 1));
        wrong(REACH_ANSWER, 3);
        wrong(REACH_ANSWER, 4 + 21);
        let long = vec![0; 2 * MAX_ENVELOPE];
        let name = PeerName([0; 16]);
        let signaling = |envelope| Control::Signaling { hop: Hop::ToRelay, name, envelope };
        assert!(signaling(&long[..MAX_ENVELOPE]).to_frame_buf().is_ok());
        assert!(signaling(&long[..=MAX_ENVELOPE]).to_frame_buf().is_err());
        assert!(signaling(&[]).to_frame_buf().is_err());
        assert!(Control::ReachQuery { id: 1, names: &long[..15] }.to_frame_buf().is_err());
        assert!(Control::ReachAnswer { id: 1, entries: &long[..15] }.to_frame_buf().is_err());
        assert!(Control::RekeyInit { id: 1, noise: &long }.to_frame_buf().is_err());
        assert!(Control::RekeyResponse { id: 1, noise: &[] }.to_frame_buf().is_err());
        assert_eq!(Control::parse(&[]), Err(ControlError::Empty));
        assert_eq!(Control::parse(&[0]), Err(ControlError::UnknownKind(0)));
        assert_eq!(Control::parse(&[12, 1]), Err(ControlError::UnknownKind(12)));
    }

    proptest! {
        #[test]
        fn what_parses_is_encoded_as_it_came(kind in 0_u8..14, body in prop::collection::vec(any::<u8>(), 0..64)) {
            let plaintext = [vec![kind], body].concat();
            if let Ok(message) = Control::parse(&plaintext) {
                let mut expected = plaintext.clone();
                // What is padding is not looked at.
                let meant = match kind {
                    PATH_PROBE => 1,
                    PING => 9,
                    _ => expected.len(),
                };
                expected[meant..].fill(0);
                prop_assert_eq!(bytes(message), expected);
            }
        }

        #[test]
        fn messages_round_trip(number in any::<u64>(), id in any::<u32>(), body in prop::collection::vec(any::<u8>(), 1..1024)) {
            for message in [
                Control::Ping(number),
                Control::Pong(number),
                Control::RekeyInit { id, noise: &body },
                Control::RekeyResponse { id, noise: &body },
                Control::Signaling { hop: Hop::ToRelay, name: PeerName([9; 16]), envelope: &body },
            ] {
                let plaintext = bytes(message);
                prop_assert_eq!(Control::parse(&plaintext), Ok(message));
            }
        }
    }
}
