//! The broker is killed before the start, while peers connect, and after.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::inner4;
use qanah_tests::daemon::Options;
use qanah_tests::lab::in_lab;
use qanah_tests::link::{Link, Way};
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ping::Pinger;
use qanah_tests::servers::Broker;
use qanah_tests::wait::{always, eventually, secs};

/// How long a broker is gone, where that matters.
const GONE: Duration = secs(4);

fn kill_broker(mesh: &mut Mesh) -> Result<()> {
    mesh.broker.take().map_or(Ok(()), Broker::kill)
}

/// Waits until that many brokers are connected at node `n`.
fn brokers(mesh: &Mesh, n: usize, wanted: usize) -> Result<()> {
    eventually(&format!("{wanted} brokers are connected at node {n}"), RECOVER, || {
        let found = mesh.daemon(n)?.status()?.brokers_connected()?;
        ensure!(found == wanted, "{found}");
        Ok(())
    })
}

#[test]
fn a_broker_that_was_killed_before_the_start_is_waited_for() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        kill_broker(&mut mesh)?;
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        always("nobody connects by nothing", GONE, || {
            for (own, other) in [(1, "peer2"), (2, "peer1")] {
                let status = mesh.daemon(own)?.status()?;
                ensure!(!status.peer(other)?.connected()?, "{status}");
                ensure!(status.brokers_connected()? == 0, "{status}");
            }
            Ok(())
        })?;
        mesh.broker = Some(lab.broker()?);
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_broker_that_is_killed_while_peers_connect_is_waited_for() -> Result<()> {
    // After the first hello, in the middle of the exchange, and when there are candidates.
    for messages in [1, 3, 5] {
        in_lab(2, |lab| {
            let mut mesh = Mesh::prepare(lab)?;
            // Each message is on its way for a while, so that there is a middle.
            let links = [Link::attach(lab, lab.node(1)?, 1)?, Link::attach(lab, lab.node(2)?, 2)?];
            links.iter().try_for_each(|link| link.set(Way::delayed(Duration::from_millis(150))))?;
            let recorder = lab.recorder()?;
            mesh.up(lab, 1)?;
            mesh.up(lab, 2)?;
            eventually("messages at the broker", CONNECT, || {
                let found = recorder.messages()?.len();
                ensure!(found >= messages, "{found}");
                Ok(())
            })?;
            kill_broker(&mut mesh)?;
            for n in [1, 2] {
                brokers(&mesh, n, 0)?;
            }
            drop(recorder);
            mesh.broker = Some(lab.broker()?);
            mesh.connected(RECOVER)?;
            mesh.ping_all()?;
            for n in [1, 2] {
                brokers(&mesh, n, 1)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// 1 has one broker, 3 another, 2 both. Without its broker, 1 is reached through 2.
#[test]
fn when_a_broker_is_killed_a_restarted_peer_comes_back_through_the_mesh() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let second = Broker::start(lab.node(2)?.place(), lab.dir())?;
        let (first, other) = (lab.signal_server(), lab.signal_server_on(lab.node(2)?));
        for (n, servers) in [(1, vec![&first]), (2, vec![&first, &other]), (3, vec![&other])] {
            let options = Options::bare().and(&["--stun", &lab.stun_url()]);
            let add =
                |options: Options, server: &&String| options.and(&["--signal-server", server]);
            mesh = mesh.options(servers.iter().fold(options, add));
            mesh.up(lab, n)?;
            brokers(&mesh, n, servers.len())?;
        }
        // 1 and 3 have no broker in common; 2 carries what they say.
        mesh.connected(RECOVER)?;
        mesh.direct(1, 3, RECOVER)?;
        let place = mesh.daemon(1)?.place();
        let pingers =
            [Pinger::start(lab, place, &inner4(2))?, Pinger::start(lab, place, &inner4(3))?];
        kill_broker(&mut mesh)?;
        brokers(&mesh, 1, 0)?;
        brokers(&mesh, 2, 1)?;
        let [two, three] = pingers;
        let before = three.answers();
        eventually("answers without the broker", secs(10), || {
            ensure!(three.answers() > before + 20, "{}", three.answers());
            Ok(())
        })?;
        three.finish()?.ensure_all()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // The options are those of node 3, which was the last to start.
            mesh.take(3)?.stop(signal)?;
            mesh.up(lab, 3)?;
            for (from, to) in [(1, 3), (3, 1)] {
                mesh.first_ping(from, to, RECOVER)?;
                mesh.direct(from, to, RECOVER)?;
            }
        }
        ensure!(mesh.daemon(1)?.status()?.brokers_connected()? == 0, "by which broker?");
        two.finish()?.ensure_all()?;
        mesh.ping_all()?;
        drop(second);
        Ok(())
    })
}
