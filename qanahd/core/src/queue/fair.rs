//! One class: its flows, each behind its own CoDel, in deficit round robin (RFC 8290).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::codel::{Codel, Law, Waiting};

/// Of so many flows that are about as long as the longest one (within a factor of two) the longest
/// is found. It bounds the work when all flows are of one length.
const COMPARED: usize = 16;

/// What is charged at most for one item, in bytes: no IP packet is longer, and a debt must end.
const MAX_CHARGE: usize = 1 << 16;

/// How many empty flows a resting class keeps, and room for how many items in each.
const KEPT_FLOWS: usize = 8;
const KEPT_ROOM: usize = 64;

/// One item that waits.
#[derive(Debug)]
pub(super) struct Entry<T> {
    since: Instant,
    /// What it counts for, in bytes.
    cost: usize,
    item: T,
}

impl<T> Entry<T> {
    pub(super) const fn new(since: Instant, cost: usize, item: T) -> Self {
        Self { since, cost, item }
    }
}

#[derive(Debug)]
struct Flow<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    /// What it may still send in this round; a debt when negative.
    deficit: i64,
    codel: Codel,
}

impl<T> Flow<T> {
    fn new(quantum: i64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, deficit: quantum, codel: Codel::default() }
    }

    fn take(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.cost;
        Some(entry)
    }
}

/// A flow with a hand for what CoDel drops.
struct Watched<'a, T, D> {
    flow: &'a mut Flow<T>,
    dropped: D,
}

impl<T, D: FnMut(T)> Waiting for Watched<'_, T, D> {
    fn head(&self) -> Option<(Instant, usize)> {
        let head = self.flow.entries.front()?;
        Some((head.since, self.flow.bytes - head.cost))
    }

    fn drop_head(&mut self) {
        if let Some(entry) = self.flow.take() {
            (self.dropped)(entry.item);
        }
    }
}

/// What waits in one class.
#[derive(Debug)]
pub(super) struct Class<T> {
    /// By bucket. A flow stays until its turn comes after it was emptied, and is on exactly one of the two lists
    /// until then.
    flows: HashMap<u64, Flow<T>>,
    /// Flows in their first round.
    new: VecDeque<u64>,
    old: VecDeque<u64>,
    /// The flows with something in them, by their [rank]. Changes seldom, because a rank does.
    ranks: BTreeSet<(u32, u64)>,
    bytes: usize,
    len: usize,
    /// What it may still send in this round of the classes; a debt when negative.
    pub(super) deficit: i64,
}

impl<T> Class<T> {
    pub(super) fn new(quantum: i64) -> Self {
        Self {
            flows: HashMap::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            ranks: BTreeSet::new(),
            bytes: 0,
            len: 0,
            deficit: quantum,
        }
    }

    /// How much waits, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many items wait.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds an item to the flow of a bucket.
    pub(super) fn push(&mut self, bucket: u64, quantum: i64, entry: Entry<T>) {
        let flow = self.flows.entry(bucket).or_insert_with(|| {
            self.new.push_back(bucket);
            Flow::new(quantum)
        });
        let before = flow.bytes;
        let after = before + entry.cost;
        flow.bytes = after;
        self.bytes += entry.cost;
        self.len += 1;
        flow.entries.push_back(entry);
        self.rerank(bucket, before, after);
    }

    /// Takes the next item if it `fits`. What CoDel drops before it goes to `dropped`.
    pub(super) fn pop(
        &mut self,
        now: Instant,
        law: Law,
        quantum: i64,
        fits: impl FnOnce(&T) -> bool,
        dropped: impl FnMut(T),
    ) -> Option<T> {
        let bucket = self.next_flow(quantum)?;
        let flow = self.flows.get_mut(&bucket)?;
        let before = (flow.bytes, flow.entries.len());
        // CoDel looks at the flow that it is part of.
        let mut codel = flow.codel;
        codel.pass(now, law, &mut Watched { flow, dropped });
        flow.codel = codel;
        let taken = match flow.entries.front() {
            Some(head) if fits(&head.item) => flow.take(),
            _ => None,
        };
        if let Some(entry) = &taken {
            let charge = i64::try_from(entry.cost.min(MAX_CHARGE)).unwrap_or(i64::MAX);
            flow.deficit -= charge;
            self.deficit -= charge;
        }
        let after = (flow.bytes, flow.entries.len());
        self.shrunk(bucket, before, after);
        taken.map(|entry| entry.item)
    }

    /// Drops the head of the longest flow, or of one about as long: the oldest of those who take most,
    /// so that their senders learn it soonest (RFC 8290, section 4.1).
    pub(super) fn drop_longest(&mut self) -> Option<T> {
        let bucket = self.longest()?;
        let flow = self.flows.get_mut(&bucket)?;
        let before = (flow.bytes, flow.entries.len());
        let entry = flow.take();
        let after = (flow.bytes, flow.entries.len());
        self.shrunk(bucket, before, after);
        entry.map(|entry| entry.item)
    }

    /// Forgets the flows, when all are empty.
    pub(super) fn forget_flows(&mut self) {
        self.flows.clear();
        self.new.clear();
        self.old.clear();
    }

    /// Begins again without a debt, when all flows are empty. A few of them stay: who sends a packet now and then
    /// needs no memory each time, and CoDel knows a flow that drains between its bursts.
    pub(super) fn rest(&mut self, quantum: i64) {
        self.deficit = quantum;
        if self.flows.len() > KEPT_FLOWS {
            self.forget_flows();
        }
        for flow in self.flows.values_mut() {
            flow.entries.shrink_to(KEPT_ROOM);
        }
    }

    /// The flow whose turn it is, with something in it (RFC 8290, section 4.2).
    fn next_flow(&mut self, quantum: i64) -> Option<u64> {
        // Each step pays a quantum of some debt or shortens a list, so this ends.
        while self.len > 0 {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let bucket = *list.front()?;
            let spent = match self.flows.get_mut(&bucket) {
                Some(flow) if flow.deficit <= 0 => {
                    flow.deficit += quantum;
                    true
                }
                Some(flow) if !flow.entries.is_empty() => return Some(bucket),
                _ => false,
            };
            list.pop_front();
            if spent || is_new {
                // Also when it is empty: or it would be new again with its next item, and ahead of
                // the old ones for ever.
                self.old.push_back(bucket);
            } else {
                self.flows.remove(&bucket);
            }
        }
        None
    }

    fn longest(&self) -> Option<u64> {
        let (top, _) = *self.ranks.last()?;
        let longest = self.ranks.range((top, 0)..).take(COMPARED);
        let bytes = |bucket: &u64| self.flows.get(bucket).map_or(0, |flow| flow.bytes);
        longest.map(|(_, bucket)| *bucket).max_by_key(bytes)
    }

    /// Counts what was taken from a flow: its bytes and items before and after.
    fn shrunk(&mut self, bucket: u64, before: (usize, usize), after: (usize, usize)) {
        self.bytes -= before.0 - after.0;
        self.len -= before.1 - after.1;
        self.rerank(bucket, before.0, after.0);
    }

    fn rerank(&mut self, bucket: u64, before: usize, after: usize) {
        let (before, after) = (rank(before), rank(after));
        if before == after {
            return;
        }
        if before > 0 {
            self.ranks.remove(&(before, bucket));
        }
        if after > 0 {
            self.ranks.insert((after, bucket));
        }
    }
}

/// The length of a flow to a factor of two; zero only when it is empty.
const fn rank(bytes: usize) -> u32 {
    usize::BITS - bytes.leading_zeros()
}
