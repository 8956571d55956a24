//! What four daemons cost when each has three connected peers and nothing to do.
//!
//! `QANAH_IDLE_SECONDS=60` makes this the measurement of the goals (in a release build); without it
//! a short look guards the memory alone, because a short time on a shared machine says little about
//! the processor.

use anyhow::{Context, Result, ensure};
use qanah_tests::daemon::{Options, figure};
use qanah_tests::lab::in_lab;
use qanah_tests::measure::costs;
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::wait::secs;

/// The goal, in MB (10^6 bytes).
const RSS_MB: f64 = 40.0;
/// Of a build for debugging, which has some 20 MB more of its own code in memory: far from a leak all the same.
const RSS_MB_DEBUG: f64 = 60.0;
/// The goal, in per cent of one processor.
const CPU_PERCENT: f64 = 1.0;

#[test]
fn idle_daemons_cost_little() -> Result<()> {
    let seconds = match std::env::var("QANAH_IDLE_SECONDS") {
        Ok(text) => text.parse().context("QANAH_IDLE_SECONDS")?,
        Err(_) => 10,
    };
    in_lab(4, |lab| {
        let mut mesh = Mesh::prepare(lab)?.options(Options::of(lab).log_level("info"));
        for n in 1..=4 {
            mesh.up(lab, n)?;
        }
        mesh.connected(CONNECT)?;
        mesh.ping_all()?;
        let pids = mesh.daemons.iter().flatten().map(|d| d.pid()).collect::<Vec<_>>();
        let costs = costs(&pids, secs(seconds))?;
        mesh.connected(CONNECT)?;
        for (cost, n) in costs.iter().zip(1..) {
            figure(
                &format!("idle daemon {n} of 4, mean of {seconds} s"),
                format!("CPU {:.2} % of a core, RSS {:.1} MB", cost.cpu_percent, cost.rss_mb),
            );
        }
        for cost in costs {
            ensure!(cost.rss_mb < if seconds < 60 { RSS_MB_DEBUG } else { RSS_MB }, "{cost:?}");
            ensure!(seconds < 60 || cost.cpu_percent < CPU_PERCENT, "{cost:?}");
        }
        Ok(())
    })
}
