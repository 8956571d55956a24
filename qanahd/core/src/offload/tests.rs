use proptest::prelude::*;

use super::virtio::Gso;
use super::*;
use crate::frame::{FrameBuf, SegmentKind, SegmentsHeader, packets};
use crate::packet::Packet;
use crate::packet::checksum::Checksum;
use crate::packet::testing::{any_packet, packet};

/// TCP with 12 bytes of options, as with timestamps.
pub(super) fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x14, 0x51, 0x14, 0x51];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 9, 8 << 4, flags, 0xff, 0xff, 0xab, 0xcd, 0, 0]);
    bytes.extend([1; 12]);
    bytes.extend(payload);
    bytes
}

pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    [&[0x14, 0x51, 0x14, 0x51, len[0], len[1], 0xab, 0xcd], payload].concat()
}

pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

pub(super) const ADDRESSES: [(&str, &str, usize); 2] =
    [("10.0.0.1", "10.0.0.2", 20), ("fd00::1", "fd00::2", 40)];

/// The checksum of a whole packet's transport part, over its pseudo header: zero where it is right.
pub(super) fn residue(packet: &[u8]) -> [u8; 2] {
    let view = Packet::parse(packet).unwrap();
    let transport = view.transport().unwrap();
    Checksum::default()
        .add_addr(view.src())
        .add_addr(view.dst())
        .add_u32(u32::try_from(transport.bytes.len()).unwrap())
        .add_u32(transport.protocol.into())
        .add(transport.bytes)
        .finish()
}

pub(super) fn cut(cutter: &Cutter, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    for number in 0..cutter.count() {
        let mut frame = FrameBuf::with_capacity(cutter.longest());
        cutter.add(packet, number, &mut frame).unwrap();
        assert_eq!(frame.packets(), 1);
        segments.push(frame.plaintext().to_vec());
    }
    segments
}

fn header(gso: Gso, start: usize, offset: u16, gso_size: u16) -> VirtioHeader {
    let checksum = Some((u16::try_from(start).unwrap(), offset));
    VirtioHeader { checksum, gso, headers_len: 0, gso_size }
}

#[test]
fn a_whole_packet_stays_as_it_is() {
    let bytes = packet("10.0.0.1", "10.0.0.2", 1, b"ping");
    let mut taken = bytes.clone();
    assert_eq!(Taken::from_kernel(VirtioHeader::WHOLE, &mut taken, 0), Ok(Taken::Whole));
    assert_eq!(taken, bytes);
}

#[test]
fn a_missing_checksum_is_computed_or_travels_as_missing() {
    for (src, dst, start) in ADDRESSES {
        for (protocol, offset, body) in [(6, 16, tcp(7, 0x10, b"odd")), (17, 6, udp(b"odd"))] {
            let mut bytes = packet(src, dst, protocol, &body);
            let kind = if protocol == 6 { SegmentKind::Tcp } else { SegmentKind::Udp };
            let cutter = Cutter::new(SegmentsHeader { kind, gso_size: 1 }, &bytes).unwrap();
            // As a kernel leaves it: the sum of the pseudo header.
            cutter.put_pseudo_sum(&mut bytes);
            let header = header(Gso::None, start, offset, 0);
            let mut whole = bytes.clone();
            assert_eq!(Taken::from_kernel(header, &mut whole, usize::MAX), Ok(Taken::Whole));
            assert_eq!(residue(&whole), [0, 0]);
            let mut sparse = bytes.clone();
            let taken = Taken::from_kernel(header, &mut sparse, 0).unwrap();
            let Taken::Segments(segments) = taken else { panic!("{taken:?}") };
            let mut plaintext = [segments.to_bytes().as_slice(), &sparse].concat();
            let (again, packet) = hand_back(&mut plaintext).unwrap();
            assert_eq!((again, packet), (header, bytes.as_slice()));
        }
    }
}

#[test]
fn what_cannot_travel_without_its_checksum_gets_it() {
    // With options, and of another protocol.
    let mut options = packet("10.0.0.1", "10.0.0.2", 17, &[&[1; 4], &udp(b"x")[..]].concat());
    options[0] = 0x46;
    options[30..32].fill(0);
    let mut sctp = packet("fd00::1", "fd00::2", 132, &[0; 12]);
    for (bytes, start, offset) in [(&mut options, 24, 6), (&mut sctp, 40, 8)] {
        let taken = Taken::from_kernel(header(Gso::None, start, offset, 0), bytes, 0);
        assert_eq!(taken, Ok(Taken::Whole));
        let at = start + usize::from(offset);
        assert_ne!(bytes[at..at + 2], [0, 0]);
    }
}

#[test]
fn a_large_packet_becomes_segments_and_the_same_again() {
    for (src, dst, start) in ADDRESSES {
        let (of_tcp, of_udp) = (tcp(1, 0x18, &payload(5000)), udp(&payload(5000)));
        let gso = if start == 20 { Gso::TcpV4 } else { Gso::TcpV6 };
        for (protocol, offset, gso, body) in [(6, 16, gso, of_tcp), (17, 6, Gso::Udp, of_udp)] {
            let mut bytes = packet(src, dst, protocol, &body);
            let kind = if protocol == 6 { SegmentKind::Tcp } else { SegmentKind::Udp };
            let cutter = Cutter::new(SegmentsHeader { kind, gso_size: 1 }, &bytes).unwrap();
            cutter.put_pseudo_sum(&mut bytes);
            let headers_len = u16::try_from(bytes.len() - 5000).unwrap();
            let header = VirtioHeader { headers_len, ..header(gso, start, offset, 1348) };
            let mut taken = bytes.clone();
            let segments = SegmentsHeader { kind, gso_size: 1348 };
            let outcome = Taken::from_kernel(header, &mut taken, 0);
            assert_eq!(outcome, Ok(Taken::Segments(segments)));
            let mut plaintext = [segments.to_bytes().as_slice(), &taken].concat();
            let (again, packet) = hand_back(&mut plaintext).unwrap();
            assert_eq!((again, packet), (header, bytes.as_slice()));
        }
    }
}

#[test]
fn segments_of_tcp_share_flags_and_numbers_as_they_should() {
    let large = packet("10.0.0.1", "10.0.0.2", 6, &tcp(u32::MAX - 600, 0x99, &payload(2500)));
    let cutter =
        Cutter::new(SegmentsHeader { kind: SegmentKind::Tcp, gso_size: 1000 }, &large).unwrap();
    let segments = cut(&cutter, &large);
    let flags: Vec<u8> = segments.iter().map(|it| it[20 + 13]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19], "CWR first, PSH and FIN last");
    let numbers: Vec<u32> =
        segments.iter().map(|it| u32::from_be_bytes(it[24..28].try_into().unwrap())).collect();
    assert_eq!(numbers, [u32::MAX - 600, 399, 1399]);
    let ids: Vec<u8> = segments.iter().map(|it| it[5]).collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn small_segments_and_odd_headers_are_cut_up_here() {
    // Less than a frame of segments may hold, and IPv6 with an extension header.
    let small = packet("10.0.0.1", "10.0.0.2", 6, &tcp(1, 0x10, &payload(900)));
    let options = [&[6, 0, 1, 4, 0, 0, 0, 0], &tcp(1, 0x10, &payload(3000))[..]].concat();
    let extended = packet("fd00::1", "fd00::2", 60, &options);
    for (large, gso, start, gso_size) in
        [(small, Gso::TcpV4, 20, 300), (extended, Gso::TcpV6, 48, 1200)]
    {
        let mut bytes = large.clone();
        let taken = Taken::from_kernel(header(gso, start, 16, gso_size), &mut bytes, 0).unwrap();
        let Taken::Cut(cutter) = taken else { panic!("{taken:?}") };
        let segments = cut(&cutter, &bytes);
        assert_eq!(segments.len(), 3);
        for segment in &segments {
            assert_eq!(residue(segment), [0, 0]);
        }
        let length: usize = segments.iter().map(|it| it.len() - (start + 32)).sum();
        assert_eq!(length, large.len() - (start + 32));
    }
}

#[test]
fn headers_that_do_not_fit_their_packet_are_refused() {
    let good = packet("10.0.0.1", "10.0.0.2", 6, &tcp(1, 0x10, &payload(3000)));
    let refused =
        |header, bytes: &[u8]| Taken::from_kernel(header, &mut bytes.to_vec(), 0).unwrap_err();
    assert_eq!(refused(header(Gso::Udp, 20, 6, 1000), &good), OffloadError::Headers);
    assert_eq!(refused(header(Gso::TcpV4, 20, 16, 0), &good), OffloadError::Headers);
    let icmp = packet("10.0.0.1", "10.0.0.2", 1, &[0; 8]);
    for (start, offset) in [(28, 0), (27, 0), (20, 7), (20, u16::MAX), (usize::from(u16::MAX), 0)] {
        let error = refused(header(Gso::None, start, offset, 0), &icmp);
        assert_eq!(error, OffloadError::Checksum, "{start} {offset}");
    }
    let mut fragment = good.clone();
    fragment[6] = 0x20;
    assert_eq!(refused(header(Gso::TcpV4, 20, 16, 1000), &fragment), OffloadError::Headers);
    let mut header_len = good.clone();
    header_len[32] = 4 << 4;
    assert_eq!(refused(header(Gso::TcpV4, 20, 16, 1000), &header_len), OffloadError::Headers);
    assert!(matches!(refused(VirtioHeader::WHOLE, &good[..30]), OffloadError::Packet(_)));
}

fn any_header() -> impl Strategy<Value = VirtioHeader> {
    let gso = prop_oneof![Just(Gso::None), Just(Gso::TcpV4), Just(Gso::TcpV6), Just(Gso::Udp)];
    let place = prop::option::of((0_u16..100, 0_u16..30));
    (place, gso, any::<u16>(), prop_oneof![0_u16..2000, any::<u16>()]).prop_map(
        |(checksum, gso, headers_len, gso_size)| VirtioHeader {
            checksum,
            gso,
            headers_len,
            gso_size,
        },
    )
}

proptest! {
    #[test]
    fn segments_hold_the_payload_and_have_right_checksums(
        family in 0..2_usize,
        is_tcp in any::<bool>(),
        flags in any::<u8>(),
        len in 0..9000_usize,
        gso_size in 1..3000_u16,
    ) {
        let (src, dst, _) = ADDRESSES[family];
        let (kind, protocol, body) = if is_tcp {
            (SegmentKind::Tcp, 6, tcp(u32::MAX - 2000, flags, &payload(len)))
        } else {
            (SegmentKind::Udp, 17, udp(&payload(len)))
        };
        let large = packet(src, dst, protocol, &body);
        let cutter = Cutter::new(SegmentsHeader { kind, gso_size }, &large).unwrap();
        let headers = large.len() - len;
        let segments = cut(&cutter, &large);
        let mut joined = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            prop_assert_eq!(residue(segment), [0, 0]);
            let is_last = number + 1 == segments.len();
            prop_assert!(segment.len() <= cutter.longest());
            prop_assert!(is_last || segment.len() == headers + usize::from(gso_size));
            if family == 0 {
                let sum = Checksum::default().add(&segment[..20]).finish();
                prop_assert_eq!(sum, [0, 0], "of the IPv4 header");
            }
            joined.extend_from_slice(&segment[headers..]);
        }
        prop_assert_eq!(joined, payload(len));
        // One frame of packets holds them too, and they are told apart there.
        let total: usize = segments.iter().map(Vec::len).sum();
        let mut frame = FrameBuf::with_capacity(total);
        for number in 0..cutter.count() {
            cutter.add(&large, number, &mut frame).unwrap();
        }
        prop_assert!(cutter.add(&large, 0, &mut frame).is_err() || total == 0);
        if segments.len() <= crate::frame::MAX_PACKETS {
            let found: Vec<_> = packets(frame.plaintext()).map(|it| it.unwrap().as_bytes().to_vec()).collect();
            prop_assert_eq!(found, segments);
        }
    }

    /// Whatever comes by the wire: the header that the kernel gets points into the packet, and only there.
    #[test]
    fn what_is_handed_back_has_no_header_of_the_wire(
        bytes in any_packet(),
        kind in 0_u8..4,
        gso_size in any::<u16>(),
        long in 0..4000_usize,
        protocol in 0..3_usize,
    ) {
        let mut bytes = bytes;
        let is_v4 = bytes[0] >> 4 == 4;
        let at = if is_v4 { 9 } else { 6 };
        bytes[at] = [6, 17, bytes[at]][protocol];
        bytes.resize(bytes.len() + long, 0);
        let total = u16::try_from(if is_v4 { bytes.len() } else { bytes.len() - 40 }).unwrap();
        let place = if is_v4 { 2 } else { 4 };
        bytes[place..place + 2].copy_from_slice(&total.to_be_bytes());
        let [high, low] = gso_size.to_be_bytes();
        let mut plaintext = [&[kind, 0, high, low], bytes.as_slice()].concat();
        if let Ok((header, packet)) = hand_back(&mut plaintext) {
            let (start, offset) = header.checksum.unwrap();
            prop_assert!(usize::from(start) + usize::from(offset) + 2 <= packet.len());
            prop_assert_eq!(usize::from(start), if is_v4 { 20 } else { 40 });
            if header.gso == Gso::None {
                prop_assert_eq!((header.headers_len, header.gso_size), (0, 0));
            } else {
                prop_assert!(header.gso_size >= crate::frame::MIN_GSO_SIZE);
                let payload = packet.len() - usize::from(header.headers_len);
                prop_assert!(payload > usize::from(header.gso_size));
                prop_assert!(payload.div_ceil(usize::from(header.gso_size)) <= crate::frame::MAX_SEGMENTS);
            }
            prop_assert_eq!(Packet::parse(packet).unwrap().as_bytes().len(), bytes.len());
        }
    }

    #[test]
    fn arbitrary_headers_and_packets_never_panic(
        header in any_header(),
        bytes in any_packet(),
        noise in prop::collection::vec(any::<u8>(), 0..100),
        protocol in 0..3_usize,
    ) {
        for mut bytes in [bytes, noise] {
            if let Some(field) = bytes.get_mut(9) {
                *field = [6, 17, *field][protocol];
            }
            let before = bytes.len();
            if let Ok(Taken::Cut(cutter)) = Taken::from_kernel(header, &mut bytes, 60) {
                prop_assert!(cutter.count() <= 65_536);
                let mut frame = FrameBuf::with_capacity(cutter.longest());
                cutter.add(&bytes, cutter.count() - 1, &mut frame).unwrap();
                cutter.add(&bytes, cutter.count(), &mut frame).ok();
            }
            prop_assert_eq!(bytes.len(), before);
        }
    }

    #[test]
    fn arbitrary_virtio_headers_are_read_or_refused(bytes in any::<[u8; VIRTIO_HEADER_LEN]>()) {
        if let Some(header) = VirtioHeader::from_bytes(bytes) {
            prop_assert_eq!(VirtioHeader::from_bytes(header.to_bytes()), Some(header));
        }
    }
}
