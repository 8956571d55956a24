//! Networks that let hardly anything out: TCP to port 443 alone, or only a proxy.

use anyhow::{Result, ensure};
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::daemon::{Options, figure, qanahctl};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::mesh::{Mesh, RECOVER};
use qanah_tests::ping::ping;
use qanah_tests::secure::{
    Authority, BROKER_NAME, BROKER_PASSWORD, CLIENT_NAME, PROXY_PASSWORD, Proxy, SecureBroker,
    SecureTurn, TURN_NAME, TurnLogin, USER, addresses, names, only,
};
use qanah_tests::servers::{TURN_PASSWORD, TURN_USER};
use qanah_tests::wait::{eventually, secs};

struct Servers {
    authority: Authority,
    turn: SecureTurn,
    broker: SecureBroker,
}

/// A TURN server and a broker, each at port 443 with TLS.
fn servers(lab: &Lab) -> Result<Servers> {
    addresses(lab)?;
    let authority = Authority::new(lab.dir(), "authority")?;
    for name in [TURN_NAME, BROKER_NAME] {
        authority.server(name)?;
    }
    let turn = SecureTurn::start(lab, &authority, TURN_NAME, TurnLogin::Password)?;
    let broker = SecureBroker::start(lab, &authority)?;
    Ok(Servers { authority, turn, broker })
}

/// Signaling by WebSocket and TURN, both over TLS to port 443.
fn at_443(authority: &Authority) -> Options {
    let ca = authority.cert("ca");
    let broker = format!("wss://{USER}:{BROKER_PASSWORD}@{BROKER_NAME}/mqtt");
    Options::bare()
        .and(&["--turn-url", "turns:turn.lab:443", "--turn-ca", &ca, "--signal-ca", &ca])
        .and(&["--turn-username", TURN_USER])
        .env("QANAH_SIGNAL_SERVER", &broker)
        .env("QANAH_TURN_CREDENTIAL", TURN_PASSWORD)
}

/// Both connect by TURN and the broker at port 443, and nothing else got through.
fn connects(lab: &Lab, options: Options, servers: &Servers) -> Result<Mesh> {
    let mut mesh = Mesh::prepare(lab)?.options(options);
    let start = std::time::Instant::now();
    mesh.up(lab, 1)?;
    mesh.up(lab, 2)?;
    mesh.first_ping(1, 2, RECOVER)?;
    figure("first ping, only TCP 443 out", format!("{:.2?}", start.elapsed()));
    mesh.connected(RECOVER)?;
    mesh.ping_all()?;
    let (one, two) = (mesh.daemon(1)?, mesh.daemon(2)?);
    for daemon in [one, two] {
        let said = qanahctl(daemon.place(), &["status"])?;
        for words in ["by TURN", "wss://broker.lab:443/mqtt connected for"] {
            ensure!(said.out.contains(words), "no {words:?} in {}", said.out);
        }
        let secret = [BROKER_PASSWORD, PROXY_PASSWORD, TURN_PASSWORD];
        let log = daemon.log();
        ensure!(secret.iter().all(|word| !log.contains(word)), "a password is in the log");
    }
    ping(one.place(), &format!("-c 3 -i 0.3 -W 3 -s 8000 {}", inner6(2)))?.ensure_all()?;
    ensure!(servers.turn.made() > 0, "{}", servers.turn.log());
    Ok(mesh)
}

#[test]
fn only_tcp_443_goes_out() -> Result<()> {
    in_lab(2, |lab| {
        let servers = servers(lab)?;
        for node in lab.nodes() {
            names(node.place())?;
            only(node, "tcp dport 443")?;
        }
        let mesh = connects(lab, at_443(&servers.authority), &servers)?;
        // The session goes on while nothing else can: the path is checked every two seconds.
        let long = ping(mesh.daemon(1)?.place(), &format!("-c 60 -i 0.5 -W 3 {}", inner4(2)))?;
        long.ensure_all()
    })
}

#[test]
fn only_a_proxy_goes_out() -> Result<()> {
    in_lab(2, |lab| {
        let servers = servers(lab)?;
        let proxy = Proxy::start(lab)?;
        // Only the proxy knows the names.
        names(lab.hub())?;
        for node in lab.nodes() {
            only(node, "ip daddr 172.31.9.251 tcp dport 3128")?;
        }
        let options = at_443(&servers.authority).env("QANAH_PROXY", &Proxy::url(PROXY_PASSWORD));
        let mut mesh = connects(lab, options, &servers)?;
        for target in ["turn.lab:443", "broker.lab:443"] {
            ensure!(proxy.log().contains(target), "no {target}: {}", proxy.log());
        }
        for n in [1, 2] {
            mesh.take(n)?.terminate()?;
        }
        // The variable of all programs does as well.
        let options = at_443(&servers.authority).env("https_proxy", &Proxy::url(PROXY_PASSWORD));
        let mut mesh = mesh.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()
    })
}

#[test]
fn a_proxy_that_refuses_is_told() -> Result<()> {
    in_lab(1, |lab| {
        let servers = servers(lab)?;
        let _proxy = Proxy::start(lab)?;
        names(lab.hub())?;
        let node = lab.node(1)?;
        only(node, "ip daddr 172.31.9.251 tcp dport 3128")?;
        let wrong = at_443(&servers.authority).env("QANAH_PROXY", &Proxy::url("hunter2"));
        let mut mesh = Mesh::prepare(lab)?.options(wrong);
        mesh.up(lab, 1)?;
        says(
            &mesh,
            "http://(hidden)@172.31.9.251:3128: it does not accept the user and the password",
        )?;
        mesh.take(1)?.terminate()?;
        // Another port than 443 is not the proxy's to allow.
        let forbidden = Options::bare()
            .and(&["--signal-server", "mqtts://broker.lab:8883"])
            .env("QANAH_PROXY", &Proxy::url(PROXY_PASSWORD));
        let mut mesh = mesh.options(forbidden);
        mesh.up(lab, 1)?;
        says(&mesh, "it does not let us connect to broker.lab:8883 (403)")?;
        ensure!(!mesh.daemon(1)?.log().contains("hunter2"), "the password is in the log");
        Ok(())
    })
}

fn says(mesh: &Mesh, words: &str) -> Result<()> {
    eventually(words, secs(30), || {
        let said = qanahctl(mesh.daemon(1)?.place(), &["status"])?;
        let text = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains(words) && !text.contains("hunter2"), "{text}");
        Ok(())
    })
}

#[test]
fn a_broker_that_wants_a_certificate_gets_it() -> Result<()> {
    in_lab(2, |lab| {
        let servers = servers(lab)?;
        servers.authority.client(CLIENT_NAME)?;
        for node in lab.nodes() {
            names(node.place())?;
        }
        let authority = &servers.authority;
        let options = Options::bare()
            .and(&["--signal-server", "mqtts://broker.lab:8884", "--stun", &lab.stun_url()])
            .and(&["--signal-ca", &authority.cert("ca")])
            .and(&["--signal-cert", &authority.cert(CLIENT_NAME)])
            .and(&["--signal-key", &authority.key(CLIENT_NAME)]);
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        let log = servers.broker.log();
        ensure!(log.contains(&format!("u'{CLIENT_NAME}'")), "{log}");
        Ok(())
    })
}
