//! Packets for addresses that nobody here is configured for: a relay routes them, one hop.

use anyhow::{Result, ensure};
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, RECOVER};
use qanah_tests::ping::ping;
use qanah_tests::shapes::strangers;
use qanah_tests::tcp::transfer;
use qanah_tests::wait::eventually;

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

#[test]
fn a_forged_source_is_dropped_by_the_relay() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = strangers(lab)?;
        mesh.first_ping(1, 3, CONNECT)?;
        mesh.spoofed(1, &inner4(3), "10.0.0.99", 2)
    })
}
