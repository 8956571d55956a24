//! What waits for one channel: fair between those who send, and short.
//!
//! A channel carries the traffic of several classes (whose it is: ours, or that of a peer for which
//! we relay) and in each class of several flows. Deficit round robin shares the channel between the
//! classes that have something waiting, in equal parts and irrespective of how many flows each has
//! (Shreedhar and Varghese, "Efficient Fair Queueing Using Deficit Round Robin", 1995). Within a
//! class it shares between flows as FQ-CoDel does, flows that have just begun first (RFC 8290), and
//! CoDel keeps each flow's standing delay low (RFC 8289).
//!
//! What is kept is bounded by the [`Limits`]: nothing of a class or a flow in which nothing waits, but of the
//! very last ones, and of a class that has sent more than its turn while others wait. Work for an item is constant but for the
//! logarithm of the number of flows (when the length of one crosses a power of two), and a look at
//! each class when the queue as a whole is full.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

mod codel;
mod fair;

use codel::Law;
use fair::{Class, Entry};

/// An item counts for at most this, in bytes, so that sums of many never overflow.
const MAX_COST: usize = 1 << 24;

/// Less than this makes more rounds than packets (300 bytes is the least in use, RFC 8290, section 5.2).
const MIN_QUANTUM: usize = 256;

/// Something that waits.
#[expect(clippy::len_without_is_empty, reason = "the size of an item, which is never empty")]
pub trait Item {
    /// What it counts for, in bytes. Nothing counts for less than one byte.
    fn len(&self) -> usize;
}

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How much waits at most in all classes together, in bytes.
    pub total: usize,
    /// How much waits at most in one class, in bytes.
    pub per_class: usize,
    /// The standing delay that CoDel accepts. RFC 8289, section 4: 5 to 10 % of the interval.
    pub target: Duration,
    /// How long the delay must stand before CoDel drops. RFC 8289, section 4: about the longest usual
    /// round-trip time of what passes.
    pub interval: Duration,
    /// What one flow, and one class, sends in its turn, in bytes: about the largest packet. CoDel drops nothing
    /// while less than this waits behind the head. At least 256.
    pub quantum: usize,
    /// Into how many buckets the flows of a class are hashed (RFC 8290, section 5.2: 1024). At least 1.
    pub flows: usize,
}

/// What waits for one channel.
#[derive(Debug)]
pub struct FairQueue<C, T> {
    limits: Limits,
    /// Classes with something waiting or with a debt, or the last of all; all of them are in the ring.
    classes: BTreeMap<C, Class<T>>,
    /// In the order of their turns.
    ring: VecDeque<C>,
    bytes: usize,
    len: usize,
}

impl<C: Copy + Ord, T: Item> FairQueue<C, T> {
    /// A queue with nothing in it.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, classes: BTreeMap::new(), ring: VecDeque::new(), bytes: 0, len: 0 }
    }

    /// Adds an item to a flow of a class. `flow` is a hash of what makes the flow; with a secret in it, or
    /// a stranger can choose whose bucket to share.
    ///
    /// Beyond the limit of the class the head of its longest flow goes (or of one at least half as long),
    /// and beyond the limit of all the same of the longest class: to `dropped`, perhaps the new item itself.
    /// An item larger than a limit is only taken when it waits alone: in its class, or in the queue.
    pub fn push(
        &mut self,
        now: Instant,
        class: C,
        flow: u64,
        item: T,
        dropped: &mut impl FnMut(C, T),
    ) {
        let cost = item.len().clamp(1, MAX_COST);
        let too_large = cost > self.limits.per_class && self.class_bytes(class) > 0
            || cost > self.limits.total && !self.is_empty();
        if too_large {
            return dropped(class, item);
        }
        let bucket = flow % u64::try_from(self.limits.flows.max(1)).unwrap_or(u64::MAX);
        let quantum = self.quantum();
        let waiting = self.classes.entry(class).or_insert_with(|| {
            self.ring.push_back(class);
            Class::new(quantum)
        });
        waiting.push(bucket, quantum, Entry::new(now, cost, item));
        self.bytes += cost;
        self.len += 1;
        self.make_room(class, dropped);
    }

    /// The next item and its class. What CoDel drops on the way goes to `dropped`.
    pub fn pop(&mut self, now: Instant, dropped: &mut impl FnMut(C, T)) -> Option<(C, T)> {
        let class = self.turn()?;
        self.pop_more(now, class, |_| true, dropped).map(|item| (class, item))
    }

    /// The next item of this class, if it `fits`: to fill a frame that goes out anyway. It counts
    /// as one of [`pop`](Self::pop) does, whosever turn it is: what a class takes beyond its turn is a debt,
    /// and it waits for as many turns as pay it. So take at most what one frame holds.
    pub fn pop_more(
        &mut self,
        now: Instant,
        class: C,
        fits: impl FnOnce(&T) -> bool,
        dropped: &mut impl FnMut(C, T),
    ) -> Option<T> {
        let quantum = self.quantum();
        let Limits { target, interval, .. } = self.limits;
        let spared = self.limits.quantum.max(MIN_QUANTUM);
        let waiting = self.classes.get_mut(&class)?;
        let before = (waiting.bytes(), waiting.len());
        let law = Law { target, interval, spared };
        let item = waiting.pop(now, law, quantum, fits, |item| dropped(class, item));
        self.shrunk(class, before);
        item
    }

    /// How much waits, in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much waits in one class, in bytes.
    pub fn class_bytes(&self, class: C) -> usize {
        self.classes.get(&class).map_or(0, Class::bytes)
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Forgets a class, its debt too, and drops what waits in it. Returns how many items that were.
    pub fn remove_class(&mut self, class: C) -> usize {
        let Some(waiting) = self.classes.remove(&class) else { return 0 };
        self.ring.retain(|other| *other != class);
        self.bytes -= waiting.bytes();
        self.len -= waiting.len();
        self.settle(class);
        waiting.len()
    }

    /// Sets the two times of CoDel: a path with a long round-trip time needs a longer interval.
    pub const fn set_target(&mut self, target: Duration, interval: Duration) {
        self.limits.target = target;
        self.limits.interval = interval;
    }

    /// Sets how much waits at most in all, and in one class, in bytes. What is too much goes with the next push.
    pub const fn set_limits(&mut self, total: usize, per_class: usize) {
        self.limits.total = total;
        self.limits.per_class = per_class;
    }

    fn quantum(&self) -> i64 {
        i64::try_from(self.limits.quantum.clamp(MIN_QUANTUM, MAX_COST)).unwrap_or(i64::MAX)
    }

    /// The class whose turn it is, with something in it.
    fn turn(&mut self) -> Option<C> {
        let quantum = self.quantum();
        // Each step pays a quantum of some debt or forgets a class, so this ends.
        while !self.is_empty() {
            let class = *self.ring.front()?;
            let Some(waiting) = self.classes.get_mut(&class) else {
                self.ring.pop_front();
                continue;
            };
            if waiting.deficit > 0 && waiting.len() > 0 {
                return Some(class);
            }
            waiting.deficit += quantum;
            self.ring.rotate_left(1);
            self.settle(class);
        }
        None
    }

    /// Drops what is too much after an item was added to a class.
    fn make_room(&mut self, class: C, dropped: &mut impl FnMut(C, T)) {
        while self
            .classes
            .get(&class)
            .is_some_and(|it| it.bytes() > self.limits.per_class && it.len() > 1)
        {
            self.drop_from(class, dropped);
        }
        while self.bytes > self.limits.total && self.len > 1 {
            // The longest one has more than its share. Of equals the one that wants more.
            let longest = self.classes.iter().max_by_key(|(id, it)| (it.bytes(), **id == class));
            let Some((longest, _)) = longest else { return };
            self.drop_from(*longest, dropped);
        }
    }

    fn drop_from(&mut self, class: C, dropped: &mut impl FnMut(C, T)) {
        let Some(waiting) = self.classes.get_mut(&class) else { return };
        let before = (waiting.bytes(), waiting.len());
        if let Some(item) = waiting.drop_longest() {
            dropped(class, item);
        }
        self.shrunk(class, before);
    }

    /// Counts what was taken from a class, which had so many bytes and items before.
    fn shrunk(&mut self, class: C, before: (usize, usize)) {
        if let Some(waiting) = self.classes.get(&class) {
            self.bytes -= before.0 - waiting.bytes();
            self.len -= before.1 - waiting.len();
        }
        self.settle(class);
    }

    /// Forgets a class in which nothing waits once it has no debt, and all but this one when nothing waits at all.
    fn settle(&mut self, class: C) {
        if self.is_empty() {
            return self.rest(class);
        }
        let Some(waiting) = self.classes.get_mut(&class) else { return };
        if waiting.len() > 0 {
            return;
        }
        waiting.forget_flows();
        if waiting.deficit >= 0 {
            self.classes.remove(&class);
            if self.ring.front() == Some(&class) {
                self.ring.pop_front();
            } else {
                self.ring.retain(|other| *other != class);
            }
        }
    }

    /// Nothing waits: no debt holds. The last class is likely the next, so it stays for now.
    fn rest(&mut self, last: C) {
        if self.classes.len() > 1 {
            self.classes.retain(|class, _| *class == last);
            self.ring.retain(|class| *class == last);
        }
        let quantum = self.quantum();
        if let Some(waiting) = self.classes.get_mut(&last) {
            waiting.rest(quantum);
        } else {
            self.classes.clear();
            self.ring.clear();
        }
    }
}

#[cfg(test)]
mod tests;
