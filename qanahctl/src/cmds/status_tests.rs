use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::testing::{FakeDaemon, carried, relaying, tunnel, unconnected};

async fn status(dir: &Path, name: Option<&str>) -> Outcome {
    let args = Args { name: name.map(Into::into), json: false };
    run(&args, &Sockets::All(dir.into()), Style::Plain).await
}

fn messages(outcome: &Outcome) -> Vec<&str> {
    outcome.troubles.iter().map(|trouble| trouble.message.as_str()).collect()
}

#[tokio::test]
async fn exit_codes_follow_the_peers() {
    let dir = tempfile::tempdir().unwrap();
    let mut partly = tunnel("partly");
    partly.peers.push(unconnected(PeerState::Connecting, "", None));
    let mut disabled = tunnel("disabled");
    disabled.peers.push(unconnected(PeerState::Disabled, "", None));
    let mut recovering = tunnel("recovering");
    recovering.peers = vec![unconnected(PeerState::Recovering, "", None)];
    FakeDaemon::start(dir.path(), "qanahd", vec![tunnel("all"), partly, disabled, recovering]);
    let cases = [
        (Some("all"), Exit::Well),
        (Some("partly"), Exit::NotAllConnected),
        (Some("disabled"), Exit::Well),
        (Some("recovering"), Exit::NotAllConnected),
        (None, Exit::NotAllConnected),
        (Some("none"), Exit::Down),
        (Some("denied"), Exit::Denied),
    ];
    for (name, exit) in cases {
        assert_eq!(status(dir.path(), name).await.exit(), exit, "{name:?}");
    }
}

#[tokio::test]
async fn all_daemons_are_asked_and_the_one_that_has_the_tunnel_answers() {
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    FakeDaemon::start(dir.path(), "peer2", vec![tunnel("peer2")]);
    FakeDaemon::start(dir.path(), "qanahd", vec![]);
    // One that died: it matters only when everything was asked for.
    drop(StdListener::bind(dir.path().join("peer3.sock")).unwrap());

    let one = status(dir.path(), Some("peer2")).await;
    assert!(one.text.starts_with("tunnel peer2  ") && !one.text.contains("peer1"));
    assert_eq!((messages(&one), one.exit()), (vec![], Exit::Well));

    let all = status(dir.path(), None).await;
    assert!(all.text.contains("tunnel peer1  ") && all.text.contains("\n\ntunnel peer2  "));
    assert_eq!(all.exit(), Exit::Down);
    assert!(messages(&all)[0].contains("nobody listens"));
}

#[tokio::test]
async fn an_unknown_tunnel_is_told_with_the_names_there_are() {
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "peer2", vec![tunnel("peer2")]);
    FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    let outcome = status(dir.path(), Some("peer9")).await;
    assert_eq!(messages(&outcome), ["there is no tunnel peer9; there are peer1, peer2"]);
    assert_eq!((outcome.text.as_str(), outcome.exit()), ("", Exit::Down));
}

#[tokio::test]
async fn a_daemon_without_tunnels_is_down() {
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "qanahd", vec![]);
    let outcome = status(dir.path(), None).await;
    assert_eq!((messages(&outcome), outcome.exit()), (vec!["no tunnel is up"], Exit::Down));
}

#[tokio::test]
async fn one_socket_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    FakeDaemon::start(dir.path(), "peer2", vec![tunnel("peer2")]);
    let args = Args { name: None, json: false };
    let outcome = run(&args, &Sockets::One(daemon.path), Style::Plain).await;
    assert!(outcome.text.contains("tunnel peer1") && !outcome.text.contains("tunnel peer2"));
    let missing = Sockets::One(dir.path().join("none.sock"));
    assert_eq!(run(&args, &missing, Style::Plain).await.exit(), Exit::Down);
}

async fn as_json(dir: &Path) -> Value {
    let args = Args { name: None, json: true };
    let outcome = run(&args, &Sockets::All(dir.into()), Style::Plain).await;
    serde_json::from_str(&outcome.text).unwrap()
}

/// The schema of the module's documentation, as an example of each shape.
#[tokio::test]
async fn the_json_schema() {
    let dir = tempfile::tempdir().unwrap();
    let mut status = tunnel("peer1");
    status.peers.push(unconnected(PeerState::WaitingForSignaling, "nothing heard", Some(3)));
    status.relaying = Some(relaying(vec![carried("peer2", "peer3", 5000, 2)]));
    status.servers.push(crate::testing::server("no answer"));
    status.listen_port = Some(qanah_proto::v1::ListenPort { port: 51820, error: "taken".into() });
    let daemon = FakeDaemon::start(dir.path(), "peer1", vec![status]);
    drop(StdListener::bind(dir.path().join("x.sock")).unwrap());
    let got = as_json(dir.path()).await;
    let stale = dir.path().join("x.sock").display().to_string();
    let expected = json!({
        "schema": 1,
        "tunnels": [{
            "name": "peer1",
            "socket": daemon.path.display().to_string(),
            "version": "9.8.7",
            "public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
            "addresses": ["10.0.0.1/24", "fd00::1/64"],
            "mtu": 1400,
            "nat": "unknown",
            "listen_port": { "port": 51820, "error": "taken" },
            "uptime_seconds": 190,
            "signaling": { "brokers": [{
                "url": "mqtt://broker.emqx.io:1883",
                "connected": true,
                "error": null,
                "since_seconds": 189,
            }] },
            "servers": [{
                "url": "turns:turn.example.com:443?transport=tcp",
                "kind": "turn",
                "state": "trouble",
                "error": "no answer",
                "since_seconds": 12,
            }],
            "peers": [
                {
                    "name": "peer2",
                    "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
                    "allowed_ips": ["10.0.0.2/32", "fd00::2/128"],
                    "state": "connected",
                    "reason": null,
                    "next_try_seconds": null,
                    "path": {
                        "kind": "direct",
                        "via": null,
                        "local": { "kind": "host", "address": "192.0.2.1:51000" },
                        "remote": { "kind": "server_reflexive", "address": "198.51.100.7:4444" },
                        "packet_size": 1412,
                    },
                    "rtt_micros": 420,
                    "last_handshake_seconds": 12,
                    "received": { "packets": 1000, "bytes": 1_300_000 },
                    "sent": { "packets": 40, "bytes": 3500 },
                    "drops": {},
                },
                {
                    "name": "peer3",
                    "public_key": "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
                    "allowed_ips": ["10.0.0.3/32", "fd00::3/128"],
                    "state": "waiting_for_signaling",
                    "reason": "nothing heard",
                    "next_try_seconds": 3,
                    "path": null,
                    "rtt_micros": null,
                    "last_handshake_seconds": null,
                    "received": { "packets": 0, "bytes": 0 },
                    "sent": { "packets": 0, "bytes": 0 },
                    "drops": {},
                },
            ],
            "drops": { "unknown_frame": 0 },
            "relaying": {
                "limit_per_pair": 262_144,
                "limit_in_all": 524_288,
                "pairs": [{
                    "from": "peer2",
                    "to": "peer3",
                    "frames": 5,
                    "bytes": 5000,
                    "dropped": 2,
                }],
            },
        }],
        "errors": [{
            "exit": 4,
            "message": format!(
                "no daemon: nobody listens on {stale} (left over by one that died)"
            ),
        }],
    });
    assert_eq!(got, expected, "{got:#}");
}

/// Every key that is printed is in the documentation of the schema.
#[tokio::test]
async fn the_schema_is_documented() {
    fn keys(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
            Value::Object(map) => {
                for (key, value) in map {
                    into.push(key.clone());
                    if key != "drops" {
                        keys(value, into);
                    }
                }
            }
            _ => {}
        }
    }
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    let (source, mut found) = (include_str!("status.rs"), Vec::new());
    keys(&as_json(dir.path()).await, &mut found);
    let documented: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    assert!(found.len() > 30);
    for key in found {
        assert!(documented.contains(&key.as_str()), "{key} is not documented");
    }
}
