//! Paths that are indirect, and paths that break.

use anyhow::{Context, Result, ensure};
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::daemon::{Options, figure};
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ping::ping;
use qanah_tests::servers::{TURN_PASSWORD, TURN_USER};
use qanah_tests::tcp::transfer;
use qanah_tests::wait::{eventually, secs};

#[test]
fn a_turn_server_carries_what_cannot_go_directly() -> Result<()> {
    in_lab(2, |lab| {
        let options = Options::of(lab).and(&["--turn-url", &lab.turn_url()]).and(&[
            "--turn-username",
            TURN_USER,
            "--turn-credential",
            TURN_PASSWORD,
        ]);
        lab.node(1)?.cut_from(lab.node(2)?)?;
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        eventually("an allocation in the log of the TURN server", secs(5), || {
            ensure!(mesh.turn.allocations() > 0, "none");
            Ok(())
        })?;
        let path = mesh.daemon(1)?.status()?.peer("peer2")?.path();
        ensure!(path.to_lowercase().contains("relay"), "the path is {path}");
        let (one, two) = (mesh.daemon(1)?.place(), mesh.daemon(2)?.place());
        // A frame that waits for the next one to push it out would show here.
        let alone = ping(one, &format!("-c 8 -i 0.5 -W 3 {}", inner4(2)))?;
        alone.ensure_all()?;
        let times = alone.times_ms();
        let median = *times.get(times.len() / 2).context("no times")?;
        figure("median round trip through TURN, ms", median);
        ensure!(median < 100.0, "it takes too long through the TURN server: {}", alone.text);
        ping(one, &format!("-c 3 -i 0.3 -W 3 -s 8000 {}", inner6(2)))?.ensure_all()?;
        transfer(one, two, &inner4(2), 1024 * 1024)?;
        Ok(())
    })
}

#[test]
fn a_wrong_turn_password_is_no_way_through() -> Result<()> {
    in_lab(2, |lab| {
        let options = Options::of(lab).and(&["--turn-url", &lab.turn_url()]).and(&[
            "--turn-username",
            TURN_USER,
            "--turn-credential",
            "not-the-password",
        ]);
        lab.node(1)?.cut_from(lab.node(2)?)?;
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        eventually("both have tried the TURN server", CONNECT, || {
            let refused = mesh.turn.refusals();
            ensure!(refused >= 2, "{refused} refusals");
            Ok(())
        })?;
        ensure!(mesh.turn.allocations() == 0, "the TURN server let us in");
        ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "connected by what?");
        // The way is free again: now they connect without it.
        lab.node(1)?.heal()?;
        lab.node(2)?.heal()?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_cut_path_is_seen_within_15_seconds_and_heals() -> Result<()> {
    in_lab(3, |lab| {
        // The third would take over as a relay.
        let mut mesh = Mesh::prepare(lab)?.options(Options::of(lab).and(&["--no-relay"]));
        for n in 1..=3 {
            mesh.up(lab, n)?;
        }
        mesh.connected(CONNECT)?;
        lab.node(1)?.cut_from(lab.node(2)?)?;
        for n in [1, 2] {
            let peer = format!("peer{}", 3 - n);
            // 15 s, and some more for a busy machine.
            eventually("the death of the path is seen", secs(20), || {
                let status = mesh.daemon(n)?.status()?;
                ensure!(!status.peer(&peer)?.connected()?, "{status}");
                Ok(())
            })?;
        }
        ensure!(mesh.daemon(1)?.status()?.peer("peer3")?.connected()?, "the wrong one went");
        lab.node(1)?.heal()?;
        lab.node(2)?.heal()?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_link_that_was_down_for_long_comes_back() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = Mesh::start(lab)?;
        let two = lab.node(2)?;
        two.link_down()?;
        eventually("the death of the path is seen", secs(20), || {
            let status = mesh.daemon(1)?.status()?;
            ensure!(!status.peer("peer2")?.connected()?, "{status}");
            Ok(())
        })?;
        two.link_up(lab.underlay())?;
        mesh.first_ping(1, 2, RECOVER)?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_peer_that_is_not_connected_is_told_as_unreachable() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        mesh.up(lab, 1)?;
        let one = mesh.daemon(1)?;
        let before = one.status()?;
        let before = before.drops() + before.peer("peer2")?.drops();
        for address in [inner4(2), inner6(2)] {
            let stats = ping(one.place(), &format!("-c 3 -i 0.2 -W 1 {address}"))?;
            ensure!(stats.received == 0 && stats.text.contains("nreachable"), "{}", stats.text);
        }
        let after = one.status()?;
        let counted = after.drops() + after.peer("peer2")?.drops() - before;
        ensure!(counted >= 6, "6 pings were dropped and {counted} counted: {after}");
        ensure!(after.code == 3, "exit code {}", after.code);
        Ok(())
    })
}
