//! What is measured on emulated paths.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::bench::args::Args;
use crate::bench::catalogue::{Path, tcp_on};
use crate::bench::contender::{Contender, Shape, Site};
use crate::bench::direct::{Effort, idle, loaded};
use crate::bench::iperf::{self, Run};
use crate::bench::results::Sheet;
use crate::bench::rtt::first_answer;
use crate::lab::{Lab, Underlay};
use crate::link::Link;
use crate::wait::secs;

/// How long a tunnel may take to carry a ping after its path has changed.
const AGAIN: Duration = secs(20);
/// The losses of all contenders in all rounds come from this number.
const SEED: u64 = 20_240_229;

fn wanted(args: &Args, effort: &Effort, path: &Path) -> bool {
    names(effort, path).iter().any(|id| args.wants(id))
}

/// What is measured on a path.
fn names(effort: &Effort, path: &Path) -> Vec<String> {
    let mut names: Vec<_> = effort.congestion.iter().map(|kind| tcp_on(path, kind)).collect();
    names.push(format!("{}.rtt.idle.p50", path.id));
    if path.bottleneck {
        names.push(format!("{}.rtt.load.p99", path.id));
    }
    names
}

/// All measurements of one contender on all paths, in one tunnel whose path changes.
///
/// # Errors
/// When the tunnel does not come up at first.
pub fn measure(
    sheet: &mut Sheet<'_>,
    who: &Contender,
    args: &Args,
    effort: &Effort,
    paths: &[Path],
) -> Result<()> {
    let paths: Vec<_> = paths.iter().filter(|path| wanted(args, effort, path)).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let lab = Lab::new(2, Underlay::Both)?;
    lab.passed();
    let link = Link::attach(&lab, lab.node(1)?, SEED)?;
    let site = Site::up(&lab, who, Shape::Mesh)?;
    for path in paths {
        link.set(path.way)?;
        if let Err(error) = on_path(sheet, &site, &link, effort, path) {
            for id in names(effort, path) {
                sheet.fail(&id, &error);
            }
        }
    }
    Ok(())
}

fn on_path(
    sheet: &mut Sheet<'_>,
    site: &Site<'_>,
    link: &Link,
    effort: &Effort,
    path: &Path,
) -> Result<()> {
    first_answer(site.place(1)?, &site.address(2)?, AGAIN)?;
    let (overruns, lost) = (link.overruns()?, link.counts()?);
    idle(sheet, site, effort, &format!("{}.rtt.idle", path.id))?;
    for (n, kind) in effort.congestion.iter().enumerate() {
        let id = tcp_on(path, kind);
        let run = Run { congestion: kind.clone(), ..effort.transfer() };
        if path.bottleneck && n == 0 {
            let run = Run { seconds: run.seconds.max(3) + 1, ..run };
            loaded(sheet, site, &run, &format!("{}.rtt.load", path.id), Some(&id))?;
            continue;
        }
        // Slow start on a long path is not what is measured.
        let omit = if path.rtt >= 30 { 1 } else { 0 };
        let run = Run { omit, ..run };
        match iperf::run(site.place(1)?, site.place(2)?, &site.address(2)?, &run) {
            Ok(transfer) => {
                let detail = json!({
                    "retransmits": transfer.retransmits,
                    "mbit_by_second": transfer.course,
                });
                sheet.put(&id, transfer.mbit, detail);
            }
            Err(error) => sheet.fail(&id, &error),
        }
    }
    let overruns = link.overruns()? - overruns;
    ensure!(overruns == 0, "the link emulator itself lost {overruns} packets: {lost:?}");
    Ok(())
}
