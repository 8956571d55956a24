//! Who is measured, and how it is brought up in a lab.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::bench::args::{Args, pair};
use crate::bench::machine::version;
use crate::bench::rtt::first_answer;
use crate::conf::{Conf, inner4};
use crate::daemon::{Daemon, Options, program};
use crate::lab::Lab;
use crate::ns::Place;
use crate::process::Proc;
use crate::servers::{Broker, Turn};
use crate::wait::{eventually, secs};

/// Name of the interface of a userspace WireGuard.
const WG: &str = "wg0";
/// Port of a userspace WireGuard.
const WG_PORT: u16 = 51820;
/// What `wg-quick` sets on a path of 1500 bytes.
const WG_MTU: u16 = 1420;
/// How long a tunnel may take to carry its first ping.
pub const UP: Duration = secs(30);

/// What somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// No tunnel at all.
    Bare,
    /// `qanahd`.
    Qanah,
    /// `qanahd` that sends a frame that was lost again so many times, and then gives it up.
    GivesUp(u16),
    /// A userspace WireGuard that takes `-f INTERFACE`, and that program.
    WireGuard(PathBuf),
}

/// Somebody who is measured.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Its name in the table.
    pub name: String,
    /// Its version; empty for the bare path.
    pub version: String,
    /// What it is.
    pub kind: Kind,
}

/// Who cannot be measured, and why.
pub type Absent = (String, String);

/// Those who can be measured, and those who cannot.
///
/// # Errors
/// When `qanahd` is not built.
pub fn discover(args: &Args) -> Result<(Vec<Contender>, Vec<Absent>)> {
    let bare = Contender { name: "bare path".to_owned(), version: String::new(), kind: Kind::Bare };
    let own = version(&program("qanahd")?);
    let own = Contender { name: "qanah".to_owned(), version: own, kind: Kind::Qanah };
    let gives_up = args.retransmits.iter().map(|times| Contender {
        name: format!("qanah, {times} retransmits"),
        kind: Kind::GivesUp(*times),
        ..own.clone()
    });
    let gives_up: Vec<_> = gives_up.collect();
    let (mut there, mut absent) = (vec![bare, own], Vec::new());
    there.extend(gives_up);
    let given = |list: &[String], name: &str| {
        let mut pairs = list.iter().filter_map(|text| pair(text));
        pairs.find(|(of, _)| *of == name).map(|(_, value)| value.to_owned())
    };
    let mut add = |name: &str, path: PathBuf| {
        let kind = Kind::WireGuard(path.clone());
        there.push(Contender { name: name.to_owned(), version: version(&path), kind });
    };
    for name in args.peers() {
        match given(&args.have, name) {
            Some(path) => add(name, PathBuf::from(path)),
            None => {
                let reason = given(&args.lack, name);
                let reason = reason.unwrap_or_else(|| "nobody installed it".to_owned());
                absent.push((name.to_owned(), reason));
            }
        }
    }
    for text in &args.also {
        let (name, path) = pair(text).with_context(|| format!("--also {text}: NAME=PROGRAM"))?;
        ensure!(PathBuf::from(path).is_file(), "--also {text}: there is no {path}");
        add(name, PathBuf::from(path));
    }
    Ok((there, absent))
}

/// A running daemon.
#[derive(Debug)]
enum Running {
    Qanah(Daemon),
    WireGuard(Proc),
}

/// Who knows whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Everybody knows everybody.
    Mesh,
    /// Everybody knows node 1 alone.
    Star,
}

/// A contender in a lab.
#[derive(Debug)]
pub struct Site<'a> {
    lab: &'a Lab,
    kind: &'a Kind,
    confs: Vec<Conf>,
    running: Vec<Option<Running>>,
    servers: Option<(Broker, Turn)>,
}

impl<'a> Site<'a> {
    /// Starts what the daemons need, and no daemon.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn prepare(lab: &'a Lab, contender: &'a Contender, shape: Shape) -> Result<Self> {
        let mut confs = lab.mesh();
        if shape == Shape::Star {
            for conf in confs.iter_mut().skip(1) {
                conf.peers.retain(|peer| peer.name == crate::conf::name(1));
            }
        }
        for node in lab.nodes() {
            // What TCP learnt on one path must not help or hinder it on the next.
            node.place().shell("echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save")?;
        }
        let servers = match contender.kind {
            Kind::Qanah | Kind::GivesUp(_) => Some((lab.broker()?, lab.turn()?)),
            _ => None,
        };
        let running = confs.iter().map(|_| None).collect();
        Ok(Self { lab, kind: &contender.kind, confs, running, servers })
    }

    /// Starts all daemons and waits until every node has an answer of node 1.
    ///
    /// # Errors
    /// When a daemon does not start, or an answer does not come in time.
    pub fn up(lab: &'a Lab, contender: &'a Contender, shape: Shape) -> Result<Self> {
        let mut site = Self::prepare(lab, contender, shape)?;
        for n in 1..=lab.nodes().len() {
            site.launch(n)?;
        }
        for n in 2..=lab.nodes().len() {
            first_answer(site.place(n)?, &site.address(1)?, UP)?;
        }
        Ok(site)
    }

    /// Starts the daemon of node `n`, with all that a user would have to do for it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn launch(&mut self, n: usize) -> Result<()> {
        let node = self.lab.node(n)?;
        let conf = self.confs.get(n - 1).ok_or_else(|| anyhow!("no node {n}"))?;
        let running = match self.kind {
            Kind::Bare => return Ok(()),
            Kind::Qanah | Kind::GivesUp(_) => {
                let mut options = Options::of(self.lab).log_level("info");
                if let Kind::GivesUp(times) = self.kind {
                    options = options.and(&["--retransmits", &times.to_string()]);
                }
                Running::Qanah(Daemon::launch(self.lab, node, conf, &options)?)
            }
            Kind::WireGuard(path) => Running::WireGuard(self.wireguard(n, conf, path)?),
        };
        if let Some(slot) = self.running.get_mut(n - 1) {
            *slot = Some(running);
        }
        Ok(())
    }

    /// Waits until the daemon of node `n` is ready for its peers.
    ///
    /// # Errors
    /// When it has ended or is not ready in time.
    pub fn ready(&mut self, n: usize) -> Result<()> {
        match self.running.get_mut(n - 1).and_then(Option::as_mut) {
            Some(Running::Qanah(daemon)) => {
                daemon.ready()?;
                eventually("the broker is connected", UP, || {
                    ensure!(daemon.status()?.brokers_connected()? > 0, "it is not");
                    Ok(())
                })
            }
            Some(Running::WireGuard(proc)) => proc.ensure_running(),
            None => Ok(()),
        }
    }

    fn wireguard(&self, n: usize, conf: &Conf, path: &PathBuf) -> Result<Proc> {
        let place = self.place(n)?;
        let mut command = place.command(path);
        command.args(["-f", WG]).env("LOG_LEVEL", "error").env("WG_LOG_LEVEL", "error");
        // boringtun would change its user, and then die with nobody.
        command.env("WG_SUDO", "true").env("RUST_LOG", "error");
        let log = self.lab.dir().join(format!("{n}-wg.log"));
        let mut proc = Proc::spawn(&format!("{} of node {n}", path.display()), command, &log)?;
        let socket = place.path(&format!("/run/wireguard/{WG}.sock"));
        eventually("the userspace WireGuard takes its configuration", secs(10), || {
            proc.ensure_running()?;
            ensure!(socket.exists(), "there is no {}", socket.display());
            Ok(())
        })?;
        let file = self.lab.write(&format!("{n}-wg.conf"), &self.wireguard_conf(conf)?)?;
        place.shell(&format!(
            "wg setconf {WG} {}
             ip address add {}/24 dev {WG}
             ip link set {WG} mtu {WG_MTU} up",
            file.display(),
            inner4(n)
        ))?;
        Ok(proc)
    }

    /// As `wg setconf` takes it. In a star the others look for node 1, as in a mesh.
    fn wireguard_conf(&self, conf: &Conf) -> Result<String> {
        let mut text =
            format!("[Interface]\nPrivateKey = {}\nListenPort = {WG_PORT}\n", conf.private);
        for peer in &conf.peers {
            let node = self.lab.nodes().iter().find(|n| crate::conf::name(n.number()) == peer.name);
            let endpoint = node.ok_or_else(|| anyhow!("no node {}", peer.name))?.outer4();
            text += &format!(
                "[Peer]\nPublicKey = {}\nEndpoint = {endpoint}:{WG_PORT}\nAllowedIPs = {}\n",
                peer.public,
                peer.allowed.join(", ")
            );
        }
        Ok(text)
    }

    /// Where node `n` is.
    ///
    /// # Errors
    /// When there is none.
    pub fn place(&self, n: usize) -> Result<Place> {
        Ok(self.lab.node(n)?.place())
    }

    /// The address of node `n` that is measured: in the tunnel, where there is one.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn address(&self, n: usize) -> Result<String> {
        Ok(match self.kind {
            Kind::Bare => self.lab.node(n)?.outer4(),
            _ => inner4(n),
        })
    }

    /// The daemons' process ids, that of node 1 first; none on the bare path.
    pub fn pids(&self) -> Vec<u32> {
        let pid = |running: &Running| match running {
            Running::Qanah(daemon) => daemon.pid(),
            Running::WireGuard(proc) => proc.pid(),
        };
        self.running.iter().flatten().map(pid).collect()
    }

    /// The servers that the daemons use.
    pub fn servers(&self) -> Option<&(Broker, Turn)> {
        self.servers.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::lab::in_lab;

    #[test]
    fn who_is_missing_is_told_with_the_reason() {
        let line = "bench --have boringtun=/bin/true --lack gotatun=broken --also old=/bin/true";
        let (there, absent) = discover(&Args::parse_from(line.split(' '))).unwrap();
        let names: Vec<_> = there.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["bare path", "qanah", "boringtun", "old"]);
        let reasons: Vec<_> = absent.iter().map(|(n, r)| (n.as_str(), r.as_str())).collect();
        assert_eq!(reasons, [("wireguard-go", "nobody installed it"), ("gotatun", "broken")]);
        let wrong = Args::parse_from(["bench", "--also", "x=/nowhere"]);
        assert!(discover(&wrong).unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn a_star_knows_its_centre_alone() -> Result<()> {
        in_lab(3, |lab| {
            let kind = Kind::WireGuard(PathBuf::from("/bin/true"));
            let name = String::new();
            let contender = Contender { name, version: String::new(), kind };
            let site = Site::prepare(lab, &contender, Shape::Star)?;
            let text = |n: usize| site.wireguard_conf(&site.confs[n]);
            assert_eq!(text(0)?.matches("[Peer]").count(), 2);
            assert!(text(0)?.contains("Endpoint = 172.31.9.3:51820"));
            assert_eq!(text(2)?.matches("[Peer]").count(), 1);
            assert!(site.pids().is_empty() && site.servers().is_none());
            assert_eq!(site.address(2)?, "10.0.0.2");
            Ok(())
        })
    }
}
