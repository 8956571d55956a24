//! The benchmark: Qanah beside other tunnels, on this machine, in one run. See `tests/bench --help`.
//!
//! Every contender gets a new lab of two nodes in every round, first with the path as it is and then
//! with an emulated one ([`crate::link`]), and all are measured in turns, so that what the machine
//! does meanwhile meets all alike. TCP is measured by iperf3, round trips by ping, UDP by
//! [`crate::udp`]. Whatever is slow or fails is told and does not end the run.

pub mod args;
pub mod catalogue;
pub mod contender;
pub mod direct;
pub mod emulated;
pub mod extras;
pub mod goals;
pub mod iperf;
pub mod machine;
pub mod readme;
pub mod report;
pub mod results;
pub mod rtt;
pub mod search;
pub mod stats;
pub mod svg;

use std::fs;
use std::path::Path as File;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use args::Args;
use catalogue::{Path, catalogue, paths};
use contender::{Contender, discover};
use direct::Effort;
use goals::{Goal, goals};
use machine::Machine;
use report::Report;
use results::{Results, Sheet};

/// The plot beside the README's table.
const PLOT: &str = "tests/bench.svg";

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When nothing can be measured at all, or a file cannot be written. Never because of a figure.
pub fn run(args: &Args) -> Result<()> {
    let machine = Machine::here();
    let congestion = args.congestion(&machine.congestion);
    ensure!(
        !congestion.is_empty(),
        "the kernel has none of the wanted kinds of congestion control, but {}",
        machine.congestion.join(", ")
    );
    let paths = paths(args);
    let measures = catalogue(&paths, &congestion);
    if args.list {
        measures.iter().for_each(|m| println!("{:<32} {}, {}", m.id, m.label, m.unit));
        return Ok(());
    }
    ensure!(nix::unistd::geteuid().is_root(), "namespaces need root: use tests/bench");
    let (contenders, absent) = discover(args)?;
    let effort = Effort::of(args, congestion.clone());
    let start = Instant::now();
    let results = measure(&contenders, args, &effort, &paths);
    let goals = goals(&results, &paths, &effort.main_congestion());
    let report = Report {
        machine: &machine,
        commit: &args.commit,
        how: how(args, &congestion, &machine, start),
        contenders: &contenders,
        absent: &absent,
        measures: &measures,
        results: &results,
        goals: &goals,
    };
    println!("\n=== Results\n{}", report.text());
    write(args, &report)
}

fn how(args: &Args, congestion: &[String], machine: &Machine, start: Instant) -> String {
    let rounds = args.rounds();
    let kind = if args.quick { "quick, " } else { "" };
    format!(
        "{kind}{rounds} round{}, {} s a transfer, TCP {} (the kernel has {}), measured in {} min",
        if rounds == 1 { "" } else { "s" },
        args.seconds(),
        congestion.join(" and "),
        machine.congestion.join(", "),
        start.elapsed().as_secs().div_ceil(60)
    )
}

fn measure(contenders: &[Contender], args: &Args, effort: &Effort, paths: &[Path]) -> Results {
    let mut results = Results::default();
    let start = Instant::now();
    let mut relays = true;
    for round in 1..=args.rounds() {
        for who in contenders {
            let spent = start.elapsed().as_secs();
            println!("round {round} of {}: {} (at {spent} s)", args.rounds(), who.name);
            let mut sheet = Sheet::new(&mut results, &who.name, round);
            if let Err(error) = direct::measure(&mut sheet, who, args, effort) {
                sheet.fail("direct path", &error);
            }
            if let Err(error) = emulated::measure(&mut sheet, who, args, effort, paths) {
                sheet.fail("emulated paths", &error);
            }
            // Nobody waits again for what did not come.
            relays = relays && extras::relayed(&mut sheet, who, args, effort);
            extras::by_turn(&mut sheet, who, args, effort);
        }
    }
    for who in contenders {
        let mut sheet = Sheet::new(&mut results, &who.name, 1);
        extras::memory_by_peers(&mut sheet, who, args, effort);
        extras::soak(&mut sheet, who, args, effort);
    }
    results
}

fn write(args: &Args, report: &Report<'_>) -> Result<()> {
    let save = |path: &File, text: &str| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&raw(args, report))?;
        save(path, &format!("{text}\n"))?;
    }
    if let Some(path) = &args.svg {
        save(path, &svg::svg(report))?;
    }
    let table = |path: &File, plot| {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(shown)?;
        save(path, &readme::replaced(&text, &report.markdown(plot)).with_context(shown)?)
    };
    if args.readme {
        save(&args.root.join(PLOT), &svg::svg(report))?;
        table(&args.root.join("README.md"), Some(PLOT))?;
    }
    args.readme_file.iter().try_for_each(|path| table(path, None))
}

/// All figures of all rounds.
fn raw(args: &Args, report: &Report<'_>) -> Value {
    let goal = |goal: &Goal| json!({ "goal": goal.text, "value": goal.value, "wanted": goal.wanted(), "met": goal.met() });
    let who = |who: &Contender| json!({ "name": who.name, "version": who.version });
    let measure = |m: &catalogue::Measure| json!({ "id": m.id, "label": m.label, "unit": m.unit });
    let absent =
        report.absent.iter().map(|(name, reason)| json!({ "name": name, "reason": reason }));
    json!({
        "machine": report.machine.json(),
        "commit": args.commit,
        "how": report.how,
        "contenders": report.contenders.iter().map(who).collect::<Vec<_>>(),
        "absent": absent.collect::<Vec<_>>(),
        "measures": report.measures.iter().map(measure).collect::<Vec<_>>(),
        "goals": report.goals.iter().map(goal).collect::<Vec<_>>(),
        "results": report.results.json(),
    })
}
