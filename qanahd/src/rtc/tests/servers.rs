//! STUN and TURN servers, and what delays what.

use std::time::SystemTime;

use qanah_core::servers::Host;
use qanah_core::turn::{LIFETIME, time_limited};

use super::*;

/// A STUN server that never answers, a name that does not exist and one that hangs delay nothing.
#[test]
fn servers_that_do_not_answer_delay_nothing() {
    in_namespace(|| async {
        // Bound, so that there is not even an ICMP error, and never read.
        let mute = std::net::UdpSocket::bind((A4, 0)).unwrap();
        // The kernel takes the connection, and nobody ever says a word.
        let silent = std::net::TcpListener::bind((RELAY_OF_NOBODY, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        let place = tempfile::tempdir().unwrap();
        crate::mqtt::certificates(place.path(), "DNS:x");
        let tls = client_config(Some(&place.path().join("ca.pem"))).unwrap();
        let turn = vec![
            turn("neither-does-this.invalid", 3478, Carrier::Udp),
            turn(RELAY_OF_NOBODY, port, Carrier::Tcp),
            turn(RELAY_OF_NOBODY, port, Carrier::Tls(tls)),
        ];
        let with_servers = |address| Settings {
            stun: vec![
                "stun:does-not-exist.invalid:3478".to_owned(),
                format!("stun:{}", mute.local_addr().unwrap()),
            ],
            health: Health::new(&[], &turn),
            turn: turn.clone(),
            ..settings(&[address])
        };
        let begin = Instant::now();
        let offerer = with_servers(A4);
        let mut lab = Lab::new(&offerer, &with_servers(B4)).await;
        // Long before a server is given up, after 8 s.
        lab.until("a host candidate", Duration::from_secs(3), |sides| {
            sides.iter().all(|side| !side.candidates.is_empty())
        })
        .await;
        lab.until_open().await;
        let took = begin.elapsed();
        println!("open after {took:?} with servers that do not answer");
        assert!(took < Duration::from_secs(5), "{took:?}");
        lab.exchange(100).await;
        // What is said of them when their time is over.
        let later = offerer.health.report(Instant::now() + Duration::from_secs(9));
        assert_eq!(later[1].state, ServerState::Trouble("no answer".to_owned()));
        lab.close().await;
    });
}

/// An address of the namespace at which only sockets of the test are.
const RELAY_OF_NOBODY: &str = B4;

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

/// A TURN server as the settings have it.
fn turn(host: &str, port: u16, carrier: Carrier) -> TurnServer {
    let login =
        Login::Password { username: "someone".to_owned(), credential: "secret".to_owned().into() };
    TurnServer { host: Host::parse(host).unwrap(), port, carrier, login }
}

/// A coturn of our own in the namespace; ends with the value.
pub(super) struct Turn {
    process: std::process::Child,
    directory: tempfile::TempDir,
}

impl Turn {
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts one at port 3478, and at 5349 with TLS where `certificates` has a key.
async fn turn_server(address: &str, certificates: Option<&std::path::Path>) -> Turn {
    turn_server_with(address, certificates, &["--lt-cred-mech", "--user=someone:secret"]).await
}

async fn turn_server_with(
    address: &str,
    certificates: Option<&std::path::Path>,
    login: &[&str],
) -> Turn {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let log = std::fs::File::create(file("log")).unwrap();
    let mut command = std::process::Command::new("turnserver");
    match certificates {
        Some(place) => command
            .arg(format!("--cert={}", place.join("server.pem").display()))
            .arg(format!("--pkey={}", place.join("server.key").display()))
            .arg("--tls-listening-port=5349"),
        None => command.arg("--no-tls"),
    };
    let process = command
        .args(["-n", "--no-cli", "--no-dtls", "--realm=test", "--verbose"])
        .args(["--log-file=stdout", "--listening-port=3478"])
        .args(login)
        .arg(format!("--listening-ip={address}"))
        .arg(format!("--relay-ip={address}"))
        .arg(format!("--pidfile={}", file("pid").display()))
        .arg(format!("--userdb={}", file("db").display()))
        .current_dir(directory.path())
        .stdin(std::process::Stdio::null())
        .stdout(log)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("coturn is needed: apt-get install coturn");
    let server = Turn { process, directory };
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

const RELAY: &str = "192.0.2.3";

/// Settings by which only this server is a way.
fn relayed(address: &str, server: &TurnServer) -> Settings {
    let turn = vec![server.clone()];
    Settings { relay_only: true, health: Health::new(&[], &turn), turn, ..settings(&[address]) }
}

/// Connects by this server alone, and all that there is to do works.
async fn connects_through(server: &TurnServer) {
    let settings = [relayed(A4, server), relayed(B4, server)];
    let begin = Instant::now();
    let mut lab = Lab::open(&settings[0], &settings[1]).await;
    println!("open through {} after {:?}", server.url(), begin.elapsed());
    for (side, settings) in lab.sides.iter().zip(&settings) {
        let (local, remote) = side.pair.unwrap();
        assert_eq!(local.kind, CandidateKind::Relayed);
        assert_eq!(local.address.ip(), ip(RELAY));
        assert_eq!(remote.address.ip(), ip(RELAY));
        assert!(side.candidates.iter().all(|one| one.kind == CandidateKind::Relayed));
        let report = settings.health.report(Instant::now());
        assert_eq!(report.len(), 1);
        assert_eq!((&report[0].url, &report[0].state), (&server.url(), &ServerState::Works));
    }
    for size in [1, 1400, 64 * 1024] {
        lab.exchange(size).await;
    }
    // Nothing lies about until ICE's timer comes by.
    let mut took = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        lab.exchange(100).await;
        took.push(begin.elapsed());
    }
    took.sort();
    println!("a round trip through it takes {:?}", took[5]);
    assert!(took[5] < Duration::from_millis(100), "{took:?}");
    restart(&mut lab, 0).await;
    lab.until_reconnected(2).await;
    lab.exchange(1400).await;
    lab.close().await;
}

#[test]
fn connects_through_a_turn_server_alone() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let _server = turn_server(RELAY, None).await;
        connects_through(&turn(RELAY, 3478, Carrier::Udp)).await;
    });
}

#[test]
fn connects_through_a_turn_server_over_tcp() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let server = turn_server(RELAY, None).await;
        connects_through(&turn(RELAY, 3478, Carrier::Tcp)).await;
        every_allocation_is_given_back(&server).await;
    });
}

#[test]
fn connects_through_a_turn_server_over_tls() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let place = tempfile::tempdir().unwrap();
        crate::mqtt::certificates(place.path(), &format!("IP:{RELAY}"));
        let server = turn_server(RELAY, Some(place.path())).await;
        let config = client_config(Some(&place.path().join("ca.pem"))).unwrap();
        connects_through(&turn(RELAY, 5349, Carrier::Tls(config))).await;
        every_allocation_is_given_back(&server).await;
    });
}

/// A stream goes its own way, so the family of the sockets is of no interest.
#[test]
fn a_server_over_tcp_is_reached_from_sockets_of_the_other_family() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let _server = turn_server(RELAY, None).await;
        let server = turn(RELAY, 3478, Carrier::Tcp);
        let mut lab = Lab::open(&relayed(A6, &server), &relayed(B6, &server)).await;
        assert_eq!(lab.sides[0].pair.unwrap().0.address.ip(), ip(RELAY));
        lab.exchange(1400).await;
        lab.close().await;
    });
}

#[test]
fn allocations_over_a_stream_are_refreshed() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let short = ["--lt-cred-mech", "--user=someone:secret", "--max-allocate-lifetime=4"];
        let server = turn_server_with(RELAY, None, &short).await;
        let tcp = turn(RELAY, 3478, Carrier::Tcp);
        let mut lab = Lab::open(&relayed(A4, &tcp), &relayed(B4, &tcp)).await;
        // It says 4 s, so 2 s later each allocation is refreshed (and this server makes 600 s of that).
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.log().matches("REFRESH processed, success").count() < 2 {
            assert!(Instant::now() < deadline, "not refreshed: {}", server.log());
            lab.exchange(1400).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lab.exchange(1400).await;
        let log = server.log();
        assert!(!log.contains("lifetime=0"), "{log}");
        assert_eq!(log.matches("ALLOCATE processed, success").count(), 2, "{log}");
        lab.close().await;
    });
}

#[test]
fn a_secret_of_the_server_makes_passwords_that_it_takes() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let login = ["--use-auth-secret", "--static-auth-secret=north"];
        let server = turn_server_with(RELAY, None, &login).await;
        let by_secret = |secret: &str, carrier| {
            let (name, secret) = (Some("peer".to_owned()), secret.to_owned().into());
            TurnServer { login: Login::Secret { name, secret }, ..turn(RELAY, 3478, carrier) }
        };
        connects_through(&by_secret("north", Carrier::Udp)).await;
        // The ICE restart in there, some 2 s later, has logged in by a password of its own.
        let log = server.log();
        let ends = log.split("username=<").filter_map(|rest| rest.split_once(":peer>"));
        let ends: Vec<u64> = ends.map(|(end, _)| end.parse().unwrap()).collect();
        assert!(ends.iter().max().unwrap() - ends.iter().min().unwrap() >= 2, "{ends:?}");
        connects_through(&by_secret("north", Carrier::Tcp)).await;
        assert!(server.log().contains(":peer>"), "{}", server.log());
        for carrier in [Carrier::Udp, Carrier::Tcp] {
            let wrong = relayed(A4, &by_secret("south", carrier));
            let trouble = trouble(&wrong).await;
            assert!(trouble.contains("the secret is not that of the server"), "{trouble}");
        }
    });
}

/// So the end of a password ends no path.
#[test]
fn an_allocation_outlives_its_password() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let options =
            ["--use-auth-secret", "--static-auth-secret=north", "--max-allocate-lifetime=8"];
        let server = turn_server_with(RELAY, None, &options).await;
        // It ends in 3 s, and the first refresh comes after 4 s.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let made = time_limited("north", None, now + Duration::from_secs(3) - LIFETIME);
        let login = Login::Password { username: made.username, credential: made.credential };
        let server_of_ours = TurnServer { login, ..turn(RELAY, 3478, Carrier::Tcp) };
        let mut lab = Lab::open(&relayed(A4, &server_of_ours), &relayed(B4, &server_of_ours)).await;
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.log().matches("REFRESH processed, success").count() < 2 {
            assert!(Instant::now() < deadline, "not refreshed: {}", server.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lab.exchange(1400).await;
        lab.close().await;
        let trouble = trouble(&relayed(A4, &server_of_ours)).await;
        assert!(trouble.contains("error 401"), "{trouble}");
    });
}

#[test]
fn a_wrong_password_is_told() {
    in_namespace(|| async {
        add_address(RELAY).await;
        let _server = turn_server(RELAY, None).await;
        for carrier in [Carrier::Udp, Carrier::Tcp] {
            let login =
                Login::Password { username: "someone".into(), credential: "x".to_owned().into() };
            let wrong = TurnServer { login, ..turn(RELAY, 3478, carrier) };
            let trouble = trouble(&relayed(A4, &wrong)).await;
            assert!(trouble.contains("the user name or the password is wrong"), "{trouble}");
        }
    });
}

/// What becomes of the only server, when a connection is begun.
async fn trouble(settings: &Settings) -> String {
    let (_connection, _) = Connection::offer(settings, Arc::new(|_| {})).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let ServerState::Trouble(text) = settings.health.report(Instant::now()).remove(0).state {
            return text;
        }
        assert!(Instant::now() < deadline, "no trouble");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// By a Refresh of lifetime 0, and not only because the stream ended.
async fn every_allocation_is_given_back(server: &Turn) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let log = server.log();
        let count = |text: &str| log.matches(text).count();
        let made = count("ALLOCATE processed, success");
        let back = count("refreshed, realm=<test>, username=<someone>, lifetime=0");
        if made >= 4 && made == back {
            return;
        }
        assert!(Instant::now() < deadline, "{made} made, {back} given back: {log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
