use std::path::PathBuf;

use prost::Message;
use qanah_core::policy::RULES;
use qanah_proto::v1::{StatusRequest, StatusResponse, VersionRequest};
use qanah_proto::{Connection, FILE_DESCRIPTOR_SET, SERVICE, connect, error_detail, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::report::{PeerReport, PeerState, TunnelReport};
use super::*;

/// A daemon with one tunnel, which answers "slow" never and says what it was asked.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) states: Arc<tokio_watch::Sender<Arc<StatusReport>>>,
    pub(super) asked: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

#[async_trait]
impl Backend for Fake {
    async fn status(&self, name: Option<String>) -> Result<StatusReport, ControlFailure> {
        match name.as_deref() {
            None | Some("peer1") => Ok(StatusReport { tunnels: vec![tunnel()] }),
            Some("slow") => std::future::pending().await,
            Some(_) => Err(ControlFailure::UnknownTunnel {
                name: name.unwrap_or_default(),
                known: vec!["peer1".into()],
            }),
        }
    }

    async fn up(&self, call: UpCall) -> Result<UpDone, ControlFailure> {
        let UpCall { source, options, quotes } = call;
        let what = matches!(source, Source::Text { .. });
        self.note(format!(
            "up {} text={what} options={} quotes={quotes}",
            source.name(),
            options.is_some()
        ));
        if source.name().as_str() == "slow" {
            std::future::pending::<()>().await;
        }
        Ok(UpDone { tunnel: tunnel(), notes: vec!["a note".into()] })
    }

    async fn down(&self, name: TunnelName) -> Result<Vec<String>, ControlFailure> {
        self.note(format!("down {name}"));
        Ok(Vec::new())
    }

    async fn reload(&self, name: TunnelName, quotes: bool) -> Result<ReloadDone, ControlFailure> {
        self.note(format!("reload {name} quotes={quotes}"));
        Ok(ReloadDone { changes: vec!["a change".into()], notes: Vec::new() })
    }

    async fn check(&self, source: Source, quotes: bool) -> Result<CheckDone, ControlFailure> {
        self.note(format!("check {} quotes={quotes}", source.name()));
        Ok(CheckDone { description: "a tunnel".into(), refusals: Vec::new() })
    }

    fn watch(&self) -> tokio_watch::Receiver<Arc<StatusReport>> {
        self.states.subscribe()
    }

    async fn offer(
        &self,
        tunnel: String,
        peer: Option<String>,
        lifetime: Duration,
    ) -> Result<OfferMade, ControlFailure> {
        self.note(format!("offer {tunnel} {peer:?} {lifetime:?}"));
        Ok(OfferMade { text: "an offer".into(), lifetime, peers: peer.into_iter().collect() })
    }

    async fn answer(&self, _: String, _: String) -> Result<AnswerMade, ControlFailure> {
        Ok(AnswerMade { text: "an answer".into(), peer: "bob".into() })
    }

    async fn accept(&self, _: String, text: String) -> Result<String, ControlFailure> {
        Err(crate::tunnel::pairing::PairingError::NotReady(text).into())
    }
}

pub(super) fn tunnel() -> TunnelReport {
    let key: qanah_core::key::PublicKey =
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
    TunnelReport {
        name: "peer1".into(),
        public_key: key,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
        mtu: 1400,
        uptime: Duration::from_millis(3500),
        brokers: Vec::new(),
        servers: Vec::new(),
        nat: qanah_core::diagnosis::Nat::Unknown,
        listen_port: None,
        peers: vec![PeerReport {
            name: None,
            public_key: key,
            allowed_ips: vec!["fd00::2/128".parse().unwrap()],
            state: PeerState::Connecting,
            reason: "no answer yet".into(),
            next_try: Some(Duration::from_millis(2500)),
            path: None,
            rtt: None,
            last_handshake: None,
            received: report::Traffic::default(),
            sent: report::Traffic { packets: 2, bytes: 168 },
            drops: [("no_session", 7)].into(),
        }],
        drops: report::Drops::new(),
        relaying: None,
    }
}

/// A server with its socket in a directory of its own.
pub(super) struct Running {
    pub(super) path: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ControlError>>,
    _dir: tempfile::TempDir,
}

fn start(limits: Limits) -> Running {
    start_with(limits, Fake::default())
}

pub(super) fn start_with(limits: Limits, fake: Fake) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    let socket = bind(&path, None).unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(socket, fake, limits, async {
        let _ = stopped.await;
    }));
    Running { path, stop, server, _dir: dir }
}

async fn status(client: &mut Connection, name: Option<&str>) -> Result<StatusResponse, Status> {
    let request = StatusRequest { tunnel: name.map(Into::into) };
    client.status(request).await.map(tonic::Response::into_inner)
}

/// Runs `future` to its end, but not for ever.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[test]
fn every_method_is_in_the_table_and_nothing_else() {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            assert_eq!(full, SERVICE);
            methods.extend(service.method.iter().map(|m| format!("/{full}/{}", m.name())));
        }
    }
    let mut rules: Vec<_> = RULES.iter().map(|rule| rule.path.to_owned()).collect();
    methods.sort();
    rules.sort();
    assert!(!methods.is_empty());
    assert_eq!(methods, rules);
}

#[tokio::test]
async fn status_and_version_are_answered() {
    let running = start(Limits::default());
    let mut client = connect(&running.path).await.unwrap();
    let version = client.version(VersionRequest {}).await.unwrap().into_inner();
    assert_eq!(version.version, VERSION);

    let all = status(&mut client, None).await.unwrap();
    assert_eq!(all, status(&mut client, Some("peer1")).await.unwrap());
    let tunnel = &all.tunnels[0];
    assert_eq!((tunnel.mtu, tunnel.uptime_seconds), (1400, 3));
    assert_eq!(tunnel.addresses, ["10.0.0.1/24"]);
    let peer = &tunnel.peers[0];
    assert_eq!(peer.state(), v1::PeerState::Connecting);
    assert_eq!((peer.next_try_seconds, peer.rtt_micros), (Some(3), None));
    assert_eq!(peer.drops["no_session"], 7);
}

#[tokio::test]
async fn errors_have_codes_and_reasons() {
    let running = start(Limits::default());
    let mut client = connect(&running.path).await.unwrap();
    let unknown = status(&mut client, Some("peer9")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let detail = error_detail(&unknown).unwrap();
    assert_eq!(detail.reason(), v1::Reason::UnknownTunnel);
    assert_eq!(detail.known_tunnels, ["peer1"]);

    let invalid = status(&mut client, Some("../etc")).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_method_that_is_not_in_the_table_is_denied_with_its_reason() {
    let running = start(Limits::default());
    let path = running.path.clone();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            let stream = UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/qanah.control.v1.Control/Nonsense".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<VersionRequest, StatusResponse>::default();
    let denied = grpc.unary(tonic::Request::new(VersionRequest {}), path, codec).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unimplemented);
    assert_eq!(error_detail(&denied).unwrap().reason(), v1::Reason::UnknownMethod);
}

#[tokio::test]
async fn requests_are_bounded_in_size_and_time() {
    let call = Duration::from_millis(100);
    let running = start(Limits { call, ..Limits::default() });
    let mut client = connect(&running.path).await.unwrap();
    let large = "x".repeat(MAX_ROOT_REQUEST + 1);
    let refused = soon(status(&mut client, Some(&large))).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused}");

    let late = soon(status(&mut client, Some("slow"))).await.unwrap_err();
    assert!(matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded), "{late}");
    soon(status(&mut client, None)).await.unwrap();
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a hostile client may send, each by a connection of its own.
fn garbage() -> Vec<Vec<u8>> {
    let frames: [&[u8]; 7] = [
        // A frame that claims 16 MiB.
        &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        // HEADERS before SETTINGS, of random bytes.
        &[0, 0, 4, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        // CONTINUATION of nothing.
        &[0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82],
        // SETTINGS of a wrong length.
        &[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5],
        // WINDOW_UPDATE of zero.
        &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // DATA on stream 0.
        &[0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        // PUSH_PROMISE from a client.
        &[0, 0, 5, 5, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0x82],
    ];
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut all = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
    ];
    all.extend(frames.iter().map(|frame| [PREFACE, frame].concat()));
    all.extend(frames.iter().map(|frame| [PREFACE, settings, frame].concat()));
    all
}

#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let running = start(Limits::default());
    let mut client = connect(&running.path).await.unwrap();
    status(&mut client, None).await.unwrap();
    for bytes in garbage() {
        let mut hostile = UnixStream::connect(&running.path).await.unwrap();
        // The server may have closed before the end of the writing: as well.
        let _ = hostile.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = soon(hostile.read_to_end(&mut answer)).await;
        soon(status(&mut client, None)).await.unwrap();
    }
    assert!(!running.server.is_finished());
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).unwrap();
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], body].concat()
}

/// A connection that has said hello in HTTP/2 and then `more`.
async fn raw(path: &PathBuf, more: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let hello = [PREFACE, &frame(4, 0, 0, &[]), more].concat();
    stream.write_all(&hello).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_ended() {
    let running = start(Limits { stall: Duration::from_millis(100), ..Limits::default() });
    let mut silent = raw(&running.path, &[]).await;
    let _ = soon(silent.read_to_end(&mut Vec::new())).await;
}

/// Half a request is answered by its time limit, and holds up nobody.
#[tokio::test]
async fn half_a_message_ends_with_its_time() {
    let running = start(Limits { call: Duration::from_millis(100), ..Limits::default() });
    // HPACK without compression (RFC 7541): method POST, scheme http, path, authority, content-type.
    let mut head = vec![0x83, 0x86, 0x04, 32];
    head.extend(b"/qanah.control.v1.Control/Status");
    head.extend([0x01, 1, b'x', 0x0f, 0x10, 16]);
    head.extend(b"application/grpc");
    // END_HEADERS; then DATA that announces 9 bytes and brings 2, without END_STREAM.
    let request = [frame(1, 4, 1, &head), frame(0, 0, 1, &[0, 0, 0, 0, 9, 1, 2])].concat();
    let mut slow = raw(&running.path, &request).await;
    let mut client = connect(&running.path).await.unwrap();
    soon(status(&mut client, None)).await.unwrap();
    soon(async {
        loop {
            let mut frame_head = [0; 9];
            slow.read_exact(&mut frame_head).await.unwrap();
            let [a, b, c, kind, ..] = frame_head;
            let len = u32::from_be_bytes([0, a, b, c]);
            slow.read_exact(&mut vec![0; len as usize]).await.unwrap();
            // HEADERS: the status of the call.
            if kind == 1 {
                break;
            }
        }
    })
    .await;
}

/// Thousands of streams, opened and reset at once, end the connection that does it.
#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let running = start(Limits::default());
    let mut hostile = raw(&running.path, &[]).await;
    let mut bytes = Vec::new();
    for id in (1u32..20_001).step_by(2) {
        let mut open = frame(1, 5, 0, &[0x83, 0x86, 0x84, 0x01, 1, b'x']);
        open[5..9].copy_from_slice(&id.to_be_bytes());
        let mut reset = frame(3, 0, 0, &[0, 0, 0, 8]);
        reset[5..9].copy_from_slice(&id.to_be_bytes());
        bytes.extend(open.into_iter().chain(reset));
    }
    let (mut read, mut write) = hostile.split();
    let (mut sink, written) = (Vec::new(), write.write_all(&bytes));
    let _ = soon(async { tokio::join!(read.read_to_end(&mut sink), written) }).await;
    let mut client = connect(&running.path).await.unwrap();
    soon(status(&mut client, None)).await.unwrap();
}

#[tokio::test]
async fn two_hundred_connections_do_not_keep_others_out() {
    let limits = Limits { preface: Duration::from_millis(300), ..Limits::default() };
    let running = start(limits);
    let mut client = connect(&running.path).await.unwrap();
    status(&mut client, None).await.unwrap();

    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(UnixStream::connect(&running.path).await.unwrap());
        if flood.len() % 20 == 0 {
            soon(status(&mut client, None)).await.unwrap();
        }
    }
    // Some are closed at once for being too many, the others when they stay silent.
    for hostile in &mut flood {
        let _ = soon(hostile.read_to_end(&mut Vec::new())).await;
    }
    soon(status(&mut client, None)).await.unwrap();
    let mut late = connect(&running.path).await.unwrap();
    soon(status(&mut late, None)).await.unwrap();
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    // The time for the preface is longer than the test.
    let preface = Duration::from_secs(600);
    let limits = Limits { connections: 3, reserved_for_root: 0, preface, ..Limits::default() };
    let running = start(limits);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(UnixStream::connect(&running.path).await.unwrap());
    }
    let mut fourth = UnixStream::connect(&running.path).await.unwrap();
    assert_eq!(soon(fourth.read(&mut [0; 1])).await.unwrap_or(0), 0);
    drop(held);
    // The places come free as soon as the server has seen the ends.
    soon(async {
        loop {
            let mut client = connect(&running.path).await.unwrap();
            if status(&mut client, None).await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_those_who_never_finish() {
    let preface = Duration::from_secs(600);
    let running = start(Limits { preface, ..Limits::default() });
    let _silent = UnixStream::connect(&running.path).await.unwrap();
    let mut client = connect(&running.path).await.unwrap();
    status(&mut client, None).await.unwrap();
    let hanging = tokio::spawn(async move { status(&mut client, Some("slow")).await });
    running.stop.send(()).unwrap();
    soon(running.server).await.unwrap().unwrap();
    assert!(!running.path.exists());
    hanging.abort();
}
