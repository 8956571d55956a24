//! TURN over every carrier: the path, what is given back, restarts of the server, and what goes wrong.

use std::fs;

use anyhow::{Result, anyhow, ensure};
use qanah_tests::conf::{inner4, inner6};
use qanah_tests::daemon::{Options, figure, qanahctl, qanahd, said};
use qanah_tests::lab::{BLACK_HOLE, Lab, in_lab};
use qanah_tests::mesh::{Mesh, RECOVER};
use qanah_tests::people::{ANN, Many, ROOT};
use qanah_tests::ping::{Pinger, ping};
use qanah_tests::secure::{
    Authority, SecureTurn, TURN_NAME, TURN_SECRET, TurnLogin, addresses, names,
};
use qanah_tests::servers::{TURN_PASSWORD, TURN_USER};
use qanah_tests::tcp::transfer;
use qanah_tests::wait::{eventually, secs};
use serde_json::Value;

const UDP: &str = "turn:172.31.9.253:3478";
const TCP: &str = "turn:172.31.9.253:3478?transport=tcp";
const TLS: &str = "turns:turn.lab:443?transport=tcp";

/// A TURN server with a certificate for its name, which the nodes know.
fn servers(lab: &Lab, login: TurnLogin) -> Result<(Authority, SecureTurn)> {
    addresses(lab)?;
    for node in lab.nodes() {
        names(node.place())?;
    }
    let authority = Authority::new(lab.dir(), "authority")?;
    authority.server(TURN_NAME)?;
    let turn = SecureTurn::start(lab, &authority, TURN_NAME, login)?;
    Ok((authority, turn))
}

fn with_password(lab: &Lab, authority: &Authority, url: &str) -> Options {
    let login = ["--turn-username", TURN_USER, "--turn-credential", TURN_PASSWORD];
    let trust = ["--turn-ca", &authority.cert("ca")];
    Options::of(lab).and(&["--turn-url", url]).and(&login).and(&trust)
}

/// Two nodes that cannot reach each other directly, with daemons.
fn cut_off(lab: &Lab, options: Options) -> Result<Mesh> {
    lab.node(1)?.cut_from(lab.node(2)?)?;
    let mut mesh = Mesh::prepare(lab)?.options(options);
    mesh.up(lab, 1)?;
    mesh.up(lab, 2)?;
    Ok(mesh)
}

/// What node 1 says of the server of this URL: its state, and why it is in trouble.
fn server(mesh: &Mesh, url: &str) -> Result<(String, String)> {
    let status = mesh.daemon(1)?.status()?;
    let servers = status.field("servers")?.as_array().cloned().unwrap_or_default();
    let text = |server: &Value, key: &str| {
        server.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let found = servers.iter().find(|server| text(server, "url") == url);
    let found = found.ok_or_else(|| anyhow!("no {url} in {status}"))?;
    Ok((text(found, "state"), text(found, "error")))
}

/// Waits until node 1 says that this server works.
fn works(mesh: &Mesh, url: &str) -> Result<()> {
    eventually(&format!("{url} works"), secs(10), || {
        let (state, error) = server(mesh, url)?;
        ensure!(state == "works", "{state}: {error}");
        Ok(())
    })
}

/// Waits until node 1 says of this server that it is in trouble, in these words.
fn troubles(mesh: &Mesh, url: &str, words: &str) -> Result<()> {
    eventually(&format!("trouble with {url}"), RECOVER, || {
        let (state, error) = server(mesh, url)?;
        ensure!(state == "trouble" && error.contains(words), "{state}: {error}");
        Ok(())
    })
}

/// The same, as people see it, and nothing connects.
fn in_trouble(mesh: &Mesh, url: &str, words: &str) -> Result<()> {
    troubles(mesh, url, words)?;
    let said = qanahctl(mesh.daemon(1)?.place(), &["status"])?;
    let text = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(text.contains(words) && text.contains(&format!("servers {url} fails for")), "{text}");
    ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "connected by what? {text}");
    Ok(())
}

/// Connects by this server alone, and shows and measures that.
fn carries(url: &str, name: &str) -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Password)?;
        let options = with_password(lab, &authority, url).log_level("info");
        let start = std::time::Instant::now();
        let mut mesh = cut_off(lab, options)?;
        mesh.first_ping(1, 2, RECOVER)?;
        figure(&format!("first ping by TURN over {name}"), format!("{:.2?}", start.elapsed()));
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        let path = mesh.daemon(1)?.status()?.peer("peer2")?.path();
        ensure!(path.contains("relayed") && path.contains("172.31.9.253:51"), "the path is {path}");
        let said = qanahctl(mesh.daemon(1)?.place(), &["status"])?;
        ensure!(said.out.contains("by TURN") && !said.out.contains("servers"), "{}", said.out);
        works(&mesh, &whole(url))?;
        let (one, two) = (mesh.daemon(1)?.place(), mesh.daemon(2)?.place());
        let alone = ping(one, &format!("-c 8 -i 0.5 -W 3 {}", inner4(2)))?;
        alone.ensure_all()?;
        figure(
            &format!("mean round trip by TURN over {name}, ms"),
            alone.mean_ms.unwrap_or_default(),
        );
        ping(one, &format!("-c 3 -i 0.3 -W 3 -s 8000 {}", inner6(2)))?.ensure_all()?;
        let rate = transfer(one, two, &inner4(2), 16 * 1024 * 1024)?;
        figure(&format!("TCP by TURN over {name}, Mbit/s"), format!("{rate:.0}"));
        // Both leave, and give back all that they have.
        let made = turn.made();
        for n in [1, 2] {
            mesh.take(n)?.terminate()?;
        }
        eventually("every allocation given back", secs(5), || {
            let (made, back) = (turn.made(), turn.given_back());
            ensure!(back == made, "{made} made, {back} given back: {}", turn.log());
            Ok(())
        })?;
        ensure!(made > 0 && turn.made() == made, "{}", turn.log());
        Ok(())
    })
}

/// The URL as the daemon shows it.
fn whole(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?transport=udp") }
}

#[test]
fn turn_over_udp_carries() -> Result<()> {
    carries(UDP, "UDP")
}

#[test]
fn turn_over_tcp_carries() -> Result<()> {
    carries(TCP, "TCP")
}

#[test]
fn turn_over_tls_carries() -> Result<()> {
    carries(TLS, "TLS")
}

#[test]
fn the_first_server_that_works_of_several_is_enough() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, _turn) = servers(lab, TurnLogin::Password)?;
        let hole = format!("turns:{BLACK_HOLE}:443");
        let options = with_password(lab, &authority, &hole)
            .and(&["--turn-url", "turn:172.31.9.253:1?transport=tcp"])
            .and(&["--turn-url", "turns:nobody.invalid"])
            .and(&["--turn-url", TLS]);
        let mesh = cut_off(lab, options)?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        works(&mesh, TLS)?;
        for (url, words) in [
            ("turn:172.31.9.253:1?transport=tcp", "refused"),
            ("turns:nobody.invalid:5349?transport=tcp", "cannot find the address"),
            ("turns:203.0.113.7:443?transport=tcp", "no connection within 10 s"),
        ] {
            troubles(&mesh, url, words)?;
        }
        Ok(())
    })
}

fn survives_a_restart(url: &str) -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Password)?;
        let mesh = cut_off(lab, with_password(lab, &authority, url))?;
        mesh.connected(RECOVER)?;
        turn.kill()?;
        eventually("the death of the path is seen", secs(30), || {
            let status = mesh.daemon(1)?.status()?;
            ensure!(!status.peer("peer2")?.connected()?, "{status}");
            Ok(())
        })?;
        let turn = SecureTurn::start(lab, &authority, TURN_NAME, TurnLogin::Password)?;
        let made = turn.made();
        mesh.connected(RECOVER * 2)?;
        mesh.ping_all()?;
        ensure!(turn.made() > made, "connected without a new allocation");
        Ok(())
    })
}

#[test]
fn a_turn_server_over_udp_that_restarts_is_used_again() -> Result<()> {
    survives_a_restart(UDP)
}

#[test]
fn a_turn_server_over_tcp_that_restarts_is_used_again() -> Result<()> {
    survives_a_restart(TCP)
}

#[test]
fn a_turn_server_over_tls_that_restarts_is_used_again() -> Result<()> {
    survives_a_restart(TLS)
}

#[test]
fn a_server_that_comes_late_is_used() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Password)?;
        turn.kill()?;
        let mesh = cut_off(lab, with_password(lab, &authority, TLS))?;
        in_trouble(&mesh, TLS, "cannot connect")?;
        let _turn = SecureTurn::start(lab, &authority, TURN_NAME, TurnLogin::Password)?;
        mesh.connected(RECOVER * 2)?;
        mesh.ping_all()?;
        works(&mesh, TLS)?;
        Ok(())
    })
}

#[test]
fn a_wrong_password_is_told_for_every_carrier() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Password)?;
        let options = Options::of(lab)
            .and(&["--turn-url", UDP, "--turn-url", TCP, "--turn-url", TLS])
            .and(&["--turn-username", TURN_USER, "--turn-ca", &authority.cert("ca")])
            .env("QANAH_TURN_CREDENTIAL", "not-the-password");
        let mesh = cut_off(lab, options)?;
        for url in [UDP, TCP, TLS] {
            troubles(&mesh, &whole(url), "user name or the password is wrong")?;
        }
        ensure!(turn.made() == 0, "it let us in");
        let log = mesh.daemon(1)?.log();
        ensure!(!log.contains("not-the-password"), "the password is in the log");
        ensure!(log.contains("the user name or the password is wrong"), "not in the log");
        Ok(())
    })
}

#[test]
fn a_certificate_of_another_name_or_ca_is_refused() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Password)?;
        turn.kill()?;
        authority.server("other.lab")?;
        let turn = SecureTurn::start(lab, &authority, "other.lab", TurnLogin::Password)?;
        let mut mesh = cut_off(lab, with_password(lab, &authority, TLS))?;
        in_trouble(&mesh, TLS, "its certificate is not for turn.lab")?;
        for n in [1, 2] {
            mesh.take(n)?.terminate()?;
        }
        turn.kill()?;
        let turn = SecureTurn::start(lab, &authority, TURN_NAME, TurnLogin::Password)?;
        // Without --turn-ca nobody here knows who signed it.
        let login = ["--turn-username", TURN_USER, "--turn-credential", TURN_PASSWORD];
        let options = Options::of(lab).and(&["--turn-url", TLS]).and(&login);
        let mut mesh = mesh.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        in_trouble(&mesh, TLS, "not signed by a CA that is trusted here")?;
        ensure!(turn.made() == 0, "it was asked for an allocation");
        Ok(())
    })
}

#[test]
fn a_shared_secret_makes_passwords() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Secret)?;
        let ca = authority.cert("ca");
        let options = |secret: &str| {
            Options::of(lab)
                .and(&["--turn-url", TLS, "--turn-ca", &ca, "--turn-username", "joe"])
                .env("QANAH_TURN_SECRET", secret)
        };
        let mut mesh = cut_off(lab, options(TURN_SECRET))?;
        mesh.connected(RECOVER)?;
        mesh.ping_all()?;
        ensure!(turn.log().contains(":joe>"), "{}", turn.log());
        let made = turn.made();
        for n in [1, 2] {
            let daemon = mesh.take(n)?;
            ensure!(!daemon.log().contains(TURN_SECRET), "the secret is in the log");
            daemon.terminate()?;
        }
        let mut mesh = mesh.options(options("not-the-secret"));
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        in_trouble(&mesh, TLS, "the secret is not that of the server, or the clock")?;
        ensure!(turn.made() == made, "it let us in");
        Ok(())
    })
}

/// The options of one tunnel, from root alone; the CA is the daemon's.
#[test]
fn root_gives_servers_to_one_tunnel_of_many() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, turn) = servers(lab, TurnLogin::Secret)?;
        let ca = authority.cert("ca");
        let theirs = Options::of(lab)
            .and(&["--turn-url", TLS, "--turn-ca", &ca])
            .env("QANAH_TURN_SECRET", TURN_SECRET);
        lab.node(1)?.cut_from(lab.node(2)?)?;
        let mut mesh = Mesh::prepare(lab)?.options(theirs);
        mesh.up(lab, 2)?;
        let many = Many::start(lab, lab.node(1)?, &Options::of(lab).and(&["--turn-ca", &ca]))?;
        let place = many.place();
        fs::copy(lab.write_conf(mesh.conf(1)?)?, place.path("/etc/qanah/peer1.conf"))?;
        place.run("chmod 0600 /etc/qanah/peer1.conf")?;
        for line in ["up peer1 --turn-secret s", "up peer1 --proxy none"] {
            let said = ANN.expect(place, line, 5)?;
            ensure!(said.err.contains("root"), "{said:?}");
        }
        for (line, words) in [
            ("up peer1 --proxy socks5://u:hunter2@p:1", "a SOCKS proxy is not supported"),
            ("up peer1 --turn-url turns:turn.lab:443", "or --turn-secret"),
        ] {
            let said = ROOT.expect(place, line, 2)?;
            ensure!(said.err.contains(words) && !said.err.contains("hunter2"), "{said:?}");
        }
        let mut command = ROOT.client(place);
        command.args(["up", "peer1", "--proxy", "none", "--turn-url", TLS]);
        command.env("QANAH_TURN_SECRET", TURN_SECRET);
        let said = said(command)?;
        ensure!(said.code == 0, "{said:?}");
        many.connected("peer1", &["peer2"], RECOVER)?;
        let path = many.status("peer1")?.peer("peer2")?.path();
        ensure!(path.contains("relayed") && turn.made() > 0, "the path is {path}");
        ensure!(!many.log().contains(TURN_SECRET), "the secret is in the log");
        Ok(())
    })
}

#[test]
fn what_cannot_be_used_is_an_error_at_the_start() -> Result<()> {
    in_lab(1, |lab| {
        let place = lab.node(1)?.place();
        let conf = lab.write_conf(&lab.mesh()[0])?.display().to_string();
        let login = "--turn-username u --turn-credential p";
        for (options, words) in [
            (format!("--turn-url turns:a?transport=udp {login}"), "no TURN over DTLS here"),
            (format!("--turn-url turn:a?transport=sctp {login}"), "transport=udp or transport=tcp"),
            (format!("--turn-url turns:a --turn-ca /none.pem {login}"), "cannot read /none.pem"),
            (format!("--turn-url turns:a --turn-ca {conf} {login}"), "holds no PEM certificate"),
            ("--turn-url turns:a".to_owned(), "belong together"),
            (format!("--turn-url turns:a --turn-secret s {login}"), "takes the place"),
            ("--proxy socks5://u:hunter2@p:1".to_owned(), "a SOCKS proxy is not supported"),
            (
                "--signal-cert /none.pem --signal-key /none.key".to_owned(),
                "/none.pem: No such file",
            ),
        ] {
            let line = format!("--config {conf} {options}");
            let said = qanahd(place, &line.split_whitespace().collect::<Vec<_>>())?;
            ensure!(said.code == 2 && said.err.contains(words), "{options}: {said:?}");
            ensure!(!said.err.contains("hunter2"), "{said:?}");
        }
        Ok(())
    })
}

/// On a link of 10 Mbit/s both ways: what is carried, and how late pings are meanwhile. A queue that grows
/// instead of dropping would make them seconds late.
#[test]
fn a_slow_link_to_a_turn_server_over_tls_carries() -> Result<()> {
    in_lab(2, |lab| {
        let (authority, _turn) = servers(lab, TurnLogin::Password)?;
        for node in lab.nodes() {
            node.place()
                .run("tc qdisc add dev eth0 root tbf rate 10mbit burst 16k latency 100ms")?;
        }
        let mesh = cut_off(lab, with_password(lab, &authority, TLS).log_level("info"))?;
        mesh.connected(RECOVER)?;
        let (one, two) = (mesh.daemon(1)?.place(), mesh.daemon(2)?.place());
        let pinger = Pinger::start(lab, one, &inner4(2))?;
        let rate = transfer(one, two, &inner4(2), 8 * 1024 * 1024)?;
        let pings = pinger.finish()?;
        figure("TCP by TURN over TLS on a link of 10 Mbit/s, Mbit/s", format!("{rate:.1}"));
        let mean = pings.mean_ms.unwrap_or(f64::MAX);
        figure("mean round trip meanwhile, ms", mean);
        ensure!(pings.lost() * 5 < pings.sent && mean < 1000.0, "{}", pings.text);
        Ok(())
    })
}
