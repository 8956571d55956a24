//! Meshes that are not whole: peers that do not reach each other, or do not know each other.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::conf::name;
use crate::daemon::Options;
use crate::lab::Lab;
use crate::mesh::{CONNECT, Mesh};
use crate::ping::ping;
use crate::wait::{eventually, secs};

/// A chain: the first node and the third never reach each other. Others reach everybody.
///
/// # Errors
/// When something does not start.
pub fn chain(lab: &Lab) -> Result<Mesh> {
    chain_of(lab, Mesh::prepare(lab)?)
}

/// The same of a mesh that was prepared.
///
/// # Errors
/// When something does not start.
pub fn chain_of(lab: &Lab, mut mesh: Mesh) -> Result<Mesh> {
    lab.node(1)?.cut_from(lab.node(3)?)?;
    for node in lab.nodes() {
        mesh.up(lab, node.number())?;
    }
    Ok(mesh)
}

/// A chain of three with relaying off at one of them, whose direct sessions are up.
///
/// # Errors
/// When something does not start or connect.
pub fn chain_without_relaying_at(lab: &Lab, off: usize) -> Result<Mesh> {
    lab.node(1)?.cut_from(lab.node(3)?)?;
    let mut mesh = Mesh::prepare(lab)?;
    for n in 1..=3 {
        mesh = up_without_relaying_at(lab, mesh, n, Some(off))?;
    }
    for (a, b) in [(1, 2), (2, 3)] {
        mesh.direct(a, b, CONNECT)?;
    }
    Ok(mesh)
}

fn up_without_relaying_at(lab: &Lab, mesh: Mesh, n: usize, off: Option<usize>) -> Result<Mesh> {
    let options = Options::of(lab);
    let options = if off == Some(n) { options.and(&["--no-relay"]) } else { options };
    let mut mesh = mesh.options(options);
    mesh.up(lab, n)?;
    Ok(mesh)
}

/// 1 and 3 do not know each other; 2 knows both and is connected to them.
///
/// # Errors
/// When something does not start.
pub fn strangers(lab: &Lab) -> Result<Mesh> {
    strangers_without_relaying_at(lab, None)
}

/// The same, with relaying off at one of them.
///
/// # Errors
/// When something does not start.
pub fn strangers_without_relaying_at(lab: &Lab, off: Option<usize>) -> Result<Mesh> {
    let mut mesh = Mesh::prepare(lab)?;
    for (own, other) in [(1, 3), (3, 1)] {
        mesh.conf_mut(own)?.peers.retain(|peer| peer.name != name(other));
    }
    for n in 1..=3 {
        mesh = up_without_relaying_at(lab, mesh, n, off)?;
    }
    for n in [1, 3] {
        mesh.daemon(n)?.connected(&["peer2"], CONNECT)?;
    }
    mesh.daemon(2)?.connected(&["peer1", "peer3"], CONNECT)?;
    Ok(mesh)
}

impl Mesh {
    /// Waits until node `from` reaches node `to` by one of these, and gives that.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn relayed(&self, from: usize, to: usize, via: &[usize], limit: Duration) -> Result<usize> {
        eventually(&format!("peer{from} reaches peer{to} by one of {via:?}"), limit, || {
            let status = self.daemon(from)?.status()?;
            let found = status.peer(&name(to))?.via();
            let number = via.iter().find(|n| found == Some(name(**n)));
            number.copied().ok_or_else(|| anyhow!("{status}"))
        })
    }

    /// Waits until node `from` reaches node `to` directly.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn direct(&self, from: usize, to: usize, limit: Duration) -> Result<()> {
        eventually(&format!("peer{from} reaches peer{to} directly"), limit, || {
            let status = self.daemon(from)?.status()?;
            ensure!(status.peer(&name(to))?.is_direct(), "{status}");
            Ok(())
        })
    }

    /// Forges the source of packets of node `from` as that of another peer, by whatever way they take
    /// to `to`: none is answered, and node `at` drops and counts them.
    ///
    /// # Errors
    /// When one is answered, or they are not counted.
    pub fn spoofed(&self, from: usize, to: &str, as_whom: &str, at: usize) -> Result<()> {
        let place = self.daemon(from)?.place();
        let dropped = || {
            let status = self.daemon(at)?.status()?;
            anyhow::Ok(status.peer(&name(from))?.dropped("spoofed_source"))
        };
        let before = dropped()?;
        place.run(&format!("ip addr add {as_whom}/32 dev {}", name(from)))?;
        let stats = ping(place, &format!("-c 5 -i 0.1 -W 1 -I {as_whom} {to}"))?;
        place.run(&format!("ip addr del {as_whom}/32 dev {}", name(from)))?;
        ensure!(stats.received == 0, "{}", stats.text);
        eventually("the drops are counted", secs(10), || {
            let counted = dropped()? - before;
            ensure!(counted >= 5, "{counted}: {}", self.daemon(at)?.status()?);
            Ok(())
        })
    }
}
