//! PreUp, PostUp, PreDown and PostDown: commands of root's, run by bash as wg-quick(8) does.
//!
//! A command gets a fixed PATH and no other environment, nothing to read, a process group of its own,
//! and so much time; what it prints goes into the log. It has no descriptor of the daemon's. Processes
//! that it leaves behind on purpose live on, those of a command that took too long do not (unless they
//! made a session of their own: systemd ends these with the unit).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// What a shell of root's finds; everything else a command names in full.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest line of a command's output that is logged, in bytes; the rest of it is cut off.
const LINE: usize = 500;
/// Lines of one command that are logged.
const LINES: usize = 100;
/// How long the output of a command that has ended is waited for. Processes that it left behind may
/// hold it open for ever.
const OUTPUT: Duration = Duration::from_millis(200);

/// When a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The interface exists, but has no addresses and is down.
    PreUp,
    /// The tunnel works.
    PostUp,
    /// The tunnel works still.
    PreDown,
    /// The interface is gone.
    PostDown,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PreUp => "PreUp",
            Self::PostUp => "PostUp",
            Self::PreDown => "PreDown",
            Self::PostDown => "PostDown",
        })
    }
}

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For one command.
    pub(crate) each: Duration,
    /// For all commands of one kind.
    pub(crate) all: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
}

impl Limits {
    /// Those of the daemon.
    pub(crate) const DEFAULT: Self = Self {
        each: Duration::from_secs(30),
        all: Duration::from_secs(90),
        grace: Duration::from_secs(2),
    };

    /// The longest that all commands of one kind may take, with their end.
    pub(crate) const fn longest(self) -> Duration {
        self.all.saturating_add(self.grace.saturating_mul(3))
    }
}

/// Why a command did not do its work. Its text is not in it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} command {number} {what}")]
pub(crate) struct HookError {
    /// Which kind.
    pub(crate) kind: Kind,
    /// Counted from 1 within its kind.
    pub(crate) number: usize,
    /// What happened.
    pub(crate) what: Fault,
}

/// What can happen to a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// bash could not be started.
    #[error("could not be started: {0}")]
    Start(String),
    /// It said so.
    #[error("failed with exit code {0}; the log has its output")]
    Code(i32),
    /// A signal that was not ours.
    #[error("was ended by signal {0}")]
    Signal(i32),
    /// It took too long.
    #[error("took longer than {} s and was ended", .0.as_secs())]
    TooLong(Duration),
    /// Nobody wants it any more.
    #[error("was broken off")]
    BrokenOff,
}

/// Runs all commands of one kind, one after another, until one fails or `stop` becomes true.
///
/// # Errors
/// The first failure; the commands after it are not run.
pub(crate) async fn run_until_failure(
    kind: Kind,
    commands: &[String],
    interface: &str,
    limits: Limits,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), HookError> {
    let deadline = Instant::now() + limits.all;
    for (command, number) in commands.iter().zip(1..) {
        run(kind, number, command, interface, limits, deadline, stop).await?;
    }
    Ok(())
}

/// Runs all commands of one kind, one after another, whatever fails, and returns the failures.
pub(crate) async fn run_all(
    kind: Kind,
    commands: &[String],
    interface: &str,
    limits: Limits,
) -> Vec<HookError> {
    let deadline = Instant::now() + limits.all;
    // Dropped senders count as a wish to stop, so this one is held.
    let (_hold, mut stop) = watch::channel(false);
    let mut failures = Vec::new();
    for (command, number) in commands.iter().zip(1..) {
        let done = run(kind, number, command, interface, limits, deadline, &mut stop).await;
        failures.extend(done.err());
    }
    failures
}

async fn run(
    kind: Kind,
    number: usize,
    command: &str,
    interface: &str,
    limits: Limits,
    deadline: Instant,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), HookError> {
    info!("running {kind} command {number}");
    let limit = limits.each.min(deadline.saturating_duration_since(Instant::now()));
    let done = match Group::start(&command.replace("%i", interface)) {
        Ok(group) => group.finish(limit, limits.grace, stop).await,
        Err(error) => Err(Fault::Start(because(&error))),
    };
    done.map_err(|what| {
        let error = HookError { kind, number, what };
        warn!("{error}");
        error
    })
}

/// Why bash did not start. A service that may run no program is told what opens that.
fn because(error: &io::Error) -> String {
    let confined = std::env::var_os("INVOCATION_ID").is_some();
    match error.kind() {
        io::ErrorKind::PermissionDenied if confined => {
            format!("{error}; the service lets no program run without hooks.conf, see qanahd(8)")
        }
        _ => error.to_string(),
    }
}

/// A command and the processes that it started.
struct Group {
    child: Child,
    output: tokio::task::JoinHandle<()>,
    /// Tells of ended children. Listens since before the child was there, so it misses none.
    children: tokio::signal::unix::Signal,
    ended: bool,
}

impl Group {
    fn start(command: &str) -> io::Result<Self> {
        let children = signal(SignalKind::child())?;
        let (read, write) = io::pipe()?;
        keep_descriptors_from_children();
        let child = Command::new("/bin/bash")
            .arg("-c")
            .arg(command)
            .current_dir("/")
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0)
            .spawn()?;
        // The command itself has dropped our ends of the pipe by now.
        let output = tokio::spawn(log(OwnedFd::from(read)));
        Ok(Self { child, output, children, ended: false })
    }

    /// Waits for its end, or makes it end.
    async fn finish(
        mut self,
        limit: Duration,
        grace: Duration,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Fault> {
        let ended = tokio::select! {
            // An error means that whoever could want it stopped is gone.
            _ = stop.wait_for(|stop| *stop) => Err(Fault::BrokenOff),
            ended = tokio::time::timeout(limit, self.wait()) => {
                ended.map_err(|_| Fault::TooLong(limit))
            }
        };
        let outcome = match ended {
            Ok(status) => status.map_err(|error| Fault::Start(error.to_string())).and_then(judge),
            Err(fault) => {
                self.end(grace).await;
                Err(fault)
            }
        };
        let _ = tokio::time::timeout(OUTPUT, &mut self.output).await;
        outcome
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(status);
            }
            self.children.recv().await;
        }
    }

    /// Asks, then does not ask any more. All of the group, whoever in it listens.
    async fn end(&mut self, grace: Duration) {
        self.kill(Signal::SIGTERM);
        let asked = tokio::time::timeout(grace, self.wait()).await;
        // Also where the command itself has ended: the others of its group may not have.
        self.kill(Signal::SIGKILL);
        if asked.is_err() {
            let _ = tokio::time::timeout(grace, self.wait()).await;
        }
    }

    fn kill(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // The group may be gone already.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Group {
    /// The tunnel's thread is gone before the command: nobody is left to wait for it.
    fn drop(&mut self) {
        if !self.ended {
            self.kill(Signal::SIGKILL);
            let _ = self.child.try_wait();
        }
    }
}

fn judge(status: ExitStatus) -> Result<(), Fault> {
    match (status.success(), status.code(), status.signal()) {
        (true, ..) => Ok(()),
        (false, Some(code), _) => Err(Fault::Code(code)),
        (false, None, signal) => Err(Fault::Signal(signal.unwrap_or_default())),
    }
}

/// Marks every descriptor of the process but the first three to be closed when a program is run. Ours
/// are so marked when they are made; those of C libraries (the broker's connections) are not, and a
/// process that a command leaves behind would hold them.
fn keep_descriptors_from_children() {
    // SAFETY: only sets a flag on descriptors; none is closed here, and no memory is touched.
    #[allow(unsafe_code)]
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_close_range,
            3u32,
            u32::MAX,
            nix::libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result != 0 {
        // Before Linux 5.11.
        tracing::debug!("cannot mark descriptors: {}", io::Error::last_os_error());
    }
}

/// Logs what a command prints, line by line, until the last process that holds the pipe is gone.
async fn log(read: OwnedFd) {
    let Ok(mut output) = pipe::Receiver::from_owned_fd(read) else {
        return;
    };
    let mut lines = Lines::default();
    // As much as a pipe holds.
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        for line in lines.push(buffer.get(..count).unwrap_or_default()) {
            info!("hook: {line}");
        }
        // Bounds what a flood costs: the pipe is full, and the command waits.
        if lines.left_out > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    if let Some(line) = lines.end() {
        info!("hook: {line}");
    }
    if lines.left_out > 0 {
        info!("hook: and {} more lines", lines.left_out);
    }
}

/// Cuts bytes into lines that can be logged, bounded in length and number.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    shown: usize,
    left_out: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ready = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                ready.extend(self.take());
            } else if self.partial.len() < LINE {
                self.partial.push(*byte);
            }
        }
        ready
    }

    fn end(&mut self) -> Option<String> {
        if self.partial.is_empty() { None } else { self.take() }
    }

    fn take(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.partial);
        if self.shown == LINES {
            self.left_out += 1;
            return None;
        }
        self.shown += 1;
        Some(String::from_utf8_lossy(&line).escape_debug().to_string())
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
