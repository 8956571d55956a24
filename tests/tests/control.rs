//! Who may do what on the control socket: root, a member of the group `qanah`, a stranger.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use qanah_tests::conf::{Conf, inner4};
use qanah_tests::daemon::{Options, Said};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::people::{ANN, MALLORY, Many, Person, ROOT, install, install_text};
use qanah_tests::ping::Pinger;
use qanah_tests::process::tail;
use qanah_tests::wait::{eventually, secs};

/// Node 1 with the daemon of many, which can bring up peer1; node 2 with peer2, which is up.
fn pair(lab: &Lab) -> Result<(Mesh, Many)> {
    let mut mesh = Mesh::prepare(lab)?;
    mesh.up(lab, 2)?;
    let many = Many::start(lab, lab.node(1)?, &Options::of(lab))?;
    fs::create_dir_all(many.place().path("/etc/qanah"))?;
    install(many.place(), mesh.conf(1)?)?;
    Ok((mesh, many))
}

fn has(said: &Said, word: &str) -> Result<()> {
    ensure!(said.out.contains(word) || said.err.contains(word), "no {word:?} in {said:?}");
    Ok(())
}

#[test]
fn a_member_steers_tunnels_by_name_and_a_stranger_does_nothing() -> Result<()> {
    in_lab(2, |lab| {
        let (_mesh, many) = pair(lab)?;
        let place = many.place();
        ANN.expect(place, "status", 4)?;
        has(&ANN.expect(place, "check peer1", 0)?, "10.0.0.1/24")?;
        let up = ANN.expect(place, "up peer1 --wait --timeout 30", 0)?;
        has(&up, "peer1 is up: 10.0.0.1/24, fd00::1/64, MTU 1400, 1 peer\n")?;
        has(&up, "peer2 is connected\n")?;
        has(&ANN.expect(place, "up peer1", 1)?, "already")?;
        has(&ANN.expect(place, "status", 0)?, "connected")?;
        has(&ANN.expect(place, "version", 0)?, "/run/qanah/qanahd.sock")?;
        ANN.expect(place, "reload peer1", 0)?;
        has(&ANN.expect(place, "offer peer2 --lifetime 1m", 0)?, "qanah-offer-1.")?;
        for line in [
            "status",
            "version",
            "up peer1",
            "down peer1",
            "reload peer1",
            "watch",
            "offer",
            "answer /dev/null",
            "accept /dev/null",
            "check peer1",
        ] {
            let said = MALLORY.expect(place, line, 5)?;
            has(&said, "usermod -aG qanah")?;
            ensure!(!said.out.contains("peer2"), "{line}: {said:?}");
        }
        has(&ANN.expect(place, "down peer1", 0)?, "peer1 is down\n")?;
        ensure!(!place.run("ip -br link")?.contains("peer1"), "it is still there");
        has(&ANN.expect(place, "down peer1", 4)?, "no tunnel is up")?;
        Ok(())
    })
}

#[test]
fn options_and_texts_are_for_root_and_denials_are_logged() -> Result<()> {
    in_lab(2, |lab| {
        let (mesh, many) = pair(lab)?;
        let place = many.place();
        // A file that everybody can read: what is denied is the call and not the file.
        let text = mesh.conf(1)?.to_string();
        place.shell("mkdir -m 0755 /run/lab/files")?;
        fs::write(place.path("/run/lab/files/mine.conf"), &text)?;
        place.run("chmod 0644 /run/lab/files/mine.conf")?;
        for line in [
            "up /run/lab/files/mine.conf",
            "up peer1 --stun stun:192.0.2.1:3478",
            "up peer1 --no-relay",
            "up peer1 --signal-server none",
        ] {
            has(&ANN.expect(place, line, 5)?, "root")?;
            MALLORY.expect(place, line, 5)?;
        }
        ensure!(!place.run("ip -br link")?.contains("10.0.0.1"), "it is up");
        let log = many.log();
        let denied =
            log.lines().find(|l| l.contains("uid=4001")).context("no line of the denial")?;
        ensure!(denied.contains("pid=") && denied.contains("Up"), "{denied}");

        // The environment of a member may be set for something else.
        let mut command = ANN.client(place);
        command.args(["up", "peer1"]).env("QANAH_STUN", "stun:192.0.2.1:3478");
        let said = qanah_tests::daemon::said(command)?;
        ensure!(said.code == 0 && said.err.contains("QANAH_STUN: not used"), "{said:?}");
        ANN.expect(place, "down peer1", 0)?;

        ROOT.expect(place, "up /run/lab/files/mine.conf --no-relay --wait --timeout 30", 0)?;
        has(&ANN.expect(place, "status", 0)?, "tunnel mine")?;
        ANN.expect(place, "down mine", 0)?;
        let hole =
            format!("--signal-server none --stun stun:{}:3478", qanah_tests::lab::BLACK_HOLE);
        ROOT.expect(place, &format!("up peer1 {hole}"), 0)?;
        has(&ANN.expect(place, "status", 3)?, "no broker")?;
        let wrong = ROOT.expect(place, "up /run/lab/files/mine.conf --stun nonsense", 2)?;
        has(&wrong, "nonsense")
    })
}

/// A start by name that must be refused, soon and without a trace.
fn refused(place: qanah_tests::Place, who: Person, name: &str, word: &str) -> Result<()> {
    let start = std::time::Instant::now();
    let said = who.expect(place, &format!("up {name}"), 6)?;
    ensure!(start.elapsed() < secs(8), "{name}: {:?}", start.elapsed());
    ensure!(said.err.contains(word), "{name}: no {word:?}: {said:?}");
    ensure!(!said.err.contains("SECRET"), "{name}: it quotes the file: {said:?}");
    ensure!(!place.run("ip -br link")?.contains(name), "{name} is up");
    Ok(())
}

#[test]
fn files_that_others_could_have_written_are_refused() -> Result<()> {
    in_lab(2, |lab| {
        let (mesh, mut many) = pair(lab)?;
        let place = many.place();
        let good = mesh.conf(1)?.to_string();
        let dir = place.path("/etc/qanah");
        install_text(place, "group", &good)?;
        place.run("chmod 0660 /etc/qanah/group.conf")?;
        install_text(place, "others", &good)?;
        place.run("chmod 0604 /etc/qanah/others.conf")?;
        install_text(place, "owner", &good)?;
        place.run("chown 4001 /etc/qanah/owner.conf")?;
        symlink("peer1.conf", dir.join("link.conf"))?;
        symlink("/dev/zero", dir.join("zero.conf"))?;
        nix::unistd::mkfifo(&dir.join("fifo.conf"), Mode::S_IRUSR)?;
        fs::create_dir(dir.join("folder.conf"))?;
        install_text(place, "huge", &"#".repeat(3 << 20))?;
        install_text(place, "bad", "[Interface]\nPrivateKey = SECRET\n")?;
        for (name, word) in [
            ("group", "group.conf"),
            ("others", "others.conf"),
            ("owner", "owner.conf"),
            ("link", "symbolic link"),
            ("zero", "symbolic link"),
            ("fifo", "not a regular file"),
            ("folder", "not a regular file"),
            ("huge", "huge"),
            ("bad", "PrivateKey"),
            ("missing", "missing.conf"),
        ] {
            for who in [ANN, ROOT] {
                refused(place, who, name, word)?;
            }
        }
        // The directory itself.
        place.run("chmod 0777 /etc/qanah")?;
        refused(place, ANN, "peer1", "/etc/qanah")?;
        place.run("chmod 0755 /etc/qanah")?;
        many.ensure_running()?;
        ANN.expect(place, "up peer1", 0).map(drop)
    })
}

#[test]
fn names_are_names_and_no_paths() -> Result<()> {
    in_lab(2, |lab| {
        let (mesh, many) = pair(lab)?;
        let place = many.place();
        fs::write(place.path("/etc/outside.conf"), mesh.conf(1)?.to_string())?;
        place.run("chmod 0600 /etc/outside.conf")?;
        for name in [".", "..", "qanahd", "a%i", "a\\x2db", "$(id)", "sixteen--letters", "-- -x"] {
            let said = ANN.qanahctl(place, &format!("up {name}"))?;
            ensure!(matches!(said.code, 2 | 6), "{name}: {said:?}");
            ensure!(said.err.contains("name"), "{name}: {said:?}");
        }
        for name in ["../outside", "a/b", "/etc/outside", "..", "peer1\u{7f}"] {
            for command in ["down", "reload", "status", "watch"] {
                let said = ANN.expect(place, &format!("{command} {name}"), 2)?;
                ensure!(!said.err.contains('\u{7f}'), "{said:?}");
            }
        }
        let links = place.run("ip -br link")?;
        ensure!(links.lines().count() == 2, "more than lo and eth0: {links}");
        Ok(())
    })
}

/// The configuration of node 1 with another address, as somebody else would like it.
fn evil(conf: &Conf) -> String {
    conf.to_string().replace("10.0.0.1/24", "10.66.6.6/24")
}

#[test]
fn a_file_that_is_replaced_while_it_is_opened_wins_nothing() -> Result<()> {
    in_lab(2, |lab| {
        let (mesh, many) = pair(lab)?;
        let place = many.place();
        let dir = place.path("/etc/qanah");
        place.shell("mkdir -m 0755 /run/lab/evil")?;
        fs::write(place.path("/run/lab/evil/x.conf"), evil(mesh.conf(1)?))?;
        place.run("chown 4001 /run/lab/evil/x.conf")?;
        place.run("chmod 0600 /run/lab/evil/x.conf")?;
        let done = Arc::new(AtomicBool::new(false));
        let (stop, good) = (Arc::clone(&done), mesh.conf(1)?.to_string());
        let swap = dir.join("swap.conf");
        let swapper = thread::spawn(move || -> Result<u64> {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                fs::write(dir.join("new"), &good)?;
                fs::set_permissions(
                    dir.join("new"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o600),
                )?;
                fs::rename(dir.join("new"), &swap)?;
                symlink("/run/lab/evil/x.conf", dir.join("new"))?;
                fs::rename(dir.join("new"), &swap)?;
                // A copy that was hers when it was made.
                fs::copy(dir.join("../../run/lab/evil/x.conf"), dir.join("new"))?;
                nix::unistd::chown(&dir.join("new"), Some(4001.into()), None)?;
                fs::rename(dir.join("new"), &swap)?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let (mut up, mut refused) = (0, 0);
        for _ in 0..40 {
            match ANN.qanahctl(place, "up swap")?.code {
                0 => {
                    let addresses = place.run("ip -br addr show dev swap")?;
                    ensure!(addresses.contains("10.0.0.1/24"), "{addresses}");
                    ANN.expect(place, "down swap", 0)?;
                    up += 1;
                }
                6 => refused += 1,
                code => ensure!(false, "exit code {code}: {}", tail(&many.log(), 5)),
            }
        }
        done.store(true, Ordering::Relaxed);
        let rounds = swapper.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))??;
        println!("{rounds} rounds of swapping, {up} starts, {refused} refusals");
        ensure!(rounds > 40 && refused > 0, "{rounds} rounds, {up} starts, {refused} refusals");
        Ok(())
    })
}

#[test]
fn a_second_daemon_is_refused_by_pid_and_a_stale_socket_replaced() -> Result<()> {
    in_lab(1, |lab| {
        let node = lab.node(1)?;
        let many = Many::start(lab, node, &Options::of(lab))?;
        let mut second = Many::launch(lab, node, &Options::of(lab))?;
        ensure!(second.wait()? == 1, "{}", tail(&second.log(), 5));
        let pid = many.pid().to_string();
        ensure!(second.log().contains(&pid), "no {pid}: {}", tail(&second.log(), 5));
        ROOT.expect(node.place(), "version", 0)?;
        many.stop(Signal::SIGKILL)?;
        let said = ROOT.expect(node.place(), "status", 4)?;
        has(&said, "systemctl start qanahd")?;
        let again = Many::start(lab, node, &Options::of(lab))?;
        again.stop(Signal::SIGTERM)?;
        ensure!(!node.place().path("/run/qanah/qanahd.sock").exists(), "the socket was left");
        Ok(())
    })
}

#[test]
fn two_daemons_are_found_by_the_tunnels_they_have() -> Result<()> {
    in_lab(2, |lab| {
        let (_mesh, many) = pair(lab)?;
        let place = many.place();
        let mut other = lab.mesh().into_iter().next().context("no nodes")?;
        other.name = "own".to_owned();
        other.addresses = vec!["10.7.0.1/24".to_owned()];
        let own = qanah_tests::Daemon::start(lab, lab.node(1)?, &other)?;
        ANN.expect(place, "up peer1", 0)?;
        has(&ANN.qanahctl(place, "status own")?, "tunnel own")?;
        has(&ANN.qanahctl(place, "status peer1")?, "tunnel peer1")?;
        let all = ANN.qanahctl(place, "status")?;
        has(&all, "tunnel own")?;
        has(&all, "tunnel peer1")?;
        has(&ANN.expect(place, "offer", 2)?, "there are several tunnels: peer1, own")?;
        has(&ANN.expect(place, "down nobody", 4)?, "there are own, peer1")?;
        let socket = ANN.expect(place, "--socket /run/qanah/own.sock status peer1", 4)?;
        has(&socket, "own")?;
        own.terminate()?;
        has(&ANN.expect(place, "offer peer2", 0)?, "qanah-offer-")
    })
}

#[test]
fn reload_keeps_the_pings_of_peers_that_did_not_change() -> Result<()> {
    in_lab(3, |lab| {
        let (mut mesh, many) = pair(lab)?;
        mesh.up(lab, 3)?;
        let place = many.place();
        ANN.expect(place, "up peer1", 0)?;
        many.connected("peer1", &["peer2", "peer3"], CONNECT)?;
        let before = many.status("peer1")?.peer("peer2")?.last_handshake();
        let pinger = Pinger::start(lab, place, &inner4(2))?;
        eventually("answers", secs(5), || {
            ensure!(pinger.answers() > 3, "{}", pinger.answers());
            Ok(())
        })?;

        let conf = mesh.conf_mut(1)?;
        let gone = conf.peers.pop().context("no peer3")?;
        conf.addresses.push("10.8.0.1/24".to_owned());
        install(place, conf)?;
        let said = ANN.expect(place, "reload peer1", 0)?;
        has(&said, "peer3")?;
        has(&said, "10.8.0.1/24")?;
        ensure!(many.status("peer1")?.peer("peer3").is_err(), "peer3 is still there");
        ensure!(place.run("ip -br addr show dev peer1")?.contains("10.8.0.1/24"), "no address");
        has(&ANN.expect(place, "reload peer1", 0)?, "nothing has changed")?;

        // Back again: the peer connects anew, and the other one was never touched.
        let conf = mesh.conf_mut(1)?;
        conf.peers.push(gone);
        conf.addresses.pop();
        install(place, conf)?;
        ANN.expect(place, "reload peer1", 0)?;
        many.connected("peer1", &["peer2", "peer3"], CONNECT)?;
        ensure!(
            !place.run("ip -br addr show dev peer1")?.contains("10.8.0.1"),
            "the address stayed"
        );

        // What cannot be applied changes nothing.
        let private = qanah_tests::conf::Identity::generate().private;
        let other = Conf { private, ..mesh.conf(1)?.clone() };
        install(place, &other)?;
        ANN.expect(place, "reload peer1", 6)?;
        install_text(place, "peer1", "[Interface]\nnonsense\n")?;
        ANN.expect(place, "reload peer1", 6)?;
        pinger.finish()?.ensure_all()?;
        let after = many.status("peer1")?.peer("peer2")?.last_handshake();
        ensure!(after >= before, "the handshake was {before:?} and is {after:?}: a new session");
        Ok(())
    })
}

#[test]
fn watch_tells_each_change_and_the_end() -> Result<()> {
    in_lab(2, |lab| {
        let (mut mesh, many) = pair(lab)?;
        let place = many.place();
        ANN.expect(place, "up peer1 --wait --timeout 30", 0)?;
        let mut watching = ANN.client(place);
        let out = lab.dir().join("watch.log");
        let file = fs::File::create(&out)?;
        let err = fs::File::create(lab.dir().join("watch-err.log"))?;
        watching.args(["watch", "peer1"]).stdin(Stdio::null()).stdout(file).stderr(err);
        let mut watching = watching.spawn()?;
        let told = |states: &[&str]| {
            eventually(&format!("a state of {states:?}"), CONNECT, || {
                let lines = fs::read_to_string(&out)?;
                let json: serde_json::Value =
                    serde_json::from_str(lines.lines().last().context("no line")?)?;
                let state = json.pointer("/tunnels/0/peers/0/state");
                let state = state.and_then(serde_json::Value::as_str).context("no state")?;
                ensure!(states.contains(&state), "{state}");
                Ok(())
            })
        };
        told(&["connected"])?;
        mesh.take(2)?.terminate()?;
        told(&["connecting", "waiting_for_signaling"])?;
        mesh.up(lab, 2)?;
        told(&["connected"])?;
        many.stop(Signal::SIGTERM)?;
        let status = watching.wait()?;
        ensure!(status.code() == Some(4), "{status}");
        let said = fs::read_to_string(lab.dir().join("watch-err.log"))?;
        ensure!(said.contains("gone away") || said.contains("stopping"), "{said}");
        Ok(())
    })
}
