//! How often: exponential backoff with jitter, and a token bucket.

use std::time::{Duration, Instant};

use rand_core::RngCore;

use super::limits::{HELLO_MAX, HELLO_MIN, REPLY_BURST, REPLY_INTERVAL};

/// Pauses that double from [`HELLO_MIN`] to [`HELLO_MAX`], each with a jitter of a quarter either
/// way, so that peers which lost the same broker do not come back in step.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { pause: HELLO_MIN }
    }

    pub(super) fn reset(&mut self) {
        self.pause = HELLO_MIN;
    }

    /// The next pause, of at most `longest` (before the jitter).
    pub(super) fn next(&mut self, longest: Duration, rng: &mut impl RngCore) -> Duration {
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(HELLO_MAX);
        jittered(pause, rng)
    }
}

/// `pause` times a random factor between 0.75 and 1.25.
pub(super) fn jittered(pause: Duration, rng: &mut impl RngCore) -> Duration {
    let per_mille = 750 + rng.next_u32() % 501;
    pause * per_mille / 1000
}

/// Allows [`REPLY_BURST`] replies at once and one more each [`REPLY_INTERVAL`]: what a stranger's
/// replays can cost is bounded by it.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: u32,
    refilled: Option<Instant>,
}

impl Bucket {
    pub(super) const fn new() -> Self {
        Self { tokens: REPLY_BURST, refilled: None }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = *self.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since).as_millis();
        let fresh = elapsed / REPLY_INTERVAL.as_millis().max(1);
        if fresh > 0 {
            let fresh = u32::try_from(fresh).unwrap_or(REPLY_BURST);
            self.tokens = self.tokens.saturating_add(fresh).min(REPLY_BURST);
            self.refilled = Some(now);
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn backoff_doubles_to_its_cap_and_stays_within_its_jitter() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut backoff = Backoff::new();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = backoff.next(HELLO_MAX, &mut rng).as_secs_f64() / f64::from(expected);
            assert!((0.75..=1.25).contains(&pause), "{pause} of {expected} s");
        }
    }

    #[test]
    fn bucket_bounds_a_flood_to_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new();
        let taken =
            (0..100_000u64).filter(|i| bucket.take(start + Duration::from_micros(i * 100))).count();
        assert!((12..=13).contains(&taken), "{taken} replies in 10 s");
    }
}
