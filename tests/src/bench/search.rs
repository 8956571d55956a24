//! The highest rate at which hardly anything is lost.

use anyhow::Result;

/// What a try at a rate showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Try {
    /// The rate that was asked for.
    pub wanted: f64,
    /// The rate that was sent.
    pub offered: f64,
    /// Share that was lost, 0 to 1.
    pub loss: f64,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The highest rate received of those tries that were good enough; 0 when none was.
    pub rate: f64,
    /// Whether the sender could not send more, so that the path may carry more than this.
    pub at_least: bool,
    /// All tries, in order.
    pub tries: Vec<Try>,
}

/// A sender that sends less than this share of what it was asked for is at its limit.
const FOLLOWS: f64 = 0.9;

/// Looks for the highest rate with at most `most` loss: doubles or halves from `start` until it
/// has one that is good and one that is not, then halves the gap (as a ratio). At most `steps` tries.
///
/// # Errors
/// Those of `attempt`, which gives the rate sent and the share lost.
pub fn highest(
    start: f64,
    most: f64,
    steps: usize,
    mut attempt: impl FnMut(f64) -> Result<(f64, f64)>,
) -> Result<Found> {
    let mut found = Found { rate: 0.0, at_least: false, tries: Vec::new() };
    let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
    let (mut wanted, mut hindered) = (start, false);
    while found.tries.len() < steps {
        let (offered, loss) = attempt(wanted)?;
        found.tries.push(Try { wanted, offered, loss });
        let full = offered >= FOLLOWS * wanted;
        if loss <= most {
            if offered * (1.0 - loss) > found.rate {
                found.rate = offered * (1.0 - loss);
                found.at_least = !full;
            }
            good = Some(good.map_or(wanted, |good: f64| good.max(wanted)));
            // Chance called that one bad.
            bad = bad.filter(|bad| *bad > wanted);
            if !full {
                // A busy moment of the machine, unless it happens twice.
                if hindered {
                    break;
                }
                hindered = true;
                continue;
            }
        } else {
            bad = Some(bad.map_or(wanted, |bad: f64| bad.min(wanted)));
        }
        wanted = match (good, bad) {
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) => bad / 2.0,
            (None, None) => break,
        };
        if let (Some(good), Some(bad)) = (good, bad)
            && bad / good < 1.03
        {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries `capacity` and loses the rest, with a sender that sends up to `limit`.
    fn path(capacity: f64, limit: f64) -> impl FnMut(f64) -> Result<(f64, f64)> {
        move |rate| {
            let offered = rate.min(limit);
            Ok((offered, (1.0 - capacity / offered).max(0.0)))
        }
    }

    #[test]
    fn the_capacity_is_found_from_below_and_from_above() {
        for capacity in [3.0, 95.0, 100.0, 4000.0] {
            let found = highest(100.0, 0.005, 14, path(capacity, 1e9)).unwrap();
            let off = found.rate / capacity;
            assert!((0.96..=1.0).contains(&off), "{capacity}: {found:?}");
            assert!(!found.at_least && found.tries.len() <= 14);
        }
    }

    #[test]
    fn the_limit_of_the_sender_is_told() {
        let found = highest(100.0, 0.005, 10, path(1e6, 700.0)).unwrap();
        assert!(found.at_least && (found.rate - 700.0).abs() < 1.0, "{found:?}");
        // A sender that is slow where the path is slower is no limit.
        assert!(!highest(100.0, 0.005, 10, path(500.0, 700.0)).unwrap().at_least);
    }

    #[test]
    fn one_busy_moment_of_the_sender_does_not_end_the_search() {
        let (mut tries, mut carries) = (0, path(3000.0, 1e9));
        let found = highest(100.0, 0.005, 14, |rate| {
            tries += 1;
            if tries == 2 { Ok((rate / 2.0, 0.0)) } else { carries(rate) }
        });
        let found = found.unwrap();
        assert!(found.rate > 2900.0 && !found.at_least, "{found:?}");
    }

    #[test]
    fn a_dead_path_carries_nothing_and_the_steps_are_bounded() {
        let mut tries = 0;
        let found = highest(100.0, 0.005, 6, |rate| {
            tries += 1;
            Ok((rate, 1.0))
        });
        assert_eq!((found.unwrap().rate, tries), (0.0, 6));
    }
}
