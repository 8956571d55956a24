//! The socket of a connection that has a part of the tunnel's one port.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use qanah_core::turn::StunHeader;
use quinn_udp::{RecvMeta, Transmit};
use webrtc::runtime::AsyncUdpSocket;

use super::names::Names;
use super::port::{Inbox, PortSocket};
use super::socket::{BatchingSocket, Links};

/// The first byte of a ChannelData message (RFC 7983, section 7).
const CHANNEL_DATA: std::ops::RangeInclusive<u8> = 64..=79;
/// The methods of TURN (RFC 8656, section 17), Allocate to ChannelBind; Binding is none of them.
const TURN_METHODS: std::ops::RangeInclusive<u16> = 3..=9;
/// The bits of a STUN type that are the class, not the method (RFC 8489, section 5).
const CLASS_BITS: u16 = 0x0110;

/// Sends what is for TURN servers by a socket of its own, and all else by the port.
pub(super) struct PortedSocket {
    own: BatchingSocket,
    sender: BatchingSocket,
    inbox: Arc<Inbox>,
    /// Keeps the port open.
    _port: Arc<PortSocket>,
    /// The inbox is asked first, next time.
    inbox_first: AtomicBool,
}

impl std::fmt::Debug for PortedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortedSocket").field("own", &self.own).finish_non_exhaustive()
    }
}

impl PortedSocket {
    /// # Errors
    /// When the port's socket cannot be used.
    pub(super) fn new(
        own: BatchingSocket,
        port: Arc<PortSocket>,
        names: &Names,
        links: Links,
    ) -> io::Result<Self> {
        // The mark was set at the port.
        let inbox = port.listen(links.admission.clone());
        let sender = BatchingSocket::send_only(port.sender()?, links)?;
        names.add_address(own.local_addr()?, port.address());
        Ok(Self { own, sender, inbox, _port: port, inbox_first: AtomicBool::new(false) })
    }

    fn poll_inbox(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let received = self.inbox.poll(cx, bufs, meta);
        if received.is_ready()
            && let (Some(meta), Some(buffer)) = (meta.first(), bufs.first())
        {
            self.sender.heard(meta, buffer);
        }
        received
    }
}

/// Whether a datagram is for a TURN server.
fn is_turn(datagram: &[u8]) -> bool {
    match StunHeader::read(datagram) {
        Some(header) => TURN_METHODS.contains(&(header.kind & !CLASS_BITS)),
        None => datagram.first().is_some_and(|first| CHANNEL_DATA.contains(first)),
    }
}

impl AsyncUdpSocket for PortedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.own.local_addr()
    }

    fn max_gso_segments(&self) -> usize {
        self.sender.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.own.max_gro_segments()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if is_turn(transmit.contents) {
            return self.own.poll_send(cx, transmit);
        }
        self.sender.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Pending is well: this task is woken when there is room, and comes back here.
        if let Poll::Ready(Err(error)) = self.sender.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        let inbox_first = self.inbox_first.load(Ordering::Relaxed);
        if inbox_first && let Poll::Ready(count) = self.poll_inbox(cx, bufs, meta) {
            self.inbox_first.store(false, Ordering::Relaxed);
            return Poll::Ready(Ok(count));
        }
        if let Poll::Ready(received) = self.own.poll_recv(cx, bufs, meta) {
            self.inbox_first.store(true, Ordering::Relaxed);
            return Poll::Ready(received);
        }
        if inbox_first {
            return Poll::Pending;
        }
        self.poll_inbox(cx, bufs, meta).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_turn_servers_is_known_by_its_first_bytes() {
        let stun = |kind: u16| {
            let [high, low] = kind.to_be_bytes();
            let head = [high, low, 0, 0, 0x21, 0x12, 0xa4, 0x42];
            [&head[..], &[7; 12]].concat()
        };
        // Allocate, Refresh, Send, CreatePermission, ChannelBind; a request with an odd class is none.
        for kind in [0x0003, 0x0004, 0x0016, 0x0008, 0x0009] {
            assert!(is_turn(&stun(kind)), "{kind:#x}");
        }
        // Binding: request, indication, success, error.
        for kind in [0x0001, 0x0011, 0x0101, 0x0111] {
            assert!(!is_turn(&stun(kind)), "{kind:#x}");
        }
        assert!(is_turn(&[0x40, 0, 0, 4, 1, 2, 3, 4]));
        assert!(!is_turn(&[22, 254, 253, 0]), "DTLS");
        assert!(!is_turn(&[]));
    }
}
