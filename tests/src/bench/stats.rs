//! Medians, spreads and percentiles.

/// What several rounds gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

impl Summary {
    /// Of these values; what is not a number is left out. `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let high = *sorted.get(sorted.len() / 2)?;
        let low = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(low, high), min, max, count: sorted.len() })
    }
}

/// The value that `percent` of all values do not exceed (nearest rank). `None` of none.
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A number with three significant digits, and with separators from ten thousand on.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if !value.is_finite() => return "-".to_owned(),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if size < 9999.5 {
        return text;
    }
    let digits = text.trim_start_matches('-');
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[f64::NAN]), None);
        let of = |values: &[f64]| Summary::of(values).unwrap();
        assert_eq!(of(&[3.0]), Summary { median: 3.0, min: 3.0, max: 3.0, count: 1 });
        assert_eq!(of(&[9.0, 1.0, 2.0]), Summary { median: 2.0, min: 1.0, max: 9.0, count: 3 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]).median, 3.0);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&values, 100), Some(200.0));
        assert_eq!(percentile(&values, 0), Some(1.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0.000"),
            (0.1234, "0.123"),
            (1.236, "1.24"),
            (12.36, "12.4"),
            (123.6, "124"),
            (1234.5, "1234"),
            (15_812.3, "15,812"),
            (1_234_567.0, "1,234,567"),
            (-15_812.0, "-15,812"),
            (f64::NAN, "-"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
