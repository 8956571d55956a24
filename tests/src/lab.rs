//! The lab: a hub, its bridge and the nodes on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use crate::conf::{self, Conf, Identity};
pub use crate::node::{Node, Underlay};
use crate::ns::{Namespace, Place};
use crate::process::tail;
use crate::servers::{Broker, MQTT_PORT, Recorder, STUN_PORT, Turn};

/// The hub's address on the bridge.
pub const HUB4: &str = "172.31.9.254";
/// The hub's IPv6 address on the bridge.
pub const HUB6: &str = "fd31:9::fe";
/// The bridge's Ethernet address. Without one of its own it takes that of a port, and when ports come and go
/// the nodes' knowledge of it becomes false for seconds.
const BRIDGE: &str = "02:71:61:6e:61:68";
/// An address behind the hub that nobody answers for: packets to it vanish.
pub const BLACK_HOLE: &str = "203.0.113.7";

/// How many lines of each log a failed test shows.
const TAIL: usize = 120;

/// The whole lab. Dropped without [`Lab::passed`], it prints the ends of all logs.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    hub: Namespace,
    nodes: Vec<Node>,
    identities: Vec<Identity>,
    underlay: Underlay,
    passed: AtomicBool,
}

impl Lab {
    /// Makes a hub and `nodes` nodes on its bridge.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn new(nodes: usize, underlay: Underlay) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qanah-lab-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let hub = Namespace::new()?;
        // The hub is the default router of all nodes and passes nothing on: what is sent to the
        // rest of the world vanishes without a word, as behind a bad firewall.
        hub.place().shell(&format!(
            "ip link add br0 address {BRIDGE} type bridge mcast_snooping 0
             ip addr add {HUB4}/24 dev br0; ip addr add {HUB6}/64 dev br0 nodad
             ip link set br0 up
             echo 0 > /proc/sys/net/ipv4/ip_forward
             echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"
        ))?;
        let mut lab = Self {
            dir,
            hub,
            nodes: Vec::new(),
            identities: (0..nodes).map(|_| Identity::generate()).collect(),
            underlay,
            passed: AtomicBool::new(false),
        };
        for number in 1..=nodes {
            let node = Node::new(number)?;
            lab.hub.place().shell(&format!(
                "ip link add n{number} type veth peer name eth0 netns {}
                 ip link set n{number} master br0 up",
                node.place().holder()
            ))?;
            node.link_up(underlay)?;
            node.place().shell("echo nameserver 203.0.113.53 > /etc/resolv.conf")?;
            lab.nodes.push(node);
        }
        Ok(lab)
    }

    /// Says that the test went well: the logs are of no interest.
    pub fn passed(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }

    /// Where configurations and logs are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Which addresses the nodes have.
    pub fn underlay(&self) -> Underlay {
        self.underlay
    }

    /// The hub.
    pub fn hub(&self) -> Place {
        self.hub.place()
    }

    /// Node `n`, counted from 1.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, n: usize) -> Result<&Node> {
        n.checked_sub(1)
            .and_then(|index| self.nodes.get(index))
            .ok_or_else(|| anyhow!("the lab has no node {n}"))
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The keys of all nodes.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Configurations of a full mesh of all nodes.
    pub fn mesh(&self) -> Vec<Conf> {
        conf::mesh(&self.identities)
    }

    /// Writes a configuration file that only root reads.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_conf(&self, conf: &Conf) -> Result<PathBuf> {
        self.write(&format!("{}.conf", conf.name), &conf.to_string())
    }

    /// Writes a file that only root reads.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        write_private(self.dir(), name, text)
    }

    /// Starts the broker.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn broker(&self) -> Result<Broker> {
        Broker::start(self.hub(), self.dir())
    }

    /// Starts the STUN and TURN server.
    ///
    /// # Errors
    /// As [`Turn::start`].
    pub fn turn(&self) -> Result<Turn> {
        Turn::start(self.hub(), &[HUB4, HUB6], self.dir())
    }

    /// Starts broker and STUN server where those are that a `qanahd` without options uses.
    ///
    /// # Errors
    /// As [`Lab::broker`] and [`Lab::turn`].
    pub fn public_servers(&self) -> Result<(Broker, Turn)> {
        self.hub().shell(
            "nft add table ip public
             nft 'add chain ip public in { type nat hook prerouting priority -100; }'
             nft add rule ip public in udp dport 19302 redirect to :3478",
        )?;
        Ok((self.broker()?, self.turn()?))
    }

    /// Starts to record all messages at the broker.
    ///
    /// # Errors
    /// As [`Recorder::start`].
    pub fn recorder(&self) -> Result<Recorder> {
        Recorder::start(self.hub(), self.dir())
    }

    /// The broker as `--signal-server` takes it.
    pub fn signal_server(&self) -> String {
        format!("{}:{MQTT_PORT}", self.hub_host())
    }

    /// A broker on a node, as `--signal-server` takes it.
    pub fn signal_server_on(&self, node: &Node) -> String {
        match self.underlay {
            Underlay::V6 => format!("[{}]:{MQTT_PORT}", node.outer6()),
            _ => format!("{}:{MQTT_PORT}", node.outer4()),
        }
    }

    /// The STUN server as `--stun` takes it.
    pub fn stun_url(&self) -> String {
        format!("stun:{}:{STUN_PORT}", self.hub_host())
    }

    /// The TURN server as `--turn-url` takes it.
    pub fn turn_url(&self) -> String {
        format!("turn:{}:{STUN_PORT}", self.hub_host())
    }

    fn hub_host(&self) -> String {
        match self.underlay {
            Underlay::V6 => format!("[{HUB6}]"),
            _ => HUB4.to_owned(),
        }
    }

    fn show_logs(&self) -> Result<()> {
        let mut paths: Vec<_> =
            fs::read_dir(self.dir())?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "log")) {
            let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
            println!("----- the end of {} -----\n{}", path.display(), tail(&text, TAIL));
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.passed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.show_logs() {
            println!("cannot show the logs: {error}");
        }
        if std::env::var_os("QANAH_KEEP_LOGS").is_some() {
            self.dir.disable_cleanup(true);
            println!("kept: {}", self.dir.path().display());
        }
    }
}

/// Writes a file that only root reads.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// Runs a test in a new lab of that many nodes with IPv4 and IPv6.
///
/// # Errors
/// Those of the lab and of the test.
pub fn in_lab(nodes: usize, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    in_lab_over(Underlay::Both, nodes, test)
}

/// Runs a test in a new lab with that underlay.
///
/// # Errors
/// Those of the lab and of the test.
pub fn in_lab_over(
    underlay: Underlay,
    nodes: usize,
    test: impl FnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(nodes, underlay).context("cannot make the lab")?;
    test(&lab)?;
    lab.passed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::process::marked;
    use crate::wait::{eventually, secs};

    /// The test runs itself in another process, kills that and looks what is left.
    #[test]
    fn a_killed_test_leaves_no_process() -> Result<()> {
        let name = "QANAH_LAB_VICTIM";
        if std::env::var_os(name).is_some() {
            let lab = Lab::new(2, Underlay::Both)?;
            let _servers = (lab.broker()?, lab.turn()?);
            fs::write(std::env::var(name)?, "up")?;
            std::thread::sleep(secs(60));
            anyhow::bail!("nobody killed this");
        }
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("up");
        let mut victim = Command::new(std::env::current_exe()?)
            .args(["--exact", "lab::tests::a_killed_test_leaves_no_process"])
            .env(name, &file)
            .env("TMPDIR", dir.path())
            .stdout(Stdio::null())
            .spawn()?;
        let up = eventually("a lab in another process", secs(30), || {
            anyhow::ensure!(file.exists(), "there is none");
            Ok(())
        });
        let mark = format!("{name}={}", file.display());
        let before = marked(&mark)?.len();
        victim.kill()?;
        victim.wait()?;
        up?;
        // The test, three holders and two servers.
        anyhow::ensure!(before >= 6, "only {before} processes");
        eventually("the end of all its processes", secs(10), || {
            let left = marked(&mark)?;
            anyhow::ensure!(left.is_empty(), "{left:?} are left");
            Ok(())
        })
    }
}
