use std::path::PathBuf;

use clap::{Args as _, FromArgMatches};
use qanah_proto::v1::PeerState;

use super::*;
use crate::testing::{FakeDaemon, tunnel, unconnected};

async fn up(sockets: &Sockets, line: &[&str]) -> Outcome {
    let command = Args::augment_args(clap::Command::new("up"));
    let matches = command.get_matches_from(["up"].iter().chain(line));
    run(Args::from_arg_matches(&matches).unwrap(), sockets).await
}

fn all(dir: &tempfile::TempDir) -> Sockets {
    Sockets::All(dir.path().into())
}

#[tokio::test]
async fn it_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = FakeDaemon::start(dir.path(), "qanahd", vec![]);
    let outcome = up(&all(&dir), &["peer1"]).await;
    assert_eq!(outcome.text, "peer1 is up: 10.0.0.1/24, fd00::1/64, MTU 1400, 1 peer\n");
    assert_eq!(
        (outcome.notes.as_slice(), outcome.exit()),
        (&["ListenPort has no effect".to_owned()][..], Exit::Well)
    );
    assert!(
        daemon.asked()[0].contains("Name(\"peer1\")")
            && daemon.asked()[0].contains("options: None")
    );
    let outcome = up(&all(&dir), &["peer1", "--wait", "--timeout", "5"]).await;
    assert!(outcome.text.ends_with("1 peer\npeer2 is connected\n"), "{outcome:?}");
}

#[tokio::test]
async fn a_file_is_sent_as_text_under_its_stem_and_with_options() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = FakeDaemon::start(dir.path(), "qanahd", vec![]);
    let file = dir.path().join("mine.conf");
    std::fs::write(&file, "[Interface]").unwrap();
    let line = [
        file.to_str().unwrap(),
        "--stun",
        "stun:a",
        "--stun",
        "stun:b",
        "--no-relay",
        "--lazy",
        "--idle-timeout",
        "9",
    ];
    let outcome = up(&all(&dir), &line).await;
    assert_eq!(outcome.exit(), Exit::Well, "{outcome:?}");
    let asked = daemon.asked().remove(0);
    for part in [
        "name: \"mine\"",
        "stun: [\"stun:a\", \"stun:b\"]",
        "no_relay: Some(true)",
        "lazy: Some(true)",
        "idle_timeout_seconds: Some(9)",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
}

#[tokio::test]
async fn refusals_have_their_exit_codes_and_advice() {
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "qanahd", vec![]);
    let cases = [
        ("taken", Exit::Failed, "qanahctl reload"),
        ("hook", Exit::Failed, "journalctl"),
        ("broken", Exit::BadConfig, ""),
        ("root", Exit::Denied, "sudo"),
    ];
    for (name, exit, advice) in cases {
        let outcome = up(&all(&dir), &[name]).await;
        assert_eq!(outcome.exit(), exit, "{name}");
        let hint = outcome.troubles[0].hint.clone().unwrap_or_default();
        assert!(hint.contains(advice), "{outcome:?}");
    }
}

#[tokio::test]
async fn without_the_daemon_of_many_it_says_which_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = up(&all(&dir), &["peer1"]).await;
    assert_eq!(nobody.exit(), Exit::Down);
    let hint = nobody.troubles[0].hint.clone().unwrap();
    assert_eq!(hint, "start it: systemctl start qanahd");
    FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    FakeDaemon::start(dir.path(), "peer2", vec![tunnel("peer2")]);
    let other = up(&all(&dir), &["peer3"]).await;
    assert!(other.troubles[0].message.ends_with("one tunnel each: peer1, peer2"), "{other:?}");
    assert!(other.troubles[0].hint.clone().unwrap().contains("systemctl start qanahd@peer3"));
    let taken = up(&all(&dir), &["peer2"]).await;
    assert_eq!(taken.troubles[0].message, "the tunnel peer2 is up already");
}

#[tokio::test]
async fn waiting_ends_with_the_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let mut alone = tunnel("alone");
    alone.peers = vec![unconnected(PeerState::Connecting, "no answer yet", Some(3))];
    let daemon = FakeDaemon::start(dir.path(), "qanahd", vec![alone]);
    let socket: PathBuf = daemon.path;
    // The stream of the fake ends, which is what a tunnel does that goes down.
    let outcome =
        wait_for_a_peer(Outcome::default(), &socket, "alone", Duration::from_secs(5)).await;
    assert!(outcome.troubles[0].message.contains("went down"), "{outcome:?}");
}
