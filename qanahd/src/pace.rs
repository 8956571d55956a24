//! At most so many a second.

use std::time::{Duration, Instant};

/// Bounds how often something happens.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: u32,
    second: Option<Instant>,
    done: u32,
}

impl Pace {
    /// Allows `per_second` in each second that begins with an allowed one.
    pub(crate) const fn new(per_second: u32) -> Self {
        Self { per_second, second: None, done: 0 }
    }

    /// Whether it may happen now; counts it if so.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|start| now >= start + Duration::from_secs(1)) {
            self.second = Some(now);
            self.done = 0;
        }
        let allowed = self.done < self.per_second;
        self.done += u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded() {
        let start = Instant::now();
        let mut pace = Pace::new(100);
        let allowed =
            (0..100_000_u64).filter(|i| pace.allows(start + Duration::from_micros(i * 20)));
        assert_eq!(allowed.count(), 200, "in two seconds");
    }
}
