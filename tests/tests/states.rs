//! What `qanahctl status` says in each state, as text. Numbers and keys are made alike.

use anyhow::{Result, ensure};
use qanah_tests::daemon::{Options, qanahctl};
use qanah_tests::lab::in_lab;
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::ns::Place;
use qanah_tests::people::Many;
use qanah_tests::servers::{TURN_PASSWORD, TURN_USER};
use qanah_tests::wait::{eventually, secs};

/// Numbers become `#`, keys `KEY`, units of time and size their smallest, blanks one.
fn normal(text: &str) -> String {
    // The NAT is told once the servers have answered, which may be before or after anything else.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("NAT "));
    lines.map(|line| words(line) + "\n").collect()
}

fn words(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let words: Vec<_> = line.split_whitespace().map(word).collect();
    let mut text = format!("{}{}", " ".repeat(indent.min(2)), words.join(" "));
    for unit in ["# min", "# h"] {
        text = text.replace(unit, "# s");
    }
    for unit in ["# KiB", "# MiB"] {
        text = text.replace(unit, "# B");
    }
    text
}

fn word(word: &str) -> String {
    let plain = word.trim_end_matches(',');
    if plain.len() == 44 && plain.ends_with('=')
        || plain.chars().count() == 11 && plain.ends_with('…')
    {
        return word.replace(plain, "KEY");
    }
    // Which family ICE takes differs: an IPv6 address and port read as those of IPv4.
    if plain.starts_with('[') && plain.contains("]:") {
        return word.replace(plain, "#:#");
    }
    let mut out = String::new();
    let mut last = ' ';
    for c in word.chars() {
        // The digits of a name stay, and so do those of an address with letters.
        let number = c.is_ascii_digit() && !last.is_ascii_alphanumeric()
            || (c.is_ascii_digit() || c == '.') && last == '#';
        if number {
            if last != '#' {
                out.push('#');
            }
            last = '#';
        } else {
            out.push(c);
            last = c;
        }
    }
    out
}

/// A peer that ends says so in the data channel, by the broker, and by closing the channel. Which of
/// them comes first differs, and the later ones find no session any more.
fn one_goodbye(text: &str) -> String {
    let text = text.replace("the data channel was closed", "the peer closed the session");
    text.replace("  dropped # signal refused\n", "")
}

/// Waits until `status` says this, with that exit code, in at most 80 columns.
fn says(place: Place, line: &str, code: i32, expected: &str) -> Result<()> {
    let arguments: Vec<_> = line.split_whitespace().collect();
    eventually(line, RECOVER, || {
        let said = qanahctl(place, &arguments)?;
        let text = one_goodbye(&normal(&format!("{}{}", said.out, said.err)));
        let expected = expected.trim_start_matches('\n');
        ensure!(text == expected, "it says\n{}\nthat is\n{text}\nand not\n{expected}", said.out);
        ensure!(said.code == code, "exit code {} and not {code}", said.code);
        let wide = said.out.lines().find(|line| line.chars().count() > 80);
        ensure!(wide.is_none(), "wider than 80 columns: {wide:?}");
        Ok(())
    })
}

#[test]
fn numbers_and_keys_are_made_alike() {
    let line = "  peer2  connected  12.5 ms  1.2 KiB  10.0.0.2/32, fd00::2/128 172.31.9.1:51000";
    assert_eq!(words(line), "  peer2 connected # ms # B #/#, fd00::#/# #:#");
    assert_eq!(words("  host [fd31:9::1]:60559 to host 10.0.0.2:5"), "  host #:# to host #:#");
    assert_eq!(words("   HIgo9xNzJM… 3 min"), "  KEY # s");
}

#[test]
fn no_daemon_and_no_tunnel() -> Result<()> {
    in_lab(1, |lab| {
        let node = lab.node(1)?;
        let none = r"
qanahctl: no daemon is running: there is no control socket in /run/qanah
  start one: systemctl start qanahd@NAME (for /etc/qanah/NAME.conf)
  or in a terminal: sudo qanahd --config FILE
";
        says(node.place(), "status", 4, none)?;
        let _many = Many::start(lab, node, &Options::of(lab))?;
        says(node.place(), "status", 4, "qanahctl: no tunnel is up\n")?;
        let named = "qanahctl: there is no tunnel peer1; no tunnel is up\n";
        says(node.place(), "status peer1", 4, named)
    })
}

#[test]
fn connecting_connected_peer_gone_and_broker_gone() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = Mesh::prepare(lab)?;
        mesh.up(lab, 1)?;
        let place = lab.node(1)?.place();
        let waiting = r"
tunnel peer1 up # s, MTU #, #/#, fd00::#/#
  public key KEY
  signaling mqtt://#:# connected for # s

  peer2 waiting for signaling: nothing heard from it yet, next try in # s
  KEY #/#, fd00::#/#
";
        says(place, "status", 3, waiting)?;
        mesh.up(lab, 2)?;
        mesh.connected(CONNECT)?;
        let connected = r"
tunnel peer1 up # s, MTU #, #/#, fd00::#/#
  public key KEY
  signaling mqtt://#:# connected for # s

  PEER STATE PATH RTT HANDSHAKE RECEIVED SENT
  peer2 connected direct # ms # s ago # B # B
  KEY #/#, fd00::#/#
  host #:# to host #:#
";
        says(place, "status peer1", 0, connected)?;
        mesh.broker.take().map_or(Ok(()), qanah_tests::servers::Broker::stop)?;
        let no_broker = connected.replace(
            "connected for # s\n\n",
            "not connected for # s: cannot connect:\n  Connection refused (os error #)\n\n",
        );
        says(place, "status", 0, &no_broker)?;
        mesh.broker = Some(lab.broker()?);
        says(place, "status", 0, connected)?;
        mesh.take(2)?.terminate()?;
        let gone = r"
tunnel peer1 up # s, MTU #, #/#, fd00::#/#
  public key KEY
  signaling mqtt://#:# connected for # s

  peer2 waiting for signaling: the peer closed the session, next try in # s
  KEY #/#, fd00::#/#
  last handshake # s ago, received # B, sent # B
";
        says(place, "status", 3, gone)
    })
}

#[test]
fn connected_by_turn() -> Result<()> {
    in_lab(2, |lab| {
        let options = Options::of(lab).and(&["--turn-url", &lab.turn_url()]).and(&[
            "--turn-username",
            TURN_USER,
            "--turn-credential",
            TURN_PASSWORD,
        ]);
        lab.node(1)?.cut_from(lab.node(2)?)?;
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        mesh.connected(RECOVER)?;
        let place = lab.node(1)?.place();
        eventually("a path by the TURN server", secs(30), || {
            let said = qanahctl(place, &["status"])?;
            ensure!(said.out.contains("by TURN"), "{}", said.out);
            Ok(())
        })?;
        let said = qanahctl(place, &["status"])?;
        let text = normal(&said.out);
        let start = r"
tunnel peer1 up # s, MTU #, #/#, fd00::#/#
  public key KEY
  signaling mqtt://#:# connected for # s

  PEER STATE PATH RTT HANDSHAKE RECEIVED SENT
  peer2 connected by TURN # ms # s ago # B # B
  KEY #/#, fd00::#/#
";
        ensure!(text.starts_with(start.trim_start_matches('\n')), "{}\n{text}", said.out);
        ensure!(text.contains("relayed ") && said.code == 0, "{text}");
        Ok(())
    })
}
