//! The commands as a person meets them at a terminal, and as a script does without one.

// Clippy's allowance for tests does not reach the helpers of integration tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code)]
#[path = "../src/testing.rs"]
mod testing;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testing::{ANSWER, FakeDaemon, OFFER, tunnel};

const PROGRAM: &str = env!("CARGO_BIN_EXE_qanahctl");
const LIMIT: Duration = Duration::from_secs(20);

/// A daemon with these tunnels, in a thread of its own until this is dropped.
struct Daemon {
    dir: TempDir,
    fake: FakeDaemon,
    _alive: tokio::sync::oneshot::Sender<()>,
}

impl Daemon {
    fn start(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tunnels = names.iter().map(|name| tunnel(name)).collect();
        let (alive, ended) = tokio::sync::oneshot::channel();
        let (started, fake) = std::sync::mpsc::channel();
        let place = dir.path().to_owned();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                started.send(FakeDaemon::start(&place, "qanahd", tunnels)).unwrap();
                let _ = ended.await;
            });
        });
        Self { dir, fake: fake.recv().unwrap(), _alive: alive }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(&self.fake.path).args(line.split_whitespace());
        command
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn piped(&self, line: &str, input: &str) -> Output {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that wants no input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

/// A command at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(program: Command) -> Self {
        // A session of its own, or Ctrl-C would mean nothing.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let pty = openpty(None, None).unwrap();
        let slave = File::from(pty.slave);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        drop(command);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a terminal is an error (EIO).
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).replace('\r', "");
                seen.lock().unwrap().push_str(&text);
            }
        });
        Self { child, keyboard, screen }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn sees(&self, what: &str) {
        self.sees_one_of(&[what]);
    }

    fn sees_one_of(&self, all: &[&str]) {
        let start = Instant::now();
        while !all.iter().any(|what| self.screen().contains(what)) {
            assert!(start.elapsed() < LIMIT, "none of {all:?} on the screen:\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    fn ends_with(&mut self, code: i32) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end:\n{}", self.screen());
            thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(code), "{}", self.screen());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line} \n")).collect()
}

#[test]
fn an_offer_is_a_conversation() {
    let daemon = Daemon::start(&["peer1"]);
    let mut terminal = Terminal::start(daemon.command("offer peer2 --lifetime 15m"));
    terminal.sees("paste the answer here");
    let marked = format!("\n----- from here -----\n{OFFER}\n----- to here -----\n");
    terminal.sees(&format!("Offer for peer2, open for 15 min (27 characters)\n{marked}"));
    terminal.types("hello\n\n");
    terminal.sees("qanahctl: this is no answer");
    terminal.types(&format!("{}\n-- \nMallory; touch /x\n", quoted(ANSWER)));
    terminal.sees("The answer of peer2 is good");
    terminal.sees("peer2 is connected");
    terminal.ends_with(0);
    let asked = daemon.fake.asked();
    assert!(asked[0].contains("peer: Some(\"peer2\"), lifetime_seconds: Some(900)"), "{asked:?}");
    assert!(asked[2].contains("DDDD") && !asked[2].contains("Mallory"), "{asked:?}");
}

#[test]
fn an_empty_line_or_the_end_of_input_leaves_the_offer_open() {
    let daemon = Daemon::start(&["peer1"]);
    for leave in ["\n", "\x04"] {
        let mut terminal = Terminal::start(daemon.command("offer --tunnel peer1"));
        terminal.sees("paste each answer here");
        terminal.types(leave);
        terminal.sees("The offer stays open: qanahctl accept --tunnel peer1");
        terminal.ends_with(0);
    }
}

#[test]
fn an_offer_for_all_takes_the_answers_one_by_one() {
    let daemon = Daemon::start(&["peer1"]);
    let mut terminal = Terminal::start(daemon.command("offer"));
    terminal.sees("Send it to peer2, peer3 whole");
    terminal.types(&format!("{ANSWER}\n"));
    terminal.sees("Send it to peer3 whole, and paste the answer here");
    terminal.types("\x04");
    terminal.ends_with(0);
}

#[test]
fn an_answer_is_a_conversation() {
    let daemon = Daemon::start(&["peer1"]);
    let mut terminal = Terminal::start(daemon.command("answer"));
    terminal.sees("Paste the offer here");
    terminal.types("nonsense\n\n");
    terminal.sees("this is no offer");
    terminal.types(&format!("{}\n", OFFER.replace('\n', "\n\n")));
    // What a peer calls itself cannot steer the terminal.
    terminal.sees("Answer: send it back to peer\\u{1b}2 whole (20 characters)");
    terminal.sees(&format!("\n{ANSWER}\n----- to here -----\n"));
    terminal.ends_with(0);
}

#[test]
fn accept_asks_and_follows() {
    let daemon = Daemon::start(&["peer1"]);
    let mut terminal = Terminal::start(daemon.command("accept"));
    terminal.sees("Paste the answer here");
    terminal.types(&format!("{ANSWER}\n"));
    terminal.sees("peer2 is connected");
    terminal.ends_with(0);
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn without_a_terminal_texts_go_in_and_out_plain() {
    let daemon = Daemon::start(&["peer1"]);
    let offer = daemon.piped("offer peer2", "");
    assert_eq!((text(&offer.stdout), offer.status.code()), (&*format!("{OFFER}\n"), Some(0)));
    let told = text(&offer.stderr);
    assert!(told.contains("qanahctl accept --tunnel peer1"), "{told}");

    let file = daemon.file("offer.txt", OFFER);
    for (line, input) in
        [(format!("answer {file}"), ""), ("answer".into(), OFFER), ("answer -".into(), OFFER)]
    {
        let answer = daemon.piped(&line, input);
        assert_eq!(
            (text(&answer.stdout), answer.status.code()),
            (&*format!("{ANSWER}\n"), Some(0)),
            "{line}"
        );
    }
    let accept = daemon.piped("accept -", ANSWER);
    assert_eq!((text(&accept.stdout), accept.status.code()), ("", Some(0)));
    assert!(text(&accept.stderr).contains("The answer of peer2 is good"));
}

#[test]
fn what_is_wrong_is_said_once_where_nobody_can_try_again() {
    let daemon = Daemon::start(&["peer1", "peer2"]);
    let cases = [
        ("accept --tunnel peer1", 1, "this is no answer"),
        ("accept --tunnel peer1 /nonexistent/x.txt", 1, "cannot read /nonexistent/x.txt"),
        ("offer --tunnel peer1 nobody", 2, "there is peer2"),
        ("offer --tunnel peer9", 4, "there is no tunnel peer9; there are peer1, peer2"),
        ("offer", 2, "say which one: --tunnel NAME"),
        ("offer --tunnel peer1 --lifetime 2w", 2, "the units are"),
        ("completions tcsh", 2, "possible values: bash, zsh, fish"),
        ("up --timeout 5 peer1", 2, "--wait"),
    ];
    for (line, code, word) in cases {
        let output = daemon.piped(line, "nonsense");
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        assert!(text(&output.stderr).contains(word), "{line}: {output:?}");
    }
}

#[test]
fn down_reload_and_check_say_what_was_done() {
    let daemon = Daemon::start(&["peer1", "same"]);
    let down = daemon.piped("down peer1", "");
    assert_eq!(text(&down.stdout), "peer1 is down\n");
    assert_eq!(text(&down.stderr), "note: PostDown 1 failed: \\u{1b}[1m\n");
    let reload = daemon.piped("reload peer1", "");
    assert_eq!(text(&reload.stdout), "peer1 is reloaded:\n  peer3 is new\n");
    let reload = daemon.piped("reload same", "");
    assert_eq!(text(&reload.stdout), "same: nothing has changed\n");
    let check = daemon.piped("check peer1", "");
    assert_eq!(text(&check.stdout), "interface: peer1\n  mtu: 1400\n");
    assert_eq!((text(&check.stderr), check.status.code()), ("qanahctl: line 3: no\n", Some(6)));
}

#[test]
fn a_file_is_checked_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, config: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["--socket", "/nonexistent/x.sock", "check"]).arg(&path);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let good = check("good.conf", include_str!("../../examples/peer1.conf"));
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(text(&good.stdout).starts_with("interface: good\n"));
    let bad = check("bad.conf", "[Interface]\nPrivateKey = AAAA\n");
    assert_eq!(bad.status.code(), Some(6));
    assert!(text(&bad.stderr).contains("bad.conf:2: PrivateKey: "), "{bad:?}");
    assert_eq!(check("a-name-that-is-too-long.conf", "").status.code(), Some(6));
}

#[test]
fn watch_prints_one_line_a_change_and_4_when_the_daemon_goes() {
    let daemon = Daemon::start(&["peer1"]);
    let output = daemon.piped("watch", "");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let [first, second, last] = lines.as_slice() else { panic!("{output:?}") };
    for line in [first, second] {
        assert_eq!(json(line)["tunnels"][0]["name"], "peer1");
    }
    assert_eq!(json(last)["tunnels"], serde_json::json!([]));
    assert_eq!(json(last)["errors"][0]["exit"], 4);
    assert!(text(&output.stderr).contains("has gone away"), "{output:?}");
}

/// Watches a tunnel that never changes again, until both lines are there.
fn watching(daemon: &Daemon) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = daemon.command("watch lasting").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("lasting"));
    }
    (child, lines)
}

#[test]
fn watch_ends_well_when_it_is_told_to_or_nobody_reads() {
    let daemon = Daemon::start(&["lasting"]);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut child, _lines) = watching(&daemon);
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
    let (mut child, lines) = watching(&daemon);
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_redraws_in_place_and_gives_the_terminal_back() {
    let daemon = Daemon::start(&["lasting"]);
    let mut terminal = Terminal::start(daemon.command("watch lasting"));
    terminal.sees("\x1b[?1049h");
    // The second frame stands where the first one stood, a second older: or two, where the first
    // was drawn just before a second was over.
    terminal.sees("\x1b[H\x1b[1mtunnel lasting  \x1b[0mup 3 min");
    terminal.sees_one_of(&["13 s ago", "14 s ago"]);
    terminal.types("\x03");
    terminal.sees("\x1b[?25h\x1b[?1049l");
    terminal.ends_with(0);
}

#[test]
fn completions_are_what_the_shell_reads() {
    for (shell, program, word) in [
        ("bash", "bash", "_qanahctl"),
        ("zsh", "zsh", "#compdef qanahctl"),
        ("fish", "fish", "complete -c qanahctl"),
    ] {
        let output = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains(word), "{shell}");
        if Path::new("/usr/bin").join(program).exists() || Path::new("/bin").join(program).exists()
        {
            let script = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(script.path(), &output.stdout).unwrap();
            let checked = Command::new(program).arg("-n").arg(script.path()).status().unwrap();
            assert!(checked.success(), "{shell}");
        }
    }
}
