//! WebRTC connections: the only place that imports `webrtc`.
//!
//! A [`Connection`] is one peer connection with one data channel. It takes and gives the few fields
//! of an [`RtcDescription`](qanah_core::signal::RtcDescription), never SDP: the SDP that `webrtc` wants is built here
//! from a template, so that no text of a stranger reaches a parser.
//! What happens is told through an [`EventSink`].
//!
//! Everything is meant to run on one current-thread tokio runtime. `webrtc` gets a runtime of ours
//! (`runtime`), which gives it UDP sockets that batch (`socket`) and carry messages to TURN servers
//! over streams (`turn`), and a resolver that never waits (`resolve`).

mod admission;
mod batch;
mod candidate;
mod channel;
mod connection;
mod handler;
mod health;
mod names;
mod options;
mod port;
mod ported;
mod progress;
mod resolve;
mod room;
mod runtime;
mod sdp;
mod sightings;
mod socket;
mod taken;
#[cfg(test)]
mod tests;
mod told;
mod turn;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qanah_core::session::limits::BASE_PACKET;
use qanah_core::signal::{Candidate, CandidateKind};

pub(crate) use self::channel::{Channel, ChannelReceiver, ChannelSender, SendError};
pub(crate) use self::connection::{Connection, Restart};
pub(crate) use self::health::{Health, ServerKind, ServerReport, ServerState};
pub(crate) use self::port::Port;
pub(crate) use self::progress::Progress;
pub(crate) use self::resolve::Resolver;
pub(crate) use self::room::packet_room;
pub(crate) use self::taken::PortReport;
pub(crate) use self::told::Foreign;
pub(crate) use self::turn::{Carrier, Login, TrustError, TurnServer, client_config};

use crate::dial::Dialer;

/// Label of the one data channel.
pub(crate) const CHANNEL_LABEL: &str = "vpn-tunnel";

/// The SCTP port that `webrtc` speaks, on both sides (RFC 8841, section 5).
pub(crate) const SCTP_PORT: u16 = 5000;

/// How a connection is made.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Addresses to gather candidates from. Nothing else is bound, ever; an empty list is an error.
    pub(crate) local_addresses: Vec<IpAddr>,
    /// STUN servers, as `stun:HOST:PORT`.
    pub(crate) stun: Vec<String>,
    /// TURN servers.
    pub(crate) turn: Vec<TurnServer>,
    /// Use relayed candidates alone.
    pub(crate) relay_only: bool,
    /// Largest SCTP packet in bytes.
    pub(crate) sctp_mtu: u16,
    /// Largest message in bytes that we take, at most 256 KiB.
    pub(crate) max_message_size: u32,
    /// Bytes that may wait in the channel, sent but not acknowledged.
    pub(crate) send_buffer: usize,
    /// Bytes that the other side may have on the way to us: SCTP's receive window.
    pub(crate) receive_buffer: u32,
    /// How often a lost message is sent again; `None` is reliable. The offerer decides.
    pub(crate) max_retransmits: Option<u16>,
    /// UDP port of the host candidates; any when absent. Share one among all connections of a tunnel.
    pub(crate) port: Option<Port>,
    /// Firewall mark of all packets (`SO_MARK`).
    pub(crate) fw_mark: Option<u32>,
    /// How long the first checks go on without an answer, at least (and by default) 12 s. An answer that is carried by
    /// hand needs more: the answerer's ICE is over when this has passed.
    pub(crate) patience: Duration,
    /// Looks up the names in `stun` and `turn`. Share one among all connections of a tunnel.
    pub(crate) resolver: Resolver,
    /// How TURN servers over TCP and TLS are reached: straight, or through a proxy. Its resolver and its mark
    /// are replaced by those above.
    pub(crate) dialer: Dialer,
    /// What is known of the servers. Share one among all connections of a tunnel.
    pub(crate) health: Health,
    /// Where no peer is reached. Share one among all connections of a tunnel.
    pub(crate) foreign: Foreign,
    /// Word of channels that may have room again. Share one among all connections of a tunnel.
    pub(crate) progress: Progress,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            local_addresses: Vec::new(),
            stun: Vec::new(),
            turn: Vec::new(),
            relay_only: false,
            sctp_mtu: BASE_PACKET,
            max_message_size: 256 * 1024,
            send_buffer: qanah_core::window::MOST + 1024 * 1024,
            receive_buffer: 4 * 1024 * 1024,
            max_retransmits: None,
            port: None,
            fw_mark: None,
            patience: Duration::from_secs(12),
            resolver: Resolver::default(),
            dialer: Dialer::default(),
            health: Health::default(),
            foreign: Foreign::default(),
            progress: Progress::default(),
        }
    }
}

impl Settings {
    /// Begins to look up the names of the servers, so that they are known when the first connection is
    /// made. Returns at once.
    pub(crate) fn prefetch(&self) {
        self.resolver.prefetch(self.stun.iter().map(String::as_str));
        // A server behind a proxy is looked up by that.
        let straight = |server: &&TurnServer| {
            !server.is_stream() || !self.dialer.is_proxied(&server.host, server.port)
        };
        let turn: Vec<_> = self.turn.iter().filter(straight).map(TurnServer::url).collect();
        self.resolver.prefetch(turn.iter().map(String::as_str));
    }
}

/// One end of the path that ICE chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectedCandidate {
    /// What kind of address it is. A local one behind a NAT shows as host: checks leave from the base.
    pub(crate) kind: CandidateKind,
    /// The address.
    pub(crate) address: SocketAddr,
}

/// What happened to a connection.
pub(crate) enum RtcEvent {
    /// A candidate to tell the other side.
    LocalCandidate {
        /// 0, and one more for each ICE restart.
        generation: u32,
        /// The candidate.
        candidate: Candidate,
    },
    /// No more candidates will come for this generation. Wait for it with a limit: it comes some 10 s late
    /// when a STUN server does not answer, and never when a TURN server does not.
    GatheringDone {
        /// The generation.
        generation: u32,
    },
    /// The data channel is open.
    ChannelOpen(Channel),
    /// ICE has a working path, or has it back.
    IceConnected {
        /// Our end.
        local: SelectedCandidate,
        /// The other end.
        remote: SelectedCandidate,
    },
    /// Nothing was heard for some seconds. It may come back by itself.
    IceDisconnected,
    /// The path is dead. An ICE restart may find another.
    IceFailed,
    /// The connection is over for good. Comes once, and not after [`Connection::close`].
    Closed {
        /// Why, for the log.
        reason: String,
    },
}

/// Where events go. Called from the driver of the connection: it must return at once and not call
/// back into the connection. Few events come: candidates and changes of state, never frames.
pub(crate) type EventSink = Arc<dyn Fn(RtcEvent) + Send + Sync>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RtcError {
    /// `local_addresses` is empty, or none could be bound.
    #[error("no local address to connect from")]
    NoAddresses,
    /// The other side's description asks for what we do not do.
    #[error("unsupported description: {0}")]
    Unsupported(&'static str),
    /// A generation that is over, or not begun.
    #[error("ICE generation {0} is not the current one")]
    Generation(u32),
    /// `webrtc` made a description that we do not understand.
    #[error("local description lacks {0}")]
    LocalDescription(&'static str),
    /// Any other failure of `webrtc`.
    #[error("webrtc: {0}")]
    Rtc(#[from] webrtc::error::Error),
}
