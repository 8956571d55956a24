//! Peers that do not reach each other, and others that reach both.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::{inner4, inner6, name};
use qanah_tests::daemon::{Options, figure, qanahctl};
use qanah_tests::hand::pair;
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::tcp::transfer;
use qanah_tests::wait::{always, eventually, secs};

/// How long what must not happen is looked for.
const LOOK: Duration = secs(8);

/// Three nodes in a chain: the first and the last never reach each other.
fn chain(lab: &Lab) -> Result<Mesh> {
    chain_with(lab, Mesh::prepare(lab)?)
}

fn chain_with(lab: &Lab, mut mesh: Mesh) -> Result<Mesh> {
    lab.node(1)?.cut_from(lab.node(3)?)?;
    for node in lab.nodes() {
        mesh.up(lab, node.number())?;
    }
    Ok(mesh)
}

/// Waits until node `from` reaches node `to` by one of these.
fn relayed(mesh: &Mesh, from: usize, to: usize, via: &[usize], limit: Duration) -> Result<usize> {
    eventually(&format!("peer{from} reaches peer{to} by one of {via:?}"), limit, || {
        let status = mesh.daemon(from)?.status()?;
        let found = status.peer(&name(to))?.via();
        let number = via.iter().find(|n| found == Some(name(**n)));
        number.copied().ok_or_else(|| anyhow::anyhow!("{status}"))
    })
}

/// Waits until node `from` reaches node `to` directly.
fn direct(mesh: &Mesh, from: usize, to: usize, limit: Duration) -> Result<()> {
    eventually(&format!("peer{from} reaches peer{to} directly"), limit, || {
        let status = mesh.daemon(from)?.status()?;
        ensure!(status.peer(&name(to))?.is_direct(), "{status}");
        Ok(())
    })
}

#[test]
fn a_chain_of_three_works_through_the_middle_and_says_so() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        for (from, to) in [(1, 3), (3, 1)] {
            relayed(&mesh, from, to, &[2], CONNECT)?;
        }
        mesh.ping_all()?;
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        ping(one, &format!("-c 3 -i 0.3 -W 3 -s 8000 {}", inner6(3)))?.ensure_all()?;
        transfer(one, three, &inner4(3), 4 * 1024 * 1024)?;
        // The time is that of the whole way: longer than that of its first half.
        eventually("a round-trip time by the relay", secs(30), || {
            let status = mesh.daemon(1)?.status()?;
            let rtt = |peer| Ok::<_, anyhow::Error>(status.peer(peer)?.rtt_micros());
            ensure!(rtt("peer3")?.is_some() && rtt("peer2")?.is_some(), "{status}");
            Ok(())
        })?;
        let said = qanahctl(one, &["status"])?;
        ensure!(said.code == 0 && said.out.contains("via peer2"), "{said:?}");
        let relay = qanahctl(mesh.daemon(2)?.place(), &["status"])?;
        for part in ["relaying", "peer1 to peer3", "peer3 to peer1", "at most 256 KiB a pair"] {
            let text: Vec<&str> = relay.out.split_whitespace().collect();
            ensure!(text.join(" ").contains(part), "{part}: {relay:?}");
        }
        // What was carried is in no counter of the relay's own traffic.
        let status = mesh.daemon(2)?.status()?;
        let carried = &status.field("relaying")?["pairs"][0]["bytes"];
        ensure!(carried.as_u64() > Some(4 * 1024 * 1024), "{status}");
        Ok(())
    })
}

#[test]
fn the_direct_path_is_taken_again_when_it_is_there() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        relayed(&mesh, 1, 3, &[2], CONNECT)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        lab.node(1)?.mend_with(lab.node(3)?)?;
        direct(&mesh, 1, 3, RECOVER)?;
        direct(&mesh, 3, 1, secs(10))?;
        pinger.finish()?.ensure_all()
    })
}

#[test]
fn a_link_that_is_cut_is_an_outage_of_seconds() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = Mesh::start(lab)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        eventually("answers", secs(10), || {
            ensure!(pinger.answers() > 20, "{}", pinger.answers());
            Ok(())
        })?;
        lab.node(1)?.cut_from(lab.node(3)?)?;
        relayed(&mesh, 1, 3, &[2], CONNECT)?;
        let before = pinger.answers();
        eventually("answers by the relay", secs(20), || {
            ensure!(pinger.answers() > before + 20, "{}", pinger.answers());
            Ok(())
        })?;
        figure(
            "outage when a link is cut and there is a relay, s",
            pinger.longest_gap().as_secs_f64(),
        );
        Ok(())
    })
}

#[test]
fn a_link_that_works_one_way_is_not_used() -> Result<()> {
    for (deaf, mute) in [(1, 3), (3, 1)] {
        in_lab(3, |lab| {
            let mesh = Mesh::start(lab)?;
            let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
            eventually("answers", secs(10), || {
                ensure!(pinger.answers() > 20, "{}", pinger.answers());
                Ok(())
            })?;
            lab.node(deaf)?.drop_from(lab.node(mute)?)?;
            relayed(&mesh, 1, 3, &[2], CONNECT)?;
            relayed(&mesh, 3, 1, &[2], CONNECT)?;
            let before = pinger.answers();
            eventually("answers by the relay", secs(20), || {
                ensure!(pinger.answers() > before + 20, "{}", pinger.answers());
                Ok(())
            })?;
            let outage = pinger.longest_gap().as_secs_f64();
            figure("outage when a link is cut one way and there is a relay, s", outage);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn when_the_relay_is_killed_another_takes_over() -> Result<()> {
    in_lab(4, |lab| {
        let mut mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.connected(CONNECT)?;
        let relay = relayed(&mesh, 1, 3, &[2, 4], CONNECT)?;
        let other = 6 - relay;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        eventually("answers", secs(10), || {
            ensure!(pinger.answers() > 20, "{}", pinger.answers());
            Ok(())
        })?;
        mesh.take(relay)?.stop(Signal::SIGKILL)?;
        relayed(&mesh, 1, 3, &[other], CONNECT)?;
        relayed(&mesh, 3, 1, &[other], CONNECT)?;
        let before = pinger.answers();
        eventually("answers by the other relay", secs(20), || {
            ensure!(pinger.answers() > before + 20, "{}", pinger.answers());
            Ok(())
        })?;
        figure("outage when a relay is killed, s", pinger.longest_gap().as_secs_f64());
        Ok(())
    })
}

/// A chain in which node `off` has relaying off.
fn without_relaying_at(off: usize) -> Result<()> {
    in_lab(3, |lab| {
        lab.node(1)?.cut_from(lab.node(3)?)?;
        let mut mesh = Mesh::prepare(lab)?;
        for n in 1..=3 {
            let options = Options::of(lab);
            let options = if n == off { options.and(&["--no-relay"]) } else { options };
            mesh = mesh.options(options);
            mesh.up(lab, n)?;
        }
        for (a, b) in [(1, 2), (2, 3)] {
            direct(&mesh, a, b, CONNECT)?;
        }
        always("nothing gets from 1 to 3", LOOK, || {
            let stats = ping(mesh.daemon(1)?.place(), &format!("-c 1 -W 0.5 {}", inner4(3)))?;
            ensure!(stats.received == 0, "{}", stats.text);
            ensure!(!mesh.daemon(1)?.status()?.peer("peer3")?.connected()?, "connected");
            Ok(())
        })?;
        let said = qanahctl(mesh.daemon(off)?.place(), &["status"])?;
        ensure!(said.out.contains("relaying    off"), "{said:?}");
        Ok(())
    })
}

#[test]
fn no_relay_at_an_end_means_that_it_uses_none() -> Result<()> {
    without_relaying_at(1)
}

#[test]
fn no_relay_in_the_middle_means_that_it_is_none() -> Result<()> {
    without_relaying_at(2)
}

#[test]
fn no_relay_at_the_other_end_means_that_it_is_not_reached_by_one() -> Result<()> {
    without_relaying_at(3)
}

/// 1 and 3 do not know each other; 2 knows both.
fn strangers(lab: &Lab) -> Result<Mesh> {
    let mut mesh = Mesh::prepare(lab)?;
    for (own, other) in [(1, 3), (3, 1)] {
        mesh.conf_mut(own)?.peers.retain(|peer| peer.name != name(other));
    }
    for n in 1..=3 {
        mesh.up(lab, n)?;
    }
    for n in [1, 3] {
        mesh.daemon(n)?.connected(&["peer2"], CONNECT)?;
    }
    mesh.daemon(2)?.connected(&["peer1", "peer3"], CONNECT)?;
    Ok(mesh)
}

#[test]
fn who_is_not_configured_is_reached_by_a_relay_as_through_a_router() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = strangers(lab)?;
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        mesh.first_ping(1, 3, CONNECT)?;
        for (place, to) in [(one, 3), (three, 1)] {
            for address in [inner4(to), inner6(to)] {
                ping(place, &format!("-c 3 -i 0.3 -W 3 {address}"))?.ensure_all()?;
            }
        }
        transfer(one, three, &inner4(3), 1024 * 1024)?;
        // One hop less is left on the other side, and a packet that has none left ends at the relay.
        let stats = ping(one, &format!("-c 1 -W 3 {}", inner4(3)))?;
        ensure!(stats.text.contains("ttl=63"), "{}", stats.text);
        for (version, address, relay) in
            [("-4", inner4(3), inner4(2)), ("-6", inner6(3), inner6(2))]
        {
            let stats = ping(one, &format!("{version} -t 1 -c 2 -i 0.3 -W 2 {address}"))?;
            let told = stats.text.contains(&format!("From {relay}"));
            ensure!(stats.received == 0 && told, "{}", stats.text);
            ping(one, &format!("{version} -t 2 -c 1 -W 3 {address}"))?.ensure_all()?;
        }
        // Nobody has that address; the relay's kernel does not forward.
        let nobody = ping(one, "-c 2 -i 0.3 -W 1 10.0.0.77")?;
        ensure!(nobody.received == 0, "{}", nobody.text);
        let status = mesh.daemon(2)?.status()?;
        ensure!(
            status.field("relaying")?["pairs"].as_array().is_some_and(|it| it.len() == 2),
            "{status}"
        );
        Ok(())
    })
}

#[test]
fn a_peer_that_is_gone_is_told_as_unreachable_by_the_relay() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = strangers(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.take(3)?.terminate()?;
        let one = mesh.daemon(1)?.place();
        eventually("the relay says that peer3 is gone", RECOVER, || {
            let stats = ping(one, &format!("-c 1 -W 1 {}", inner4(3)))?;
            let told = stats.text.contains(&format!("From {} ", inner4(2)));
            ensure!(told && stats.text.contains("nreachable"), "{}", stats.text);
            Ok(())
        })
    })
}

/// The source of `from` is forged as that of another peer, by whatever way it takes to `to`.
fn spoofed(mesh: &Mesh, from: usize, to: &str, as_whom: &str, at: usize) -> Result<()> {
    let place = mesh.daemon(from)?.place();
    let dropped = || {
        Ok::<_, anyhow::Error>(
            mesh.daemon(at)?.status()?.peer(&name(from))?.dropped("spoofed_source"),
        )
    };
    let before = dropped()?;
    place.run(&format!("ip addr add {as_whom}/32 dev {}", name(from)))?;
    let stats = ping(place, &format!("-c 5 -i 0.1 -W 1 -I {as_whom} {to}"))?;
    place.run(&format!("ip addr del {as_whom}/32 dev {}", name(from)))?;
    ensure!(stats.received == 0, "{}", stats.text);
    eventually("the drops are counted", secs(10), || {
        let counted = dropped()? - before;
        ensure!(counted >= 5, "{counted}: {}", mesh.daemon(at)?.status()?);
        Ok(())
    })
}

#[test]
fn a_forged_source_is_dropped_by_whatever_way_it_comes() -> Result<()> {
    in_lab(3, |lab| {
        // End to end by a relay: the far end checks.
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        relayed(&mesh, 1, 3, &[2], CONNECT)?;
        spoofed(&mesh, 1, &inner4(3), &inner4(2), 3)
    })?;
    in_lab(3, |lab| {
        // To be routed: the relay checks.
        let mesh = strangers(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        spoofed(&mesh, 1, &inner4(3), "10.0.0.99", 2)
    })
}

#[test]
fn a_broker_that_is_gone_is_not_missed() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        relayed(&mesh, 1, 3, &[2], CONNECT)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        if let Some(broker) = mesh.broker.take() {
            broker.stop()?;
        }
        eventually("everybody has noticed", RECOVER, || {
            for n in 1..=3 {
                ensure!(mesh.daemon(n)?.status()?.brokers_connected()? == 0, "peer{n} has not");
            }
            Ok(())
        })?;
        // A new direct session, by signaling through the mesh alone.
        lab.node(1)?.mend_with(lab.node(3)?)?;
        direct(&mesh, 1, 3, RECOVER)?;
        pinger.finish()?.ensure_all()
    })
}

#[test]
fn a_restarted_peer_comes_back_through_the_one_that_it_is_paired_with() -> Result<()> {
    in_lab(3, |lab| {
        let options = Options::bare().and(&["--stun", &lab.stun_url(), "--signal-server", "none"]);
        let mut mesh = Mesh::prepare(lab)?.options(options);
        drop(mesh.broker.take());
        for n in 1..=3 {
            mesh.up(lab, n)?;
        }
        // Nobody has a broker. 1 and 3 never met; both are paired with 2.
        pair(lab, &mesh, (1, 2), "peer2")?;
        pair(lab, &mesh, (3, 2), "peer2")?;
        direct(&mesh, 1, 3, RECOVER)?;
        mesh.ping_all()?;
        // 3 forgets everything, is paired with 2 again, and finds 1 by that.
        mesh.take(3)?.stop(Signal::SIGKILL)?;
        mesh.up(lab, 3)?;
        pair(lab, &mesh, (3, 2), "peer2")?;
        mesh.first_ping(3, 1, RECOVER)?;
        direct(&mesh, 3, 1, RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_flood_through_a_relay_takes_nothing_from_the_relays_own_traffic() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        relayed(&mesh, 1, 3, &[2], CONNECT)?;
        let two = mesh.daemon(2)?.place();
        // To whom the flood goes, by the same channel.
        let pinger = Pinger::start(lab, two, &inner4(3))?;
        let to = format!("{}:9", inner4(3));
        let flood = mesh.daemon(1)?.place().thread(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            let end = std::time::Instant::now() + secs(8);
            let mut sent = 0_u64;
            while std::time::Instant::now() < end {
                // Refused ones do not count; a full interface is what this is for.
                sent += u64::from(socket.send(&[7; 1200]).is_ok());
            }
            Ok(sent)
        });
        let sent = qanah_tests::ns::join(flood)?;
        eventually("answers", secs(10), || {
            ensure!(pinger.answers() > 50, "{}", pinger.answers());
            Ok(())
        })?;
        pinger.finish()?.ensure_all()?;
        let status = mesh.daemon(2)?.status()?;
        figure(
            "packets of a flood, and what the relay says of it",
            format!("{sent}, {}", status.field("relaying")?),
        );
        mesh.ping_all()
    })
}
