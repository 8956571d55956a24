use proptest::prelude::*;

use super::*;
use crate::packet::checksum::Checksum;
use crate::packet::testing::packet;

/// A TCP header with options (which it fills up to whole words with the end of the list) and data.
fn tcp(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let words = 5 + options.len().div_ceil(4);
    let mut bytes = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
    bytes.extend([u8::try_from(words).unwrap() << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.resize(words * 4, 0);
    bytes.extend(data);
    bytes
}

/// The segment in a packet of either version, in IPv6 behind some extension headers, with the
/// checksum as a sender sums it from scratch. And where the segment begins.
fn summed(v6: bool, extensions: usize, mut segment: Vec<u8>) -> (Vec<u8>, usize) {
    let (src, dst) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    let len = u32::try_from(segment.len()).unwrap();
    segment[CHECKSUM..CHECKSUM + 2].fill(0);
    let pseudo = Checksum::default().add_addr(src.parse().unwrap()).add_addr(dst.parse().unwrap());
    let sum = pseudo.add_u32(len).add_u32(6).add(&segment).finish();
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum);
    if !v6 {
        return (packet(src, dst, TCP, &segment), 20);
    }
    // Destination options, each with six bytes of padding.
    let mut payload = Vec::new();
    for left in (0..extensions).rev() {
        payload.extend([if left == 0 { TCP } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    payload.extend(segment);
    let first = if extensions == 0 { TCP } else { 60 };
    (packet(src, dst, first, &payload), 40 + 8 * extensions)
}

/// A SYN with one MSS option after some no operations.
fn syn(v6: bool, before: usize, mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    let options = [&vec![NO_OPERATION; before][..], &[MSS, 4, high, low]].concat();
    summed(v6, 0, tcp(SYN, &options, b"")).0
}

fn clamped(bytes: &[u8], mtu: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    clamp_mss(&mut bytes, mtu, false);
    bytes
}

#[test]
fn a_syn_announces_no_more_than_fits() {
    assert_eq!(clamped(&syn(false, 0, 1460), 1280), syn(false, 0, 1240));
    assert_eq!(clamped(&syn(true, 0, 1440), 1280), syn(true, 0, 1220));
    // At an odd offset too.
    assert_eq!(clamped(&syn(false, 1, 1460), 1280), syn(false, 1, 1240));
    assert_eq!(clamped(&syn(true, 3, 65535), 1280), syn(true, 3, 1220));
}

#[test]
fn nothing_is_raised() {
    for mss in [0, 536, 1239, 1240] {
        assert_eq!(clamped(&syn(false, 0, mss), 1280), syn(false, 0, mss));
    }
    assert_eq!(clamped(&syn(true, 0, 65535), 1 << 20), syn(true, 0, 65535));
    // No room for data: that is for another to say.
    for mtu in 0..=60 {
        assert_eq!(clamped(&syn(true, 0, 1440), mtu), syn(true, 0, 1440));
    }
    assert_eq!(clamped(&syn(false, 0, 1440), 41), syn(false, 0, 1));
}

#[test]
fn only_whole_well_formed_syns_are_changed() {
    let option = [MSS, 4, 0xff, 0xff];
    let changed = |bytes: &[u8]| clamped(bytes, 1280) != bytes;
    let with = |flags, options: &[u8]| summed(false, 0, tcp(flags, options, b"")).0;
    assert!(changed(&with(SYN, &option)) && changed(&with(SYN | 0x10, &option)));
    for flags in [0, 0x10, 0x18, 0x04, 0x01] {
        assert!(!changed(&with(flags, &option)), "flags {flags:#x}");
    }
    // No option; one after the end; in the data; of another length; after or before one that is malformed.
    assert!(!changed(&with(SYN, &[])));
    assert!(!changed(&with(SYN, &[END, MSS, 4, 0xff, 0xff])));
    assert!(!changed(&summed(false, 0, tcp(SYN, &[], &option)).0));
    assert!(!changed(&with(SYN, &[MSS, 3, 0xff, 0xff])));
    assert!(!changed(&with(SYN, &[MSS, 6, 0xff, 0xff, 0xff, 0xff])));
    assert!(!changed(&with(SYN, &[3, 0, MSS, 4, 0xff, 0xff])));
    assert!(!changed(&with(SYN, &[MSS, 4, 0xff, 0xff, 3, 1, 0, 0])));
    assert!(!changed(&with(SYN, &[MSS, 4, 0xff, 0xff, 3, 5, 0, 0])));
    assert!(!changed(&with(SYN, &[1, 1, MSS, 4])));
    // Two of them.
    let twice = with(SYN, &[option, option].concat());
    assert_eq!(clamped(&twice, 1280), with(SYN, &[[MSS, 4, 0x04, 0xd8]; 2].concat()));

    let whole = syn(false, 0, 1460);
    let edit = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    for offset in [0x00, 0x40, 0x70, 0xf0] {
        assert!(!changed(&edit(20 + DATA_OFFSET, offset)), "data offset {offset:#x}");
    }
    assert!(!changed(&edit(6, 0x20)), "first fragment");
    assert!(!changed(&edit(7, 1)), "later fragment");
    assert!(!changed(&edit(9, 17)), "UDP");
    for len in 0..whole.len() {
        assert!(!changed(&whole[..len]));
    }
    assert!(!changed(&[&whole[..], &[0]].concat()));
    let mut fragment = vec![TCP, 0, 0, 1, 0, 0, 0, 9];
    fragment.extend(tcp(SYN, &option, b""));
    assert!(!changed(&packet("fd00::1", "fd00::2", 44, &fragment)));
}

/// Lists of well-formed options, at most 40 bytes; an MSS at any alignment, or none.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![NO_OPERATION]),
        any::<[u8; 2]>().prop_map(|mss| vec![MSS, 4, mss[0], mss[1]]),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        Just(vec![4, 2]),
        any::<[u8; 8]>().prop_map(|times| [&[8, 10][..], &times].concat()),
    ];
    prop::collection::vec(option, 0..10).prop_map(|options| {
        let mut bytes: Vec<u8> = Vec::new();
        for option in options {
            if bytes.len() + option.len() <= 40 {
                bytes.extend(option);
            }
        }
        bytes
    })
}

/// The same by definition, of a list of well-formed options.
fn lowered(options: &[u8], limit: usize) -> Vec<u8> {
    let (mut rest, mut out) = (options.to_vec(), Vec::new());
    while !rest.is_empty() {
        let len = if rest[0] == NO_OPERATION { 1 } else { usize::from(rest[1]) };
        let mut option: Vec<u8> = rest.drain(..len).collect();
        if option[0] == MSS {
            let mss = usize::from(option[2]) << 8 | usize::from(option[3]);
            let [.., high, low] = mss.min(limit).to_be_bytes();
            option[2..].copy_from_slice(&[high, low]);
        }
        out.extend(option);
    }
    out
}

proptest! {
    #[test]
    fn the_checksum_is_as_summed_from_scratch(
        options in options(),
        data in prop::collection::vec(any::<u8>(), 0..20),
        ack in any::<bool>(),
        v6 in any::<bool>(),
        extensions in 0_usize..4,
        mtu in 61_usize..70_000,
    ) {
        let flags = if ack { SYN | 0x10 } else { SYN };
        let limit = mtu - 20 - if v6 { 40 } else { 20 };
        let (before, start) = summed(v6, extensions, tcp(flags, &options, &data));
        let (after, _) = summed(v6, extensions, tcp(flags, &lowered(&options, limit), &data));
        prop_assert_eq!(&clamped(&before, mtu), &after);
        // Once is enough.
        prop_assert_eq!(&clamped(&after, mtu), &after);

        // The sum of the pseudo header stays, whatever it is.
        let (mut partial, mut expected) = (before.clone(), after.clone());
        for bytes in [&mut partial, &mut expected] {
            bytes[start + CHECKSUM..][..2].copy_from_slice(&[0x12, 0x34]);
        }
        clamp_mss(&mut partial, mtu, true);
        prop_assert_eq!(partial, expected);

        // A wrong checksum does not become right.
        let mut wrong = before;
        wrong[start + CHECKSUM] ^= 0x55;
        clamp_mss(&mut wrong, mtu, false);
        prop_assert_ne!(wrong, after);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        v6 in any::<bool>(),
        offset in 5_u8..=15,
        mtu in any::<usize>(),
    ) {
        clamp_mss(&mut bytes.clone(), mtu, false);
        let mut segment = [&bytes[..], &[0; 20]].concat();
        segment[DATA_OFFSET] = offset << 4;
        segment[FLAGS] |= SYN;
        let (before, start) = summed(v6, 0, segment);
        let mut after = before.clone();
        clamp_mss(&mut after, mtu, false);
        // Never outside the options and the checksum.
        let end = start + usize::from(offset) * 4;
        for (at, (old, new)) in before.iter().zip(&after).enumerate() {
            let may = (start + 20..end).contains(&at)
                || (start + CHECKSUM..start + CHECKSUM + 2).contains(&at);
            prop_assert!(old == new || may, "byte {at}");
        }
    }
}
