use std::path::Path;

use super::*;

const QUICK: Limits = Limits {
    each: Duration::from_millis(500),
    all: Duration::from_secs(5),
    grace: Duration::from_millis(300),
};
/// For commands that end by themselves, on a machine that is busy.
const PATIENT: Limits = Limits {
    each: Duration::from_secs(20),
    all: Duration::from_secs(20),
    grace: Duration::from_millis(300),
};

async fn up(commands: &[&str], limits: Limits) -> Result<(), HookError> {
    let commands: Vec<String> = commands.iter().map(|text| (*text).to_owned()).collect();
    let (_hold, mut stop) = watch::channel(false);
    run_until_failure(Kind::PostUp, &commands, "peer1", limits, &mut stop).await
}

fn is_alive(pid_file: &Path) -> bool {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    // A zombie is as good as dead.
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

async fn until_dead(pid_file: &Path) {
    super::super::testing::until("the process is gone", async || !is_alive(pid_file)).await;
}

#[tokio::test]
async fn commands_run_in_order_under_bash_with_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let out = out.display();
    up(
        &[
            &format!("[[ %i == peer1 ]] && echo one %i > {out}"),
            &format!("echo two \"${{#PATH}}\" >> {out}"),
            &format!("env | cut -d= -f1 | sort | paste -sd, >> {out}"),
            &format!("readlink /proc/self/fd/0 >> {out}; pwd >> {out}"),
        ],
        PATIENT,
    )
    .await
    .unwrap();
    let text = std::fs::read_to_string(dir.path().join("out")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["one peer1", &format!("two {}", PATH.len())]);
    // PATH, and what bash itself adds.
    assert_eq!(lines[2..], ["PATH,PWD,SHLVL,_", "/dev/null", "/"]);
}

#[tokio::test]
async fn the_first_failure_is_the_last_command() {
    let dir = tempfile::tempdir().unwrap();
    let never = dir.path().join("never");
    let failed = up(&["true", "exit 7", &format!("touch {}", never.display())], PATIENT).await;
    let error = failed.unwrap_err();
    assert_eq!((error.number, &error.what), (2, &Fault::Code(7)));
    assert!(error.to_string().starts_with("PostUp command 2 failed with exit code 7"));
    assert!(!never.exists());
    assert_eq!(up(&["kill -9 $$"], PATIENT).await.unwrap_err().what, Fault::Signal(9));
}

#[tokio::test]
async fn on_the_way_down_all_commands_run() {
    let dir = tempfile::tempdir().unwrap();
    let last = dir.path().join("last");
    let commands = ["exit 1".to_owned(), "no-such-program".into(), format!("> {}", last.display())];
    let failures = run_all(Kind::PostDown, &commands, "peer1", PATIENT).await;
    let faults: Vec<_> =
        failures.into_iter().map(|failure| (failure.number, failure.what)).collect();
    assert_eq!(faults, [(1, Fault::Code(1)), (2, Fault::Code(127))]);
    assert!(last.exists());
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (child, own) = (dir.path().join("child"), dir.path().join("own"));
    // It ignores SIGTERM, and so does what it has put into the background.
    let command = format!(
        "trap '' TERM; (while :; do sleep 1; done) & echo $! > {}; echo $$ > {}; \
         while :; do sleep 1; done",
        child.display(),
        own.display()
    );
    let begin = Instant::now();
    let limits = Limits { each: Duration::from_secs(2), ..QUICK };
    let error = up(&[&command], limits).await.unwrap_err();
    assert_eq!(error.what, Fault::TooLong(limits.each));
    assert!(begin.elapsed() < Duration::from_secs(10));
    until_dead(&child).await;
    until_dead(&own).await;
}

#[tokio::test]
async fn all_commands_together_have_a_limit() {
    let limits = Limits { each: Duration::from_secs(20), all: Duration::from_secs(1), ..QUICK };
    let error = up(&["true", "sleep 30", "true"], limits).await.unwrap_err();
    assert_eq!(error.number, 2);
    assert!(matches!(error.what, Fault::TooLong(_)));
}

#[tokio::test]
async fn what_is_left_in_the_background_lives_on_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let begin = Instant::now();
    up(&[&format!("sleep 60 & echo $! > {}", pid.display())], PATIENT).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert!(is_alive(&pid));
    let number: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(number), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn it_can_be_broken_off() {
    let (stop, mut stopped) = watch::channel(false);
    let commands = ["sleep 60".to_owned()];
    let running = run_until_failure(Kind::PreUp, &commands, "peer1", PATIENT, &mut stopped);
    let (error, ()) = tokio::join!(running, async {
        stop.send_replace(true);
    });
    assert_eq!(error.unwrap_err().what, Fault::BrokenOff);
}

#[tokio::test]
async fn no_descriptor_of_the_daemon_is_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (read, _write) = io::pipe().unwrap();
    // As a C library makes them.
    let leak = nix::unistd::dup(&read).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&leak);
    up(&[&format!("ls /proc/self/fd/{number} 2>/dev/null > {}; true", out.display())], PATIENT)
        .await
        .unwrap();
    // `ls` itself opens none there: it was given a file that is not.
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "");
}

#[test]
fn output_is_bounded_in_length_and_number() {
    let mut lines = Lines::default();
    let long = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
    assert_eq!(lines.push(&long)[0].len(), LINE);
    assert_eq!(lines.push(b"\x1b[31mred"), Vec::<String>::new());
    assert_eq!(lines.end().unwrap(), "\\u{1b}[31mred");
    let shown = lines.push(&b"a\n".repeat(10_000)).len();
    assert_eq!(shown, LINES - 2);
    assert_eq!(lines.left_out, 10_000 - shown as u64);
}
