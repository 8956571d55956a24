//! Waiting until a peer is connected.

use std::path::Path;
use std::time::Duration;

use qanah_proto::connect;
use qanah_proto::exit::Exit;
use qanah_proto::v1::{Peer, PeerState, Tunnel, WatchRequest};
use tokio::time::{Instant, timeout_at};

use crate::client::{Trouble, refused, unconnected};
use crate::table;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// A peer is connected: its name, as it is shown.
    Connected(String),
    /// There is no peer to wait for.
    NoPeers,
    /// None was connected in time. Why, a line a peer.
    TimedOut(Vec<String>),
}

/// Waits until a peer of the tunnel is connected: that one, or any.
///
/// # Errors
/// When the daemon does not tell, or the tunnel went down.
pub(crate) async fn connected(
    socket: &Path,
    tunnel: &str,
    peer: Option<&str>,
    limit: Duration,
) -> Result<Waited, Trouble> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    let watching = watch(socket, tunnel, peer, &mut last);
    if let Ok(waited) = timeout_at(deadline, watching).await {
        return waited;
    }
    let peers = last.map(|tunnel: Tunnel| tunnel.peers).unwrap_or_default();
    let wanted = peers.iter().filter(|found| is_wanted(found, peer));
    Ok(Waited::TimedOut(wanted.map(table::peer_line).collect()))
}

fn is_wanted(found: &Peer, peer: Option<&str>) -> bool {
    peer.is_none_or(|peer| found.name == peer || table::name(found) == peer)
}

async fn watch(
    socket: &Path,
    name: &str,
    peer: Option<&str>,
    last: &mut Option<Tunnel>,
) -> Result<Waited, Trouble> {
    let mut daemon = connect(socket).await.map_err(|error| unconnected(&error))?;
    let request = WatchRequest { tunnel: Some(name.to_owned()) };
    let told = daemon.watch(request).await.map_err(|status| refused(socket, &status))?;
    let mut changes = told.into_inner();
    while let Some(change) = changes.message().await.map_err(|status| refused(socket, &status))? {
        let tunnels = change.status.map(|status| status.tunnels).unwrap_or_default();
        let Some(tunnel) = tunnels.into_iter().find(|tunnel| tunnel.name == name) else {
            break;
        };
        let wanted = || tunnel.peers.iter().filter(|found| is_wanted(found, peer));
        if let Some(peer) = wanted().find(|peer| peer.state() == PeerState::Connected) {
            return Ok(Waited::Connected(table::name(peer)));
        }
        if wanted().all(|peer| peer.state() == PeerState::Disabled) {
            return Ok(Waited::NoPeers);
        }
        *last = Some(tunnel);
    }
    Err(Trouble::new(Exit::Down, format!("the tunnel {name} went down while waiting for a peer")))
}
