//! The life of a session with one peer, as a machine without I/O.
//!
//! [`Machine`] is told what happened (a signaling message, a description that the WebRTC stack
//! made, a channel that opened, time that passed) and says what to do by [`Output`]s. It decides
//! everything about hello, offer and answer, retry, replacement of a session by a newer one, the
//! death of a path and its repair. `proto/PROTOCOL.md`, sections 5, 8 and 10, is its specification.
//!
//! | file | what |
//! |---|---|
//! | `machine` | one peer: inputs, timers, outputs |
//! | `wish` | whether a session is sought, and whether the peer can hear of it |
//! | `hello` | freshness by challenge; who offers and when |
//! | `attempt` | offer, answer, channel, confirmation |
//! | `hand` | offers and answers that people carry |
//! | `rekey` | new keys for a session |
//! | `live` | dead paths, ICE restarts, renewal, replacement |
//! | `better` | another path than one by TURN, and IPv6 when it comes |
//! | `path_mtu` | larger packets where the path takes them |
//! | `pulse` | when to ping, and what the answers tell |
//!
//! A peer has two machines: one for direct sessions and one for those by a relay, which have no WebRTC connection of
//! their own ([`SessionKind`]). [`crate::mesh`] decides which of them is used.

mod attempt;
mod better;
mod hand;
mod hello;
pub mod limits;
mod live;
mod machine;
mod pace;
mod path_mtu;
mod pending;
mod pulse;
mod rekey;
mod state;
#[cfg(test)]
mod tests;
mod trickle;
mod wish;

use std::time::Duration;

use zeroize::Zeroizing;

pub use better::PathClass;
pub use hand::{EndedOffer, HandError};
pub use machine::{Machine, SessionKind, Settings};
pub use rekey::RekeyMessage;
pub use state::{Phase, View};

use crate::frame::Control;
use crate::signal::{Candidate, Capabilities, IceCredentials, Message, RtcDescription, SessionId};

/// What the machine wants done.
#[derive(Debug)]
pub enum Output {
    /// Seal this message and publish it to the peer.
    Send(Message),
    /// This offer or answer by hand is ready for people to carry.
    ByHand(SessionId, Message),
    /// An offer or answer by hand ended before it could be carried, and why.
    HandFailed(SessionId, String),
    /// Do this with the WebRTC connection of a session. A session by a relay is only ever closed.
    Rtc(SessionId, RtcCommand),
    /// The channel of a session is open, or it needs none: make its sealer and opener.
    Install(SessionId, Install),
    /// Seal this control frame under the keys of a session and send it.
    SendControl(SessionId, Control<'static>),
    /// Seal this control frame of a rekey under the keys in use and send it.
    SendRekey(SessionId, RekeyMessage),
    /// A session has new keys: frames under them may come from now on, beside those under the keys
    /// in use. Nothing is sealed under them yet.
    InstallKeys(SessionId, Install),
    /// Seal under the keys with this local index from now on; forget the sealer before it.
    ActivateKeys(SessionId, u32),
    /// Forget the keys with this local index: nothing is opened under them any more.
    DropKeys(SessionId, u32),
    /// Packets to the peer go by this session from now on.
    Activate(SessionId),
    /// No session takes packets to the peer any more.
    Deactivate,
    /// Something that people want to see in the log.
    Event(Event),
}

/// What to do with the WebRTC connection of a session.
#[derive(Debug)]
pub enum RtcCommand {
    /// Create it as the offerer and report its description.
    Offer {
        /// How long ICE must go on without being answered, where that is longer than usual.
        patience: Option<Duration>,
        /// Largest SCTP packet to send, in bytes.
        packet_size: u16,
    },
    /// Create it as the answerer of this description and report its own.
    Answer {
        /// What the offerer said.
        remote: Box<RtcDescription>,
        /// As in an offer.
        patience: Option<Duration>,
        /// As in an offer.
        packet_size: u16,
    },
    /// The peer answered with this description.
    AcceptAnswer(Box<RtcDescription>),
    /// The peer told these candidates.
    AddCandidates {
        /// The ICE generation they belong to.
        generation: u32,
        /// At most 32.
        candidates: Vec<Candidate>,
    },
    /// Begin this ICE generation and report its credentials.
    BeginRestart {
        /// One more than the last.
        generation: u32,
    },
    /// The peer began an ICE generation: follow and report our credentials.
    AnswerRestart {
        /// The generation that the peer began.
        generation: u32,
        /// The peer's credentials in it.
        credentials: IceCredentials,
    },
    /// The peer followed into the generation that we began.
    FinishRestart {
        /// The generation.
        generation: u32,
        /// The peer's credentials in it.
        credentials: IceCredentials,
    },
    /// Close it, and forget its keys. Also for a session by a relay.
    Close,
}

/// What the data path needs for a session. Handed out once.
pub struct Install {
    /// Seals frames to the peer.
    pub send_key: Zeroizing<[u8; 32]>,
    /// Opens frames of the peer.
    pub recv_key: Zeroizing<[u8; 32]>,
    /// The receiver index in frames to the peer.
    pub remote_index: u32,
    /// The receiver index in frames of the peer.
    pub local_index: u32,
    /// What the peer can do.
    pub capabilities: Capabilities,
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Install").field("remote_index", &self.remote_index).finish_non_exhaustive()
    }
}

/// Something that people want to see in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first frame of a session was opened.
    Connected {
        /// The session.
        session: SessionId,
        /// It took over from another one.
        replaced: bool,
    },
    /// The peer is not reachable any more.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// An attempt ended without a session.
    AttemptFailed {
        /// Why.
        reason: String,
    },
    /// The live session has new keys.
    Rekeyed,
    /// Nothing came for a while; an ICE restart is under way.
    PathLost,
    /// Frames came again after [`Event::PathLost`].
    PathRestored,
    /// A session with larger packets took over.
    LargerPackets {
        /// Largest SCTP packet that we send, in bytes.
        size: u16,
    },
    /// The path does not take packets of this size.
    LargerRefused {
        /// SCTP packet in bytes.
        size: u16,
        /// What it takes, as far as it is known, in bytes.
        passed: u16,
    },
    /// The path does not take the packets of the live session any more.
    PathNarrowed,
}
