//! A changed configuration, taken on by daemons whose tunnels go on.

use anyhow::{Context, Result, ensure};
use qanah_proto::v1::{ReloadRequest, ReloadResponse};
use qanah_tests::conf::{inner4, inner6, preshared_key};
use qanah_tests::daemon::socket;
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::shapes::chain_of;
use qanah_tests::wait::{always, eventually, secs};

/// Writes the configuration of node `n` as it is now and has it taken on.
fn reload(lab: &Lab, mesh: &Mesh, n: usize) -> Result<ReloadResponse> {
    let conf = mesh.conf(n)?;
    lab.write_conf(conf)?;
    let socket = socket(mesh.daemon(n)?.place(), &conf.name);
    let request = ReloadRequest { tunnel: conf.name.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = runtime.block_on(async {
        let mut client = qanah_proto::connect(&socket).await?;
        anyhow::Ok(client.reload(request).await?.into_inner())
    });
    response.with_context(|| format!("reload of {n}"))
}

#[test]
fn peers_come_and_go_and_the_others_lose_no_ping() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        // Node 3 is not there yet.
        let third = mesh.conf(1)?.peers.iter().find(|p| p.name == "peer3").cloned();
        let third = third.context("no peer3")?;
        mesh.conf_mut(1)?.peers.retain(|peer| peer.name != "peer3");
        for n in 1..=3 {
            mesh.up(lab, n)?;
        }
        mesh.daemon(1)?.connected(&["peer2"], CONNECT)?;
        let one = mesh.daemon(1)?.place();
        let pingers = [Pinger::start(lab, one, &inner4(2))?, Pinger::start(lab, one, &inner6(2))?];
        let handshake = |mesh: &Mesh| -> Result<String> {
            // The session of a peer that is not touched has the same two ends.
            Ok(mesh.daemon(1)?.status()?.peer("peer2")?.path())
        };
        let path = handshake(&mesh)?;

        ensure!(reload(lab, &mesh, 1)?.changes.is_empty(), "nothing was changed");
        // Before the other, so that the order of the file is another one, too.
        mesh.conf_mut(1)?.peers.insert(0, third);
        let changes = reload(lab, &mesh, 1)?.changes;
        ensure!(changes.iter().any(|change| change == "peer peer3 added"), "{changes:?}");
        mesh.daemon(1)?.connected(&["peer2", "peer3"], CONNECT)?;
        ping(one, &format!("-c 3 -i 0.1 -W 2 {}", inner4(3)))?.ensure_all()?;

        mesh.conf_mut(1)?.extra.push("MTU = 1380".to_owned());
        mesh.conf_mut(1)?.addresses.push("10.7.0.1/24".to_owned());
        let peer = mesh.conf_mut(1)?.peers.iter_mut().find(|p| p.name == "peer2");
        peer.context("no peer2")?.allowed.push("10.66.0.0/16".to_owned());
        let changes = reload(lab, &mesh, 1)?.changes;
        ensure!(changes.len() == 4, "{changes:?}");
        let footprint = one.footprint()?;
        for wanted in ["mtu 1380", "10.7.0.1/24", "10.66.0.0/16"] {
            ensure!(footprint.contains(wanted), "no {wanted} in\n{footprint}");
        }

        mesh.conf_mut(1)?.peers.retain(|peer| peer.name != "peer3");
        let changes = reload(lab, &mesh, 1)?.changes;
        ensure!(changes == ["peer peer3 removed"], "{changes:?}");
        let gone = ping(one, &format!("-c 2 -i 0.1 -W 0.3 {}", inner4(3)));
        ensure!(gone.map_or(true, |stats| stats.received == 0), "peer3 still answers");
        ensure!(handshake(&mesh)? == path, "another path");
        for pinger in pingers {
            pinger.finish()?.ensure_all()?;
        }
        Ok(())
    })
}

#[test]
fn a_changed_preshared_key_connects_again() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::start(lab)?;
        let one = mesh.daemon(1)?.place();
        let pinger = Pinger::start(lab, one, &inner4(3))?;
        let key = preshared_key();
        mesh.preshare((1, &key), (2, &key))?;
        let changes = reload(lab, &mesh, 1)?.changes;
        ensure!(
            changes.len() == 1 && changes.iter().all(|c| c.contains("PresharedKey")),
            "{changes:?}"
        );
        reload(lab, &mesh, 2)?;
        mesh.connected(CONNECT)?;
        mesh.ping_all()?;
        pinger.finish()?.ensure_all()
    })
}

#[test]
fn a_preshared_key_that_changes_remakes_a_relayed_session() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let old = preshared_key();
        mesh.preshare((1, &old), (3, &old))?;
        let mut mesh = chain_of(lab, mesh)?;
        mesh.first_ping(1, 3, CONNECT)?;
        for (from, to) in [(1, 3), (3, 1)] {
            mesh.relayed(from, to, &[2], CONNECT)?;
        }
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        let direct = [Pinger::start(lab, one, &inner4(2))?, Pinger::start(lab, three, &inner4(2))?];

        // One end has the new key, the other the old one: nothing passes, and both know why.
        let new = preshared_key();
        mesh.preshare((1, &new), (3, &new))?;
        let changes = reload(lab, &mesh, 1)?.changes;
        ensure!(
            changes == ["peer peer3 has another PresharedKey and connects again"],
            "{changes:?}"
        );
        always("nothing passes under the old key", secs(8), || {
            for (place, to) in [(one, 3), (three, 1)] {
                let stats = ping(place, &format!("-c 1 -W 0.3 {}", inner4(to)))?;
                ensure!(stats.received == 0, "{}", stats.text);
            }
            Ok(())
        })?;
        for (own, other) in [(1, "peer3"), (3, "peer1")] {
            eventually("the wrong key is told", CONNECT, || {
                let status = mesh.daemon(own)?.status()?;
                let peer = status.peer(other)?;
                ensure!(!peer.connected()? && peer.reason().contains("PresharedKey"), "{status}");
                Ok(())
            })?;
        }

        ensure!(reload(lab, &mesh, 3)?.changes.len() == 1, "not one change");
        mesh.first_ping(1, 3, CONNECT)?;
        for (from, to) in [(1, 3), (3, 1)] {
            mesh.relayed(from, to, &[2], CONNECT)?;
        }
        mesh.ping_all()?;
        direct.into_iter().try_for_each(|pinger| pinger.finish()?.ensure_all())
    })
}
