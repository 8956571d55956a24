//! Networks that change under a tunnel, and machines that sleep.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::inner4;
use qanah_tests::daemon::figure;
use qanah_tests::lab::{HUB4, Lab, Underlay, in_lab, in_lab_over};
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ns::Namespace;
use qanah_tests::ping::Pinger;
use qanah_tests::wait::{eventually, secs};

/// Waits until so many more pings were answered.
fn more_answers(pinger: &Pinger, count: usize, limit: Duration) -> Result<()> {
    let before = pinger.answers();
    eventually(&format!("{count} more answers"), limit, || {
        let more = pinger.answers() - before;
        ensure!(more >= count, "{more}");
        Ok(())
    })
}

/// Pings from node 1 to node 2, and how long the longest outage was while `change` was done.
fn outage(lab: &Lab, mesh: &Mesh, change: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
    more_answers(&pinger, 20, CONNECT)?;
    change()?;
    // It may take a while until the loss shows.
    more_answers(&pinger, 50, RECOVER)?;
    Ok(pinger.longest_gap())
}

#[test]
fn another_address_is_an_outage_of_seconds() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let mesh = Mesh::start(lab)?;
        for to_other in [true, false] {
            let gap = outage(lab, &mesh, || lab.node(2)?.move_address(to_other))?;
            figure("outage when the address changes, s", gap.as_secs_f64());
            ensure!(gap < secs(10), "{gap:?}");
        }
        mesh.connected(RECOVER)
    })
}

#[test]
fn an_interface_that_goes_down_and_up_is_an_outage_of_seconds() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = Mesh::start(lab)?;
        let two = lab.node(2)?;
        let gap = outage(lab, &mesh, || {
            two.link_down()?;
            std::thread::sleep(secs(2));
            two.link_up(lab.underlay())
        })?;
        figure("outage when an interface is down for 2 s, s", gap.as_secs_f64());
        mesh.connected(RECOVER)
    })
}

/// Stops the daemon of node 2 for so long.
fn sleeper(asleep: Duration) -> Result<()> {
    in_lab(2, |lab| {
        let mesh = Mesh::start(lab)?;
        let gap = outage(lab, &mesh, || {
            let two = mesh.daemon(2)?;
            two.signal(Signal::SIGSTOP)?;
            std::thread::sleep(asleep);
            two.signal(Signal::SIGCONT)
        })?;
        let after = gap.saturating_sub(asleep);
        figure(&format!("outage after a sleep of {} s, s", asleep.as_secs()), after.as_secs_f64());
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_machine_that_slept_comes_back() -> Result<()> {
    sleeper(secs(20))
}

#[test]
fn a_machine_that_slept_for_minutes_comes_back() -> Result<()> {
    if std::env::var_os("QANAH_LONG").is_none() {
        println!(
            "SKIP a_machine_that_slept_for_minutes_comes_back: it takes four minutes; tests/run --long"
        );
        return Ok(());
    }
    sleeper(secs(185))
}

#[test]
fn a_nat_that_forgets_is_an_outage_of_seconds() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        // Node 2 moves behind a router of its own, which gives each flow a port of its choice.
        let router = Namespace::new()?;
        let two = lab.node(2)?.place();
        let (hub, nat) = (lab.hub(), router.place());
        two.run("ip link del eth0")?;
        hub.shell(&format!(
            "ip link add nat type veth peer name wan netns {}; ip link set nat master br0 up",
            nat.holder()
        ))?;
        nat.shell(&format!(
            "ip link set wan up; ip addr add 172.31.9.202/24 dev wan
             ip route add default via {HUB4}
             ip link add lan type veth peer name eth0 netns {}
             ip link set lan up; ip addr add 192.168.7.1/24 dev lan
             echo 1 > /proc/sys/net/ipv4/ip_forward
             nft add table ip nat
             nft 'add chain ip nat out {{ type nat hook postrouting priority 100; }}'
             nft add rule ip nat out oifname wan masquerade random,fully-random",
            two.holder()
        ))?;
        two.shell(
            "ip link set eth0 up; ip addr add 192.168.7.2/24 dev eth0
             ip route add default via 192.168.7.1",
        )?;
        let mesh = Mesh::start(lab)?;
        let gap = outage(lab, &mesh, || nat.run("conntrack -F").map(drop))?;
        figure("outage when a NAT forgets its mappings, s", gap.as_secs_f64());
        mesh.connected(RECOVER)
    })
}
