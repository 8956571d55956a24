//! `--lazy`: connections when there is traffic for them, and not a moment longer than somebody uses them.

use anyhow::{Result, ensure};
use qanah_tests::conf::inner4;
use qanah_tests::daemon::{Options, qanahctl};
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::wait::{always, eventually, secs};

fn lazy(lab: &qanah_tests::Lab, seconds: u32) -> Options {
    Options::of(lab).and(&["--lazy", "--idle-timeout", &seconds.to_string()])
}

#[test]
fn traffic_connects_a_pair_and_silence_lets_it_go() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?.options(lazy(lab, 5));
        for n in 1..=3 {
            mesh.up(lab, n)?;
        }
        let idle = |n: usize, peer: &str| {
            let status = mesh.daemon(n)?.status()?;
            ensure!(status.peer(peer)?.state()? == "idle", "{status}");
            ensure!(status.code == 0, "idle peers are as they should be: {status}");
            Ok(())
        };
        always("nobody connects", secs(5), || idle(1, "peer2"))?;
        // The first packet waits for the connection and is not lost.
        let one = mesh.daemon(1)?.place();
        ping(one, &format!("-c 1 -W 5 {}", inner4(2)))?.ensure_all()?;
        idle(1, "peer3")?;
        idle(3, "peer1")?;
        // While it is used it stays.
        let pinger = Pinger::start(lab, one, &inner4(2))?;
        eventually("answers for longer than the timeout", secs(30), || {
            ensure!(pinger.answers() > 90, "{}", pinger.answers());
            Ok(())
        })?;
        pinger.finish()?.ensure_all()?;
        for (n, peer) in [(1, "peer2"), (2, "peer1")] {
            eventually(&format!("peer{n} lets go"), secs(20), || idle(n, peer))?;
        }
        let said = qanahctl(one, &["status"])?;
        ensure!(said.out.contains("idle: connects when there is traffic"), "{said:?}");
        // And again, from the other side.
        ping(mesh.daemon(2)?.place(), &format!("-c 1 -W 5 {}", inner4(1)))?.ensure_all()
    })
}

#[test]
fn a_peer_that_is_not_lazy_stays_connected() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?.options(lazy(lab, 2));
        mesh.up(lab, 1)?;
        mesh = mesh.options(Options::of(lab));
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        ping(mesh.daemon(1)?.place(), &format!("-c 1 -W 5 {}", inner4(2)))?.ensure_all()?;
        always("it stays", secs(8), || {
            ensure!(mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "it went");
            Ok(())
        })
    })
}
