//! What can be measured: names, units, and the emulated paths.

use std::time::Duration;

use crate::bench::args::Args;
use crate::link::{Queue, Way};

/// Something that is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Its name, as `--only` and the raw figures have it.
    pub id: String,
    /// As the table has it.
    pub label: String,
    /// Unit.
    pub unit: &'static str,
}

/// An emulated path: the same in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Its name, a part of those of its measurements.
    pub id: String,
    /// As the table has it.
    pub label: String,
    /// Round-trip time in milliseconds.
    pub rtt: u32,
    /// What the link does.
    pub way: Way,
    /// A bottleneck is measured under load as well.
    pub bottleneck: bool,
}

/// The rate of the bottleneck, in bits a second.
pub const BOTTLENECK: u64 = 20_000_000;
/// Its buffer.
pub const BUFFER: Duration = Duration::from_millis(50);
/// Peers of a daemon whose memory is compared with that of one peer.
pub const MANY: usize = 6;

fn delayed(rtt: u32, per_mille: u32) -> Path {
    let way = Way::delayed(Duration::from_micros(u64::from(rtt) * 500));
    let loss = f64::from(per_mille) / 1000.0;
    let percent = f64::from(per_mille) / 10.0;
    Path {
        id: format!("path.{rtt}ms.{percent}%"),
        label: format!("{rtt} ms, {percent} % loss"),
        rtt,
        way: if per_mille == 0 { way } else { way.lossy(loss) },
        bottleneck: false,
    }
}

fn bottleneck() -> Path {
    Path {
        id: "path.bottleneck".to_owned(),
        label: "20 Mbit/s, 50 ms of buffer".to_owned(),
        rtt: 0,
        way: Way::default().rated(BOTTLENECK, Queue::Time(BUFFER)),
        bottleneck: true,
    }
}

/// The paths of a run, those that lose last: what they leave behind in a tunnel harms no other.
pub fn paths(args: &Args) -> Vec<Path> {
    let delays: &[(u32, u32)] = if args.full {
        &[
            (10, 0),
            (30, 0),
            (100, 0),
            (10, 1),
            (30, 1),
            (100, 1),
            (10, 10),
            (30, 10),
            (100, 10),
            (10, 30),
            (30, 30),
            (100, 30),
        ]
    } else if args.quick {
        &[(30, 0), (30, 10)]
    } else {
        &[(10, 0), (30, 0), (100, 0), (30, 1), (30, 10)]
    };
    let mut paths = vec![bottleneck()];
    paths.extend(delays.iter().map(|(rtt, loss)| delayed(*rtt, *loss)));
    paths
}

/// The name of the TCP rate on a path.
pub fn tcp_on(path: &Path, congestion: &str) -> String {
    format!("{}.tcp.{congestion}", path.id)
}

/// All that a run may measure, in the order of the table.
pub fn catalogue(paths: &[Path], congestion: &[String]) -> Vec<Measure> {
    let fixed = [
        ("tcp.1.out", "TCP, 1 stream, out", "Mbit/s"),
        ("tcp.1.back", "TCP, 1 stream, back", "Mbit/s"),
        ("tcp.8.out", "TCP, 8 streams, out", "Mbit/s"),
        ("tcp.8.back", "TCP, 8 streams, back", "Mbit/s"),
        ("relay.tcp", "TCP, 1 stream, by a third peer", "Mbit/s"),
        ("turn.udp", "TCP, 1 stream, by TURN over UDP", "Mbit/s"),
        ("turn.tcp", "TCP, 1 stream, by TURN over TCP", "Mbit/s"),
        ("turn.tls", "TCP, 1 stream, by TURN over TLS", "Mbit/s"),
        ("udp.1200", "UDP, 1200 bytes, < 0.5 % lost", "Mbit/s"),
        ("udp.120", "UDP, 120 bytes, < 0.5 % lost", "Mbit/s"),
        ("rtt.idle.p50", "round trip, idle, p50", "ms"),
        ("rtt.idle.p99", "round trip, idle, p99", "ms"),
        ("rtt.load.p50", "round trip, under load, p50", "ms"),
        ("rtt.load.p99", "round trip, under load, p99", "ms"),
        ("cpu.daemons", "CPU of both daemons", "s/GB"),
        ("cpu.machine", "CPU of the whole machine", "s/GB"),
        ("mem.idle", "memory of a daemon, idle", "MB"),
        ("mem.load", "memory after load", "MB"),
        ("mem.peak", "memory, peak under load", "MB"),
        ("mem.peer", "memory per further peer", "MB"),
        ("connect", "start to first ping", "s"),
    ];
    let measure =
        |id: &str, label: &str, unit| Measure { id: id.to_owned(), label: label.to_owned(), unit };
    let mut all: Vec<_> = fixed.iter().map(|(id, label, unit)| measure(id, label, unit)).collect();
    for path in paths {
        for kind in congestion {
            let label = format!("{}: TCP ({kind})", path.label);
            all.push(measure(&tcp_on(path, kind), &label, "Mbit/s"));
        }
        let kinds: &[&str] = if path.bottleneck { &["idle", "load"] } else { &["idle"] };
        for kind in kinds {
            for part in ["p50", "p99"] {
                let label = format!("{}: round trip, {kind}, {part}", path.label);
                all.push(measure(&format!("{}.rtt.{kind}.{part}", path.id), &label, "ms"));
            }
        }
    }
    all.push(measure("soak.growth", "memory grown in a long run of load", "MB"));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    #[test]
    fn names_are_unique_and_paths_are_what_they_are_called() {
        let both = ["cubic".to_owned(), "bbr".to_owned()];
        for line in ["bench", "bench --quick", "bench --full"] {
            let paths = paths(&Args::parse_from(line.split(' ')));
            let all = catalogue(&paths, &both);
            let ids: BTreeSet<_> = all.iter().map(|measure| measure.id.as_str()).collect();
            assert_eq!(ids.len(), all.len());
            // The goals need these.
            for id in
                ["path.30ms.0%.tcp.cubic", "path.30ms.1%.tcp.bbr", "path.bottleneck.rtt.load.p99"]
            {
                assert!(ids.contains(id), "{line}: no {id}");
            }
        }
        let path = delayed(30, 1);
        assert_eq!((path.id.as_str(), path.way.delay.as_millis()), ("path.30ms.0.1%", 15));
        assert_eq!(path.way.loss, crate::link::Loss::Random(0.001));
    }
}
