//! Members of the group who mean ill: neither the tunnel nor other clients may feel it.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qanah_tests::conf::inner4;
use qanah_tests::daemon::{Options, figure};
use qanah_tests::lab::{Lab, in_lab};
use qanah_tests::measure::resident;
use qanah_tests::mesh::{CONNECT, Mesh};
use qanah_tests::people::{ANN, BOB, Many, Person, ROOT, install, lend};
use qanah_tests::ping::Pinger;
use qanah_tests::wait::{always, secs};

const SOCKET: &str = "/run/qanah/qanahd.sock";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which attack a child of these tests makes.
const ATTACK: &str = "QANAH_TEST_ATTACK";
/// How long an attack goes on.
const SPAN: Duration = secs(8);

/// Runs an attack as that user, in a copy of this program.
fn attack(place: qanah_tests::Place, who: Person, kind: &str) -> Result<Child> {
    lend(place, "hostile", &env::current_exe()?)?;
    let mut command = who.command(place, "/run/lab/bin/hostile");
    command.args(["--exact", "the_attacker", "--nocapture"]).env(ATTACK, kind).current_dir("/");
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}

/// No test of its own: what [`attack`] runs.
#[test]
fn the_attacker() -> Result<()> {
    let Ok(kind) = env::var(ATTACK) else {
        return Ok(());
    };
    let end = Instant::now() + SPAN;
    match kind.as_str() {
        "garbage" => garbage(end),
        "crowd" => crowd(end),
        "slow" => slow(end),
        "streams" => streams(end),
        other => bail!("no attack {other}"),
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length.get(1..).unwrap_or_default().to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(body);
    frame
}

/// The headers of a call, without compression (RFC 7541, section 6.2.2), and an empty message.
fn call(stream: u32, method: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let path = format!("/qanah.control.v1.Control/{method}");
    for (name, value) in [
        (":path", path.as_str()),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(0));
            block.extend(text.as_bytes());
        }
    }
    [frame(1, 4, stream, &block), frame(0, 1, stream, &[0; 5])].concat()
}

fn connected() -> Option<UnixStream> {
    let stream = UnixStream::connect(SOCKET).ok()?;
    stream.set_write_timeout(Some(secs(1))).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    Some(stream)
}

/// Bytes that are no HTTP/2, and such that are nearly.
fn garbage(end: Instant) -> Result<()> {
    let huge = [&[0xff, 0xff, 0xff][..], &[0; 6]].concat();
    let window = frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let texts: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        PREFACE.get(..10).context("short")?.to_vec(),
        [PREFACE, &huge].concat(),
        [PREFACE, &frame(4, 0, 0, &[0; 7])].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 4, 1, &[0xff; 200])].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0, 1, &[0x83]), &frame(9, 0, 1, &[0; 16_000])]
            .concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &window, &window].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &frame(0, 1, 99, &[1; 1000])].concat(),
        [PREFACE, &frame(4, 0, 0, &[]), &call(1, "Nonsense"), &call(3, "Up"), &call(5, "Offer")]
            .concat(),
    ];
    while Instant::now() < end {
        for text in &texts {
            if let Some(mut stream) = connected() {
                let _ = stream.write_all(text);
                let _ = stream.read(&mut [0; 1000]);
            }
        }
    }
    Ok(())
}

/// As many connections as there can be, most of which say nothing.
fn crowd(end: Instant) -> Result<()> {
    let mut held = Vec::new();
    while Instant::now() < end {
        held.truncate(1000);
        for _ in held.len()..1000 {
            match connected() {
                Some(stream) => held.push(stream),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        // Those that were closed make room for new ones.
        held.retain_mut(|stream| {
            let _ = stream.set_nonblocking(true);
            !matches!(stream.read(&mut [0; 100]), Ok(0))
        });
    }
    Ok(())
}

/// Calls whose answers nobody reads.
fn slow(end: Instant) -> Result<()> {
    let mut held = Vec::new();
    while Instant::now() < end {
        if let Some(mut stream) = connected() {
            // Without a window not a byte of an answer may be sent.
            let mut text = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
            for n in 0..16 {
                let method = ["Status", "Watch", "Version"].get(n % 3).copied().unwrap_or("Watch");
                text.extend(call(u32::try_from(2 * n + 1)?, method));
            }
            let _ = stream.write_all(&text);
            held.push(stream);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A thousand streams in a connection, opened and reset, and pings that want an answer.
fn streams(end: Instant) -> Result<()> {
    while Instant::now() < end {
        let Some(mut stream) = connected() else { continue };
        let mut text = [PREFACE, &frame(4, 0, 0, &[])].concat();
        for n in 0..1000 {
            text.extend(call(2 * n + 1, "Watch"));
            text.extend(frame(3, 0, 2 * n + 1, &[0, 0, 0, 8]));
            text.extend(frame(6, 0, 0, &[0; 8]));
        }
        let _ = stream.write_all(&text);
        let _ = stream.read(&mut [0; 1000]);
    }
    Ok(())
}

/// Two nodes, of which node 1 has the daemon that is attacked.
fn pair(lab: &Lab) -> Result<(Mesh, Many)> {
    let mut mesh = Mesh::prepare(lab)?;
    mesh.up(lab, 2)?;
    let many = Many::start(lab, lab.node(1)?, &Options::of(lab).log_level("info"))?;
    fs::create_dir_all(many.place().path("/etc/qanah"))?;
    install(many.place(), mesh.conf(1)?)?;
    ROOT.expect(many.place(), "up peer1", 0)?;
    many.connected("peer1", &["peer2"], CONNECT)?;
    Ok((mesh, many))
}

/// While Ann attacks, every ping is answered, and root and Bob are served.
fn endures(kind: &str) -> Result<()> {
    in_lab(2, |lab| {
        let (_mesh, mut many) = pair(lab)?;
        let place = many.place();
        let memory = resident(many.pid())?;
        let log = many.log().len();
        let pinger = Pinger::start(lab, place, &inner4(2))?;
        let mut attacker = attack(place, ANN, kind)?;
        let mut slowest = Duration::ZERO;
        always("others are served", SPAN, || {
            for who in [ROOT, BOB] {
                let start = Instant::now();
                who.expect(place, "status peer1", 0)?;
                slowest = slowest.max(start.elapsed());
            }
            Ok(())
        })?;
        ensure!(attacker.wait()?.success(), "the attacker failed");
        pinger.finish()?.ensure_all()?;
        many.ensure_running()?;
        ensure!(slowest < secs(5), "an answer took {slowest:?}");
        let grown = resident(many.pid())?.saturating_sub(memory);
        ensure!(grown < 32_000_000, "{grown} bytes more memory");
        let logged = many.log().len() - log;
        ensure!(logged < 100_000, "{logged} bytes of log");
        figure(&format!("slowest answer beside {kind}"), format!("{slowest:.0?}"));
        // She is let in again when she behaves.
        qanah_tests::eventually("Ann is served", secs(15), || ANN.expect(place, "status", 0))?;
        Ok(())
    })
}

#[test]
fn garbage_hurts_nobody() -> Result<()> {
    endures("garbage")
}

#[test]
fn a_thousand_connections_hurt_nobody() -> Result<()> {
    endures("crowd")
}

#[test]
fn clients_that_never_read_hurt_nobody() -> Result<()> {
    endures("slow")
}

#[test]
fn thousands_of_streams_hurt_nobody() -> Result<()> {
    endures("streams")
}
