//! One direction of a link, without any I/O or clock: frames go in at a time and come out at one.
//!
//! In this order: blocked, MTU, queue and rate, loss, delay and jitter. So a packet that is lost has
//! used the link, as one that was damaged on the air.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::frame::{ETHER_LEN, Frame};
use super::tap::Sent;
use super::{Counts, Loss, Queue, Way};

/// With a rate, a large packet leaves in pieces of at most this link time (or single packets).
pub const PIECE: Duration = Duration::from_micros(250);
/// The most bytes that one direction holds.
pub const HELD: usize = 128 << 20;

/// Nanoseconds of a clock that never goes back.
pub(super) type Nanos = u64;

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One direction.
#[derive(Debug)]
pub(super) struct Line {
    way: Way,
    random: ChaCha8Rng,
    /// Whether a burst of losses is under way.
    burst: bool,
    /// When the last bit of what came before leaves.
    busy_until: Nanos,
    /// When the last frame is due that was put in.
    last_due: Nanos,
    /// By due time, in the order of arrival.
    waiting: BTreeMap<(Nanos, u64), Frame>,
    arrivals: u64,
    held: usize,
    counts: Counts,
}

impl Line {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            way: Way::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            burst: false,
            busy_until: 0,
            last_due: 0,
            waiting: BTreeMap::new(),
            arrivals: 0,
            held: 0,
            counts: Counts::default(),
        }
    }

    /// Holds for what comes from now on; what waits for a rate is not waited for any more.
    pub(super) fn set(&mut self, way: Way, now: Nanos) {
        if way != self.way {
            if way.rate != self.way.rate {
                self.busy_until = self.busy_until.min(now);
            }
            self.way = way;
        }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a frame. `Some` is the MTU that its sender is to be told.
    pub(super) fn put(&mut self, frame: &Frame, now: Nanos) -> Option<usize> {
        let count = frame.count();
        self.counts.arrived += as_u64(count);
        if self.way.blocked {
            self.counts.blocked += as_u64(count);
            return None;
        }
        if self.held.saturating_add(frame.as_bytes().len()) > HELD {
            self.counts.overrun += as_u64(count);
            return None;
        }
        if frame.is_neighbourly() {
            self.wait(frame.clone(), now);
            return None;
        }
        // A run of wire packets that stay together, and when its last bit leaves.
        let mut run: Option<(Range<usize>, Nanos, Nanos)> = None;
        let mut refused = None;
        for n in 0..count {
            let Some((start, end)) = self.pass(frame.wire_len(n), now, &mut refused) else {
                self.depart(frame, run.take());
                continue;
            };
            run = match run {
                Some((range, from, _)) if self.together(from, end) => {
                    Some((range.start..n + 1, from, end))
                }
                before => {
                    self.depart(frame, before);
                    Some((n..n + 1, start, end))
                }
            };
        }
        self.depart(frame, run);
        refused.filter(|_| self.way.tell_mtu)
    }

    /// Whether what began to leave at `from` may stay with what leaves until `end`.
    fn together(&self, from: Nanos, end: Nanos) -> bool {
        let shuffled = self.way.reorder && !self.way.jitter.is_zero();
        !shuffled && end - from <= nanos(PIECE)
    }

    /// What becomes of one wire packet: the time in which it leaves, or nothing.
    fn pass(
        &mut self,
        len: usize,
        now: Nanos,
        refused: &mut Option<usize>,
    ) -> Option<(Nanos, Nanos)> {
        if let Some(mtu) = self.way.mtu.filter(|mtu| len - ETHER_LEN > *mtu) {
            self.counts.too_big += 1;
            *refused = Some(mtu);
            return None;
        }
        let (start, end) = match self.way.rate {
            None => (now, now),
            Some(rate) => {
                let start = self.busy_until.max(now);
                if !self.fits(len, start - now, rate) {
                    self.counts.queue_full += 1;
                    return None;
                }
                let end = start + as_u64(len) * 8 * 1_000_000_000 / rate.max(1);
                self.busy_until = end;
                (start, end)
            }
        };
        if self.is_lost() {
            self.counts.lost += 1;
            return None;
        }
        Some((start, end))
    }

    /// Whether the queue has room for a packet that would have to wait so long. An empty queue takes
    /// any packet.
    fn fits(&self, len: usize, wait: Nanos, rate: u64) -> bool {
        match self.way.queue {
            _ if wait == 0 => true,
            Queue::Time(most) => wait <= nanos(most),
            Queue::Bytes(most) => {
                let waiting = u128::from(wait) * u128::from(rate) / 8_000_000_000;
                waiting + len as u128 <= u128::from(most)
            }
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        f64::from(self.random.next_u32()) < probability * 4_294_967_296.0
    }

    fn is_lost(&mut self) -> bool {
        match self.way.loss {
            Loss::None => false,
            Loss::Random(probability) => self.chance(probability),
            Loss::Bursts { share, length } => {
                // Two states; in one all are lost. It is left with 1/length, and entered so often
                // that the share comes out right: p = share / (length (1 - share)).
                let leave = 1.0 / length.max(1.0);
                let enter = leave * share / (1.0 - share).max(f64::EPSILON);
                self.burst = if self.burst { !self.chance(leave) } else { self.chance(enter) };
                self.burst
            }
        }
    }

    fn depart(&mut self, frame: &Frame, run: Option<(Range<usize>, Nanos, Nanos)>) {
        if let Some((range, _, end)) = run {
            self.wait(frame.cut(range), end);
        }
    }

    fn wait(&mut self, frame: Frame, left: Nanos) {
        let mut delay = nanos(self.way.delay);
        if !self.way.jitter.is_zero() {
            let jitter = nanos(self.way.jitter);
            let drawn = self.random.next_u64() % jitter.saturating_mul(2).saturating_add(1);
            delay = delay.saturating_add(drawn).saturating_sub(jitter);
        }
        let mut due = left.saturating_add(delay);
        if !self.way.reorder {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        self.held += frame.as_bytes().len();
        self.arrivals += 1;
        self.waiting.insert((due, self.arrivals), frame);
    }

    /// When the next frame is due.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next frame that is due by then.
    pub(super) fn take(&mut self, by: Nanos) -> Option<Frame> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 > by {
            return None;
        }
        let frame = entry.remove();
        self.held -= frame.as_bytes().len();
        Some(frame)
    }

    /// Counts a frame at the far end.
    pub(super) fn handed_over(&mut self, frame: &Frame, sent: Sent) {
        let count = as_u64(frame.count());
        match sent {
            Sent::Taken => {
                self.counts.delivered += count;
                let bytes: usize = (0..frame.count()).map(|n| frame.wire_len(n)).sum();
                self.counts.delivered_bytes += as_u64(bytes);
            }
            Sent::Down => self.counts.down += count,
            Sent::Full => self.counts.overrun += count,
        }
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::large;
    use super::*;

    const MS: u64 = 1_000_000;

    fn line(way: Way) -> Line {
        let mut line = Line::new(7);
        line.set(way, 0);
        line
    }

    /// All that comes out, with the times.
    fn drain(line: &mut Line) -> Vec<(u64, Frame)> {
        let mut out = Vec::new();
        while let Some(due) = line.next_due() {
            assert!(due == 0 || line.take(due - 1).is_none(), "before its time");
            let frame = line.take(due).unwrap();
            line.handed_over(&frame, Sent::Taken);
            out.push((due, frame));
        }
        assert_eq!(line.held, 0);
        out
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_delay_delays_and_keeps_large_packets_whole() {
        let mut line = line(Way::delayed(ms(15)));
        let frame = large(true, true, 60_000, 1448);
        assert_eq!(line.put(&frame, 3 * MS), None);
        assert_eq!(drain(&mut line), [(18 * MS, frame)]);
        assert_eq!((line.counts.arrived, line.counts.delivered), (42, 42));
    }

    #[test]
    fn loss_is_of_wire_packets() {
        for loss in [Loss::Random(0.1), Loss::Bursts { share: 0.1, length: 4.0 }] {
            let mut line = line(Way { loss, ..Way::default() });
            for n in 0..1000 {
                line.put(&large(true, true, 64_000, 1000), n * MS);
            }
            let out = drain(&mut line);
            assert!(out.len() > 2000, "{} pieces of 1000: nothing was cut out", out.len());
            let counts = line.counts;
            assert_eq!((counts.arrived, counts.lost + counts.delivered), (64_000, 64_000));
            // 64000 draws of 0.1: the standard deviation is 76, and with bursts of 4 some 200.
            assert!((5400..=7400).contains(&counts.lost), "{loss:?}: {counts:?}");
        }
    }

    #[test]
    fn bursts_have_their_length() {
        let mut line =
            line(Way { loss: Loss::Bursts { share: 0.05, length: 5.0 }, ..Way::default() });
        let lost: Vec<bool> = (0..200_000).map(|_| line.is_lost()).collect();
        let begun = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let all = lost.iter().filter(|lost| **lost).count();
        let (length, share) = (all as f64 / begun as f64, all as f64 / 200_000.0);
        assert!((4.5..5.5).contains(&length) && (0.04..0.06).contains(&share), "{length} {share}");
    }

    #[test]
    fn the_same_seed_loses_the_same() {
        let run = |seed| {
            let mut line = Line::new(seed);
            line.set(Way::default().lossy(0.3), 0);
            for n in 0..100 {
                line.put(&large(false, false, 100, 1000), n);
            }
            drain(&mut line).into_iter().map(|(due, _)| due).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_rate_spaces_packets_and_its_queue_is_bounded() {
        // 1054 bytes each, at 8.432 Mbit/s: one a millisecond.
        let way = Way::default().rated(8_432_000, Queue::Time(ms(10)));
        let mut line = line(way);
        line.put(&large(true, true, 20_000, 1000), 0);
        let out = drain(&mut line);
        let times: Vec<u64> = out.iter().map(|(due, _)| *due / MS).collect();
        // The first leaves at once, ten milliseconds of others wait, the rest finds no room.
        assert_eq!(times, (1..=11).collect::<Vec<_>>());
        assert!(out.iter().all(|(_, frame)| frame.count() == 1));
        assert_eq!(line.counts.queue_full, 9);
        // The queue has drained by then; bytes bound it as well.
        line.set(Way { queue: Queue::Bytes(3000), ..way }, 100 * MS);
        line.put(&large(true, true, 20_000, 1000), 100 * MS);
        assert_eq!(drain(&mut line).len(), 2);
    }

    #[test]
    fn a_fast_link_sends_pieces() {
        // 1054 bytes take 8.4 us.
        let mut line = line(Way::default().rated(1_000_000_000, Queue::Time(ms(10))));
        line.put(&large(true, true, 60_000, 1000), 0);
        let out = drain(&mut line);
        assert_eq!(out.iter().map(|(_, frame)| frame.count()).sum::<usize>(), 60);
        assert!((2..=4).contains(&out.len()), "{} pieces", out.len());
        assert_eq!(out.last().unwrap().0, 60 * 1054 * 8);
    }

    #[test]
    fn order_is_kept_unless_jitter_may_change_it() {
        for reorder in [false, true] {
            let way = Way { jitter: ms(5), reorder, ..Way::delayed(ms(10)) };
            let mut line = line(way);
            for n in 0..200 {
                line.put(&large(true, false, 100 + n, 2000), n as u64 * MS);
            }
            let out = drain(&mut line);
            let sizes: Vec<usize> = out.iter().map(|(_, frame)| frame.as_bytes().len()).collect();
            assert_eq!(sizes.is_sorted(), !reorder);
            assert_eq!(out.len(), 200);
            let first = out.iter().map(|(due, _)| *due).min().unwrap();
            assert!((5 * MS..=15 * MS).contains(&first));
        }
    }

    #[test]
    fn what_is_too_big_is_told_and_what_is_blocked_is_not() {
        let mut line = line(Way { mtu: Some(1040), ..Way::default() });
        assert_eq!(line.put(&large(true, true, 3000, 1000), 0), None);
        assert_eq!(line.put(&large(true, true, 3000, 1001), 0), Some(1040));
        // The last of its packets is small enough.
        assert_eq!((line.counts.too_big, drain(&mut line).len()), (2, 2));
        line.set(Way { mtu: Some(1040), tell_mtu: false, ..Way::default() }, 0);
        assert_eq!(line.put(&large(true, true, 2002, 1001), 0), None);
        line.set(Way { blocked: true, ..Way::default() }, 0);
        line.put(&large(true, true, 3000, 1000), 0);
        assert_eq!((line.counts.blocked, line.next_due()), (3, None));
    }

    #[test]
    fn it_does_not_hold_more_than_it_may() {
        let mut line = line(Way::delayed(ms(1000)));
        let frame = large(true, true, 65_000, 1000);
        for n in 0..3000 {
            line.put(&frame, n);
        }
        assert!(line.held <= HELD && line.counts.overrun > 0, "{:?}", line.counts);
    }
}
