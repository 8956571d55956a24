//! A UDP socket that batches.
//!
//! The driver of `webrtc` sends a datagram a call, up to dozens in a row, and then waits for the next
//! event. System calls are what its throughput hangs on, so datagrams are collected here and leave
//! together: as one call with segmentation offload (GSO) for a run of equal size to one destination.
//! Receiving passes coalesced datagrams (GRO) on.
//!
//! When to send: the driver goes on to wait by polling `poll_recv`. But it polls that only when its
//! receive future was woken, so the first datagram of a batch wakes it. Every `poll_recv` sends what is
//! there and keeps the waker for the next batch.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use webrtc::runtime::AsyncUdpSocket;

use super::admission::Admission;
use super::batch::{MAX_BATCH_SEGMENTS, Queue};
use super::health::Health;
use super::progress::Progress;
use super::resolve::{Resolver, Route};
use super::turn::placeholder;
use super::turn::streams::SocketStreams;
use super::udp::Udp;

/// With more bytes than this waiting for the kernel, the driver waits too.
const MAX_QUEUE_BYTES: usize = 256 * 1024;
/// Kernel buffers in bytes, where it lets us: a burst of a full SCTP window must fit.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;

/// Datagrams that the kernel refused, in all sockets of the process. UDP promises nothing, so a count is all.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// What the socket of a connection has to do with.
#[derive(Default)]
pub(super) struct Links {
    /// Knows the real addresses of servers.
    pub(super) resolver: Resolver,
    /// The way to TURN servers over streams, where there are any.
    pub(super) streams: Option<SocketStreams>,
    /// Watches how the servers answer.
    pub(super) health: Health,
    /// Knows who may send what.
    pub(super) admission: Admission,
    /// Told whenever the driver comes back to receive.
    pub(super) progress: Progress,
}

/// The socket.
pub(super) struct BatchingSocket {
    udp: Udp,
    local: SocketAddr,
    state: UdpSocketState,
    links: Links,
    queue: Mutex<Queue>,
    /// Servers that were sent to by placeholder: (placeholder, real). Mostly empty. They stay where they were found,
    /// or a name with several addresses would take an allocation away from its server.
    named: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    /// The streams are asked before the socket, next time: neither keeps the other from being read.
    streams_first: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BatchingSocket {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// The mark cannot be set (never send unmarked what shall be marked), or the kernel refuses the socket.
    pub(super) fn new(
        socket: std::net::UdpSocket,
        fw_mark: Option<u32>,
        links: Links,
    ) -> io::Result<Self> {
        if let Some(mark) = fw_mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        grow_buffers(&socket);
        socket.set_nonblocking(true)?;
        Self::over(Udp::new(socket)?, links)
    }

    /// The same over a socket that is set up already, from which somebody else receives.
    pub(super) fn send_only(socket: std::net::UdpSocket, links: Links) -> io::Result<Self> {
        Self::over(Udp::send_only(socket), links)
    }

    fn over(udp: Udp, links: Links) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(udp.socket()))?;
        let local = udp.socket().local_addr()?;
        Ok(Self {
            udp,
            local,
            state,
            links,
            queue: Mutex::default(),
            named: Mutex::default(),
            streams_first: AtomicBool::new(false),
        })
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments().clamp(1, MAX_BATCH_SEGMENTS)
    }

    /// Sends the first batch, or the first datagram of it where the kernel has no GSO.
    fn send_first(&self, queue: &mut Queue) -> io::Result<()> {
        let Some(first) = queue.batches.front() else {
            return Ok(());
        };
        let rest = first.bytes.get(first.sent..).unwrap_or_default();
        let gso = self.state.max_gso_segments() > 1;
        let contents = match rest.get(..first.segment) {
            Some(one) if !gso => one,
            _ => rest,
        };
        let length = contents.len();
        let transmit = Transmit {
            destination: first.destination,
            ecn: None,
            contents,
            segment_size: (length > first.segment).then_some(first.segment),
            src_ip: None,
        };
        match self.state.try_send(UdpSockRef::from(self.udp.socket()), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // The kernel has GSO, but not on this path: `state` knows it now. Once more, one by one.
            Err(_) if gso && self.state.max_gso_segments() == 1 => return Ok(()),
            Err(error) => {
                let refused = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(%error, to = %transmit.destination, refused, "cannot send");
            }
            Ok(()) => {}
        }
        // An empty datagram has no bytes to count, but is gone all the same.
        queue.advance(length.max(1));
        Ok(())
    }

    /// Sends all that waits, or registers to go on when the kernel has room.
    fn flush(&self, queue: &mut Queue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if queue.batches.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !queue.batches.is_empty() {
            if self.send_first(queue).is_ok() {
                continue;
            }
            if let Err(error) = ready!(self.udp.poll_room(cx)) {
                // No descriptor is left to wait with. UDP promises nothing.
                tracing::debug!(%error, "cannot wait for room; what waits is dropped");
                queue.clear();
            }
        }
        self.udp.forget_room();
        Poll::Ready(Ok(()))
    }

    /// Sends all that waits, and keeps the waker for what comes next.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = lock(&self.queue);
        match &mut queue.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.flush(&mut queue, cx)
    }

    /// Notes what the servers say among datagrams that came in.
    pub(super) fn heard(&self, meta: &RecvMeta, buffer: &[u8]) {
        let received = buffer.get(..meta.len).unwrap_or_default();
        for datagram in received.chunks(meta.stride.max(1)) {
            self.links.health.received(Some(self.local), meta.addr, datagram);
        }
    }

    /// Sends what can be sent at once.
    fn try_flush(&self, queue: &mut Queue, may_stay: impl Fn(&Queue) -> bool) {
        while !queue.batches.is_empty() && !may_stay(queue) {
            if self.send_first(queue).is_err() {
                return;
            }
        }
    }
}

/// More than the limits for everybody, where we may; else what they allow.
pub(super) fn grow_buffers(socket: &std::net::UdpSocket) {
    let fd = socket.as_fd();
    if setsockopt(&fd, sockopt::RcvBufForce, &KERNEL_BUFFER).is_err() {
        let _ = setsockopt(&fd, sockopt::RcvBuf, &KERNEL_BUFFER);
    }
    if setsockopt(&fd, sockopt::SndBufForce, &KERNEL_BUFFER).is_err() {
        let _ = setsockopt(&fd, sockopt::SndBuf, &KERNEL_BUFFER);
    }
}

impl BatchingSocket {
    /// A message of a TURN server that came over a stream.
    fn poll_streams(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let (Some(streams), Some(buffer), Some(meta)) =
            (&self.links.streams, bufs.first_mut(), meta.first_mut())
        else {
            return Poll::Pending;
        };
        let (from, message) = ready!(streams.poll_message(cx, buffer.len()));
        self.links.health.received(None, from, &message);
        let mut length = 0;
        if let Some(room) = buffer.get_mut(..message.len()) {
            room.copy_from_slice(&message);
            (length, _) = self.links.admission.sift(from, message.len(), room);
        }
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (from, length, length.max(1));
        Poll::Ready(1)
    }

    fn poll_datagrams(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received =
            self.udp.poll_receive(cx, |socket| match self.state.recv(socket, bufs, meta)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            });
        let count = ready!(received)?;
        for (one, buffer) in meta.iter_mut().zip(bufs.iter_mut()).take(count) {
            self.judge(one, buffer);
        }
        Poll::Ready(Ok(count))
    }

    /// Leaves of what came only what `webrtc` shall see, from whom it knows.
    fn judge(&self, meta: &mut RecvMeta, buffer: &mut [u8]) {
        meta.stride = meta.stride.max(1);
        if placeholder::is_reserved(meta.addr.ip()) {
            // Nobody can be there, so somebody wants to look like a server of ours.
            meta.len = 0;
            return;
        }
        let received = buffer.get_mut(..meta.len).unwrap_or_default();
        (meta.len, meta.addr) = self.links.admission.sift(meta.addr, meta.stride, received);
        self.heard(meta, buffer);
    }

    /// Where a datagram really goes; `None` while that is not known.
    fn real(&self, destination: SocketAddr) -> Option<SocketAddr> {
        if !placeholder::is_reserved(destination.ip()) {
            return Some(destination);
        }
        let mut named = lock(&self.named);
        if let Some((_, real)) = named.iter().find(|(known_as, _)| *known_as == destination) {
            return Some(*real);
        }
        match self.links.resolver.route(destination) {
            Route::Direct => Some(destination),
            Route::Unknown => None,
            Route::Named(real) => {
                named.push((destination, real));
                Some(real)
            }
        }
    }
}

impl std::fmt::Debug for BatchingSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchingSocket").field("udp", &self.udp).finish_non_exhaustive()
    }
}

/// The driver stops without coming back to receive, but its last words (close alerts, the release of a
/// TURN allocation) shall leave.
impl Drop for BatchingSocket {
    fn drop(&mut self) {
        let mut queue = std::mem::take(&mut *lock(&self.queue));
        self.try_flush(&mut queue, |_| false);
    }
}

impl AsyncUdpSocket for BatchingSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let length = transmit.contents.len();
        let size = transmit.segment_size.filter(|size| *size > 0).unwrap_or(length);
        let known_as = transmit.destination;
        self.links.health.sent(known_as, transmit.contents);
        if let Some(streams) = &self.links.streams
            && streams.send(known_as, transmit.contents)
        {
            self.links.admission.sent(known_as, known_as, size, transmit.contents);
            return Poll::Ready(Ok(length));
        }
        let Some(destination) = self.real(known_as) else {
            return Poll::Ready(Ok(length));
        };
        self.links.admission.sent(destination, known_as, size, transmit.contents);
        let mut queue = lock(&self.queue);
        if queue.bytes > MAX_QUEUE_BYTES {
            ready!(self.flush(&mut queue, cx))?;
        }
        let was_empty = queue.batches.is_empty();
        let max_segments = self.max_segments();
        match transmit.segment_size {
            Some(size) if size > 0 && size < length => {
                for datagram in transmit.contents.chunks(size) {
                    queue.push(destination, datagram, max_segments);
                }
            }
            _ => queue.push(destination, transmit.contents, max_segments),
        }
        // What cannot grow any more leaves now; the rest when the driver comes back to receive.
        self.try_flush(&mut queue, |queue| {
            queue.batches.len() == 1
                && queue.batches.front().is_some_and(|batch| !batch.is_full(max_segments))
        });
        if was_empty
            && !queue.batches.is_empty()
            && let Some(waker) = &queue.waker
        {
            waker.wake_by_ref();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Pending is well: this task is woken when there is room, and comes back here.
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        self.links.progress.happened();
        let streams_first = self.streams_first.load(Ordering::Relaxed);
        if streams_first && let Poll::Ready(count) = self.poll_streams(cx, bufs, meta) {
            self.streams_first.store(false, Ordering::Relaxed);
            return Poll::Ready(Ok(count));
        }
        if let Poll::Ready(received) = self.poll_datagrams(cx, bufs, meta) {
            self.streams_first.store(true, Ordering::Relaxed);
            return Poll::Ready(received);
        }
        if streams_first {
            return Poll::Pending;
        }
        self.poll_streams(cx, bufs, meta).map(Ok)
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
