//! One UDP port for all connections of a tunnel.

use super::super::PortReport;
use super::*;

fn at(port: &Port, addresses: &[&str]) -> Settings {
    Settings { port: Some(port.clone()), ..settings(addresses) }
}

/// Three connections: two between the very same pair of addresses, which only their contents tell apart, and
/// one to a port of its own.
#[test]
fn connections_share_a_port_at_once() {
    in_namespace(|| async {
        let (ours, theirs) = (Port::new(4500), Port::new(4501));
        let mut old = Lab::open(&at(&ours, &[A4]), &at(&theirs, &[B4])).await;
        old.exchange(5000).await;
        let mut new = Lab::open(&at(&ours, &[A4]), &at(&theirs, &[B4])).await;
        let mut other = Lab::open(&settings(&[B4]), &at(&ours, &[A4])).await;
        for round in 0..3 {
            for lab in [&mut old, &mut new, &mut other] {
                lab.exchange(1000 << round).await;
            }
        }
        for lab in [&old, &new] {
            for (side, port) in lab.sides.iter().zip([4500, 4501]) {
                assert!(side.candidates.iter().all(|one| one.address.port() == port));
                assert_eq!(side.pair.unwrap().0.address.port(), port);
            }
        }
        assert_eq!(other.sides[0].pair.unwrap().1.address.port(), 4500);
        // What is left goes on when another one ends, and the port is free when all have.
        old.close().await;
        new.exchange(5000).await;
        other.exchange(5000).await;
        new.close().await;
        other.close().await;
        drop((ours, theirs));
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = std::net::UdpSocket::bind((ip(A4), 4500)) {
            assert!(Instant::now() < deadline, "the port is not free: {error}");
            tokio::task::yield_now().await;
        }
    });
}

/// The port of somebody else is left to them, and a path is found by another.
#[test]
fn a_port_that_is_taken_does_not_keep_peers_apart() {
    in_namespace(|| async {
        let taken = std::net::UdpSocket::bind((ip(A4), 4500)).unwrap();
        let port = Port::new(4500);
        let trouble = || port.report().trouble;
        assert_eq!(port.report(), PortReport { port: 4500, trouble: None });
        let mut lab = Lab::open(&at(&port, &[A4]), &settings(&[B4])).await;
        lab.exchange(5000).await;
        assert!(trouble().is_some_and(|text| text.contains(A4) && text.contains(":4500")));
        assert!(lab.sides[0].candidates.iter().all(|one| one.address.port() != 4500));
        lab.close().await;
        // Nobody asks for an address that is gone, and who has the port says no more.
        port.keep(&[ip(A4)]);
        assert!(trouble().is_some());
        port.keep(&[]);
        assert_eq!(trouble(), None);
        let lab = Lab::open(&at(&port, &[A4]), &settings(&[B4])).await;
        assert!(trouble().is_some());
        lab.close().await;
        drop(taken);
        let lab = Lab::open(&at(&port, &[A4]), &settings(&[B4])).await;
        assert_eq!(trouble(), None);
        assert!(lab.sides[0].candidates.iter().all(|one| one.address.port() == 4500));
        lab.close().await;
    });
}

/// Datagrams of strangers reach no connection and keep none from its own.
#[test]
fn strangers_at_the_port_are_not_heard() {
    in_namespace(|| async {
        let port = Port::new(4500);
        let mut lab = Lab::open(&at(&port, &[A4]), &settings(&[B4])).await;
        let stranger = std::net::UdpSocket::bind((ip(B4), 0)).unwrap();
        let check = b"\x00\x01\x00\x08\x21\x12\xa4\x42twelve bytes\x00\x06\x00\x04none";
        for datagram in [&check[..], b"\x16\xfe\xfd\x00", b"", &check[..20], &[0x40; 1200]] {
            for _ in 0..200 {
                stranger.send_to(datagram, (ip(A4), 4500)).unwrap();
            }
            lab.exchange(5000).await;
        }
        lab.close().await;
    });
}
