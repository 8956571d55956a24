//! The stream of changes for one client.
//!
//! It holds no queue: the next state is made when the client has taken the last one, from the state that
//! is the newest by then. A client that reads slowly skips states, one that does not read costs its
//! place.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use qanah_proto::v1::{StatusResponse, WatchResponse};
use tokio::sync::watch;
use tonic::Status;

use super::ControlFailure;
use super::places::Place;
use super::report::StatusReport;

/// States, one after each change.
pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

struct Watching {
    /// What is to be sent before any change.
    first: Option<StatusReport>,
    states: watch::Receiver<Arc<StatusReport>>,
    tunnel: Option<String>,
    ended: bool,
    _place: Place,
}

/// A stream of the state now, then after each change. Ends when the tunnel that is watched does.
pub(super) fn stream(
    first: StatusReport,
    states: watch::Receiver<Arc<StatusReport>>,
    tunnel: Option<String>,
    place: Place,
) -> Changes {
    let first = Some(first);
    let watching = Watching { first, states, tunnel, ended: false, _place: place };
    Box::pin(unfold(watching, |mut watching| async {
        let item = watching.next().await?;
        Some((item, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        if self.ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(Ok(response(first)));
        }
        // An error means that the daemon is stopping.
        self.states.changed().await.ok()?;
        let all = Arc::clone(&self.states.borrow_and_update());
        let Some(name) = &self.tunnel else {
            return Some(Ok(response(StatusReport::clone(&all))));
        };
        if let Some(tunnel) = all.tunnels.iter().find(|tunnel| tunnel.name == *name) {
            return Some(Ok(response(StatusReport { tunnels: vec![tunnel.clone()] })));
        }
        self.ended = true;
        let known = all.tunnels.iter().map(|tunnel| tunnel.name.clone()).collect();
        let gone = ControlFailure::UnknownTunnel { name: name.clone(), known };
        Some(Err(gone.into()))
    }
}

fn response(report: StatusReport) -> WatchResponse {
    WatchResponse { status: Some(StatusResponse::from(report)) }
}
