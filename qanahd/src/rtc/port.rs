//! One UDP port for all connections of a tunnel (`ListenPort`).
//!
//! `webrtc` binds a socket for each connection. Where a port is given, that socket carries only what belongs
//! to TURN servers, which know a client by its address and port and give each but one allocation; all else
//! goes by a socket at the port, which the connections share. What arrives there is told apart here:
//!
//! - a check names the receiver in its USERNAME (RFC 8445, section 7.2.2),
//! - an answer has the transaction of its request,
//! - anything else belongs to those whose checks its source has answered. Mostly this is one connection. With
//!   two to one peer, an old and a new one, both get it, as far as it makes sense where they stand (`admission`);
//!   DTLS drops sealed records that are not its own (RFC 9147, section 4.5.2).
//!
//! A stranger can neither take a datagram from its receiver nor make anything here grow: all is bounded, and
//! what does not fit is dropped.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use qanah_core::turn::{StunHeader, receiver};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::task::AbortHandle;

use super::admission::Admission;
use super::socket::grow_buffers;
use super::taken::{PortReport, Taken};
use super::turn::placeholder;
use super::udp::Udp;

/// Bytes that may wait for a connection, with what it takes to keep them: what a full SCTP window is.
const MAX_WAITING: usize = 4 * 1024 * 1024;
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

/// What a connection has at the port.
pub(super) struct Inbox {
    admission: Admission,
    inner: Mutex<InboxInner>,
}

#[derive(Default)]
struct InboxInner {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    waker: Option<Waker>,
}

struct Waiting {
    from: SocketAddr,
    stride: usize,
    bytes: Vec<u8>,
}

impl Waiting {
    /// What it takes of [`MAX_WAITING`]: the least of datagrams is not for nothing.
    fn cost(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>()
    }
}

impl Inbox {
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
        inner.bytes = inner.bytes.saturating_sub(next.cost());
        let room = buffer.len().min(next.bytes.len());
        if let (Some(into), Some(bytes)) = (buffer.get_mut(..room), next.bytes.get(..room)) {
            into.copy_from_slice(bytes);
        }
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (next.from, room, next.stride.max(1));
        Poll::Ready(1)
    }

    /// Puts in what of these datagrams this connection takes.
    fn deliver(&self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        if lock(&self.inner).bytes + bytes.len() > MAX_WAITING {
            return;
        }
        let mut bytes = bytes.to_vec();
        let (length, from) = self.admission.sift(from, stride, &mut bytes);
        if length == 0 {
            return;
        }
        bytes.truncate(length);
        let next = Waiting { from, stride, bytes };
        let mut inner = lock(&self.inner);
        inner.bytes += next.cost();
        inner.waiting.push_back(next);
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Whether a STUN message is for this connection.
    fn takes(&self, from: SocketAddr, header: StunHeader, ufrag: Option<&str>) -> bool {
        if header.is_request() {
            self.admission.is_receiver(ufrag)
        } else {
            self.admission.awaits(from, header)
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
        let udp = Udp::new(socket.try_clone()?)?;
        let state = UdpSocketState::new(UdpSockRef::from(udp.socket()))?;
        let reader = tokio::spawn(read(udp, state, Arc::clone(&inboxes))).abort_handle();
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
    pub(super) fn listen(&self, admission: Admission) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox { admission, inner: Mutex::default() });
        let mut inboxes = lock(&self.inboxes);
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&inbox));
        inbox
    }
}

async fn read(udp: Udp, state: UdpSocketState, inboxes: Arc<Mutex<Vec<Weak<Inbox>>>>) {
    let mut buffer = vec![0; RECEIVE];
    loop {
        let mut meta = [RecvMeta::default()];
        let mut receive = |socket: UdpSockRef<'_>| {
            let mut bufs = [IoSliceMut::new(&mut buffer)];
            state.recv(socket, &mut bufs, &mut meta)
        };
        let received = poll_fn(|cx| udp.poll_receive(cx, &mut receive)).await;
        let [meta] = meta;
        match received {
            Ok(1..) => {
                let bytes = buffer.get(..meta.len).unwrap_or_default();
                let listening: Vec<_> = lock(&inboxes).iter().filter_map(Weak::upgrade).collect();
                sort(&listening, meta.addr, meta.stride.max(1), bytes);
            }
            // Errors of what was sent are told here too (a port that is closed); they are nobody's end.
            Ok(_) => {}
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
    if placeholder::is_reserved(from.ip()) {
        // Nobody can be there, so somebody wants to look like a server of ours.
        return;
    }
    let of_peer = |stride, bytes: &[u8]| {
        for inbox in listening.iter().filter(|inbox| inbox.admission.is_peer(from)) {
            inbox.deliver(from, stride, bytes);
        }
    };
    if StunHeader::read(bytes).is_none() {
        of_peer(stride, bytes);
        return;
    }
    for datagram in bytes.chunks(stride) {
        let Some(header) = StunHeader::read(datagram) else {
            of_peer(datagram.len(), datagram);
            continue;
        };
        let ufrag = header.is_request().then(|| receiver(datagram)).flatten();
        if let Some(inbox) = listening.iter().find(|it| it.takes(from, header, ufrag)) {
            inbox.deliver(from, datagram.len(), datagram);
        }
    }
}

#[cfg(test)]
mod tests {
    use qanah_core::turn::{BINDING, SUCCESS};

    use super::*;

    /// The least that is taken, and what is never taken, in a number that would count for little.
    #[test]
    fn small_datagrams_fill_an_inbox_with_what_they_cost() {
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        let inbox = Inbox { admission: Admission::default(), inner: Mutex::default() };
        let stun = |kind: u16, attributes: &[u8]| {
            let length = u8::try_from(attributes.len()).unwrap();
            let [high, low] = kind.to_be_bytes();
            let head = [high, low, 0, length, 0x21, 0x12, 0xa4, 0x42];
            [&head[..], &[7; 12], attributes].concat()
        };
        let check = stun(BINDING, b"\x00\x06\x00\x03a:b\x00");
        inbox.admission.sent(from, from, check.len(), &check);
        inbox.deliver(from, 20, &stun(BINDING | SUCCESS, &[]));
        inbox.admission.opened();
        let sealed = [23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        for _ in 0..200_000 {
            inbox.deliver(from, 14, &sealed);
            inbox.deliver(from, 1, b"");
        }
        let inner = lock(&inbox.inner);
        let count = inner.waiting.len();
        assert!(count <= 1 + MAX_WAITING / size_of::<Waiting>(), "{count}");
        assert!(inner.waiting.iter().all(|one| !one.bytes.is_empty()));
    }
}
