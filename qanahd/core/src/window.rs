//! How much may be on its way in a channel: as much as keeps the path busy, and little more.
//!
//! What a channel has taken is no longer in our hands: it leaves in order, so a ping behind it waits for all of it. The
//! channel's own limits are no help, they grow until the path drops something. So the rate at which bytes arrive
//! and the shortest time that they take are measured, as BBR does (draft-ietf-ccwg-bbr, sections 4.1 and 5.5), and
//! what goes in beyond their product waits outside, where it is in order of fairness.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// On its way at least, in bytes: some packets, so that acknowledgements come often enough to measure by.
pub const LEAST: usize = 16 * 1024;
/// Before the first measurement, in bytes.
const AT_FIRST: usize = 64 * 1024;
/// On its way at most, in bytes: 1 Gbit/s at 60 ms.
pub const MOST: usize = 8 * 1024 * 1024;
/// What is allowed beside the shortest round trip: acknowledgements that are put off, threads that wait for
/// their turn.
const SLACK: Duration = Duration::from_millis(4);
/// How long the shortest round trip is believed (draft-ietf-ccwg-bbr, section 2.15).
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);
/// How long the way is kept emptier then, beside a round trip, to measure it anew; and how long it may take to become
/// emptier.
const DRAIN: Duration = Duration::from_millis(20);
const DRAIN_AT_MOST: Duration = Duration::from_secs(1);
/// How often it is looked whether round trips are longer than our own bytes on the way explain.
const LOOK: Duration = Duration::from_millis(500);
/// How long the greatest rate is believed, at least.
const RATE_AGE: Duration = Duration::from_millis(500);
/// The same in round trips.
const RATE_ROUNDS: u32 = 10;
/// Frames whose way is measured at a time. Of more some are not.
const MARKS: usize = 256;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A frame on its way, and how it was when it began.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Bytes sent up to its end.
    end: u64,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    /// More waited behind it: what is measured is the path, not the sender.
    is_full: bool,
}

/// The greatest of what was measured in the current and in the last period.
#[derive(Debug, Clone, Copy, Default)]
struct Greatest {
    current: u64,
    last: u64,
    /// When the current period ends; begins with the first measurement of the path.
    until: Option<Instant>,
}

impl Greatest {
    fn get(self) -> u64 {
        self.current.max(self.last)
    }

    fn take(&mut self, now: Instant, rate: u64, is_full: bool, period: Duration) {
        if is_full {
            if self.until.is_some_and(|until| now >= until) {
                (self.last, self.current, self.until) = (self.current, 0, None);
            }
            self.until.get_or_insert(now + period);
        } else if rate < self.get() {
            // Who sends little learns little.
            return;
        }
        self.current = self.current.max(rate);
    }
}

/// The way is kept emptier, to see how long it is by itself.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// When it ends.
    until: Instant,
    /// What was on its way before has arrived.
    is_drained: bool,
    /// The shortest round trip since it began.
    shortest: Option<Duration>,
}

/// Measures one channel and says how much may be on its way.
#[derive(Debug)]
pub struct Window {
    sent: u64,
    delivered: u64,
    delivered_at: Instant,
    marks: VecDeque<Mark>,
    /// Bytes a second.
    rate: Greatest,
    /// The shortest round trip, and when it was seen.
    round_trip: Option<(Duration, Instant)>,
    /// The way is kept emptier.
    drain: Option<Drain>,
    /// The shortest round trip since a moment ago, and when it is looked at.
    recent: Option<(Duration, Instant)>,
}

impl Window {
    /// Nothing is known yet.
    pub const fn new(now: Instant) -> Self {
        Self {
            sent: 0,
            delivered: 0,
            delivered_at: now,
            marks: VecDeque::new(),
            rate: Greatest { current: 0, last: 0, until: None },
            round_trip: None,
            drain: None,
            recent: None,
        }
    }

    /// Bytes went into the channel. `is_full` says that more wait behind them.
    pub fn sent(&mut self, now: Instant, bytes: usize, is_full: bool) {
        if self.sent == self.delivered {
            // Nothing was on its way: the time until now says nothing of the path.
            self.delivered_at = now;
        }
        self.sent += bytes as u64;
        if self.marks.len() < MARKS {
            self.marks.push_back(Mark {
                end: self.sent,
                at: now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                is_full,
            });
        }
    }

    /// So many bytes are in the channel that have not arrived.
    pub fn outstanding(&mut self, now: Instant, bytes: usize) {
        let delivered = self.sent.saturating_sub(bytes as u64);
        if delivered > self.delivered {
            (self.delivered, self.delivered_at) = (delivered, now);
            let mut arrived = None;
            while let Some(mark) = self.marks.front().copied().filter(|mark| mark.end <= delivered)
            {
                self.marks.pop_front();
                arrived = Some(mark);
            }
            if let Some(mark) = arrived {
                self.measure(now, mark);
            }
        }
        self.drain(now, bytes);
    }

    fn measure(&mut self, now: Instant, mark: Mark) {
        let round_trip = now.saturating_duration_since(mark.at).max(Duration::from_micros(1));
        match (&mut self.drain, self.round_trip) {
            (Some(drain), _) => {
                drain.shortest = Some(drain.shortest.map_or(round_trip, |it| it.min(round_trip)));
            }
            (None, Some((shortest, _))) if round_trip > shortest => {}
            (None, _) => self.round_trip = Some((round_trip, now)),
        }
        let (recent, look) = self.recent.unwrap_or((round_trip, now + LOOK));
        self.recent = Some((recent.min(round_trip), look));
        let shortest = self.round_trip.map_or(round_trip, |(shortest, _)| shortest);
        let elapsed = now.saturating_duration_since(mark.delivered_at);
        // Acknowledgements that come in heaps measure how they are heaped.
        if elapsed >= shortest && !elapsed.is_zero() {
            let bytes = u128::from(self.delivered - mark.delivered);
            let rate = bytes * NANOS_PER_SECOND / elapsed.as_nanos();
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            let period = RATE_AGE.max(shortest * RATE_ROUNDS);
            self.rate.take(now, rate, mark.is_full, period);
        }
    }

    /// Sees to it that the shortest round trip is still seen where much is always on its way.
    fn drain(&mut self, now: Instant, bytes: usize) {
        let size = self.size();
        match (&mut self.drain, self.round_trip) {
            (Some(drain), before) => {
                let known = before.map(|(before, _)| before);
                if !drain.is_drained && bytes <= size {
                    drain.is_drained = true;
                    let one = drain.shortest.or(known).unwrap_or_default();
                    drain.until = now + one + DRAIN;
                }
                if now >= drain.until {
                    let shortest = drain.shortest.or(known);
                    self.round_trip = shortest.map(|shortest| (shortest, now));
                    (self.drain, self.recent) = (None, None);
                }
            }
            (None, Some((shortest, at))) => {
                let recent =
                    self.recent.take_if(|(_, look)| now >= *look).map(|(recent, _)| recent);
                let is_longer =
                    recent.is_some_and(|recent| recent > self.longest_of_ours(shortest));
                if is_longer || now >= at + ROUND_TRIP_AGE {
                    let until = now + DRAIN_AT_MOST;
                    self.drain = Some(Drain { until, is_drained: false, shortest: None });
                }
            }
            (None, None) => {}
        }
    }

    /// How long a round trip is at most for what we have on the way ourselves. If all are longer, the path is
    /// another one, or somebody else fills it.
    fn longest_of_ours(&self, shortest: Duration) -> Duration {
        let nanos = (LEAST as u64).saturating_mul(1_000_000_000) / self.rate.get().max(1);
        let least = Duration::from_nanos(nanos).min(ROUND_TRIP_AGE);
        (shortest * 2 + SLACK * 2).max(shortest + least)
    }

    /// How much may be on its way, in bytes.
    pub fn size(&self) -> usize {
        let Some((shortest, _)) = self.round_trip.filter(|_| self.rate.get() > 0) else {
            return AT_FIRST;
        };
        let wanted = match self.drain {
            Some(_) => self.in_time(shortest / 2),
            None => self.in_time(shortest * 3 / 2 + SLACK),
        };
        wanted.clamp(LEAST, MOST)
    }

    /// How many bytes pass in this time; of a path of which nothing is known yet, any number.
    pub fn in_time(&self, time: Duration) -> usize {
        if self.rate.get() == 0 {
            return usize::MAX;
        }
        let bytes = u128::from(self.rate.get()) * time.as_nanos() / NANOS_PER_SECOND;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The shortest round trip that was seen of late.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(shortest, _)| shortest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A path of this rate, delay and no loss, and a sender that always has more.
    struct Path {
        now: Instant,
        window: Window,
        rate: f64,
        delay: Duration,
        /// When what was sent arrives, and how much it is.
        flying: VecDeque<(Instant, usize)>,
        idle_at: Instant,
        outstanding: usize,
    }

    impl Path {
        fn new(mbits: f64, delay: Duration) -> Self {
            let now = Instant::now();
            let window = Window::new(now);
            let rate = mbits * 1e6 / 8.0;
            let flying = VecDeque::new();
            Self { now, window, rate, delay, flying, idle_at: now, outstanding: 0 }
        }

        /// Goes on for a time; `more` says how much the sender has each millisecond.
        fn run(&mut self, time: Duration, more: Option<usize>) {
            let end = self.now + time;
            while self.now < end {
                while let Some((_, len)) = self.flying.pop_front_if(|(at, _)| *at <= self.now) {
                    self.outstanding -= len;
                }
                self.window.outstanding(self.now, self.outstanding);
                let mut left = more.unwrap_or(usize::MAX);
                while left >= 1200 && self.outstanding + 1200 <= self.window.size() {
                    left -= 1200;
                    self.outstanding += 1200;
                    self.idle_at =
                        self.idle_at.max(self.now) + Duration::from_secs_f64(1200.0 / self.rate);
                    self.flying.push_back((self.idle_at + self.delay, 1200));
                    self.window.sent(self.now, 1200, more.is_none());
                }
                self.now += MS / 4;
            }
        }

        fn queued(&self) -> Duration {
            self.idle_at.saturating_duration_since(self.now)
        }
    }

    #[test]
    fn a_path_is_filled_and_not_much_more() {
        for (mbits, delay) in
            [(20.0, 2), (20.0, 30), (100.0, 10), (100.0, 100), (500.0, 30), (1000.0, 1)]
        {
            let mut path = Path::new(mbits, MS * delay);
            path.run(Duration::from_secs(5), None);
            let product = mbits * 1e6 / 8.0 * f64::from(delay) / 1e3;
            let size = path.window.size() as f64;
            assert!(size >= product.min(MOST as f64), "{mbits} {delay}: {size}");
            let most = MS * delay + 3 * SLACK + Duration::from_secs_f64(LEAST as f64 / path.rate);
            assert!(path.queued() <= most, "{mbits} {delay}: {:?} queued", path.queued());
        }
    }

    #[test]
    fn a_standing_queue_does_not_become_the_measure() {
        let mut path = Path::new(100.0, MS * 20);
        path.run(Duration::from_secs(120), None);
        assert!(path.window.round_trip().unwrap() < MS * 25, "{:?}", path.window.round_trip());
        assert!(path.queued() < MS * 30, "{:?}", path.queued());
    }

    #[test]
    fn another_path_is_learnt() {
        let mut path = Path::new(100.0, MS * 10);
        path.run(Duration::from_secs(5), None);
        path.delay = MS * 60;
        path.run(Duration::from_secs(3), None);
        assert!(path.window.size() >= 100_000_000 / 8 * 60 / 1000);
        path.delay = MS;
        path.run(Duration::from_secs(25), None);
        assert!(path.queued() < MS * 20, "{:?}", path.queued());
        path.delay = MS * 60;
        path.rate = 10e6 / 8.0;
        path.run(Duration::from_secs(30), None);
        assert!(path.queued() < MS * 120, "{:?}", path.queued());
        path.rate = 200e6 / 8.0;
        path.run(Duration::from_secs(5), None);
        assert!(path.window.size() >= 200_000_000 / 8 * 60 / 1000);
    }

    #[test]
    fn who_sends_little_keeps_what_is_known() {
        let mut path = Path::new(100.0, MS * 30);
        path.run(Duration::from_secs(5), None);
        let before = path.window.size();
        path.run(Duration::from_secs(60), Some(1200));
        assert!(path.window.size() * 10 >= before * 9, "{} of {before}", path.window.size());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_size_is_within_its_bounds(
            steps in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), 0_u64..1 << 34), 0..400),
        ) {
            let mut now = Instant::now();
            let mut window = Window::new(now);
            for (sent, outstanding, is_full, nanos) in steps {
                now += Duration::from_nanos(nanos);
                window.sent(now, sent as usize, is_full);
                window.outstanding(now, outstanding as usize);
                prop_assert!((LEAST..=MOST).contains(&window.size()));
                prop_assert!(window.marks.len() <= MARKS);
            }
        }
    }
}
