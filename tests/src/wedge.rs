//! A thread of another process, held still: it does nothing any more, and the rest of the process goes on.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How often the end of the thread is looked for.
const PAUSE: Duration = Duration::from_millis(20);

/// Holds a thread until this is dropped, or the process is killed.
#[derive(Debug)]
pub struct Wedge {
    // Dropped before the thread that traces is waited for.
    held: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Wedge {
    /// Stops the thread of that name; the main thread has the name of the program.
    ///
    /// # Errors
    /// When there is none, or it cannot be traced.
    pub fn thread(process: u32, name: &str) -> Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task"))?.flatten();
        let named = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let task = tasks.into_iter().find(named).ok_or_else(|| anyhow!("no thread {name}"))?;
        let thread = Pid::from_raw(task.file_name().to_string_lossy().parse()?);
        let (held, release) = channel::<()>();
        let (stopped, is_stopped) = channel();
        // One thread does all of it: the kernel takes these calls from nobody else.
        let tracer = std::thread::spawn(move || {
            let outcome = stop(thread);
            let is_held = outcome.is_ok();
            let _ = stopped.send(outcome);
            // Until it is let go, or dead: a process is not gone while the end of a thread is not seen.
            while is_held && release.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let seen = waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
                if !matches!(seen, Ok(WaitStatus::StillAlive | WaitStatus::PtraceEvent(..))) {
                    return;
                }
            }
            let _ = ptrace::detach(thread, None);
        });
        is_stopped.recv().context("the tracer has died")??;
        Ok(Self { held: Some(held), tracer: Some(tracer) })
    }
}

fn stop(thread: Pid) -> Result<()> {
    ptrace::seize(thread, ptrace::Options::empty()).context("cannot trace the thread")?;
    ptrace::interrupt(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    Ok(())
}

impl Drop for Wedge {
    fn drop(&mut self) {
        self.held = None;
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
