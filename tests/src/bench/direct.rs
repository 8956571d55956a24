//! What is measured on the path of the lab as it is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bench::args::Args;
use crate::bench::contender::{Contender, Kind, Shape, Site, UP};
use crate::bench::iperf::{self, Run, Transfer};
use crate::bench::machine::busy_ticks;
use crate::bench::results::Sheet;
use crate::bench::rtt::{first_answer, series};
use crate::bench::search::highest;
use crate::lab::{Lab, Underlay};
use crate::measure::{clock_rate, cpu_time, peak, reset_peak, resident};
use crate::udp::{Stream, stream};

/// The loss at which a rate of UDP is too high.
pub const UDP_LOSS: f64 = 0.005;

/// How much of everything a run does.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Seconds of a TCP transfer.
    pub seconds: u32,
    /// Congestion control, the main one first.
    pub congestion: Vec<String>,
    /// Length and number of tries at a rate of UDP.
    pub udp: (Duration, usize),
    /// Pings of an idle path.
    pub pings: u32,
    /// How long a daemon rests before it counts as idle.
    pub rest: Duration,
}

impl Effort {
    /// As the command line asks for.
    pub fn of(args: &Args, congestion: Vec<String>) -> Self {
        let ms = Duration::from_millis;
        Self {
            seconds: args.seconds(),
            congestion,
            udp: if args.quick { (ms(300), 6) } else { (ms(500), 9) },
            pings: if args.quick { 60 } else { 200 },
            rest: if args.quick { ms(1000) } else { ms(2000) },
        }
    }

    /// The congestion control of all but the paths.
    pub fn main_congestion(&self) -> String {
        self.congestion.first().cloned().unwrap_or_else(|| "cubic".to_owned())
    }

    /// A transfer of one stream.
    pub fn transfer(&self) -> Run {
        Run {
            streams: 1,
            back: false,
            seconds: self.seconds,
            omit: 0,
            congestion: self.main_congestion(),
        }
    }
}

/// How long node 1 is up before node 2 starts.
const BEFORE: Duration = Duration::from_millis(1500);
/// Time between pings.
const GAP: Duration = Duration::from_millis(10);

/// What is measured here.
const GROUPS: [&str; 14] = [
    "connect",
    "mem.idle",
    "mem.load",
    "mem.peak",
    "rtt.idle",
    "rtt.load",
    "cpu.daemons",
    "cpu.machine",
    "udp.1200",
    "udp.120",
    "tcp.1.out",
    "tcp.1.back",
    "tcp.8.out",
    "tcp.8.back",
];

/// All measurements of one contender on the direct path.
///
/// # Errors
/// When the tunnel does not come up, which leaves nothing to measure.
pub fn measure(sheet: &mut Sheet<'_>, who: &Contender, args: &Args, effort: &Effort) -> Result<()> {
    if !GROUPS.iter().any(|group| args.wants(group)) {
        return Ok(());
    }
    let lab = Lab::new(2, Underlay::Both)?;
    lab.passed();
    let mut site = Site::prepare(&lab, who, Shape::Mesh)?;
    let seconds = connect(&mut site, who)?;
    if who.kind != Kind::Bare && args.wants("connect") {
        sheet.put("connect", seconds, json!({}));
    }
    let pids = site.pids();
    let most = |of: fn(u32) -> Result<u64>| -> Result<f64> {
        let sizes = pids.iter().map(|pid| of(*pid)).collect::<Result<Vec<_>>>()?;
        Ok(sizes.into_iter().max().unwrap_or(0) as f64 / 1e6)
    };
    if !pids.is_empty() && args.wants("mem.idle") {
        std::thread::sleep(effort.rest);
        sheet.put("mem.idle", most(resident)?, json!({}));
    }
    if args.wants("rtt.idle") {
        idle(sheet, &site, effort, "rtt.idle")?;
    }
    pids.iter().try_for_each(|pid| reset_peak(*pid))?;
    tcp(sheet, &site, args, effort)?;
    for (id, payload, start) in [("udp.1200", 1200, 100e6), ("udp.120", 120, 10e6)] {
        if args.wants(id)
            && let Err(error) = udp(sheet, &site, effort, id, payload, start)
        {
            sheet.fail(id, &error);
        }
    }
    if args.wants("rtt.load") {
        let run = Run { seconds: effort.seconds.max(2), ..effort.transfer() };
        loaded(sheet, &site, &run, "rtt.load", None)?;
    }
    if !pids.is_empty() && args.wants("mem") {
        sheet.put("mem.load", most(resident)?, json!({}));
        sheet.put("mem.peak", most(peak)?, json!({}));
    }
    Ok(())
}

/// Starts node 1, then node 2, and measures from that start to the first ping that is answered.
fn connect(site: &mut Site<'_>, who: &Contender) -> Result<f64> {
    site.launch(1)?;
    site.ready(1)?;
    if who.kind != Kind::Bare {
        // Node 1 shall not be busy with its own start.
        std::thread::sleep(BEFORE);
    }
    let start = Instant::now();
    site.launch(2)?;
    first_answer(site.place(2)?, &site.address(1)?, UP)?;
    Ok(start.elapsed().as_secs_f64())
}

/// A transfer between nodes 1 and 2, what it cost, and how long it took.
fn transfer(site: &Site<'_>, run: &Run) -> Result<(Transfer, Cost)> {
    let pids = site.pids();
    let spent = || pids.iter().map(|pid| cpu_time(*pid)).sum::<Result<Duration>>();
    let (own, all) = (spent()?, busy_ticks()?);
    let transfer = iperf::run(site.place(1)?, site.place(2)?, &site.address(2)?, run)?;
    let gigabytes = transfer.bytes / 1e9;
    ensure!(gigabytes > 0.0, "nothing was transferred");
    let daemons = spent()?.saturating_sub(own).as_secs_f64() / gigabytes;
    let machine = busy_ticks()?.saturating_sub(all) as f64 / clock_rate()? / gigabytes;
    Ok((transfer, Cost { daemons, machine }))
}

/// Seconds on a processor for 10^9 bytes.
struct Cost {
    daemons: f64,
    machine: f64,
}

fn detail(transfer: &Transfer) -> serde_json::Value {
    json!({
        "bytes": transfer.bytes,
        "retransmits": transfer.retransmits,
        "mbit_by_second": transfer.course,
    })
}

fn tcp(sheet: &mut Sheet<'_>, site: &Site<'_>, args: &Args, effort: &Effort) -> Result<()> {
    for (id, streams, back) in [
        ("tcp.1.out", 1, false),
        ("tcp.1.back", 1, true),
        ("tcp.8.out", 8, false),
        ("tcp.8.back", 8, true),
    ] {
        let costs = streams == 1 && !back;
        let wanted = args.wants(id) || (costs && args.wants("cpu"));
        if !wanted {
            continue;
        }
        match transfer(site, &Run { streams, back, ..effort.transfer() }) {
            Ok((transfer, cost)) => {
                sheet.put(id, transfer.mbit, detail(&transfer));
                if costs {
                    sheet.put("cpu.machine", cost.machine, json!({}));
                }
                if costs && !site.pids().is_empty() {
                    sheet.put("cpu.daemons", cost.daemons, json!({}));
                }
            }
            Err(error) => sheet.fail(id, &error),
        }
    }
    Ok(())
}

fn udp(
    sheet: &mut Sheet<'_>,
    site: &Site<'_>,
    effort: &Effort,
    id: &str,
    payload: usize,
    start: f64,
) -> Result<()> {
    let (time, steps) = effort.udp;
    let (from, to, address) = (site.place(1)?, site.place(2)?, site.address(2)?);
    let found = highest(start, UDP_LOSS, steps, |rate| {
        let outcome = stream(from, to, &address, Stream { payload, rate, time })?;
        Ok((outcome.offered, outcome.loss()))
    })?;
    ensure!(found.rate > 0.0, "more than 0.5 % lost at every rate: {:?}", found.tries);
    let tries = found.tries.iter().map(|t| json!([t.wanted, t.offered, t.loss]));
    let detail = json!({
        "at_least": found.at_least,
        "packets_per_second": found.rate / 8.0 / payload as f64,
        "tries_wanted_offered_lost": tries.collect::<Vec<_>>(),
    });
    sheet.put(id, found.rate / 1e6, detail);
    Ok(())
}

/// Round-trip times of a path with nothing else on it.
///
/// # Errors
/// When ping cannot be run; missing answers go into the sheet.
pub fn idle(sheet: &mut Sheet<'_>, site: &Site<'_>, effort: &Effort, id: &str) -> Result<()> {
    let times = series(site.place(1)?, &site.address(2)?, effort.pings, GAP)?;
    match times.p50_p99() {
        Ok((p50, p99)) => {
            sheet.put(&format!("{id}.p50"), p50, json!({ "answers": times.ms.len() }));
            sheet.put(&format!("{id}.p99"), p99, json!({ "sent": times.sent }));
        }
        Err(error) => {
            sheet.fail(&format!("{id}.p50"), &error);
            sheet.fail(&format!("{id}.p99"), &error);
        }
    }
    Ok(())
}

/// Round-trip times beside a transfer, of all but its first second. The rate of the transfer goes
/// into the sheet under the name `rate`, when there is one.
///
/// # Errors
/// When ping or iperf3 cannot be run.
pub fn loaded(
    sheet: &mut Sheet<'_>,
    site: &Site<'_>,
    run: &Run,
    id: &str,
    rate: Option<&str>,
) -> Result<()> {
    let (from, to, address) = (site.place(1)?, site.place(2)?, site.address(2)?);
    let (load, target) = (run.clone(), address.clone());
    let load = std::thread::spawn(move || iperf::run(from, to, &target, &load));
    let first = Duration::from_secs(1);
    std::thread::sleep(first);
    let left = Duration::from_secs(run.seconds.into()) - first;
    // The last answers may be late, and the transfer shall not end before them.
    let count = u32::try_from(left.as_millis() / GAP.as_millis()).context("a long run")? * 9 / 10;
    let times = series(from, &address, count.max(10), GAP);
    let load = load.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    match load.and_then(|transfer| Ok((transfer, times?.p50_p99()?))) {
        Ok((transfer, (p50, p99))) => {
            sheet.put(&format!("{id}.p50"), p50, json!({ "mbit": transfer.mbit }));
            sheet.put(&format!("{id}.p99"), p99, json!({ "mbit": transfer.mbit }));
            if let Some(rate) = rate {
                sheet.put(rate, transfer.mbit, detail(&transfer));
            }
        }
        Err(error) => {
            sheet.fail(&format!("{id}.p50"), &error);
            sheet.fail(&format!("{id}.p99"), &error);
            if let Some(rate) = rate {
                sheet.fail(rate, &error);
            }
        }
    }
    Ok(())
}
