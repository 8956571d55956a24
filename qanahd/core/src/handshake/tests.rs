mod vectors;

use std::collections::HashSet;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::signal::samples::{description, rtc};
use crate::signal::{Bye, Candidates, IceCredentials, RtcDescription};

const SESSION: SessionId = SessionId([7; 16]);

struct Party {
    me: SecretKey,
    peer: PublicKey,
    psk: PresharedKey,
}

impl Party {
    fn identity(&self) -> Identity<'_> {
        Identity { me: &self.me, peer: &self.peer, psk: &self.psk }
    }

    fn start(&self) -> (Initiator, Vec<u8>) {
        Initiator::start(self.identity(), Mode::Broker, SESSION, &description()).unwrap()
    }

    fn read(&self, noise1: &[u8]) -> Result<(Responder, Description), HandshakeError> {
        Responder::read(self.identity(), Mode::Broker, SESSION, noise1)
    }
}

/// The initiator's party and the responder's.
fn parties() -> (Party, Party) {
    let (a, b) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
    let party = |me: &SecretKey, peer: &SecretKey| Party {
        me: me.clone(),
        peer: peer.public_key(),
        psk: PresharedKey::from_bytes([5; 32]),
    };
    (party(&a, &b), party(&b, &a))
}

fn answer() -> Description {
    let rtc = RtcDescription { role: DtlsRole::Active, ..rtc() };
    Description { rtc: Some(rtc), index: 0x0a0b_0c0d, ..description() }
}

/// Whole handshakes: (initiator's keys, responder's keys).
fn connect(a: &Party, b: &Party) -> (SessionKeys, SessionKeys) {
    let (mut initiator, noise1) = a.start();
    let (responder, _) = b.read(&noise1).unwrap();
    let (keys_b, noise2) = responder.finish(&answer()).unwrap();
    let (keys_a, _) = initiator.finish(&noise2).unwrap();
    (keys_a, keys_b)
}

#[test]
fn descriptions_arrive_and_keys_agree() {
    let (a, b) = parties();
    let (mut initiator, noise1) = a.start();
    let (responder, offered) = b.read(&noise1).unwrap();
    assert_eq!(offered, description());
    let (mut keys_b, noise2) = responder.finish(&answer()).unwrap();
    let (mut keys_a, answered) = initiator.finish(&noise2).unwrap();
    assert_eq!(answered, answer());

    let mut seen = HashSet::new();
    let pairs = [
        (keys_a.take_channel().unwrap(), keys_b.take_channel().unwrap()),
        (keys_a.take_datagram().unwrap(), keys_b.take_datagram().unwrap()),
    ];
    for (at_a, at_b) in pairs {
        assert_eq!(*at_a.send, *at_b.recv);
        assert_eq!(*at_a.recv, *at_b.send);
        seen.extend([*at_a.send, *at_a.recv]);
    }
    assert_eq!(seen.len(), 4, "one key for each direction and carrier");
    assert!(keys_a.take_channel().is_none() && keys_a.take_datagram().is_none());
}

#[test]
fn macs_prove_one_purpose_in_one_direction() {
    let (a, b) = parties();
    let (keys_a, keys_b) = connect(&a, &b);
    let mac = keys_a.mac(MacPurpose::Bye, b"data");
    assert!(keys_b.verify(MacPurpose::Bye, b"data", &mac));
    assert!(!keys_b.verify(MacPurpose::Bye, b"datb", &mac));
    assert!(!keys_b.verify(MacPurpose::Restart, b"data", &mac));
    assert!(!keys_a.verify(MacPurpose::Bye, b"data", &mac), "reflected");
    let (_, others) = connect(&a, &b);
    assert!(!others.verify(MacPurpose::Bye, b"data", &mac));
    for at in 0..16 {
        let mut forged = mac;
        forged[at] ^= 0x80;
        assert!(!keys_b.verify(MacPurpose::Bye, b"data", &forged));
    }
}

#[test]
fn whatever_differs_makes_it_fail() {
    let (a, b) = parties();
    let (_, noise1) = a.start();
    let psk = PresharedKey::from_bytes([6; 32]);
    let stranger = SecretKey::from_bytes([3; 32]).public_key();
    let read = |identity, mode, session| {
        Responder::read(identity, mode, session, &noise1)
            .map(|(_, description)| description)
            .unwrap_err()
    };
    let other_psk = Identity { psk: &psk, ..b.identity() };
    let other_peer = Identity { peer: &stranger, ..b.identity() };
    let other_session = SessionId([8; 16]);
    let forged = HandshakeError::Forged;
    assert_eq!(read(other_psk, Mode::Broker, SESSION), forged);
    assert_eq!(read(other_peer, Mode::Broker, SESSION), forged);
    assert_eq!(read(b.identity(), Mode::Manual, SESSION), forged);
    assert_eq!(read(b.identity(), Mode::Relay, SESSION), forged);
    assert_eq!(read(b.identity(), Mode::Broker, other_session), forged);
    // An offer that is handed back to its maker.
    assert_eq!(read(a.identity(), Mode::Broker, SESSION), forged);
}

/// A data channel is described where one is made, and only there: whatever the mode of the
/// handshake says, and although the keys are right.
#[test]
fn a_description_fits_the_mode_of_its_handshake() {
    let (a, b) = parties();
    let bare = Description { rtc: None, ..description() };
    for (mode, fits, other) in [
        (Mode::Broker, description(), bare.clone()),
        (Mode::Manual, description(), bare.clone()),
        (Mode::Relay, bare, description()),
    ] {
        let start = |what| Initiator::start(a.identity(), mode, SESSION, what);
        assert!(matches!(start(&other).err(), Some(HandshakeError::Description(_))));
        let (_, noise1) = start(&fits).unwrap();
        let (_, read) = Responder::read(b.identity(), mode, SESSION, &noise1).unwrap();
        assert_eq!(read, fits);
        // A peer that breaks the rule is not ours: its message is made by hand.
        let prologue = prologue(mode, SESSION, &a.me.public_key(), &a.peer);
        let mut strange = builder(&a.identity(), &prologue).unwrap().build_initiator().unwrap();
        let payload = codec::encode_description(&other).unwrap();
        let mut noise1 = vec![0; MIN_NOISE + payload.len()];
        strange.write_message(&payload, &mut noise1).unwrap();
        let error = Responder::read(b.identity(), mode, SESSION, &noise1).map(|_| ()).unwrap_err();
        assert!(matches!(error, HandshakeError::Description(_)), "{mode:?}: {error}");
    }
}

#[test]
fn keys_that_agree_on_nothing_are_refused() {
    let (a, _) = parties();
    let own = a.me.public_key();
    let identity = Identity { peer: &own, ..a.identity() };
    let error = Initiator::start(identity, Mode::Broker, SESSION, &description())
        .map(|(_, noise1)| noise1)
        .unwrap_err();
    assert_eq!(error, HandshakeError::Key(KeyAgreementError::OwnKey));
}

#[test]
fn every_changed_byte_of_an_offer_shows() {
    let (a, b) = parties();
    let (_, noise1) = a.start();
    for at in 0..noise1.len() {
        let mut forged = noise1.clone();
        // The highest bit, which X25519 itself ignores in a public key.
        forged[at] ^= 0x80;
        assert!(b.read(&forged).is_err(), "byte {at}");
    }
}

#[test]
fn forged_answers_do_not_end_an_attempt_and_true_ones_end_it_once() {
    let (a, b) = parties();
    let (mut initiator, noise1) = a.start();
    let (responder, _) = b.read(&noise1).unwrap();
    let (mut keys_b, noise2) = responder.finish(&answer()).unwrap();
    for at in 0..noise2.len() {
        let mut forged = noise2.clone();
        forged[at] ^= 0x80;
        let error = initiator.finish(&forged).unwrap_err();
        assert_eq!(error, HandshakeError::Forged, "byte {at}");
        let cut = initiator.finish(&noise2[..at]).unwrap_err();
        assert!(matches!(cut, HandshakeError::Forged | HandshakeError::Length));
    }
    let flood = initiator.finish(&[0; MAX_NOISE + 1]).unwrap_err();
    assert_eq!(flood, HandshakeError::Length);

    let (mut keys_a, _) = initiator.finish(&noise2).unwrap();
    let (at_a, at_b) = (keys_a.take_channel().unwrap(), keys_b.take_channel().unwrap());
    assert_eq!(*at_a.send, *at_b.recv);
    assert_eq!(initiator.finish(&noise2).unwrap_err(), HandshakeError::Finished);
}

#[test]
fn an_answer_must_say_who_begins_dtls() {
    let (a, b) = parties();
    let (_, noise1) = a.start();
    let (responder, _) = b.read(&noise1).unwrap();
    assert!(matches!(responder.finish(&description()), Err(HandshakeError::Description(_))));
}

/// The party on the other side, written with `snow` alone.
fn raw<'b>(party: &'b Party, prologue: &'b [u8]) -> Builder<'b> {
    Builder::new("Noise_KKpsk0_25519_ChaChaPoly_SHA256".parse().unwrap())
        .prologue(prologue)
        .unwrap()
        .psk(0, party.psk.expose())
        .unwrap()
        .local_private_key(party.me.expose())
        .unwrap()
        .remote_public_key(party.peer.as_bytes())
        .unwrap()
}

/// The prologue as the specification writes it, for a session of mode `broker`.
fn raw_prologue(initiator: &Party, responder: &Party) -> Vec<u8> {
    let mut prologue = b"qanah\x01\x01".to_vec();
    prologue.extend([7; 16]);
    prologue.extend(initiator.me.public_key().as_bytes());
    prologue.extend(responder.me.public_key().as_bytes());
    prologue
}

/// The key schedule as the specification writes it.
fn expand(split: &[u8; 32], hash: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(hash), split).expand(info, &mut key).unwrap();
    key
}

#[test]
fn initiator_meets_a_second_snow_party() {
    let (a, b) = parties();
    let (mut initiator, noise1) = a.start();

    let prologue = raw_prologue(&a, &b);
    let mut other = raw(&b, &prologue).build_responder().unwrap();
    let mut buffer = [0; 4096];
    let length = other.read_message(&noise1, &mut buffer).unwrap();
    assert_eq!(codec::decode_description(&buffer[..length]), Ok(description()));
    let payload = codec::encode_description(&answer()).unwrap();
    let length = other.write_message(&payload, &mut buffer).unwrap();

    let (mut keys, answered) = initiator.finish(&buffer[..length]).unwrap();
    assert_eq!(answered, answer());
    let (first, second) = other.dangerously_get_raw_split();
    let hash = other.get_handshake_hash();
    let channel = keys.take_channel().unwrap();
    assert_eq!(*channel.send, expand(&first, hash, b"qanah\x01\x07channel"));
    assert_eq!(*channel.recv, expand(&second, hash, b"qanah\x01\x07channel"));
    let datagram = keys.take_datagram().unwrap();
    assert_eq!(*datagram.send, expand(&first, hash, b"qanah\x01\x08datagram"));
    assert_eq!(*datagram.recv, expand(&second, hash, b"qanah\x01\x08datagram"));
}

#[test]
fn responder_meets_a_second_snow_party() {
    let (a, b) = parties();
    let prologue = raw_prologue(&a, &b);
    let mut other = raw(&a, &prologue).build_initiator().unwrap();
    let mut buffer = [0; 4096];
    let payload = codec::encode_description(&description()).unwrap();
    let length = other.write_message(&payload, &mut buffer).unwrap();

    let (responder, offered) = b.read(&buffer[..length]).unwrap();
    assert_eq!(offered, description());
    let (mut keys, noise2) = responder.finish(&answer()).unwrap();

    let length = other.read_message(&noise2, &mut buffer).unwrap();
    assert_eq!(codec::decode_description(&buffer[..length]), Ok(answer()));
    let (first, second) = other.dangerously_get_raw_split();
    let hash = other.get_handshake_hash();
    let channel = keys.take_channel().unwrap();
    assert_eq!(*channel.send, expand(&second, hash, b"qanah\x01\x07channel"));
    assert_eq!(*channel.recv, expand(&first, hash, b"qanah\x01\x07channel"));
}

/// What the order of the raw split rests on: the keys are those of snow's own transport, first the
/// initiator's sending key, and both sides see the same order.
#[test]
fn the_raw_split_is_what_snow_itself_would_send_with() {
    let (a, b) = parties();
    let prologue = raw_prologue(&a, &b);
    let mut initiator = raw(&a, &prologue).build_initiator().unwrap();
    let mut responder = raw(&b, &prologue).build_responder().unwrap();
    let (mut one, mut two) = ([0; 256], [0; 256]);
    let length = initiator.write_message(&[], &mut one).unwrap();
    responder.read_message(&one[..length], &mut two).unwrap();
    let length = responder.write_message(&[], &mut one).unwrap();
    initiator.read_message(&one[..length], &mut two).unwrap();

    let split = initiator.dangerously_get_raw_split();
    assert_eq!(split, responder.dangerously_get_raw_split());
    let mut initiator = initiator.into_transport_mode().unwrap();
    let mut responder = responder.into_transport_mode().unwrap();
    for (transport, key) in [(&mut initiator, split.0), (&mut responder, split.1)] {
        let length = transport.write_message(b"ping", &mut one).unwrap();
        let cipher = ChaCha20Poly1305::new(&key.into());
        let opened = cipher.decrypt(&[0; 12].into(), &one[..length]).unwrap();
        assert_eq!(opened, b"ping");
    }
}

#[test]
fn no_keys_come_out_of_half_a_handshake() {
    let (a, b) = parties();
    let (mut initiator, noise1) = a.start();
    let (mut responder, _) = b.read(&noise1).unwrap();
    for half in [&mut initiator.noise, &mut responder.noise] {
        let error = SessionKeys::split(half).map(|_| ()).unwrap_err();
        assert_eq!(error, HandshakeError::Unfinished);
    }
}

/// A thousand restarts, each the worst kind: the static keys, the session id and even the offer
/// stay the same (a replay), and only the answering side forgot everything. Then a thousand of the
/// offering side. No direction ever has a key that was there before, so no (key, nonce) pair can
/// come twice, wherever the counters start.
#[test]
fn a_thousand_restarts_never_repeat_a_key() {
    let (a, b) = parties();
    let mut seen = HashSet::new();
    let mut take = |keys: &mut SessionKeys| {
        for pair in [keys.take_channel().unwrap(), keys.take_datagram().unwrap()] {
            assert!(seen.insert(*pair.send), "a sending key came twice");
            assert!(seen.insert(*pair.recv), "a receiving key came twice");
        }
    };
    let (_, noise1) = a.start();
    for _ in 0..1000 {
        let (responder, _) = b.read(&noise1).unwrap();
        let (mut keys, _) = responder.finish(&answer()).unwrap();
        take(&mut keys);
    }
    for _ in 0..1000 {
        let (mut keys, _) = connect(&a, &b);
        take(&mut keys);
    }
    assert_eq!(seen.len(), 2 * 1000 * 4);
}

#[test]
fn debug_output_holds_no_key() {
    let (a, b) = parties();
    let (mut keys, _) = connect(&a, &b);
    assert_eq!(format!("{keys:?}"), "SessionKeys(redacted)");
    let channel = keys.take_channel().unwrap();
    assert_eq!(format!("{channel:?}"), "DirectionKeys(redacted)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (a, b) = parties();
        prop_assert!(b.read(&bytes).is_err());
        let (mut initiator, _) = a.start();
        prop_assert!(initiator.finish(&bytes).is_err());
    }
}
