use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use proptest::prelude::*;

use super::*;

const INDEX: u32 = 0x0102_0304;

fn key(byte: u8) -> CarrierKey {
    CarrierKey::from_bytes([byte; 32])
}

fn pair() -> (Sealer, Opener) {
    (Sealer::new(key(7), INDEX), Opener::new(key(7), INDEX))
}

fn buf(plaintext: &[u8]) -> FrameBuf {
    let mut buf = FrameBuf::with_capacity(plaintext.len());
    buf.push(plaintext).unwrap();
    buf
}

/// The same frame made with the other implementation.
fn reference(key: [u8; 32], kind: u8, counter: u64, plaintext: &[u8]) -> Vec<u8> {
    let mut header = vec![kind, 0, 0, 0];
    header.extend(INDEX.to_be_bytes());
    header.extend(counter.to_be_bytes());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let payload = Payload { msg: plaintext, aad: &header };
    let sealed =
        ChaCha20Poly1305::new(&key.into()).encrypt(Nonce::from_slice(&nonce), payload).unwrap();
    [header, sealed].concat()
}

#[test]
fn frames_round_trip_and_count_from_zero() {
    let (mut sealer, mut opener) = pair();
    for counter in 0..100 {
        assert_eq!(sealer.sealed(), counter);
        let mut frame = sealer.seal(FrameType::Control, buf(b"hello")).unwrap();
        assert_eq!(frame.len(), 5 + HEADER_LEN + TAG_LEN);
        let opened = opener.open(&mut frame).unwrap();
        assert_eq!(opened.kind, Ok(FrameType::Control));
        assert_eq!(opened.plaintext, b"hello");
        assert_eq!(opened.counter, counter);
    }
}

#[test]
fn sealing_copies_nothing() {
    let mut buf = FrameBuf::with_capacity(1400);
    let room = buf.room_mut();
    let start = room.as_ptr();
    buf.advance(1400).unwrap();
    let (mut sealer, _) = pair();
    let frame = sealer.seal(FrameType::Packets, buf).unwrap();
    assert_eq!(frame[HEADER_LEN..].as_ptr(), start);
    assert_eq!(frame.len(), 1432);
}

#[test]
fn a_replayed_frame_is_refused() {
    let (mut sealer, mut opener) = pair();
    let frame = sealer.seal(FrameType::Packets, buf(b"once")).unwrap();
    assert!(opener.open(&mut frame.clone()).is_ok());
    assert_eq!(opener.open(&mut frame.clone()), Err(ReplayError::Seen.into()));
}

#[test]
fn frames_open_in_any_order_within_the_window() {
    let (mut sealer, mut opener) = pair();
    let mut frames: Vec<_> = (0..=crate::replay::WINDOW)
        .map(|_| sealer.seal(FrameType::Packets, buf(b"x")).unwrap())
        .collect();
    let oldest = frames.remove(0);
    frames.reverse();
    assert!(frames.iter_mut().all(|frame| opener.open(frame).is_ok()));
    assert_eq!(opener.open(&mut oldest.clone()), Err(ReplayError::TooOld.into()));
}

#[test]
fn a_forged_frame_does_not_move_the_window() {
    let (mut sealer, mut opener) = pair();
    let mut honest = sealer.seal(FrameType::Packets, buf(b"honest")).unwrap();
    let mut forged = honest.clone();
    forged[8..16].copy_from_slice(&(FRAME_LIMIT - 1).to_be_bytes());
    assert_eq!(opener.open(&mut forged), Err(OpenError::Forged));
    assert!(opener.open(&mut honest).is_ok());
}

#[test]
fn other_keys_and_receivers_are_refused() {
    let (mut sealer, mut opener) = pair();
    let frame = sealer.seal(FrameType::Packets, buf(b"mine")).unwrap();
    let mut other = Opener::new(key(8), INDEX);
    assert_eq!(other.open(&mut frame.clone()), Err(OpenError::Forged));
    let mut other = Opener::new(key(7), 9);
    assert_eq!(other.open(&mut frame.clone()), Err(OpenError::Index(INDEX)));
    assert_eq!(other.index(), 9);
    let empty = FrameError::TooShort(0);
    assert_eq!(opener.open(&mut []), Err(empty.into()));
}

#[test]
fn a_key_ends_at_its_limit() {
    let (mut sealer, mut opener) = pair();
    sealer.next = FRAME_LIMIT - 1;
    let mut last = sealer.seal(FrameType::Packets, buf(b"last")).unwrap();
    assert_eq!(opener.open(&mut last).unwrap().counter, FRAME_LIMIT - 1);
    for _ in 0..3 {
        let refused = sealer.seal(FrameType::Packets, buf(b"more"));
        assert_eq!(refused, Err(SealError::Exhausted));
    }
    assert_eq!(sealer.sealed(), FRAME_LIMIT);
    // Authentic, but by nobody who follows the rules.
    let mut beyond = reference([7; 32], 0xc1, FRAME_LIMIT, b"beyond");
    assert_eq!(opener.open(&mut beyond), Err(OpenError::Limit));
}

#[test]
fn an_authentic_frame_of_unknown_type_is_told_apart() {
    let (_, mut opener) = pair();
    let mut frame = reference([7; 32], 0xcf, 0, b"of the future");
    let opened = opener.open(&mut frame).unwrap();
    assert_eq!(opened.kind, Err(UnknownFrameType(0xcf)));
}

#[test]
fn reserved_bytes_are_zero_even_if_authentic() {
    let (mut sealer, mut opener) = pair();
    let mut frame = sealer.seal(FrameType::Packets, buf(b"x")).unwrap();
    frame[2] = 1;
    assert_eq!(opener.open(&mut frame), Err(FrameError::Reserved.into()));
}

#[test]
fn keys_do_not_show_in_debug_output() {
    let shown = format!("{:?} {:?} {:?}", key(7), pair().0, pair().1);
    assert!(!shown.contains("7, 7") && shown.matches("redacted").count() == 3);
}

#[test]
fn every_altered_byte_is_noticed() {
    let (mut sealer, mut opener) = pair();
    let frame = sealer.seal(FrameType::Packets, buf(&[5; 100])).unwrap();
    for at in 0..frame.len() {
        for bit in 0..8 {
            let mut altered = frame.clone();
            altered[at] ^= 1 << bit;
            assert!(opener.open(&mut altered).is_err(), "byte {at} bit {bit}");
        }
    }
    for len in 0..frame.len() {
        assert!(opener.open(&mut frame.clone()[..len]).is_err(), "cut to {len}");
    }
    let mut longer = frame.clone();
    longer.extend_from_slice(&[0]);
    assert!(opener.open(&mut longer).is_err());
    assert!(opener.open(&mut frame.clone()).is_ok());
}

proptest! {
    #[test]
    fn both_implementations_make_the_same_bytes(
        secret in any::<[u8; 32]>(),
        counter in 0..FRAME_LIMIT,
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let expected = reference(secret, 0xc1, counter, &plaintext);
        let mut sealer = Sealer::new(CarrierKey::from_bytes(secret), INDEX);
        sealer.next = counter;
        let frame = sealer.seal(FrameType::Packets, buf(&plaintext)).unwrap();
        prop_assert_eq!(&frame[..], expected.as_slice());
        let mut opener = Opener::new(CarrierKey::from_bytes(secret), INDEX);
        let mut frame = expected;
        prop_assert_eq!(&*opener.open(&mut frame).unwrap().plaintext, plaintext.as_slice());
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), ours in any::<bool>()) {
        let mut bytes = bytes;
        // Half of the cases get as far as the cipher.
        if ours && bytes.len() >= 16 {
            bytes[..4].copy_from_slice(&[0xc1, 0, 0, 0]);
            bytes[4..8].copy_from_slice(&INDEX.to_be_bytes());
            bytes[8] = 0;
        }
        let (_, mut opener) = pair();
        prop_assert!(opener.open(&mut bytes).is_err());
    }
}
