//! Controlled delay: whether the oldest item of a flow has waited too long for too long (RFC 8289).

use std::time::{Duration, Instant};

/// RFC 8289, section 5 (dequeue routine): when a queue stands again within this many intervals after the last
/// drop, the drop rate that controlled it then is where the next cycle begins.
const MEMORY_INTERVALS: u32 = 16;

/// The two times of CoDel, and what it leaves alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Law {
    /// The delay that is acceptable as a standing one.
    pub(super) target: Duration,
    /// How long the delay must stay above the target before anything is dropped.
    pub(super) interval: Duration,
    /// While no more than this waits behind the head, nothing is dropped: about one packet, in bytes.
    pub(super) spared: usize,
}

/// What waits, as CoDel sees it.
pub(super) trait Waiting {
    /// Since when the head waits, and how many bytes wait behind it.
    fn head(&self) -> Option<(Instant, usize)>;
    /// Drops the head.
    fn drop_head(&mut self);
}

/// The state of CoDel for one flow (RFC 8289, section 5, per-queue state).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Codel {
    /// When the delay will have been above the target for an interval; `None` while it is below.
    first_above: Option<Instant>,
    /// When the next head is dropped, if the delay is still above the target.
    drop_next: Option<Instant>,
    /// Drops since the drop state was entered.
    count: u32,
    /// The count with which the drop state was last entered.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Drops from the head what is to be dropped now (RFC 8289, section 5, dequeue routine). The head that is left
    /// is the one to send. Never drops the last item.
    pub(super) fn pass(&mut self, now: Instant, law: Law, queue: &mut impl Waiting) {
        let above = self.stays_above(now, law, queue);
        if self.dropping {
            self.dropping = above;
            while self.dropping && self.drop_next.is_some_and(|at| now >= at) {
                queue.drop_head();
                self.count = self.count.saturating_add(1);
                self.dropping = self.stays_above(now, law, queue);
                if self.dropping {
                    self.drop_next = self.after(self.drop_next.unwrap_or(now), law);
                }
            }
        } else if above {
            queue.drop_head();
            // For its effect on `first_above`; the new head passes in any case.
            self.stays_above(now, law, queue);
            self.enter(now, law);
        }
    }

    /// Enters the drop state, at the rate of the last cycle if that was a short time ago.
    fn enter(&mut self, now: Instant, law: Law) {
        let memory = law.interval.saturating_mul(MEMORY_INTERVALS);
        let recent = self.drop_next.is_some_and(|at| now.saturating_duration_since(at) < memory);
        let gained = self.count.saturating_sub(self.last_count);
        self.count = if recent && gained > 1 { gained } else { 1 };
        self.last_count = self.count;
        self.dropping = true;
        self.drop_next = self.after(now, law);
    }

    /// Whether the delay has been above the target for an interval (RFC 8289, section 5, helper routines).
    fn stays_above(&mut self, now: Instant, law: Law, queue: &impl Waiting) -> bool {
        let waited_long = queue.head().is_some_and(|(since, behind)| {
            now.saturating_duration_since(since) >= law.target && behind > law.spared
        });
        if !waited_long {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            Some(at) => now >= at,
            None => {
                self.first_above = now.checked_add(law.interval);
                false
            }
        }
    }

    /// The control law: an interval over the square root of the count after `at`, because the rate
    /// of TCP goes with the inverse of the root of its loss.
    fn after(&self, at: Instant, law: Law) -> Option<Instant> {
        let pause = law.interval.as_secs_f64() / f64::from(self.count.max(1)).sqrt();
        at.checked_add(Duration::try_from_secs_f64(pause).unwrap_or(law.interval))
    }
}
