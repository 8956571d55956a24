//! Starting, refusing to start, ending, and what the commands say.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use qanah_tests::conf::{Conf, inner4};
use qanah_tests::daemon::{Daemon, Options, Said, qanahctl, qanahctl_as_nobody, qanahd, said};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::Pinger;
use qanah_tests::process::tail;

fn ends_cleanly(signal: Signal) -> Result<()> {
    in_lab(2, |lab| {
        let place = lab.node(1)?.place();
        let before = place.footprint()?;
        let mut mesh = Mesh::start(lab)?;
        let during = place.footprint()?;
        for wanted in ["peer1", "10.0.0.1/24", "fd00::1/64", "mtu 1400", "/run/qanah/peer1.sock"] {
            ensure!(during.contains(wanted), "no {wanted} in\n{during}");
        }
        let status = mesh.take(1)?.stop(signal)?;
        ensure!(status.success(), "{signal}: {status}");
        let after = place.footprint()?;
        ensure!(before == after, "left behind:\n{after}\nbefore it was:\n{before}");
        Ok(())
    })
}

#[test]
fn sigterm_leaves_nothing_behind() -> Result<()> {
    ends_cleanly(Signal::SIGTERM)
}

#[test]
fn sigint_leaves_nothing_behind() -> Result<()> {
    ends_cleanly(Signal::SIGINT)
}

/// A start that must fail: its exit code, and that it names `word` and leaves nothing behind.
fn refused(lab: &Lab, conf: &Conf, code: i32, word: &str) -> Result<()> {
    let node = lab.node(1)?;
    let before = node.place().footprint()?;
    let mut daemon = Daemon::launch(lab, node, conf, &Options::of(lab))?;
    let found = daemon.wait().with_context(|| format!("{word}: it should not have started"))?;
    let log = daemon.log();
    ensure!(found == code, "{word}: exit code {found} and not {code}: {}", tail(&log, 10));
    ensure!(log.contains(word), "no word of {word}: {}", tail(&log, 10));
    let after = node.place().footprint()?;
    ensure!(before == after, "{word}: left behind:\n{after}\nbefore it was:\n{before}");
    Ok(())
}

/// The configuration of node 1 under another name, so that each has a log of its own.
fn variant(lab: &Lab, name: &str, change: impl FnOnce(&mut Conf)) -> Result<Conf> {
    let mut conf = lab.mesh().into_iter().next().context("no nodes")?;
    conf.name = name.to_owned();
    change(&mut conf);
    Ok(conf)
}

#[test]
fn a_taken_name_or_address_or_a_missing_device_is_said_and_undone() -> Result<()> {
    in_lab(2, |lab| {
        let place = lab.node(1)?.place();
        place.run("ip link add taken type bridge")?;
        refused(lab, &variant(lab, "taken", |_| ())?, 1, "taken")?;
        place.run("ip addr add 10.0.0.1/32 dev eth0")?;
        refused(lab, &variant(lab, "address", |_| ())?, 1, "10.0.0.1")?;
        place.run("ip addr del 10.0.0.1/32 dev eth0")?;
        place.run("mount -t tmpfs none /dev/net")?;
        refused(lab, &variant(lab, "device", |_| ())?, 1, "/dev/net/tun")?;
        place.run("umount /dev/net")?;
        let mut daemon = Daemon::start(lab, lab.node(1)?, &variant(lab, "free", |_| ())?)?;
        daemon.ensure_running()?;
        daemon.terminate()
    })
}

#[test]
fn what_has_no_effect_yet_refuses_the_start() -> Result<()> {
    in_lab(2, |lab| {
        for (name, line, word) in [
            ("table", "Table = 1234", "Table"),
            ("fwmark", "FwMark = 0x77", "FwMark"),
            ("save", "SaveConfig = true", "SaveConfig"),
        ] {
            refused(lab, &variant(lab, name, |c| c.extra.push(line.to_owned()))?, 6, word)?;
        }
        let all = |c: &mut Conf| {
            c.peers.iter_mut().for_each(|p| p.allowed.push("0.0.0.0/0".to_owned()));
        };
        refused(lab, &variant(lab, "everything", all)?, 6, "0.0.0.0/0")
    })
}

#[test]
fn hooks_run_from_a_file_of_roots_and_from_no_other() -> Result<()> {
    in_lab(2, |lab| {
        let place = lab.node(1)?.place();
        let hooked = |c: &mut Conf| {
            c.extra.push("PostUp = echo %i > /run/hooked".to_owned());
            c.extra.push("PostDown = echo %i > /run/unhooked".to_owned());
        };
        let conf = variant(lab, "hooked", hooked)?;
        let path = lab.write_conf(&conf)?;
        let file = path.to_str().context("path")?;
        for change in ["chmod 0620", "chmod 0602", "chown 65534"] {
            place.run(&format!("{change} {file}"))?;
            let said = qanahd(place, &["--config", file])?;
            ensure!(said.code == 6 && said.err.contains("PostUp"), "{change}: {said:?}");
            place.run(&format!("chmod 0600 {file}"))?;
            place.run(&format!("chown 0 {file}"))?;
        }
        ensure!(!place.path("/run/hooked").exists(), "the hook ran");
        let daemon = Daemon::start(lab, lab.node(1)?, &conf)?;
        ensure!(place.path("/run/hooked").exists(), "the hook did not run");
        daemon.terminate()?;
        ensure!(place.path("/run/unhooked").exists(), "the hook after the end did not run");
        Ok(())
    })
}

#[test]
fn a_dns_line_and_an_open_file_earn_a_warning() -> Result<()> {
    in_lab(2, |lab| {
        let conf = variant(lab, "dns", |c| c.extra.push("DNS = 10.0.0.53".to_owned()))?;
        let daemon = Daemon::start(lab, lab.node(1)?, &conf)?;
        ensure!(daemon.log().contains("DNS"), "no warning: {}", daemon.log());
        daemon.terminate()?;
        let path = lab.write_conf(&conf)?;
        let path = path.to_str().context("path")?;
        let place = lab.node(1)?.place();
        let words = "can be read by others";
        let check = ["--check", "--config", path];
        let closed = qanahd(place, &check)?;
        ensure!(!format!("{closed:?}").contains(words), "a warning for nothing: {closed:?}");
        place.run(&format!("chmod 0644 {path}"))?;
        expect("an open file", &qanahd(place, &check)?, 0, &[words])?;
        Ok(())
    })
}

#[test]
fn a_second_start_is_refused_and_does_not_disturb_the_first() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = Mesh::start(lab)?;
        let pinger = Pinger::start(lab, mesh.daemon(2)?.place(), &inner4(1))?;
        let place = lab.node(1)?.place();
        let before = place.footprint()?;
        let mut second = Daemon::launch(lab, lab.node(1)?, mesh.conf(1)?, &Options::of(lab))?;
        let code = second.wait()?;
        ensure!(code == 1, "exit code {code}: {}", tail(&second.log(), 10));
        ensure!(before == place.footprint()?, "changed:\n{}", place.footprint()?);
        mesh.connected(CONNECT)?;
        mesh.ping_all()?;
        pinger.finish()?.ensure_all()
    })
}

fn expect(what: &str, said: &Said, code: i32, words: &[&str]) -> Result<()> {
    ensure!(said.code == code, "{what}: exit code {} and not {code}: {said:?}", said.code);
    for word in words {
        ensure!(said.out.contains(word) || said.err.contains(word), "{what}: no {word}: {said:?}");
    }
    Ok(())
}

#[test]
fn exit_codes_of_qanahd() -> Result<()> {
    in_lab(2, |lab| {
        let place = lab.node(1)?.place();
        let good = lab.write_conf(&variant(lab, "good", |_| ())?)?;
        let good = good.to_str().context("path")?;
        let said = qanahd(place, &["--check", "--config", good])?;
        expect("a good file", &said, 0, &["10.0.0.1/24", "fd00::2/128", "peer2"])?;
        let secret = &lab.identities().first().context("no identity")?.private;
        ensure!(!said.out.contains(secret.as_str()), "--check shows the private key");
        let bad = lab.write("bad.conf", "[Interface]\nPrivateKey = AAAA\n[Pear]\n")?;
        let bad = bad.to_str().context("path")?;
        expect("a bad file", &qanahd(place, &["--check", "-c", bad])?, 6, &["bad.conf", "2"])?;
        expect("a bad file", &qanahd(place, &["-c", bad])?, 6, &["bad.conf"])?;
        expect(
            "no file",
            &qanahd(place, &["--check", "-c", "/none/x.conf"])?,
            6,
            &["/none/x.conf"],
        )?;
        expect("nothing to check", &qanahd(place, &["--check"])?, 2, &["--config"])?;
        let both = qanahd(place, &["--config", good, "--up", "x"])?;
        expect("one and many", &both, 2, &["--up"])?;
        expect("an unknown flag", &qanahd(place, &["--bogus"])?, 2, &["--bogus"])?;
        let turn = ["-c", good, "--turn-url", "turn:192.0.2.1:3478"];
        expect("TURN without a user", &qanahd(place, &turn)?, 2, &["--turn-username"])?;
        let stun = ["-c", good, "--stun", "http://192.0.2.1"];
        expect("a strange STUN URL", &qanahd(place, &stun)?, 2, &["http://192.0.2.1"])?;
        expect("--version", &qanahd(place, &["--version"])?, 0, &["qanahd"])?;
        expect("--help", &qanahd(place, &["--help"])?, 0, &["--signal-server", "--no-relay"])
    })
}

#[test]
fn qanahctl_tells_the_state_by_table_json_and_exit_code() -> Result<()> {
    in_lab(2, |lab| {
        let place = lab.node(1)?.place();
        expect("no daemon", &qanahctl(place, &["status"])?, 4, &[])?;
        let mut mesh = Mesh::prepare(lab)?;
        mesh.up(lab, 1)?;
        expect("alone", &qanahctl(place, &["status"])?, 3, &["peer1", "peer2"])?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        let table = qanahctl(place, &["status"])?;
        expect("connected", &table, 0, &["peer1", "peer2", "onnected", "10.0.0.1/24"])?;
        ensure!(!table.out.contains('\u{1b}'), "colours in a pipe: {}", table.out);
        println!("{}", table.out);
        expect("by name", &qanahctl(place, &["status", "peer1"])?, 0, &["peer2"])?;
        expect("an unknown name", &qanahctl(place, &["status", "nobody"])?, 4, &["nobody"])?;
        expect("usage", &qanahctl(place, &["frobnicate"])?, 2, &["frobnicate"])?;
        let status = mesh.daemon(1)?.status()?;
        ensure!(status.code == 0, "exit code {}", status.code);
        ensure!(status.field("mtu")?.as_u64() == Some(1400), "{status}");
        ensure!(status.peer("peer2")?.last_handshake().is_some(), "{status}");
        mesh.take(1)?.terminate()?;
        expect("ended", &qanahctl(place, &["status"])?, 4, &[])
    })
}

#[test]
fn a_stranger_is_denied() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        mesh.up(lab, 1)?;
        let place = lab.node(1)?.place();
        let socket = "/run/qanah/peer1.sock";
        let said = qanahctl_as_nobody(place, &["--socket", socket, "status"])?;
        expect("a stranger", &said, 5, &[])?;
        expect("a stranger", &qanahctl_as_nobody(place, &["status"])?, 5, &[])?;
        ensure!(!said.out.contains("peer2"), "{said:?}");
        Ok(())
    })
}

#[test]
fn without_root_the_error_is_clear() -> Result<()> {
    in_lab(1, |lab| {
        let place = lab.node(1)?.place();
        let path = lab.write_conf(&variant(lab, "user", |_| ())?)?;
        let path = path.to_str().context("path")?;
        std::fs::copy(qanah_tests::daemon::program("qanahd")?, place.path("/run/lab/qanahd"))?;
        place.run(&format!("chown 65534 {path}"))?;
        place.run("chmod 0755 /run/lab /run/lab/qanahd")?;
        let mut command = place.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "timeout", "20"]);
        command.args(["/run/lab/qanahd", "--config", path]);
        let said = said(command)?;
        ensure!(said.code == 5 && said.err.contains("needs root: run it with sudo"), "{said:?}");
        Ok(())
    })
}
