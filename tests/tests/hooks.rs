//! PreUp, PostUp, PreDown and PostDown.

use std::fs;

use anyhow::{Result, ensure};
use qanah_tests::conf::Conf;
use qanah_tests::daemon::{Options, qanahd};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::people::{ANN, Many, ROOT, install};
use qanah_tests::process::tail;
use qanah_tests::wait::{eventually, secs};
use qanah_tests::{Daemon, Place};

const LOG: &str = "/run/lab/hooks.txt";

/// The configuration of node 1 under that name, with these lines.
fn conf(lab: &Lab, name: &str, lines: &[&str]) -> Conf {
    let extra = lines.iter().map(|line| (*line).to_owned()).collect();
    let mut conf = lab.mesh().remove(0);
    conf.name = name.to_owned();
    Conf { extra, ..conf }
}

fn start(lab: &Lab) -> Result<Many> {
    let place = lab.node(1)?.place();
    fs::create_dir_all(place.path("/etc/qanah"))?;
    Many::start(lab, lab.node(1)?, &Options::bare().and(&["--signal-server", "none"]))
}

fn written(place: Place) -> String {
    fs::read_to_string(place.path(LOG)).unwrap_or_default()
}

/// Nothing of the tunnel is left on the machine.
fn gone(place: Place, name: &str, before: &str) -> Result<()> {
    let after = place.footprint()?;
    ensure!(before == after, "{name}: left behind:\n{after}\nbefore it was:\n{before}");
    Ok(())
}

#[test]
fn hooks_run_in_order_with_the_name_of_the_interface() -> Result<()> {
    in_lab(2, |lab| {
        let many = start(lab)?;
        let place = many.place();
        let line = |kind: &str, word: &str| format!("{kind} = echo {word} %i $(id -u) >> {LOG}");
        let lines = [
            line("PostUp", "post-up-1"),
            format!("PostUp = ip -br addr show dev %i | grep -q 10.0.0.1 && echo address >> {LOG}"),
            line("PreUp", "pre-up-1"),
            line("PreUp", "pre-up-2"),
            line("PreDown", "pre-down"),
            line("PostDown", "post-down"),
            format!("PostDown = ip link show %i 2>/dev/null || echo gone >> {LOG}"),
        ];
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        install(place, &conf(lab, "hooked", &lines))?;
        let before = place.footprint()?;
        // A member may start what root has written.
        ANN.expect(place, "up hooked", 0)?;
        let up = "pre-up-1 hooked 0\npre-up-2 hooked 0\npost-up-1 hooked 0\naddress\n";
        ensure!(written(place) == up, "{}", written(place));
        // The hooks of down are those that were read at up.
        install(place, &conf(lab, "hooked", &["PreDown = echo another >> /run/lab/hooks.txt"]))?;
        ANN.expect(place, "down hooked", 0)?;
        let all = format!("{up}pre-down hooked 0\npost-down hooked 0\ngone\n");
        ensure!(written(place) == all, "{}", written(place));
        gone(place, "hooked", &before)
    })
}

#[test]
fn a_failing_hook_aborts_the_start_and_undoes_it() -> Result<()> {
    in_lab(2, |lab| {
        let many = start(lab)?;
        let place = many.place();
        for (name, lines) in [
            ("preup", &["PreUp = exit 3"][..]),
            ("postup", &["PostUp = true", "PostUp = echo said-so; exit 3"]),
            ("missing", &["PostUp = /nonexistent/program"]),
        ] {
            install(place, &conf(lab, name, lines))?;
            let before = place.footprint()?;
            let said = ANN.expect(place, &format!("up {name}"), 1)?;
            ensure!(said.err.contains("Up command"), "{name}: {said:?}");
            gone(place, name, &before)?;
            ANN.expect(place, &format!("status {name}"), 4)?;
        }
        ensure!(many.log().contains("said-so"), "no output: {}", tail(&many.log(), 20));
        // A failing PreDown keeps nothing up.
        install(place, &conf(lab, "predown", &["PreDown = exit 3"]))?;
        let before = place.footprint()?;
        ANN.expect(place, "up predown", 0)?;
        let said = ANN.expect(place, "down predown", 0)?;
        ensure!(said.err.contains("PreDown command 1"), "{said:?}");
        gone(place, "predown", &before)
    })
}

#[test]
fn a_hook_that_hangs_is_ended_and_holds_up_nobody() -> Result<()> {
    in_lab(2, |lab| {
        let many = start(lab)?;
        let place = many.place();
        let pids = "/run/lab/hang.pids";
        let hang = format!("PostUp = sleep 1000 & echo $! $$ > {pids}; wait");
        install(place, &conf(lab, "hang", &[&hang]))?;
        let other = conf(lab, "other", &[]);
        install(place, &Conf { addresses: vec!["10.9.0.1/24".to_owned()], ..other })?;
        let before = place.footprint()?;
        let mut hanging = ANN.client(place).args(["up", "hang"]).spawn()?;
        let pids = eventually("the hook runs", secs(10), || {
            let pids = fs::read_to_string(place.path(pids))?;
            ensure!(pids.ends_with('\n'), "{pids}");
            Ok(pids)
        })?;
        // Meanwhile others are served.
        ANN.expect(place, "up other", 0)?;
        ANN.expect(place, "status other", 3)?;
        ANN.expect(place, "down other", 0)?;
        let status = hanging.wait()?;
        ensure!(status.code() == Some(1), "{status}: {}", tail(&many.log(), 10));
        for pid in pids.split_whitespace() {
            // An orphan that has ended stays as a zombie until the first process of the machine looks.
            eventually("the end of the hook's processes", secs(5), || {
                let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                ensure!(state.is_empty() || state.contains(") Z "), "{state}");
                Ok(())
            })?;
        }
        gone(place, "hang", &before)
    })
}

#[test]
fn hooks_run_only_from_files_that_are_roots_alone() -> Result<()> {
    in_lab(2, |lab| {
        let many = start(lab)?;
        let place = many.place();
        let touching = conf(lab, "text", &["PostUp = touch /run/lab/hooked"]);
        let path = lab.write_conf(&touching)?;
        let before = place.footprint()?;
        // Not even root's own text: nobody can see whose it was.
        let said = ROOT.expect(place, &format!("up {}", path.display()), 6)?;
        ensure!(said.err.contains("PostUp"), "{said:?}");
        gone(place, "text", &before)?;
        ensure!(!place.path("/run/lab/hooked").exists(), "the hook ran");

        // With --config it is root who starts the daemon with it.
        let daemon = Daemon::start(lab, lab.node(1)?, &touching)?;
        ensure!(place.path("/run/lab/hooked").exists(), "the hook did not run");
        daemon.terminate()?;
        fs::remove_file(place.path("/run/lab/hooked"))?;
        place.run(&format!("chmod 0666 {}", path.display()))?;
        let said = qanahd(place, &["--config", path.to_str().unwrap_or_default()])?;
        ensure!(said.code == 6 && said.err.contains("PostUp"), "{said:?}");
        ensure!(!place.path("/run/lab/hooked").exists(), "the hook ran");
        Ok(())
    })
}

#[test]
fn a_hook_gets_no_environment_and_no_descriptor_of_the_daemon() -> Result<()> {
    in_lab(2, |lab| {
        let many = start(lab)?;
        let place = many.place();
        let look = format!(
            "PostUp = env > {LOG}; ls -l /proc/$$/fd >> {LOG}; readlink /proc/$$/fd/0 >> {LOG}"
        );
        install(place, &conf(lab, "look", &[&look]))?;
        ANN.expect(place, "up look", 0)?;
        let seen = written(place);
        ensure!(seen.contains("PATH=/usr/local/sbin:") && seen.contains("/dev/null"), "{seen}");
        for strange in ["socket:", "tun", "RUST_BACKTRACE", "HOME=", "eventpoll"] {
            ensure!(!seen.contains(strange), "{strange} in\n{seen}");
        }
        ANN.expect(place, "down look", 0).map(drop)
    })
}
