//! The results for people: on the terminal, and as the table of the README.

use std::fmt::Write as _;

use crate::bench::catalogue::Measure;
use crate::bench::contender::{Absent, Contender};
use crate::bench::goals::Goal;
use crate::bench::machine::Machine;
use crate::bench::results::Results;
use crate::bench::stats::short;

/// All that a report is made of.
#[derive(Debug)]
pub struct Report<'a> {
    /// Where it was measured.
    pub machine: &'a Machine,
    /// What was built.
    pub commit: &'a str,
    /// How, in a few words.
    pub how: String,
    /// Who was measured.
    pub contenders: &'a [Contender],
    /// Who was not, and why.
    pub absent: &'a [Absent],
    /// What may have been measured.
    pub measures: &'a [Measure],
    /// What came of it.
    pub results: &'a Results,
    /// The goals.
    pub goals: &'a [Goal],
}

impl Report<'_> {
    /// The figure of one cell: the median, and the spread where there were several rounds.
    fn cell(&self, who: &str, id: &str) -> String {
        let Some(summary) = self.results.summary(who, id) else {
            return self.results.absence(who, id).to_owned();
        };
        let mark = if self.results.at_least(who, id) { ">=" } else { "" };
        let median = short(summary.median);
        if summary.count < 2 {
            return format!("{mark}{median}");
        }
        format!("{mark}{median} ({}-{})", short(summary.min), short(summary.max))
    }

    /// Rows of the table: label and cells. What nobody has a figure of is left out.
    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let measured = |m: &&Measure| {
            self.contenders.iter().any(|who| {
                self.results.summary(&who.name, &m.id).is_some()
                    || self.results.absence(&who.name, &m.id) != "-"
            })
        };
        let row = |m: &Measure| {
            let cells = self.contenders.iter().map(|who| self.cell(&who.name, &m.id)).collect();
            (format!("{}, {}", m.label, m.unit), cells)
        };
        self.measures.iter().filter(measured).map(row).collect()
    }

    /// Versions of all, in one line.
    pub fn versions(&self) -> String {
        let told = self.contenders.iter().filter(|who| !who.version.is_empty());
        let mut texts: Vec<_> = told.map(|who| format!("{} {}", who.name, who.version)).collect();
        texts.push(format!("commit {}", self.commit));
        texts.join(", ")
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let names: Vec<_> = self.contenders.iter().map(|who| who.name.clone()).collect();
        let first = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let width = |n: usize| {
            let cells = rows.iter().filter_map(|(_, cells)| cells.get(n));
            cells.chain(names.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..names.len()).map(width).collect();
        let mut out = format!("{}\n{}\n{}\n\n", self.machine.line(), self.versions(), self.how);
        let mut line = |label: &str, cells: &[String]| {
            let _ = write!(out, "{label:first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(out, "  {cell:>width$}");
            }
            out.push('\n');
        };
        line("", &names);
        for (label, cells) in &rows {
            line(label, cells);
        }
        out.push_str(
            "\nGoals (ratios of medians of this run; both ways means the worse of the two)\n",
        );
        for goal in self.goals {
            let _ = writeln!(out, "  {goal}");
        }
        let missing = self.missing();
        if !missing.is_empty() {
            out.push_str("\nWithout a figure\n");
            for line in missing {
                let _ = writeln!(out, "  {line}");
            }
        }
        out
    }

    fn missing(&self) -> Vec<String> {
        let absent = self.absent.iter();
        let mut lines: Vec<_> =
            absent.map(|(n, reason)| format!("skipped: {n}: {reason}")).collect();
        lines.extend(self.results.reasons());
        lines
    }

    /// For the README, in Markdown, with the plot if there is one.
    pub fn markdown(&self, plot: Option<&str>) -> String {
        let mut out = format!("{}. {}. {}.\n\n", self.machine.line(), self.versions(), self.how);
        if let Some(plot) = plot {
            let _ = writeln!(out, "![The figures below as bars]({plot})\n");
        }
        let names: Vec<_> = self.contenders.iter().map(|who| who.name.as_str()).collect();
        let _ = writeln!(out, "| | {} |", names.join(" | "));
        let _ = writeln!(out, "|---|{}", "---:|".repeat(names.len()));
        for (label, cells) in self.rows() {
            let _ = writeln!(out, "| {label} | {} |", cells.join(" | "));
        }
        out.push_str("\n| Goal | measured | wanted | |\n|---|---:|---|---|\n");
        for goal in self.goals {
            let (figure, wanted) = (goal.figure(), goal.wanted());
            let _ = writeln!(out, "| {} | {figure} | {wanted} | {} |", goal.text, goal.verdict());
        }
        let missing = self.missing();
        if !missing.is_empty() {
            out.push_str("\nWithout a figure:\n\n");
            for line in missing {
                let _ = writeln!(out, "- {line}");
            }
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::catalogue::catalogue;
    use crate::bench::contender::Kind;
    use crate::bench::goals::goals;
    use crate::bench::results::Sheet;
    use serde_json::json;

    pub(crate) fn sample(test: impl FnOnce(&Report<'_>)) {
        let mut results = Results::default();
        for (round, rate) in [(1, 1600.0), (2, 1650.0), (3, 1700.0)] {
            Sheet::new(&mut results, "qanah", round).put("tcp.1.out", rate, json!({}));
            let bare = rate * 10.0;
            Sheet::new(&mut results, "bare path", round).put("tcp.1.out", bare, json!({}));
        }
        Sheet::new(&mut results, "qanah", 1).put("udp.120", 7.5, json!({ "at_least": true }));
        Sheet::new(&mut results, "bare path", 1).skip("udp.120", "no <need>");
        let who = |name: &str, kind| Contender {
            name: name.to_owned(),
            version: if kind == Kind::Bare { String::new() } else { "0.1".to_owned() },
            kind,
        };
        let contenders = [who("bare path", Kind::Bare), who("qanah", Kind::Qanah)];
        let machine = Machine {
            cpu: "Some & CPU".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            system: "Debian".to_owned(),
            congestion: vec!["cubic".to_owned()],
        };
        let goals = goals(&results, &[], "cubic");
        let measures = catalogue(&[], &[]);
        let absent = [("gotatun".to_owned(), "does not build".to_owned())];
        test(&Report {
            machine: &machine,
            commit: "abc",
            how: "3 rounds".to_owned(),
            contenders: &contenders,
            absent: &absent,
            measures: &measures,
            results: &results,
            goals: &goals,
        });
    }

    #[test]
    fn tables_have_what_was_measured_and_say_what_was_not() {
        sample(|report| {
            let text = report.text();
            assert!(text.contains("Some & CPU, 2 cores, Linux 6.1"), "{text}");
            let row = text.lines().find(|line| line.starts_with("TCP, 1 stream, out")).unwrap();
            assert!(row.contains("16,500 (16,000-17,000)"), "{row}");
            assert!(row.ends_with("1650 (1600-1700)"), "{row}");
            let row = text.lines().find(|line| line.starts_with("UDP, 120")).unwrap();
            assert!(row.contains("skipped") && row.ends_with(">=7.50"), "{row}");
            assert!(!text.contains("8 streams, back,"), "nobody measured that");
            assert!(text.contains("skipped: gotatun: does not build"), "{text}");
            assert!(text.contains("NOT MET") || text.contains("not measured"), "{text}");
            let markdown = report.markdown(Some("plot.svg"));
            assert!(markdown.contains("| | bare path | qanah |\n|---|---:|---:|\n"));
            assert!(markdown.contains("](plot.svg)") && markdown.contains("qanah 0.1, commit abc"));
        });
    }
}
