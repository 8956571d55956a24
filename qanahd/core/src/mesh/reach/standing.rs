//! What is told to [`Reach`](super::Reach) of peers, and what it tells.

use std::time::Duration;

use crate::router::PeerId;
use crate::signal::PeerName;

/// What a peer whose direct session works does for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    /// It passes frames on.
    pub relays: bool,
    /// It passes signaling on.
    pub signals: bool,
    /// Round-trip time to it, where it is known.
    pub rtt: Option<Duration>,
}

/// How a peer stands, for what it can do for others and others for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it carries, if its direct session works.
    pub carrier: Option<Carrier>,
    /// Other ways to it than a direct session are looked for.
    pub sought: bool,
    /// What comes back by the relay in use, as far as that is known.
    pub by_relay: Option<ByRelay>,
}

/// What comes back by a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByRelay {
    /// Nothing, for too long.
    Silent(PeerId),
    /// Answers, after this time.
    Answers(PeerId, Duration),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReachOutput {
    /// Ask this peer which of the others it reaches.
    Ask {
        /// Whom.
        carrier: PeerId,
        /// Comes back in the answer.
        id: u32,
        /// At most [`MAX_NAMES`](crate::frame::reach::MAX_NAMES).
        names: Vec<PeerName>,
    },
    /// By whom this peer is reached has changed.
    Changed {
        /// Which peer.
        peer: PeerId,
        /// Somebody passes messages on to it who did not before.
        fresh: bool,
    },
}
