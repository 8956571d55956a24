//! A thread of another process, held still: it does nothing any more, and the rest of the process goes on.

use std::fs;

use anyhow::{Context, Result, anyhow};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Holds a thread until this is dropped, or the process ends. Belongs to the thread that made it.
#[derive(Debug)]
pub struct Wedge(Pid);

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
        let id: i32 = task.file_name().to_string_lossy().parse()?;
        let thread = Pid::from_raw(id);
        ptrace::seize(thread, ptrace::Options::empty()).context("cannot trace the thread")?;
        ptrace::interrupt(thread)?;
        // Until it has stopped.
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(thread))
    }
}

impl Drop for Wedge {
    fn drop(&mut self) {
        // It may be gone, together with its process.
        let _ = ptrace::detach(self.0, None);
    }
}
