//! Messages as protobuf (PROTOCOL.md, section 4): strict about what it knows, silent about fields
//! that it does not know, so that later versions can add some.

mod description;

use prost::Message as _;

use super::message::{Answer, Bye, Candidates, Challenge, Hello, Message, Offer, SessionId};
pub use description::may_be_peer;
use description::{check_credentials, read_candidates, write_candidates};
pub(crate) use description::{decode_description, encode_description};

/// Most candidates in one message.
pub const MAX_CANDIDATES: usize = 32;
/// Longest Noise message, in bytes.
pub const MAX_NOISE: usize = 2048;
/// Longest description, in bytes: what a Noise message has room for beside a key and a tag.
pub const MAX_DESCRIPTION: usize = MAX_NOISE - MIN_NOISE;
/// An ephemeral key and the tag of an empty payload.
pub(crate) const MIN_NOISE: usize = 32 + 16;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[derive(Clone, PartialEq, prost::Message)]
struct WireMessage {
    #[prost(oneof = "WireKind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<WireKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireKind {
    #[prost(message, tag = "1")]
    Hello(WireHello),
    #[prost(message, tag = "2")]
    Offer(WireOffer),
    #[prost(message, tag = "3")]
    Answer(WireAnswer),
    #[prost(message, tag = "4")]
    Candidates(WireCandidates),
    #[prost(message, tag = "5")]
    Bye(WireBye),
    #[prost(message, tag = "6")]
    Relayed(WireRelayed),
}

/// The same numbers as in [`WireMessage`]. There are no candidates where there is no ICE.
#[derive(Clone, PartialEq, prost::Message)]
struct WireRelayed {
    #[prost(oneof = "WireRelayedKind", tags = "1, 2, 3, 5")]
    kind: Option<WireRelayedKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireRelayedKind {
    #[prost(message, tag = "1")]
    Hello(WireHello),
    #[prost(message, tag = "2")]
    Offer(WireOffer),
    #[prost(message, tag = "3")]
    Answer(WireAnswer),
    #[prost(message, tag = "5")]
    Bye(WireBye),
}

impl From<WireRelayedKind> for WireKind {
    fn from(kind: WireRelayedKind) -> Self {
        match kind {
            WireRelayedKind::Hello(hello) => Self::Hello(hello),
            WireRelayedKind::Offer(offer) => Self::Offer(offer),
            WireRelayedKind::Answer(answer) => Self::Answer(answer),
            WireRelayedKind::Bye(bye) => Self::Bye(bye),
        }
    }
}

impl TryFrom<WireKind> for WireRelayedKind {
    type Error = Malformed;

    fn try_from(kind: WireKind) -> Result<Self, Malformed> {
        Ok(match kind {
            WireKind::Hello(hello) => Self::Hello(hello),
            WireKind::Offer(offer) => Self::Offer(offer),
            WireKind::Answer(answer) => Self::Answer(answer),
            WireKind::Bye(bye) => Self::Bye(bye),
            WireKind::Candidates(_) | WireKind::Relayed(_) => return Err(NOT_RELAYED),
        })
    }
}

/// What no session by a relay has.
const NOT_RELAYED: Malformed = Malformed("a message that a session by a relay does not have");

#[derive(Clone, PartialEq, prost::Message)]
struct WireHello {
    #[prost(bytes = "vec", tag = "1")]
    challenge: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    echo: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    session: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOffer {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    echo: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    noise: Vec<u8>,
    #[prost(uint32, tag = "4")]
    lifetime: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAnswer {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    noise: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCandidates {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(uint32, tag = "2")]
    generation: u32,
    #[prost(string, tag = "3")]
    ufrag: String,
    #[prost(string, tag = "4")]
    pwd: String,
    #[prost(bytes = "vec", repeated, tag = "5")]
    candidates: Vec<Vec<u8>>,
    #[prost(bool, tag = "6")]
    end: bool,
    #[prost(bytes = "vec", tag = "7")]
    mac: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireBye {
    #[prost(bytes = "vec", tag = "1")]
    session: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    mac: Vec<u8>,
}

/// Exactly 16 bytes.
fn required(bytes: &[u8], what: &'static str) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed(what))
}

/// Nothing or exactly 16 bytes.
fn optional(bytes: &[u8], what: &'static str) -> Result<Option<[u8; 16]>, Malformed> {
    match bytes {
        [] => Ok(None),
        bytes => required(bytes, what).map(Some),
    }
}

fn session_id(bytes: &[u8]) -> Result<SessionId, Malformed> {
    required(bytes, "the session id is not 16 bytes").map(SessionId)
}

/// Turns a message into protobuf.
pub(crate) fn encode(message: &Message) -> Result<Vec<u8>, Malformed> {
    check(message)?;
    Ok(WireMessage { kind: Some(write(message)?) }.encode_to_vec())
}

fn write(message: &Message) -> Result<WireKind, Malformed> {
    Ok(match message {
        Message::Hello(hello) => WireKind::Hello(WireHello {
            challenge: hello.challenge.0.to_vec(),
            echo: hello.echo.map_or_else(Vec::new, |echo| echo.0.to_vec()),
            session: hello.session.map_or_else(Vec::new, |id| id.0.to_vec()),
        }),
        Message::Offer(offer) => WireKind::Offer(WireOffer {
            session: offer.session.0.to_vec(),
            echo: offer.echo.map_or_else(Vec::new, |echo| echo.0.to_vec()),
            noise: offer.noise.clone(),
            lifetime: offer.lifetime.unwrap_or_default(),
        }),
        Message::Answer(answer) => WireKind::Answer(WireAnswer {
            session: answer.session.0.to_vec(),
            noise: answer.noise.clone(),
        }),
        Message::Candidates(batch) => {
            let (ufrag, pwd) = batch
                .credentials
                .as_ref()
                .map(|ice| (ice.ufrag.clone(), ice.pwd.clone()))
                .unwrap_or_default();
            WireKind::Candidates(WireCandidates {
                session: batch.session.0.to_vec(),
                generation: batch.generation,
                ufrag,
                pwd,
                candidates: write_candidates(&batch.candidates),
                end: batch.end,
                mac: batch.mac.map_or_else(Vec::new, |mac| mac.to_vec()),
            })
        }
        Message::Bye(bye) => {
            WireKind::Bye(WireBye { session: bye.session.0.to_vec(), mac: bye.mac.to_vec() })
        }
        Message::Relayed(inner) => {
            let kind = WireRelayedKind::try_from(write(inner)?)?;
            WireKind::Relayed(WireRelayed { kind: Some(kind) })
        }
    })
}

/// Reads a message from protobuf. The bytes are from the peer: the envelope was opened.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let wire = WireMessage::decode(bytes).map_err(|_| Malformed("is not protobuf"))?;
    let message = read(wire.kind.ok_or(UNKNOWN_KIND)?)?;
    check(&message)?;
    Ok(message)
}

const UNKNOWN_KIND: Malformed = Malformed("unknown kind");

/// Recursion ends at once: what is relayed cannot hold what is relayed.
fn read(kind: WireKind) -> Result<Message, Malformed> {
    Ok(match kind {
        WireKind::Hello(hello) => Message::Hello(Hello {
            challenge: required(&hello.challenge, "the challenge is not 16 bytes")
                .map(Challenge)?,
            echo: optional(&hello.echo, "the echo is not 16 bytes")?.map(Challenge),
            session: optional(&hello.session, "the session id is not 16 bytes")?.map(SessionId),
        }),
        WireKind::Offer(offer) => Message::Offer(Offer {
            session: session_id(&offer.session)?,
            echo: optional(&offer.echo, "the echo is not 16 bytes")?.map(Challenge),
            noise: offer.noise,
            lifetime: Some(offer.lifetime).filter(|seconds| *seconds > 0),
        }),
        WireKind::Answer(answer) => {
            Message::Answer(Answer { session: session_id(&answer.session)?, noise: answer.noise })
        }
        WireKind::Candidates(batch) => Message::Candidates(candidates(batch)?),
        WireKind::Bye(bye) => Message::Bye(Bye {
            session: session_id(&bye.session)?,
            mac: required(&bye.mac, "the MAC is not 16 bytes")?,
        }),
        WireKind::Relayed(relayed) => {
            let inner = relayed.kind.ok_or(UNKNOWN_KIND)?;
            Message::Relayed(Box::new(read(inner.into())?))
        }
    })
}

fn candidates(batch: WireCandidates) -> Result<Candidates, Malformed> {
    let credentials = if batch.ufrag.is_empty() && batch.pwd.is_empty() {
        None
    } else {
        Some(super::IceCredentials { ufrag: batch.ufrag, pwd: batch.pwd })
    };
    Ok(Candidates {
        session: session_id(&batch.session)?,
        generation: batch.generation,
        credentials,
        candidates: read_candidates(&batch.candidates)?,
        end: batch.end,
        mac: optional(&batch.mac, "the MAC is not 16 bytes")?,
    })
}

/// The rules that hold for a message whichever way it goes.
fn check(message: &Message) -> Result<(), Malformed> {
    match message {
        Message::Offer(Offer { noise, .. }) | Message::Answer(Answer { noise, .. }) => {
            if (MIN_NOISE..=MAX_NOISE).contains(&noise.len()) {
                Ok(())
            } else {
                Err(Malformed("the Noise message has an impossible length"))
            }
        }
        Message::Candidates(batch) => {
            if batch.candidates.len() > MAX_CANDIDATES {
                return Err(Malformed("more than 32 candidates"));
            }
            match (batch.generation, &batch.credentials, batch.mac) {
                (0, None, None) => Ok(()),
                (0, ..) => Err(Malformed("generation 0 with credentials or a MAC")),
                (_, Some(credentials), Some(_)) => check_credentials(credentials),
                _ => Err(Malformed("a restart without credentials or a MAC")),
            }
        }
        Message::Hello(_) | Message::Bye(_) => Ok(()),
        Message::Relayed(inner) => match **inner {
            Message::Candidates(_) | Message::Relayed(_) => Err(NOT_RELAYED),
            _ => check(inner),
        },
    }
}

#[cfg(test)]
mod tests;
