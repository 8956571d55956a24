//! One UDP port for all connections of a tunnel (`ListenPort`).
//!
//! `webrtc` binds a socket for each connection. Where a port is given, that socket carries only what belongs
//! to TURN servers, which know a client by its address and port and give each but one allocation; all else
//! goes by a socket at the port, which the connections share. What arrives there is told apart here:
//!
//! - a check names the receiver in its USERNAME (RFC 8445, section 7.2.2),
//! - an answer has the transaction of its request,
//! - anything else belongs to those who exchanged checks with its source. Mostly this is one connection. With
//!   two to one peer, an old and a new one, both get it; DTLS drops what is not its own (RFC 9147, section 4.5.2).
//!
//! A stranger can neither take a datagram from its receiver nor make anything here grow: all is bounded, and
//! what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use qanah_core::turn::{BINDING, StunHeader, TransactionId};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::task::AbortHandle;
use webrtc_core::stun::attributes::ATTR_USERNAME;
use webrtc_core::stun::textattrs::TextAttribute;

use super::health::decoded;
use super::socket::grow_buffers;
use super::taken::{PortReport, Taken};

/// Bytes that may wait for a connection: what a full SCTP window is.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// Sources that a connection may get datagrams from.
const MAX_SOURCES: usize = 64;
/// Requests whose answers a connection waits for.
const MAX_REQUESTS: usize = 512;
/// ICE generations of a connection whose checks are taken.
const MAX_UFRAGS: usize = 2;
/// Sockets that are kept, one for each address that the machine has or had.
const MAX_SOCKETS: usize = 32;
/// Pause after an error of the socket.
const PAUSE: Duration = Duration::from_millis(10);
/// One receive: as many coalesced datagrams as the kernel hands out at once.
const RECEIVE: usize = 64 * 1024;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The port of a tunnel, at each of the machine's addresses. Share one among all connections.
#[derive(Clone)]
pub(crate) struct Port {
    port: u16,
    /// Kept also while no connection has a part of one: an ICE restart gives its sockets up and wants them back at
    /// once.
    sockets: Arc<Mutex<HashMap<IpAddr, Arc<PortSocket>>>>,
    taken: Taken,
}

impl Port {
    /// The port with this number; nothing is bound before the first connection.
    pub(crate) fn new(port: u16) -> Self {
        Self { port, sockets: Arc::default(), taken: Taken::default() }
    }

    /// The socket at this address.
    ///
    /// # Errors
    /// When the port is taken there, or the mark cannot be set.
    pub(super) fn socket(&self, ip: IpAddr, fw_mark: Option<u32>) -> io::Result<Arc<PortSocket>> {
        let socket = self.open(ip, fw_mark);
        self.taken.note(ip, socket.as_ref().err());
        socket
    }

    /// The machine has these addresses now.
    pub(crate) fn keep(&self, addresses: &[IpAddr]) {
        self.taken.keep(addresses);
    }

    /// How it stands since the last connections were made.
    pub(crate) fn report(&self) -> PortReport {
        PortReport { port: self.port, trouble: self.taken.trouble(self.port) }
    }

    fn open(&self, ip: IpAddr, fw_mark: Option<u32>) -> io::Result<Arc<PortSocket>> {
        let mut sockets = lock(&self.sockets);
        if let Some(socket) = sockets.get(&ip) {
            return Ok(Arc::clone(socket));
        }
        if sockets.len() >= MAX_SOCKETS {
            // Addresses come and go.
            sockets.retain(|_, socket| Arc::strong_count(socket) > 1);
        }
        let socket = Arc::new(PortSocket::bind(SocketAddr::new(ip, self.port), fw_mark)?);
        sockets.insert(ip, Arc::clone(&socket));
        Ok(socket)
    }
}

/// How a connection is called by its peer, for all its sockets.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<NamesInner>>);

#[derive(Default)]
struct NamesInner {
    ufrags: VecDeque<String>,
    /// The address that `webrtc` knows, and the one at the port.
    addresses: Vec<(SocketAddr, SocketAddr)>,
}

impl Names {
    /// A new generation begins; the one before still counts.
    pub(super) fn add_ufrag(&self, ufrag: &str) {
        let mut inner = lock(&self.0);
        inner.ufrags.push_back(ufrag.to_owned());
        if inner.ufrags.len() > MAX_UFRAGS {
            inner.ufrags.pop_front();
        }
    }

    pub(super) fn add_address(&self, known: SocketAddr, shared: SocketAddr) {
        let mut inner = lock(&self.0);
        inner.addresses.retain(|(_, other)| *other != shared);
        inner.addresses.push((known, shared));
    }

    /// The address that others see when they are on the same network.
    pub(super) fn translate(&self, address: SocketAddr) -> SocketAddr {
        let inner = lock(&self.0);
        let found = inner.addresses.iter().find(|(known, _)| *known == address);
        found.map_or(address, |(_, shared)| *shared)
    }

    fn has_ufrag(&self, ufrag: &str) -> bool {
        lock(&self.0).ufrags.iter().any(|own| own == ufrag)
    }
}

/// What a connection has at the port.
pub(super) struct Inbox {
    names: Names,
    inner: Mutex<InboxInner>,
}

#[derive(Default)]
struct InboxInner {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    waker: Option<Waker>,
    sources: VecDeque<SocketAddr>,
    requests: VecDeque<TransactionId>,
}

struct Waiting {
    from: SocketAddr,
    stride: usize,
    bytes: Vec<u8>,
}

impl Inbox {
    /// Something goes out: answers to it are awaited.
    pub(super) fn sent(&self, to: SocketAddr, datagram: &[u8]) {
        let Some(header) = StunHeader::read(datagram).filter(|header| header.is_request()) else {
            return;
        };
        let mut inner = lock(&self.inner);
        inner.requests.push_back(header.id);
        if inner.requests.len() > MAX_REQUESTS {
            inner.requests.pop_front();
        }
        inner.learn(to);
    }

    /// The next datagrams of one source.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Pending;
        };
        let mut inner = lock(&self.inner);
        let Some(next) = inner.waiting.pop_front() else {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        inner.bytes = inner.bytes.saturating_sub(next.bytes.len());
        let room = buffer.len().min(next.bytes.len());
        if let (Some(into), Some(bytes)) = (buffer.get_mut(..room), next.bytes.get(..room)) {
            into.copy_from_slice(bytes);
        }
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (next.from, room, next.stride.max(1));
        Poll::Ready(1)
    }

    fn deliver(&self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        if inner.bytes + bytes.len() > MAX_WAITING {
            return;
        }
        inner.bytes += bytes.len();
        inner.waiting.push_back(Waiting { from, stride, bytes: bytes.to_vec() });
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Whether a STUN message is for this connection. Who sends it a check is a source from then on.
    fn takes(&self, from: SocketAddr, header: StunHeader, ufrag: Option<&str>) -> bool {
        if header.is_request() {
            let is_ours = ufrag.is_some_and(|ufrag| self.names.has_ufrag(ufrag));
            if is_ours {
                lock(&self.inner).learn(from);
            }
            return is_ours;
        }
        let mut inner = lock(&self.inner);
        match inner.requests.iter().position(|id| *id == header.id) {
            Some(at) => inner.requests.remove(at).is_some(),
            None => header.kind == BINDING | 0x0010 && inner.sources.contains(&from),
        }
    }

    fn has_source(&self, from: SocketAddr) -> bool {
        lock(&self.inner).sources.contains(&from)
    }
}

impl InboxInner {
    fn learn(&mut self, source: SocketAddr) {
        if !self.sources.contains(&source) {
            self.sources.push_back(source);
            if self.sources.len() > MAX_SOURCES {
                self.sources.pop_front();
            }
        }
    }
}

/// A socket at the port, and who listens there.
pub(super) struct PortSocket {
    socket: std::net::UdpSocket,
    address: SocketAddr,
    inboxes: Arc<Mutex<Vec<Weak<Inbox>>>>,
    reader: AbortHandle,
}

impl Drop for PortSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl PortSocket {
    fn bind(address: SocketAddr, fw_mark: Option<u32>) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        if let Some(mark) = fw_mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        grow_buffers(&socket);
        socket.set_nonblocking(true)?;
        let inboxes: Arc<Mutex<Vec<Weak<Inbox>>>> = Arc::default();
        let io = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let reader = tokio::spawn(read(io, state, Arc::clone(&inboxes))).abort_handle();
        Ok(Self { socket, address, inboxes, reader })
    }

    /// Another handle of the socket, to send by.
    pub(super) fn sender(&self) -> io::Result<std::net::UdpSocket> {
        self.socket.try_clone()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen for a connection, until what is returned is dropped.
    pub(super) fn listen(&self, names: Names) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox { names, inner: Mutex::default() });
        let mut inboxes = lock(&self.inboxes);
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&inbox));
        inbox
    }
}

async fn read(
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    inboxes: Arc<Mutex<Vec<Weak<Inbox>>>>,
) {
    let mut buffer = vec![0; RECEIVE];
    loop {
        if let Err(error) = io.readable().await {
            tracing::warn!(%error, "nothing is received at ListenPort any more");
            return;
        }
        let mut meta = [RecvMeta::default()];
        let received = io.try_io(Interest::READABLE, || {
            let mut bufs = [IoSliceMut::new(&mut buffer)];
            state.recv(UdpSockRef::from(&io), &mut bufs, &mut meta)
        });
        let [meta] = meta;
        match received {
            Ok(1..) => {
                let bytes = buffer.get(..meta.len).unwrap_or_default();
                let listening: Vec<_> = lock(&inboxes).iter().filter_map(Weak::upgrade).collect();
                sort(&listening, meta.addr, meta.stride.max(1), bytes);
            }
            // Errors of what was sent are told here too (a port that is closed); they are nobody's end.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "receiving at ListenPort");
                // Should it go on like that, it does not keep the thread busy.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Gives what came from one source to those it is for.
fn sort(listening: &[Arc<Inbox>], from: SocketAddr, stride: usize, bytes: &[u8]) {
    if StunHeader::read(bytes).is_none() {
        for inbox in listening.iter().filter(|inbox| inbox.has_source(from)) {
            inbox.deliver(from, stride, bytes);
        }
        return;
    }
    for datagram in bytes.chunks(stride) {
        let Some(header) = StunHeader::read(datagram) else {
            for inbox in listening.iter().filter(|inbox| inbox.has_source(from)) {
                inbox.deliver(from, datagram.len(), datagram);
            }
            continue;
        };
        let ufrag = header.is_request().then(|| receiver(datagram)).flatten();
        let taker = listening.iter().find(|it| it.takes(from, header, ufrag.as_deref()));
        if let Some(inbox) = taker {
            inbox.deliver(from, datagram.len(), datagram);
        }
    }
}

/// Whom a check is for: the first part of its USERNAME.
fn receiver(datagram: &[u8]) -> Option<String> {
    let message = decoded(datagram)?;
    let name = TextAttribute::get_from_as(&message, ATTR_USERNAME).ok()?;
    name.text.split_once(':').map(|(ufrag, _)| ufrag.to_owned())
}
