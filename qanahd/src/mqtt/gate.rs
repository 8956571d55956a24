//! The way of the Paho library to a broker.
//!
//! The library never meets a broker. What it does with WebSocket frames that are cut short, with packets that are
//! longer than we allow and with messages of QoS 2 lets a broker read and fill its memory
//! (`notes/paho-sys.md`), and what it knows of proxies and of names with addresses of both families is little. So
//! the connection is made here, by a task for each attempt: TCP, through a proxy or straight, TLS, WebSocket
//! ([`wire`]). When it is there, the library is told of a port on loopback, and gets what has passed
//! [`Filter`].
//!
//! Others on this machine can reach the port. One connection is taken, of whoever begins with a CONNECT that
//! bears the client id of this attempt, which is random and which only the library was told.

mod wire;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qanah_core::mqtt_frame::{self, Filter, client_id};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(super) use self::wire::Way;
use self::wire::{Inward, Outward};
use super::client::{MAX_PACKET_SIZE, Version};
use super::inbox::Inbox;
use super::mailbox::{Mailbox, Notice};

/// How long the connection to a broker may take, with TLS and WebSocket.
const DIAL: Duration = Duration::from_secs(8);
/// How long the library may take to come once the connection is there.
const LIBRARY: Duration = Duration::from_secs(10);
/// How long a visitor may take to say who it is.
const REQUEST: Duration = Duration::from_secs(2);
/// Longest CONNECT in bytes. A URL with user and password is shorter than half of this.
const MAX_REQUEST: usize = 8192;
/// Visitors that are listened to at once. When one more comes, the one that has waited longest goes.
const MAX_VISITORS: usize = 64;
/// Pause after an error of the port.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one side has to end when the other has, or the gate is closed: what was said last is still passed on.
const LINGER: Duration = Duration::from_secs(2);

/// One attempt's way. Dropping it ends everything: at once what is not connected yet, within two seconds
/// what is.
#[derive(Debug)]
pub(super) struct Gate {
    outcome: Arc<Mutex<Outcome>>,
    /// The task sees when this is gone.
    _open: oneshot::Sender<()>,
}

/// What has become of the connection.
#[derive(Debug, Clone, Default)]
pub(super) enum Outcome {
    /// It is being made.
    #[default]
    Open,
    /// It is there.
    Reached {
        /// The broker's end, or the proxy's, and ours.
        ends: (SocketAddr, IpAddr),
        /// Where the library is waited for, on loopback.
        port: u16,
    },
    /// It could not be made, or is no more, and why.
    Failed(String),
}

/// Who is told what.
pub(super) struct Told {
    /// Hears when [`Gate::outcome`] has changed.
    pub(super) mailbox: Arc<Mailbox>,
    /// Counts messages that are left out.
    pub(super) inbox: Arc<Inbox>,
    /// What the library will speak.
    pub(super) version: Version,
    /// Dropped when everything that the library said has been passed on.
    pub(super) alive: mpsc::Sender<()>,
}

impl Gate {
    /// Begins to connect. `word` is the client id by which the library will be known.
    pub(super) fn open(runtime: &Handle, way: Way, word: String, told: Told) -> Self {
        let outcome = Arc::new(Mutex::default());
        let shared = Arc::clone(&outcome);
        let (open, closed) = oneshot::channel();
        runtime.spawn(async move {
            let mailbox = Arc::clone(&told.mailbox);
            let tell = |outcome| {
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                mailbox.notify(Notice::Gate);
            };
            if let Err(reason) = lead(&way, &word, told, closed, &tell).await {
                tell(Outcome::Failed(reason));
            }
        });
        Self { outcome, _open: open }
    }

    /// What has become of it.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why there is no connection, if that is the reason.
    pub(super) fn reason(&self) -> Option<String> {
        match self.outcome() {
            Outcome::Failed(reason) => Some(reason),
            Outcome::Open | Outcome::Reached { .. } => None,
        }
    }
}

/// The whole life of one attempt.
async fn lead(
    way: &Way,
    word: &str,
    told: Told,
    mut closed: oneshot::Receiver<()>,
    tell: &impl Fn(Outcome),
) -> Result<(), String> {
    let reached = async {
        let (ends, broker) = timeout(DIAL, wire::reach(way))
            .await
            .map_err(|_| format!("no connection within {} s", DIAL.as_secs()))??;
        let (listener, port) = listen().await.map_err(|error| format!("on loopback: {error}"))?;
        tell(Outcome::Reached { ends, port });
        let came = timeout(LIBRARY, wait_for_library(&listener, word)).await;
        Ok::<_, String>((broker, came, listener))
    };
    let (broker, came, listener) = tokio::select! {
        _ = &mut closed => return Ok(()),
        reached = reached => reached?,
    };
    let Ok((library, said)) = came else {
        tell(Outcome::Failed("the MQTT library did not come".to_owned()));
        // It may come yet, and shall find nobody else at this port.
        let _ = closed.await;
        return Ok(());
    };
    drop(listener);
    let (inward, outward) = broker.split();
    let (from_library, to_library) = library.into_split();
    // A failure is told before the library sees the end of its connection.
    let down = async move {
        let filter = filter(told.version);
        let (end, to_library) = pass_down(inward, to_library, filter, &told.inbox).await;
        if let Err(reason) = end {
            tell(Outcome::Failed(reason));
        }
        drop(to_library);
    };
    let up = pass_up(from_library, said, outward, told.alive);
    let mut both = pin!(both(up, down));
    tokio::select! {
        () = &mut both => {}
        _ = closed => drop(timeout(LINGER, both).await),
    }
    Ok(())
}

/// Both ways, until both have ended or one has and the other had its time.
async fn both(up: impl Future<Output = ()>, down: impl Future<Output = ()>) {
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        () = &mut up => drop(timeout(LINGER, down).await),
        () = &mut down => drop(timeout(LINGER, up).await),
    }
}

async fn listen() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

type Said = Zeroizing<Vec<u8>>;

/// The connection of who knows the word, and what it has said; afterwards nobody is listened to any more.
async fn wait_for_library(listener: &TcpListener, word: &str) -> (TcpStream, Said) {
    let word: Arc<str> = word.into();
    let mut visitors = JoinSet::new();
    let mut waiting: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            // First, so that nobody goes who has already said the word.
            biased;
            Some(visitor) = visitors.join_next() => {
                if let Ok(Some(library)) = visitor {
                    return library;
                }
            }
            visitor = listener.accept() => {
                let Ok((stream, _)) = visitor else {
                    // Too few descriptors, or a visitor that has gone: the next one may be the library.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                waiting.retain(|visitor| !visitor.is_finished());
                if waiting.len() >= MAX_VISITORS && let Some(longest) = waiting.pop_front() {
                    longest.abort();
                }
                let word = Arc::clone(&word);
                let listen = async move { timeout(REQUEST, hear(stream, &word)).await.ok().flatten() };
                waiting.push_back(visitors.spawn(listen));
            }
        }
    }
}

/// What a visitor says, if it begins as the library does.
async fn hear(mut stream: TcpStream, word: &str) -> Option<(TcpStream, Said)> {
    stream.set_nodelay(true).ok()?;
    stream.readable().await.ok()?;
    // Of its full size from the start: it holds a password, and a buffer that grows leaves copies behind.
    let mut said = Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
    while said.len() < MAX_REQUEST {
        let room = u64::try_from(MAX_REQUEST - said.len()).ok()?;
        if (&mut stream).take(room).read_buf(&mut *said).await.ok()? == 0 {
            return None;
        }
        if let Some(id) = client_id(&said).ok()? {
            let is_word: bool = id.ct_eq(word.as_bytes()).into();
            return is_word.then_some((stream, said));
        }
    }
    None
}

/// What the library says, to the broker, until it ends or the broker takes no more.
async fn pass_up(
    mut library: OwnedReadHalf,
    said: Said,
    mut broker: Outward,
    alive: mpsc::Sender<()>,
) {
    let mut passes = broker.send(&said).await;
    drop(said);
    let mut piece = Zeroizing::new([0; 4096]);
    while passes {
        passes = match library.read(&mut *piece).await {
            Ok(length) if length > 0 => broker.send(piece.get(..length).unwrap_or_default()).await,
            _ => false,
        };
    }
    broker.close().await;
    drop(alive);
}

fn filter(version: Version) -> Filter {
    let version = match version {
        Version::V5 => mqtt_frame::Version::V5,
        Version::V311 => mqtt_frame::Version::V311,
    };
    Filter::new(version, MAX_PACKET_SIZE)
}

/// What the broker says, to the library, as far as it may pass. Gives the library's end back, so that it is closed
/// when the reason is known.
async fn pass_down(
    mut broker: Inward,
    mut library: OwnedWriteHalf,
    mut filter: Filter,
    inbox: &Inbox,
) -> (Result<(), String>, OwnedWriteHalf) {
    let mut out = Vec::new();
    loop {
        let bytes = match broker.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return (Ok(()), library),
            Err(reason) => return (Err(reason), library),
        };
        let judged = filter.push(&bytes, &mut out);
        inbox.count_ignored(filter.take_left_out());
        // When the library is gone the rest is read all the same: unread bytes would make the kernel cut off what
        // the library said last.
        let _ = library.write_all(&out).await;
        out.clear();
        if let Err(refusal) = judged {
            return (Err(refusal.to_string()), library);
        }
    }
}
