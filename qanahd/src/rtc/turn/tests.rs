//! Streams to hand-made servers, good and bad. The real server is in `rtc/tests/servers.rs`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use qanah_core::turn::frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::streams::{SocketStreams, Streams};
use super::*;
use crate::dial::Dialer;
use crate::rtc::health::{Health, ServerState};

const SOON: Duration = Duration::from_secs(10);
const PLACEHOLDER: &str = "240.1.0.0:3478";

fn placeholder() -> SocketAddr {
    PLACEHOLDER.parse().unwrap()
}

fn allocate(number: u8) -> Vec<u8> {
    let mut message = b"\x00\x03\x00\x00\x21\x12\xa4\x42twelve byte".to_vec();
    message.push(number);
    message
}

fn channel_data(length: u16) -> Vec<u8> {
    let mut message = vec![0x40, 1];
    message.extend(length.to_be_bytes());
    message.resize(4 + usize::from(length), 9);
    message
}

struct World {
    streams: Streams,
    health: Health,
    listener: TcpListener,
}

impl World {
    async fn new() -> Self {
        Self::with(Carrier::Tcp, "127.0.0.1").await
    }

    async fn with(carrier: Carrier, host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = Login::Password { username: "u".to_owned(), credential: "p".to_owned().into() };
        let port = listener.local_addr().unwrap().port();
        let servers = vec![TurnServer { host: Host::parse(host).unwrap(), port, carrier, login }];
        let health = Health::new(&[], &servers);
        let streams = Streams::new(servers, Dialer::default(), health.clone());
        Self { streams, health, listener }
    }

    fn socket(&self) -> SocketStreams {
        self.streams.for_socket().unwrap()
    }

    async fn accept(&self) -> TcpStream {
        tokio::time::timeout(SOON, self.listener.accept()).await.expect("nobody comes").unwrap().0
    }

    async fn trouble(&self) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            if let ServerState::Trouble(text) = self.health.report(Instant::now()).remove(0).state {
                return text;
            }
            assert!(Instant::now() < deadline, "there is no trouble");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn message(socket: &SocketStreams) -> Vec<u8> {
    let next = std::future::poll_fn(|cx| socket.poll_message(cx, 2000));
    let (from, message) = tokio::time::timeout(SOON, next).await.expect("no message");
    assert_eq!(from, placeholder());
    message.to_vec()
}

async fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    tokio::time::timeout(SOON, stream.read_exact(&mut bytes)).await.expect("too little").unwrap();
    bytes
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    end.expect("it does not end").unwrap();
    bytes
}

#[tokio::test]
async fn messages_go_both_ways_and_last_words_are_heard() {
    let world = World::new().await;
    let socket = world.socket();
    assert!(!socket.send("192.0.2.1:3478".parse().unwrap(), &allocate(1)));
    assert!(socket.send(placeholder(), &allocate(1)));
    let mut server = world.accept().await;
    assert_eq!(exactly(&mut server, 20).await, allocate(1));
    // Said again, as over UDP, and data that must be filled up.
    socket.send(placeholder(), &allocate(1));
    socket.send(placeholder(), &channel_data(5));
    assert_eq!(exactly(&mut server, 12).await, [&channel_data(5)[..], &[0; 3]].concat());
    let mut out = Vec::new();
    let answers = [allocate(9), channel_data(1), channel_data(1200)];
    for answer in &answers {
        frame(answer, &mut out).unwrap();
    }
    for byte in out {
        server.write_all(&[byte]).await.unwrap();
    }
    for answer in answers {
        assert_eq!(message(&socket).await, answer);
    }
    // The driver ends right after it has released its allocation.
    socket.send(placeholder(), &allocate(7));
    drop(socket);
    let (said, ()) = tokio::join!(rest(server), world.streams.finish(SOON));
    assert_eq!(said, allocate(7));
    assert_eq!(world.health.report(Instant::now())[0].state, ServerState::Unknown, "no trouble");
}

#[tokio::test]
async fn one_stream_for_all_sockets_of_a_connection() {
    let world = World::new().await;
    let (one, two) = (world.socket(), world.socket());
    // Only an Allocate request makes a stream.
    one.send(placeholder(), &channel_data(8));
    two.send(placeholder(), &allocate(1));
    for number in 2..10 {
        one.send(placeholder(), &allocate(number));
    }
    let mut server = world.accept().await;
    assert_eq!(exactly(&mut server, 20).await, allocate(1));
    drop(one);
    drop(two);
    assert!(rest(server).await.is_empty());
    // The next generation of sockets has one of its own.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let next = world.socket();
    next.send(placeholder(), &allocate(11));
    let mut server = world.accept().await;
    assert_eq!(exactly(&mut server, 20).await, allocate(11));
}

#[tokio::test]
async fn a_broken_stream_is_made_anew_by_the_next_request_and_not_too_often() {
    let world = World::new().await;
    let socket = world.socket();
    let accepted = AtomicUsize::new(0);
    let serve = async {
        loop {
            // Closed at once.
            world.accept().await;
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    };
    let ask = async {
        for number in 0..200 {
            socket.send(placeholder(), &channel_data(1));
            socket.send(placeholder(), &allocate(number));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = serve => {}
        () = ask => {}
    }
    // At 0, 0.5 and 1.5 s; a busy machine may have fewer.
    let times = accepted.load(Ordering::Relaxed);
    assert!((2..=4).contains(&times), "{times} times in 2 s");
    assert_eq!(world.trouble().await, "the server closed the connection");
}

#[tokio::test]
async fn a_server_that_is_none_costs_its_stream_alone() {
    for (bytes, reason) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n", "not TURN"),
        (&[0xff; 100], "not TURN"),
        // Half a frame, and then the end.
        (b"\x40\x01\x00\x10 half", "closed the connection"),
        (b"", "closed the connection"),
    ] {
        let world = World::new().await;
        let socket = world.socket();
        socket.send(placeholder(), &allocate(1));
        let mut server = world.accept().await;
        exactly(&mut server, 20).await;
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let trouble = world.trouble().await;
        assert!(trouble.contains(reason), "{trouble}");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(socket.poll_message(&mut cx, 2000), Poll::Pending));
    }
}

/// Nobody reads: the server has to wait, and nothing grows.
#[tokio::test]
async fn a_server_that_never_stops_is_made_to_wait() {
    let world = World::new().await;
    let socket = world.socket();
    socket.send(placeholder(), &allocate(1));
    let mut server = world.accept().await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        frame(&channel_data(1000), &mut flood).unwrap();
    }
    let mut sent = 0;
    let write = async {
        loop {
            sent += server.write(&flood).await.unwrap();
            assert!(sent < 100 << 20, "there is no end to it");
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), write).await.is_err());
    // 256 messages in the queue, one in the hands of the reader, the rest is in the kernel.
    let mut waiting = 0;
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready((_, message)) = socket.poll_message(&mut cx, 2000) {
        assert_eq!(message, BytesMut::from(&channel_data(1000)[..]));
        waiting += 1;
    }
    assert!((1..=257).contains(&waiting), "{waiting}");
    // Messages that are longer than the driver takes are left out.
    assert!(matches!(socket.poll_message(&mut cx, 10), Poll::Pending));
}

/// Nobody takes what we send.
#[tokio::test]
async fn a_server_that_never_reads_costs_a_bounded_queue() {
    let world = World::new().await;
    let socket = world.socket();
    socket.send(placeholder(), &allocate(1));
    let server = world.accept().await;
    socket2::SockRef::from(&server).set_recv_buffer_size(4096).unwrap();
    for _ in 0..2000 {
        for _ in 0..50 {
            socket.send(placeholder(), &channel_data(1000));
        }
        tokio::task::yield_now().await;
    }
    // 100 MB were offered. The socket goes and the stream with it, although nobody listens.
    drop(socket);
    let begin = Instant::now();
    world.streams.finish(SOON).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(server);
}

#[tokio::test]
async fn nobody_there_is_told() {
    let world = World::new().await;
    let World { streams, health, listener } = world;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let socket = streams.for_socket().unwrap();
    socket.send(placeholder(), &allocate(1));
    streams.finish(SOON).await;
    let report = health.report(Instant::now()).remove(0);
    assert_eq!(report.url, format!("turn:{address}?transport=tcp"));
    let ServerState::Trouble(text) = report.state else { panic!("{report:?}") };
    assert!(text.starts_with("cannot connect: ") && text.contains("refused"), "{text}");
}

/// A server with this certificate, and a client that trusts that CA. What the client thinks of it.
async fn tls_trouble(name: &str, host: &str, trusts_it: bool) -> String {
    let ours = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    crate::mqtt::certificates(ours.path(), name);
    crate::mqtt::certificates(other.path(), name);
    let ca = if trusts_it { ours.path() } else { other.path() };
    let config = client_config(Some(&ca.join("ca.pem"))).unwrap();
    let world = World::with(Carrier::Tls(config), host).await;
    let port = world.listener.local_addr().unwrap().port();
    let World { streams, health, listener } = world;
    drop(listener);
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
        .arg("-cert")
        .arg(ours.path().join("server.pem"))
        .arg("-key")
        .arg(ours.path().join("server.key"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let socket = streams.for_socket().unwrap();
    let deadline = Instant::now() + SOON;
    let mut number = 0;
    // Until it listens, and then until it is judged.
    let text = loop {
        if Instant::now() > deadline {
            break String::from("no verdict");
        }
        number += 1;
        socket.send(placeholder(), &allocate(number));
        tokio::time::sleep(Duration::from_millis(100)).await;
        match health.report(Instant::now()).remove(0).state {
            ServerState::Trouble(text) if !text.contains("refused") => break text,
            _ => {}
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();
    text
}

#[tokio::test]
async fn certificates_of_others_are_refused() {
    let text = tls_trouble("DNS:localhost", "localhost", false).await;
    assert!(text.contains("not signed by a CA that is trusted here"), "{text}");
    let text = tls_trouble("DNS:turn.example", "localhost", true).await;
    assert_eq!(text, "its certificate is not for localhost");
    let text = tls_trouble("DNS:localhost", "127.0.0.1", true).await;
    assert_eq!(text, "its certificate is not for 127.0.0.1");
}

#[tokio::test]
async fn a_ca_file_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let error = client_config(Some(&path)).err().unwrap().to_string();
    assert!(error.contains("ca.pem") && error.contains("No such file"), "{error}");
    let begin = "-----BEGIN CERTIFICATE-----\n";
    for (text, reason) in [
        ("", "there is no `-----BEGIN CERTIFICATE-----`"),
        ("hello", "there is no `-----BEGIN CERTIFICATE-----`"),
        (&format!("{begin}AAAA\n-----END CERTIFICATE-----\n"), "can be used"),
        (&format!("{begin}???\n-----END CERTIFICATE-----\n"), "can be used"),
        (begin, "can be used"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = client_config(Some(&path)).err().unwrap().to_string();
        assert!(error.contains("holds no PEM certificate") && error.contains(reason), "{error}");
    }
}

#[test]
fn a_password_from_a_secret_is_made_anew() {
    let login = Login::Secret { name: Some("n".to_owned()), secret: "s".to_owned().into() };
    let host = Host::parse("h").unwrap();
    let server = TurnServer { host, port: 1, carrier: Carrier::Tcp, login };
    let (user, password) = server.credentials();
    let ends: u64 = user.strip_suffix(":n").unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(ends.abs_diff(now + 86_400) < 60, "{user}");
    assert_eq!(password.len(), 28);
}
