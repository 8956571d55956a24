//! Waiting for a condition, with a clear word about what did not come.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(40);

/// Short for [`Duration::from_secs`].
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Tries `check` until it succeeds, and returns what it gave and how long that took.
///
/// # Errors
/// When `limit` has passed: the text names `what` and the last reason why it was not so.
pub fn eventually_timed<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(found) => return Ok((found, start.elapsed())),
            Err(reason) if start.elapsed() >= limit => {
                return Err(anyhow!("not within {limit:?}: {what}; last seen: {reason:#}"));
            }
            Err(_) => sleep(STEP),
        }
    }
}

/// Tries `check` until it succeeds, and returns what it gave.
///
/// # Errors
/// As [`eventually_timed`].
pub fn eventually<T>(what: &str, limit: Duration, check: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_timed(what, limit, check).map(|(found, _)| found)
}

/// Measures until a measurement is as it must be, three times at most: what a busy machine spoils
/// once it does not spoil thrice, and what is wrong is so every time.
///
/// # Errors
/// That of the last measurement.
pub fn within_three_tries<T>(mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    for n in 1..3 {
        match measure() {
            Ok(found) => return Ok(found),
            Err(reason) => println!("try {n}: {reason:#}"),
        }
    }
    measure()
}

/// Looks at `check` for the whole of `span` and wants it to succeed every time: for what must not
/// happen.
///
/// # Errors
/// The first failure of `check`.
pub fn always(what: &str, span: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        check()
            .map_err(|reason| anyhow!("not so after {:?}: {what}: {reason:#}", start.elapsed()))?;
        sleep(STEP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn eventually_names_what_it_waited_for_and_what_it_saw_last() {
        let mut tries = 0;
        let (found, _) = eventually_timed("three tries", secs(5), || {
            tries += 1;
            ensure!(tries == 3, "only {tries}");
            Ok(tries)
        })
        .unwrap();
        assert_eq!(found, 3);
        let error =
            eventually("rain", Duration::ZERO, || -> Result<()> { Err(anyhow!("sunshine")) });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("sunshine"), "{text}");
    }

    #[test]
    fn three_tries_are_no_more() {
        let mut tries = 0;
        let mut measure = |wanted| {
            tries += 1;
            ensure!(tries == wanted, "try {tries}");
            Ok(tries)
        };
        assert_eq!(within_three_tries(|| measure(3)).unwrap(), 3);
        assert_eq!(within_three_tries(|| measure(4)).unwrap(), 4);
        assert_eq!(within_three_tries(|| measure(9)).unwrap_err().to_string(), "try 7");
    }

    #[test]
    fn always_ends_at_the_first_failure() {
        let mut looks = 0;
        let result = always("two looks", secs(5), || {
            looks += 1;
            ensure!(looks < 2, "a third");
            Ok(())
        });
        assert!(result.is_err());
        assert_eq!(looks, 2);
    }
}
