//! A terminal with somebody at it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use nix::pty::openpty;

use crate::process::code;
use crate::wait::eventually;

/// A program at a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts the command with a terminal of its own.
    ///
    /// # Errors
    /// When there is no terminal, or the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let pty = openpty(None, None)?;
        let slave = File::from(pty.slave);
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let child = command.spawn()?;
        // It holds our copies of the terminal's other end: reading would never end.
        drop(command);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone()?;
        let screen = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error (EIO).
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let part = buffer.get(..length).unwrap_or_default();
                let text = String::from_utf8_lossy(part).replace('\r', "");
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Self { child, keyboard, screen })
    }

    /// All that was printed.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this is on the screen.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn sees(&self, what: &str, limit: Duration) -> Result<()> {
        eventually(&format!("{what:?} on the screen"), limit, || {
            let screen = self.screen();
            ensure!(screen.contains(what), "{screen}");
            Ok(())
        })
    }

    /// Types or pastes something.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn types(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Waits for the end of the program; its exit code.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let screen = Arc::clone(&self.screen);
        let child = &mut self.child;
        let status = eventually("the end of the program", limit, || {
            child.try_wait()?.ok_or_else(|| {
                anyhow!("on its screen: {}", screen.lock().unwrap_or_else(PoisonError::into_inner))
            })
        })?;
        Ok(code(status))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::secs;

    #[test]
    fn a_program_hears_the_keyboard_and_sees_a_terminal() -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "test -t 0 && test -t 1 && echo ready && read x && echo got $x; exit 7"]);
        let mut terminal = Terminal::start(shell)?;
        terminal.sees("ready", secs(5))?;
        terminal.types("word\n")?;
        terminal.sees("got word", secs(5))?;
        assert_eq!(terminal.wait(secs(5))?, 7);
        Ok(())
    }
}
