//! Signaling: all that travels before a session exists.

pub(crate) mod codec;
mod envelope;
pub(crate) mod kdf;
mod keys;
mod message;
mod name;
#[cfg(test)]
pub(crate) mod samples;
pub mod text;
#[cfg(test)]
pub(crate) mod vectors;

pub use codec::{MAX_CANDIDATES, MAX_DESCRIPTION, MAX_NOISE, may_be_peer};
pub use envelope::{Carrier, MAX_ENVELOPE, OpenError, SealError};
pub use kdf::VERSION;
pub(crate) use keys::agree;
pub use keys::{InboxId, KeyAgreementError, PairKeys};
pub use message::{
    Answer, Bye, Candidate, CandidateKind, Candidates, Capabilities, Challenge, Description,
    DtlsRole, Hello, IceCredentials, Message, Offer, RtcDescription, SessionId,
};
pub use name::PeerName;
