//! Two daemons without any broker, and two people between them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qanah_tests::conf::{inner4, preshared_key};
use qanah_tests::daemon::{Options, figure, program, said};
use qanah_tests::hand::{ctl, file, pair, well};
use qanah_tests::lab::{BLACK_HOLE, Lab, in_lab};
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::ping::Pinger;
use qanah_tests::terminal::Terminal;
use qanah_tests::wait::{always, secs};

/// How long one step of a conversation may take.
const STEP: Duration = secs(20);

/// Daemons on all nodes, none of which has a broker.
fn by_hand(lab: &Lab) -> Result<Mesh> {
    prepared(lab, |_| Ok(()))
}

fn prepared(lab: &Lab, change: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<Mesh> {
    let options = Options::bare().and(&["--stun", &lab.stun_url(), "--signal-server", "none"]);
    let mut mesh = Mesh::prepare(lab)?.options(options);
    mesh.broker.take().context("no broker")?.stop()?;
    change(&mut mesh)?;
    for node in lab.nodes() {
        mesh.up(lab, node.number())?;
    }
    Ok(mesh)
}

/// As [`ctl`], and it must fail with that word.
fn refused(mesh: &Mesh, n: usize, line: &str, word: &str) -> Result<()> {
    let said = ctl(mesh, n, line)?;
    ensure!(said.code == 1 && said.err.contains(word), "{line}: no {word:?} in {said:?}");
    ensure!(said.out.is_empty(), "{line}: {said:?}");
    Ok(())
}

/// The greater key offers on a broker; by hand either may, so both orders are tried whichever keys
/// were drawn.
fn pairs_by_files(from: usize, to: usize) -> Result<()> {
    in_lab(2, |lab| {
        let mesh = by_hand(lab)?;
        always("nothing happens by itself", secs(2), || {
            ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "connected");
            Ok(())
        })?;
        pair(lab, &mesh, (from, to), &format!("peer{to}"))?;
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

#[test]
fn two_daemons_pair_by_files_first_to_second() -> Result<()> {
    pairs_by_files(1, 2)
}

#[test]
fn two_daemons_pair_by_files_second_to_first() -> Result<()> {
    pairs_by_files(2, 1)
}

#[test]
fn a_peer_is_named_by_name_key_or_address() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = by_hand(lab)?;
        let key = lab.identities().get(1).context("no key")?.public.clone();
        let short = key.get(..10).context("short")?;
        for peer in ["peer2", short, &key, "10.0.0.2", "fd00::2"] {
            let said = well(&mesh, 1, &format!("offer --tunnel peer1 {peer}"))?;
            ensure!(said.err.contains("Offer for peer2,"), "{said:?}");
        }
        for (peer, word) in [("nobody", "peer2"), ("10.0.0.9", "peer2"), ("10.0.0.1", "peer2")] {
            let said = ctl(&mesh, 1, &format!("offer --tunnel peer1 {peer}"))?;
            ensure!(said.code == 2 && said.err.contains(word), "{peer}: {said:?}");
        }
        Ok(())
    })
}

/// A person at a terminal of node `n`.
fn terminal(mesh: &Mesh, n: usize, line: &str) -> Result<Terminal> {
    let mut command: Command = mesh.daemon(n)?.place().command(program("qanahctl")?);
    command.args(line.split_whitespace());
    Terminal::start(command)
}

/// What stands between the marks.
fn marked(screen: &str) -> Result<String> {
    let (_, rest) = screen.rsplit_once("----- from here -----\n").context("no first mark")?;
    let (text, _) = rest.split_once("\n----- to here -----").context("no last mark")?;
    Ok(text.to_owned())
}

/// As it looks in the answer to a mail whose program breaks lines at 72.
fn quoted(text: &str) -> String {
    let mut mail = "Hello Ann. Here it is:\n\n".to_owned();
    for line in text.as_bytes().chunks(70) {
        mail += &format!("> {} \r\n", String::from_utf8_lossy(line));
    }
    mail + "\n-- \nBob, rm -rf /nonexistent\n"
}

#[test]
fn two_people_pair_at_their_terminals() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = by_hand(lab)?;
        let mut ann = terminal(&mesh, 1, "offer peer2")?;
        ann.sees("paste the answer here", STEP)?;
        let offer = marked(&ann.screen())?;

        let mut bob = terminal(&mesh, 2, "answer")?;
        bob.sees("Paste the offer here", STEP)?;
        // First something else, then the half of it.
        bob.types("what was it?\n\n")?;
        bob.sees("qanahctl: this is not a text of Qanah", STEP)?;
        bob.types(&format!("{}\n\n", offer.get(..offer.len() / 2).context("short")?))?;
        bob.sees("cut off", STEP)?;
        bob.types(&quoted(&offer))?;
        bob.sees("send it back to peer1", STEP)?;
        bob.sees("----- to here -----", STEP)?;
        let answer = marked(&bob.screen())?;
        ensure!(bob.wait(STEP)? == 0, "{}", bob.screen());

        // She pastes her own offer by mistake, then the answer.
        ann.types(&format!("{offer}\n"))?;
        ann.sees("this is an offer, but an answer is needed", STEP)?;
        ann.types(&quoted(&answer))?;
        ann.sees("The answer of peer2 is good", STEP)?;
        ann.sees("peer2 is connected", CONNECT)?;
        ensure!(ann.wait(STEP)? == 0, "{}", ann.screen());
        println!("{}\n=====\n{}", ann.screen(), bob.screen());
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

#[test]
fn an_offer_without_a_peer_is_for_all_and_several_are_open_at_once() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = by_hand(lab)?;
        let offer = well(&mesh, 1, "offer --tunnel peer1")?;
        let path = file(lab, "offer.txt", &offer.out)?;
        let mut answers = Vec::new();
        for n in [3, 2] {
            let said = well(&mesh, n, &format!("answer --tunnel peer{n} {}", path.display()))?;
            ensure!(said.err.contains("peer1"), "{said:?}");
            answers.push(file(lab, &format!("answer-{n}.txt"), &said.out)?);
        }
        // Another pair meanwhile.
        pair(lab, &mesh, (2, 3), "peer3")?;
        for path in answers {
            well(&mesh, 1, &format!("accept --tunnel peer1 {}", path.display()))?;
        }
        mesh.connected(CONNECT)?;
        mesh.ping_all()
    })
}

#[test]
fn texts_that_cannot_be_used_are_told_apart() -> Result<()> {
    in_lab(3, |lab| {
        let mesh = by_hand(lab)?;
        let offer = well(&mesh, 1, "offer --tunnel peer1 peer2")?.out;
        let at = |name: &str, text: &str| -> Result<String> {
            Ok(file(lab, name, text)?.display().to_string())
        };
        let path = at("offer.txt", &offer)?;
        let cut = at("cut.txt", offer.get(..offer.len() - 20).context("short")?)?;
        let mut changed = offer.clone().into_bytes();
        if let Some(byte) = changed.get_mut(60) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let changed = at("changed.txt", &String::from_utf8(changed)?)?;
        refused(&mesh, 2, "answer --tunnel peer2 /etc/hostname", "not a text of Qanah")?;
        refused(&mesh, 2, &format!("answer --tunnel peer2 {cut}"), "cut off")?;
        refused(&mesh, 2, &format!("answer --tunnel peer2 {changed}"), "changed on its way")?;
        refused(&mesh, 2, &format!("accept --tunnel peer2 {path}"), "this is an offer")?;
        // Foreign: for peer2, but given to peer3, and to its own maker.
        refused(&mesh, 3, &format!("answer --tunnel peer3 {path}"), "for somebody else")?;
        refused(&mesh, 1, &format!("answer --tunnel peer1 {path}"), "made by this very tunnel")?;
        let answer = well(&mesh, 2, &format!("answer --tunnel peer2 {path}"))?.out;
        refused(&mesh, 2, &format!("answer --tunnel peer2 {path}"), "used already")?;
        let path = at("answer.txt", &answer)?;
        refused(&mesh, 3, &format!("accept --tunnel peer3 {path}"), "for somebody else")?;
        well(&mesh, 1, &format!("accept --tunnel peer1 {path}"))?;
        mesh.daemon(1)?.connected(&["peer2"], CONNECT)?;
        refused(&mesh, 1, &format!("accept --tunnel peer1 {path}"), "used")?;
        // What was refused has harmed nothing.
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
        refused(&mesh, 1, &format!("accept --tunnel peer1 {path}"), "used")?;
        qanah_tests::eventually("answers", secs(5), || {
            ensure!(pinger.answers() > 5, "{}", pinger.answers());
            Ok(())
        })?;
        pinger.finish()?.ensure_all()
    })
}

#[test]
fn an_offer_ends_with_its_lifetime_and_with_its_daemon() -> Result<()> {
    in_lab(2, |lab| {
        let mut mesh = by_hand(lab)?;
        let answer_to = |mesh: &Mesh, lifetime: &str, name: &str| -> Result<(PathBuf, Instant)> {
            let offer =
                well(mesh, 1, &format!("offer --tunnel peer1 peer2 --lifetime {lifetime}"))?;
            let made = Instant::now();
            let path = file(lab, name, &offer.out)?;
            let answer = well(mesh, 2, &format!("answer --tunnel peer2 {}", path.display()))?;
            Ok((file(lab, name, &answer.out)?, made))
        };
        let (late, made) = answer_to(&mesh, "5s", "late.txt")?;
        qanah_tests::eventually("the end of its lifetime", secs(10), || {
            ensure!(made.elapsed() > secs(6), "too soon");
            Ok(())
        })?;
        refused(&mesh, 1, &format!("accept --tunnel peer1 {}", late.display()), "expired")?;
        let (void, _) = answer_to(&mesh, "1h", "void.txt")?;
        mesh.take(1)?.terminate()?;
        mesh.up(lab, 1)?;
        refused(&mesh, 1, &format!("accept --tunnel peer1 {}", void.display()), "")?;
        // After all that, a new one works.
        pair(lab, &mesh, (1, 2), "peer2")?;
        mesh.connected(CONNECT)
    })
}

#[test]
fn another_preshared_key_is_told() -> Result<()> {
    in_lab(2, |lab| {
        let mesh =
            prepared(lab, |mesh| mesh.preshare((1, &preshared_key()), (2, &preshared_key())))?;
        let offer = well(&mesh, 1, "offer --tunnel peer1 peer2")?;
        let path = file(lab, "offer.txt", &offer.out)?;
        refused(&mesh, 2, &format!("answer --tunnel peer2 {}", path.display()), "PresharedKey")
    })
}

#[test]
fn a_stun_server_that_hangs_delays_an_offer_by_seconds_only() -> Result<()> {
    in_lab(2, |lab| {
        let hole = format!("stun:{BLACK_HOLE}:3478");
        let options = Options::bare().and(&["--stun", &hole, "--signal-server", "none"]);
        let mut mesh = Mesh::prepare(lab)?.options(options);
        mesh.up(lab, 1)?;
        mesh.up(lab, 2)?;
        let start = Instant::now();
        well(&mesh, 1, "offer --tunnel peer1 peer2")?;
        let time = start.elapsed();
        figure("an offer with a STUN server that hangs", format!("{time:.1?}"));
        ensure!(time < secs(6), "{time:?}");
        pair(lab, &mesh, (1, 2), "peer2")?;
        mesh.connected(CONNECT)
    })
}

#[test]
fn what_the_daemon_holds_survives_the_client() -> Result<()> {
    in_lab(2, |lab| {
        let mesh = by_hand(lab)?;
        let ann = terminal(&mesh, 1, "offer --tunnel peer1 peer2")?;
        ann.sees("----- to here -----", STEP)?;
        let offer = marked(&ann.screen())?;
        drop(ann);
        let path = file(lab, "offer.txt", &offer)?;
        // Through a pipe this time.
        let place = mesh.daemon(2)?.place();
        let mut shell = place.command("sh");
        let ctl = program("qanahctl")?.display().to_string();
        shell.args(["-c", &format!("{ctl} answer < {} | cat", path.display())]);
        let answer = said(shell)?;
        let path = file(lab, "answer.txt", &answer.out)?;
        well(&mesh, 1, &format!("accept {}", path.display()))?;
        mesh.connected(CONNECT)?;
        // A new session by hand while there is one: pings go on.
        let pinger = Pinger::start(lab, mesh.daemon(1)?.place(), &inner4(2))?;
        let before = fs::read_to_string(&path)?;
        pair(lab, &mesh, (2, 1), "peer1")?;
        qanah_tests::eventually("a newer handshake", CONNECT, || {
            let age = mesh.daemon(1)?.status()?.peer("peer2")?.last_handshake();
            ensure!(age.is_some_and(|age| age < 3), "{age:?}");
            Ok(())
        })?;
        ensure!(!before.is_empty(), "no answer");
        pinger.finish()?.ensure_all()?;
        mesh.ping_all()
    })
}
