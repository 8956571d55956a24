//! A network and a mount namespace that live as long as their holder.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::process::output;

/// What the holder of a namespace does before it sleeps.
///
/// `/run` and `/etc` become private, so that neither the sockets and the configurations of another
/// run nor those of the machine are met. Duplicate address detection would only cost a second.
const HOLDER: &str = "set -e
mount -t tmpfs -o mode=0755 lab /run
mkdir -p /run/lab/etc /run/lab/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/lab/etc,workdir=/run/lab/work lab /etc
mkdir -p /etc/qanah
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
ip link set lo up
echo ready
exec sleep infinity";

/// A pair of namespaces (network, mount), gone when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// Without root, or when the kernel has no namespaces, tmpfs or overlay file system.
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes namespaces and needs root: use tests/run"
        );
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount"])
            .args(["--propagation", "private", "--", "sh", "-c", HOLDER])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start setpriv and unshare (util-linux)")?;
        let mut said = String::new();
        let stdout = holder.stdout.take().ok_or_else(|| anyhow!("no pipe"))?;
        let namespace = Self { holder };
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "ready\n", "cannot make namespaces: the holder said {said:?}");
        Ok(namespace)
    }

    /// Where this is, to run things there.
    pub fn place(&self) -> Place {
        Place(self.holder.id())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The inside of a [`Namespace`]: only good while that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// The process that holds the namespaces.
    pub fn holder(self) -> u32 {
        self.0
    }

    /// A command that runs inside, and dies with the thread that starts it.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter", "--net", "--mount", "--target"]);
        command.arg(self.0.to_string()).arg("--").arg(program);
        command
    }

    /// Runs a command line (split at blanks) inside, and gives its output.
    ///
    /// # Errors
    /// As [`output`].
    pub fn run(self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or("true"));
        command.args(words);
        output(command)
    }

    /// Runs a shell script inside, and gives its output.
    ///
    /// # Errors
    /// As [`output`].
    pub fn shell(self, script: &str) -> Result<String> {
        let mut command = self.command("sh");
        command.args(["-ec", script]);
        output(command)
    }

    /// The file of that (absolute) path as seen inside.
    pub fn path(self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.0)).join(inside.trim_start_matches('/'))
    }

    /// Starts a thread whose sockets are made in the network namespace of this place.
    pub fn thread<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        thread::spawn(move || {
            let file = File::open(format!("/proc/{}/ns/net", self.0))?;
            // This thread never leaves it again, so no other work meets the wrong namespace.
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            work()
        })
    }

    /// What a daemon may leave behind, as text: links, addresses, routes, rules, sockets.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn footprint(self) -> Result<String> {
        // `ip -o link` shows counters of nothing and flags of all; expiry times of addresses
        // differ from one look to the next and are cut off.
        self.shell(
            "ip -o link; ip -o addr | sed 's/valid_lft.*//'; ip rule; ip -6 rule
             ip route show table all; ip -6 route show table all | sed 's/ expires [0-9]*sec//'
             find /run/qanah /etc/qanah -mindepth 1 2>/dev/null | sort
             cat /etc/resolv.conf",
        )
    }
}

/// Joins a thread of [`Place::thread`].
///
/// # Errors
/// Its own, or that it panicked.
pub fn join<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the test panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{eventually, secs};

    #[test]
    fn a_namespace_is_private_and_goes_with_its_holder() {
        let namespace = Namespace::new().unwrap();
        let place = namespace.place();
        assert_eq!(place.run("ip -br link").unwrap().lines().count(), 1);
        place.shell("mkdir /run/qanah && touch /run/qanah/x /etc/qanah/x").unwrap();
        assert!(place.path("/run/qanah/x").exists());
        assert!(place.footprint().unwrap().contains("/etc/qanah/x"));
        assert!(!std::path::Path::new("/etc/qanah/x").exists());
        let other = Namespace::new().unwrap();
        assert!(!other.place().path("/run/qanah/x").exists());
        let holder = format!("/proc/{}", place.holder());
        drop(namespace);
        eventually("the holder's end", secs(5), || {
            ensure!(!std::path::Path::new(&holder).exists(), "it is there");
            Ok(())
        })
        .unwrap();
    }
}
