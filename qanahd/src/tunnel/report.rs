//! How a tunnel looks from outside.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use qanah_core::config::{Config, TunnelName};
use qanah_core::diagnosis::{OwnSide, why_no_path};
use qanah_core::key::PublicKey;
use qanah_core::router::PeerId;
use qanah_core::session::{Phase, SessionKind, View};
use qanah_core::signal::CandidateKind as CoreKind;

use super::actor::Actor;
use super::members::Members;
use super::peer::Peer;
use crate::clock;
use crate::control::report::{
    CandidateKind, CandidateReport, CarriedReport, PathReport, PeerReport, PeerState,
    RelayingReport, Traffic, TunnelReport,
};
use crate::egress::{IN_ALL, PER_CLASS};
use crate::relay::RelayDesk;
use crate::rtc::{Port, SelectedCandidate};
use crate::stats::{self, Drops};

/// How long a sign of differing keys explains why a peer is not connected.
const FORGED_MATTERS: Duration = Duration::from_secs(120);

/// What a tunnel is, apart from its peers.
pub(super) struct Identity {
    pub(super) name: String,
    public_key: PublicKey,
    addresses: Vec<IpNet>,
    mtu: u32,
    since: Instant,
}

impl Identity {
    pub(super) fn new(name: &TunnelName, public_key: PublicKey, config: &Config) -> Self {
        Self {
            name: name.as_str().to_owned(),
            public_key,
            addresses: config.interface.addresses.clone(),
            mtu: config.interface.mtu,
            since: clock::now(),
        }
    }

    /// Another configuration is in force.
    pub(super) fn update(&mut self, config: &Config) {
        self.addresses.clone_from(&config.interface.addresses);
        self.mtu = config.interface.mtu;
    }

    /// The state of the tunnel, without what it carries for others.
    fn report(&self, members: &Members, drops: &Drops, side: Side, now: Instant) -> TunnelReport {
        TunnelReport {
            name: self.name.clone(),
            public_key: self.public_key,
            addresses: self.addresses.clone(),
            mtu: self.mtu,
            uptime: now.saturating_duration_since(self.since),
            brokers: Vec::new(),
            servers: Vec::new(),
            nat: side.own.nat,
            listen_port: None,
            peers: members
                .iter()
                .map(|member| PeerReport {
                    name: member.name.clone(),
                    allowed_ips: member.allowed_ips.clone(),
                    ..peer_report(members, &member.peer, side, now)
                })
                .collect(),
            drops: drops.report(),
            relaying: None,
        }
    }
}

/// What is true of all peers.
#[derive(Clone, Copy)]
struct Side {
    /// No broker is configured.
    by_hand: bool,
    own: OwnSide,
}

impl Actor {
    /// The state of the tunnel. The brokers are the daemon's to add.
    /// `by_hand` says that there are none.
    pub(super) fn report(&self, by_hand: bool, now: Instant) -> TunnelReport {
        let relaying = self.shared.desk.as_ref().map(|desk| relaying(&self.members, desk));
        let own = self.shared.connecting.rtc.health.own_side(now);
        let side = Side { by_hand, own };
        let report = self.identity.report(&self.members, &self.books.drops, side, now);
        let listen_port = self.shared.connecting.rtc.port.as_ref().map(Port::report);
        TunnelReport { relaying, listen_port, ..report }
    }
}

fn label(members: &Members, id: PeerId) -> String {
    members.get(id).map(|member| member.peer.label.clone()).unwrap_or_default()
}

fn relaying(members: &Members, desk: &RelayDesk) -> RelayingReport {
    let pairs = desk.books.carried().into_iter().map(|((from, to), carried)| CarriedReport {
        from: label(members, from),
        to: label(members, to),
        frames: carried.frames.get(),
        bytes: carried.bytes.get(),
        dropped: carried.dropped.get(),
    });
    RelayingReport {
        limit_per_pair: PER_CLASS as u64,
        limit_in_all: IN_ALL as u64,
        pairs: pairs.collect(),
    }
}

fn peer_report(members: &Members, peer: &Peer, side: Side, now: Instant) -> PeerReport {
    let direct = peer.paths.direct().view();
    let age = |at: Instant| now.saturating_duration_since(at);
    let (path, rtt) = match peer.paths.chosen() {
        Some((SessionKind::Direct, session)) => {
            let pair = peer.path(session);
            let local = pair.map(|(local, _)| candidate(local));
            let remote = pair.map(|(_, remote)| candidate(remote));
            let packet_size = direct.packet_size;
            (Some(PathReport::Direct { local, remote, packet_size }), direct.rtt)
        }
        Some((SessionKind::Relayed, _)) => {
            let via = peer.paths.via().map(|via| label(members, via)).unwrap_or_default();
            (Some(PathReport::Relay { via }), peer.paths.relayed().view().rtt)
        }
        None => (None, None),
    };
    let is_relayed = matches!(path, Some(PathReport::Relay { .. }));
    let is_idle = !peer.paths.is_wanted() && peer.paths.is_idle();
    let reason = reason(peer, &direct, side, now);
    PeerReport {
        name: None,
        public_key: peer.public_key,
        allowed_ips: Vec::new(),
        state: match direct.phase {
            _ if is_relayed => PeerState::Connected,
            _ if is_idle => PeerState::Idle,
            phase => state(phase),
        },
        reason: match direct.phase {
            _ if is_relayed && !reason.is_empty() => format!("no direct path: {reason}"),
            _ if is_relayed => "no direct path".to_owned(),
            _ if is_idle => "connects when there is traffic for it".to_owned(),
            _ => reason,
        },
        next_try: direct.next_try.map(|at| at.saturating_duration_since(now)),
        path,
        rtt,
        last_handshake: peer.handshake_at.map(age),
        received: traffic(&peer.stats.received),
        sent: traffic(&peer.stats.sent),
        drops: peer.stats.drops.report(),
    }
}

/// Why a peer is not connected, and what would help where the paths are to blame.
fn reason(peer: &Peer, view: &View, side: Side, now: Instant) -> String {
    let mut text = cause(peer, view, side.by_hand, now);
    if let Some((ours, theirs)) = peer.unreached().filter(|_| view.phase != Phase::Connected) {
        let why = why_no_path(side.own, ours, theirs);
        text = if text.is_empty() { why } else { format!("{text}: {why}") };
    }
    text
}

fn cause(peer: &Peer, view: &View, by_hand: bool, now: Instant) -> String {
    let forged = peer.forged_at.is_some_and(|at| now < at + FORGED_MATTERS);
    match (view.phase, forged) {
        (Phase::Waiting, true) => "PresharedKey differs, or forged messages".to_owned(),
        (Phase::NoSignaling, _) => {
            let cause = if by_hand { "signaling is by hand" } else { "no broker is connected" };
            view.detail.as_ref().map_or_else(|| cause.into(), |detail| format!("{cause}: {detail}"))
        }
        (Phase::Waiting, false) => {
            view.detail.clone().unwrap_or_else(|| "nothing heard from it yet".to_owned())
        }
        _ => view.detail.clone().unwrap_or_default(),
    }
}

const fn state(phase: Phase) -> PeerState {
    match phase {
        Phase::NoSignaling | Phase::Waiting => PeerState::WaitingForSignaling,
        Phase::Connecting => PeerState::Connecting,
        Phase::Connected => PeerState::Connected,
        Phase::Recovering => PeerState::Recovering,
    }
}

const fn candidate(selected: SelectedCandidate) -> CandidateReport {
    let kind = match selected.kind {
        CoreKind::Host => CandidateKind::Host,
        CoreKind::ServerReflexive => CandidateKind::ServerReflexive,
        CoreKind::PeerReflexive => CandidateKind::PeerReflexive,
        CoreKind::Relayed => CandidateKind::Relayed,
    };
    CandidateReport { kind, address: selected.address }
}

const fn traffic(counted: &stats::Traffic) -> Traffic {
    Traffic { packets: counted.packets.get(), bytes: counted.bytes.get() }
}
