//! Larger packets where the path takes them, and no stall where it does not.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::daemon::figure;
use qanah_tests::lab::{Lab, Underlay, in_lab_over};
use qanah_tests::link::{Link, Queue, Way};
use qanah_tests::mesh::{Mesh, RECOVER};
use qanah_tests::ping::Pinger;
use qanah_tests::tcp::transfer;
use qanah_tests::wait::{eventually, secs};

/// SCTP packets that fit every path, and those for a path of 1500 bytes.
const BASE: u64 = qanah_tests::mesh::BASE_PACKET;
const FULL: u64 = 1412;

const MIB: usize = 1024 * 1024;

fn is_long() -> bool {
    std::env::var_os("QANAH_LONG").is_some()
}

/// A path that takes packets of `mtu` bytes, and says so by ICMP or not.
fn narrow(mtu: usize, tell_mtu: bool) -> Way {
    Way { mtu: Some(mtu), tell_mtu, ..Way::default() }
}

/// Two connected nodes, a link that can be made narrow between them, and pings that go on.
fn with_path(
    underlay: Underlay,
    way: Way,
    test: impl FnOnce(&Lab, &Mesh, &Link, &Pinger) -> Result<()>,
) -> Result<()> {
    in_lab_over(underlay, 2, |lab| {
        let link = Link::attach(lab, lab.node(2)?, 11)?;
        link.set(way)?;
        let mesh = Mesh::start(lab)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
        test(lab, &mesh, &link, &pinger)
    })
}

fn packet_sizes(mesh: &Mesh) -> Result<[Option<u64>; 2]> {
    let size = |n: usize| -> Result<_> {
        Ok(mesh.daemon(n)?.status()?.peer(&format!("peer{}", 3 - n))?.packet_size())
    };
    Ok([size(1)?, size(2)?])
}

/// Waits until both ends send packets of this size.
fn grown_to(mesh: &Mesh, size: u64) -> Result<()> {
    eventually(&format!("packets of {size} bytes"), RECOVER, || {
        let sizes = packet_sizes(mesh)?;
        ensure!(sizes == [Some(size); 2], "{sizes:?}");
        Ok(())
    })
}

/// Waits until one of the daemons has found that a larger size does not pass.
fn refused(mesh: &Mesh) -> Result<()> {
    eventually("a larger size is refused", RECOVER, || {
        let logs = [mesh.daemon(1)?.log(), mesh.daemon(2)?.log()];
        ensure!(logs.iter().any(|log| log.contains("does not take packets of")), "it is not");
        Ok(())
    })
}

/// A transfer each way.
fn transfers(mesh: &Mesh, size: usize) -> Result<()> {
    let (one, two) = (mesh.daemon(1)?.place(), mesh.daemon(2)?.place());
    transfer(one, two, &inner4(2), size)?;
    transfer(two, one, &inner6(1), size)?;
    Ok(())
}

/// The longest time without an answer to the pings, of ten a second.
fn ensure_no_gap(pinger: &Pinger) -> Result<()> {
    let gap = pinger.longest_gap();
    // What works goes on beside the attempt. A busy machine may be late.
    ensure!(gap < secs(2), "no answer for {gap:?}");
    Ok(())
}

fn a_path_of_1500_is_used(underlay: Underlay) -> Result<()> {
    with_path(underlay, Way::default(), |_, mesh, _, pinger| {
        grown_to(mesh, FULL)?;
        transfers(mesh, 16 * MIB)?;
        ensure_no_gap(pinger)?;
        ensure!(packet_sizes(mesh)? == [Some(FULL); 2], "it did not last");
        Ok(())
    })
}

#[test]
fn packets_grow_on_a_path_of_1500_bytes() -> Result<()> {
    a_path_of_1500_is_used(Underlay::V4)
}

#[test]
fn packets_grow_on_an_ipv6_path_of_1500_bytes() -> Result<()> {
    a_path_of_1500_is_used(Underlay::V6)
}

fn a_path_of_1280_works(underlay: Underlay, tells: bool) -> Result<()> {
    with_path(underlay, narrow(1280, tells), |_, mesh, link, pinger| {
        refused(mesh)?;
        transfers(mesh, 4 * MIB)?;
        ensure_no_gap(pinger)?;
        ensure!(packet_sizes(mesh)? == [Some(BASE); 2], "{:?}", packet_sizes(mesh)?);
        let counts = link.counts()?;
        let too_big: u64 = counts.iter().map(|counts| counts.too_big).sum();
        figure("packets that were too large for a path of 1280 bytes", too_big);
        // Some probes, each sent a few times. Data would be thousands.
        ensure!((1..200).contains(&too_big), "{counts:?}");
        Ok(())
    })
}

#[test]
fn a_path_of_1280_bytes_that_says_nothing_goes_on_as_it_was() -> Result<()> {
    a_path_of_1280_works(Underlay::V4, false)
}

#[test]
fn a_path_of_1280_bytes_that_tells_goes_on_as_it_was() -> Result<()> {
    a_path_of_1280_works(Underlay::V6, true)?;
    if is_long() {
        a_path_of_1280_works(Underlay::V4, true)?;
        a_path_of_1280_works(Underlay::V6, false)?;
    }
    Ok(())
}

/// A path becomes smaller in the middle of a transfer.
fn a_path_that_changes(underlay: Underlay, tells: bool) -> Result<()> {
    // Slow, so that the transfer lasts.
    let rated = |way: Way| way.rated(30_000_000, Queue::Time(Duration::from_millis(50)));
    with_path(underlay, rated(Way::default()), |_, mesh, link, pinger| {
        grown_to(mesh, FULL)?;
        let before = pinger.answers();
        let (one, two) = (mesh.daemon(1)?.place(), mesh.daemon(2)?.place());
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| transfer(one, two, &inner4(2), 24 * MIB));
            eventually("the transfer is under way", secs(20), || {
                ensure!(pinger.answers() >= before + 15, "{}", pinger.answers());
                Ok(())
            })?;
            link.set(rated(narrow(1280, tells)))?;
            grown_to(mesh, BASE)?;
            transfer.join().map_err(|_| anyhow!("the transfer panicked"))?
        })?;
        let gap = pinger.longest_gap();
        let (how, family) = (if tells { "telling" } else { "silently" }, underlay);
        figure(
            &format!("outage when the path shrinks {how} over {family:?}, s"),
            gap.as_secs_f64(),
        );
        ensure!(gap < secs(12), "an outage of {gap:?}");
        transfers(mesh, 2 * MIB)
    })
}

#[test]
fn a_path_that_becomes_smaller_in_a_transfer_is_an_outage_of_seconds() -> Result<()> {
    a_path_that_changes(Underlay::V4, false)?;
    if is_long() {
        a_path_that_changes(Underlay::V4, true)?;
        a_path_that_changes(Underlay::V6, true)?;
    }
    Ok(())
}

#[test]
fn an_ipv6_path_that_becomes_smaller_in_a_transfer_is_an_outage_of_seconds() -> Result<()> {
    a_path_that_changes(Underlay::V6, false)
}

#[test]
fn a_path_between_two_sizes_is_found() -> Result<()> {
    // What fits there beside the headers of IPv4 is 1395 bytes; of that 1384 is probed.
    with_path(Underlay::V4, narrow(1460, false), |_, mesh, _, pinger| {
        grown_to(mesh, 1384)?;
        transfers(mesh, 8 * MIB)?;
        ensure_no_gap(pinger)
    })
}
