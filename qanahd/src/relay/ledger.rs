//! What waits in a channel for others than ourselves, and how much of it is whose.

use std::collections::{HashMap, VecDeque};

use qanah_core::router::PeerId;

/// Bytes that wait for one peer from one other, at the most. Where there are several, each has its share of
/// [`IN_ALL`].
pub(crate) const PER_PAIR: usize = 256 * 1024;
/// Bytes that wait for one peer from all others, at the most: half of what a channel holds. The other half is
/// ours alone, so what we carry never keeps our own packets out.
pub(crate) const IN_ALL: usize = 512 * 1024;

/// The frames in a channel in the order in which they went into it, as far as they are not ours.
///
/// The channel says how many bytes wait in it, not which. It lets them go in nearly the order in which they came, so
/// what waits is what came last.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Bytes that ever went in.
    total: u64,
    /// Whose, how many bytes, and the total after them.
    frames: VecDeque<(PeerId, usize, u64)>,
    waiting: HashMap<PeerId, usize>,
}

impl Ledger {
    /// Whether there is room for `len` bytes of `source` while `waiting` bytes wait in the channel.
    pub(crate) fn takes(&mut self, source: PeerId, len: usize, waiting: usize) -> bool {
        self.settle(waiting);
        let of_source = self.waiting.get(&source).copied().unwrap_or(0);
        let of_all: usize = self.waiting.values().sum();
        let sources = self.waiting.len() + usize::from(of_source == 0);
        // One more share stays free: whoever comes next finds room.
        let share = PER_PAIR.min(IN_ALL / (sources + 1));
        // A lone frame that is larger than any limit may pass.
        (of_source == 0 || of_source + len <= share) && (of_all == 0 || of_all + len <= IN_ALL)
    }

    /// Notes that `len` bytes went in; `source` is absent where they are ours.
    pub(crate) fn note(&mut self, source: Option<PeerId>, len: usize) {
        self.total += len as u64;
        if let Some(source) = source {
            self.frames.push_back((source, len, self.total));
            *self.waiting.entry(source).or_default() += len;
        }
    }

    /// Forgets what has left the channel.
    fn settle(&mut self, waiting: usize) {
        let gone = self.total.saturating_sub(waiting as u64);
        while let Some((source, len, end)) = self.frames.front().copied() {
            if end > gone {
                return;
            }
            self.frames.pop_front();
            if let Some(left) = self.waiting.get_mut(&source) {
                *left = left.saturating_sub(len);
                if *left == 0 {
                    self.waiting.remove(&source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);
    const FRAME: usize = 1024;

    /// Puts frames in until one is not taken.
    fn fill(ledger: &mut Ledger, source: PeerId, waiting: &mut usize) -> usize {
        let mut taken = 0;
        while ledger.takes(source, FRAME, *waiting) {
            ledger.note(Some(source), FRAME);
            *waiting += FRAME;
            taken += FRAME;
        }
        taken
    }

    #[test]
    fn one_source_leaves_room_for_others_and_all_leave_room_for_us() {
        let mut ledger = Ledger::default();
        let mut waiting = 0;
        let of_a = fill(&mut ledger, A, &mut waiting);
        assert!((PER_PAIR - FRAME..=PER_PAIR).contains(&of_a));
        let of_b = fill(&mut ledger, B, &mut waiting);
        assert!((IN_ALL / 3 - FRAME..=IN_ALL / 3).contains(&of_b), "{of_b}");
        assert!(!ledger.takes(A, FRAME, waiting), "who has much gets no more");
        let of_c = fill(&mut ledger, PeerId(3), &mut waiting);
        assert!(of_c > IN_ALL / 8, "who comes later finds room: {of_c}");
        let left = IN_ALL - of_a - of_b - of_c;
        assert!(left < IN_ALL / 4, "{left}");
        while ledger.takes(PeerId(4), FRAME, waiting) {
            ledger.note(Some(PeerId(4)), FRAME);
            waiting += FRAME;
        }
        assert!(waiting <= IN_ALL, "all of it is in use");
        // What is ours is not asked, and does not count.
        ledger.note(None, 400_000);
        waiting += 400_000;
        assert!(!ledger.takes(A, FRAME, waiting));
        // All of A's has left, in order.
        waiting -= of_a;
        assert!(ledger.takes(A, FRAME, waiting) && !ledger.takes(B, FRAME, waiting));
        waiting -= of_b;
        assert!(ledger.takes(B, FRAME, waiting));
        ledger.settle(0);
        assert!(ledger.frames.is_empty() && ledger.waiting.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_frame_larger_than_the_limit_passes_alone() {
        let mut ledger = Ledger::default();
        assert!(ledger.takes(A, 2 * IN_ALL, 0));
        ledger.note(Some(A), 2 * IN_ALL);
        assert!(!ledger.takes(A, 1, 2 * IN_ALL) && !ledger.takes(B, 1, 2 * IN_ALL));
        assert!(ledger.takes(A, 1, 0));
    }

    #[test]
    fn a_channel_that_says_strange_things_does_no_harm() {
        let mut ledger = Ledger::default();
        assert!(ledger.takes(A, 10, usize::MAX));
        ledger.note(Some(A), 10);
        assert!(ledger.takes(A, 10, usize::MAX));
        assert!(ledger.takes(A, 10, 0));
    }
}
