//! `--no-relay` in each role, for peers that know each other and for those that do not.

use std::time::Duration;

use anyhow::{Result, ensure};
use qanah_tests::conf::{inner4, inner6, name};
use qanah_tests::daemon::qanahctl;
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::Mesh;
use qanah_tests::ping::ping;
use qanah_tests::shapes::{chain_without_relaying_at, strangers_without_relaying_at};
use qanah_tests::wait::{always, secs};

/// How long what must not happen is looked for.
const LOOK: Duration = secs(8);

/// For a while nothing gets from 1 to 3 or back.
fn nothing_passes(mesh: &Mesh) -> Result<()> {
    always("nothing passes between 1 and 3", LOOK, || {
        for (from, to) in [(1, 3), (3, 1)] {
            for address in [inner4(to), inner6(to)] {
                let stats = ping(mesh.daemon(from)?.place(), &format!("-c 1 -W 0.3 {address}"))?;
                ensure!(stats.received == 0, "{}", stats.text);
            }
        }
        Ok(())
    })
}

/// Node `off` says that it does not relay, the others that they do, and nobody has carried anything.
fn says_so(mesh: &Mesh, off: usize) -> Result<()> {
    for n in 1..=3 {
        let status = mesh.daemon(n)?.status()?;
        let relaying = status.field("relaying")?;
        ensure!(relaying.is_null() == (n == off), "peer{n}: {relaying}");
        if n != off {
            let pairs = relaying.get("pairs").and_then(|pairs| pairs.as_array());
            // What was refused is in the books as well; carried was nothing.
            for (from, to) in [("peer1", "peer3"), ("peer3", "peer1")] {
                ensure!(status.carried(from, to)?.bytes == 0, "{pairs:?}");
            }
        }
    }
    let said = qanahctl(mesh.daemon(off)?.place(), &["status"])?;
    let text: Vec<&str> = said.out.split_whitespace().collect();
    ensure!(text.join(" ").contains("relaying off"), "{said:?}");
    Ok(())
}

/// Neighbours reach each other as ever.
fn neighbours(mesh: &Mesh) -> Result<()> {
    for (from, to) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        let place = mesh.daemon(from)?.place();
        ping(place, &format!("-c 3 -i 0.3 -W 3 {}", inner4(to)))?.ensure_all()?;
    }
    Ok(())
}

/// Peers that know each other and do not reach each other.
fn known(off: usize) -> Result<()> {
    in_lab(3, |lab| {
        let mesh = chain_without_relaying_at(lab, off)?;
        nothing_passes(&mesh)?;
        for (own, other) in [(1, 3), (3, 1)] {
            let status = mesh.daemon(own)?.status()?;
            ensure!(!status.peer(&name(other))?.connected()?, "{status}");
        }
        says_so(&mesh, off)?;
        neighbours(&mesh)
    })
}

/// Peers that do not know each other.
fn unknown(off: usize) -> Result<()> {
    in_lab(3, |lab| {
        let mesh = strangers_without_relaying_at(lab, Some(off))?;
        nothing_passes(&mesh)?;
        says_so(&mesh, off)?;
        neighbours(&mesh)
    })
}

#[test]
fn at_an_end_it_uses_none() -> Result<()> {
    known(1)
}

#[test]
fn in_the_middle_it_is_none() -> Result<()> {
    known(2)
}

#[test]
fn at_the_other_end_it_is_not_reached_by_one() -> Result<()> {
    known(3)
}

#[test]
fn at_an_end_nothing_is_sent_to_be_routed() -> Result<()> {
    unknown(1)
}

#[test]
fn in_the_middle_nothing_is_routed() -> Result<()> {
    unknown(2)
}

#[test]
fn at_the_other_end_nothing_routed_is_taken() -> Result<()> {
    unknown(3)
}
