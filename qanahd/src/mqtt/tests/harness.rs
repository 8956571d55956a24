//! A real mosquitto, a hand-made client and a hand-made broker, all on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::*;

/// Everything that is waited for comes within this time, or the test fails.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// The tests look at the threads of the process and share the library, so one runs at a time.
pub(super) static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls until `condition` holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A mosquitto that dies with the value.
pub(super) struct Mosquitto {
    config: PathBuf,
    child: Option<Child>,
    log: Option<std_mpsc::Receiver<String>>,
}

impl Mosquitto {
    /// Starts one with these configuration lines and waits until it says that it runs.
    pub(super) fn start(dir: &Path, lines: &str) -> Self {
        let config = dir.join(format!("mosquitto-{}.conf", free_port()));
        // As root it would change to its own user, who cannot read the keys of the test.
        let common = "user root\nallow_anonymous true\npersistence false\nlog_dest stderr\n";
        std::fs::write(&config, format!("{common}{lines}\n")).unwrap();
        let mut mosquitto = Self { config, child: None, log: None };
        mosquitto.run();
        mosquitto
    }

    pub(super) fn plain(dir: &Path, port: u16) -> Self {
        Self::start(dir, &format!("listener {port} 127.0.0.1"))
    }

    pub(super) fn run(&mut self) {
        let mut child = Command::new("mosquitto")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs the program mosquitto (Debian package mosquitto)");
        let log = BufReader::new(child.stderr.take().unwrap());
        self.child = Some(child);
        let (tell, told) = std_mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut seen = String::new();
        while !seen.contains(" running") {
            let line = told.recv_timeout(SOON);
            seen += &line.unwrap_or_else(|_| panic!("mosquitto did not start: {seen}"));
            seen.push('\n');
        }
        self.log = Some(told);
    }

    /// Ends it and returns all that it logged since it ran.
    pub(super) fn into_log(mut self) -> String {
        self.kill();
        let log = self.log.take().unwrap();
        log.iter().map(|line| line + "\n").collect()
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn address(scheme: Scheme, host: &str, port: u16) -> BrokerAddress {
    BrokerAddress {
        scheme,
        host: host.into(),
        port,
        path: String::new(),
        query: None,
        user: None,
        password: None,
    }
}

pub(super) fn local(port: u16) -> BrokerAddress {
    address(Scheme::Mqtt, "127.0.0.1", port)
}

/// Signaling and its events.
pub(super) struct Peer {
    pub(super) signaling: Signaling,
    pub(super) events: mpsc::Receiver<Event>,
}

impl Peer {
    pub(super) fn start(brokers: Vec<BrokerAddress>, topics: &[&str]) -> Self {
        Self::start_with(brokers, &Trust::default(), topics, Version::V5)
    }

    pub(super) fn start_with(
        brokers: Vec<BrokerAddress>,
        trust: &Trust,
        topics: &[&str],
        version: Version,
    ) -> Self {
        Self::start_through(brokers, trust, &Dialer::default(), topics, version)
    }

    pub(super) fn start_through(
        brokers: Vec<BrokerAddress>,
        trust: &Trust,
        dialer: &Dialer,
        topics: &[&str],
        version: Version,
    ) -> Self {
        let (tell, events) = mpsc::channel(256);
        let signaling = Signaling::start_with(brokers, trust, dialer, tell, version).unwrap();
        signaling.subscribe(topics.iter().map(ToString::to_string));
        Self { signaling, events }
    }

    pub(super) async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(SOON, self.events.recv()).await;
        let next = next.unwrap_or_else(|_| panic!("no event; {:?}", self.signaling.status()));
        next.unwrap()
    }

    pub(super) async fn connected(&mut self, broker: usize) {
        assert_eq!(self.next().await, Event::Connected { broker });
    }

    pub(super) async fn message(&mut self) -> (String, Vec<u8>) {
        match self.next().await {
            Event::Message { topic, payload } => (topic.to_string(), payload),
            other => panic!("a message was expected, not {other:?}"),
        }
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text].concat()
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        bytes.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let mut digit = [0];
        stream.read_exact(&mut digit).ok()?;
        length |= usize::from(digit[0] & 0x7f) << shift;
        if digit[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first[0], body))
}

/// A stranger who publishes with MQTT 3.1.1 whatever the broker lets through.
pub(super) struct Stranger(TcpStream);

impl Stranger {
    pub(super) fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let body = [string(b"MQTT"), vec![4, 2, 0, 60], string(b"stranger")].concat();
        stream.write_all(&packet(0x10, &body)).unwrap();
        assert_eq!(read_packet(&mut stream).unwrap(), (0x20, vec![0, 0]));
        Self(stream)
    }

    pub(super) fn publish(&mut self, topic: &str, payload: &[u8], retained: bool) {
        let body = [string(topic.as_bytes()), payload.to_vec()].concat();
        self.0.write_all(&packet(0x30 | u8::from(retained), &body)).unwrap();
    }

    /// Returns when the broker has taken in everything that was published.
    pub(super) fn flush(&mut self) {
        self.0.write_all(&[0xc0, 0]).unwrap();
        assert_eq!(read_packet(&mut self.0).unwrap().0, 0xd0);
    }
}

/// What the hand-made broker does.
pub(super) struct FakeBroker {
    /// The protocol level that it speaks; others are refused as MQTT 3.1.1 does.
    pub(super) level: u8,
    /// Answers each subscription with so many codes too few.
    pub(super) short: usize,
    /// Sent once all of `topics` have been asked for: first byte and body of each packet.
    pub(super) packets: Vec<(u8, Vec<u8>)>,
    pub(super) topics: usize,
}

impl FakeBroker {
    /// Serves on a thread that ends with the connection of the last client; returns the port and the
    /// CONNECT packets that come.
    pub(super) fn start(self) -> (u16, std_mpsc::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, connects) = std_mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if self.serve(stream, &tell).is_none() {
                    continue;
                }
                break;
            }
        });
        (port, connects)
    }

    fn serve(&self, mut stream: TcpStream, tell: &std_mpsc::Sender<Vec<u8>>) -> Option<()> {
        let (_, connect) = read_packet(&mut stream)?;
        let level = connect[6];
        let _ = tell.send(connect);
        if level != self.level {
            stream.write_all(&packet(0x20, &[0, 1])).ok()?;
            return None;
        }
        let five = level == 5;
        stream.write_all(&packet(0x20, if five { &[0, 0, 0] } else { &[0, 0] })).ok()?;
        let mut asked = 0;
        loop {
            let (kind, body) = read_packet(&mut stream)?;
            match kind {
                0x82 => {
                    let mut at = if five { 3 } else { 2 };
                    let mut topics = 0;
                    while at < body.len() {
                        at += 3 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                        topics += 1;
                    }
                    let mut answer = body[..2].to_vec();
                    answer.extend(five.then_some(0));
                    answer.extend(vec![0; topics - self.short.min(topics - 1)]);
                    stream.write_all(&packet(0x90, &answer)).ok()?;
                    asked += topics;
                    if asked == self.topics {
                        for (first, body) in &self.packets {
                            stream.write_all(&packet(*first, body)).ok()?;
                        }
                    }
                }
                0xc0 => stream.write_all(&[0xd0, 0]).ok()?,
                0xe0 => return Some(()),
                _ => {}
            }
        }
    }
}

/// The body of a PUBLISH packet for MQTT 5 with QoS 0.
pub(super) fn publish5(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    [string(topic), vec![0], payload.to_vec()].concat()
}

/// A CA and a server certificate for one name, made by `openssl`.
pub(crate) fn certificates(dir: &Path, name: &str) {
    let san = format!("subjectAltName={name}");
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .expect("this test needs the program openssl (Debian package openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // Stores look issuers up by name.
    let subject = format!("/CN=CA {}", dir.display().to_string().replace('/', " "));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca =
        ["req", "-x509", "-subj", &subject, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
    run(&[&ca[..], &key].concat());
    let server = ["req", "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr"];
    run(&[&server[..], &key, &["-addext", &san]].concat());
    run(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-copy_extensions",
        "copy",
        "-days",
        "2",
        "-out",
        "server.pem",
    ]);
}
