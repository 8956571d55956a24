//! Bounds how much a client can write into the log.

use std::time::{Duration, Instant};

/// Lets a number of events pass in each window of time, and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    burst: u32,
    window: Duration,
    since: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    /// `burst` events may pass in each `window`.
    pub(crate) const fn new(burst: u32, window: Duration) -> Self {
        Self { burst, window, since: None, passed: 0, held_back: 0 }
    }

    /// Whether an event at `now` passes; if so, how many were held back since the last that did.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.window) {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.burst {
            self.held_back += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let mut throttle = Throttle::new(2, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let passed = [0, 1, 2, 9, 10, 11, 12].map(|seconds| throttle.pass(at(seconds)));
        assert_eq!(passed, [Some(0), Some(0), None, None, Some(2), Some(0), None]);
    }
}
