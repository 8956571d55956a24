use proptest::prelude::*;

use super::checksum::Checksum;
use super::testing::{any_packet, packet};
use super::*;

#[test]
fn reads_addresses_and_version() {
    let bytes = packet("10.0.0.1", "10.0.0.2", 17, b"hello");
    let view = Packet::parse(&bytes).unwrap();
    assert_eq!(view.version(), Version::V4);
    assert_eq!(view.src(), "10.0.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(view.dst(), "10.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(view.as_bytes(), bytes);

    let bytes = packet("fd00::1", "2001:db8::2", 17, b"hello");
    let view = Packet::parse(&bytes).unwrap();
    assert_eq!(view.version(), Version::V6);
    assert_eq!(view.src(), "fd00::1".parse::<IpAddr>().unwrap());
    assert_eq!(view.dst(), "2001:db8::2".parse::<IpAddr>().unwrap());
}

#[test]
fn mapped_addresses_stay_ipv6() {
    let bytes = packet("::ffff:10.0.0.1", "fd00::1", 17, b"");
    assert!(Packet::parse(&bytes).unwrap().src().is_ipv6());
}

#[test]
fn refuses_what_is_not_one_packet() {
    let good = packet("10.0.0.1", "10.0.0.2", 17, b"hello");
    let edit = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Packet::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(Packet::parse(&[]), Err(PacketError::Empty));
    assert_eq!(edit(0, 0x55), PacketError::Version(5));
    assert_eq!(edit(0, 0x44), PacketError::Length);
    assert_eq!(edit(0, 0x4f), PacketError::Length);
    assert_eq!(edit(3, 19), PacketError::Length);
    assert_eq!(edit(3, 26), PacketError::Truncated);
    assert_eq!(edit(3, 20), PacketError::Trailing(5));
    assert_eq!(Packet::parse(&good[..19]), Err(PacketError::Truncated));

    let mut jumbo = packet("fd00::1", "fd00::2", 0, b"");
    assert_eq!(Packet::parse(&jumbo), Err(PacketError::Jumbogram));
    jumbo[6] = 59;
    assert!(Packet::parse(&jumbo).is_ok());
    assert_eq!(Packet::parse(&jumbo[..39]), Err(PacketError::Truncated));
}

#[test]
fn finds_the_transport_header_past_extension_headers() {
    // Hop-by-hop (8 bytes), destination options (16 bytes), then UDP.
    let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
    payload.extend([17, 1].iter().chain(&[0; 14]));
    payload.extend(b"transport");
    let bytes = packet("fd00::1", "fd00::2", 0, &payload);
    let found = Packet::parse(&bytes).unwrap().transport().unwrap();
    assert_eq!((found.protocol, found.extra), (17, 24));
    assert_eq!(found.bytes, b"transport");
    assert!(!found.fragment);

    // The authentication header counts its length in words of 4 bytes (RFC 4302, section 2.2).
    let mut payload = vec![17, 1];
    payload.extend([0; 10]);
    payload.extend(b"transport");
    let bytes = packet("fd00::1", "fd00::2", 51, &payload);
    let found = Packet::parse(&bytes).unwrap().transport().unwrap();
    assert_eq!((found.protocol, found.extra), (17, 12));
    assert_eq!(found.bytes, b"transport");

    let cut = packet("fd00::1", "fd00::2", 0, &[60, 3, 0, 0]);
    assert_eq!(Packet::parse(&cut).unwrap().transport(), None);

    // Headers that never end are given up on.
    let endless = [[60, 0, 1, 4, 0, 0, 0, 0]; 100].concat();
    let bytes = packet("fd00::1", "fd00::2", 60, &endless);
    assert_eq!(Packet::parse(&bytes).unwrap().transport(), None);
}

#[test]
fn knows_fragments() {
    let flags = |bytes: &[u8]| {
        let found = Packet::parse(bytes).unwrap().transport().unwrap();
        (found.fragment, found.later_fragment)
    };
    let mut bytes = packet("10.0.0.1", "10.0.0.2", 17, b"12345678");
    assert_eq!(flags(&bytes), (false, false));
    bytes[6] = 0x20;
    assert_eq!(flags(&bytes), (true, false));
    bytes[7] = 0x01;
    assert_eq!(flags(&bytes), (true, true));

    let first = packet("fd00::1", "fd00::2", 44, &[17, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(flags(&first), (true, false));
    let later = packet("fd00::1", "fd00::2", 44, &[17, 0, 0, 8, 0, 0, 0, 9]);
    assert_eq!(flags(&later), (true, true));

    // What follows the header of a later fragment is data, whatever it would be in the first.
    let bytes = packet("fd00::1", "fd00::2", 44, &[60, 0, 0, 8, 0, 0, 0, 9, 58, 0]);
    let found = Packet::parse(&bytes).unwrap().transport().unwrap();
    assert_eq!((found.protocol, found.bytes), (60, [58, 0].as_slice()));
}

/// RFC 1071, section 3: the worked example.
#[test]
fn checksum_matches_rfc_1071() {
    let sum = Checksum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.finish(), [!0xdd, !0xf2]);
    let odd = Checksum::default().add(&[0x12, 0x34, 0x56]).finish();
    assert_eq!(odd, Checksum::default().add(&[0x12, 0x34, 0x56, 0]).finish());
}

/// Checks both checksums of an answer the way a receiver does.
fn checksums_hold(answer: &[u8]) -> bool {
    let view = Packet::parse(answer).unwrap();
    match view.version() {
        Version::V4 => {
            Checksum::default().add(&answer[..20]).finish() == [0, 0]
                && Checksum::default().add(&answer[20..]).finish() == [0, 0]
        }
        Version::V6 => {
            let len = u32::try_from(answer.len() - 40).unwrap();
            let pseudo = Checksum::default()
                .add_addr(view.src())
                .add_addr(view.dst())
                .add_u32(len)
                .add_u32(58);
            pseudo.add(&answer[40..]).finish() == [0, 0]
        }
    }
}

fn answer(bytes: &[u8], error: IcmpError) -> Option<Vec<u8>> {
    icmp_error(&Packet::parse(bytes).unwrap(), None, error)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), first in any::<u8>()) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            // Half of the cases get past the version.
            *byte = if first & 1 == 0 { 0x40 | first >> 4 } else { 0x60 | first >> 4 };
        }
        if let Ok((view, rest)) = Packet::split_first(&bytes) {
            prop_assert_eq!(view.as_bytes().len() + rest.len(), bytes.len());
            let _ = view.transport();
            let _ = icmp_error(&view, None, IcmpError::Unreachable);
        }
    }

    #[test]
    fn packets_one_after_another_come_apart(packets in prop::collection::vec(any_packet(), 1..6)) {
        let joined = packets.concat();
        let mut rest = joined.as_slice();
        for expected in &packets {
            let (view, after) = Packet::split_first(rest).unwrap();
            prop_assert_eq!(view.as_bytes(), expected.as_slice());
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn answers_are_packets_back_to_the_source(bytes in any_packet(), mtu in any::<u32>()) {
        let original = Packet::parse(&bytes).unwrap();
        for error in [IcmpError::Unreachable, IcmpError::TooBig { mtu }] {
            if let Some(answer) = icmp_error(&original, None, error) {
                let view = Packet::parse(&answer).unwrap();
                prop_assert_eq!(view.dst(), original.src());
                prop_assert!(checksums_hold(&answer));
                // And it is itself never answered.
                prop_assert_eq!(icmp_error(&view, None, error), None);
            }
        }
    }
}

/// The expected checksums were computed apart from this code.
#[test]
fn unreachable_v4_is_what_rfc_792_says() {
    let original = packet("10.0.0.1", "10.0.0.2", 17, &[0x12, 0x34, 0x00, 0x35, 0, 8, 0, 0]);
    let from = Some("10.0.0.9".parse().unwrap());
    let view = Packet::parse(&original).unwrap();
    let answer = icmp_error(&view, from, IcmpError::Unreachable).unwrap();
    let mut expected = vec![
        0x45, 0xc0, 0x00, 0x38, 0, 0, 0x40, 0, 64, 1, 0x25, 0xfc, 10, 0, 0, 9, 10, 0, 0, 1, 3, 1,
        0x11, 0x5d, 0, 0, 0, 0,
    ];
    expected.extend(&original);
    assert_eq!(answer, expected);
}

#[test]
fn unreachable_v6_is_what_rfc_4443_says() {
    let original = packet("fd00::1", "fd00::2", 17, &[0x12, 0x34, 0x00, 0x35, 0, 8, 0xab, 0xcd]);
    let answer = answer(&original, IcmpError::Unreachable).unwrap();
    let mut expected = packet("fd00::2", "fd00::1", 58, &[1, 3, 0xda, 0xf9, 0, 0, 0, 0]);
    expected[5] = 56;
    expected.extend(&original);
    assert_eq!(answer, expected);
}

#[test]
fn answers_are_capped() {
    let v4 = packet("10.0.0.1", "10.0.0.2", 17, &[7; 1300]);
    let v6 = packet("fd00::1", "fd00::2", 17, &[7; 1300]);
    let v4 = answer(&v4, IcmpError::Unreachable).unwrap();
    let v6 = answer(&v6, IcmpError::Unreachable).unwrap();
    assert_eq!((v4.len(), v6.len()), (576, 1280));
    assert!(checksums_hold(&v4) && checksums_hold(&v6));
}

#[test]
fn too_big_carries_the_mtu() {
    let v4 = packet("10.0.0.1", "10.0.0.2", 17, &[7; 100]);
    let v6 = packet("fd00::1", "fd00::2", 17, &[7; 100]);
    let big = IcmpError::TooBig { mtu: 1280 };
    let told = answer(&v4, big).unwrap();
    assert_eq!(told[20..22], [3, 4]);
    assert_eq!(told[24..28], [0, 0, 5, 0]);
    let told = answer(&v6, big).unwrap();
    assert_eq!(told[40..42], [2, 0]);
    assert_eq!(told[44..48], [0, 0, 5, 0]);
    // An MTU beyond 16 bits is clamped for IPv4, kept for IPv6.
    let huge = IcmpError::TooBig { mtu: 0x1_0000 };
    assert_eq!(answer(&v4, huge).unwrap()[24..28], [0, 0, 0xff, 0xff]);
    assert_eq!(answer(&v6, huge).unwrap()[44..48], [0, 1, 0, 0]);
    // A packet that may be fragmented is not "too big".
    let mut fragmentable = v4.clone();
    fragmentable[6] = 0;
    assert_eq!(answer(&fragmentable, big), None);
    // IPv6 multicast is told so too, but not that it is unreachable.
    let group = packet("fd00::1", "ff0e::1", 17, &[7; 100]);
    let view = Packet::parse(&group).unwrap();
    let from = Some("fd00::9".parse().unwrap());
    assert!(icmp_error(&view, from, big).is_some());
    assert_eq!(icmp_error(&view, from, IcmpError::Unreachable), None);
    // No answer can come from a group.
    assert_eq!(icmp_error(&view, None, big), None);
}

#[test]
fn no_answer_where_none_may_be_sent() {
    let silent = |src, dst, protocol, payload: &[u8]| {
        answer(&packet(src, dst, protocol, payload), IcmpError::Unreachable).is_none()
    };
    let data = &[8; 16];
    assert!(!silent("10.0.0.1", "10.0.0.2", 17, data));
    for src in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        assert!(silent(src, "10.0.0.2", 17, data), "{src}");
    }
    for dst in ["224.0.0.251", "255.255.255.255"] {
        assert!(silent("10.0.0.1", dst, 17, data), "{dst}");
    }
    assert!(!silent("fd00::1", "fd00::2", 17, data));
    for src in ["::", "::1", "ff02::1"] {
        assert!(silent(src, "fd00::2", 17, data), "{src}");
    }
    assert!(silent("fd00::1", "ff02::1", 17, data));
    for (kind, quiet) in
        [(0, false), (3, true), (4, true), (5, true), (8, false), (11, true), (12, true)]
    {
        assert_eq!(silent("10.0.0.1", "10.0.0.2", 1, &[kind; 8]), quiet, "ICMP {kind}");
    }
    for (kind, quiet) in [(1, true), (2, true), (4, true), (127, true), (128, false), (137, true)] {
        assert_eq!(silent("fd00::1", "fd00::2", 58, &[kind; 8]), quiet, "ICMPv6 {kind}");
    }
    assert!(silent("10.0.0.1", "10.0.0.2", 1, &[]));
    // An ICMPv6 error hides behind an extension header.
    assert!(silent("fd00::1", "fd00::2", 60, &[58, 0, 1, 4, 0, 0, 0, 0, 1, 3, 0, 0]));
    // Later fragments.
    let mut fragment = packet("10.0.0.1", "10.0.0.2", 17, data);
    fragment[6..8].copy_from_slice(&[0x00, 0x01]);
    assert_eq!(answer(&fragment, IcmpError::Unreachable), None);
    assert!(silent("fd00::1", "fd00::2", 44, &[17, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3]));
}

#[test]
fn the_answer_comes_from_the_tunnel_if_it_has_an_address_of_that_family() {
    let bytes = packet("fd00::1", "fd00::2", 17, &[7; 10]);
    let view = Packet::parse(&bytes).unwrap();
    let from = |text: &str| {
        let from = Some(text.parse().unwrap());
        let answer = icmp_error(&view, from, IcmpError::Unreachable).unwrap();
        Packet::parse(&answer).unwrap().src().to_string()
    };
    assert_eq!(from("fd00::9"), "fd00::9");
    assert_eq!(from("10.0.0.9"), "fd00::2");
}
