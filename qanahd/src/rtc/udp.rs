//! A UDP socket, and when to use it.
//!
//! Whoever waits for a socket's room all the time is woken whenever the receiver has taken a datagram: the kernel
//! says so each time. That is a wakeup for each call that sends, at the very moment when the other end has work to
//! do, and for nothing: there is nearly always room. So it is waited for only after a call that found none.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn_udp::UdpSockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The socket.
#[derive(Debug)]
pub(super) struct Udp {
    io: Io,
    /// There while somebody waits for room. Another descriptor, because each can be waited for only once.
    room: Mutex<Option<AsyncFd<OwnedFd>>>,
}

#[derive(Debug)]
enum Io {
    Both(AsyncFd<UdpSocket>),
    SendOnly(UdpSocket),
}

impl Udp {
    /// Takes over a socket that does not block.
    ///
    /// # Errors
    /// When the kernel cannot wait for it.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let io = Io::Both(register(socket, Interest::READABLE)?);
        Ok(Self { io, room: Mutex::default() })
    }

    /// The same for one from which somebody else receives.
    pub(super) fn send_only(socket: UdpSocket) -> Self {
        Self { io: Io::SendOnly(socket), room: Mutex::default() }
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &UdpSocket {
        match &self.io {
            Io::Both(fd) => fd.get_ref(),
            Io::SendOnly(socket) => socket,
        }
    }

    /// Receives by a call that says [`io::ErrorKind::WouldBlock`] when nothing is there. Nothing ever comes
    /// from a socket that only sends.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(UdpSockRef<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let Io::Both(fd) = &self.io else {
            return Poll::Pending;
        };
        loop {
            let mut guard = ready!(fd.poll_read_ready(cx))?;
            if let Ok(received) = guard.try_io(|fd| receive(UdpSockRef::from(fd.get_ref()))) {
                return Poll::Ready(received);
            }
        }
    }

    /// Returns when there may be room, after a call that found none.
    ///
    /// # Errors
    /// When the kernel cannot wait for it.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = match &mut *room {
            Some(fd) => fd,
            none => {
                let fd = self.socket().as_fd().try_clone_to_owned()?;
                none.insert(register(fd, Interest::WRITABLE)?)
            }
        };
        // The next time only after more has left.
        ready!(fd.poll_write_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Nobody waits for room any more.
    pub(super) fn forget_room(&self) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Lets the runtime wait for a descriptor of ours.
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn register<T: AsRawFd + Into<OwnedFd>>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: who can be turned into an `OwnedFd` owns its descriptor until it is dropped, and has no other.
    let registered = unsafe { AsyncFd::register_with_interest(owner, interest) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A socket of another kind stands in: the kernel drops what is too much of UDP on loopback before a sender
    /// would have to wait.
    #[tokio::test]
    async fn who_found_no_room_is_told_when_there_is_some() {
        let (full, other) = UnixDatagram::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.send(&[0; 1000]).is_ok() {}
        let udp = Udp::send_only(UdpSocket::from(OwnedFd::from(full)));
        let room = std::future::poll_fn(|cx| udp.poll_room(cx));
        tokio::pin!(room);
        assert!(futures_util::poll!(&mut room).is_pending());
        let mut buffer = [0; 1000];
        other.set_nonblocking(true).unwrap();
        while other.recv(&mut buffer).is_ok() {}
        tokio::time::timeout(std::time::Duration::from_secs(10), room).await.unwrap().unwrap();
        udp.socket().send(b"more").unwrap();
        assert_eq!(other.recv(&mut buffer).unwrap(), 4);
        udp.forget_room();
        assert!(udp.room.lock().unwrap().is_none());
    }
}
