//! The way of the Paho library through an HTTP proxy.
//!
//! The library can do CONNECT by itself, but: it waits for the proxy up to 10 s under the lock that all
//! its clients share; it takes what the proxy says for the end of the head when nothing more is there at
//! the moment; and it says nothing of why the proxy refused. So it is given a proxy of ours, on loopback, for
//! one attempt: that says yes at once, makes the real connection with the code that TURN uses too
//! ([`Dialer`]), and knows why when there is none.
//!
//! Others on this machine can reach the port. It takes one connection only, from whoever knows a random
//! word that only the library was told, and leads to one broker.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qanah_core::servers::Host;
use rand_core::{OsRng, RngCore};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::dial::Dialer;

/// How long the connection through the real proxy may take: less than the library waits, so that the
/// reason is known by then.
const DIAL: Duration = Duration::from_secs(6);
/// How long the library may take to say what it wants; others get no more.
const REQUEST: Duration = Duration::from_secs(2);
/// Longest request in bytes. The library's has some 150.
const MAX_REQUEST: usize = 2048;
/// Connections that may be listened to at once.
const MAX_VISITORS: usize = 16;

/// One attempt's way. Dropping it ends what waits, not what is connected.
#[derive(Debug)]
pub(super) struct Gate {
    url: CString,
    outcome: Arc<Mutex<Outcome>>,
    waiting: AbortHandle,
}

/// What has become of the connection.
#[derive(Debug, Clone, Default)]
enum Outcome {
    #[default]
    Open,
    /// The proxy's end (or the broker's), and ours.
    Connected(SocketAddr, IpAddr),
    Failed(String),
}

impl Gate {
    /// Opens a way to this broker.
    ///
    /// # Errors
    /// When there is no loopback address, or no randomness.
    pub(super) fn open(
        runtime: &Handle,
        dialer: Dialer,
        host: Host,
        port: u16,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let own = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let mut bytes = [0; 16];
        OsRng.try_fill_bytes(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
        let word: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let url = format!("http://qanah:{word}@{own}");
        let expected = format!("Basic {}", STANDARD.encode(format!("qanah:{word}")));
        let outcome = Arc::new(Mutex::default());
        let told = Arc::clone(&outcome);
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let waiting = tokio::spawn(async move {
            let Some(mut visitor) = wait_for_library(listener, expected).await else {
                return;
            };
            // A task of its own: it lives on when the gate is closed.
            tokio::spawn(async move {
                let tell = |outcome| {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                };
                // The library hears of a failure by the end of its connection, and then the reason is known.
                if let Err(error) = pass(&mut visitor, &dialer, (&host, port), tell).await {
                    tell(Outcome::Failed(error));
                }
            });
        });
        Ok(Self {
            url: CString::new(url).map_err(io::Error::other)?,
            outcome,
            waiting: waiting.abort_handle(),
        })
    }

    /// What the library is told that its proxy is.
    pub(super) fn url(&self) -> &CStr {
        &self.url
    }

    /// Why there was no connection, if that is the reason.
    pub(super) fn reason(&self) -> Option<String> {
        match self.outcome() {
            Outcome::Failed(reason) => Some(reason),
            Outcome::Open | Outcome::Connected(..) => None,
        }
    }

    /// The ends of the connection to the proxy: there and here.
    pub(super) fn ends(&self) -> Option<(SocketAddr, IpAddr)> {
        match self.outcome() {
            Outcome::Connected(there, here) => Some((there, here)),
            Outcome::Open | Outcome::Failed(_) => None,
        }
    }

    fn outcome(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

/// The connection of who knows the word; afterwards nobody is listened to any more.
async fn wait_for_library(listener: TcpListener, expected: String) -> Option<TcpStream> {
    let (sender, mut known) = mpsc::channel(1);
    let expected = Arc::new(expected);
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            known = known.recv() => return known,
            visitor = listener.accept(), if visitors.len() < MAX_VISITORS => {
                // Out of descriptors, most likely; the attempt ends by its time limit.
                let Ok((mut stream, _)) = visitor else {
                    return None;
                };
                let (expected, sender) = (Arc::clone(&expected), sender.clone());
                visitors.spawn(async move {
                    let asks = asks_rightly(&mut stream, &expected);
                    if let Ok(true) = tokio::time::timeout(REQUEST, asks).await {
                        let _ = sender.try_send(stream);
                    }
                });
            }
            Some(_) = visitors.join_next() => {}
        }
    }
}

async fn asks_rightly(stream: &mut TcpStream, expected: &str) -> bool {
    let mut head = Vec::new();
    loop {
        let mut piece = [0; 512];
        match stream.read(&mut piece).await {
            Ok(length) if length > 0 => {
                head.extend_from_slice(piece.get(..length).unwrap_or_default());
            }
            _ => return false,
        }
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let name = "Proxy-Authorization";
                let word = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                return request.method == Some("CONNECT")
                    && word.is_some_and(|word| word.value.ct_eq(expected.as_bytes()).into());
            }
            Ok(httparse::Status::Partial) if head.len() <= MAX_REQUEST => {}
            _ => return false,
        }
    }
}

/// Says yes, connects, and carries bytes until either side ends.
async fn pass(
    library: &mut TcpStream,
    dialer: &Dialer,
    (host, port): (&Host, u16),
    tell: impl Fn(Outcome),
) -> Result<(), String> {
    // In one piece: the library does not wait for a second one.
    let yes = library.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    yes.map_err(|error| error.to_string())?;
    let dialled = tokio::time::timeout(DIAL, dialer.dial(host, port)).await;
    let mut broker = dialled
        .map_err(|_| format!("no connection within {} s", DIAL.as_secs()))?
        .map_err(|error| error.to_string())?;
    if let (Ok(there), Ok(here)) = (broker.peer_addr(), broker.local_addr()) {
        tell(Outcome::Connected(there, here.ip()));
    }
    // How it ends the library sees itself.
    let _ = tokio::io::copy_bidirectional(library, &mut broker).await;
    Ok(())
}
