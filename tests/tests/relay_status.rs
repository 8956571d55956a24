//! What is said of relayed traffic, at its ends and at the relay, and what a relay that gets more than it can
//! pass on does.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use qanah_tests::conf::{inner4, name};
use qanah_tests::daemon::{figure, qanahctl};
use qanah_tests::lab::in_lab;
use qanah_tests::link::{Link, Queue, Way};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::Pinger;
use qanah_tests::shapes::{chain, chain_of};
use qanah_tests::tcp::transfer;
use qanah_tests::udp::{Stream, stream};
use qanah_tests::wait::{eventually, secs};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits until the round-trip time that node `from` tells for node `to` is one of these milliseconds.
fn tells_rtt(mesh: &Mesh, from: usize, to: usize, wanted: Range<u64>) -> Result<u64> {
    eventually(&format!("peer{from} tells {wanted:?} ms to peer{to}"), secs(60), || {
        let status = mesh.daemon(from)?.status()?;
        let micros = status.peer(&name(to))?.rtt_micros();
        let micros = micros.ok_or_else(|| anyhow::anyhow!("no time in {status}"))?;
        // Earlier than light no answer comes, not even at first.
        ensure!(micros >= wanted.start * 1000, "{micros} us");
        ensure!(micros < wanted.end * 1000, "{micros} us");
        Ok(micros / 1000)
    })
}

#[test]
fn the_time_by_a_relay_is_that_of_the_whole_way() -> Result<()> {
    in_lab(3, |lab| {
        let links = [Link::attach(lab, lab.node(1)?, 5)?, Link::attach(lab, lab.node(3)?, 6)?];
        // A round trip goes over each link twice.
        links[0].set(Way::delayed(ms(40)))?;
        links[1].set(Way::delayed(ms(60)))?;
        let mesh = chain(lab)?;
        for (from, to) in [(1, 3), (3, 1)] {
            mesh.first_ping(from, to, CONNECT)?;
            mesh.relayed(from, to, &[2], CONNECT)?;
            tells_rtt(&mesh, from, 2, if from == 1 { 80..200 } else { 120..200 })?;
            let rtt = tells_rtt(&mesh, from, to, 200..390)?;
            figure("round trip told for a relayed way of 200 ms, ms", rtt);
        }
        let said = qanahctl(mesh.daemon(1)?.place(), &["status"])?;
        let row = said.out.lines().find(|line| line.contains("via peer2")).unwrap_or_default();
        let told = |ms: u64| row.contains(&format!("{ms} ms")) || row.contains(&format!("{ms}."));
        ensure!((200..390).any(told), "{said:?}");
        Ok(())
    })
}

/// What node `own` has received from and sent to node `other`, in bytes.
fn bytes(mesh: &Mesh, own: usize, other: usize) -> Result<(u64, u64)> {
    Ok(mesh.daemon(own)?.status()?.peer(&name(other))?.bytes())
}

#[test]
fn relayed_traffic_counts_at_its_ends_and_in_the_relays_books() -> Result<()> {
    const TOTAL: u64 = 4 << 20;
    /// What the answers to the transfer and the tunnel's own words may be.
    const LITTLE: u64 = TOTAL / 8;
    /// With all headers.
    const MUCH: Range<u64> = TOTAL..TOTAL + TOTAL / 4;
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.relayed(1, 3, &[2], CONNECT)?;
        mesh.relayed(3, 1, &[2], CONNECT)?;
        let pairs = [(1, 3), (3, 1), (1, 2), (3, 2), (2, 1), (2, 3)];
        let all = || pairs.iter().map(|(a, b)| bytes(&mesh, *a, *b)).collect::<Result<Vec<_>>>();
        let carried = |from: &str, to: &str| mesh.daemon(2)?.status()?.carried(from, to);
        let before = (all()?, carried("peer1", "peer3")?, carried("peer3", "peer1")?);
        let [one, three] = [mesh.daemon(1)?.place(), mesh.daemon(3)?.place()];
        transfer(one, three, &inner4(3), usize::try_from(TOTAL)?)?;
        let after = (all()?, carried("peer1", "peer3")?, carried("peer3", "peer1")?);
        for (pair, (before, after)) in pairs.iter().zip(before.0.iter().zip(&after.0)) {
            let (received, sent) = (after.0 - before.0, after.1 - before.1);
            let is = match pair {
                (1, 3) => MUCH.contains(&sent) && received < LITTLE,
                (3, 1) => MUCH.contains(&received) && sent < LITTLE,
                // Between an end and the relay, neither counts what is the other end's.
                _ => received < LITTLE && sent < LITTLE,
            };
            ensure!(is, "{pair:?}: {received} received, {sent} sent");
        }
        let there = after.1.bytes - before.1.bytes;
        let back = after.2.bytes - before.2.bytes;
        ensure!(MUCH.contains(&there) && back > 0 && back < LITTLE, "{there} there, {back} back");
        Ok(())
    })
}

/// 1 and 4 reach 3 by 2 alone, whose link to the others is slow. What 1 sends to 3 is twice of what that carries.
#[test]
fn a_relay_with_a_slow_link_drops_the_flood_and_carries_all_else() -> Result<()> {
    in_lab(4, |lab| {
        lab.node(4)?.cut_from(lab.node(3)?)?;
        let link = Link::attach(lab, lab.node(2)?, 7)?;
        let mesh = chain_of(lab, Mesh::prepare(lab)?)?;
        for from in [1, 4] {
            mesh.first_ping(from, 3, CONNECT)?;
            mesh.relayed(from, 3, &[2], CONNECT)?;
        }
        let slow = Way::default().rated(10_000_000, Queue::Time(ms(50)));
        link.set_each(slow, Way::default())?;
        let place = |n| anyhow::Ok(mesh.daemon(n)?.place());
        // What comes from 1 to 2 waits behind the flood in the channel of 1: that is its own affair.
        let others = [(2, 3), (2, 4), (4, 3), (1, 4)];
        let pingers = others.map(|(from, to)| Pinger::start(lab, place(from)?, &inner4(to)));
        let flood = Stream { payload: 1200, rate: 2e7, time: secs(10) };
        let outcome = stream(place(1)?, place(3)?, &inner4(3), flood)?;
        for ((from, to), pinger) in others.iter().zip(pingers) {
            let stats = pinger?.finish()?;
            let mean = stats.mean_ms.unwrap_or(f64::MAX);
            let (sent, lost) = (stats.sent, stats.lost());
            figure(
                &format!("pings {from} to {to} beside a flood by relay 2"),
                format!("{lost} of {sent} lost, mean {mean:.0} ms"),
            );
            // Something is lost where the link's queue is full. On a busy machine what waits may wait for so long
            // that a relayed session is taken for silent for a while, the relay's own is not.
            let least = if *from == 2 { sent * 4 / 5 } else { sent / 3 };
            ensure!(sent - lost >= least, "{from} to {to}: {}", stats.text);
        }
        ensure!(link.overruns()? == 0, "the emulator could not keep up: {:?}", link.counts()?);
        let status = mesh.daemon(2)?.status()?;
        let carried = status.carried("peer1", "peer3")?;
        figure(
            "flood by a relay with a link of 10 Mbit/s, Mbit/s",
            format!(
                "{:.1} sent, {:.1} arrived, {} frames dropped by the relay",
                outcome.offered / 1e6,
                outcome.arrived / 1e6,
                carried.dropped
            ),
        );
        ensure!(carried.dropped > 100, "{status}");
        ensure!(status.peer("peer1")?.dropped("relay_full") > 100, "{status}");
        ensure!(status.carried("peer4", "peer3")?.dropped == 0, "{status}");
        mesh.ping_all()
    })
}
