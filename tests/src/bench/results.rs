//! What was measured so far.

use anyhow::Error;
use serde_json::{Value, json};

use crate::bench::stats::Summary;

/// One figure of one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of whom.
    pub contender: String,
    /// Of what.
    pub measure: String,
    /// In which round.
    pub round: u32,
    /// The figure.
    pub value: f64,
    /// What else is known of it.
    pub detail: Value,
}

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of whom.
    pub contender: String,
    /// Of what.
    pub measure: String,
    /// In which round.
    pub round: u32,
    /// Whether it was tried.
    pub failed: bool,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Results {
    /// The figures, in the order of time.
    pub samples: Vec<Sample>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl Results {
    /// The median and spread of the rounds.
    pub fn summary(&self, contender: &str, measure: &str) -> Option<Summary> {
        let fits = |s: &&Sample| s.contender == contender && s.measure == measure;
        Summary::of(&self.samples.iter().filter(fits).map(|s| s.value).collect::<Vec<_>>())
    }

    /// The median of the rounds.
    pub fn median(&self, contender: &str, measure: &str) -> Option<f64> {
        self.summary(contender, measure).map(|summary| summary.median)
    }

    /// Whether a figure is only a lower bound: the generator could do no more.
    pub fn at_least(&self, contender: &str, measure: &str) -> bool {
        let mut of = self.samples.iter();
        of.any(|s| {
            s.contender == contender
                && s.measure == measure
                && s.detail.get("at_least") == Some(&Value::Bool(true))
        })
    }

    /// Why there is no figure, in a word for the table.
    pub fn absence(&self, contender: &str, measure: &str) -> &'static str {
        let fits = |m: &&Missing| m.contender == contender && m.measure == measure;
        match self.missing.iter().find(fits) {
            Some(missing) if missing.failed => "failed",
            Some(_) => "skipped",
            None => "-",
        }
    }

    /// The reasons, the same one once: `who: what: why`.
    pub fn reasons(&self) -> Vec<String> {
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for missing in &self.missing {
            let word = if missing.failed { "failed" } else { "skipped" };
            let line = format!("{word}: {}: {}", missing.contender, missing.reason);
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, measures)) => measures.push(&missing.measure),
                None => lines.push((line, vec![&missing.measure])),
            }
        }
        let text = |(line, mut measures): (String, Vec<&str>)| {
            measures.dedup();
            format!("{line} [{}]", measures.join(", "))
        };
        lines.into_iter().map(text).collect()
    }

    /// All raw figures.
    pub fn json(&self) -> Value {
        let sample = |s: &Sample| {
            json!({
                "contender": s.contender, "measure": s.measure, "round": s.round,
                "value": s.value, "detail": s.detail,
            })
        };
        let missing = |m: &Missing| {
            json!({
                "contender": m.contender, "measure": m.measure, "round": m.round,
                "failed": m.failed, "reason": m.reason,
            })
        };
        json!({
            "samples": self.samples.iter().map(sample).collect::<Vec<_>>(),
            "missing": self.missing.iter().map(missing).collect::<Vec<_>>(),
        })
    }
}

/// Where figures of one contender in one round go.
#[derive(Debug)]
pub struct Sheet<'a> {
    results: &'a mut Results,
    contender: String,
    round: u32,
}

impl<'a> Sheet<'a> {
    /// For this contender and round.
    pub fn new(results: &'a mut Results, contender: &str, round: u32) -> Self {
        Self { results, contender: contender.to_owned(), round }
    }

    /// A figure.
    pub fn put(&mut self, measure: &str, value: f64, detail: Value) {
        self.results.samples.push(Sample {
            contender: self.contender.clone(),
            measure: measure.to_owned(),
            round: self.round,
            value,
            detail,
        });
    }

    /// No figure: it was not tried.
    pub fn skip(&mut self, measure: &str, reason: &str) {
        self.miss(measure, false, reason);
    }

    /// No figure: it was tried.
    pub fn fail(&mut self, measure: &str, error: &Error) {
        // The chain of causes in one line, without the backtrace.
        let line = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
        println!("    {measure} failed: {line}");
        self.miss(measure, true, &line.chars().take(300).collect::<String>());
    }

    fn miss(&mut self, measure: &str, failed: bool, reason: &str) {
        self.results.missing.push(Missing {
            contender: self.contender.clone(),
            measure: measure.to_owned(),
            round: self.round,
            failed,
            reason: reason.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_summed_up_and_what_is_missing_is_told() {
        let mut results = Results::default();
        for (round, value) in [(1, 3.0), (2, 9.0), (3, 4.0)] {
            Sheet::new(&mut results, "qanah", round).put("tcp", value, json!({}));
        }
        let mut sheet = Sheet::new(&mut results, "bare", 1);
        sheet.put("udp", 1.0, json!({ "at_least": true }));
        sheet.skip("mem", "no daemon");
        sheet.skip("cpu", "no daemon");
        sheet.fail("rtt", &anyhow::anyhow!("a\n  b").context("c"));
        let summary = results.summary("qanah", "tcp").unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (4.0, 3.0, 9.0));
        assert_eq!(results.summary("bare", "tcp"), None);
        assert!(results.at_least("bare", "udp") && !results.at_least("qanah", "tcp"));
        let words = ["mem", "rtt", "tcp"].map(|measure| results.absence("bare", measure));
        assert_eq!(words, ["skipped", "failed", "-"]);
        let reasons = results.reasons();
        assert_eq!(reasons, ["skipped: bare: no daemon [mem, cpu]", "failed: bare: c: a b [rtt]"]);
        let json = results.json();
        assert_eq!(json.pointer("/samples/1/value"), Some(&json!(9.0)));
        assert_eq!(json.pointer("/missing/2/failed"), Some(&json!(true)));
    }
}
