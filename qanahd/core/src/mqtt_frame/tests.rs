//! Good brokers, bad ones, and bytes of no meaning.

use proptest::prelude::*;

use super::*;

const MOST: u32 = 300;

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(digits(u32::try_from(body.len()).unwrap()));
    bytes.extend(body);
    bytes
}

fn digits(mut length: u32) -> Vec<u8> {
    let mut digits = Vec::new();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        digits.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return digits;
        }
    }
}

fn publish(first: u8, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
    packet(first, &[&length, topic, &[0], payload].concat())
}

fn connack() -> Vec<u8> {
    packet(0x20, &[0, 0, 0])
}

/// What passes of these bytes, in pieces of that size.
fn pass(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Refusal>, u64) {
    pass_in(Version::V5, bytes, piece)
}

fn pass_in(version: Version, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Refusal>, u64) {
    let mut filter = Filter::new(version, MOST);
    let mut out = Vec::new();
    let mut refused = None;
    for piece in bytes.chunks(piece.max(1)) {
        refused = filter.push(piece, &mut out).err();
        assert!(filter.packet.len() <= MOST as usize && filter.packet.capacity() < 1024);
        if refused.is_some() {
            // It stays refused, whatever comes.
            assert_eq!(filter.push(&connack(), &mut out).err(), refused);
            break;
        }
    }
    (out, refused, filter.take_left_out())
}

fn refusal(bytes: &[u8]) -> Option<Refusal> {
    pass(&[connack(), bytes.to_vec()].concat(), usize::MAX).1
}

#[test]
fn what_a_broker_says_to_such_a_client_passes_as_it_is() {
    let all = [
        connack(),
        packet(0x90, &[0, 1, 0, 0]),
        publish(0x30, b"inbox/a", b"hello"),
        publish(0x31, b"inbox/a", &[7; 250]),
        publish(0x30, b"", b""),
        packet(0x30, &[0, 1, b'a', 7, 1, 1, 2, 0, 0, 0, 9, b'x']),
        packet(0xb0, &[0, 2, 0, 0x11]),
        packet(0xd0, &[]),
        packet(0xe0, &[0x8b, 9, 31, 0, 1, b'r', 38, 0, 0, 0, 0]),
    ]
    .concat();
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(pass(&all, piece), (all.clone(), None, 0));
    }
}

#[test]
fn half_a_packet_does_not_pass() {
    let half = [connack(), vec![0x30, 0x20, 0, 1, b'a']].concat();
    assert_eq!(pass(&half, usize::MAX), (connack(), None, 0));
}

#[test]
fn a_message_that_is_too_long_is_left_out_and_the_next_one_passes() {
    let most = publish(0x30, b"a", &[1; 293]);
    assert_eq!(most.len(), MOST as usize);
    let more = publish(0x30, b"a", &[2; 294]);
    let all = [connack(), most.clone(), more, most.clone()].concat();
    assert_eq!(pass(&all, 64), ([connack(), most.clone(), most.clone()].concat(), None, 1));
    // The longest there can be, of which nothing is kept.
    let mut filter = Filter::new(Version::V5, MOST);
    let mut out = Vec::new();
    filter.push(&connack(), &mut out).unwrap();
    filter.push(&[&[0x30][..], &digits(268_435_455)].concat(), &mut out).unwrap();
    let piece = vec![0xff; 1 << 20];
    for _ in 0..255 {
        filter.push(&piece, &mut out).unwrap();
    }
    filter.push(&piece[1..], &mut out).unwrap();
    filter.push(&most, &mut out).unwrap();
    assert_eq!((out, filter.take_left_out()), ([connack(), most].concat(), 1));
}

#[test]
fn what_does_not_belong_is_refused_and_says_why() {
    let malformed = |kind| Some(Refusal::Malformed { kind });
    let unexpected = |kind, flags| Some(Refusal::Unexpected { kind, flags });
    for (bytes, reason) in [
        (publish(0x34, b"a", b"\0\x01x"), Some(Refusal::Quality(2))),
        (publish(0x32, b"a", b"\0\x01x"), Some(Refusal::Quality(1))),
        (publish(0x36, b"a", b"\0\x01x"), Some(Refusal::Quality(3))),
        (vec![0x30, 0x80, 0x80, 0x80, 0x80], Some(Refusal::Length)),
        (vec![0xd0, 0xff, 0xff, 0xff, 0xff, 0xff], Some(Refusal::Length)),
        (packet(0x90, &[0; 400]), Some(Refusal::TooLong { length: 400, most: MOST })),
        (packet(0x90, &[0, 1]), malformed(9)),
        (packet(0x90, &[0, 1, 0]), malformed(9)),
        (packet(0xb0, &[0]), malformed(11)),
        (packet(0xb0, &[0, 1, 0]), malformed(11)),
        (packet(0x30, &[0]), malformed(3)),
        (packet(0x30, &[0, 5, b'a']), malformed(3)),
        (packet(0xd0, &[0]), malformed(13)),
        (packet(0xe0, &[0, 0, 0]), malformed(14)),
        // Properties that go on after the end of the packet, of the list, or for ever, and one that nobody knows.
        (packet(0x30, &[0, 1, b'a']), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 5, 2, 0]), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 1, 2, 0, 0, 0, 0]), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 0xff, 0xff, 0xff, 0x7f, 1, 1, 1, 1]), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 0xff, 0xff, 0xff, 0xff, 0xff]), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 4, 38, 0, 1, b'k']), malformed(3)),
        (packet(0x30, &[0, 1, b'a', 2, 7, 7]), malformed(3)),
        (packet(0xe0, &[0x8b, 4, 31, 0, 9, b'r']), malformed(14)),
        (connack(), unexpected(2, 0)),
        (packet(0x62, &[0, 1]), unexpected(6, 2)),
        (packet(0x10, &[0, 4]), unexpected(1, 0)),
        (packet(0xf0, &[]), unexpected(15, 0)),
        (packet(0x92, &[0, 1, 0]), unexpected(9, 2)),
        (packet(0x00, &[]), unexpected(0, 0)),
    ] {
        assert_eq!(refusal(&bytes), reason, "{bytes:x?}");
    }
    for first in [packet(0xd0, &[]), publish(0x30, b"a", b""), b"HTTP/1.1 400".to_vec()] {
        assert!(matches!(pass(&first, 9).1, Some(Refusal::Unexpected { .. })), "{first:x?}");
    }
    for body in [&[0][..], &[0, 0, 9], &[0, 0, 1, 39], &[0, 0, 0, 0]] {
        assert_eq!(pass(&packet(0x20, body), 9).1, malformed(2));
    }
}

#[test]
fn mqtt_3_1_1_has_neither_properties_nor_words_of_parting() {
    let old = Version::V311;
    let all = [
        packet(0x20, &[0, 0]),
        packet(0x90, &[0, 1, 0]),
        packet(0x30, &[0, 1, b'a']),
        packet(0x31, &[0, 1, b'a', 0xff, 0xff]),
        packet(0xb0, &[0, 2]),
        packet(0xd0, &[]),
    ]
    .concat();
    assert_eq!(pass_in(old, &all, 3), (all.clone(), None, 0));
    let refused = |bytes: Vec<u8>| pass_in(old, &[packet(0x20, &[0, 0]), bytes].concat(), 99).1;
    assert_eq!(refused(packet(0xe0, &[])), Some(Refusal::Unexpected { kind: 14, flags: 0 }));
    assert_eq!(refused(packet(0x90, &[0, 1])), Some(Refusal::Malformed { kind: 9 }));
    assert_eq!(pass_in(old, &connack(), 99).1, Some(Refusal::Malformed { kind: 2 }));
}

fn good() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        (bytes(20), bytes(600)).prop_map(|(topic, payload)| publish(0x30, &topic, &payload)),
        bytes(40).prop_map(|codes| packet(0x90, &[&[0, 1, 0, 0][..], &codes].concat())),
        Just(packet(0xd0, &[])),
        any::<u8>().prop_map(|code| packet(0xe0, &[code])),
    ]
}

proptest! {
    #[test]
    fn good_packets_pass_however_they_are_cut(
        packets in prop::collection::vec(good(), 0..20),
        piece in 1_usize..700,
    ) {
        let all = [connack(), packets.concat()].concat();
        let short: Vec<_> = packets.iter().filter(|it| it.len() <= MOST as usize).collect();
        let expected: Vec<u8> = short.iter().fold(connack(), |all, it| [&all[..], it].concat());
        let left_out = u64::try_from(packets.len() - short.len()).unwrap();
        prop_assert_eq!(pass(&all, piece), (expected, None, left_out));
    }

    #[test]
    fn of_bytes_without_meaning_only_whole_packets_pass(
        start in prop::collection::vec(good(), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..2000),
        piece in 1_usize..700,
    ) {
        let all = [connack(), start.concat(), noise].concat();
        let (out, refused, left_out) = pass(&all, piece);
        // How it is cut makes no difference.
        prop_assert_eq!(&pass(&all, usize::MAX), &(out.clone(), refused, left_out));
        // What passed is whole, and passes again as it is.
        prop_assert_eq!(pass(&out, 1), (out, None, 0));
    }
}

/// As Paho says it: MQTT 5 with "Maximum Packet Size", and 3.1.1.
const CONNECTS: [&[u8]; 2] = [
    b"\x10\x17\0\x04MQTT\x05\x02\0\x14\x05\x27\0\0\x14\0\0\x05qword",
    b"\x10\x11\0\x04MQTT\x04\x02\0\x14\0\x05qword",
];

#[test]
fn the_client_id_is_found_as_soon_as_it_is_there() {
    for connect in CONNECTS {
        for end in 0..connect.len() {
            assert_eq!(client_id(&connect[..end]), Ok(None), "{end}");
        }
        assert_eq!(client_id(connect), Ok(Some(&b"qword"[..])));
        assert_eq!(client_id(&[connect, b"more"].concat()), Ok(Some(&b"qword"[..])));
    }
    for other in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x30\x05\0\x01ahi",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x11\0\x06MQIsdp\x03\x02\0\x14\0\x05qword",
        b"\x10\x11\0\x04MQTT\x06\x02\0\x14\0\x05qword",
        b"\x10\x17\0\x04MQTT\x05\x02\0\x14\x81\x02",
    ] {
        assert_eq!(client_id(other), Err(NotConnect), "{other:x?}");
    }
}
