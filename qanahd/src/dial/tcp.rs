//! TCP connections: which address, and which options.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::select_ok;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// How long an address has before the next one is tried beside it (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Bytes that the kernel may hold which it has not sent: what waits longer is better dropped, and it
/// must be known here for that.
const UNSENT: u32 = 64 * 1024;
/// A connection is dead when what was sent is not acknowledged for so long.
const DEAD_AFTER: Duration = Duration::from_secs(20);
/// A connection that is silent for so long is asked for a sign of life. It keeps NAT bindings too.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects to the first of these addresses that answers; each is tried a little later than the one before it
/// (RFC 8305).
///
/// # Errors
/// That of the last address that failed.
pub(super) async fn connect_any(
    addresses: &[SocketAddr],
    fw_mark: Option<u32>,
) -> io::Result<TcpStream> {
    type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;
    let attempts = (0..).zip(addresses.to_vec()).map(|(turn, address)| -> Attempt {
        Box::pin(async move {
            tokio::time::sleep(NEXT_ADDRESS * turn).await;
            connect(address, fw_mark).await
        })
    });
    let attempts: Vec<_> = attempts.collect();
    if attempts.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    select_ok(attempts).await.map(|(stream, _)| stream)
}

async fn connect(address: SocketAddr, fw_mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let options = SockRef::from(&socket);
    if let Some(mark) = fw_mark {
        // Never connect unmarked what shall be marked.
        options.set_mark(mark)?;
    }
    options.set_tcp_notsent_lowat(UNSENT)?;
    options.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    options.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3),
    )?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
