//! The servers of a lab: a real broker and a real STUN and TURN server.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use crate::ns::Place;
use crate::process::Proc;
use crate::wait::{eventually, secs};

/// Port of the broker.
pub const MQTT_PORT: u16 = 1883;
/// Port of the STUN and TURN server.
pub const STUN_PORT: u16 = 3478;
/// User of the TURN server.
pub const TURN_USER: &str = "lab";
/// Password of that user.
pub const TURN_PASSWORD: &str = "a-lab-password";

fn listens(place: Place, kind: &str, port: u16) -> Result<()> {
    let sockets = place.run(&format!("ss -Hln {kind} sport = :{port}"))?;
    ensure!(!sockets.is_empty(), "nobody listens at port {port}");
    Ok(())
}

/// A running mosquitto.
#[derive(Debug)]
pub struct Broker {
    proc: Proc,
}

impl Broker {
    /// Starts it and waits until it listens, on IPv4 and IPv6.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(place: Place, dir: &Path) -> Result<Self> {
        // One file a place: there may be a broker in each.
        let conf = dir.join(format!("mosquitto-{}.conf", place.holder()));
        // Root, because the kernel forgets the signal of the parent's death at a change of user.
        fs::write(
            &conf,
            format!("listener {MQTT_PORT}\nallow_anonymous true\nuser root\nlog_dest stderr\n"),
        )?;
        let mut command = place.command("mosquitto");
        command.arg("-c").arg(&conf);
        let mut proc = Proc::spawn("mosquitto", command, &dir.join("mosquitto.log"))?;
        eventually("the broker listens", secs(20), || {
            proc.ensure_running()?;
            listens(place, "-t", MQTT_PORT)
        })?;
        Ok(Self { proc })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.proc.end(Signal::SIGTERM, secs(10)).map(drop)
    }

    /// Kills it: it says no goodbye and forgets all sessions.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(mut self) -> Result<()> {
        self.proc.end(Signal::SIGKILL, secs(10)).map(drop)
    }
}

/// A running coturn: STUN, and TURN with long-term credentials over UDP.
#[derive(Debug)]
pub struct Turn {
    proc: Proc,
}

impl Turn {
    /// Starts it at the given addresses of its place and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(place: Place, addresses: &[&str], dir: &Path) -> Result<Self> {
        let conf = dir.join("turnserver.conf");
        let mut text = format!(
            "listening-port={STUN_PORT}\nlt-cred-mech\nuser={TURN_USER}:{TURN_PASSWORD}\n\
             realm=lab\nno-tls\nno-dtls\nno-cli\nno-tcp\nlog-file=stdout\nsimple-log\nverbose\n\
             pidfile={dir}/turnserver.pid\nuserdb={dir}/turn.db\nmin-port=50000\nmax-port=50999\n",
            dir = dir.display()
        );
        for address in addresses {
            text.push_str(&format!("listening-ip={address}\nrelay-ip={address}\n"));
        }
        fs::write(&conf, text)?;
        let mut command = place.command("turnserver");
        command.arg("-c").arg(&conf);
        let mut proc = Proc::spawn("turnserver", command, &dir.join("turnserver.log"))?;
        eventually("the STUN server listens", secs(20), || {
            proc.ensure_running()?;
            listens(place, "-u", STUN_PORT)
        })?;
        Ok(Self { proc })
    }

    /// How many allocations clients have made so far.
    pub fn allocations(&self) -> usize {
        self.proc.log().matches("ALLOCATE processed, success").count()
    }

    /// How many times somebody came with a wrong password.
    pub fn refusals(&self) -> usize {
        self.proc.log().matches("credentials are incorrect").count()
    }
}

/// One message as the recorder saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether the broker had it retained.
    pub retained: bool,
}

/// Listens on every topic of the broker, as anybody can on a public one.
#[derive(Debug)]
pub struct Recorder {
    proc: Proc,
    file: PathBuf,
}

impl Recorder {
    /// Starts to record, and returns when the broker has taken the subscription.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(place: Place, dir: &Path) -> Result<Self> {
        let file = dir.join("recorded.txt");
        let mut command = place.command("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-t", "#", "-F", "%r %t %x"]);
        let mut proc = Proc::spawn("mosquitto_sub", command, &file)?;
        let probe = "lab/recorder/probe";
        eventually("the recorder records", secs(10), || {
            proc.ensure_running()?;
            publish(place, probe, b"probe", false)?;
            ensure!(proc.log().contains(probe), "nothing yet");
            Ok(())
        })?;
        Ok(Self { proc, file })
    }

    /// What was published so far, without the recorder's own probes.
    ///
    /// # Errors
    /// When the file of the recorder is not what was expected.
    pub fn messages(&self) -> Result<Vec<Recorded>> {
        let text = fs::read_to_string(&self.file).context("the recorder's file")?;
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        whole
            .lines()
            .filter(|line| !line.contains(" lab/recorder/"))
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let mut word = || words.next().ok_or_else(|| anyhow!("strange line {line:?}"));
                let retained = word()? == "1";
                let topic = word()?.to_owned();
                Ok(Recorded { topic, payload: unhex(word()?)?, retained })
            })
            .collect()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.proc.ensure_running()
    }
}

/// Publishes one message at the broker of this place.
///
/// # Errors
/// When the broker does not take it.
pub fn publish(place: Place, topic: &str, payload: &[u8], retain: bool) -> Result<()> {
    let mut command = place.command("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-q", "1", "-t", topic]);
    // `-s` refuses an empty message, which `-n` means.
    command.arg(if payload.is_empty() { "-n" } else { "-s" });
    if retain {
        command.arg("-r");
    }
    let mut child = command.stdin(Stdio::piped()).spawn().context("cannot start mosquitto_pub")?;
    child.stdin.take().ok_or_else(|| anyhow!("no pipe"))?.write_all(payload)?;
    let status = child.wait()?;
    ensure!(status.success(), "mosquitto_pub: {status}");
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "odd number of hex digits");
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{HUB4, HUB6, in_lab};

    #[test]
    fn the_broker_starts_again_and_the_recorder_keeps_bytes() -> Result<()> {
        in_lab(1, |lab| {
            lab.broker()?.stop()?;
            let _broker = lab.broker()?;
            let mut recorder = lab.recorder()?;
            publish(lab.hub(), "a/b", b"\0\xff\n x", false)?;
            publish(lab.hub(), "a/c", b"", true)?;
            let seen = eventually("two messages", secs(5), || {
                recorder.ensure_running()?;
                let seen = recorder.messages()?;
                ensure!(seen.len() == 2, "{seen:?}");
                Ok(seen)
            })?;
            assert_eq!(
                (seen[0].topic.as_str(), seen[0].payload.as_slice()),
                ("a/b", &b"\0\xff\n x"[..])
            );
            for host in [HUB4, HUB6] {
                let line = format!("mosquitto_pub -h {host} -t x -m y");
                lab.node(1)?.place().run(&line)?;
            }
            Ok(())
        })
    }

    #[test]
    fn the_turn_server_serves_stun_and_relays_for_its_user_alone() -> Result<()> {
        in_lab(1, |lab| {
            let turn = lab.turn()?;
            let node = lab.node(1)?.place();
            let stun = node.run(&format!("turnutils_stunclient {HUB4}"))?;
            assert!(stun.contains("172.31.9.1:"), "{stun}");
            assert_eq!(turn.allocations(), 0);
            let relay = |password: &str| {
                node.run(&format!(
                    "timeout 10 turnutils_uclient -y -n 2 -u {TURN_USER} -w {password} {HUB4}"
                ))
            };
            assert!(relay("wrong").is_err());
            assert_eq!(turn.allocations(), 0);
            assert!(turn.refusals() > 0);
            relay(TURN_PASSWORD)?;
            eventually("an allocation in the log", secs(5), || {
                ensure!(turn.allocations() > 0, "none");
                Ok(())
            })
        })
    }
}
