//! The control socket: gRPC over a Unix socket, for `qanahctl`.
//!
//! `socket` makes it, `connection` lets connections in and bounds them, `auth` decides on every
//! call by the table of `qanah_core::policy`, `service` checks what the request asks for by the
//! table of privileges there and hands it to the daemon, `convert` turns the daemon's types into
//! those of the API.
//!
//! All of it runs beside the data path, never in it, and every client is bounded in connections,
//! streams, bytes and time, so that none of them can hurt the tunnels or another client.

mod auth;
mod by_size;
mod connection;
mod convert;
mod places;
mod receive;
pub(crate) mod report;
mod request;
mod service;
mod socket;
mod throttle;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use qanah_core::config::TunnelName;
use tokio::sync::{oneshot, watch as tokio_watch};
use tonic::transport::Server;

pub(crate) use connection::Limits;
pub(crate) use convert::ControlFailure;
pub(crate) use request::{CheckDone, ReloadDone, Source, UpCall, UpDone};
pub(crate) use socket::{ControlError, ControlSocket, bind, control_group};

use crate::tunnel::pairing::{AnswerMade, OfferMade};
use report::StatusReport;

/// The version that the daemon tells its clients.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The largest request, in bytes. Requests are names and texts to be carried by hand.
const MAX_REQUEST: usize = 64 * 1024;

/// The largest request of root's, in bytes: a configuration as text, and some options.
const MAX_ROOT_REQUEST: usize = qanah_core::config::MAX_FILE_LEN + MAX_REQUEST;

/// Streams that one connection may have open, and calls of it that run at once.
const STREAMS: u32 = 16;

/// Resets that a client may cause before its connection is closed (CVE-2023-44487).
const RESETS: usize = 32;

/// How long calls that run may go on after the daemon was told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// What the control socket asks of the daemon.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// The state of the tunnel `name`, or of all.
    ///
    /// Must answer soon: it is dropped after the time limit of a call.
    ///
    /// # Errors
    ///
    /// [`ControlFailure::UnknownTunnel`] and the general ones.
    async fn status(&self, name: Option<String>) -> Result<StatusReport, ControlFailure>;

    /// Brings a tunnel up. What is asked for is done whether or not the answer is waited for.
    ///
    /// # Errors
    ///
    /// Why it is not up. Whatever was done is undone.
    async fn up(&self, call: UpCall) -> Result<UpDone, ControlFailure>;

    /// Takes a tunnel down; what went wrong on the way, a line each.
    ///
    /// # Errors
    ///
    /// [`ControlFailure::UnknownTunnel`], [`ControlFailure::OneTunnel`] and the general ones.
    async fn down(&self, name: TunnelName) -> Result<Vec<String>, ControlFailure>;

    /// Applies a changed configuration. `quotes`: whoever asks may see what it says.
    ///
    /// # Errors
    ///
    /// Why it is not in force. The old one is.
    async fn reload(&self, name: TunnelName, quotes: bool) -> Result<ReloadDone, ControlFailure>;

    /// Reads a configuration. `quotes`: whoever asks may see what it says.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    async fn check(&self, source: Source, quotes: bool) -> Result<CheckDone, ControlFailure>;

    /// The state of all tunnels after each change from now on.
    fn watch(&self) -> tokio_watch::Receiver<Arc<StatusReport>>;

    /// Makes an offer to be carried by hand.
    ///
    /// # Errors
    ///
    /// Why there is none.
    async fn offer(
        &self,
        tunnel: String,
        peer: Option<String>,
        lifetime: Duration,
    ) -> Result<OfferMade, ControlFailure>;

    /// Answers an offer that was carried by hand.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    async fn answer(&self, tunnel: String, text: String) -> Result<AnswerMade, ControlFailure>;

    /// Takes an answer that was carried by hand; the peer that made it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    async fn accept(&self, tunnel: String, text: String) -> Result<String, ControlFailure>;
}

/// Serves the control API until `shutdown`, then removes the socket.
///
/// # Errors
///
/// When the server cannot run at all. What clients do is never an error.
pub(crate) async fn serve<B: Backend>(
    socket: ControlSocket,
    backend: B,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ControlError> {
    let ControlSocket { listener, guard } = socket;
    let log = auth::DenialLog::default();
    let service = by_size::BySize::new(service::Service::new(backend, limits, log.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .concurrency_limit_per_connection(STREAMS as usize)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(u32::from(u16::MAX))
        .initial_connection_window_size(2 * u32::from(u16::MAX))
        .max_frame_size(16 * 1024)
        .http2_max_header_list_size(8 * 1024)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .http2_keepalive_interval(Some(limits.stall))
        .http2_keepalive_timeout(Some(limits.stall))
        .layer(auth::Authorise::new(log))
        .layer(receive::ReceiveWithin(limits.call))
        .add_service(service)
        .serve_with_incoming_shutdown(connection::incoming(listener, limits), async {
            // An error means that the sender is gone, which is a reason to stop, too.
            let _ = stopped.await;
        });
    tokio::pin!(server);
    let result = tokio::select! {
        result = &mut server => result,
        () = shutdown => {
            let _ = stop.send(());
            // A client that never reads must not keep the daemon from stopping.
            tokio::time::timeout(GRACE, server).await.unwrap_or(Ok(()))
        }
    };
    drop(guard);
    Ok(result?)
}

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod tests;
