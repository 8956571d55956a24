//! Peers that do not reach each other, and others that reach both.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::daemon::{Options, figure, qanahctl};
use qanah_tests::hand::pair;
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::shapes::chain;
use qanah_tests::talk::Talk;
use qanah_tests::tcp::transfer;
use qanah_tests::wait::{eventually, secs};

#[test]
fn a_chain_of_three_works_through_the_middle_and_says_so() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        for (from, to) in [(1, 3), (3, 1)] {
            mesh.relayed(from, to, &[2], CONNECT)?;
        }
        mesh.ping_all()?;
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        ping(one, &format!("-c 3 -i 0.3 -W 3 -s 8000 {}", inner6(3)))?.ensure_all()?;
        transfer(one, three, &inner4(3), 4 * 1024 * 1024)?;
        let said = qanahctl(one, &["status"])?;
        ensure!(said.code == 0 && said.out.contains("via peer2"), "{said:?}");
        let relay = qanahctl(mesh.daemon(2)?.place(), &["status"])?;
        for part in ["relaying", "peer1 to peer3", "peer3 to peer1", "at most 2.0 MiB a pair"] {
            let text: Vec<&str> = relay.out.split_whitespace().collect();
            ensure!(text.join(" ").contains(part), "{part}: {relay:?}");
        }
        Ok(())
    })
}

#[test]
fn the_direct_path_is_taken_again_when_it_is_there() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        lab.node(1)?.mend_with(lab.node(3)?)?;
        mesh.direct(1, 3, RECOVER)?;
        mesh.direct(3, 1, secs(10))?;
        pinger.finish()?.ensure_all()
    })
}

/// Whether what a connection from node 1 to node 3 says goes through node 2, as that itself has it.
fn goes_by_relay(mesh: &Mesh, talk: &mut Talk) -> Result<bool> {
    const TIMES: u64 = 50;
    let carried =
        || Ok::<_, anyhow::Error>(mesh.daemon(2)?.status()?.carried("peer1", "peer3")?.bytes);
    let before = carried()?;
    for _ in 0..TIMES {
        talk.goes_on()?;
    }
    // The headers of IP and TCP alone are so many bytes; the pings of a relayed session that is not used any more
    // are far fewer.
    Ok(carried()? - before >= TIMES * 40)
}

#[test]
fn a_tcp_connection_by_a_relay_moves_to_a_direct_path_and_back() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
        mesh.relayed(3, 1, &[2], CONNECT)?;
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        let mut talk = Talk::begin(one, three, &inner4(3))?;
        ensure!(goes_by_relay(&mesh, &mut talk)?, "whereby does it go?");
        lab.node(1)?.mend_with(lab.node(3)?)?;
        mesh.direct(1, 3, RECOVER)?;
        mesh.direct(3, 1, RECOVER)?;
        ensure!(!goes_by_relay(&mesh, &mut talk)?, "there is a direct path");
        lab.node(1)?.cut_from(lab.node(3)?)?;
        mesh.relayed(1, 3, &[2], RECOVER)?;
        mesh.relayed(3, 1, &[2], RECOVER)?;
        ensure!(goes_by_relay(&mesh, &mut talk)?, "whereby does it go?");
        Ok(())
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
        mesh.relayed(1, 3, &[2], CONNECT)?;
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
            mesh.relayed(1, 3, &[2], CONNECT)?;
            mesh.relayed(3, 1, &[2], CONNECT)?;
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
        let relay = mesh.relayed(1, 3, &[2, 4], CONNECT)?;
        let other = 6 - relay;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(3))?;
        eventually("answers", secs(10), || {
            ensure!(pinger.answers() > 20, "{}", pinger.answers());
            Ok(())
        })?;
        mesh.take(relay)?.stop(Signal::SIGKILL)?;
        mesh.relayed(1, 3, &[other], CONNECT)?;
        mesh.relayed(3, 1, &[other], CONNECT)?;
        let before = pinger.answers();
        eventually("answers by the other relay", secs(20), || {
            ensure!(pinger.answers() > before + 20, "{}", pinger.answers());
            Ok(())
        })?;
        figure("outage when a relay is killed, s", pinger.longest_gap().as_secs_f64());
        Ok(())
    })
}

#[test]
fn a_broker_that_is_gone_is_not_missed() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
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
        mesh.direct(1, 3, RECOVER)?;
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
        mesh.direct(1, 3, RECOVER)?;
        mesh.ping_all()?;
        // 3 forgets everything, is paired with 2 again, and finds 1 by that.
        mesh.take(3)?.stop(Signal::SIGKILL)?;
        mesh.up(lab, 3)?;
        pair(lab, &mesh, (3, 2), "peer2")?;
        mesh.first_ping(3, 1, RECOVER)?;
        mesh.direct(3, 1, RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_flood_through_a_relay_takes_nothing_from_the_relays_own_traffic() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
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

#[test]
fn a_forged_source_by_a_relay_is_dropped_at_the_far_end() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
        mesh.spoofed(1, &inner4(3), &inner4(2), 3)
    })
}
