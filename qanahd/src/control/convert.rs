//! From the daemon's types to those of the API, and from its errors to statuses: the only map.

use std::time::Duration;

use qanah_core::diagnosis::Nat;
use qanah_core::policy::Denial;
use qanah_proto::{status_with_detail, v1};
use thiserror::Error;
use tonic::{Code, Status};

use super::report::{
    BrokerReport, CandidateKind, CandidateReport, CarriedReport, Drops, PathReport, PeerReport,
    PeerState, PortReport, RelayingReport, ServerKind, ServerReport, ServerState, StatusReport,
    Traffic, TunnelReport,
};
use super::request::{CheckDone, ReloadDone, UpDone};
use crate::tunnel::pairing::{AnswerMade, OfferMade, PairingError};

/// Why the daemon cannot do what it was asked.
///
/// Its texts go to callers who may not be root: they name nothing from inside of a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ControlFailure {
    /// No tunnel has that name.
    #[error("there is no tunnel {name:?} here{}", known_names(.known))]
    UnknownTunnel {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Nothing can have that name.
    #[error("{name:?} cannot be the name of a tunnel: {error}")]
    InvalidName {
        /// What was asked for; capped in length by [`ControlFailure::invalid_name`].
        name: String,
        /// What is wrong with it.
        error: String,
    },
    /// The tunnel is up, or about to be.
    #[error("the tunnel {name} is {} already", if *.coming { "coming up" } else { "up" })]
    AlreadyUp {
        /// Its name.
        name: String,
        /// It is not up yet.
        coming: bool,
    },
    /// The text of the configuration has a mistake, or asks for what it may not.
    #[error("{0}")]
    BadConfig(String),
    /// The configuration file is missing, or not one that may be used.
    #[error("{0}")]
    ConfigFile(String),
    /// A hook failed.
    #[error("{0}; whatever was done is undone")]
    HookFailed(String),
    /// The machine does not allow the tunnel, or it ended.
    #[error("{0}")]
    StartFailed(String),
    /// The daemon serves one tunnel, whose life is its own.
    #[error("{0}")]
    OneTunnel(String),
    /// No such peer, or several that fit.
    #[error("{0}")]
    UnknownPeer(String),
    /// A text carried by hand cannot be used.
    #[error("{0}")]
    BadText(String),
    /// An option, or a part of a request, cannot be used.
    #[error("{0}")]
    BadOption(String),
    /// Not now, for this reason.
    #[error("{0}")]
    TooMuch(String),
    /// It took longer than it may.
    #[error("this took longer than {} s; the daemon may still be at it", .0.as_secs())]
    TimedOut(Duration),
    /// The policy says no.
    #[error("{0}")]
    Denied(#[from] Denial),
    /// The daemon has too much to do.
    #[error("the daemon is busy; try again")]
    Busy,
    /// The daemon is on its way out.
    #[error("the daemon is stopping")]
    Stopping,
    /// A fault of the daemon, which belongs into its log and not into the answer.
    #[error("internal fault; see the log of the daemon (journalctl -t qanahd)")]
    Internal,
}

impl ControlFailure {
    /// A refused name, shortened so that the answer cannot be made long by the question.
    pub(crate) fn invalid_name(name: &str, error: impl ToString) -> Self {
        Self::InvalidName { name: name.chars().take(32).collect(), error: error.to_string() }
    }
}

impl From<PairingError> for ControlFailure {
    fn from(error: PairingError) -> Self {
        let text = error.to_string();
        match error {
            PairingError::UnknownPeer { .. } | PairingError::Ambiguous { .. } => {
                Self::UnknownPeer(text)
            }
            PairingError::BadText(_) => Self::BadText(text),
            PairingError::NotReady(_) => Self::StartFailed(text),
            PairingError::Busy => Self::TooMuch(text),
        }
    }
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; there is {}", known.join(", ")) }
}

impl From<ControlFailure> for Status {
    fn from(failure: ControlFailure) -> Self {
        let (code, reason) = match &failure {
            ControlFailure::UnknownTunnel { .. } => (Code::NotFound, v1::Reason::UnknownTunnel),
            ControlFailure::InvalidName { .. } => (Code::InvalidArgument, v1::Reason::InvalidName),
            ControlFailure::AlreadyUp { .. } => (Code::AlreadyExists, v1::Reason::AlreadyUp),
            ControlFailure::BadConfig(_) => (Code::FailedPrecondition, v1::Reason::BadConfig),
            ControlFailure::ConfigFile(_) => (Code::FailedPrecondition, v1::Reason::ConfigFile),
            ControlFailure::HookFailed(_) => (Code::FailedPrecondition, v1::Reason::HookFailed),
            ControlFailure::StartFailed(_) => (Code::FailedPrecondition, v1::Reason::StartFailed),
            ControlFailure::OneTunnel(_) => (Code::FailedPrecondition, v1::Reason::OneTunnel),
            ControlFailure::UnknownPeer(_) => (Code::NotFound, v1::Reason::UnknownPeer),
            ControlFailure::BadText(_) => (Code::InvalidArgument, v1::Reason::BadText),
            ControlFailure::BadOption(_) => (Code::InvalidArgument, v1::Reason::BadOption),
            ControlFailure::TooMuch(_) => (Code::ResourceExhausted, v1::Reason::Busy),
            ControlFailure::TimedOut(_) => (Code::DeadlineExceeded, v1::Reason::Busy),
            ControlFailure::Denied(Denial::NoIdentity) => {
                (Code::PermissionDenied, v1::Reason::NoIdentity)
            }
            ControlFailure::Denied(Denial::RootOnly | Denial::Privileged(_)) => {
                (Code::PermissionDenied, v1::Reason::RootOnly)
            }
            // The code of gRPC for it, so that a newer client knows an older daemon by it.
            ControlFailure::Denied(Denial::UnknownMethod) => {
                (Code::Unimplemented, v1::Reason::UnknownMethod)
            }
            ControlFailure::Busy => (Code::ResourceExhausted, v1::Reason::Busy),
            ControlFailure::Stopping => (Code::Unavailable, v1::Reason::Stopping),
            ControlFailure::Internal => (Code::Internal, v1::Reason::Internal),
        };
        let message = failure.to_string();
        let known_tunnels = match failure {
            ControlFailure::UnknownTunnel { known, .. } => known,
            _ => Vec::new(),
        };
        let detail = v1::ErrorDetail { reason: reason.into(), known_tunnels };
        status_with_detail(code, message, &detail)
    }
}

impl From<UpDone> for v1::UpResponse {
    fn from(done: UpDone) -> Self {
        Self { tunnel: Some(done.tunnel.into()), notes: done.notes }
    }
}

impl From<ReloadDone> for v1::ReloadResponse {
    fn from(done: ReloadDone) -> Self {
        Self { changes: done.changes, notes: done.notes }
    }
}

impl From<CheckDone> for v1::CheckResponse {
    fn from(done: CheckDone) -> Self {
        Self { description: done.description, refusals: done.refusals }
    }
}

impl From<OfferMade> for v1::OfferResponse {
    fn from(made: OfferMade) -> Self {
        let lifetime_seconds = u32::try_from(made.lifetime.as_secs()).unwrap_or(u32::MAX);
        Self { text: made.text, lifetime_seconds, peers: made.peers }
    }
}

impl From<AnswerMade> for v1::AnswerResponse {
    fn from(made: AnswerMade) -> Self {
        Self { text: made.text, peer: made.peer }
    }
}

impl From<StatusReport> for v1::StatusResponse {
    fn from(report: StatusReport) -> Self {
        Self { version: super::VERSION.to_owned(), tunnels: all(report.tunnels) }
    }
}

impl From<TunnelReport> for v1::Tunnel {
    fn from(report: TunnelReport) -> Self {
        Self {
            name: report.name,
            public_key: report.public_key.to_string(),
            addresses: texts(&report.addresses),
            mtu: report.mtu,
            uptime_seconds: report.uptime.as_secs(),
            signaling: Some(v1::Signaling { brokers: all(report.brokers) }),
            peers: all(report.peers),
            drops: counts(report.drops),
            relaying: report.relaying.map(Into::into),
            servers: all(report.servers),
            nat: nat(report.nat).into(),
            listen_port: report.listen_port.map(Into::into),
        }
    }
}

const fn nat(nat: Nat) -> v1::Nat {
    match nat {
        Nat::Unknown => v1::Nat::Unspecified,
        Nat::NoUdp => v1::Nat::NoUdp,
        Nat::None => v1::Nat::None,
        Nat::Independent => v1::Nat::EndpointIndependent,
        Nat::Dependent => v1::Nat::AddressDependent,
        Nat::SomeKind => v1::Nat::SomeKind,
    }
}

impl From<PortReport> for v1::ListenPort {
    fn from(report: PortReport) -> Self {
        Self { port: report.port.into(), error: report.trouble.unwrap_or_default() }
    }
}

impl From<RelayingReport> for v1::Relaying {
    fn from(report: RelayingReport) -> Self {
        Self {
            limit_per_pair: report.limit_per_pair,
            limit_in_all: report.limit_in_all,
            pairs: all(report.pairs),
        }
    }
}

impl From<CarriedReport> for v1::Carried {
    fn from(report: CarriedReport) -> Self {
        let CarriedReport { from, to, frames, bytes, dropped } = report;
        Self { from, to, frames, bytes, dropped }
    }
}

impl From<ServerReport> for v1::Server {
    fn from(report: ServerReport) -> Self {
        let kind = match report.kind {
            ServerKind::Stun => v1::ServerKind::Stun,
            ServerKind::Turn => v1::ServerKind::Turn,
        };
        let (state, error) = match report.state {
            ServerState::Unknown => (v1::ServerState::Unspecified, String::new()),
            ServerState::Works => (v1::ServerState::Works, String::new()),
            ServerState::Trouble(text) => (v1::ServerState::Trouble, text),
        };
        let since_seconds = report.since.as_secs();
        Self { url: report.url, kind: kind.into(), state: state.into(), error, since_seconds }
    }
}

impl From<BrokerReport> for v1::Broker {
    fn from(report: BrokerReport) -> Self {
        Self {
            label: report.label,
            connected: report.connected,
            error: report.error.unwrap_or_default(),
            since_seconds: report.since.as_secs(),
        }
    }
}

impl From<PeerReport> for v1::Peer {
    fn from(report: PeerReport) -> Self {
        Self {
            name: report.name.unwrap_or_default(),
            public_key: report.public_key.to_string(),
            allowed_ips: texts(&report.allowed_ips),
            state: v1::PeerState::from(report.state).into(),
            reason: report.reason,
            next_try_seconds: report.next_try.map(ceil_seconds),
            path: report.path.map(Into::into),
            rtt_micros: report.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            last_handshake_seconds: report.last_handshake.map(|age| age.as_secs()),
            received: Some(report.received.into()),
            sent: Some(report.sent.into()),
            drops: counts(report.drops),
        }
    }
}

impl From<PeerState> for v1::PeerState {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Idle => Self::Idle,
            PeerState::WaitingForSignaling => Self::WaitingForSignaling,
            PeerState::Connecting => Self::Connecting,
            PeerState::Connected => Self::Connected,
            PeerState::Recovering => Self::Recovering,
        }
    }
}

impl From<PathReport> for v1::Path {
    fn from(report: PathReport) -> Self {
        match report {
            PathReport::Direct { local, remote, packet_size } => Self {
                kind: v1::PathKind::Direct.into(),
                via: String::new(),
                local: local.map(Into::into),
                remote: remote.map(Into::into),
                packet_size: packet_size.map(Into::into),
            },
            PathReport::Relay { via } => {
                let kind = v1::PathKind::Relay.into();
                Self { kind, via, local: None, remote: None, packet_size: None }
            }
        }
    }
}

impl From<CandidateReport> for v1::Candidate {
    fn from(report: CandidateReport) -> Self {
        let kind = match report.kind {
            CandidateKind::Host => v1::CandidateKind::Host,
            CandidateKind::ServerReflexive => v1::CandidateKind::ServerReflexive,
            CandidateKind::PeerReflexive => v1::CandidateKind::PeerReflexive,
            CandidateKind::Relayed => v1::CandidateKind::Relayed,
        };
        Self { kind: kind.into(), address: report.address.to_string() }
    }
}

impl From<Traffic> for v1::Traffic {
    fn from(traffic: Traffic) -> Self {
        Self { packets: traffic.packets, bytes: traffic.bytes }
    }
}

fn all<A, B: From<A>>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

fn counts(drops: Drops) -> std::collections::BTreeMap<String, u64> {
    drops.into_iter().map(|(cause, count)| (cause.to_owned(), count)).collect()
}

/// "Next try in 0 s" would read as if it were late, so a part of a second counts as one.
fn ceil_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use qanah_core::policy::{NameError, Privilege};
    use qanah_proto::error_detail;

    use super::*;

    #[test]
    fn failures_become_codes_with_typed_reasons() {
        let unknown = || ControlFailure::UnknownTunnel {
            name: "x".into(),
            known: vec!["peer1".into(), "peer2".into()],
        };
        let cases = [
            (unknown(), Code::NotFound, v1::Reason::UnknownTunnel),
            (
                ControlFailure::invalid_name("a/b", NameError),
                Code::InvalidArgument,
                v1::Reason::InvalidName,
            ),
            (Denial::NoIdentity.into(), Code::PermissionDenied, v1::Reason::NoIdentity),
            (
                Denial::Privileged(Privilege::ConfigText).into(),
                Code::PermissionDenied,
                v1::Reason::RootOnly,
            ),
            (
                ControlFailure::AlreadyUp { name: "x".into(), coming: true },
                Code::AlreadyExists,
                v1::Reason::AlreadyUp,
            ),
            (PairingError::Busy.into(), Code::ResourceExhausted, v1::Reason::Busy),
            (
                ControlFailure::OneTunnel("x".into()),
                Code::FailedPrecondition,
                v1::Reason::OneTunnel,
            ),
            (Denial::RootOnly.into(), Code::PermissionDenied, v1::Reason::RootOnly),
            (Denial::UnknownMethod.into(), Code::Unimplemented, v1::Reason::UnknownMethod),
            (ControlFailure::Busy, Code::ResourceExhausted, v1::Reason::Busy),
            (ControlFailure::Stopping, Code::Unavailable, v1::Reason::Stopping),
            (ControlFailure::Internal, Code::Internal, v1::Reason::Internal),
        ];
        for (failure, code, reason) in cases {
            let status = Status::from(failure);
            assert_eq!(status.code(), code);
            assert_eq!(error_detail(&status).unwrap().reason(), reason);
        }
        let status = Status::from(unknown());
        assert_eq!(status.message(), "there is no tunnel \"x\" here; there is peer1, peer2");
        assert_eq!(error_detail(&status).unwrap().known_tunnels, ["peer1", "peer2"]);
    }

    #[test]
    fn a_long_name_makes_no_long_answer() {
        let status = Status::from(ControlFailure::invalid_name(&"é".repeat(9999), NameError));
        assert!(status.message().len() < 300);
    }

    #[test]
    fn a_next_try_is_rounded_up() {
        assert_eq!(ceil_seconds(Duration::from_millis(1)), 1);
        assert_eq!(ceil_seconds(Duration::from_secs(3)), 3);
    }
}
