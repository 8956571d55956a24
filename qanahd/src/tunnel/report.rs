//! How a tunnel looks from outside.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use qanah_core::config::{Config, TunnelName};
use qanah_core::key::PublicKey;
use qanah_core::session::{Phase, View};
use qanah_core::signal::CandidateKind as CoreKind;

use super::members::Members;
use super::peer::Peer;
use crate::control::report::{
    CandidateKind, CandidateReport, PathReport, PeerReport, PeerState, Traffic, TunnelReport,
};
use crate::rtc::SelectedCandidate;
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
            since: Instant::now(),
        }
    }

    /// Another configuration is in force.
    pub(super) fn update(&mut self, config: &Config) {
        self.addresses.clone_from(&config.interface.addresses);
        self.mtu = config.interface.mtu;
    }

    /// The state of the tunnel. The brokers are the daemon's to add.
    /// `by_hand` says that there are none.
    pub(super) fn report(
        &self,
        members: &Members,
        drops: &Drops,
        by_hand: bool,
        now: Instant,
    ) -> TunnelReport {
        TunnelReport {
            name: self.name.clone(),
            public_key: self.public_key,
            addresses: self.addresses.clone(),
            mtu: self.mtu,
            uptime: now.saturating_duration_since(self.since),
            brokers: Vec::new(),
            peers: members
                .iter()
                .map(|member| PeerReport {
                    name: member.name.clone(),
                    allowed_ips: member.allowed_ips.clone(),
                    ..peer_report(&member.peer, by_hand, now)
                })
                .collect(),
            drops: drops.report(),
        }
    }
}

fn peer_report(peer: &Peer, by_hand: bool, now: Instant) -> PeerReport {
    let view = peer.machine.view();
    let age = |at: Instant| now.saturating_duration_since(at);
    let path = view.session.map(|session| {
        let pair = peer.path(session);
        PathReport::Direct {
            local: pair.map(|(local, _)| candidate(local)),
            remote: pair.map(|(_, remote)| candidate(remote)),
        }
    });
    PeerReport {
        name: None,
        public_key: peer.public_key,
        allowed_ips: Vec::new(),
        state: state(view.phase),
        reason: reason(peer, &view, by_hand, now),
        next_try: view.next_try.map(|at| at.saturating_duration_since(now)),
        path,
        rtt: view.rtt,
        last_handshake: peer.handshake_at.map(age),
        received: traffic(&peer.stats.received),
        sent: traffic(&peer.stats.sent),
        drops: peer.stats.drops.report(),
    }
}

fn reason(peer: &Peer, view: &View, by_hand: bool, now: Instant) -> String {
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
