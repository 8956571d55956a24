//! `qanahd` and `qanahctl` on a node.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use crate::conf::Conf;
use crate::lab::{Lab, Node, write_private};
use crate::ns::Place;
use crate::process::{Proc, code};
use crate::status::Status;
use crate::wait::{eventually, secs};

/// How long a daemon may take to start or to end, on a machine that is busy with other tests.
pub const LIMIT: Duration = secs(20);

/// The built program of that name: in `QANAH_BIN_DIR`, or beside this test as cargo lays it out.
///
/// # Errors
/// When it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let dir = match env::var_os("QANAH_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = env::current_exe()?;
            let dir = test.parent().and_then(Path::parent).map(Path::to_owned);
            dir.ok_or_else(|| anyhow!("{} has no place", test.display()))?
        }
    };
    let path = dir.join(name);
    ensure!(path.is_file(), "no {}: build it with `cargo build --workspace`", path.display());
    Ok(fs::canonicalize(path)?)
}

/// How to start a daemon.
#[derive(Debug, Clone)]
pub struct Options {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// With the broker and the STUN server of the lab.
    pub fn of(lab: &Lab) -> Self {
        Self::bare()
            .and(&["--signal-server", &lab.signal_server()])
            .and(&["--stun", &lab.stun_url()])
    }

    /// Without any server: the built-in ones, which cannot be reached from a lab.
    pub fn bare() -> Self {
        let level = env::var("QANAH_TEST_LOG").unwrap_or_else(|_| "debug".to_owned());
        let arguments = vec!["--log-level".to_owned(), level];
        Self { arguments, environment: Vec::new() }
    }

    /// With more arguments.
    #[must_use]
    pub fn and(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more broker beside those of the environment.
    #[must_use]
    pub fn and_broker(mut self, broker: &str) -> Self {
        for (_, value) in self.environment.iter_mut().filter(|it| it.0 == "QANAH_SIGNAL_SERVER") {
            *value = format!("{value},{broker}");
        }
        self
    }

    /// As the command line has them.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// With another amount of logging.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        if let Some(value) = self.arguments.get_mut(1) {
            level.clone_into(value);
        }
        self
    }
}

/// A `qanahd` with one configuration.
#[derive(Debug)]
pub struct Daemon {
    proc: Proc,
    place: Place,
    name: String,
}

impl Daemon {
    /// Starts one with the servers of the lab and waits until its control socket answers.
    ///
    /// # Errors
    /// When it does not, with its log.
    pub fn start(lab: &Lab, node: &Node, conf: &Conf) -> Result<Self> {
        Self::start_with(lab, node, conf, &Options::of(lab))
    }

    /// Starts one and waits until its control socket answers.
    ///
    /// # Errors
    /// When it does not, with its log.
    pub fn start_with(lab: &Lab, node: &Node, conf: &Conf, options: &Options) -> Result<Self> {
        let mut daemon = Self::launch(lab, node, conf, options)?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Starts one and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(lab: &Lab, node: &Node, conf: &Conf, options: &Options) -> Result<Self> {
        Self::launch_in(lab.dir(), node.place(), node.number(), conf, options)
    }

    /// Starts one that keeps its files in `dir`, and does not wait. `number` tells its log from others there.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch_in(
        dir: &Path,
        place: Place,
        number: usize,
        conf: &Conf,
        options: &Options,
    ) -> Result<Self> {
        let path = write_private(dir, &format!("{}.conf", conf.name), &conf.to_string())?;
        let mut command = place.command(program("qanahd")?);
        command.arg("--config").arg(&path).args(&options.arguments);
        plain_environment(&mut command).env("RUST_BACKTRACE", "1");
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        let log = dir.join(format!("{number}-{}.log", conf.name));
        let what = format!("qanahd of {}", conf.name);
        let proc = Proc::spawn(&what, command, &log)?;
        Ok(Self { proc, place, name: conf.name.clone() })
    }

    /// Waits until the control socket answers.
    ///
    /// # Errors
    /// When the daemon has ended, or does not answer in time.
    pub fn ready(&mut self) -> Result<()> {
        let what = format!("qanahd of {} answers at its socket", self.name);
        let (place, name) = (self.place, self.name.clone());
        let proc = &mut self.proc;
        eventually(&what, LIMIT, || {
            proc.ensure_running()?;
            ensure!(socket(place, &name).exists(), "there is no socket");
            Status::of(place, &name).map(drop)
        })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.proc.signal(signal)
    }

    /// All that it has logged, with the runs before it of the same name on the same node.
    pub fn log(&self) -> String {
        self.proc.log()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When `qanahctl` cannot tell.
    pub fn status(&self) -> Result<Status> {
        Status::of(self.place, &self.name)
    }

    /// Waits until these peers are connected.
    ///
    /// # Errors
    /// When one of them is not within `limit`.
    pub fn connected(&self, peers: &[&str], limit: Duration) -> Result<()> {
        eventually(&format!("{} is connected to {peers:?}", self.name), limit, || {
            let status = self.status()?;
            peers.iter().try_for_each(|peer| {
                ensure!(status.peer(peer)?.connected()?, "{peer} is not: {status}");
                Ok(())
            })
        })
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With its exit status and the end of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.proc.ensure_running()
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Errors
    /// When it still runs after the usual limit.
    pub fn wait(&mut self) -> Result<i32> {
        self.proc.wait(LIMIT).map(code)
    }

    /// Ends it with this signal.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus> {
        self.proc.ensure_running()?;
        self.proc.end(signal, LIMIT)
    }

    /// Ends it with SIGTERM and wants exit code 0.
    ///
    /// # Errors
    /// When it does not end so.
    pub fn terminate(self) -> Result<()> {
        let status = self.stop(Signal::SIGTERM)?;
        ensure!(status.success(), "SIGTERM: {status}");
        Ok(())
    }
}

/// Takes the caller's settings away: they must not change what is tested.
pub(crate) fn plain_environment(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_proxy = text.to_ascii_lowercase().ends_with("_proxy");
        if text == "RUST_LOG" || text.starts_with("QANAH_") || is_proxy {
            command.env_remove(&name);
        }
    }
    command
}

/// The control socket of a tunnel, as seen from outside.
pub fn socket(place: Place, name: &str) -> PathBuf {
    place.path(&format!("/run/qanah/{name}.sock"))
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started.
pub fn said(mut command: Command) -> Result<Said> {
    let Output { status, stdout, stderr } = plain_environment(&mut command)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = |raw: Vec<u8>| String::from_utf8_lossy(&raw).into_owned();
    Ok(Said { code: code(status), out: text(stdout), err: text(stderr) })
}

/// Runs `qanahctl` as root with these arguments.
///
/// # Errors
/// When it cannot be started.
pub fn qanahctl(place: Place, arguments: &[&str]) -> Result<Said> {
    let mut command = place.command(program("qanahctl")?);
    command.args(arguments);
    said(command)
}

/// Runs `qanahctl` as nobody, from a copy that nobody may read.
///
/// # Errors
/// When it cannot be started.
pub fn qanahctl_as_nobody(place: Place, arguments: &[&str]) -> Result<Said> {
    let inside = "/run/lab/qanahctl";
    fs::copy(program("qanahctl")?, place.path(inside))?;
    place.run("chmod 0755 /run/lab /run/lab/qanahctl")?;
    let mut command = place.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", inside]).args(arguments);
    said(command)
}

/// Runs `qanahd` to its end, for what ends by itself (`--check`, `--help`, usage).
///
/// # Errors
/// When it cannot be started.
pub fn qanahd(place: Place, arguments: &[&str]) -> Result<Said> {
    let mut command = place.command("timeout");
    command.args(["--signal=KILL", "20"]).arg(program("qanahd")?).args(arguments);
    said(command)
}

/// One line for each figure that a test wants to be seen.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    let mut line = String::new();
    let _ = write!(line, "FIGURE {name}: {value}");
    println!("{line}");
}
