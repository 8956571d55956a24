use qanah_proto::v1;

use super::*;
use crate::testing::{
    broker, candidate, carried, connected, relaying, server, tunnel, unconnected,
};
use crate::text::is_unsafe;

/// What stands in the file below must be what is printed, and fit.
#[track_caller]
fn prints(status: &Tunnel, expected: &str) {
    let printed = super::tunnel(status, Style::Plain);
    assert_eq!(printed, expected.trim_start_matches('\n'), "\n{printed}");
    assert!(printed.lines().all(|line| width(line) <= WIDTH), "\n{printed}");
}

#[test]
fn connected_and_connecting() {
    let mut status = tunnel("peer1");
    let no_answer = unconnected(PeerState::Connecting, "no answer yet", Some(3));
    status.peers.push(v1::Peer { drops: [("no_session".into(), 7)].into(), ..no_answer });
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min

  PEER   STATE      PATH    RTT     HANDSHAKE  RECEIVED  SENT
  peer2  connected  direct  0.4 ms  12 s ago   1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
  peer3  connecting: no answer yet, next try in 3 s
         TrMvSoP4jY… 10.0.0.3/32, fd00::3/128
         dropped 7 no session
",
    );
}

#[test]
fn only_servers_in_trouble_are_shown() {
    let mut status = tunnel("peer1");
    status.servers = vec![server(""), server("its certificate is not for turn.example.com")];
    let gone = server("no answer");
    status.servers.push(v1::Server { url: "stun:192.0.2.1:3478".into(), ..gone });
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min
  servers     turns:turn.example.com:443?transport=tcp fails for 12 s: its
              certificate is not for turn.example.com
              stun:192.0.2.1:3478 fails for 12 s: no answer

  PEER   STATE      PATH    RTT     HANDSHAKE  RECEIVED  SENT
  peer2  connected  direct  0.4 ms  12 s ago   1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
",
    );
}

#[test]
fn a_port_is_shown_when_it_is_taken() {
    let mut status = tunnel("peer1");
    status.listen_port = Some(v1::ListenPort { port: 51820, error: String::new() });
    assert!(!super::tunnel(&status, Style::Plain).contains("51820"));
    let error =
        "is taken by another program or tunnel at 192.0.2.1, which `ss` tells: end that".into();
    status.listen_port = Some(v1::ListenPort { port: 51820, error });
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min
  ListenPort  51820 is taken by another program or tunnel at 192.0.2.1, which
              `ss` tells: end that

  PEER   STATE      PATH    RTT     HANDSHAKE  RECEIVED  SENT
  peer2  connected  direct  0.4 ms  12 s ago   1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
",
    );
}

#[test]
fn by_turn_and_through_a_relay() {
    let mut status = tunnel("peer1");
    let mut turn = connected();
    turn.path.as_mut().unwrap().local =
        candidate(CandidateKind::Relayed, "[2001:db8:1111:2222:3333:4444:5555:6666]:49152");
    turn.path.as_mut().unwrap().remote =
        candidate(CandidateKind::PeerReflexive, "[2001:db8:1111:2222:3333:4444:5555:7777]:65535");
    let relayed = v1::Peer {
        name: "peer3".into(),
        path: Some(v1::Path {
            kind: PathKind::Relay.into(),
            via: "peer2".into(),
            ..v1::Path::default()
        }),
        rtt_micros: Some(31_400),
        last_handshake_seconds: Some(7200),
        drops: [("replayed".into(), 3), ("spoofed_source".into(), 1)].into(),
        ..connected()
    };
    status.peers = vec![turn, relayed];
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min

  PEER   STATE      PATH       RTT      HANDSHAKE  RECEIVED  SENT
  peer2  connected  by TURN    0.4 ms   12 s ago   1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         relayed [2001:db8:1111:2222:3333:4444:5555:6666]:49152 to reflexive
         [2001:db8:1111:2222:3333:4444:5555:7777]:65535
  peer3  connected  via peer2  31.4 ms  2 h ago    1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         dropped 3 replayed, 1 spoofed source
",
    );
}

#[test]
fn what_is_carried_for_others() {
    let mut status = tunnel("peer2");
    status.relaying = Some(relaying(vec![
        carried("peer1", "peer3", 1_300_000, 0),
        carried("peer3", "peer1", 900_000, 12),
    ]));
    let lines = |status: &Tunnel| {
        let text = super::tunnel(status, Style::Plain);
        assert!(text.lines().all(|line| width(line) <= WIDTH), "\n{text}");
        let (_, rest) = text.split_once("  relaying ").unwrap();
        rest.split_once("\n\n").unwrap().0.to_owned()
    };
    assert_eq!(
        lines(&status),
        "   peer1 to peer3 1.2 MiB, peer3 to peer1 878 KiB (12 dropped); at
              most 256 KiB a pair and 512 KiB in all wait"
    );
    status.relaying = None;
    assert_eq!(lines(&status), "   off");
    status.relaying = Some(relaying(Vec::new()));
    assert!(!super::tunnel(&status, Style::Plain).contains("relaying"), "nothing to say");
}

#[test]
fn a_peer_that_waits_for_traffic() {
    let mut status = tunnel("peer1");
    status.peers =
        vec![unconnected(PeerState::Idle, "connects when there is traffic for it", None)];
    let text = super::tunnel(&status, Style::Plain);
    assert!(text.contains("  peer3  idle: connects when there is traffic for it\n"), "{text}");
}

#[test]
fn broker_gone_and_nobody_there() {
    let mut status = tunnel("peer1");
    let mut second = broker(false, "");
    second.label = "mqtts://broker.example.com:8883".into();
    let brokers = vec![broker(false, "connection refused (os error 111)"), second];
    status.signaling = Some(v1::Signaling { brokers });
    let waiting = unconnected(PeerState::WaitingForSignaling, "no broker is connected", Some(8));
    let mut disabled = unconnected(PeerState::Disabled, "its public key is ours", None);
    disabled.name = String::new();
    status.peers = vec![waiting, disabled];
    status.drops = [("no_route".into(), 12), ("malformed".into(), 1)].into();
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 not connected for 3 min: connection
              refused (os error 111)
              mqtts://broker.example.com:8883 not connected yet, trying for
              3 min
  dropped     1 malformed, 12 no route

  peer3        waiting for signaling: no broker is connected, next try in 8 s
               TrMvSoP4jY… 10.0.0.3/32, fd00::3/128
  TrMvSoP4jY…  disabled: its public key is ours
               10.0.0.3/32, fd00::3/128
",
    );
}

#[test]
fn peer_gone() {
    let mut status = tunnel("peer1");
    let mut recovering = connected();
    recovering.state = PeerState::Recovering.into();
    recovering.reason = "no answer for 15 s, trying new addresses".into();
    recovering.next_try_seconds = Some(2);
    recovering.rtt_micros = None;
    let gone = v1::Peer {
        last_handshake_seconds: Some(300),
        received: Some(v1::Traffic { packets: 1, bytes: 84 }),
        ..unconnected(PeerState::Connecting, "the peer said goodbye", Some(25))
    };
    status.peers = vec![recovering, gone];
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min

  PEER   STATE       PATH    RTT  HANDSHAKE  RECEIVED  SENT
  peer2  recovering  direct  -    12 s ago   1.2 MiB   3.4 KiB
         xTIBA5rboU… 10.0.0.2/32, fd00::2/128
         host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
         no answer for 15 s, trying new addresses, next try in 2 s
  peer3  connecting: the peer said goodbye, next try in 25 s
         TrMvSoP4jY… 10.0.0.3/32, fd00::3/128
         last handshake 5 min ago, received 84 B, sent 0 B
",
    );
}

#[test]
fn no_broker_no_peers_and_a_long_life() {
    let mut status = tunnel("peer1");
    status.signaling = None;
    status.peers.clear();
    status.uptime_seconds = 1_000_000;
    status.addresses =
        (1..9).map(|i| format!("2001:db8:1111:2222:3333:4444:5555:{i}/64")).collect();
    prints(
        &status,
        r"
tunnel peer1  up 11 d 13 h, MTU 1400, 2001:db8:1111:2222:3333:4444:5555:1/64,
              2001:db8:1111:2222:3333:4444:5555:2/64,
              2001:db8:1111:2222:3333:4444:5555:3/64,
              2001:db8:1111:2222:3333:4444:5555:4/64,
              2001:db8:1111:2222:3333:4444:5555:5/64,
              2001:db8:1111:2222:3333:4444:5555:6/64,
              2001:db8:1111:2222:3333:4444:5555:7/64,
              2001:db8:1111:2222:3333:4444:5555:8/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   no broker

  no peers
",
    );
}

#[test]
fn names_that_are_long_wide_or_hostile() {
    let mut status = tunnel("peer1");
    let long = v1::Peer { name: "a-machine-with-a-very-long-name".into(), ..connected() };
    let wide = v1::Peer { name: "東京".into(), ..connected() };
    let hostile = v1::Peer {
        name: "\x1b]0;x\x07\u{202e}".into(),
        path: Some(v1::Path {
            kind: PathKind::Relay.into(),
            via: "\x1b[2Jrelay".into(),
            ..v1::Path::default()
        }),
        reason: "line\nbreak \u{9b}31m".into(),
        ..connected()
    };
    status.peers = vec![long, wide, hostile];
    prints(
        &status,
        r"
tunnel peer1  up 3 min, MTU 1400, 10.0.0.1/24, fd00::1/64
  public key  HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
  signaling   mqtt://broker.emqx.io:1883 connected for 3 min

  PEER            STATE      PATH           RTT     HANDSHAKE  RECEIVED  SENT
  a-machine-wit…  connected  direct         0.4 ms  12 s ago   1.2 MiB   3.4 KiB
                  a-machine-with-a-very-long-name
                  xTIBA5rboU… 10.0.0.2/32, fd00::2/128
                  host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
  東京            connected  direct         0.4 ms  12 s ago   1.2 MiB   3.4 KiB
                  xTIBA5rboU… 10.0.0.2/32, fd00::2/128
                  host 192.0.2.1:51000 to reflexive 198.51.100.7:4444
  \u{1b}]0;x\u{…  connected  via \u{1b}[2…  0.4 ms  12 s ago   1.2 MiB   3.4 KiB
                  \u{1b}]0;x\u{7}\u{202e}
                  xTIBA5rboU… 10.0.0.2/32, fd00::2/128
                  line\nbreak \u{9b}31m
",
    );
}

/// The worst of everything still fits and cannot steer the terminal.
#[test]
fn everything_fits_and_is_safe() {
    let nasty = "\x1b[1m\u{202e}\u{9b}\n".repeat(30);
    let mut status = tunnel("fifteen-letters");
    status.mtu = u32::MAX;
    status.uptime_seconds = u64::MAX;
    status.signaling = Some(v1::Signaling { brokers: vec![broker(false, &nasty)] });
    status.servers = vec![v1::Server { url: nasty.clone(), ..server(&nasty) }];
    status.drops = [(nasty.clone(), u64::MAX)].into();
    for name in ["a", "name-of-forty-columns-aaaaaaaaaaaaaaaaaaaa", nasty.as_str()] {
        for state in (0..=6).map(|n| PeerState::try_from(n).unwrap_or_default()) {
            let mut path = connected().path;
            if state == PeerState::Recovering {
                let via = name.to_owned();
                path = Some(v1::Path { kind: PathKind::Relay.into(), via, ..v1::Path::default() });
            }
            status.peers.push(v1::Peer {
                name: name.into(),
                state: state.into(),
                reason: nasty.clone(),
                next_try_seconds: Some(u64::MAX),
                path,
                rtt_micros: Some(99_999_999),
                last_handshake_seconds: Some(3599),
                received: Some(v1::Traffic { packets: 0, bytes: (1 << 20) - 1 }),
                sent: Some(v1::Traffic { packets: 0, bytes: (1 << 50) - 1 }),
                ..connected()
            });
        }
    }
    let printed = super::tunnel(&status, Style::Plain);
    assert!(!printed.contains(|c| c != '\n' && is_unsafe(c)));
    for line in printed.lines() {
        assert!(width(line) <= WIDTH, "{line}\n{printed}");
    }
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let mut status = tunnel("peer1");
    status.peers.push(unconnected(PeerState::Connecting, "connecting", Some(3)));
    let plain = super::tunnel(&status, Style::Plain);
    let colour = super::tunnel(&status, Style::Colour);
    assert!(colour.starts_with("\x1b[1mtunnel peer1  \x1b[0mup"));
    assert!(colour.contains("\x1b[32mconnected\x1b[0m  direct"));
    assert!(colour.contains("\x1b[33mconnecting\x1b[0m: connecting"));
    let mut stripped = colour;
    for code in ["0", "1", "2", "32", "33"] {
        stripped = stripped.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(stripped, plain);
}
