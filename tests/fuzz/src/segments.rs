//! Frames of segments: what a peer sends, and what the kernel is told of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qanah_core::frame::{MIN_GSO_SIZE, SEGMENTS_HEADER_LEN, SegmentKind, Segments};
use qanah_core::offload::{Gso, Taken, VIRTIO_HEADER_LEN, VirtioHeader, hand_back};

fuzz_target!(|data: &[u8]| {
    handed_back(data);
    taken(data);
});

/// What is handed to the kernel fits the packet, whatever the frame said.
fn handed_back(data: &[u8]) {
    let mut plaintext = data.to_vec();
    let is_good = Segments::parse(data).is_ok();
    let Ok((header, packet)) = hand_back(&mut plaintext) else {
        assert!(!is_good, "what is a frame of segments can be handed back");
        return;
    };
    assert!(is_good);
    let view = Segments::parse(data).expect("it was good before");
    let len = packet.len();
    assert_eq!(len, data.len() - SEGMENTS_HEADER_LEN);
    let (start, offset) = header.checksum.expect("the checksum is always missing");
    let (start, offset) = (usize::from(start), usize::from(offset));
    assert_eq!((start, offset), (view.ip_header_len(), view.kind().checksum_offset()));
    assert!(start + offset + 2 <= len);
    match header.gso {
        Gso::None => {
            assert_eq!(view.count(), 1);
            assert_eq!((header.gso_size, header.headers_len), (0, 0));
        }
        gso => {
            assert_eq!(gso == Gso::Udp, view.kind() == SegmentKind::Udp);
            assert!(header.gso_size >= MIN_GSO_SIZE);
            assert!(usize::from(header.headers_len) < len);
            assert!((2..=128).contains(&view.count()));
        }
    }
    // All but the checksum is as it came.
    let at = start + offset;
    let came = &data[SEGMENTS_HEADER_LEN..];
    assert_eq!((&packet[..at], &packet[at + 2..]), (&came[..at], &came[at + 2..]));
}

/// What a kernel says of a packet is never believed blindly, and what travels can be handed back.
fn taken(data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk::<VIRTIO_HEADER_LEN>() else { return };
    let Some(header) = VirtioHeader::from_bytes(*header) else { return };
    let mut packet = packet.to_vec();
    if let Ok(Taken::Segments(segments)) = Taken::from_kernel(header, &mut packet, 0) {
        let mut plaintext = [&segments.to_bytes()[..], &packet].concat();
        hand_back(&mut plaintext).expect("what travels can be handed back");
    }
}
