//! What is taken and what is not, and that nothing grows without end.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PEER: SocketAddr = at(1);
const STRANGER: SocketAddr = at(2);
const SERVER: SocketAddr = at(3);
const CALLED: SocketAddr = at(4);

const fn at(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), port)
}

fn stun(kind: u16, number: u8, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    bytes.extend([0x21, 0x12, 0xa4, 0x42]);
    bytes.extend([number; 12]);
    bytes.extend(attributes);
    bytes
}

/// A check with a USERNAME.
fn check(number: u8) -> Vec<u8> {
    stun(BINDING, number, b"\x00\x06\x00\x03a:b\x00")
}

fn record(kind: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 254, 253];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(&sequence.to_be_bytes()[2..]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn fragment(number: u16, length: u32, offset: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend(number.to_be_bytes());
    bytes.extend(&offset.to_be_bytes()[1..]);
    bytes.extend(&u32::try_from(contents.len()).unwrap().to_be_bytes()[1..]);
    bytes.extend(contents);
    bytes
}

fn data(epoch: u16) -> Vec<u8> {
    record(23, epoch, 7, &[9; 100])
}

/// As it is when a check of ours was answered.
fn with_peer() -> Ingress {
    let (mut ingress, now) = (Ingress::default(), Instant::now());
    ingress.sent(PEER, PEER, &check(1), now);
    assert_eq!(takes(&mut ingress, PEER, &stun(BINDING | SUCCESS, 1, &[])), Some(PEER));
    ingress
}

fn takes(ingress: &mut Ingress, from: SocketAddr, datagram: &[u8]) -> Option<SocketAddr> {
    ingress.admits(from, datagram, |_, _| false)
}

#[test]
fn only_those_who_answered_a_check_are_heard() {
    let (mut ingress, now) = (Ingress::default(), Instant::now());
    let hello = record(22, 0, 0, &fragment(0, 4, 0, b"body"));
    let answer = |number| stun(BINDING | SUCCESS, number, &[]);
    ingress.sent(PEER, PEER, &check(1), now);
    // A question to a STUN server has no user name.
    ingress.sent(SERVER, CALLED, &stun(BINDING, 2, &[]), now);
    ingress.sent(at(7), at(7), &check(3), now);
    assert_eq!(takes(&mut ingress, PEER, &hello), None, "it has not answered yet");
    assert_eq!(takes(&mut ingress, STRANGER, &answer(1)), None, "not from where it went");
    assert_eq!(takes(&mut ingress, PEER, &answer(9)), None, "not of ours");
    assert_eq!(takes(&mut ingress, PEER, &answer(1)), Some(PEER));
    assert_eq!(takes(&mut ingress, PEER, &answer(1)), Some(PEER), "once more");
    assert_eq!(takes(&mut ingress, SERVER, &answer(2)), Some(CALLED));
    assert_eq!(takes(&mut ingress, at(7), &stun(BINDING | ERROR, 3, &[])), Some(at(7)));
    assert_eq!(takes(&mut ingress, PEER, &hello), Some(PEER));
    for other in [STRANGER, SERVER, at(7)] {
        assert_eq!(takes(&mut ingress, other, &hello), None, "{other}");
    }
    for odd in [&b""[..], &[0x80; 40], &[16; 40], &stun(BINDING | 0x0010, 1, &[])] {
        assert_eq!(takes(&mut ingress, PEER, odd), None, "{odd:?}");
    }
}

#[test]
fn a_crowd_does_not_push_out_who_is_heard_again() {
    let (mut ingress, now) = (with_peer(), Instant::now());
    for port in 100..1000 {
        ingress.sent(at(port), at(port), &check(2), now);
        assert!(takes(&mut ingress, at(port), &stun(BINDING | SUCCESS, 2, &[])).is_some());
        ingress.sent(PEER, PEER, &check(1), now);
        assert!(takes(&mut ingress, PEER, &stun(BINDING | SUCCESS, 1, &[])).is_some());
    }
    assert!(ingress.is_peer(PEER) && ingress.is_peer(at(999)) && !ingress.is_peer(at(100)));
    // Checks of strangers, whatever they say, teach nothing.
    for port in 1000..2000 {
        ingress.admits(at(port), &check(3), |_, _| true);
        assert!(!ingress.is_peer(at(port)));
    }
    assert!(ingress.is_peer(PEER));
}

#[test]
fn requests_are_forgotten_in_time() {
    let (mut exchanges, now) = (Exchanges::default(), Instant::now());
    let read = |datagram: &[u8]| StunHeader::read(datagram).unwrap();
    exchanges.sent(PEER, PEER, read(&check(1)), &check(1), now);
    let answer = read(&stun(BINDING | SUCCESS, 1, &[]));
    assert!(exchanges.awaits(PEER, answer));
    let later = now + Duration::from_secs(41);
    exchanges.sent(PEER, PEER, read(&check(2)), &check(2), later);
    assert!(!exchanges.awaits(PEER, answer));
}

#[test]
fn two_names_of_one_server_are_told_apart_by_their_requests() {
    let (mut ingress, now) = (Ingress::default(), Instant::now());
    ingress.sent(SERVER, at(11), &stun(BINDING, 1, &[]), now);
    ingress.sent(SERVER, at(12), &stun(BINDING, 2, &[]), now);
    assert_eq!(takes(&mut ingress, SERVER, &stun(BINDING | SUCCESS, 2, &[])), Some(at(12)));
    assert_eq!(takes(&mut ingress, SERVER, &stun(BINDING | SUCCESS, 1, &[])), Some(at(11)));
}

#[test]
fn a_server_is_heard_when_it_has_an_allocation_of_ours() {
    let (mut ingress, now) = (Ingress::default(), Instant::now());
    let channel = |contents: &[u8]| {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[0x40, 0][..], &length, contents].concat()
    };
    let hello = channel(&record(22, 0, 0, &fragment(0, 4, 0, b"body")));
    ingress.sent(SERVER, CALLED, &stun(3, 1, &[]), now);
    assert_eq!(takes(&mut ingress, SERVER, &stun(0x0113, 1, &[])), Some(CALLED), "who are you?");
    assert_eq!(takes(&mut ingress, SERVER, &hello), None);
    assert_eq!(takes(&mut ingress, SERVER, &stun(0x0103, 1, &[])), Some(CALLED));
    assert_eq!(takes(&mut ingress, SERVER, &hello), Some(CALLED));
    assert_eq!(takes(&mut ingress, STRANGER, &hello), None);
    // What is inside is looked at, too: plaintext data, a message inside a message, another cookie.
    for bad in [data(0), stun(0x0017, 1, &[]), vec![0x21, 0x12, 0xa4, 0x42], vec![]] {
        assert_eq!(takes(&mut ingress, SERVER, &channel(&bad)), None, "{bad:?}");
    }
    let address = b"\x00\x12\x00\x08\x00\x01\x21\x5f\xe1\x12\xa6\x43";
    let inside = check(5);
    let mut attributes = address.to_vec();
    attributes.extend([0, 0x13, 0, u8::try_from(inside.len()).unwrap()]);
    attributes.extend(&inside);
    let handed = stun(DATA_INDICATION, 1, &attributes);
    let from = SocketAddr::from(([192, 0, 2, 1], 77));
    let asked = |peer: Option<SocketAddr>, contents: &[u8]| {
        assert_eq!((peer, contents), (Some(from), &inside[..]));
        true
    };
    assert_eq!(ingress.admits(SERVER, &handed, asked), Some(CALLED));
    assert_eq!(takes(&mut ingress, SERVER, &handed), None);
    assert_eq!(ingress.admits(STRANGER, &handed, |_, _| true), None);
    // A check in a channel has to be for us as well, from wherever it comes.
    let in_channel = channel(&inside);
    let asked = |peer: Option<SocketAddr>, contents: &[u8]| {
        assert_eq!((peer, contents), (None, &inside[..]));
        true
    };
    assert_eq!(ingress.admits(SERVER, &in_channel, asked), Some(CALLED));
    assert_eq!(takes(&mut ingress, SERVER, &in_channel), None);
}

#[test]
fn an_open_connection_takes_nothing_without_keys() {
    let mut ingress = with_peer();
    ingress.opened();
    assert!(takes(&mut ingress, PEER, &data(1)).is_some());
    assert!(takes(&mut ingress, PEER, &record(21, 1, 3, &[0; 26])).is_some());
    let hidden = [data(1), record(22, 0, 0, &fragment(0, 4, 0, b"body"))].concat();
    let finished = record(22, 1, 0, &[0; 48]);
    let alert = record(21, 0, 0, &[2, 40]);
    let trailing = [data(1), vec![0]].concat();
    for bad in [hidden, finished, alert, data(0), data(2), record(20, 0, 0, &[1]), trailing] {
        assert_eq!(takes(&mut ingress, PEER, &bad), None, "{bad:?}");
    }
}

/// The other side's last flight, said again because it has not seen ours.
#[test]
fn a_last_flight_is_heard_again_until_data_has_come() {
    let last = [
        record(22, 0, 9, &fragment(2, 900, 0, &[1; 900])),
        record(20, 0, 10, &[1]),
        record(22, 1, 0, &[0; 48]),
    ]
    .concat();
    let mut ingress = with_peer();
    assert!(takes(&mut ingress, PEER, &last).is_some());
    let ours = [record(20, 0, 5, &[1]), record(22, 1, 0, &[0; 48])].concat();
    ingress.sent(PEER, PEER, &ours, Instant::now());
    for _ in 0..8 {
        assert!(takes(&mut ingress, PEER, &last).is_some());
    }
    ingress.opened();
    assert_eq!(takes(&mut ingress, PEER, &last), None);
}

#[test]
fn little_waits_for_our_keys_and_much_is_taken_with_them() {
    for is_client in [false, true] {
        let mut ingress = with_peer();
        let now = Instant::now();
        if is_client {
            let mut hello = fragment(0, 4, 0, b"body");
            hello[0] = 1;
            ingress.sent(PEER, PEER, &record(22, 0, 0, &hello), now);
        }
        let count = (0..10_000).filter(|_| takes(&mut ingress, PEER, &data(1)).is_some()).count();
        assert_eq!(count, 128);
        ingress.sent(PEER, PEER, &record(22, 1, 0, &[0; 48]), now);
        // A client says Finished before it knows that the server agrees.
        assert_eq!(takes(&mut ingress, PEER, &data(1)).is_some(), !is_client);
        ingress.sent(PEER, PEER, &data(1), now);
        assert!((0..10_000).all(|_| takes(&mut ingress, PEER, &data(1)).is_some()));
        let finished = record(22, 1, 1, &[0; 48]);
        let count = (0..10_000).filter(|_| takes(&mut ingress, PEER, &finished).is_some()).count();
        assert_eq!(count, 64);
    }
}

#[test]
fn fragments_that_eat_memory_or_stack_are_few() {
    let count = |of: &dyn Fn(u32) -> Vec<u8>| {
        let mut ingress = with_peer();
        let body = |number| record(22, 0, u64::from(number % 4096), &of(number));
        (0..100_000).filter(|number| takes(&mut ingress, PEER, &body(*number)).is_some()).count()
    };
    assert_eq!(count(&|number| fragment(1, 8000, number % 8000, b"x")), 256, "one byte each");
    assert_eq!(count(&|_| fragment(1, 8000, 0, &[0; 8000])), 256 * 1024 / 8000, "long ones");
    assert_eq!(count(&|_| fragment(1, 10, 0, b"")), 0, "nothing of something");
    assert_eq!(count(&|_| fragment(1, 0, 0, b"")), 256, "nothing of nothing");
    assert_eq!(count(&|_| fragment(16, 4, 0, b"body")), 0, "far ahead");
    assert_eq!(count(&|_| fragment(1, 9000, 0, &[0; 100])), 0, "too long a message");
    assert_eq!(count(&|_| fragment(1, 4, 1, b"body")), 0, "beyond its end");
    let parts = |_| [fragment(1, 9, 0, b"part"), fragment(1, 9, 4, b"part2")].concat();
    assert_eq!(count(&parts), 0, "more after a part");
    assert_eq!(count(&|_| fragment(1, 0, 0, b"").repeat(5000)), 0, "many in one");
    let far = record(22, 0, 4096, &fragment(0, 4, 0, b"body"));
    assert_eq!(takes(&mut with_peer(), PEER, &far), None, "it would move the window");
}

/// Bytes that are like records, most of them.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let fragments =
        (0..20_u16, 0..9000_u32, 0..9000_u32, prop::collection::vec(any::<u8>(), 0..50)).prop_map(
            |(number, length, offset, contents)| fragment(number, length, offset, &contents),
        );
    let small = (0..3_u16, 0..4_u32, 0..4_u32, prop::collection::vec(any::<u8>(), 0..4))
        .prop_map(|(number, length, offset, contents)| fragment(number, length, offset, &contents));
    let body = prop_oneof![
        prop::collection::vec(prop_oneof![fragments, small], 1..4).prop_map(|all| all.concat()),
        prop::collection::vec(any::<u8>(), 0..200),
        Just(vec![1]),
    ];
    let one = (19..25_u8, 0..3_u16, 0..5000_u64, body)
        .prop_map(|(kind, epoch, sequence, body)| record(kind, epoch, sequence, &body));
    prop_oneof![
        9 => prop::collection::vec(one, 1..4).prop_map(|all| all.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    /// What was taken has a sum that is bounded, whatever comes and however it is mixed.
    #[test]
    fn whatever_comes_what_waits_is_bounded(
        all in prop::collection::vec(datagrams(), 1..60),
        times in 1..30_usize,
    ) {
        let mut ingress = with_peer();
        let (mut bytes, mut records) = (0, 0);
        for _ in 0..times {
            for datagram in &all {
                if takes(&mut ingress, PEER, datagram).is_some() {
                    bytes += datagram.len();
                    let mut rest = &datagram[..];
                    while !rest.is_empty() {
                        records += 1;
                        let length = usize::from(u16::from_be_bytes([rest[11], rest[12]]));
                        // Alerts without keys are not kept.
                        records -= i32::from((rest[0], rest[4]) == (21, 0));
                        rest = &rest[13 + length..];
                    }
                }
            }
        }
        prop_assert!(records <= 256 + 64 + 64 + 128, "{records}");
        prop_assert!(bytes <= 1024 * 1024, "{bytes}");
    }

    /// No bytes at all make trouble, and with keys on both sides only sealed records pass.
    #[test]
    fn an_open_one_takes_sealed_records_alone(datagram in datagrams()) {
        let mut ingress = with_peer();
        ingress.opened();
        if takes(&mut ingress, PEER, &datagram).is_some() {
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                prop_assert!(matches!((rest[0], rest[3], rest[4]), (21 | 23, 0, 1)));
                rest = &rest[13 + usize::from(u16::from_be_bytes([rest[11], rest[12]]))..];
            }
        }
        ingress.sent(PEER, PEER, &datagram, Instant::now());
    }
}
