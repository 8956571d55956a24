//! The streams of one connection.
//!
//! `webrtc` asks every TURN server for an allocation from each of its sockets. Over streams only the socket
//! that asks first gets one: the kernel finds the way to the server whichever it was, so all others would
//! be the same again. The rest is lost on the way, as to a server that does not answer.
//!
//! An allocation goes with its stream, and `webrtc` asks for one only when it gathers. So a stream that has
//! ended is made anew only when an Allocate request comes, with a growing distance in time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use qanah_core::turn::{ALLOCATE, StunHeader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::outbox::Outbox;
use super::stream::{Inbound, Stream};
use super::{TurnServer, placeholder};
use crate::dial::Dialer;
use crate::rtc::health::Health;

/// Messages from servers that may wait for the driver; then the servers wait.
const MAX_INBOUND: usize = 256;
/// The first time between two attempts to reach a server; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest, so that an attempt falls into each time of gathering: `webrtc` asks for 6 s.
const LONGEST_DELAY: Duration = Duration::from_secs(4);
/// A stream that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(30);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The streams of one connection. Clones are the same.
#[derive(Clone)]
pub(in crate::rtc) struct Streams(Arc<Shared>);

struct Shared {
    /// All TURN servers of the settings; those over UDP have no streams.
    servers: Vec<TurnServer>,
    dialer: Dialer,
    health: Health,
    claims: Mutex<HashMap<usize, Claim>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    sockets: AtomicU64,
}

/// Which socket has the stream to a server, and when the next one may be made.
struct Claim {
    socket: Option<u64>,
    not_before: Option<Instant>,
    delay: Duration,
}

impl Default for Claim {
    fn default() -> Self {
        Self { socket: None, not_before: None, delay: FIRST_DELAY }
    }
}

impl Streams {
    pub(in crate::rtc) fn new(servers: Vec<TurnServer>, dialer: Dialer, health: Health) -> Self {
        Self(Arc::new(Shared {
            servers,
            dialer,
            health,
            claims: Mutex::default(),
            tasks: Mutex::default(),
            sockets: AtomicU64::new(0),
        }))
    }

    /// The part of one socket; nothing where no server needs streams.
    pub(in crate::rtc) fn for_socket(&self) -> Option<SocketStreams> {
        if !self.0.servers.iter().any(TurnServer::is_stream) {
            return None;
        }
        let (sender, inbox) = mpsc::channel(MAX_INBOUND);
        Some(SocketStreams {
            streams: self.clone(),
            id: self.0.sockets.fetch_add(1, Ordering::Relaxed),
            open: Mutex::default(),
            sender,
            inbox: Mutex::new(inbox),
        })
    }

    /// Returns when all last words are said, or after `limit`. To be called when the sockets are gone.
    pub(in crate::rtc) async fn finish(&self, limit: Duration) {
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        let all = futures_util::future::join_all(tasks);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::debug!("the streams to TURN servers end in the background");
        }
    }

    /// Whether this socket may make a stream to this server now.
    fn claim(&self, index: usize, socket: u64, now: Instant) -> bool {
        let mut claims = lock(&self.0.claims);
        let claim = claims.entry(index).or_default();
        if claim.socket.is_some_and(|owner| owner != socket)
            || claim.not_before.is_some_and(|at| now < at)
        {
            return false;
        }
        claim.socket = Some(socket);
        claim.not_before = Some(now + claim.delay);
        claim.delay = (claim.delay * 2).min(LONGEST_DELAY);
        true
    }

    fn release(&self, socket: u64) {
        for claim in lock(&self.0.claims).values_mut() {
            claim.socket.take_if(|owner| *owner == socket);
        }
    }

    /// A server works: the next attempt, for another generation, need not wait.
    fn calm(&self, index: usize) {
        lock(&self.0.claims).entry(index).or_default().delay = FIRST_DELAY;
    }

    fn spawn(&self, index: usize, stream: Stream) {
        let streams = self.clone();
        let task = tokio::spawn(async move {
            let outbox = Arc::clone(&stream.outbox);
            let url = stream.server.url();
            let begun = Instant::now();
            let ended = stream.run().await;
            outbox.break_off();
            if let Err(reason) = ended {
                streams.0.health.failed(&url, &reason, Instant::now());
            }
            if begun.elapsed() >= GOOD {
                streams.calm(index);
            }
        });
        let mut tasks = lock(&self.0.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}

/// What one socket of the driver has of the streams. When it goes, so do its streams, after their last
/// words.
pub(in crate::rtc) struct SocketStreams {
    streams: Streams,
    id: u64,
    /// By the server's place in the settings.
    open: Mutex<HashMap<usize, Arc<Outbox>>>,
    sender: mpsc::Sender<Inbound>,
    inbox: Mutex<mpsc::Receiver<Inbound>>,
}

impl SocketStreams {
    /// Takes a datagram for the server that this address stands for; false when it stands for none.
    pub(in crate::rtc) fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        let Some(index) = placeholder::index(to) else {
            return false;
        };
        let mut open = lock(&self.open);
        if let Some(outbox) = open.get(&index).filter(|outbox| !outbox.is_broken()) {
            outbox.push(datagram);
            return true;
        }
        let asks = StunHeader::read(datagram).is_some_and(|header| header.kind == ALLOCATE);
        let server = self.streams.0.servers.get(index).filter(|server| server.is_stream());
        if let Some(server) = server
            && asks
            && self.streams.claim(index, self.id, Instant::now())
        {
            let outbox = Arc::new(Outbox::new());
            outbox.push(datagram);
            open.insert(index, Arc::clone(&outbox));
            let stream = Stream {
                server: server.clone(),
                dialer: self.streams.0.dialer.clone(),
                placeholder: to,
                outbox,
                inbox: self.sender.clone(),
                health: self.streams.0.health.clone(),
            };
            self.streams.spawn(index, stream);
        }
        true
    }

    /// The next message of any server, no longer than `room`.
    pub(in crate::rtc) fn poll_message(
        &self,
        cx: &mut Context<'_>,
        room: usize,
    ) -> Poll<(SocketAddr, BytesMut)> {
        let mut inbox = lock(&self.inbox);
        loop {
            match ready!(inbox.poll_recv(cx)) {
                // As long a datagram would be cut off, and be of no use.
                Some((_, message)) if message.len() > room => {}
                Some(message) => return Poll::Ready(message),
                // It holds a sender itself, so the channel never ends.
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for SocketStreams {
    fn drop(&mut self) {
        for outbox in lock(&self.open).values() {
            outbox.close();
        }
        self.streams.release(self.id);
    }
}
