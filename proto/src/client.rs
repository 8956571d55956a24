//! The client's side: a channel over a Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::MAX_RESPONSE;
use crate::v1::control_client::ControlClient;

/// A client of one daemon.
pub type Connection = ControlClient<Channel>;

/// How long a client tries again while the daemon's queue of new connections is full.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no connection to a daemon.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// There is no socket: no daemon was started, or it has stopped.
    #[error("no daemon: there is no socket {}", .0.display())]
    NoSocket(PathBuf),
    /// There is a socket, but nobody listens: the daemon has died without cleaning up.
    #[error("no daemon: nobody listens on {} (left over by one that died)", .0.display())]
    Stale(PathBuf),
    /// The modes of the directory or of the socket keep the caller out.
    #[error("permission denied for {}", .0.display())]
    Denied(PathBuf),
    /// The daemon does not take connections quickly enough.
    #[error("the daemon behind {} is too busy to take a connection", .0.display())]
    Busy(PathBuf),
    /// Anything else, such as a path that is too long for a socket.
    #[error("cannot connect to {}: {source}", .path.display())]
    Other {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ConnectError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoSocket(path),
            io::ErrorKind::ConnectionRefused => Self::Stale(path),
            io::ErrorKind::PermissionDenied => Self::Denied(path),
            io::ErrorKind::WouldBlock => Self::Busy(path),
            _ => Self::Other { path, source },
        }
    }

    /// Whether the reason is that no daemon runs there.
    pub fn is_no_daemon(&self) -> bool {
        matches!(self, Self::NoSocket(_) | Self::Stale(_))
    }
}

/// Connects to the daemon behind the socket `path`.
///
/// # Errors
///
/// See [`ConnectError`]. What happens after the connection is made shows in the calls.
pub async fn connect(path: impl AsRef<Path>) -> Result<Connection, ConnectError> {
    let path = path.as_ref().to_owned();
    // tonic hides the cause when its connector fails, so the first connection is made here.
    let first = open(&path).await.map_err(|error| ConnectError::new(&path, error))?;
    let first = Arc::new(Mutex::new(Some(first)));
    // The URI only fills the `:authority` of HTTP/2; no name is looked up.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
        service_fn(move |_| {
            let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let path = path.clone();
            async move {
                let stream = match ready {
                    Some(stream) => stream,
                    None => open(&path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        }),
    );
    Ok(ControlClient::new(channel).max_decoding_message_size(MAX_RESPONSE))
}

/// Opens the socket. A full queue of a Unix socket is EAGAIN at once, not a wait, hence the loop.
async fn open(path: &Path) -> io::Result<UnixStream> {
    for _ in 1..BUSY_TRIES {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
    UnixStream::connect(path).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn error_of(path: &Path) -> ConnectError {
        match connect(path).await {
            Ok(_) => panic!("connected to {}", path.display()),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn no_daemon_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        assert!(matches!(error_of(&path).await, ConnectError::NoSocket(_)));
        drop(UnixListener::bind(&path).unwrap());
        let stale = error_of(&path).await;
        assert!(matches!(stale, ConnectError::Stale(_)) && stale.is_no_daemon());
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(error_of(&long).await, ConnectError::Other { .. }));
    }
}
