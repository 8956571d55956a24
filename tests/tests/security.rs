//! What others send, on the broker or through the tunnel, gains them nothing.
//!
//! A recorded frame that is sent again is stopped by DTLS before it comes to us, so replayed frames
//! are tested where frames are opened, in `qanah-core`.

use std::fmt::Write as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use qanah_tests::conf::{Identity, inner4, preshared_key};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::measure::resident;
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::servers::{Recorded, Recorder, publish};
use qanah_tests::wait::{always, eventually, secs};

/// How long we look whether something happens that must not.
const LOOK: std::time::Duration = secs(5);

#[test]
fn a_wrong_public_key_does_not_connect() -> Result<()> {
    in_lab(3, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let wrong = Identity::generate().public;
        let peer = mesh.conf_mut(1)?.peers.iter_mut().find(|p| p.name == "peer2");
        peer.context("no peer2")?.public = wrong;
        for n in 1..=3 {
            mesh.up(lab, n)?;
        }
        mesh.daemon(1)?.connected(&["peer3"], CONNECT)?;
        mesh.daemon(2)?.connected(&["peer3"], CONNECT)?;
        always("1 and 2 are strangers", LOOK, || {
            ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "1 has 2");
            ensure!(!mesh.daemon(2)?.status()?.peer("peer1")?.connected()?, "2 has 1");
            Ok(())
        })?;
        let stats = ping(mesh.daemon(1)?.place(), &format!("-c 2 -i 0.2 -W 1 {}", inner4(2)))?;
        ensure!(stats.received == 0, "{}", stats.text);
        Ok(())
    })
}

#[test]
fn a_wrong_preshared_key_is_called_by_its_name() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        mesh.preshare((1, &preshared_key()), (2, &preshared_key()))?;
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        let words = "PresharedKey differs, or forged";
        eventually("both say what is wrong", CONNECT, || {
            for (n, peer) in [(1, "peer2"), (2, "peer1")] {
                let daemon = mesh.daemon(n)?;
                let status = daemon.status()?;
                ensure!(status.peer(peer)?.reason().contains(words), "{n} says {status}");
                ensure!(daemon.log().contains(words), "the log of {n} does not say so");
            }
            Ok(())
        })?;
        always("no connection", LOOK, || {
            ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "there is one");
            Ok(())
        })
    })
}

#[test]
fn a_peer_with_anothers_inner_address_is_dropped_and_counted() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = Mesh::start(lab)?;
        let (one, three) = (mesh.daemon(1)?.place(), mesh.daemon(3)?.place());
        one.shell(
            "nft add table inet seen
             nft 'add chain inet seen in { type filter hook input priority 0; }'
             nft add rule inet seen in iifname peer1 ip saddr 10.0.0.2 icmp type echo-request counter",
        )?;
        let seen = || one.run("nft list table inet seen");
        // The counter works: an honest ping is seen.
        ping(mesh.daemon(2)?.place(), "-c 1 -W 3 10.0.0.1")?.ensure_all()?;
        ensure!(seen()?.contains("packets 1 "), "{}", seen()?);
        let cause = "spoofed_source";
        let before = mesh.daemon(1)?.status()?.peer("peer3")?.dropped(cause);
        three.run("ip addr add 10.0.0.2/32 dev peer3")?;
        let spoofed = ping(three, "-c 5 -i 0.1 -W 1 -I 10.0.0.2 10.0.0.1")?;
        ensure!(spoofed.received == 0, "{}", spoofed.text);
        eventually("the drops are counted", secs(10), || {
            let status = mesh.daemon(1)?.status()?;
            let drops = status.peer("peer3")?.dropped(cause) - before;
            ensure!(drops >= 5, "{drops}: {status}");
            Ok(())
        })?;
        ensure!(seen()?.contains("packets 1 "), "a spoofed packet came through: {}", seen()?);
        three.run("ip addr del 10.0.0.2/32 dev peer3")?;
        mesh.ping_all()
    })
}

/// Fails when the session of 1 and 2 is not that of `before` any more.
fn same_session(mesh: &Mesh, before: &mut [u64; 2]) -> Result<()> {
    for (n, (peer, age)) in ["peer2", "peer1"].iter().zip(before).enumerate() {
        let status = mesh.daemon(n + 1)?.status()?;
        let found = status.peer(peer)?;
        ensure!(found.connected()?, "not connected: {status}");
        let now = found.last_handshake().context("no handshake")?;
        ensure!(now >= *age, "the handshake was {age} s old and is {now}: a new session");
        *age = now;
    }
    Ok(())
}

/// The messages of the daemons when 1 and 2 have connected.
fn recorded(recorder: &Recorder) -> Result<Vec<Recorded>> {
    let messages = recorder.messages()?;
    ensure!(messages.iter().all(|m| !m.retained), "a message was retained");
    ensure!(messages.len() >= 4, "only {} messages", messages.len());
    Ok(messages)
}

#[test]
fn replayed_signaling_changes_nothing_and_costs_little() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let recorder = lab.recorder()?;
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
        // Those of the session with larger packets too, which follows by itself.
        mesh.grown(CONNECT)?;
        let messages = recorded(&recorder)?;
        let mut ages = [0; 2];
        same_session(&mesh, &mut ages)?;
        for _ in 0..10 {
            for message in &messages {
                publish(lab.hub(), &message.topic, &message.payload, false)?;
            }
            same_session(&mesh, &mut ages)?;
        }
        always("the session lives", LOOK, || same_session(&mesh, &mut ages))?;
        pinger.finish()?.ensure_all()?;
        let sent = 10 * messages.len();
        let caused = recorder.messages()?.len().saturating_sub(messages.len() + sent);
        println!("{sent} replayed messages caused {caused}");
        ensure!(caused <= 30, "{sent} replayed messages caused {caused}");
        // In a new life of peer 2 they are worth nothing either.
        mesh.take(2)?.terminate()?;
        mesh.up(lab, 2)?;
        for message in &messages {
            publish(lab.hub(), &message.topic, &message.payload, false)?;
        }
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

/// Everything on the topics of two peers that is not from them or not fresh.
fn rubbish(lab: &Lab, messages: &[Recorded]) -> Result<()> {
    let first = messages.first().context("no messages")?;
    let hub = lab.hub();
    for message in messages {
        publish(hub, &message.topic, b"", false)?;
        publish(hub, &message.topic, &[0xff; 1000], false)?;
        // One bit changed, cut short, and one byte more.
        for n in [0, 1, message.payload.len() / 2, message.payload.len().saturating_sub(1)] {
            let mut changed = message.payload.clone();
            if let Some(byte) = changed.get_mut(n) {
                *byte ^= 1;
            }
            publish(hub, &message.topic, &changed, false)?;
            publish(hub, &message.topic, message.payload.get(..n).unwrap_or_default(), false)?;
        }
        let longer = [message.payload.as_slice(), b"x"].concat();
        publish(hub, &message.topic, &longer, false)?;
        // A real message on the wrong topic.
        publish(hub, &first.topic, &message.payload, false)?;
    }
    Ok(())
}

#[test]
fn rubbish_on_the_topics_changes_nothing() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        let recorder = lab.recorder()?;
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
        mesh.grown(CONNECT)?;
        let messages = recorded(&recorder)?;
        let memory = resident(mesh.daemon(1)?.pid())?;
        let mut ages = [0; 2];
        rubbish(lab, &messages)?;
        let mut topics: Vec<_> = messages.iter().map(|m| m.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        for topic in &topics {
            publish(lab.hub(), topic, &vec![b'x'; 2_000_000], false)?;
            flood(lab, topic)?;
        }
        always("the session lives", LOOK, || same_session(&mesh, &mut ages))?;
        pinger.finish()?.ensure_all()?;
        let grown = resident(mesh.daemon(1)?.pid())?.saturating_sub(memory);
        ensure!(grown < 16_000_000, "{grown} bytes more memory");
        // Retained messages meet every subscriber; real ones are old by then.
        for message in &messages {
            publish(lab.hub(), &message.topic, &message.payload, true)?;
        }
        mesh.take(2)?.terminate()?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        for topic in &topics {
            publish(lab.hub(), topic, b"rubbish", true)?;
        }
        mesh.take(1)?.terminate()?;
        mesh.up(lab, 1)?;
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

/// 3000 short messages, as fast as the broker takes them.
fn flood(lab: &Lab, topic: &str) -> Result<()> {
    let mut lines = String::new();
    for n in 0..3000 {
        writeln!(lines, "rubbish {n}")?;
    }
    let path = lab.write("flood.txt", &lines)?;
    let mut command = lab.hub().command("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-q", "1", "-t", topic, "-l"]);
    let status = command.stdin(Stdio::from(std::fs::File::open(path)?)).status()?;
    ensure!(status.success(), "mosquitto_pub: {status}");
    Ok(())
}

#[test]
fn logs_and_status_show_no_secret() -> Result<()> {
    in_lab(2, |lab| {
        let options = qanah_tests::daemon::Options::of(lab).log_level("trace");
        let mut mesh = Mesh::prepare(lab)?.options(options);
        let key = preshared_key();
        mesh.preshare((1, &key), (2, &key))?;
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        mesh.ping_all()?;
        let mut secrets = vec![key];
        secrets.extend(lab.identities().iter().map(|i| i.private.clone()));
        let status = mesh.daemon(1)?.status()?.to_string();
        let logs = [mesh.daemon(1)?.log(), mesh.daemon(2)?.log()];
        ensure!(logs.iter().all(|log| log.len() > 500), "the logs are too short to tell");
        for secret in secrets {
            // Without the padding, and also where only a part of it was printed.
            let part = secret.get(..20).context("short key")?;
            for text in logs.iter().chain([&status]) {
                ensure!(!text.contains(part), "a secret is shown");
            }
        }
        Ok(())
    })
}
