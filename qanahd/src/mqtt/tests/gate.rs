//! Who gets through the gate, and what is left when it closes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::gate::{Gate, Outcome, Told, Way};
use super::super::*;
use super::harness::*;

const WORD: &str = "q0123456789abcdef012345";

/// A CONNECT of MQTT 3.1.1 with this client id.
fn connect(id: &str) -> Vec<u8> {
    let length = u8::try_from(id.len()).unwrap();
    let head = [0x10, 12 + length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 20, 0, length];
    [&head, id.as_bytes()].concat()
}

/// A gate to a listener of ours: the gate, its port, and the broker's end.
async fn opened() -> (Gate, u16, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let way = Way {
        dialer: Dialer::default(),
        address: local(there.port()),
        found: vec![there],
        tls: None,
    };
    let (events, _) = mpsc::channel(1);
    let told = Told {
        mailbox: Arc::default(),
        inbox: Arc::new(Inbox::new(events)),
        version: Version::V311,
        alive: mpsc::channel(1).0,
    };
    let gate = Gate::open(&Handle::current(), way, WORD.to_owned(), told);
    let (broker, _) = listener.accept().await.unwrap();
    until("the gate is open", || matches!(gate.outcome(), Outcome::Reached { .. })).await;
    let Outcome::Reached { port, .. } = gate.outcome() else { unreachable!() };
    (gate, port, broker)
}

async fn visit(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Lets the library in. What it said comes to the broker whole.
async fn library(port: u16, broker: &mut TcpStream) -> TcpStream {
    let mut library = visit(port).await;
    let hello = connect(WORD);
    library.write_all(&hello).await.unwrap();
    let mut got = vec![0; hello.len()];
    broker.read_exact(&mut got).await.unwrap();
    assert_eq!(got, hello);
    library
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Whoever does not know the word gets nothing and is in nobody's way.
#[tokio::test]
async fn the_gate_opens_for_the_library_alone() {
    let (_gate, port, mut broker) = opened().await;
    let wrong = connect("q0123456789abcdef012346");
    let flood = vec![0x10, 0xff, 0xff, 0x7f].into_iter().chain([0; 20_000]).collect();
    for wrong in
        [wrong, connect(""), connect(&WORD[1..]), b"GET / HTTP/1.1\r\n\r\n".to_vec(), flood]
    {
        let mut stranger = visit(port).await;
        // It may be closed before it has said all that.
        let _ = stranger.write_all(&wrong).await;
        // Closed, or reset with our words unread.
        assert_eq!(stranger.read(&mut [0; 10]).await.unwrap_or(0), 0);
    }
    let mut library = library(port, &mut broker).await;
    // What the broker says passes, and nobody else comes in.
    broker.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    let mut got = [0; 4];
    library.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [0x20, 2, 0, 0]);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

/// Many more than are listened to, none of whom says a word: they do not keep the library waiting until their time is
/// over, one crowd after another.
#[tokio::test]
async fn silent_visitors_make_room_for_the_library() {
    let (_gate, port, mut broker) = opened().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(visit(port).await);
    }
    let start = Instant::now();
    library(port, &mut broker).await;
    // The crowd before it would have had 2 s for each 16 of them.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A broker that hangs, or one behind something that drops packets, never ends its side.
#[tokio::test]
async fn nothing_is_left_when_the_library_has_gone_and_the_broker_hangs() {
    let before = tasks();
    let (_gate, port, mut broker) = opened().await;
    let library = library(port, &mut broker).await;
    drop(library);
    until("the task ends", || tasks() == before).await;
    assert_eq!(broker.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_gate_that_closes_ends_everything_and_passes_on_what_was_said_last() {
    let before = tasks();
    let (gate, port, mut broker) = opened().await;
    let mut library = library(port, &mut broker).await;
    drop(gate);
    library.write_all(&[0xe0, 0]).await.unwrap();
    let mut goodbye = [0; 2];
    broker.read_exact(&mut goodbye).await.unwrap();
    assert_eq!(goodbye, [0xe0, 0]);
    // Neither side ends, and both are ended.
    until("the task ends", || tasks() == before).await;
    assert_eq!(broker.read(&mut [0; 10]).await.unwrap_or(0), 0);
    assert_eq!(library.read(&mut [0; 10]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_gate_that_closes_before_anybody_came_leaves_nothing() {
    let before = tasks();
    let (gate, port, mut broker) = opened().await;
    drop(gate);
    until("the task ends", || tasks() == before).await;
    assert_eq!(broker.read(&mut [0; 10]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
