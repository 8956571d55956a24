//! The lab: a hub, its bridge and the nodes on it.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use crate::conf::{self, Conf, Identity};
use crate::ns::{Namespace, Place};
use crate::process::tail;
use crate::servers::{Broker, MQTT_PORT, Recorder, STUN_PORT, Turn};

/// The hub's address on the bridge.
pub const HUB4: &str = "172.31.9.254";
/// The hub's IPv6 address on the bridge.
pub const HUB6: &str = "fd31:9::fe";
/// An address behind the hub that nobody answers for: packets to it vanish.
pub const BLACK_HOLE: &str = "203.0.113.7";

/// How many lines of each log a failed test shows.
const TAIL: usize = 120;

/// Which addresses the nodes have on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4 and IPv6.
    Both,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    number: usize,
    namespace: Namespace,
}

impl Node {
    /// Where it is.
    pub fn place(&self) -> Place {
        self.namespace.place()
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address on the bridge.
    pub fn outer4(&self) -> String {
        format!("172.31.9.{}", self.number)
    }

    /// Another address that it may take on the bridge.
    pub fn other4(&self) -> String {
        format!("172.31.9.{}", 100 + self.number)
    }

    /// Gives up its IPv4 address on the bridge and takes the other one, or back.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn move_address(&self, to_other: bool) -> Result<()> {
        let (old, new) = (self.outer4(), self.other4());
        let (old, new) = if to_other { (old, new) } else { (new, old) };
        self.place().shell(&format!(
            "ip addr add {new}/24 dev eth0; ip addr del {old}/24 dev eth0
             ip addr replace {new}/24 dev eth0; ip route replace default via {HUB4}"
        ))?;
        Ok(())
    }

    /// Its IPv6 address on the bridge.
    pub fn outer6(&self) -> String {
        format!("fd31:9::{}", self.number)
    }

    /// Drops all that arrives from that other node, silently and in both directions: only an
    /// indirect way is left.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn cut_from(&self, other: &Node) -> Result<()> {
        for (here, there) in [(self, other), (other, self)] {
            here.drop_from(there)?;
        }
        Ok(())
    }

    /// Drops all that arrives here from that other node, silently; what goes there passes.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn drop_from(&self, other: &Node) -> Result<()> {
        self.place().shell(&format!(
            "nft list table inet cut >/dev/null 2>&1 || nft -f - <<'END'
             table inet cut {{
                 set v4 {{ type ipv4_addr; }}
                 set v6 {{ type ipv6_addr; }}
                 chain in {{
                     type filter hook input priority 0
                     iifname eth0 ip saddr @v4 drop
                     iifname eth0 ip6 saddr @v6 drop
                     iifname eth0 ip6 saddr fe80::/10 udp dport 1-65535 drop
                 }}
             }}
END
             nft add element inet cut v4 '{{ {}, {} }}'
             nft add element inet cut v6 '{{ {} }}'",
            other.outer4(),
            other.other4(),
            other.outer6()
        ))?;
        Ok(())
    }

    /// Undoes [`Node::cut_from`] and [`Node::drop_from`] between these two.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn mend_with(&self, other: &Node) -> Result<()> {
        for (here, there) in [(self, other), (other, self)] {
            here.place().shell(&format!(
                "nft list table inet cut >/dev/null 2>&1 || exit 0
                 nft delete element inet cut v4 '{{ {}, {} }}' 2>/dev/null || true
                 nft delete element inet cut v6 '{{ {} }}' 2>/dev/null || true",
                there.outer4(),
                there.other4(),
                there.outer6()
            ))?;
        }
        Ok(())
    }

    /// Undoes all cuts of this node.
    ///
    /// # Errors
    /// When there was none.
    pub fn heal(&self) -> Result<()> {
        self.place().run("nft delete table inet cut").map(drop)
    }

    /// Takes the link to the bridge down.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_down(&self) -> Result<()> {
        self.place().run("ip link set eth0 down").map(drop)
    }

    /// Brings the link to the bridge up, with the addresses and routes that went with it.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_up(&self, underlay: Underlay) -> Result<()> {
        self.place().run("ip link set eth0 up")?;
        self.address(underlay)
    }

    fn address(&self, underlay: Underlay) -> Result<()> {
        let place = self.place();
        if underlay != Underlay::V6 {
            place.run(&format!("ip addr replace {}/24 dev eth0", self.outer4()))?;
            place.run(&format!("ip route replace default via {HUB4}"))?;
        }
        if underlay != Underlay::V4 {
            place.run(&format!("ip addr replace {}/64 dev eth0 nodad", self.outer6()))?;
            place.run(&format!("ip -6 route replace default via {HUB6}"))?;
        }
        Ok(())
    }
}

/// The whole lab. Dropped without [`Lab::passed`], it prints the ends of all logs.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    hub: Namespace,
    nodes: Vec<Node>,
    identities: Vec<Identity>,
    underlay: Underlay,
    passed: Cell<bool>,
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
            "ip link add br0 type bridge mcast_snooping 0
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
            passed: Cell::new(false),
        };
        for number in 1..=nodes {
            let node = Node { number, namespace: Namespace::new()? };
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
        self.passed.set(true);
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
        let path = self.dir().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
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
        if self.passed.get() {
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
