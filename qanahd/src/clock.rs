//! The time by which keys age and paths die: it goes on while the machine sleeps.
//!
//! [`Instant`] stands still in suspend (CLOCK_MONOTONIC), and keys must not: the other side's clock goes on. So the time that
//! the machine has slept is added to it (CLOCK_BOOTTIME counts it). Timers need none of this: one that was due in a
//! second is due in a second after waking up, and then all that is overdue is seen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How far the two clocks were apart when this was first asked for.
static START: OnceLock<Duration> = OnceLock::new();

/// What was found the last time, in nanoseconds: the packet path asks for the time often.
static SLEPT: AtomicU64 = AtomicU64::new(0);

/// Now, with the time that the machine has slept from the start to the last [`look`].
pub(crate) fn now() -> Instant {
    Instant::now() + Duration::from_nanos(SLEPT.load(Ordering::Relaxed))
}

/// Looks whether the machine has slept. To be called before anything is done that depends on how late it is.
pub(crate) fn look() {
    let apart = apart();
    let start = *START.get_or_init(|| apart);
    // In 584 years it stands still.
    let slept = u64::try_from(since(start, apart).as_nanos()).unwrap_or(u64::MAX);
    // One thread may have looked later and say so earlier: time does not go back.
    SLEPT.fetch_max(slept, Ordering::Relaxed);
}

/// When a timer is to go off for what is due at that time.
pub(crate) fn timer(due: Instant) -> tokio::time::Instant {
    let slept = Duration::from_nanos(SLEPT.load(Ordering::Relaxed));
    due.checked_sub(slept).unwrap_or(due).into()
}

/// The two readings are not of one moment, which shows as some microseconds: no sleep is that short.
fn since(start: Duration, apart: Duration) -> Duration {
    let slept = apart.saturating_sub(start);
    if slept < Duration::from_millis(100) { Duration::ZERO } else { slept }
}

fn apart() -> Duration {
    let read = |clock: ClockId| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    // In this order the difference is never below what was slept.
    let monotonic = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sleep_counts() {
        let start = Duration::from_secs(500);
        assert_eq!(since(start, start + Duration::from_micros(900)), Duration::ZERO);
        assert_eq!(since(start, start - Duration::from_micros(900)), Duration::ZERO);
        let night = Duration::from_secs(8 * 3600);
        assert_eq!(since(start, start + night), night);
    }

    #[test]
    fn time_goes_forward_and_timers_are_its_inverse() {
        look();
        let (before, at) = (Instant::now(), now());
        assert!(at >= before && now() >= at);
        let due = now() + Duration::from_secs(5);
        let timer = timer(due).into_std();
        assert!(timer <= due && timer > Instant::now());
    }
}
