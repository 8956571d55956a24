//! Signaling: all that travels before a session exists.

mod message;

pub use message::{
    Answer, Bye, Candidate, CandidateKind, Candidates, Capabilities, Challenge, Description,
    DtlsRole, Hello, IceCredentials, Message, Offer, SessionId,
};
