//! The program as others run it: exit codes, standard output and standard error.

// Clippy's allowance for tests does not reach the helpers of integration tests.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_qanahctl");

fn qanahctl(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn no_daemon_is_4_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.sock");
    let output = qanahctl(&["--socket", missing.to_str().unwrap(), "status"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stdout), "");
    let expected = format!(
        "qanahctl: no daemon: there is no socket {}\n  \
         start one:        systemctl start qanahd@NAME   (for /etc/qanah/NAME.conf)\n  \
         or in a terminal: sudo qanahd --config FILE\n",
        missing.display()
    );
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_dead_daemon_is_4_and_names_its_unit() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("peer1.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let output = qanahctl(&["status", "--json", "--socket", stale.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("systemctl start qanahd@peer1"));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["errors"][0]["exit"], 4);
}

#[test]
fn a_wrong_command_line_is_2() {
    for args in [&["statsu"][..], &["status", "--yaml"], &[]] {
        assert_eq!(qanahctl(args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(qanahctl(&["--help"]).status.code(), Some(0));
}

/// A stranger cannot enter the directory. Root can enter every one, so then it is somebody else
/// who tries, with a copy of the program that he can reach.
#[test]
fn a_stranger_is_5_and_hears_of_the_group() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("qanahctl");
    // Copied by another process: a descriptor of ours that can write to the copy would be inherited
    // by whatever other tests start at this moment, and a file open for writing cannot be run.
    assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let socket = run.join("peer1.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let root = fs::metadata(&run).unwrap().uid() == 0;
    fs::set_permissions(&run, Permissions::from_mode(if root { 0o700 } else { 0 })).unwrap();

    let mut command = Command::new(&program);
    command.args(["--socket", socket.to_str().unwrap(), "status"]).current_dir("/");
    if root {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("permission denied for"));
    assert!(text(&output.stderr).contains("usermod -aG qanah"));
}

#[test]
fn a_daemon_that_hangs_up_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("peer1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let output = qanahctl(&["--socket", socket.to_str().unwrap(), "status"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("closed the connection"), "{}", text(&output.stderr));
}

/// `qanahctl ... | head` must not end in a panic or a complaint.
#[test]
fn a_closed_pipe_is_quiet() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(PROGRAM)
        .args(["--socket", "/nonexistent/x.sock", "version"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).starts_with("qanahctl: no daemon: "));
    assert!(!text(&output.stderr).contains("pipe"));
}

#[test]
fn a_socket_that_is_none_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120));
    let output = qanahctl(&["--socket", long.to_str().unwrap(), "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(Path::new(&long).to_str().unwrap()));
}
