//! Connections: who is let in, how many, and for how long they may say nothing or read nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use super::places::{Place, Places, Room};
use super::throttle::Throttle;
use crate::platform::hooks::Limits as HookLimits;

/// The bytes with which every HTTP/2 client begins (RFC 9113, section 3.4).
const PREFACE_LEN: usize = 24;

/// How long no connection is accepted after the system could not give one (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often refused connections are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; further ones are closed at once.
    pub(crate) connections: usize,
    /// Of these, how many only root can have.
    pub(crate) reserved_for_root: usize,
    /// Connections of one user who is not root.
    pub(crate) per_user: usize,
    /// From the connection to the end of the client's first 24 bytes.
    pub(crate) preface: Duration,
    /// How long a client may leave what was sent to it unread, or a ping unanswered.
    pub(crate) stall: Duration,
    /// How long a request may take to come in, and a call that only looks.
    pub(crate) call: Duration,
    /// How long a call may take that makes a text to be carried by hand.
    pub(crate) pairing: Duration,
    /// How long a call may take that runs hooks: those before and after, and the end of a start that
    /// is broken off.
    pub(crate) hooks: Duration,
    /// Clients that watch at once.
    pub(crate) watchers: usize,
    /// Of one user who is not root.
    pub(crate) watchers_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            reserved_for_root: 8,
            per_user: 16,
            preface: Duration::from_secs(2),
            stall: Duration::from_secs(10),
            call: Duration::from_secs(10),
            pairing: Duration::from_secs(20),
            hooks: HookLimits::DEFAULT.longest() * 2 + Duration::from_secs(30),
            watchers: 64,
            watchers_per_user: 16,
        }
    }
}

/// The process at the other end, as `SO_PEERCRED` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its user.
    pub(crate) uid: u32,
    /// Its process id; only for logs, for it may be another process by now.
    pub(crate) pid: Option<i32>,
}

/// The connections that are let in, for as long as the listener lives.
pub(crate) fn incoming(
    listener: UnixListener,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> {
    let room = Room {
        all: limits.connections,
        reserved_for_root: limits.reserved_for_root,
        per_user: limits.per_user,
    };
    let (places, log) = (Places::new(room), Throttle::new(1, LOG_EVERY));
    let door = Door { listener, limits, places, log };
    unfold(door, |mut door| async {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
}

/// Where connections come in.
struct Door {
    listener: UnixListener,
    limits: Limits,
    places: Arc<Places>,
    log: Throttle,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.refuse(None, &format!("cannot accept: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(cred) = stream.peer_cred() else {
                self.refuse(None, "the system does not say who it is");
                continue;
            };
            let peer = Peer { uid: cred.uid(), pid: cred.pid() };
            match self.places.take(peer.uid) {
                Some(place) => return Connection::new(stream, peer, place, &self.limits),
                None => self.refuse(Some(peer), "too many connections"),
            }
        }
    }

    /// Logs a refused connection, but not so often that the log is the damage.
    fn refuse(&mut self, peer: Option<Peer>, why: &str) {
        let Some(not_logged) = self.log.pass(Instant::now()) else {
            return;
        };
        tracing::warn!(
            uid = peer.map(|peer| peer.uid),
            pid = peer.and_then(|peer| peer.pid),
            not_logged,
            "control connection refused: {why}"
        );
    }
}

/// A connection that ends itself when its client is silent at first, or stops reading later.
///
/// In between the pings of HTTP/2 see to it that a client that is gone is noticed.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    peer: Peer,
    stall: Duration,
    /// Bytes of the preface that are still to come, and until when.
    missing: usize,
    preface: Pin<Box<Sleep>>,
    /// Runs while a write waits.
    blocked: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Connection {
    fn new(stream: UnixStream, peer: Peer, place: Place, limits: &Limits) -> Self {
        let preface = Box::pin(sleep(limits.preface));
        let (stall, missing) = (limits.stall, PREFACE_LEN);
        Self { stream, peer, stall, missing, preface, blocked: None, _place: place }
    }

    /// Passes the result of a write on, and ends one that has waited for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let stall = self.stall;
        let timer = self.blocked.get_or_insert_with(|| Box::pin(sleep(stall)));
        timer.as_mut().poll(cx).map(|()| Err(timed_out("the client does not read")))
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.missing > 0 {
            self.missing = self.missing.saturating_sub(buf.filled().len() - before);
            // Looked at also when bytes came: one a second is no preface.
            if self.missing > 0 && self.preface.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(timed_out("the client says nothing")));
            }
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn connection(limits: Limits) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let place = Places::new(Room { all: 1, reserved_for_root: 0, per_user: 1 });
        let place = place.take(1000).unwrap();
        (Connection::new(ours, Peer { uid: 1000, pid: None }, place, &limits), theirs)
    }

    #[tokio::test]
    async fn a_silent_client_is_ended() {
        let preface = Duration::from_millis(30);
        let (mut ours, mut theirs) = connection(Limits { preface, ..Limits::default() });
        theirs.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut buf = Vec::new();
        let error = ours.read_to_end(&mut buf).await.unwrap_err();
        assert_eq!((error.kind(), buf.len()), (io::ErrorKind::TimedOut, 14));
    }

    #[tokio::test]
    async fn after_the_preface_silence_is_no_fault() {
        let preface = Duration::from_millis(30);
        let (mut ours, mut theirs) = connection(Limits { preface, ..Limits::default() });
        theirs.write_all(&[0; PREFACE_LEN]).await.unwrap();
        ours.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
        let quiet = tokio::time::timeout(3 * preface, ours.read_u8()).await;
        assert!(quiet.is_err(), "still waiting");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_ended() {
        let stall = Duration::from_millis(30);
        let (mut ours, _theirs) = connection(Limits { stall, ..Limits::default() });
        let error = ours.write_all(&vec![0; 16 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
