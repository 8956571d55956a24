//! The benchmark runs, measures something and writes what it was asked for: it must not rot.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use qanah_tests::bench::readme::{BEGIN, END};
use qanah_tests::daemon::program;
use qanah_tests::process::{Proc, marked};
use qanah_tests::wait::{eventually, secs};
use serde_json::Value;

/// The benchmark with these arguments; it dies with this thread.
fn bench(arguments: &[&[&str]]) -> Result<Command> {
    let programs = program("qanahd")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_qanah-bench")]);
    command.args(arguments.concat());
    command.env("QANAH_BIN_DIR", programs.parent().context("no place")?);
    Ok(command)
}

#[test]
fn a_short_run_measures_and_writes_everything() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("README.md"), format!("before\n{BEGIN}\nold\n{END}\nafter\n"))?;
    let mut command = bench(&[
        ["--peers", "none", "--quick", "--rounds", "1", "--seconds", "1"].as_slice(),
        &["--only", "connect,tcp.1.out,rtt.idle,udp.1200,mem.idle,cpu,path.30ms.0%"],
        &["--json", &path("out.json"), "--svg", &path("out.svg")],
        &["--readme-file", &path("README.md")],
    ])?;
    command.env("TMPDIR", dir.path());
    let mut run = Proc::spawn("the benchmark", command, &dir.path().join("log"))?;
    let status = run.wait(secs(120))?;
    let said = run.log();
    ensure!(status.success(), "{status}: {said}");
    let all: Value = serde_json::from_str(&fs::read_to_string(path("out.json"))?)?;
    let samples =
        all.pointer("/results/samples").and_then(Value::as_array).context("no samples")?;
    let figure = |who: &str, what: &str| {
        let fits = |s: &&Value| {
            s.get("contender").and_then(Value::as_str) == Some(who)
                && s.get("measure").and_then(Value::as_str) == Some(what)
        };
        let sample =
            samples.iter().find(fits).with_context(|| format!("no {what} of {who}: {said}"))?;
        sample.get("value").and_then(Value::as_f64).context("no value")
    };
    for who in ["bare path", "qanah"] {
        for what in
            ["tcp.1.out", "rtt.idle.p50", "udp.1200", "cpu.machine", "path.30ms.0%.tcp.cubic"]
        {
            let value = figure(who, what)?;
            ensure!(value > 0.0 && value.is_finite(), "{what} of {who} is {value}: {said}");
        }
        // A path of 30 ms has a round trip of 30 ms, through a tunnel as well.
        // To which a busy machine adds something.
        let time = figure(who, "path.30ms.0%.rtt.idle.p50")?;
        ensure!((29.0..90.0).contains(&time), "{time} ms by way of {who}: {said}");
    }
    for what in ["connect", "mem.idle", "cpu.daemons"] {
        ensure!(figure("qanah", what)? > 0.0, "{what}: {said}");
    }
    let svg = fs::read_to_string(path("out.svg"))?;
    ensure!(svg.contains("<svg") && svg.contains("class=\"own\""), "no plot: {svg}");
    let readme = fs::read_to_string(path("README.md"))?;
    ensure!(readme.contains("| TCP, 1 stream, out, Mbit/s |"), "no table: {readme}");
    ensure!(readme.starts_with("before\n") && readme.ends_with("\nafter\n"), "{readme}");
    ensure!(said.contains("=== Results") && said.contains("Goals"), "{said}");
    // Logs of its labs are gone.
    let left = fs::read_dir(dir.path())?.count();
    ensure!(left == 4, "{left} files are left");
    Ok(())
}

#[test]
fn it_says_what_is_wrong_and_what_there_is() -> Result<()> {
    let run = |arguments: &[&str]| Ok::<_, anyhow::Error>(bench(&[arguments])?.output()?);
    let list = run(&["--list"])?;
    ensure!(String::from_utf8_lossy(&list.stdout).contains("udp.1200"), "{list:?}");
    let wrong = run(&["--congestion", "nonsense"])?;
    let said = String::from_utf8_lossy(&wrong.stdout);
    ensure!(!wrong.status.success() && said.contains("none of the wanted"), "{said}");
    ensure!(!run(&["--quick", "--full"])?.status.success(), "both were taken");
    Ok(())
}

#[test]
fn a_killed_run_leaves_no_process() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mark = format!("TMPDIR={}", dir.path().display());
    let only = ["--peers", "none", "--rounds", "1", "--only", "path.30ms.0%.tcp"];
    let mut run = bench(&[&only])?;
    let mut run = run.env("TMPDIR", dir.path()).stdout(Stdio::null()).spawn()?;
    let busy = eventually("a transfer in a lab of it", secs(60), || {
        let lines = marked(&mark)?;
        ensure!(lines.iter().any(|line| line.contains("iperf3 --json")), "only {lines:?}");
        Ok(())
    });
    run.kill()?;
    run.wait()?;
    busy?;
    eventually("the end of all its processes", secs(10), || {
        let left = marked(&mark)?;
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(())
    })
}
