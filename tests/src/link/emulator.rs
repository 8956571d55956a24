//! The thread that carries the frames.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::line::{Line, Nanos};
use super::tap::{LARGEST, Tap};
use super::{Shared, icmp, lock};

/// What is due within this time is sent at once: fewer and larger batches.
pub const EARLY: Duration = Duration::from_micros(50);
/// The longest time for which the devices are not looked at, on a link that delays by a millisecond
/// or more. A shorter delay means a shorter rest.
pub const REST: Duration = Duration::from_micros(100);

/// How many frames of one device are taken before the other has its turn.
const BATCH: usize = 64;

pub(super) struct Emulator {
    taps: [Tap; 2],
    lines: [Line; 2],
    shared: Arc<Mutex<Shared>>,
    wake: Arc<EventFd>,
    start: Instant,
    buffer: Vec<u8>,
}

impl Emulator {
    pub(super) fn new(
        taps: [Tap; 2],
        seed: u64,
        shared: Arc<Mutex<Shared>>,
        wake: Arc<EventFd>,
    ) -> Self {
        Self {
            taps,
            lines: [Line::new(seed), Line::new(seed ^ u64::MAX)],
            shared,
            wake,
            start: Instant::now(),
            buffer: vec![0; LARGEST],
        }
    }

    /// Carries frames until it is told to stop, or cannot.
    pub(super) fn run(mut self) {
        if let Err(error) = self.work() {
            lock(&self.shared).failure = Some(error.to_string());
        }
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn work(&mut self) -> io::Result<()> {
        let mut rest = false;
        loop {
            self.sleep(rest)?;
            if !self.listen() {
                return Ok(());
            }
            let received = self.receive(0)? | self.receive(1)?;
            self.send(0)?;
            self.send(1)?;
            rest = received;
        }
    }

    /// Takes the settings over and shows the counts. False when the test has no more need of it.
    fn listen(&mut self) -> bool {
        let now = self.now();
        let mut shared = lock(&self.shared);
        for n in 0..2 {
            if let (Some(line), Some(way)) = (self.lines.get_mut(n), shared.ways.get(n)) {
                line.set(*way, now);
            }
        }
        shared.counts = [self.lines[0].counts(), self.lines[1].counts()];
        !shared.stop
    }

    /// Takes what has come to one end. Whether there was anything.
    fn receive(&mut self, end: usize) -> io::Result<bool> {
        for taken in 0..BATCH {
            let Some(tap) = self.taps.get(end) else { return Ok(false) };
            let Some(frame) = tap.receive(&mut self.buffer)? else { return Ok(taken > 0) };
            let now = self.now();
            let refused = self.lines.get_mut(end).and_then(|line| line.put(&frame, now));
            let told = refused.and_then(|mtu| icmp::too_big(&frame, mtu));
            if let (Some(told), Some(back)) = (told, self.lines.get_mut(1 - end)) {
                back.put(&told, now);
            }
        }
        Ok(true)
    }

    /// Hands over what is due at the other end.
    fn send(&mut self, line: usize) -> io::Result<()> {
        let by = self.now() + u64::try_from(EARLY.as_nanos()).unwrap_or(0);
        let (Some(tap), Some(line)) = (self.taps.get(1 - line), self.lines.get_mut(line)) else {
            return Ok(());
        };
        while let Some(frame) = line.take(by) {
            let sent = tap.send(&frame)?;
            line.handed_over(&frame, sent);
        }
        Ok(())
    }

    /// Until something comes, is due, or the settings change.
    fn sleep(&self, rest: bool) -> io::Result<()> {
        let now = self.now();
        let due = self.lines.iter().filter_map(Line::next_due).min();
        let mut wait = due.map(|due| Duration::from_nanos(due.saturating_sub(now)));
        let least = self.lines.iter().map(|line| line.way().delay).min().unwrap_or_default();
        let pause = REST.min(least / 10);
        let resting = rest && !pause.is_zero();
        if resting {
            wait = Some(wait.map_or(pause, |wait| wait.min(pause)));
        }
        let on = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [on(self.wake.as_fd()), on(self.taps[0].as_fd()), on(self.taps[1].as_fd())];
        let watched = if resting { 1 } else { fds.len() };
        let ready =
            ppoll(fds.get_mut(..watched).unwrap_or_default(), wait.map(TimeSpec::from), None);
        match ready {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => drop(self.wake.read()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
