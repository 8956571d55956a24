//! The sliding window that refuses replayed counters.
//!
//! A ring of bitmap blocks after RFC 6479: moving the window forward clears whole blocks, so it
//! never shifts bits. One block more than the window has keeps the window at its full size
//! wherever its upper edge stands in a block.

use thiserror::Error;

/// How far back a frame may be and still be taken, in frames.
pub const WINDOW: u64 = 8192;

const BLOCK_BITS: u64 = u64::BITS as u64;
const BLOCKS: usize = 8192 / 64 + 1;
const _: () = assert!(WINDOW / BLOCK_BITS + 1 == BLOCKS as u64);

/// Why a counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// It lies behind the window.
    #[error("counter is behind the window")]
    TooOld,
    /// A frame with this counter was opened before.
    #[error("counter was seen before")]
    Seen,
}

/// Which counters of one key were seen. About 1 KiB.
///
/// [`check`](Self::check) before a frame is opened, [`mark`](Self::mark) only after it proved
/// authentic, or a forger moves the window.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    greatest: u64,
    blocks: [u64; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        Self {
            // Zero is not yet marked, so it is still taken.
            greatest: 0,
            blocks: [0; BLOCKS],
        }
    }

    /// The greatest counter that was taken; zero when there was none.
    pub const fn greatest(&self) -> u64 {
        self.greatest
    }

    /// Whether a frame with this counter may be taken.
    ///
    /// # Errors
    /// When it was seen, or is too far back to know.
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        if counter > self.greatest {
            return Ok(());
        }
        if self.greatest - counter >= WINDOW {
            return Err(ReplayError::TooOld);
        }
        let (block, bit) = place(counter);
        match self.blocks.get(block) {
            Some(bits) if bits & bit == 0 => Ok(()),
            _ => Err(ReplayError::Seen),
        }
    }

    /// Notes that a frame with this counter was taken. Behind the window this does nothing.
    pub fn mark(&mut self, counter: u64) {
        if counter > self.greatest {
            self.advance(counter);
        } else if self.greatest - counter >= WINDOW {
            return;
        }
        let (block, bit) = place(counter);
        if let Some(bits) = self.blocks.get_mut(block) {
            *bits |= bit;
        }
    }

    fn advance(&mut self, greatest: u64) {
        let (old, new) = (self.greatest / BLOCK_BITS, greatest / BLOCK_BITS);
        // After BLOCKS steps every block is clear.
        for step in 1..=(new - old).min(BLOCKS as u64) {
            let (block, _) = place((old + step) * BLOCK_BITS);
            if let Some(bits) = self.blocks.get_mut(block) {
                *bits = 0;
            }
        }
        self.greatest = greatest;
    }
}

/// The block that a counter falls into, and its bit there.
fn place(counter: u64) -> (usize, u64) {
    let block = counter / BLOCK_BITS % BLOCKS as u64;
    // Less than BLOCKS, so it fits; and if not, no block answers and the counter is refused.
    (usize::try_from(block).unwrap_or(BLOCKS), 1 << (counter % BLOCK_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by definition: all counters seen, and the greatest.
    #[derive(Default)]
    struct Model {
        seen: HashSet<u64>,
        greatest: u64,
    }

    impl Model {
        fn check(&self, counter: u64) -> Result<(), ReplayError> {
            if u128::from(counter) + u128::from(WINDOW) <= u128::from(self.greatest) {
                Err(ReplayError::TooOld)
            } else if self.seen.contains(&counter) {
                Err(ReplayError::Seen)
            } else {
                Ok(())
            }
        }

        fn mark(&mut self, counter: u64) {
            self.seen.insert(counter);
            self.greatest = self.greatest.max(counter);
        }
    }

    #[test]
    fn every_counter_is_taken_once() {
        let mut window = ReplayWindow::new();
        for counter in 0..3 * WINDOW {
            assert_eq!(window.check(counter), Ok(()));
            window.mark(counter);
            assert_eq!(window.check(counter), Err(ReplayError::Seen));
        }
    }

    #[test]
    fn the_window_has_its_full_size_at_every_position() {
        for greatest in (WINDOW - 1..WINDOW + 200).chain(u64::MAX - 200..=u64::MAX) {
            let mut window = ReplayWindow::new();
            window.mark(greatest);
            let oldest = greatest - (WINDOW - 1);
            for counter in oldest..greatest {
                assert_eq!(window.check(counter), Ok(()), "{counter} of {greatest}");
            }
            if let Some(before) = oldest.checked_sub(1) {
                assert_eq!(window.check(before), Err(ReplayError::TooOld));
            }
        }
    }

    #[test]
    fn the_greatest_counter_ends_nothing() {
        let mut window = ReplayWindow::new();
        window.mark(0);
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(ReplayError::Seen));
        assert_eq!(window.check(u64::MAX - 1), Ok(()));
        assert_eq!(window.check(0), Err(ReplayError::TooOld));
        // A mark behind the window changes nothing.
        window.mark(5);
        assert_eq!(window.check(u64::MAX - 1), Ok(()));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<ReplayWindow>() <= 1048);
    }

    /// Runs of counters: steps forward and back of every size that matters.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            4 => -8_i64..8,
            2 => -9000_i64..9000,
            1 => prop_oneof![Just(-8193), Just(-8192), Just(-8191), Just(63), Just(64), Just(65)],
            1 => prop_oneof![Just(8191_i64), Just(8192), Just(8256), Just(8320), Just(1 << 40)],
        ];
        let start = prop_oneof![Just(0), 0..20_000_u64, u64::MAX - 20_000..=u64::MAX];
        (start, prop::collection::vec(step, 1..400)).prop_map(|(start, steps)| {
            let walk = steps.into_iter().scan(start, |at, step| {
                *at = at.saturating_add_signed(step);
                Some(*at)
            });
            std::iter::once(start).chain(walk).collect()
        })
    }

    proptest! {
        #[test]
        fn behaves_as_the_model(counters in counters(), forged in any::<u64>()) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            for (at, counter) in counters.into_iter().enumerate() {
                prop_assert_eq!(window.check(counter), model.check(counter));
                prop_assert_eq!(window.check(forged), model.check(forged));
                // One in four fails to open and is not marked.
                if model.check(counter).is_ok() && at % 4 != 3 {
                    window.mark(counter);
                    model.mark(counter);
                }
            }
        }
    }
}
