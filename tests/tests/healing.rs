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

/// What a change of the network may cost. A path that is silent is left after 8 s, so this is not about how fast
/// the machine is: either the change acts at once or this is not kept.
const AT_ONCE: Duration = secs(3);

/// Changes the network, and wants that to be an outage of less than [`AT_ONCE`].
fn heals_at_once(
    lab: &Lab,
    mesh: &Mesh,
    what: &str,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let gap = outage(lab, mesh, change)?;
    figure(&format!("outage when {what}, s"), gap.as_secs_f64());
    ensure!(gap < AT_ONCE, "{what}: no answer for {gap:?}");
    mesh.connected(CONNECT)
}

#[test]
fn another_address_is_an_outage_of_seconds() -> Result<()> {
    // Whichever end it is: one of the two decides which candidates are used.
    for moves in [1, 2] {
        in_lab_over(Underlay::V4, 2, |lab| {
            let mesh = Mesh::start(lab)?;
            let node = lab.node(moves)?;
            for to_other in [true, false] {
                let what = format!("the address of node {moves} changes");
                heals_at_once(lab, &mesh, &what, || node.move_address(to_other))?;
            }
            mesh.connected(RECOVER)
        })?;
    }
    Ok(())
}

#[test]
fn an_address_beside_the_old_one_is_no_outage_and_takes_over() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let mesh = Mesh::start(lab)?;
        let two = lab.node(2)?;
        let (old, new) = (two.outer4(), two.other4());
        heals_at_once(lab, &mesh, "there is a second address", || {
            two.place().run(&format!("ip addr add {new}/24 dev eth0")).map(drop)
        })?;
        heals_at_once(lab, &mesh, "the first of two addresses goes", || {
            two.place()
                .shell(&format!(
                    "ip addr del {old}/24 dev eth0; ip addr replace {new}/24 dev eth0
                     ip route replace default via {HUB4}"
                ))
                .map(drop)
        })?;
        mesh.connected(RECOVER)
    })
}

#[test]
fn an_interface_that_goes_down_and_up_is_an_outage_of_seconds() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = Mesh::start(lab)?;
        for n in [1, 2] {
            let node = lab.node(n)?;
            let what = format!("an interface of node {n} is down for 1 s");
            heals_at_once(lab, &mesh, &what, || {
                node.link_down()?;
                std::thread::sleep(secs(1));
                node.link_up(lab.underlay())
            })?;
        }
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
