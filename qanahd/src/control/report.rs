//! What the daemon reports about itself, in its own types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use qanah_core::diagnosis::Nat;
use qanah_core::key::PublicKey;

pub(crate) use crate::rtc::{PortReport, ServerKind, ServerReport, ServerState};

/// Counts of dropped packets and frames by their cause. The names are part of the API.
pub(crate) type Drops = BTreeMap<&'static str, u64>;

/// The state of all tunnels that were asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusReport {
    /// In the order in which they came up.
    pub(crate) tunnels: Vec<TunnelReport>,
}

/// The state of one tunnel.
#[derive(Debug, Clone)]
pub(crate) struct TunnelReport {
    /// Name of tunnel and interface.
    pub(crate) name: String,
    /// Our public key.
    pub(crate) public_key: PublicKey,
    /// Addresses of the interface.
    pub(crate) addresses: Vec<IpNet>,
    /// MTU of the interface, in bytes.
    pub(crate) mtu: u32,
    /// Since the interface came up.
    pub(crate) uptime: Duration,
    /// One for each broker in use.
    pub(crate) brokers: Vec<BrokerReport>,
    /// STUN and TURN servers.
    pub(crate) servers: Vec<ServerReport>,
    /// What is between this machine and the Internet.
    pub(crate) nat: Nat,
    /// `ListenPort`, where there is one.
    pub(crate) listen_port: Option<PortReport>,
    /// In the order of the configuration.
    pub(crate) peers: Vec<PeerReport>,
    /// What was dropped before it belonged to a peer.
    pub(crate) drops: Drops,
    /// What it carries for others; absent where relaying is off.
    pub(crate) relaying: Option<RelayingReport>,
}

/// What a tunnel carries for others.
#[derive(Debug, Clone)]
pub(crate) struct RelayingReport {
    /// Bytes that may wait for one peer from one other.
    pub(crate) limit_per_pair: u64,
    /// Bytes that may wait for one peer from all others.
    pub(crate) limit_in_all: u64,
    /// What was carried since the tunnel came up.
    pub(crate) pairs: Vec<CarriedReport>,
}

/// What was carried from one peer to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CarriedReport {
    /// Name or short key of the source.
    pub(crate) from: String,
    /// Name or short key of the destination.
    pub(crate) to: String,
    /// Frames, or packets of strangers, that were passed on.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that were not.
    pub(crate) dropped: u64,
}

/// The state of one broker.
#[derive(Debug, Clone)]
pub(crate) struct BrokerReport {
    /// Its URL without user and password.
    pub(crate) label: String,
    /// Whether it is connected and subscribed.
    pub(crate) connected: bool,
    /// Why not, if the last attempt failed.
    pub(crate) error: Option<String>,
    /// Since the last change of `connected`.
    pub(crate) since: Duration,
}

/// What a peer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// Nothing is tried before there is traffic for it.
    Idle,
    /// Nothing was heard from it yet.
    WaitingForSignaling,
    /// An attempt is running.
    Connecting,
    /// A confirmed session with a path that answers.
    Connected,
    /// The path of the session is lost.
    Recovering,
}

/// The state of one peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerReport {
    /// Its name from the configuration.
    pub(crate) name: Option<String>,
    /// Its public key.
    pub(crate) public_key: PublicKey,
    /// Prefixes that belong to it.
    pub(crate) allowed_ips: Vec<IpNet>,
    /// What it is doing.
    pub(crate) state: PeerState,
    /// Why, for a person; may be empty.
    pub(crate) reason: String,
    /// Until the next attempt, if one is planned.
    pub(crate) next_try: Option<Duration>,
    /// The path in use, with a session.
    pub(crate) path: Option<PathReport>,
    /// Round-trip time of the whole way.
    pub(crate) rtt: Option<Duration>,
    /// Since the last completed handshake.
    pub(crate) last_handshake: Option<Duration>,
    /// Accepted from the peer.
    pub(crate) received: Traffic,
    /// Sent to the peer.
    pub(crate) sent: Traffic,
    /// What was dropped.
    pub(crate) drops: Drops,
}

/// How frames travel to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathReport {
    /// A session of its own; the ends are known once ICE has nominated a pair.
    Direct {
        /// Our end.
        local: Option<CandidateReport>,
        /// The peer's end.
        remote: Option<CandidateReport>,
        /// Largest SCTP packet that we send, in bytes.
        packet_size: Option<u16>,
    },
    /// Through the peer of this name.
    Relay {
        /// Name or short key.
        via: String,
    },
}

/// Kinds of ICE candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CandidateKind {
    /// The machine's own address.
    Host,
    /// Outside of a NAT, seen by STUN.
    ServerReflexive,
    /// Outside of a NAT, seen by the peer.
    PeerReflexive,
    /// On a TURN server.
    Relayed,
}

/// One end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CandidateReport {
    /// Its kind.
    pub(crate) kind: CandidateKind,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

/// Counters of inner packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Inner IP packets.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}
