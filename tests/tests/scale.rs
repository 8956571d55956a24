//! One daemon with two hundred configured peers, of which twenty are there.

use std::time::Instant;

use anyhow::{Result, ensure};
use qanah_tests::conf::{Identity, PeerConf, inner4, inner6, name};
use qanah_tests::daemon::{Daemon, Options, figure};
use qanah_tests::lab::{Underlay, in_lab_over};
use qanah_tests::measure::costs;
use qanah_tests::mesh::RECOVER;
use qanah_tests::ping::first_ping;
use qanah_tests::servers::MQTT_PORT;
use qanah_tests::wait::{eventually, secs};

/// Configured at the one daemon.
const CONFIGURED: usize = 200;
/// Of these there are.
const ONLINE: usize = 20;

#[test]
fn two_hundred_configured_peers_of_which_twenty_are_there() -> Result<()> {
    let long = std::env::var_os("QANAH_LONG").is_some();
    in_lab_over(Underlay::V4, ONLINE + 1, |lab| {
        let (_broker, _turn) = (lab.broker()?, lab.turn()?);
        let mut confs = lab.mesh();
        for conf in confs.iter_mut().skip(1) {
            conf.peers.retain(|peer| peer.name == name(1));
        }
        let absent = (ONLINE + 2..CONFIGURED + 2).map(|n| PeerConf {
            name: name(n),
            public: Identity::generate().public,
            preshared: None,
            allowed: vec![format!("{}/32", inner4(n)), format!("{}/128", inner6(n))],
        });
        confs[0].peers.extend(absent);
        ensure!(confs[0].peers.len() == CONFIGURED);
        let options = Options::of(lab).log_level("info");
        let mut others = Vec::new();
        for (node, conf) in lab.nodes().iter().zip(&confs).skip(1) {
            others.push(Daemon::start_with(lab, node, conf, &options)?);
        }
        let start = Instant::now();
        let one = Daemon::start_with(lab, lab.node(1)?, &confs[0], &options)?;
        figure("start with 200 configured peers, s", start.elapsed().as_secs_f64());
        let names: Vec<_> = (2..ONLINE + 2).map(name).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        one.connected(&names, RECOVER)?;
        figure("until the 20 that are there are connected, s", start.elapsed().as_secs_f64());
        for n in [2, ONLINE / 2, ONLINE + 1] {
            first_ping(one.place(), &inner4(n), RECOVER)?;
        }
        let connections = || {
            let lines =
                one.place().run(&format!("ss -Htn state established dport = :{MQTT_PORT}"))?;
            ensure!(lines.lines().count() == 1, "not one connection to the broker: {lines}");
            Ok(())
        };
        eventually("one connection to the broker", secs(5), connections)?;
        // At rest.
        let span = secs(if long { 300 } else { 20 });
        let recorder = lab.recorder()?;
        let cost = costs(&[one.pid()], span)?;
        let said = recorder.messages()?.len();
        figure(
            &format!("idle with 20 of 200 peers connected, mean of {} s", span.as_secs()),
            format!(
                "CPU {:.2} % of a core, RSS {:.1} MB, {:.0} messages a minute by the broker",
                cost[0].cpu_percent,
                cost[0].rss_mb,
                said as f64 * 60.0 / span.as_secs_f64()
            ),
        );
        ensure!(cost[0].rss_mb < 200.0, "{cost:?}");
        connections()
    })
}
