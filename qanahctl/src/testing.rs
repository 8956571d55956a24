//! A daemon that says what a test wants, behind a real socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use futures_util::stream::{StreamExt as _, iter, pending, unfold};
use qanah_proto::status_with_detail;
use qanah_proto::v1::control_server::{Control, ControlServer};
use qanah_proto::v1::{self, Tunnel};
use tokio::net::UnixListener;
use tonic::{Code, Request, Response, Status};

/// The daemon; its server ends with the runtime of the test.
pub(crate) struct FakeDaemon {
    /// Its socket.
    pub(crate) path: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeDaemon {
    /// Serves `tunnels` at `NAME.sock` in `dir`.
    pub(crate) fn start(dir: &Path, name: &str, tunnels: Vec<Tunnel>) -> Self {
        let asked = Arc::default();
        let path = dir.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let incoming = unfold(listener, |listener| async {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            Some((stream, listener))
        });
        let server = tonic::transport::Server::builder()
            .add_service(ControlServer::new(Service { tunnels, asked: Arc::clone(&asked) }))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        Self { path, asked }
    }

    /// The requests that would change something, in their debug form.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

struct Service {
    tunnels: Vec<Tunnel>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn note(&self, request: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{request:?}"));
    }
}

/// Fails with a typed reason.
fn fail<T>(code: Code, reason: v1::Reason, message: &str) -> Result<T, Status> {
    let detail = v1::ErrorDetail { reason: reason.into(), known_tunnels: vec![] };
    Err(status_with_detail(code, message, &detail))
}

/// An offer as a daemon makes it.
pub(crate) const OFFER: &str = "qanah-offer-1.AAAABBBB\nCCCC.";
/// An answer as a daemon makes it.
pub(crate) const ANSWER: &str = "qanah-answer-1.DDDD.";

#[tonic::async_trait]
impl Control for Service {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let mut tunnels = self.tunnels.clone();
        match request.into_inner().tunnel.as_deref() {
            None => {}
            Some("denied") => return Err(Status::permission_denied("only root may do this")),
            Some(name) => tunnels.retain(|tunnel| tunnel.name == name),
        }
        if tunnels.is_empty() && !self.tunnels.is_empty() {
            let detail = v1::ErrorDetail {
                reason: v1::Reason::UnknownTunnel.into(),
                known_tunnels: self.tunnels.iter().map(|tunnel| tunnel.name.clone()).collect(),
            };
            return Err(status_with_detail(Code::NotFound, "there is no such tunnel", &detail));
        }
        Ok(Response::new(v1::StatusResponse { version: "9.8.7".into(), tunnels }))
    }

    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse { version: "9.8.7".into() }))
    }

    /// The new tunnel has one peer that is connected; `taken` is up, `hook` has a bad hook.
    async fn up(
        &self,
        request: Request<v1::UpRequest>,
    ) -> Result<Response<v1::UpResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        let name = match request.config.and_then(|config| config.source) {
            Some(v1::config_source::Source::Name(name)) => name,
            Some(v1::config_source::Source::Text(text)) => text.name,
            None => return Err(Status::invalid_argument("no source")),
        };
        let failed = Code::FailedPrecondition;
        match name.as_str() {
            "taken" => fail(Code::AlreadyExists, v1::Reason::AlreadyUp, "taken is up already"),
            "hook" => fail(failed, v1::Reason::HookFailed, "PostUp 1 failed: exit status 3"),
            "broken" => fail(failed, v1::Reason::BadConfig, "broken.conf:2: no key\nline 2"),
            "root" => fail(Code::PermissionDenied, v1::Reason::RootOnly, "only root may do this"),
            _ => Ok(Response::new(v1::UpResponse {
                tunnel: Some(tunnel(&name)),
                notes: vec!["ListenPort has no effect".into()],
            })),
        }
    }

    async fn down(
        &self,
        request: Request<v1::DownRequest>,
    ) -> Result<Response<v1::DownResponse>, Status> {
        self.note(&request.into_inner());
        Ok(Response::new(v1::DownResponse { notes: vec!["PostDown 1 failed: \x1b[1m".into()] }))
    }

    async fn reload(
        &self,
        request: Request<v1::ReloadRequest>,
    ) -> Result<Response<v1::ReloadResponse>, Status> {
        let name = request.into_inner().tunnel;
        let changes = if name == "same" { vec![] } else { vec!["peer3 is new".into()] };
        Ok(Response::new(v1::ReloadResponse { changes, notes: vec![] }))
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        self.note(&request.into_inner());
        let description = "interface: peer1\n  mtu: 1400\n".into();
        Ok(Response::new(v1::CheckResponse { description, refusals: vec!["line 3: no".into()] }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    /// Tells the state twice, then ends; that of the tunnel `lasting` never ends.
    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut tunnels = self.tunnels.clone();
        let name = request.into_inner().tunnel;
        let lasting = name.as_deref() == Some("lasting");
        if let Some(name) = name {
            tunnels = vec![tunnels.into_iter().find(|t| t.name == name).unwrap_or(tunnel(&name))];
        }
        let status = Some(v1::StatusResponse { version: "9.8.7".into(), tunnels });
        let response = v1::WatchResponse { status };
        let changes = iter([Ok(response.clone()), Ok(response)]);
        if lasting {
            return Ok(Response::new(Box::pin(changes.chain(pending()))));
        }
        Ok(Response::new(Box::pin(changes)))
    }

    async fn offer(
        &self,
        request: Request<v1::OfferRequest>,
    ) -> Result<Response<v1::OfferResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        let peers = match request.peer.as_deref() {
            Some("nobody") => {
                let message = "no peer is nobody; there is peer2";
                return fail(Code::NotFound, v1::Reason::UnknownPeer, message);
            }
            Some(peer) => vec![peer.to_owned()],
            None => vec!["peer2".to_owned(), "peer3".to_owned()],
        };
        let lifetime_seconds = request.lifetime_seconds.unwrap_or(3600);
        Ok(Response::new(v1::OfferResponse { text: OFFER.into(), lifetime_seconds, peers }))
    }

    async fn answer(
        &self,
        request: Request<v1::AnswerRequest>,
    ) -> Result<Response<v1::AnswerResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        if !request.text.contains("qanah-offer-") {
            return fail(Code::InvalidArgument, v1::Reason::BadText, "this is no offer");
        }
        Ok(Response::new(v1::AnswerResponse { text: ANSWER.into(), peer: "peer\x1b2".into() }))
    }

    async fn accept(
        &self,
        request: Request<v1::AcceptRequest>,
    ) -> Result<Response<v1::AcceptResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        if !request.text.contains("qanah-answer-") {
            return fail(Code::InvalidArgument, v1::Reason::BadText, "this is no answer");
        }
        Ok(Response::new(v1::AcceptResponse { peer: "peer2".into() }))
    }
}

/// A tunnel with one connected peer.
pub(crate) fn tunnel(name: &str) -> Tunnel {
    Tunnel {
        name: name.into(),
        public_key: "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".into(),
        addresses: vec!["10.0.0.1/24".into(), "fd00::1/64".into()],
        mtu: 1400,
        uptime_seconds: 190,
        signaling: Some(v1::Signaling { brokers: vec![broker(true, "")] }),
        peers: vec![connected()],
        drops: [("unknown_frame".into(), 0)].into(),
        relaying: Some(relaying(Vec::new())),
        servers: Vec::new(),
        nat: 0,
        listen_port: None,
    }
}

/// A TURN server that works, or is in trouble.
pub(crate) fn server(error: &str) -> v1::Server {
    let state = if error.is_empty() { v1::ServerState::Works } else { v1::ServerState::Trouble };
    v1::Server {
        url: "turns:turn.example.com:443?transport=tcp".into(),
        kind: v1::ServerKind::Turn.into(),
        state: state.into(),
        error: error.into(),
        since_seconds: 12,
    }
}

/// What a tunnel carries for others.
pub(crate) fn relaying(pairs: Vec<v1::Carried>) -> v1::Relaying {
    v1::Relaying { limit_per_pair: 262_144, limit_in_all: 524_288, pairs }
}

/// What was carried from one peer to another.
pub(crate) fn carried(from: &str, to: &str, bytes: u64, dropped: u64) -> v1::Carried {
    v1::Carried { from: from.into(), to: to.into(), frames: bytes / 1000, bytes, dropped }
}

/// A broker.
pub(crate) fn broker(connected: bool, error: &str) -> v1::Broker {
    v1::Broker {
        label: "mqtt://broker.emqx.io:1883".into(),
        connected,
        error: error.into(),
        since_seconds: 189,
    }
}

/// A peer with a direct path.
pub(crate) fn connected() -> v1::Peer {
    v1::Peer {
        name: "peer2".into(),
        public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".into(),
        allowed_ips: vec!["10.0.0.2/32".into(), "fd00::2/128".into()],
        state: v1::PeerState::Connected.into(),
        path: Some(v1::Path {
            kind: v1::PathKind::Direct.into(),
            via: String::new(),
            local: candidate(v1::CandidateKind::Host, "192.0.2.1:51000"),
            remote: candidate(v1::CandidateKind::ServerReflexive, "198.51.100.7:4444"),
            packet_size: Some(1412),
        }),
        rtt_micros: Some(420),
        last_handshake_seconds: Some(12),
        received: Some(v1::Traffic { packets: 1000, bytes: 1_300_000 }),
        sent: Some(v1::Traffic { packets: 40, bytes: 3500 }),
        ..v1::Peer::default()
    }
}

/// A peer without a session.
pub(crate) fn unconnected(state: v1::PeerState, reason: &str, next_try: Option<u64>) -> v1::Peer {
    v1::Peer {
        name: "peer3".into(),
        public_key: "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=".into(),
        allowed_ips: vec!["10.0.0.3/32".into(), "fd00::3/128".into()],
        state: state.into(),
        reason: reason.into(),
        next_try_seconds: next_try,
        ..v1::Peer::default()
    }
}

/// An end of a path.
pub(crate) fn candidate(kind: v1::CandidateKind, address: &str) -> Option<v1::Candidate> {
    Some(v1::Candidate { kind: kind.into(), address: address.into() })
}
