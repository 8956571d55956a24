//! The goals of the project for the data path, as ratios in one run.

use std::fmt;

use crate::bench::catalogue::Path;
use crate::bench::catalogue::tcp_on;
use crate::bench::results::Results;
use crate::bench::stats::short;

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// It is only told.
    Told,
}

/// One goal and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// What is compared.
    pub text: String,
    /// The figure, when it was measured.
    pub value: Option<f64>,
    /// What it has to be.
    pub bound: Bound,
}

impl Goal {
    /// Whether it is met; `None` when it was not measured, or has no bound.
    pub fn met(&self) -> Option<bool> {
        let value = self.value?;
        match self.bound {
            Bound::AtLeast(least) => Some(value >= least),
            Bound::AtMost(most) => Some(value <= most),
            Bound::Told => None,
        }
    }

    /// In a word.
    pub fn verdict(&self) -> &'static str {
        match (self.value, self.met()) {
            (None, _) => "not measured",
            (_, Some(true)) => "MET",
            (_, Some(false)) => "NOT MET",
            (_, None) => "",
        }
    }

    /// What it has to be, in words.
    pub fn wanted(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("at least {}", short(least)),
            Bound::AtMost(most) => format!("at most {}", short(most)),
            Bound::Told => "no bound".to_owned(),
        }
    }

    /// The figure, in words.
    pub fn figure(&self) -> String {
        self.value.map_or_else(|| "-".to_owned(), short)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figure, wanted) = (self.figure(), self.wanted());
        write!(f, "{:<52} {figure:>8}  {wanted:<14} {}", self.text, self.verdict())
    }
}

const QANAH: &str = "qanah";
const BARE: &str = "bare path";
const GO: &str = "wireguard-go";
const GOTATUN: &str = "gotatun";

struct Figures<'a>(&'a Results);

impl Figures<'_> {
    /// Qanah's figure divided by another's.
    fn ratio(&self, other: &str, id: &str) -> Option<f64> {
        Some(self.0.median(QANAH, id)? / self.0.median(other, id)?)
    }

    /// The worse of both directions.
    fn both_ways(&self, other: &str, streams: u32) -> Option<f64> {
        let way = |way| self.ratio(other, &format!("tcp.{streams}.{way}"));
        Some(way("out")?.min(way("back")?))
    }

    fn own(&self, id: &str) -> Option<f64> {
        self.0.median(QANAH, id)
    }
}

/// All goals. Those of other congestion controls than the first are not goals.
pub fn goals(results: &Results, paths: &[Path], congestion: &str) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost, Told};
    let of = Figures(results);
    let goal = |text: &str, value, bound| Goal { text: text.to_owned(), value, bound };
    let relayed = of.own("relay.tcp").zip(of.own("tcp.1.out")).map(|(a, b)| a / b);
    let queue = "path.bottleneck.rtt.load.p99";
    let mut goals = vec![
        goal("TCP, 1 stream, qanah / wireguard-go", of.both_ways(GO, 1), AtLeast(4.0)),
        goal("TCP, 1 stream, qanah / gotatun", of.both_ways(GOTATUN, 1), AtLeast(3.0)),
        goal("TCP, 8 streams, qanah / wireguard-go", of.both_ways(GO, 8), AtLeast(4.0)),
        goal("TCP, 8 streams, qanah / gotatun", of.both_ways(GOTATUN, 8), AtLeast(3.0)),
        goal("TCP, 1 stream, relayed / direct", relayed, AtLeast(0.4)),
        goal("UDP, 1200 bytes, qanah / wireguard-go", of.ratio(GO, "udp.1200"), AtLeast(2.0)),
        goal(
            "round trip, idle, p50, qanah / wireguard-go",
            of.ratio(GO, "rtt.idle.p50"),
            AtMost(1.05),
        ),
        goal(
            "round trip, loaded bottleneck, p99, qanah / bare",
            of.ratio(BARE, queue),
            AtMost(1.3),
        ),
        goal(
            "CPU of the daemons, s/GB, qanah / gotatun",
            of.ratio(GOTATUN, "cpu.daemons"),
            AtMost(0.6),
        ),
        goal("memory, idle, MB", of.own("mem.idle"), AtMost(25.0)),
        goal("memory, peak under load, MB", of.own("mem.peak"), AtMost(60.0)),
        goal("memory grown in a long run, MB", of.own("soak.growth"), AtMost(1.0)),
    ];
    for path in paths.iter().filter(|path| path.rtt == 30) {
        let lossless = path.way.loss == crate::link::Loss::None;
        let bound = if lossless { AtLeast(0.8) } else { Told };
        let text = format!("TCP at {}, qanah / wireguard-go", path.label);
        goals.push(goal(&text, of.ratio(GO, &tcp_on(path, congestion)), bound));
    }
    goals
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::bench::args::Args;
    use crate::bench::catalogue::paths;
    use crate::bench::results::Sheet;

    #[test]
    fn ratios_are_judged() {
        let mut results = Results::default();
        let figures = [
            (QANAH, "tcp.1.out", 1600.0),
            (QANAH, "tcp.1.back", 1200.0),
            (GO, "tcp.1.out", 400.0),
            (GO, "tcp.1.back", 400.0),
            (QANAH, "relay.tcp", 800.0),
            (QANAH, "path.bottleneck.rtt.load.p99", 60.0),
            (BARE, "path.bottleneck.rtt.load.p99", 50.0),
            (QANAH, "path.30ms.1%.tcp.cubic", 2.0),
            (GO, "path.30ms.1%.tcp.cubic", 4.0),
        ];
        for (who, id, value) in figures {
            Sheet::new(&mut results, who, 1).put(id, value, json!({}));
        }
        let paths = paths(&Args::parse_from(["bench"]));
        let goals = goals(&results, &paths, "cubic");
        let found = |text: &str| goals.iter().find(|goal| goal.text.starts_with(text)).unwrap();
        // The way back is the worse one.
        let tcp = found("TCP, 1 stream, qanah / wireguard-go");
        assert_eq!((tcp.value, tcp.met(), tcp.verdict()), (Some(3.0), Some(false), "NOT MET"));
        assert_eq!(found("TCP, 1 stream, qanah / gotatun").verdict(), "not measured");
        assert_eq!(found("TCP, 1 stream, relayed").met(), Some(true));
        let queue = found("round trip, loaded bottleneck");
        assert_eq!((queue.value, queue.verdict()), (Some(1.2), "MET"));
        let lossy = found("TCP at 30 ms, 1 % loss");
        assert_eq!((lossy.value, lossy.met(), lossy.verdict()), (Some(0.5), None, ""));
        assert!(queue.to_string().contains("1.20  at most 1.30   MET"), "{queue}");
    }
}
