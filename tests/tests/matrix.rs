//! Every pair of networks connects by the best path there is.
//!
//! By default a third of the cells is run, drawn by the commit; `tests/run --matrix` runs all.

use std::fmt::Display;

use anyhow::{Result, anyhow, ensure};
use qanah_tests::nat::draw::Draw;
use qanah_tests::nat::ground::Ground;
use qanah_tests::nat::matrix::{Outcome, all};
use qanah_tests::nat::servers::Servers;
use qanah_tests::nat::table::render;
use qanah_tests::nat::theory;
use qanah_tests::nat::{Family, Kind, Site};

/// Runs the cells of a table that are drawn, prints it, and fails where one is not as it should be.
fn table<R: Display + Copy + Send + Sync, C: Display + Copy + Send + Sync>(
    title: &str,
    rows: &[R],
    columns: &[C],
    draw: &Draw,
    run: impl Fn(R, C) -> Result<Outcome> + Sync,
) -> Result<()> {
    let drawn = draw.cells(rows, columns);
    let mut jobs = Vec::new();
    for (row, runs) in rows.iter().zip(&drawn) {
        let runs = columns.iter().zip(runs).filter(|(_, runs)| **runs);
        jobs.extend(runs.map(|(column, _)| (*row, *column)));
    }
    let started = std::time::Instant::now();
    let mut done = all(jobs.clone(), |(row, column)| run(row, column))?.into_iter();
    let mut failures = Vec::new();
    let mut cell = |row: &R, column: &C| {
        Some(match done.next()? {
            Ok(outcome) => format!("{} {:.1} s", outcome.path, outcome.time.as_secs_f64()),
            Err(error) => {
                failures.push(format!("{row} to {column}: {error:#}"));
                "FAILED".to_owned()
            }
        })
    };
    let mut cells = Vec::new();
    for (row, runs) in rows.iter().zip(&drawn) {
        let of_row = columns.iter().zip(runs);
        let of_row = of_row.map(|(column, runs)| if *runs { cell(row, column) } else { None });
        cells.push(of_row.collect::<Vec<_>>());
    }
    let title = format!(
        "{title} ({}; {} cells in {:.0} s)",
        draw.name,
        jobs.len(),
        started.elapsed().as_secs_f64()
    );
    println!("{}", render(&title, rows, columns, &cells));
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// No kind is trusted that the probe does not find to be what it is called.
fn examine_kinds(ground: &Ground) -> Result<()> {
    let found = all(Kind::ALL.to_vec(), |kind| {
        let site = ground.of_kind(kind)?;
        let found = ground.servers.probe.examine(&site)?;
        ensure!(found == theory::behaviour(kind), "{kind} is: {found}");
        let preserves = found.udp.is_some_and(|udp| udp.translated) && kind != Kind::Symmetric;
        if preserves {
            let survives = ground.servers.probe.survives_unsolicited(&site)?;
            ensure!(survives, "{kind}: a packet that nobody asked for changes the mapping");
        }
        Ok(found)
    })?;
    for (kind, found) in Kind::ALL.iter().zip(found) {
        println!("{kind:12} {}", found.map_err(|error| anyhow!("{kind}: {error:#}"))?);
    }
    Ok(())
}

/// Who peers relay for, where there is no TURN.
const HARD: [Kind; 3] = [Kind::PortRestricted, Kind::Symmetric, Kind::CarrierGrade];

#[test]
fn a_cell_that_was_asked_for_is_in_a_table() -> Result<()> {
    let draw = Draw::from_environment();
    let tables = [
        draw.cells(&Kind::ALL, &Kind::ALL),
        draw.cells(&HARD, &HARD),
        draw.cells(&Family::ALL, &Family::ALL),
    ];
    ensure!(tables.iter().flatten().flatten().any(|runs| *runs), "no table has {}", draw.name);
    Ok(())
}

#[test]
fn every_pair_of_networks_connects_by_the_best_path() -> Result<()> {
    let ground = Ground::new()?;
    examine_kinds(&ground)?;
    let draw = Draw::from_environment();
    let title = "Path and time to the first ping, with STUN and TURN; rows offer";
    table(title, &Kind::ALL, &Kind::ALL, &draw, |a, b| {
        let sites = [ground.of_kind(a)?, ground.of_kind(b)?];
        ground.by_turn(&format!("{a}-{b}"), sites, theory::with_turn(a, b))
    })?;
    ensure!(draw.is_one_cell() || ground.servers.turn.made() > 0, "nobody used the TURN server");
    ground.lab.passed();
    Ok(())
}

#[test]
fn where_no_hole_can_be_punched_a_peer_relays() -> Result<()> {
    let ground = Ground::new()?;
    let title = "The same with a third peer and no TURN";
    table(title, &HARD, &HARD, &Draw::from_environment(), |a, b| {
        ground.by_peer(&format!("{a}-{b}"), [a, b], theory::with_relay(a, b))
    })?;
    ground.lab.passed();
    Ok(())
}

#[test]
fn address_families_meet_and_ipv6_comes_first() -> Result<()> {
    let ground = Ground::new()?;
    let title = "Path and time to the first ping, by the addresses that the peers have";
    table(title, &Family::ALL, &Family::ALL, &Draw::from_environment(), |a, b| {
        let site = |family| ground.site(|lab, number| Site::bare(lab, number, family));
        let sites = [site(a)?, site(b)?];
        let options = Servers::over_ipv6(ground.servers.options_with_turn());
        let outcome = ground.pair(&format!("{a}-{b}"), sites, options, theory::between(a, b))?;
        if (a, b) == (Family::Dual, Family::Dual) {
            ensure!(outcome.detail.contains("[fd31:9::"), "not IPv6: {}", outcome.detail);
        }
        Ok(outcome)
    })?;
    ground.lab.passed();
    Ok(())
}
