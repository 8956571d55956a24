//! Brokers, peers and links come and go.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::inner4;
use qanah_tests::daemon::socket;
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ping::Pinger;
use qanah_tests::wait::{eventually, secs};

#[test]
fn pings_go_on_while_the_broker_restarts() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::start(lab)?;
        let one = mesh.daemon(1)?.place();
        let pinger = Pinger::start(lab, one, &inner4(2))?;
        if let Some(broker) = mesh.broker.take() {
            broker.stop()?;
        }
        let brokers = |mesh: &Mesh, wanted: usize| {
            eventually(&format!("{wanted} brokers are connected"), RECOVER, || {
                for n in 1..=2 {
                    let found = mesh.daemon(n)?.status()?.brokers_connected()?;
                    ensure!(found == wanted, "{found} at node {n}");
                }
                Ok(())
            })
        };
        brokers(&mesh, 0)?;
        let before = pinger.answers();
        eventually("pings without a broker", secs(10), || {
            ensure!(pinger.answers() >= before + 20, "{} answers", pinger.answers() - before);
            Ok(())
        })?;
        mesh.broker = Some(lab.broker()?);
        brokers(&mesh, 1)?;
        pinger.finish()?.ensure_all()?;
        // Subscriptions are there again: a peer that starts anew is found.
        mesh.take(2)?.terminate()?;
        mesh.up(lab, 2)?;
        mesh.first_ping(1, 2, CONNECT)?;
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

#[test]
fn a_broker_that_comes_late_is_found() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        if let Some(broker) = mesh.broker.take() {
            broker.stop()?;
        }
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "connected by what?");
        mesh.broker = Some(lab.broker()?);
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

/// Ends node 2 with that signal and starts it again, `times` times.
fn restarts(signal: Signal, times: usize) -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::start(lab)?;
        // What happens to one peer is nothing to the others.
        let bystander = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        for _ in 0..times {
            mesh.take(2)?.stop(signal)?;
            mesh.up(lab, 2)?;
            for other in [1, 3] {
                mesh.first_ping(2, other, RECOVER)?;
                mesh.first_ping(other, 2, RECOVER)?;
            }
        }
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        bystander.finish()?.ensure_all()
    })
}

#[test]
fn a_peer_that_ends_twice_is_found_again() -> Result<()> {
    restarts(Signal::SIGTERM, 2)
}

#[test]
fn a_peer_that_is_killed_twice_is_found_again() -> Result<()> {
    restarts(Signal::SIGKILL, 2)
}

#[test]
fn what_kill_9_left_is_cleaned_up_by_the_next_start() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let place = lab.node(1)?.place();
        let before = place.footprint()?;
        mesh.up(lab, 1)?;
        mesh.take(1)?.stop(Signal::SIGKILL)?;
        ensure!(socket(place, "peer1").exists(), "the test expects a stale socket here");
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        mesh.take(1)?.terminate()?;
        let after = place.footprint()?;
        ensure!(before == after, "left behind:\n{after}\nbefore it was:\n{before}");
        Ok(())
    })
}
