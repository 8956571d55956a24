//! A booted systemd in a container, on a node of the lab: for units, packages and examples.
//!
//! The container is a systemd-nspawn in the network namespace of the node. Its root is an overlay over an
//! image that `tests/image` makes once, so it keeps what it wrote over a reboot and is gone with the lab.
//! It lives in a process namespace whose first process dies with this one: nothing is left behind.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use crate::daemon::{Said, said};
use crate::lab::{HUB4, Lab};
use crate::ns::Place;
use crate::process::{Proc, output};
use crate::wait::{eventually, secs};

/// Makes the root and starts nspawn, again for as long as the machine ends with a reboot (that is what 133
/// means), as the first process of a process namespace. Arguments: image, directory of the machine, name,
/// then what is bound read-only. The settings of the kernel are not the machine's, but for those of its
/// network. Control groups of its own keep its systemd from taking the processes of another machine for its
/// own, and from killing them. Its own name is in its hosts file, and there is no server to ask: sudo would wait long for that.
const BOOT: &str = "set -e
image=$1 dir=$2 name=$3
shift 3
mount -t tmpfs run /run
while IFS=: read -r _ kind path; do
    case $kind in
        '') below=/sys/fs/cgroup; [ ! -e $below/unified ] || below=$below/unified ;;
        name=systemd) below=/sys/fs/cgroup/systemd ;;
        *) continue ;;
    esac
    [ -w \"$below$path/cgroup.procs\" ] || continue
    mkdir -p \"$below$path/$name\"
    echo 0 > \"$below$path/$name/cgroup.procs\"
    echo \"$below$path/$name\" >> \"$dir/cgroups\"
done < /proc/self/cgroup
mkdir -p \"$dir/upper\" \"$dir/work\" \"$dir/root\"
mount -t overlay -o \"lowerdir=$image,upperdir=$dir/upper,workdir=$dir/work\" overlay \"$dir/root\"
etc=\"$dir/root/etc\"
for unit in systemd-sysctl systemd-remount-fs; do
    ln -sf /dev/null \"$etc/systemd/system/$unit.service\"
done
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' \"$name\" > \"$etc/hosts\"
rm -f \"$etc/resolv.conf\"
for path in \"$@\"; do set -- \"$@\" \"--bind-ro=$path\"; shift; done
code=133
while [ $code = 133 ]; do
    code=0
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --quiet --boot --register=no --keep-unit --machine=\"$name\" \\
        --directory=\"$dir/root\" --link-journal=no --resolv-conf=off --capability=CAP_NET_ADMIN \\
        --console=pipe \"$@\" || code=$?
done
exit $code";

/// Where tests find what `tests/run` has made for them.
#[derive(Debug, Clone)]
pub struct Image {
    root: PathBuf,
    debs: PathBuf,
}

impl Image {
    /// The image, or why there is none: then the test prints `SKIP` and is no success.
    ///
    /// # Errors
    /// When only a part of it is there.
    pub fn find() -> Result<Option<Self>> {
        let Some(root) = env::var_os("QANAH_IMAGE").map(PathBuf::from) else {
            println!("SKIP no image of a machine: run this by tests/run --systemd");
            return Ok(None);
        };
        let debs = env::var_os("QANAH_DEBS").map(PathBuf::from).context("QANAH_DEBS is not set")?;
        ensure!(root.join("usr/lib/systemd/systemd").exists(), "{} is no image", root.display());
        Ok(Some(Self { root, debs }))
    }

    /// The package of this tree, or the one that follows it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn deb(&self, next: bool) -> Result<PathBuf> {
        let dir = self.debs.join(if next { "next" } else { "this" });
        let entries = fs::read_dir(&dir).with_context(|| format!("no {}", dir.display()))?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        let deb = paths.find(|path| path.extension().is_some_and(|ext| ext == "deb"));
        deb.ok_or_else(|| anyhow!("no package in {}", dir.display()))
    }

    /// A tree with what was built and the installer.
    pub fn plain(&self) -> PathBuf {
        self.debs.join("plain")
    }
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    proc: Proc,
    dir: PathBuf,
    name: String,
    leader: u32,
}

impl Machine {
    /// Boots a machine on a node and waits until its systemd has started everything.
    ///
    /// # Errors
    /// When it does not come up, with its console.
    pub fn boot(lab: &Lab, place: Place, image: &Image, name: &str) -> Result<Self> {
        let mut machine = Self::start(lab, place, image, name)?;
        machine.wait()?;
        Ok(machine)
    }

    /// Starts to boot a machine, which lives as long as the calling thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(lab: &Lab, place: Place, image: &Image, name: &str) -> Result<Self> {
        let dir = lab.dir().join(name);
        fs::create_dir_all(&dir)?;
        let log = lab.dir().join(format!("{name}.log"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
        command.arg(format!("--net=/proc/{}/ns/net", place.holder())).arg("--");
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        command.args(["--propagation", "private", "--", "bash", "-c", BOOT, "boot"]);
        // The host name of the machine, which is not that of another run.
        let unique = format!("{name}-{}", std::process::id());
        command.arg(&image.root).arg(&dir).arg(&unique).arg(&image.debs);
        let proc = Proc::spawn(&format!("the machine {name}"), command, &log)?;
        Ok(Self { proc, dir, name: name.to_owned(), leader: 0 })
    }

    /// Waits until it has booted.
    ///
    /// # Errors
    /// When it does not come up, with its console.
    pub fn wait(&mut self) -> Result<()> {
        self.wait_for_boot(0)
    }

    /// Waits until a systemd other than the process `old` has started everything.
    fn wait_for_boot(&mut self, old: u32) -> Result<()> {
        let what = format!("the machine {} has booted", self.name);
        let outer = self.proc.pid();
        let leader = eventually(&what, secs(60), || {
            self.proc.ensure_running()?;
            // unshare, bash, nspawn, systemd.
            let leader = child(outer).and_then(child).and_then(child);
            let leader = leader.ok_or_else(|| anyhow!("no systemd yet"))?;
            ensure!(leader != old, "the old systemd still runs");
            let state = run_in(leader, "systemctl is-system-running")?.out;
            ensure!(matches!(state.trim(), "running" | "degraded"), "{state}");
            Ok(leader)
        })?;
        self.leader = leader;
        let failed = self.run("systemctl --failed --plain --no-legend")?;
        // Of the base system, nothing fails; of ours, tests look for themselves.
        ensure!(old != 0 || failed.is_empty(), "failed units on {}: {failed}", self.name);
        Ok(())
    }

    /// Reboots it.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&mut self) -> Result<()> {
        let old = self.leader;
        self.try_run("systemctl reboot")?;
        self.wait_for_boot(old)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell script as root, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_run(&self, script: &str) -> Result<Said> {
        run_in(self.leader, script)
    }

    /// Runs a shell script as root and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, script: &str) -> Result<String> {
        self.wanted(script, self.try_run(script)?)
    }

    /// Runs a shell script in a login shell of somebody, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_as_user(&self, user: &str, script: &str) -> Result<Said> {
        let mut command = inside(self.leader);
        command.args(["runuser", "--login", user, "--command", script]);
        said(command)
    }

    /// Runs a shell script in a login shell of somebody, and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn as_user(&self, user: &str, script: &str) -> Result<String> {
        self.wanted(script, self.try_as_user(user, script)?)
    }

    fn wanted(&self, script: &str, said: Said) -> Result<String> {
        let Said { code, out, err } = said;
        ensure!(code == 0, "{}: {script}: exit code {code}: {err}{out}", self.name);
        Ok(out)
    }

    /// Writes a file of root's that is closed to others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.write_as("root", path, text)
    }

    /// Writes a file of somebody's that is closed to others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_as(&self, user: &str, path: &str, text: &str) -> Result<()> {
        // Through a shell, so that it is written from within, with the rights of that user.
        let hex: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        let script = format!("umask 077; mkdir -p \"$(dirname {path})\"; printf '{hex}' > {path}");
        let mut command = inside(self.leader);
        command.args(["runuser", "-u", user, "--", "bash", "-c", &script]);
        self.wanted(path, said(command)?).map(drop)
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let line = format!("systemctl show --value -p {name} '{unit}'");
        Ok(self.run(&line)?.trim().to_owned())
    }

    /// The main process of a unit, by its number outside of the machine.
    ///
    /// # Errors
    /// When there is none.
    pub fn main_process(&self, unit: &str) -> Result<u32> {
        let inner = self.property(unit, "MainPID")?;
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(&self.leader.to_string());
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
                continue;
            };
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let innermost = numbers.and_then(|numbers| numbers.split_whitespace().last());
            if innermost == Some(inner.as_str()) && namespace(&pid) == ours {
                return Ok(pid.parse()?);
            }
        }
        Err(anyhow!("{unit} has no process {inner}"))
    }

    /// Finds the public servers at the hub of the lab.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn know_public_servers(&self) -> Result<()> {
        let names = "broker.emqx.io stun.l.google.com stun1.l.google.com broker.example.com stun.example.com";
        self.run(&format!("echo '{HUB4} {names}' >> /etc/hosts")).map(drop)
    }

    /// Installs a package by the line of the README, as somebody with sudo.
    ///
    /// # Errors
    /// With what apt said.
    pub fn install(&self, deb: &Path) -> Result<String> {
        let (path, own) = (deb.display(), "/home/ann/qanah_*.deb");
        self.run(&format!("rm -f {own}; install -o ann -m 644 {path} /home/ann/"))?;
        self.as_user("ann", "sudo apt install ./qanah_*.deb 2>&1")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its death ends every process of the machine; then its control groups can go.
        let _ = self.proc.end(Signal::SIGKILL, secs(10));
        let groups = fs::read_to_string(self.dir.join("cgroups")).unwrap_or_default();
        for group in groups.lines() {
            let script = "for i in $(seq 50); do
                 find \"$1\" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done";
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh", group]);
            let _ = output(command);
        }
    }
}

fn inside(leader: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "nsenter", "--target", &leader.to_string()]);
    command.args(["--all", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]);
    command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "SYSTEMD_PAGER=",
        "timeout",
        "--signal=KILL",
        "90",
    ]);
    command
}

fn run_in(leader: u32, script: &str) -> Result<Said> {
    let mut command = inside(leader);
    command.args(["bash", "-c", script]);
    said(command)
}

/// The first child of a process.
fn child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
