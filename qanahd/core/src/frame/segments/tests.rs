use proptest::prelude::*;

use super::*;
use crate::packet::testing::{any_packet, packet};

fn tcp(payload: usize) -> Vec<u8> {
    let mut header = vec![0; 24];
    header[12] = 6 << 4;
    header.resize(24 + payload, 7);
    header
}

fn udp(payload: usize) -> Vec<u8> {
    let mut datagram = vec![0, 1, 0, 2];
    datagram.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + payload, 7);
    datagram
}

fn frame(kind: SegmentKind, gso_size: u16, packet: &[u8]) -> Vec<u8> {
    [&SegmentsHeader { kind, gso_size }.to_bytes(), packet].concat()
}

fn refused(plaintext: &[u8]) -> SegmentsError {
    Segments::parse(plaintext).unwrap_err()
}

#[test]
fn reads_tcp_and_udp_of_both_families() {
    for (src, dst, ip_header_len) in [("10.0.0.1", "10.0.0.2", 20), ("fd00::1", "fd00::2", 40)] {
        let large = packet(src, dst, 6, &tcp(3000));
        let plaintext = frame(SegmentKind::Tcp, 1400, &large);
        assert_eq!(plaintext[..4], [1, 0, 0x05, 0x78]);
        let view = Segments::parse(&plaintext).unwrap();
        assert_eq!(view.packet().as_bytes(), large);
        assert_eq!((view.kind(), view.gso_size()), (SegmentKind::Tcp, 1400));
        assert_eq!(view.ip_header_len(), ip_header_len);
        assert_eq!(view.headers_len(), ip_header_len + 24);
        assert_eq!((view.payload_len(), view.count()), (3000, 3));

        let large = packet(src, dst, 17, &udp(2800));
        let plaintext = frame(SegmentKind::Udp, 1400, &large);
        assert_eq!(plaintext[..4], [2, 0, 0x05, 0x78]);
        let view = Segments::parse(&plaintext).unwrap();
        assert_eq!(view.headers_len(), ip_header_len + 8);
        assert_eq!((view.payload_len(), view.count()), (2800, 2));
    }
}

#[test]
fn one_segment_lacks_only_its_checksum() {
    let ack = packet("10.0.0.1", "10.0.0.2", 6, &tcp(0));
    let plaintext = frame(SegmentKind::Tcp, 1400, &ack);
    let view = Segments::parse(&plaintext).unwrap();
    assert_eq!((view.payload_len(), view.count()), (0, 1));
}

#[test]
fn its_own_header_is_checked() {
    let large = packet("10.0.0.1", "10.0.0.2", 6, &tcp(3000));
    let good = frame(SegmentKind::Tcp, 1400, &large);
    let edit = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        refused(&bytes)
    };
    assert_eq!(edit(0, 0), SegmentsError::Kind(0));
    assert_eq!(edit(0, 3), SegmentsError::Kind(3));
    assert_eq!(edit(0, 2), SegmentsError::Protocol(6));
    assert_eq!(edit(1, 1), SegmentsError::Reserved);
    assert_eq!(edit(2, 0), SegmentsError::GsoSize(0x78));
    assert_eq!(refused(&frame(SegmentKind::Tcp, 535, &large)), SegmentsError::GsoSize(535));
    assert!(Segments::parse(&frame(SegmentKind::Tcp, 536, &large)).is_ok());
    assert_eq!(refused(&[]), SegmentsError::Truncated);
    assert_eq!(refused(&good[..3]), SegmentsError::Truncated);
    assert_eq!(refused(&good[..4]), SegmentsError::Packet(PacketError::Empty));
}

#[test]
fn exactly_one_packet_of_at_most_65535_bytes() {
    let large = packet("10.0.0.1", "10.0.0.2", 6, &tcp(3000));
    let two = frame(SegmentKind::Tcp, 1400, &large.repeat(2));
    assert_eq!(refused(&two), SegmentsError::Packet(PacketError::Trailing(large.len())));
    let cut = frame(SegmentKind::Tcp, 1400, &large[..100]);
    assert_eq!(refused(&cut), SegmentsError::Packet(PacketError::Truncated));

    let most = packet("fd00::1", "fd00::2", 6, &tcp(65_535 - 40 - 24));
    assert!(Segments::parse(&frame(SegmentKind::Tcp, 1400, &most)).is_ok());
    let over = packet("fd00::1", "fd00::2", 6, &tcp(65_536 - 40 - 24));
    assert_eq!(refused(&frame(SegmentKind::Tcp, 1400, &over)), SegmentsError::TooLarge(65_536));
}

#[test]
fn the_largest_packet_in_the_smallest_segments_keeps_the_limit() {
    let full = packet("10.0.0.1", "10.0.0.2", 17, &udp(65_535 - 28));
    let plaintext = frame(SegmentKind::Udp, MIN_GSO_SIZE, &full);
    assert_eq!(Segments::parse(&plaintext).unwrap().count(), 123);
}

#[test]
fn fragments_options_and_other_protocols_are_refused() {
    let mut fragment = packet("10.0.0.1", "10.0.0.2", 6, &tcp(3000));
    fragment[6] = 0x20;
    assert_eq!(refused(&frame(SegmentKind::Tcp, 1400, &fragment)), SegmentsError::Fragment);
    let icmp = packet("10.0.0.1", "10.0.0.2", 1, &[8; 64]);
    assert_eq!(refused(&frame(SegmentKind::Tcp, 1400, &icmp)), SegmentsError::Protocol(1));
    let options = [[6, 0, 1, 4, 0, 0, 0, 0].as_slice(), &tcp(3000)].concat();
    let options = packet("fd00::1", "fd00::2", 60, &options);
    assert_eq!(refused(&frame(SegmentKind::Tcp, 1400, &options)), SegmentsError::Options);
    let mut options = packet("10.0.0.1", "10.0.0.2", 6, &[[0; 4].as_slice(), &tcp(3000)].concat());
    options[0] = 0x46;
    assert_eq!(refused(&frame(SegmentKind::Tcp, 1400, &options)), SegmentsError::Options);
}

#[test]
fn transport_headers_are_checked() {
    let tcp_with = |at: usize, value: u8, len: usize| {
        let mut header = tcp(3000);
        header[at] = value;
        refused(&frame(SegmentKind::Tcp, 1400, &packet("fd00::1", "fd00::2", 6, &header[..len])))
    };
    assert_eq!(tcp_with(12, 4 << 4, 3024), SegmentsError::Transport);
    assert_eq!(tcp_with(12, 15 << 4, 59), SegmentsError::Transport);
    assert_eq!(tcp_with(12, 5 << 4, 19), SegmentsError::Transport);
    assert_eq!(tcp_with(16, 1, 3024), SegmentsError::Checksum);
    assert_eq!(tcp_with(17, 1, 3024), SegmentsError::Checksum);

    let udp_with = |at: usize, value: u8, len: usize| {
        let mut header = udp(3000);
        header[at] = value;
        refused(&frame(SegmentKind::Udp, 1400, &packet("fd00::1", "fd00::2", 17, &header[..len])))
    };
    assert_eq!(udp_with(5, 0, 3008), SegmentsError::Transport);
    assert_eq!(udp_with(4, 0, 7), SegmentsError::Transport);
    assert_eq!(udp_with(6, 1, 3008), SegmentsError::Checksum);
    assert_eq!(udp_with(7, 1, 3008), SegmentsError::Checksum);
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(kind in 0_u8..4, gso_size in any::<u16>(), bytes in any_packet(), protocol in 0_usize..3) {
        let mut bytes = bytes;
        let at = if bytes[0] >> 4 == 4 { 9 } else { 6 };
        bytes[at] = [6, 17, bytes[at]][protocol];
        let [high, low] = gso_size.to_be_bytes();
        let plaintext = [&[kind, 0, high, low], bytes.as_slice()].concat();
        if let Ok(view) = Segments::parse(&plaintext) {
            prop_assert!(view.headers_len() <= view.packet().as_bytes().len());
            prop_assert!(view.count() <= MAX_SEGMENTS);
            prop_assert!(view.gso_size() >= MIN_GSO_SIZE);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Segments::parse(&bytes);
    }

    #[test]
    fn any_edit_of_a_good_frame_is_read_or_refused(at in 0_usize..68, value in any::<u8>()) {
        let mut plaintext = frame(SegmentKind::Tcp, 1400, &packet("fd00::1", "fd00::2", 6, &tcp(3000)));
        plaintext[at] = value;
        if let Ok(view) = Segments::parse(&plaintext) {
            prop_assert_eq!(view.headers_len() + view.payload_len(), plaintext.len() - 4);
        }
    }
}
