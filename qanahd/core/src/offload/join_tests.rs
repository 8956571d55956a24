use proptest::prelude::*;

use super::tests::{ADDRESSES, cut, payload, residue, tcp, udp};
use super::*;
use crate::frame::{SegmentKind, Segments, SegmentsHeader};
use crate::packet::testing::{any_packet, packet};
use crate::packet::{Packet, Version};

/// A large packet cut up as its sender's kernel would have done it, never to be fragmented.
fn parts(at: usize, kind: SegmentKind, flags: u8, len: usize, gso_size: u16) -> Vec<Vec<u8>> {
    let (src, dst, start) = ADDRESSES[at];
    let body = match kind {
        SegmentKind::Tcp => tcp(u32::MAX - 3000, flags, &payload(len)),
        SegmentKind::Udp => udp(&payload(len)),
    };
    let mut large = packet(src, dst, kind.protocol(), &body);
    if start == 20 {
        large[6] = 0x40;
    }
    cut(&Cutter::new(SegmentsHeader { kind, gso_size }, &large).unwrap(), &large)
}

/// One packet as it was, or the plaintext of a frame of segments and how many it stands for.
type Found = Result<Vec<u8>, (Vec<u8>, usize)>;

/// What packets become that come one after the other.
fn join(packets: &[Vec<u8>]) -> Vec<Found> {
    let mut joiner = Joiner::default();
    let mut found = Vec::new();
    let mut take = |joiner: &mut Joiner| match joiner.finish() {
        Joined::Nothing => {}
        Joined::One(packet) => found.push(Ok(packet.to_vec())),
        Joined::Many(plaintext, count) => found.push(Err((plaintext.to_vec(), count))),
    };
    for bytes in packets {
        let packet = Packet::parse(bytes).unwrap();
        if !joiner.add(&packet) {
            take(&mut joiner);
            assert!(joiner.add(&packet), "the first one always does");
        }
    }
    take(&mut joiner);
    found
}

/// Cuts the plaintext of a frame of segments up again.
fn cut_again(plaintext: &[u8]) -> Vec<Vec<u8>> {
    let view = Segments::parse(plaintext).expect("it may be handed back");
    cut(&Cutter::of(&view), view.packet().as_bytes())
}

#[test]
fn what_was_cut_up_is_joined_and_cut_up_the_same() {
    for at in 0..2 {
        for kind in [SegmentKind::Tcp, SegmentKind::Udp] {
            for len in [1200, 1201, 6000, 60_000] {
                let packets = parts(at, kind, 0x18, len, 1200);
                let joined = join(&packets);
                if packets.len() == 1 || len == 1201 {
                    // The last one is too short to be worth it.
                    assert_eq!(joined.len(), packets.len());
                    assert!(joined.iter().zip(&packets).all(|(a, b)| a.as_ref() == Ok(b)));
                    continue;
                }
                let [Err((plaintext, count))] = joined.as_slice() else { panic!("{joined:?}") };
                assert_eq!(*count, packets.len());
                assert_eq!(cut_again(plaintext), packets, "{kind:?} {len}");
                let mut plaintext = plaintext.clone();
                hand_back(&mut plaintext).expect("a kernel takes it");
            }
        }
    }
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    for (at, (_, _, start)) in ADDRESSES.into_iter().enumerate() {
        for kind in [SegmentKind::Tcp, SegmentKind::Udp] {
            let good = parts(at, kind, 0x10, 2400, 1200);
            assert!(join(&good)[0].is_err(), "joined");
            let version = if start == 20 { Version::V4 } else { Version::V6 };
            // Source address, port, and what is left to look at in each of them; then the payload alone.
            let mut places = vec![start - 1, start + 1, start + 3];
            match version {
                Version::V4 => places.extend([1, 8]),
                Version::V6 => places.extend([3, 7]),
            }
            if kind == SegmentKind::Tcp {
                // Sequence, acknowledgement, flags, window, urgent pointer, options.
                places.extend([7, 11, 13, 15, 19, 25].map(|at| start + at));
            }
            places.push(good[1].len() - 1);
            for place in places {
                let mut other = good.clone();
                other[1][place] ^= 2;
                // Right again but for the payload, whose checksum stays wrong.
                if place < good[1].len() - 1 {
                    right(&mut other[1], kind, start);
                }
                let joined = join(&other);
                assert_eq!(joined, [Ok(other[0].clone()), Ok(other[1].clone())], "{place}");
            }
        }
    }
}

/// Gives a packet the right checksum.
fn right(packet: &mut [u8], kind: SegmentKind, start: usize) {
    let at = start + kind.checksum_offset();
    packet[at..at + 2].fill(0);
    let sum = residue(packet);
    packet[at..at + 2].copy_from_slice(&sum);
}

#[test]
fn an_end_ends_it() {
    // A push or a shorter one in the middle: what follows begins anew.
    let one = parts(0, SegmentKind::Tcp, 0x18, 2400, 1200);
    let mut two = parts(0, SegmentKind::Tcp, 0x10, 4800, 1200);
    two.drain(..2);
    let all = [one, two].concat();
    let joined = join(&all);
    assert_eq!(joined.len(), 2);
    let again: Vec<_> =
        joined.iter().flat_map(|it| cut_again(&it.as_ref().unwrap_err().0)).collect();
    assert_eq!(again, all);

    let short = parts(1, SegmentKind::Udp, 0, 1800, 1200);
    let all = [short.clone(), short].concat();
    assert_eq!(join(&all).iter().map(|it| it.as_ref().unwrap_err().1).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_packet_without_a_checksum_or_that_may_be_cut_up_on_the_way_stays_alone() {
    let mut packets = parts(0, SegmentKind::Udp, 0, 2400, 1200);
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(join(&packets).len(), 2);
    let mut packets = parts(0, SegmentKind::Tcp, 0x10, 2400, 1200);
    for packet in &mut packets {
        packet[6] = 0;
    }
    assert_eq!(join(&packets).len(), 2);
}

proptest! {
    #[test]
    fn nothing_is_lost_or_changed(
        pieces in prop::collection::vec(
            prop_oneof![
                (0_usize..2, any::<bool>(), 0_u8..32, 0_usize..9000, 500_u16..1500).prop_map(
                    |(at, is_tcp, flags, len, size)| {
                        let kind = if is_tcp { SegmentKind::Tcp } else { SegmentKind::Udp };
                        parts(at, kind, flags, len, size)
                    },
                ),
                any_packet().prop_map(|packet| vec![packet]),
            ],
            0..8,
        ),
    ) {
        let packets: Vec<Vec<u8>> = pieces.concat();
        let again: Vec<Vec<u8>> = join(&packets)
            .into_iter()
            .flat_map(|joined| match joined {
                Ok(packet) => vec![packet],
                Err((plaintext, _)) => cut_again(&plaintext),
            })
            .collect();
        prop_assert_eq!(again.len(), packets.len());
        for (again, packet) in again.iter().zip(&packets) {
            let (mut again, mut packet) = (again.clone(), packet.clone());
            if again[0] >> 4 == 4 && again.len() >= 20 {
                // The identification, and the checksum over it.
                for bytes in [&mut again, &mut packet] {
                    bytes[4..6].fill(0);
                    bytes[10..12].fill(0);
                }
            }
            prop_assert_eq!(again, packet);
        }
    }
}
