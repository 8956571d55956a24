//! Tunnels between all nodes of a lab, the usual start of a test.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::conf::{Conf, inner4, inner6, name};
use crate::daemon::{Daemon, Options};
use crate::lab::Lab;
use crate::ping::{first_ping, ping};
use crate::servers::{Broker, Turn};
use crate::wait::{eventually, secs};

/// How long peers may take to connect when nothing stands in their way, on a machine that is busy
/// with other tests. The tests that are about speed have limits of their own.
pub const CONNECT: Duration = secs(30);

/// How long a new session may take after the old one died without a word: 15 s until that is seen,
/// then an ICE restart, then a new session.
pub const RECOVER: Duration = secs(60);

/// SCTP packets in bytes that fit every path: those of a session that has not proved more.
pub const BASE_PACKET: u64 = 1191;

/// A full mesh with its servers.
#[derive(Debug)]
pub struct Mesh {
    /// The configurations, that of node 1 first.
    pub confs: Vec<Conf>,
    /// The daemons; one that is stopped is absent.
    pub daemons: Vec<Option<Daemon>>,
    /// The broker, unless it was taken away.
    pub broker: Option<Broker>,
    /// The STUN and TURN server.
    pub turn: Turn,
    options: Options,
}

impl Mesh {
    /// Starts the servers, makes configurations and starts no daemon.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn prepare(lab: &Lab) -> Result<Self> {
        let confs = lab.mesh();
        Ok(Self {
            daemons: confs.iter().map(|_| None).collect(),
            confs,
            broker: Some(lab.broker()?),
            turn: lab.turn()?,
            options: Options::of(lab),
        })
    }

    /// Starts everything and waits until everybody is connected to everybody.
    ///
    /// # Errors
    /// When that does not come.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut mesh = Self::prepare(lab)?;
        for node in lab.nodes() {
            mesh.up(lab, node.number())?;
        }
        mesh.connected(CONNECT)?;
        Ok(mesh)
    }

    /// Uses these options for daemons that are started from now on.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Starts the daemon of node `n`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn up(&mut self, lab: &Lab, n: usize) -> Result<()> {
        let daemon = Daemon::start_with(lab, lab.node(n)?, self.conf(n)?, &self.options)?;
        *self.slot(n)? = Some(daemon);
        Ok(())
    }

    /// The configuration of node `n`.
    ///
    /// # Errors
    /// When there is none.
    pub fn conf(&self, n: usize) -> Result<&Conf> {
        self.confs.get(n.wrapping_sub(1)).ok_or_else(|| anyhow!("no configuration {n}"))
    }

    /// The configuration of node `n`, to change it before its start.
    ///
    /// # Errors
    /// When there is none.
    pub fn conf_mut(&mut self, n: usize) -> Result<&mut Conf> {
        self.confs.get_mut(n.wrapping_sub(1)).ok_or_else(|| anyhow!("no configuration {n}"))
    }

    /// Gives two nodes a preshared key each for the other.
    ///
    /// # Errors
    /// When one does not know the other.
    pub fn preshare(&mut self, a: (usize, &str), b: (usize, &str)) -> Result<()> {
        for ((own, key), (other, _)) in [(a, b), (b, a)] {
            let wanted = name(other);
            let peer = self.conf_mut(own)?.peers.iter_mut().find(|p| p.name == wanted);
            peer.ok_or_else(|| anyhow!("{own} has no {wanted}"))?.preshared = Some(key.to_owned());
        }
        Ok(())
    }

    fn slot(&mut self, n: usize) -> Result<&mut Option<Daemon>> {
        self.daemons.get_mut(n.wrapping_sub(1)).ok_or_else(|| anyhow!("no node {n}"))
    }

    /// The daemon of node `n`.
    ///
    /// # Errors
    /// When it is not up.
    pub fn daemon(&self, n: usize) -> Result<&Daemon> {
        let daemon = self.daemons.get(n.wrapping_sub(1)).and_then(Option::as_ref);
        daemon.ok_or_else(|| anyhow!("no daemon on node {n}"))
    }

    /// Takes the daemon of node `n` out, to end it.
    ///
    /// # Errors
    /// When it is not up.
    pub fn take(&mut self, n: usize) -> Result<Daemon> {
        self.slot(n)?.take().ok_or_else(|| anyhow!("no daemon on node {n}"))
    }

    /// Waits until all daemons that are up are connected to each other.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub fn connected(&self, limit: Duration) -> Result<()> {
        let up: Vec<usize> = (1..=self.daemons.len()).filter(|n| self.daemon(*n).is_ok()).collect();
        for own in &up {
            let others: Vec<_> = up.iter().filter(|n| *n != own).map(|n| name(*n)).collect();
            let others: Vec<_> = others.iter().map(String::as_str).collect();
            self.daemon(*own)?.connected(&others, limit)?;
        }
        Ok(())
    }

    /// Waits until all that are up and connected send larger packets to each other, which come with a session of their
    /// own. There must be traffic.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn grown(&self, limit: Duration) -> Result<()> {
        let up: Vec<usize> = (1..=self.daemons.len()).filter(|n| self.daemon(*n).is_ok()).collect();
        eventually("larger packets", limit, || {
            for own in &up {
                let status = self.daemon(*own)?.status()?;
                for other in up.iter().filter(|n| *n != own) {
                    let size = status.peer(&name(*other))?.packet_size();
                    ensure!(size > Some(BASE_PACKET), "{size:?} from {own} to {other}");
                }
            }
            Ok(())
        })
    }

    /// Pings from everybody to everybody, over IPv4 and IPv6, and wants every answer.
    ///
    /// # Errors
    /// When one is missing.
    pub fn ping_all(&self) -> Result<()> {
        for from in self.daemons.iter().flatten() {
            for to in 1..=self.daemons.len() {
                for address in [inner4(to), inner6(to)] {
                    ping(from.place(), &format!("-c 3 -i 0.3 -W 3 {address}"))?.ensure_all()?;
                }
            }
        }
        Ok(())
    }

    /// Waits for an answer of node `to` to node `from`, over IPv4.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub fn first_ping(&self, from: usize, to: usize, limit: Duration) -> Result<Duration> {
        first_ping(self.daemon(from)?.place(), &inner4(to), limit)
    }
}
