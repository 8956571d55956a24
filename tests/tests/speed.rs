//! How long it takes from the start of the daemons to the first answer to a ping: medians, printed.
//!
//! `tests/run --long` takes ten of each, the default three. The figures are those of a debug build on a
//! machine that does other things, unless QANAH_BIN_DIR says which programs to take.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use qanah_tests::daemon::{Options, figure};
use qanah_tests::lab::BLACK_HOLE;
use qanah_tests::link::{Link, Way};
use qanah_tests::nat::ground::Ground;
use qanah_tests::nat::{Kind, Site};
use qanah_tests::wait::secs;

/// The whole time of each way, in the middle of all rounds.
fn median(
    ground: &Ground,
    what: &str,
    kind: Kind,
    options: &Options,
    rtt: u64,
) -> Result<Duration> {
    let rounds = if std::env::var_os("QANAH_LONG").is_some() { 10 } else { 3 };
    let mut times = Vec::new();
    for round in 0..rounds {
        let sites = [ground.of_kind(kind)?, ground.of_kind(kind)?];
        let links = links(ground, &sites, rtt)?;
        let label = format!("{}-{round}", what.replace(' ', "-"));
        let group = ground.start(&label, sites, options.clone().log_level("info"))?;
        times.push(group.first_answer()?);
        drop((group, links));
    }
    times.sort_unstable();
    let median = times.get(rounds / 2).copied().ok_or_else(|| anyhow!("no round"))?;
    figure(&format!("start to first ping, median of {rounds}, {what}"), format!("{median:.2?}"));
    // Only that it comes at all: the time is for people to read.
    ensure!(median < secs(30), "{times:?}");
    Ok(median)
}

/// Half of the delay between two sites before each of them.
fn links(ground: &Ground, sites: &[Site; 2], rtt: u64) -> Result<Vec<Link>> {
    if rtt == 0 {
        return Ok(Vec::new());
    }
    let attach = |site: &Site| {
        let link = Link::attach_port(&ground.lab, &site.port(), 1)?;
        let way = Way::delayed(Duration::from_millis(rtt) / 4);
        link.set(way)?;
        Ok(link)
    };
    sites.iter().map(attach).collect()
}

#[test]
fn from_the_start_to_the_first_ping() -> Result<()> {
    let ground = Ground::new()?;
    let (stun, turn) = (ground.servers.options(), ground.servers.options_with_turn());
    median(&ground, "LAN", Kind::Open, &stun, 0)?;
    median(&ground, "behind two NATs at 30 ms", Kind::PortRestricted, &stun, 30)?;
    median(&ground, "TURN over TLS", Kind::NoUdp, &turn, 0)?;
    let dead_stun = stun.clone().and(&[
        "--stun",
        &format!("stun:{BLACK_HOLE}:3478"),
        "--stun",
        "stun:nobody.invalid",
    ]);
    let dead_turn = stun
        .clone()
        .and(&["--turn-url", &format!("turn:{BLACK_HOLE}:3478")])
        .and(&["--turn-url", &format!("turns:{BLACK_HOLE}:443"), "--turn-username", "nobody"])
        .env("QANAH_TURN_CREDENTIAL", "nothing");
    let dead_broker = stun.and_broker(&format!("{BLACK_HOLE}:1883"));
    for (what, options) in
        [("STUN server", dead_stun), ("TURN server", dead_turn), ("broker", dead_broker)]
    {
        median(&ground, &format!("LAN with a dead {what} beside"), Kind::Open, &options, 0)?;
    }
    ground.lab.passed();
    Ok(())
}
