//! Peers that do not reach each other, and one that reaches both.

use anyhow::{Result, ensure};
use qanah_tests::conf::inner4;
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::wait::{eventually, secs};

/// Three nodes in a chain: the first and the last never reach each other.
fn chain(lab: &Lab) -> Result<Mesh> {
    lab.node(1)?.cut_from(lab.node(3)?)?;
    let mut mesh = Mesh::prepare(lab)?;
    for n in 1..=3 {
        mesh.up(lab, n)?;
    }
    Ok(mesh)
}

/// Waits until node `from` goes to node `to` by `via`.
fn relayed(mesh: &Mesh, from: usize, to: usize, via: usize) -> Result<()> {
    eventually(&format!("peer{from} reaches peer{to} via peer{via}"), CONNECT, || {
        let status = mesh.daemon(from)?.status()?;
        let peer = status.peer(&format!("peer{to}"))?;
        ensure!(peer.via() == Some(format!("peer{via}")), "{status}");
        Ok(())
    })
}

#[test]
fn a_chain_of_three_pings_through_the_middle() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        relayed(&mesh, 1, 3, 2)?;
        relayed(&mesh, 3, 1, 2)?;
        mesh.ping_all()?;
        let _ = (inner4(1), secs(1));
        println!("{}", qanah_tests::daemon::qanahctl(mesh.daemon(1)?.place(), &["status"])?.out);
        println!("{}", qanah_tests::daemon::qanahctl(mesh.daemon(2)?.place(), &["status"])?.out);
        Ok(())
    })
}
