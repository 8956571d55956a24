//! CoDel against the pseudo code of RFC 8289, section 5.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const TARGET: u64 = 5 * MS;
const INTERVAL: u64 = 100 * MS;
const LEN: usize = 1500;

/// The routines of the RFC, in nanoseconds: it takes a packet out before it looks at it, and knows no
/// time but numbers, with zero for none.
#[derive(Default)]
struct Rfc {
    queue: VecDeque<(u64, usize)>,
    first_above_time: u64,
    drop_next: u64,
    count: u32,
    lastcount: u32,
    dropping: bool,
    dropped: Vec<usize>,
}

impl Rfc {
    fn control_law(t: u64, count: u32) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "no more than an interval")]
        let pause = (0.1 / f64::from(count).sqrt() * 1e9).round() as u64;
        t + pause
    }

    fn dodequeue(&mut self, now: u64) -> (Option<usize>, bool) {
        let Some((tstamp, id)) = self.queue.pop_front() else {
            self.first_above_time = 0;
            return (None, false);
        };
        let mut ok_to_drop = false;
        if now - tstamp < TARGET || self.queue.len() * LEN <= LEN {
            self.first_above_time = 0;
        } else if self.first_above_time == 0 {
            self.first_above_time = now + INTERVAL;
        } else if now >= self.first_above_time {
            ok_to_drop = true;
        }
        (Some(id), ok_to_drop)
    }

    fn dequeue(&mut self, now: u64) -> Option<usize> {
        let (mut packet, mut ok_to_drop) = self.dodequeue(now);
        if self.dropping {
            if !ok_to_drop {
                self.dropping = false;
            }
            while now >= self.drop_next && self.dropping {
                self.dropped.extend(packet);
                self.count += 1;
                (packet, ok_to_drop) = self.dodequeue(now);
                if ok_to_drop {
                    self.drop_next = Self::control_law(self.drop_next, self.count);
                } else {
                    self.dropping = false;
                }
            }
        } else if ok_to_drop {
            self.dropped.extend(packet);
            (packet, _) = self.dodequeue(now);
            self.dropping = true;
            let delta = self.count - self.lastcount;
            let recent = now.saturating_sub(self.drop_next) < 16 * INTERVAL;
            self.count = if delta > 1 && recent { delta } else { 1 };
            self.drop_next = Self::control_law(now, self.count);
            self.lastcount = self.count;
        }
        packet
    }
}

/// Both at once, at whole milliseconds: how the root is rounded makes no difference there.
struct Pair {
    start: Instant,
    queue: Queue,
    rfc: Rfc,
    next: usize,
    dropped: Vec<usize>,
}

impl Pair {
    fn new() -> Self {
        let (queue, rfc) = (Queue::new(limits()), Rfc::default());
        Self { start: Instant::now(), queue, rfc, next: 0, dropped: Vec::new() }
    }

    fn push(&mut self, at: u64) {
        let item = Sized { id: self.next, flow: 1, len: LEN };
        push(&mut self.queue, self.start + Duration::from_nanos(at), 0, item);
        self.rfc.queue.push_back((at, self.next));
        self.next += 1;
    }

    /// Takes one of each and compares.
    fn pop(&mut self, at: u64) -> Option<usize> {
        let now = self.start + Duration::from_nanos(at);
        let dropped = &mut |_, item: Sized| self.dropped.push(item.id);
        let item = self.queue.pop(now, dropped).map(|(_, item)| item.id);
        assert_eq!(item, self.rfc.dequeue(at), "at {at} ns");
        assert_eq!(self.dropped, self.rfc.dropped, "at {at} ns");
        item
    }
}

#[test]
fn drops_by_the_control_law() {
    let mut pair = Pair::new();
    // One packet more each millisecond than is sent, for a second and a half.
    let mut drops = Vec::new();
    for ms in 1..1500 {
        pair.push(ms * MS);
        pair.push(ms * MS);
        let before = pair.dropped.len();
        pair.pop(ms * MS);
        for _ in before..pair.dropped.len() {
            drops.push(ms);
        }
    }
    // Above the target from 10 ms on: the first drop an interval later, the n-th after a pause of
    // 100 ms / sqrt(n - 1).
    assert_eq!(drops[0], 110, "{drops:?}");
    let pauses: Vec<_> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (at, pause) in (1_u32..).zip(&pauses) {
        let exact = 100.0 / f64::from(at).sqrt();
        let pause = f64::from(u32::try_from(*pause).unwrap());
        assert!((pause - exact).abs() <= 1.0, "{at}: {pauses:?}");
    }
    assert!(drops.len() > 20);
}

#[test]
fn a_new_cycle_soon_begins_where_the_last_one_ended() {
    // How many drops in the first 300 ms of the second cycle, which begins so long after the first.
    let second = |gap: u64| {
        let mut pair = Pair::new();
        let mut now = 1;
        let standing = |pair: &mut Pair, ms: u64, now: &mut u64| {
            for _ in 0..200 {
                pair.push(*now * MS);
            }
            for _ in 0..ms {
                *now += 1;
                pair.push(*now * MS);
                pair.pop(*now * MS);
            }
            pair.dropped.len()
        };
        let first = standing(&mut pair, 1200, &mut now);
        // Down to less than the target but never empty, or the flow would be forgotten.
        while pair.queue.len() > 1 {
            pair.pop(now * MS);
        }
        for _ in 0..gap {
            now += 1;
            pair.push(now * MS);
            pair.pop(now * MS);
        }
        standing(&mut pair, 400, &mut now) - first
    };
    assert!(second(200) > 2 * second(3000), "{} and {}", second(200), second(3000));
}

#[test]
fn a_flow_that_drains_between_its_bursts_is_remembered() {
    // As above, but the queue is quite empty in between.
    let (mut queue, start) = (Queue::new(limits()), Instant::now());
    let mut now = start;
    let mut burst = |after: u64| {
        now += Duration::from_millis(after);
        let mut dropped = 0;
        for _ in 0..200 {
            push(&mut queue, now, 0, sized(1, 1500));
        }
        for ms in 0..1200 {
            now += Duration::from_millis(1);
            push(&mut queue, now, 0, sized(1, 1500));
            queue.pop(now, &mut |_, _| dropped += usize::from(ms < 400));
        }
        while queue.pop(now, &mut |_, _| ()).is_some() {}
        dropped
    };
    let (first, soon, late) = (burst(0), burst(200), burst(3000));
    assert!(soon > 2 * first && late == first, "{first}, {soon}, {late}");
}

#[test]
fn the_last_one_is_never_dropped() {
    let (mut queue, start) = (Queue::new(limits()), Instant::now());
    for hour in 0..100 {
        let now = start + Duration::from_secs(3600 * hour);
        push(&mut queue, now, 0, sized(1, 60_000));
        let later = now + Duration::from_secs(3599);
        assert_eq!(pop(&mut queue, later), Some((0, 1)));
    }
}

#[test]
fn a_longer_interval_waits_longer() {
    let (mut queue, start) = (Queue::new(limits()), Instant::now());
    queue.set_target(Duration::from_millis(50), Duration::from_secs(1));
    for _ in 0..5000 {
        push(&mut queue, start, 0, sized(1, 1500));
    }
    let mut dropped = 0;
    for ms in 50..1050 {
        queue.pop(start + Duration::from_millis(ms), &mut |_, _| dropped += 1);
    }
    assert_eq!(dropped, 0);
    queue.pop(start + Duration::from_millis(1050), &mut |_, _| dropped += 1);
    assert_eq!(dropped, 1);
}

proptest! {
    #[test]
    fn drops_as_the_pseudo_code(
        phases in prop::collection::vec((1_u64..400, 0_usize..4, 0_usize..4), 1..12),
    ) {
        let mut pair = Pair::new();
        let mut now = 1;
        // One that stays: what is forgotten with the last one is not in the pseudo code.
        pair.push(now * MS);
        for (length, pushes, pops) in phases {
            for _ in 0..length {
                now += 1;
                for _ in 0..pushes {
                    pair.push(now * MS);
                }
                for _ in 0..pops {
                    if pair.queue.len() > 1 {
                        pair.pop(now * MS);
                    }
                }
            }
        }
    }
}
