//! STUN and TURN servers, and what delays what.

use super::*;

/// A STUN server that never answers, a name that does not exist and one that hangs delay nothing.
#[test]
fn servers_that_do_not_answer_delay_nothing() {
    in_namespace(|| async {
        // Bound, so that there is not even an ICMP error, and never read.
        let mute = std::net::UdpSocket::bind((A4, 0)).unwrap();
        let with_servers = |address| Settings {
            stun: vec![
                "stun:does-not-exist.invalid:3478".to_owned(),
                format!("stun:{}", mute.local_addr().unwrap()),
            ],
            turn: vec![TurnServer {
                url: "turn:neither-does-this.invalid:3478".to_owned(),
                username: "user".to_owned(),
                credential: "secret".to_owned(),
            }],
            ..settings(&[address])
        };
        let begin = Instant::now();
        let mut lab = Lab::new(&with_servers(A4), &with_servers(B4)).await;
        lab.until("a host candidate", Duration::from_millis(500), |sides| {
            sides.iter().all(|side| !side.candidates.is_empty())
        })
        .await;
        lab.until_open().await;
        let took = begin.elapsed();
        println!("open after {took:?} with servers that do not answer");
        assert!(took < Duration::from_secs(2), "{took:?}");
        lab.exchange(100).await;
        lab.close().await;
    });
}

/// Answers STUN binding requests (RFC 8489, sections 5 and 14.2) with an address of its own choice.
async fn stun_server(socket: tokio::net::UdpSocket, mapped: SocketAddr) {
    let SocketAddr::V4(mapped) = mapped else { panic!("IPv4 only") };
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        if length < 20 || buffer[..2] != [0, 1] {
            continue;
        }
        let mut answer = vec![1, 1, 0, 12];
        answer.extend_from_slice(&buffer[4..20]);
        answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
        answer.extend_from_slice(&(mapped.port() ^ 0x2112).to_be_bytes());
        let address = u32::from(*mapped.ip()) ^ 0x2112_a442;
        answer.extend_from_slice(&address.to_be_bytes());
        socket.send_to(&answer, from).await.unwrap();
    }
}

/// The server is named, so the request goes by way of a placeholder.
#[test]
fn a_named_stun_server_gives_a_reflexive_candidate() {
    in_namespace(|| async {
        add_address("127.0.0.1").await;
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let mapped: SocketAddr = "203.0.113.9:4242".parse().unwrap();
        tokio::spawn(stun_server(socket, mapped));
        let offerer = Settings { stun: vec![format!("stun:localhost:{port}")], ..settings(&[A4]) };
        let mut lab = Lab::new(&offerer, &settings(&[B4])).await;
        lab.until("a reflexive candidate", Duration::from_secs(5), |sides| {
            let kind = CandidateKind::ServerReflexive;
            let is_it = |one: &Candidate| one.kind == kind && one.address == mapped;
            sides[0].candidates.iter().any(is_it)
        })
        .await;
        lab.until_open().await;
        lab.exchange(100).await;
        lab.close().await;
    });
}

#[test]
fn gathering_ends_at_once_without_servers() {
    in_namespace(|| async {
        let mut lab = Lab::new(&settings(&[A4]), &settings(&[B4])).await;
        lab.until("the end of gathering", Duration::from_secs(5), |sides| {
            sides.iter().all(|side| side.gathered)
        })
        .await;
        lab.close().await;
    });
}

/// A TURN server of our own in the namespace; ends with the value.
struct Turn {
    process: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn turn_server(address: &str) -> Turn {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let process = std::process::Command::new("turnserver")
        .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech", "--realm=test"])
        .args(["--user=someone:secret", "--log-file=stdout", "--listening-port=3478"])
        .arg(format!("--listening-ip={address}"))
        .arg(format!("--relay-ip={address}"))
        .arg(format!("--pidfile={}", file("pid").display()))
        .arg(format!("--userdb={}", file("db").display()))
        .current_dir(directory.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("coturn is needed: apt-get install coturn");
    let server = Turn { process, _directory: directory };
    // It answers a binding request when it is up.
    let probe = tokio::net::UdpSocket::bind((ip(A4), 0)).await.unwrap();
    let request = *b"\x00\x01\x00\x00\x21\x12\xa4\x42twelve bytes";
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 1500];
    loop {
        assert!(Instant::now() < deadline, "turnserver does not start");
        probe.send_to(&request, (ip(address), 3478)).await.unwrap();
        let answer = probe.recv_from(&mut buffer);
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), answer).await {
            return server;
        }
    }
}

#[test]
fn connects_through_a_turn_server_alone() {
    in_namespace(|| async {
        const RELAY: &str = "192.0.2.3";
        add_address(RELAY).await;
        let _server = turn_server(RELAY).await;
        let relayed = |address| Settings {
            relay_only: true,
            turn: vec![TurnServer {
                url: format!("turn:{RELAY}:3478"),
                username: "someone".to_owned(),
                credential: "secret".to_owned(),
            }],
            ..settings(&[address])
        };
        let begin = Instant::now();
        let mut lab = Lab::open(&relayed(A4), &relayed(B4)).await;
        println!("open through TURN after {:?}", begin.elapsed());
        for side in &lab.sides {
            let (local, remote) = side.pair.unwrap();
            assert_eq!(local.kind, CandidateKind::Relayed);
            assert_eq!(local.address.ip(), ip(RELAY));
            assert_eq!(remote.address.ip(), ip(RELAY));
            assert!(side.candidates.iter().all(|one| one.kind == CandidateKind::Relayed));
        }
        for size in [1, 1400, 64 * 1024] {
            lab.exchange(size).await;
        }
        // Nothing lies about until ICE's timer comes by.
        let begin = Instant::now();
        for _ in 0..10 {
            lab.exchange(100).await;
        }
        println!("a round trip through TURN takes {:?}", begin.elapsed() / 10);
        assert!(begin.elapsed() < Duration::from_secs(1));
        restart(&mut lab, 0).await;
        lab.until_reconnected(2).await;
        lab.exchange(1400).await;
        lab.close().await;
    });
}
