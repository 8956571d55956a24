//! Relays by which nothing came back.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::mesh::limits::{SHUNNED_FOR, SHUNNED_MAX};
use crate::router::PeerId;

/// How often a relay kept what it was given, and until when it is not chosen therefore.
#[derive(Debug, Clone, Copy)]
struct Record {
    times: u32,
    until: Instant,
    /// That time has come.
    is_over: bool,
}

/// The relays of one peer by which nothing came back.
///
/// A relay may be asked by both ends, take part in their handshake and pass nothing on. Who does that again and again is
/// tried ever more seldom.
#[derive(Debug, Default)]
pub(super) struct Shunned(BTreeMap<PeerId, Record>);

impl Shunned {
    /// Notes that nothing comes back by this relay. False if that was known.
    pub(super) fn add(&mut self, now: Instant, relay: PeerId) -> bool {
        if self.has(now, relay) {
            return false;
        }
        let times = self.0.get(&relay).map_or(0, |record| record.times);
        let pause = SHUNNED_FOR.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
        let until = now + pause.min(SHUNNED_MAX);
        self.0.insert(relay, Record { times: times.saturating_add(1), until, is_over: false });
        true
    }

    /// Whether this relay is shunned.
    pub(super) fn has(&self, now: Instant, relay: PeerId) -> bool {
        self.0.get(&relay).is_some_and(|record| now < record.until)
    }

    /// Forgets what was long ago.
    pub(super) fn forgive(&mut self, now: Instant) {
        for record in self.0.values_mut() {
            record.is_over |= record.until <= now;
        }
        self.0.retain(|_, record| now < record.until + SHUNNED_MAX);
    }

    /// When the next one may be chosen again, or is forgiven.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let change = |it: &Record| if it.is_over { it.until + SHUNNED_MAX } else { it.until };
        self.0.values().map(change).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RELAY: PeerId = PeerId(7);

    #[test]
    fn each_time_it_takes_twice_as_long_and_long_after_it_is_forgiven() {
        let mut now = Instant::now();
        let mut shunned = Shunned::default();
        for expected in [30, 60, 120, 240, 480, 600, 600] {
            assert!(shunned.add(now, RELAY));
            assert!(!shunned.add(now, RELAY), "known already");
            let until = now + Duration::from_secs(expected);
            assert_eq!(shunned.next_change(), Some(until));
            assert!(shunned.has(until - Duration::from_millis(1), RELAY));
            now = until;
            shunned.forgive(now);
            assert!(!shunned.has(now, RELAY));
            assert_eq!(shunned.next_change(), Some(now + SHUNNED_MAX), "no timer in the past");
        }
        now += SHUNNED_MAX;
        shunned.forgive(now);
        assert_eq!(shunned.next_change(), None);
        assert!(shunned.add(now, RELAY));
        assert_eq!(shunned.next_change(), Some(now + SHUNNED_FOR));
    }
}
