//! Clocks that are wrong by years: they change nothing.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::Lab;
use qanah_tests::conf::name;
use qanah_tests::daemon::Options;
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::servers::Broker;

/// How many days the clock of a node is off.
const fn days_off(n: usize) -> i64 {
    match n {
        1 => 3650,
        2 => -3650,
        _ => 0,
    }
}

/// Options for a daemon whose calendar (CLOCK_REALTIME) is off; its other clocks are right.
fn with_clock(lab: &Lab, days: i64) -> Result<Options> {
    Ok(with_faketime(lab)?.env("FAKETIME", &format!("{days:+}d")))
}

fn with_faketime(lab: &Lab) -> Result<Options> {
    let found = lab.hub().run("find /usr/lib -name libfaketimeMT.so.1")?;
    let library = found.lines().next().context("no libfaketime: `apt-get install faketime`")?;
    Ok(Options::of(lab).env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
}

fn up(lab: &Lab, mut mesh: Mesh, n: usize) -> Result<Mesh> {
    mesh = mesh.options(with_clock(lab, days_off(n))?);
    mesh.up(lab, n)?;
    Ok(mesh)
}

/// What a daemon thinks which year it is, by its log.
fn year_is_wrong(lab: &Lab, mesh: &Mesh, n: usize) -> Result<()> {
    let year = lab.hub().run(&format!("date -u -d {:+}days +%Y-", days_off(n)))?;
    let log = mesh.daemon(n)?.log();
    ensure!(log.contains(year.trim()), "{} does not live in {year}: {log}", name(n));
    Ok(())
}

#[test]
fn clocks_that_are_wrong_by_ten_years_change_nothing() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        for n in 1..=3 {
            mesh = up(lab, mesh, n)?;
            year_is_wrong(lab, &mesh, n)?;
        }
        mesh.connected(CONNECT)?;
        mesh.ping_all()?;
        // Each starts again, with and without a goodbye.
        for (n, signal) in [(1, Signal::SIGTERM), (2, Signal::SIGKILL), (3, Signal::SIGKILL)] {
            mesh.take(n)?.stop(signal)?;
            mesh = up(lab, mesh, n)?;
            mesh.connected(RECOVER)?;
            mesh.ping_all()?;
        }
        // Their paths are cut, and found again.
        lab.node(1)?.cut_from(lab.node(2)?)?;
        mesh.relayed(1, 2, &[3], RECOVER)?;
        mesh.ping_all()?;
        lab.node(1)?.mend_with(lab.node(2)?)?;
        mesh.direct(1, 2, RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_clock_that_jumps_by_years_while_it_runs_changes_nothing() -> Result<()> {
    in_lab(2, |lab| {
        let file = lab.write("clock", "+0d\n")?;
        // A file in place of a fixed amount, looked at every time.
        let options = with_faketime(lab)?
            .env("FAKETIME_TIMESTAMP_FILE", &file.display().to_string())
            .env("FAKETIME_NO_CACHE", "1");
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh = mesh.options(Options::of(lab));
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        let pinger = qanah_tests::Pinger::start(lab, mesh.daemon(1)?.place(), "10.0.0.2")?;
        for days in [3650, -3650] {
            lab.write("clock", &format!("{days:+}d\n"))?;
            let year = lab.hub().run(&format!("date -u -d {days:+}days +%Y-"))?;
            // It connects to the broker again, and says when.
            mesh.broker.take().map_or(Ok(()), Broker::stop)?;
            mesh.broker = Some(lab.broker()?);
            qanah_tests::eventually("a broker in another year", RECOVER, || {
                ensure!(mesh.daemon(1)?.status()?.brokers_connected()? == 1, "no broker");
                ensure!(mesh.daemon(1)?.log().contains(year.trim()), "not yet");
                Ok(())
            })?;
            let before = pinger.answers();
            qanah_tests::eventually("answers", CONNECT, || {
                ensure!(pinger.answers() > before + 50, "{}", pinger.answers() - before);
                mesh.connected(CONNECT)
            })?;
        }
        pinger.finish()?.ensure_all()?;
        mesh.ping_all()
    })
}
