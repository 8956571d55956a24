use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::key::{PresharedKey, PublicKey, SecretKey};
use crate::signal::samples::any_message;
use crate::signal::vectors::Vectors;
use crate::signal::{Answer, Challenge, Hello, Offer, SessionId};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn pair(psk_a: [u8; 32], psk_b: [u8; 32]) -> (PairKeys, PairKeys) {
    let (a, b) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
    let keys = |me: &SecretKey, peer: PublicKey, psk| {
        PairKeys::derive(me, &peer, &PresharedKey::from_bytes(psk)).unwrap()
    };
    (keys(&a, b.public_key(), psk_a), keys(&b, a.public_key(), psk_b))
}

fn hello() -> Message {
    Message::Hello(Hello {
        challenge: Challenge([1; 16]),
        echo: Some(Challenge([2; 16])),
        session: None,
    })
}

fn offer(echo: Option<Challenge>) -> Message {
    Message::Offer(Offer { session: SessionId([3; 16]), echo, lifetime: None, noise: vec![4; 100] })
}

#[test]
fn every_changed_byte_and_every_cut_shows() {
    let (a, b) = pair([0; 32], [0; 32]);
    let envelope = a.seal(&hello(), Carrier::Inbox, &mut rng()).unwrap();
    assert_eq!(b.open(&envelope, Carrier::Inbox), Ok(hello()));
    for at in 0..envelope.len() {
        for bit in 0..8 {
            let mut forged = envelope.clone();
            forged[at] ^= 1 << bit;
            let expected = match at {
                0 => OpenError::Version(forged[0]),
                _ => OpenError::Forged,
            };
            assert_eq!(b.open(&forged, Carrier::Inbox), Err(expected));
        }
        let cut = b.open(&envelope[..at], Carrier::Inbox).unwrap_err();
        assert!(matches!(cut, OpenError::TooShort | OpenError::Forged));
    }
    let longer = [envelope, vec![0]].concat();
    assert_eq!(b.open(&longer, Carrier::Inbox), Err(OpenError::Forged));
}

#[test]
fn a_wrong_preshared_key_meets_on_the_inbox_and_shows_as_such() {
    let (a, b) = pair([5; 32], [6; 32]);
    assert_eq!(a.outbox(), b.inbox());
    let envelope = a.seal(&hello(), Carrier::Inbox, &mut rng()).unwrap();
    let error = b.open(&envelope, Carrier::Inbox).unwrap_err();
    assert_eq!(error, OpenError::Forged);
    assert_eq!(error.to_string(), "PresharedKey differs, or forged");
}

#[test]
fn an_envelope_opens_only_for_its_direction_and_carrier() {
    let (a, b) = pair([0; 32], [0; 32]);
    let by_hand = a.seal(&offer(None), Carrier::Manual, &mut rng()).unwrap();
    let by_broker = a.seal(&offer(Some(Challenge([1; 16]))), Carrier::Inbox, &mut rng()).unwrap();
    assert!(b.open(&by_hand, Carrier::Manual).is_ok());
    assert!(b.open(&by_broker, Carrier::Inbox).is_ok());
    assert_eq!(b.open(&by_hand, Carrier::Inbox), Err(OpenError::Forged));
    assert_eq!(b.open(&by_broker, Carrier::Manual), Err(OpenError::Forged));
    // A broker that hands our own message back to us.
    assert_eq!(a.open(&by_broker, Carrier::Inbox), Err(OpenError::Forged));
}

#[test]
fn offers_echo_a_challenge_on_a_broker_and_none_by_hand() {
    let (a, _) = pair([0; 32], [0; 32]);
    let answer = Message::Answer(Answer { session: SessionId([3; 16]), noise: vec![4; 100] });
    let fits = |message: &Message, carrier| a.seal(message, carrier, &mut rng()).is_ok();
    assert!(!fits(&offer(None), Carrier::Inbox));
    assert!(!fits(&offer(Some(Challenge([1; 16]))), Carrier::Manual));
    assert!(!fits(&hello(), Carrier::Manual));
    assert!(fits(&answer, Carrier::Manual) && fits(&answer, Carrier::Inbox));
}

#[test]
fn sizes_are_checked_before_anything_else() {
    let (a, _) = pair([0; 32], [0; 32]);
    let open = |bytes: &[u8]| a.open(bytes, Carrier::Inbox).unwrap_err();
    assert_eq!(open(&[VERSION; MAX_ENVELOPE + 1]), OpenError::TooLarge);
    assert_eq!(open(&[VERSION; MAX_ENVELOPE]), OpenError::Forged);
    assert_eq!(open(&[]), OpenError::TooShort);
    assert_eq!(open(&[VERSION; OVERHEAD - 1]), OpenError::TooShort);
    assert_eq!(open(&[VERSION; OVERHEAD]), OpenError::Forged);
    assert_eq!(open(&[2]), OpenError::Version(2));
}

#[test]
fn a_peer_that_seals_nonsense_is_told_apart_from_a_forger() {
    let (a, b) = pair([0; 32], [0; 32]);
    let sealed = |text: &[u8]| {
        let aad = a.outgoing.associated_data(Carrier::Inbox);
        let payload = Payload { msg: text, aad: &aad };
        let mut envelope = vec![VERSION];
        envelope.extend([7; NONCE]);
        envelope.extend(a.outgoing.cipher().encrypt(&[7; NONCE].into(), payload).unwrap());
        b.open(&envelope, Carrier::Inbox)
    };
    assert_eq!(sealed(b""), Err(OpenError::Malformed("unknown kind")));
    assert_eq!(sealed(b"garbage"), Err(OpenError::Malformed("is not protobuf")));
}

#[test]
fn no_two_envelopes_look_alike() {
    let (a, _) = pair([0; 32], [0; 32]);
    let mut rng = rng();
    let mut seal = || a.seal(&hello(), Carrier::Inbox, &mut rng).unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn vectors_of_the_specification() {
    let vectors = Vectors::read();
    let secret = |name| SecretKey::from_bytes(vectors.array(name));
    let (a, b) = (secret("a.secret"), secret("b.secret"));
    let psk = PresharedKey::from_bytes(vectors.array("psk"));
    assert_eq!(a.public_key().as_bytes(), vectors.get("a.public"));
    assert_eq!(b.public_key().as_bytes(), vectors.get("b.public"));
    let shared = crate::signal::agree(&a, &b.public_key()).unwrap();
    assert_eq!(shared.as_slice(), vectors.get("ss"));

    let at_a = PairKeys::derive(&a, &b.public_key(), &psk).unwrap();
    let at_b = PairKeys::derive(&b, &a.public_key(), &psk).unwrap();
    assert_eq!(at_a.inbox().0, vectors.get("inbox.b-to-a"));
    assert_eq!(at_b.inbox().0, vectors.get("inbox.a-to-b"));
    assert_eq!(at_a.inbox().topic().as_bytes(), vectors.get("topic.b-to-a"));
    assert_eq!(at_b.inbox().topic().as_bytes(), vectors.get("topic.a-to-b"));
    assert_eq!(at_a.outgoing.key.as_slice(), vectors.get("signal.a-to-b"));
    assert_eq!(at_b.outgoing.key.as_slice(), vectors.get("signal.b-to-a"));

    let hello = Message::Hello(Hello {
        challenge: Challenge(vectors.array("hello.challenge")),
        echo: Some(Challenge(vectors.array("hello.echo"))),
        session: None,
    });
    assert_eq!(codec::encode(&hello).unwrap(), vectors.get("hello.message"));
    let sealed =
        at_b.seal_with_nonce(&hello, Carrier::Inbox, vectors.array("envelope.nonce")).unwrap();
    assert_eq!(sealed, vectors.get("hello.envelope"));
    assert_eq!(at_b.outgoing.associated_data(Carrier::Inbox), vectors.get("hello.associated-data"));
    assert_eq!(at_a.open(&sealed, Carrier::Inbox), Ok(hello));

    let session = SessionId(vectors.array("session"));
    let offer = Message::Offer(Offer {
        lifetime: None,
        session,
        echo: Some(Challenge(vectors.array("hello.echo"))),
        noise: vectors.get("noise.1").to_vec(),
    });
    assert_eq!(codec::encode(&offer).unwrap(), vectors.get("offer.message"));
    let sealed =
        at_b.seal_with_nonce(&offer, Carrier::Inbox, vectors.array("envelope.nonce")).unwrap();
    assert_eq!(sealed, vectors.get("offer.envelope"));

    let answer = Message::Answer(Answer { session, noise: vectors.get("noise.2").to_vec() });
    assert_eq!(codec::encode(&answer).unwrap(), vectors.get("answer.message"));
    let by_hand =
        at_a.seal_with_nonce(&answer, Carrier::Manual, vectors.array("envelope.nonce")).unwrap();
    assert_eq!(by_hand, vectors.get("answer.manual-envelope"));
}

proptest! {
    #[test]
    fn every_message_arrives_as_it_was(message in any_message()) {
        let (a, b) = pair([3; 32], [3; 32]);
        let envelope = a.seal(&message, Carrier::Inbox, &mut rng()).unwrap();
        prop_assert!(envelope.len() <= MAX_ENVELOPE);
        prop_assert_eq!(b.open(&envelope, Carrier::Inbox), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        versioned in any::<bool>(),
    ) {
        let (a, _) = pair([0; 32], [0; 32]);
        let mut bytes = bytes;
        if let (true, Some(first)) = (versioned, bytes.first_mut()) {
            *first = VERSION;
        }
        prop_assert!(a.open(&bytes, Carrier::Inbox).is_err());
        prop_assert!(a.open(&bytes, Carrier::Manual).is_err());
    }
}
