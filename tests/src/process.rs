//! A child process with a log file: killed by its own id when it is dropped.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

/// A running child.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Proc {
    /// Starts `command` with its output in the file `log` (appended) and nothing as its input.
    ///
    /// # Errors
    /// When the program or the file cannot be had.
    pub fn spawn(what: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {what} ({command:?})"))?;
        Ok(Self { child, what: what.to_owned(), log: log.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|raw| String::from_utf8_lossy(&raw).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.what))
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// With its exit status and the end of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended ({status}): {}", self.what, tail(&self.log(), 5));
        }
        Ok(())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        let child = &mut self.child;
        eventually(&what, limit, || child.try_wait()?.ok_or_else(|| anyhow!("it still runs")))
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// As [`Proc::signal`] and [`Proc::wait`].
    pub fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(limit)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // Nothing useful can be done about a failure here; the kernel kills it with us anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command lines of the processes that have this setting (`NAME=VALUE`) in their environment:
/// those of a test that was started with it.
///
/// # Errors
/// Without `/proc`.
pub fn marked(setting: &str) -> Result<Vec<String>> {
    let has = |raw: Vec<u8>| raw.split(|b| *b == 0).any(|v| v == setting.as_bytes());
    let entries = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let of = entries.filter(|path| fs::read(path.join("environ")).is_ok_and(has));
    let line = |path: PathBuf| fs::read(path.join("cmdline")).unwrap_or_default();
    Ok(of.map(|path| String::from_utf8_lossy(&line(path)).replace('\0', " ")).collect())
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or its exit status is not 0; the text holds its standard error.
pub fn output(mut command: Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(
        status.success(),
        "{command:?}: {status}: {}{stdout}",
        String::from_utf8_lossy(&stderr)
    );
    Ok(stdout)
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// The exit code, or 128 plus the signal as a shell has it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::secs;

    #[test]
    fn output_and_end_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo up; exec sleep 60"]);
        let mut proc = Proc::spawn("sleeper", shell, &log).unwrap();
        proc.ensure_running().unwrap();
        eventually("its output", secs(5), || {
            ensure!(proc.log() == "up\n", "{:?}", proc.log());
            Ok(())
        })
        .unwrap();
        assert_eq!(code(proc.end(Signal::SIGTERM, secs(5)).unwrap()), 128 + 15);
        assert!(proc.ensure_running().unwrap_err().to_string().contains("up"));
    }

    #[test]
    fn tail_takes_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }
}
