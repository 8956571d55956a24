//! Other overlays of the same machines: a path through one may end up inside our own tunnel, so there is none.

use anyhow::{Context, Result, bail, ensure};
use qanah_tests::conf::{Conf, Identity, inner4, mesh, name};
use qanah_tests::daemon::{Daemon, Options};
use qanah_tests::lab::{Lab, Underlay, in_lab_over};
use qanah_tests::mesh::CONNECT;
use qanah_tests::ping::ping;
use qanah_tests::wait::{eventually, secs};

/// How long until ICE has tried everything, and more.
const GIVEN_UP: std::time::Duration = secs(60);

/// The port of the tunnel around.
const AROUND: u16 = 51820;

/// The tunnels between the two nodes, with these options each.
fn up(lab: &Lab, confs: &[Conf], options: [Options; 2]) -> Result<[Daemon; 2]> {
    let [one, two] = [0, 1].map(|at| {
        let (conf, options) = confs.get(at).zip(options.get(at)).context("there are two")?;
        Daemon::start_with(lab, lab.node(at + 1)?, conf, options)
    });
    Ok([one?, two?])
}

/// Configurations of another pair of tunnels.
fn around() -> Vec<Conf> {
    let mut confs = mesh(&[Identity::generate(), Identity::generate()]);
    for (conf, n) in confs.iter_mut().zip(1..) {
        conf.name = format!("around{n}");
        conf.addresses = vec![format!("10.77.0.{n}/24")];
        conf.extra.push(format!("ListenPort = {AROUND}"));
        for peer in &mut conf.peers {
            peer.name = format!("around{}", 3 - n);
            peer.allowed = vec![format!("10.77.0.{}/32", 3 - n)];
        }
    }
    confs
}

/// Waits until attempts have failed at either end, while no path was ever taken.
fn find_no_path(daemons: &[Daemon; 2]) -> Result<()> {
    let mut was_connected = false;
    eventually("both have tried and found no path", GIVEN_UP, || {
        for (daemon, other) in daemons.iter().zip([2, 1]) {
            let status = daemon.status()?;
            let peer = status.peer(&name(other))?;
            was_connected |= peer.connected()? || !peer.path().is_empty();
            ensure!(was_connected || daemon.log().contains("could not connect to"), "{status}");
        }
        Ok(())
    })?;
    for (daemon, n) in daemons.iter().zip(1..) {
        was_connected |= daemon.log().contains("path: ");
        ensure!(!was_connected, "{n} has taken a path that is none:\n{}", daemon.log());
    }
    Ok(())
}

fn path_is(daemon: &Daemon, other: usize, local: &str, remote: &str) -> Result<()> {
    eventually(&format!("a path {local} to {remote}"), CONNECT, || {
        let status = daemon.status()?;
        let path = status.peer(&name(other))?.path();
        for end in [local, remote] {
            ensure!(path.contains(&format!("\"{end}:")), "{status}");
        }
        Ok(())
    })
}

#[test]
fn a_tunnel_does_not_go_through_another_one_of_the_same_machines() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let _servers = (lab.broker()?, lab.turn()?);
        let plain = || Options::of(lab);
        let around = up(lab, &around(), [plain(), plain()])?;
        around[0].connected(&["around2"], CONNECT)?;
        // From now on all that the machines have of each other is that tunnel.
        for (own, other) in [(1, 2), (2, 1)] {
            let from = lab.node(other)?.outer4();
            lab.node(own)?.place().shell(&format!(
                "nft add table ip only
                 nft 'add chain ip only in {{ type filter hook input priority 0; }}'
                 nft add rule ip only in iifname eth0 ip saddr {from} udp dport != {AROUND} drop"
            ))?;
        }
        let one = lab.node(1)?.place();
        ping(one, "-c 2 -i 0.2 -W 5 10.77.0.2")?.ensure_all()?;
        let confs = lab.mesh();
        let inner = up(lab, &confs, [plain(), plain()])?;
        find_no_path(&inner)?;
        ping(one, "-c 2 -i 0.2 -W 5 10.77.0.2")?.ensure_all()?;
        inner.into_iter().try_for_each(Daemon::terminate)?;
        // It would have been a way: who names it means it.
        let named = plain().and(&["--interface", "around?"]);
        let inner = up(lab, &confs, [named.clone(), named])?;
        path_is(&inner[0], 2, "10.77.0.1", "10.77.0.2")?;
        ping(one, &format!("-c 2 -i 0.2 -W 5 {}", inner4(2)))?.ensure_all()
    })
}

/// Makes an overlay of the two nodes, and gives the second one's address in there. By its name it is one: that counts
/// where the kind does not tell.
fn overlay(lab: &Lab) -> Result<String> {
    for n in 1..=2 {
        let place = lab.node(n)?.place();
        lab.hub().shell(&format!(
            "ip link add t{n} type veth peer name tailscale0 netns {}; ip link set t{n} master br0 up",
            place.holder()
        ))?;
        place.shell(&format!(
            "ip link set tailscale0 up; ip addr add 100.64.0.{n}/10 dev tailscale0"
        ))?;
    }
    Ok("100.64.0.2".to_owned())
}

/// The peer has nothing but an overlay, tells its address there, and sends checks from it, to a node with this in
/// its configuration.
fn refused(extra: &[&str]) -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let _servers = (lab.broker()?, lab.turn()?);
        let theirs = overlay(lab)?;
        let one = lab.node(1)?;
        ping(one.place(), &format!("-c 1 -W 5 {theirs}"))?.ensure_all()?;
        let only = || Options::of(lab).and(&["--interface", "tailscale*"]);
        let mut confs = lab.mesh();
        let conf = confs.first_mut().context("there is one")?;
        conf.extra.extend(extra.iter().map(|line| (*line).to_owned()));
        let [first, second] = up(lab, &confs, [Options::of(lab), only()])?;
        let daemons = [first, second];
        find_no_path(&daemons)?;
        let log = daemons[0].log();
        if !log.contains(&format!("address={theirs}:")) || !log.contains("another overlay") {
            bail!("the candidate was not refused:\n{log}");
        }
        let [first, second] = daemons;
        first.terminate()?;
        // Where that overlay is meant the same checks from the same addresses make a path.
        let both = Options::of(lab).and(&["--interface", "eth0", "--interface", "tailscale0"]);
        let conf = confs.first().context("there is one")?;
        let first = Daemon::start_with(lab, one, conf, &both)?;
        eventually("a path by the overlay", CONNECT, || {
            let status = first.status()?;
            let path = status.peer("peer2")?.path();
            ensure!(path.contains(&format!("\"{theirs}:")), "{status}");
            Ok(())
        })?;
        second.connected(&["peer1"], CONNECT)
    })
}

#[test]
fn a_peer_that_comes_from_another_overlay_is_refused() -> Result<()> {
    refused(&[])
}

#[test]
fn a_peer_that_comes_from_another_overlay_is_refused_at_the_listen_port() -> Result<()> {
    refused(&["ListenPort = 51820"])
}
