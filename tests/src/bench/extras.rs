//! What needs more than two nodes, or more time: memory by peers, relaying, a long run of load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bench::args::Args;
use crate::bench::catalogue::MANY;
use crate::bench::contender::{Contender, Kind, Shape, Site, UP};
use crate::bench::direct::Effort;
use crate::bench::iperf::{self, Run};
use crate::bench::results::Sheet;
use crate::bench::rtt::first_answer;
use crate::conf::inner4;
use crate::lab::{Lab, Underlay};
use crate::measure::resident;
use crate::nat;
use crate::nat::ground::Ground;
use crate::nat::theory::Path;
use crate::wait::secs;

/// How long a relayed path may take to come up; half of it in a quick run.
const RELAYED: Duration = secs(40);

/// Memory of the daemon of node 1 with that many peers, all of them connected.
fn with_peers(who: &Contender, peers: usize, rest: Duration) -> Result<f64> {
    let lab = Lab::new(peers + 1, Underlay::Both)?;
    lab.passed();
    let site = Site::up(&lab, who, Shape::Star)?;
    std::thread::sleep(rest);
    let pid = *site.pids().first().context("no daemon")?;
    Ok(resident(pid)? as f64 / 1e6)
}

/// How much memory a further peer takes.
pub fn memory_by_peers(sheet: &mut Sheet<'_>, who: &Contender, args: &Args, effort: &Effort) {
    if who.kind == Kind::Bare || !args.wants("mem.peer") {
        return;
    }
    let of = |peers| with_peers(who, peers, effort.rest);
    match of(1).and_then(|one| Ok((one, of(MANY)?))) {
        Ok((one, many)) => {
            let per_peer = (many - one) / (MANY - 1) as f64;
            sheet.put("mem.peer", per_peer, json!({ "1": one, "peers": MANY, "many": many }));
        }
        Err(error) => sheet.fail("mem.peer", &error),
    }
}

/// TCP between two peers that reach each other by a third one only. Whether there was such a path.
pub fn relayed(sheet: &mut Sheet<'_>, who: &Contender, args: &Args, effort: &Effort) -> bool {
    if who.kind != Kind::Qanah || !args.wants("relay.tcp") {
        return true;
    }
    let limit = if args.quick { RELAYED / 2 } else { RELAYED };
    match by_relay(who, effort, limit) {
        Ok(Some(transfer)) => {
            let detail = json!({ "retransmits": transfer.retransmits });
            sheet.put("relay.tcp", transfer.mbit, detail);
            true
        }
        Ok(None) => {
            let reason = format!("no relayed path came up within {} s", limit.as_secs());
            sheet.skip("relay.tcp", &reason);
            false
        }
        Err(error) => {
            sheet.fail("relay.tcp", &error);
            false
        }
    }
}

fn by_relay(who: &Contender, effort: &Effort, limit: Duration) -> Result<Option<iperf::Transfer>> {
    let lab = Lab::new(3, Underlay::Both)?;
    lab.passed();
    lab.node(1)?.cut_from(lab.node(3)?)?;
    let mut site = Site::prepare(&lab, who, Shape::Mesh)?;
    for n in 1..=3 {
        site.launch(n)?;
    }
    // Without the two direct paths there is nothing that could relay.
    for n in [1, 3] {
        first_answer(site.place(n)?, &site.address(2)?, UP)?;
    }
    if first_answer(site.place(1)?, &site.address(3)?, limit).is_err() {
        return Ok(None);
    }
    iperf::run(site.place(1)?, site.place(3)?, &site.address(3)?, &effort.transfer()).map(Some)
}

/// TCP between two peers that reach each other by a TURN server only, over each of its carriers.
pub fn by_turn(sheet: &mut Sheet<'_>, who: &Contender, args: &Args, effort: &Effort) {
    if who.kind != Kind::Qanah {
        return;
    }
    for (id, url) in [
        ("turn.udp", "turn:turn.lab:3478"),
        ("turn.tcp", "turn:turn.lab:3478?transport=tcp"),
        ("turn.tls", "turns:turn.lab:443"),
    ] {
        if !args.wants(id) {
            continue;
        }
        match through(url, effort) {
            Ok(transfer) => {
                sheet.put(id, transfer.mbit, json!({ "retransmits": transfer.retransmits }));
            }
            Err(error) => sheet.fail(id, &error),
        }
    }
}

fn through(url: &str, effort: &Effort) -> Result<iperf::Transfer> {
    let ground = Ground::new()?;
    ground.lab.passed();
    let (here, there) = (ground.of_kind(nat::Kind::Open)?, ground.of_kind(nat::Kind::Open)?);
    here.cut_from(&there)?;
    there.cut_from(&here)?;
    let options = ground.servers.options_with(&[url]).log_level("info");
    let group = ground.start("turn", [here, there], options)?;
    group.settles(Path::Turn)?;
    let (from, to) = (group.site(1)?.place(), group.site(2)?.place());
    iperf::run(from, to, &inner4(2), &effort.transfer())
}

/// How much the memory of the daemons grows between the end of the first minute of load and the end.
pub fn soak(sheet: &mut Sheet<'_>, who: &Contender, args: &Args, effort: &Effort) {
    let minutes = args.soak();
    if minutes == 0 || who.kind != Kind::Qanah || !args.wants("soak") {
        return;
    }
    println!("{}: {minutes} minutes of load", who.name);
    if let Err(error) = under_load(sheet, who, effort, minutes) {
        sheet.fail("soak.growth", &error);
    }
}

fn under_load(sheet: &mut Sheet<'_>, who: &Contender, effort: &Effort, minutes: u32) -> Result<()> {
    let lab = Lab::new(2, Underlay::Both)?;
    lab.passed();
    let site = Site::up(&lab, who, Shape::Mesh)?;
    let (from, to, address) = (site.place(1)?, site.place(2)?, site.address(2)?);
    let run = Run { seconds: minutes * 60, ..effort.transfer() };
    let load = std::thread::spawn(move || iperf::run(from, to, &address, &run));
    let (start, mut course) = (Instant::now(), Vec::new());
    while !load.is_finished() {
        let sizes = site.pids().into_iter().map(resident).collect::<Result<Vec<_>>>()?;
        let largest = sizes.into_iter().max().context("no daemon")? as f64 / 1e6;
        course.push((start.elapsed().as_secs(), largest));
        std::thread::sleep(secs(1));
    }
    let transfer = load.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    let settled: Vec<_> = course.iter().filter(|(at, _)| *at >= 60).collect();
    ensure!(settled.len() > 1, "less than a minute of load");
    let ends = settled.first().zip(settled.last()).context("no figures")?;
    let growth = ends.1.1 - ends.0.1;
    let every: Vec<_> = course.iter().step_by(10).collect();
    sheet.put(
        "soak.growth",
        growth,
        json!({ "minutes": minutes, "mbit": transfer.mbit, "rss_mb_by_second": every }),
    );
    Ok(())
}
