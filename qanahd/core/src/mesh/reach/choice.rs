//! Which of several relays is used.

use std::time::{Duration, Instant};

use crate::mesh::limits::{BETTER_BY, BETTER_FOR, UNKNOWN_RTT};
use crate::router::PeerId;

/// The length of the whole way: to a carrier, and from there on.
pub(super) fn length(to: Option<Duration>, from: Option<Duration>) -> Duration {
    to.unwrap_or(UNKNOWN_RTT) + from.unwrap_or(UNKNOWN_RTT)
}

/// A way: whether it is shunned, its length, its relay. The least is the best.
pub(super) type Weighed = (bool, Duration, PeerId);

/// Which relay is used from now on, and which one is better and waits for its time. A relay that works is
/// only left for one that is clearly better, and stays so.
pub(super) fn settle(
    now: Instant,
    current: Option<Weighed>,
    best: Option<Weighed>,
    better: Option<(PeerId, Instant)>,
) -> (Option<PeerId>, Option<(PeerId, Instant)>) {
    let (Some((shunned, length, id)), Some((best_shunned, best_length, best_id))) = (current, best)
    else {
        return (best.map(|(.., id)| id), None);
    };
    if shunned && !best_shunned {
        return (Some(best_id), None);
    }
    let clearly = best_length * 5 < length * 4 && best_length + BETTER_BY <= length;
    if best_id == id || shunned != best_shunned || !clearly {
        return (Some(id), None);
    }
    let since = better.filter(|(id, _)| *id == best_id).map_or(now, |(_, since)| since);
    if now >= since + BETTER_FOR {
        (Some(best_id), None)
    } else {
        (Some(id), Some((best_id, since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    fn way(ms: u64, id: PeerId) -> Option<Weighed> {
        Some((false, Duration::from_millis(ms), id))
    }

    #[test]
    fn without_a_relay_the_best_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(settle(now, None, way(50, B), None), (Some(B), None));
        assert_eq!(settle(now, None, None, None), (None, None));
        // One that is gone is not among the ways any more.
        assert_eq!(settle(now, None, way(500, B), Some((A, now))), (Some(B), None));
    }

    #[test]
    fn a_relay_is_left_for_one_that_is_clearly_better_for_a_while() {
        let now = Instant::now();
        for (best, clearly) in [(100, false), (81, false), (80, false), (79, true), (10, true)] {
            let (via, better) = settle(now, way(100, A), way(best, B), None);
            assert_eq!((via, better.is_some()), (Some(A), clearly), "{best} ms");
        }
        // Of two very short ways none is clearly better.
        assert_eq!(settle(now, way(6, A), way(2, B), None), (Some(A), None));
        let (_, better) = settle(now, way(100, A), way(10, B), None);
        let soon = now + BETTER_FOR - Duration::from_millis(1);
        assert_eq!(settle(soon, way(100, A), way(10, B), better), (Some(A), better));
        assert_eq!(settle(now + BETTER_FOR, way(100, A), way(10, B), better), (Some(B), None));
        // Whoever was better for a moment waits anew, and so does another one.
        assert_eq!(settle(soon, way(100, A), way(90, B), better), (Some(A), None));
        let other = settle(soon, way(100, A), way(10, PeerId(3)), better);
        assert_eq!(other, (Some(A), Some((PeerId(3), soon))));
    }

    #[test]
    fn a_relay_by_which_nothing_came_back_is_left_at_once_if_there_is_another() {
        let now = Instant::now();
        let shunned = |ms, id| Some((true, Duration::from_millis(ms), id));
        assert_eq!(settle(now, shunned(10, A), way(500, B), None), (Some(B), None));
        assert_eq!(settle(now, shunned(10, A), shunned(10, A), None), (Some(A), None));
        assert_eq!(settle(now, None, shunned(10, A), None), (Some(A), None));
    }
}
