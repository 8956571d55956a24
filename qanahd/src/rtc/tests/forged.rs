//! DTLS from somebody else: from an address of theirs, and from that of the peer itself.

use nix::libc;

use super::*;

/// Bytes by which the process may grow while it is attacked with many times more. Other tests run beside.
const GROWTH: usize = 96 * 1024 * 1024;

/// Sends UDP from any address.
struct Forger(socket2::Socket);

impl Forger {
    fn new() -> Self {
        let protocol = socket2::Protocol::from(libc::IPPROTO_RAW);
        Self(
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(protocol))
                .unwrap(),
        )
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
            panic!("IPv4 only")
        };
        let length = u16::try_from(28 + datagram.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        // Not a fragment, 64 hops, UDP; the kernel adds the checksum.
        packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(from.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend((length - 20).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(datagram);
        self.0.send_to(&packet, &SocketAddr::new(to.ip(), 0).into()).unwrap();
    }
}

fn record(kind: u8, epoch: u8, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 254, 253, 0, epoch, 0, 0];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The part of a handshake message that is said to have this length, at this place. `said` is its own.
fn fragment(number: u16, length: u32, offset: u32, said: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![11];
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend(number.to_be_bytes());
    bytes.extend(&offset.to_be_bytes()[1..]);
    bytes.extend(&said.to_be_bytes()[1..]);
    bytes.extend(contents);
    bytes
}

/// Fills what is kept of fragments, so that nothing else gets in.
fn full(send: &mut dyn FnMut(&[u8])) {
    for number in 0..2500 {
        send(&record(22, 0, 100 + number, &fragment(20, 1000, 0, 1000, &[0; 1000])));
    }
}

/// Fragments of nothing, which count for nothing.
fn empty(send: &mut dyn FnMut(&[u8])) {
    let many = fragment(30, 0, 0, 0, &[]).repeat(2000);
    for number in 0..1500 {
        send(&record(22, 0, 3000 + number, &many));
    }
}

/// A message of which each byte makes those before it be looked at, one within the other. Those who take
/// fragments begin it at the number of the next message.
fn deep(send: &mut dyn FnMut(&[u8])) {
    for (number, sequence) in (0..8).zip((1000..).step_by(10)) {
        let mut parts = (1..60_000).rev().map(|at| fragment(number, 0, at, 1, &[]));
        let mut sequence = 1000 * sequence;
        loop {
            let body: Vec<u8> = parts.by_ref().take(5000).flatten().collect();
            if body.is_empty() {
                break;
            }
            send(&record(22, 0, sequence, &body));
            sequence += 1;
        }
        send(&record(22, 0, sequence, &fragment(number, 0, 0, 1, &[])));
    }
}

/// What ends a connection, or is kept for later.
fn plain(send: &mut dyn FnMut(&[u8])) {
    for number in 0..200 {
        send(&record(21, 0, 100_000_000 + number, &[2, 40]));
        send(&record(21, 0, 100_001_000 + number, &[1, 0]));
        send(&record(23, 0, 100_002_000 + number, &[0; 1000]));
        send(&record(20, 0, 100_003_000 + number, &[1]));
        send(&record(25, 0, 100_004_000 + number, &[1]));
        send(&record(23, 1, 4_000_000_000 + number, &[0; 1000]));
    }
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A live connection goes on under each of the attacks, from either address.
async fn attack(mut lab: Lab) {
    lab.exchange(5000).await;
    let before = resident();
    let forger = Forger::new();
    for side in 0..2 {
        let (local, remote) = lab.sides[side].pair.unwrap();
        let stranger = SocketAddr::new(remote.address.ip(), 9);
        for from in [stranger, remote.address] {
            for way in [full, empty, deep, plain] {
                let mut sent = Vec::new();
                way(&mut |datagram| sent.push(datagram.to_vec()));
                // Not more at once than the socket holds, or nothing of it is seen.
                for some in sent.chunks(20) {
                    some.iter().for_each(|one| forger.send(from, local.address, one));
                    lab.exchange(100).await;
                }
                lab.exchange(5000).await;
            }
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes");
    assert!(lab.sides.iter().all(|side| side.closed.is_none() && !side.disconnected));
    lab.close().await;
}

#[test]
fn forged_records_do_not_harm_a_live_connection() {
    in_namespace(|| async {
        attack(Lab::open(&settings(&[A4]), &settings(&[B4])).await).await;
    });
}

#[test]
fn forged_records_do_not_harm_a_live_connection_at_a_port() {
    in_namespace(|| async {
        let at =
            |number, address| Settings { port: Some(Port::new(number)), ..settings(&[address]) };
        attack(Lab::open(&at(4500, A4), &at(4501, B4)).await).await;
    });
}

/// A stranger sends all of it while the connection is made; from the peer's own address come sealed records, as
/// from an older connection between the two.
#[test]
fn forged_records_do_not_keep_a_connection_from_opening() {
    in_namespace(|| async {
        let at =
            |number, address| Settings { port: Some(Port::new(number)), ..settings(&[address]) };
        let mut lab = Lab::new(&at(4500, A4), &at(4501, B4)).await;
        let [ours, theirs] =
            [(A4, 4500), (B4, 4501)].map(|(text, port)| SocketAddr::new(ip(text), port));
        let flood = tokio::spawn(async move {
            let (forger, stranger) = (Forger::new(), SocketAddr::new(ip(B4), 9));
            let mut unsealed = Vec::new();
            plain(&mut |datagram| unsealed.push(datagram.to_vec()));
            for (number, datagram) in (5_000_000..).zip(unsealed.iter().cycle()) {
                let sealed = record(23, 1, number, &[0; 1000]);
                for (from, to) in [(ours, theirs), (theirs, ours)] {
                    forger.send(stranger, to, datagram);
                    forger.send(from, to, &sealed);
                }
                // Not more at once than what is read of it.
                tokio::task::yield_now().await;
            }
        });
        lab.until_open().await;
        flood.abort();
        lab.exchange(5000).await;
        lab.close().await;
    });
}
