use std::collections::HashSet;

use super::*;
use crate::frame::Control;
use crate::key::{PresharedKey, PublicKey, SecretKey};
use crate::seal::{CarrierKey, Opener};
use crate::signal::vectors::Vectors;

struct Party(SecretKey, PublicKey, PresharedKey);

impl Party {
    fn identity(&self) -> Identity<'_> {
        Identity { me: &self.0, peer: &self.1, psk: &self.2 }
    }
}

fn parties() -> (Party, Party) {
    let (a, b) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
    let (pub_a, pub_b) = (a.public_key(), b.public_key());
    let psk = || PresharedKey::from_bytes([5; 32]);
    (Party(a, pub_b, psk()), Party(b, pub_a, psk()))
}

const ID: RekeyId = RekeyId { session: SessionId([7; 16]), number: 1 };

#[test]
fn both_sides_get_the_same_keys_and_each_others_index() {
    let (a, b) = parties();
    let mut seen = HashSet::new();
    for number in 1..100 {
        let id = RekeyId { number, ..ID };
        let (mut initiator, noise1) = RekeyInitiator::start(a.identity(), id, 11).unwrap();
        let mut answer = RekeyAnswer::new(b.identity(), id, &noise1, 22).unwrap();
        assert_eq!(answer.remote_index, 11);
        let (mut keys, index) = initiator.finish(&answer.noise).unwrap();
        assert_eq!(index, 22);
        let (ours, theirs) = (keys.take_channel().unwrap(), answer.keys.take_channel().unwrap());
        assert_eq!((&*ours.send, &*ours.recv), (&*theirs.recv, &*theirs.send));
        assert!(seen.insert(*ours.send) && seen.insert(*ours.recv), "a key came twice");
        assert_eq!(
            initiator.finish(&answer.noise).map(|(_, index)| index),
            Err(HandshakeError::Finished)
        );
    }
}

#[test]
fn whatever_differs_makes_it_fail_and_the_true_response_still_works() {
    let (a, b) = parties();
    let (mut initiator, noise1) = RekeyInitiator::start(a.identity(), ID, 11).unwrap();
    let answer = |id, noise: &[u8]| {
        RekeyAnswer::new(b.identity(), id, noise, 22).map(|answer| answer.remote_index)
    };
    assert_eq!(answer(RekeyId { number: 2, ..ID }, &noise1), Err(HandshakeError::Forged));
    let other = RekeyId { session: SessionId([8; 16]), ..ID };
    assert_eq!(answer(other, &noise1), Err(HandshakeError::Forged));
    let reflected = RekeyAnswer::new(a.identity(), ID, &noise1, 22).map(|_| ());
    assert_eq!(reflected, Err(HandshakeError::Forged));
    assert_eq!(answer(ID, &noise1[..51]), Err(HandshakeError::Length));
    assert_eq!(answer(ID, &[noise1.as_slice(), &[0]].concat()), Err(HandshakeError::Length));
    for at in 0..noise1.len() {
        let mut forged = noise1.clone();
        forged[at] ^= 0x80;
        assert!(answer(ID, &forged).is_err(), "byte {at}");
    }
    let genuine = RekeyAnswer::new(b.identity(), ID, &noise1, 22).unwrap();
    for at in 0..genuine.noise.len() {
        let mut forged = genuine.noise.clone();
        forged[at] ^= 0x80;
        assert!(initiator.finish(&forged).is_err(), "byte {at}");
    }
    assert!(initiator.finish(&genuine.noise).is_ok());
}

#[test]
fn vectors_of_the_specification() {
    let vectors = Vectors::read();
    let (a, b) = (
        SecretKey::from_bytes(vectors.array("a.secret")),
        SecretKey::from_bytes(vectors.array("b.secret")),
    );
    let (pub_a, pub_b) = (a.public_key(), b.public_key());
    let psk = || PresharedKey::from_bytes(vectors.array("psk"));
    let (at_a, at_b) = (Party(a, pub_b, psk()), Party(b, pub_a, psk()));
    let id = RekeyId { session: SessionId(vectors.array("session")), number: 1 };
    let prologue = id.prologue(&at_b.identity(), true);
    assert_eq!(prologue, vectors.get("rekey.prologue"));
    assert_eq!(prologue, id.prologue(&at_a.identity(), false));

    let identity = at_b.identity();
    let fixed = builder(&identity, &prologue)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(vectors.get("rekey.ephemeral.initiator"));
    let (mut initiator, noise1) = RekeyInitiator::begin(fixed, 0x1112_1314).unwrap();
    assert_eq!(noise1, vectors.get("rekey.noise.1"));
    let identity = at_a.identity();
    let fixed = builder(&identity, &prologue)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(vectors.get("rekey.ephemeral.responder"));
    let answer = RekeyAnswer::begin(fixed, &noise1, 0x2122_2324).unwrap();
    assert_eq!(answer.noise, vectors.get("rekey.noise.2"));
    let (mut keys, index) = initiator.finish(&answer.noise).unwrap();
    assert_eq!((answer.remote_index, index), (0x1112_1314, 0x2122_2324));
    let channel = keys.take_channel().unwrap();
    assert_eq!(channel.send.as_slice(), vectors.get("rekey.channel.initiator"));
    assert_eq!(channel.recv.as_slice(), vectors.get("rekey.channel.responder"));

    let key = CarrierKey::from_bytes(vectors.array("channel.initiator"));
    let mut frame = vectors.get("rekey.init.frame").to_vec();
    let mut opener = Opener::new(key, 0x0a0b_0c0d);
    let opened = opener.open(&mut frame).unwrap();
    let expected = Control::RekeyInit { id: 1, noise: &noise1 };
    assert_eq!(Control::parse(opened.plaintext), Ok(expected));
}
