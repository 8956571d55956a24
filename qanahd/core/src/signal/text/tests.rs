use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::handshake::{Identity, Initiator, Mode, Responder};
use crate::key::{PresharedKey, SecretKey};
use crate::signal::samples::{description, rtc};
use crate::signal::vectors::Vectors;
use crate::signal::{
    Answer, Capabilities, Description, DtlsRole, IceCredentials, Offer, RtcDescription, SessionId,
};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn keys(me: u8, peer: u8, psk: u8) -> PairKeys {
    let psk = PresharedKey::from_bytes([psk; 32]);
    PairKeys::derive(&secret(me), &secret(peer).public_key(), &psk).unwrap()
}

fn offer() -> Message {
    Message::Offer(Offer {
        session: SessionId([3; 16]),
        echo: None,
        lifetime: Some(3600),
        noise: vec![4; 240],
    })
}

fn one_part() -> (Part, String) {
    let part = keys(1, 2, 0).seal_by_hand(&offer(), &mut rng()).unwrap();
    let text = write(TextKind::Offer, std::slice::from_ref(&part)).unwrap();
    (part, text)
}

/// As machines at home have it: two addresses, one of them seen by a STUN server, and the lengths
/// of credentials that the WebRTC stack makes.
fn typical(role: DtlsRole) -> Description {
    Description {
        rtc: Some(RtcDescription {
            ice: IceCredentials { ufrag: "u".repeat(16), pwd: "p".repeat(32) },
            role,
            ..rtc()
        }),
        capabilities: Capabilities {
            max_frame: 65_567,
            max_packets: 128,
            rekey: true,
            ..Capabilities::default()
        },
        ..description()
    }
}

#[test]
fn texts_are_short() {
    let psk = PresharedKey::default();
    let (a, b) = (secret(1), secret(2));
    let (pub_a, pub_b) = (a.public_key(), b.public_key());
    let session = SessionId([7; 16]);
    let at_a = Identity { me: &a, peer: &pub_b, psk: &psk };
    let at_b = Identity { me: &b, peer: &pub_a, psk: &psk };
    let (_, noise1) =
        Initiator::start(at_a, Mode::Manual, session, &typical(DtlsRole::ActPass)).unwrap();
    let (responder, _) = Responder::read(at_b, Mode::Manual, session, &noise1).unwrap();
    let (_, noise2) = responder.finish(&typical(DtlsRole::Active)).unwrap();
    let offer = Offer { session, echo: None, lifetime: Some(3600), noise: noise1 };
    let offer = keys(1, 2, 0).seal_by_hand(&Message::Offer(offer), &mut rng()).unwrap();
    let answer = Message::Answer(Answer { session, noise: noise2 });
    let answer = keys(2, 1, 0).seal_by_hand(&answer, &mut rng()).unwrap();
    let offer = write(TextKind::Offer, &[offer]).unwrap();
    let answer = write(TextKind::Answer, &[answer]).unwrap();
    println!("an offer to one peer: {} characters\n{offer}", offer.len());
    println!("its answer: {} characters\n{answer}", answer.len());
    assert!(offer.len() <= 420, "{} characters", offer.len());
    assert!(answer.len() <= 420, "{} characters", answer.len());
    assert!(!offer.contains('\n') && !answer.contains('\n'), "one line");
}

#[test]
fn each_peer_finds_its_own_part_and_nobody_elses() {
    let peers: Vec<u8> = (2_u8..).take(MAX_PARTS).collect();
    let seal = |peer: &u8| keys(1, *peer, 0).seal_by_hand(&offer(), &mut rng()).unwrap();
    let parts: Vec<Part> = peers.iter().map(seal).collect();
    let text = write(TextKind::Offer, &parts).unwrap();
    assert!(text.lines().all(|line| line.len() <= LINE));
    let read = read(TextKind::Offer, &text).unwrap();
    assert_eq!(read, parts);
    for (at, peer) in peers.iter().enumerate() {
        let theirs = keys(*peer, 1, 0);
        let owners: Vec<Owner> = read.iter().map(|part| theirs.owner(part)).collect();
        let own = owners.iter().position(|owner| *owner == Owner::Peer);
        assert_eq!(own, Some(at));
        assert_eq!(owners.iter().filter(|owner| **owner == Owner::Others).count(), 63);
        assert_eq!(theirs.open_by_hand(&read[at]), Ok(offer()));
    }
    let more = [parts.as_slice(), &parts[..1]].concat();
    assert_eq!(write(TextKind::Offer, &more), Err(TextError::TooMany));
    assert_eq!(write(TextKind::Offer, &[]), Err(TextError::TooMany));
}

#[test]
fn own_foreign_and_forged_parts_are_told_apart() {
    let (part, _) = one_part();
    assert_eq!(keys(1, 2, 0).owner(&part), Owner::Own);
    assert_eq!(keys(3, 1, 0).owner(&part), Owner::Others);
    // Another PresharedKey: found, but it does not open.
    let other = keys(2, 1, 9);
    assert_eq!(other.owner(&part), Owner::Peer);
    assert_eq!(other.open_by_hand(&part), Err(OpenError::Forged));
}

#[test]
fn labels_do_not_link_two_texts_of_a_pair() {
    let mut rng = rng();
    let mut label = || keys(1, 2, 0).seal_by_hand(&offer(), &mut rng).unwrap().label;
    assert_ne!(label(), label());
}

#[test]
fn what_mail_and_chat_do_to_a_text_does_no_harm() {
    let (part, text) = one_part();
    let wrapped = |at: usize, with: &str| {
        let lines: Vec<&str> =
            text.as_bytes().chunks(at).map(|line| std::str::from_utf8(line).unwrap()).collect();
        lines.join(with)
    };
    for mangled in [
        format!("  {text}\n\n"),
        wrapped(72, "\n"),
        wrapped(72, "\r\n"),
        wrapped(40, "\n> > "),
        wrapped(75, "=\r\n"),
        wrapped(10, " \t"),
        wrapped(7, "\u{200b}\u{a0}\u{feff}"),
        format!("> Hi, here it is:\n> {}\n> -- \n> Bob", wrapped(60, "\n> ")),
        format!("-----BEGIN QANAH OFFER-----\n{}\n-----END QANAH OFFER-----\n", wrapped(64, "\n")),
        format!("> -----BEGIN QANAH OFFER-----\r\n> {text}\r\n> -----END QANAH OFFER-----\r\n"),
        format!("Please answer <{text}> soon."),
    ] {
        assert_eq!(read(TextKind::Offer, &mangled), Ok(vec![part.clone()]), "{mangled}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_told() {
    let (part, text) = one_part();
    let offer = |text: &str| read(TextKind::Offer, text).unwrap_err();
    for foreign in ["", "hello", "v=0 o=- 46117 2 IN IP4", "https://qanah.example/offer"] {
        assert_eq!(offer(foreign), TextError::Foreign(TextKind::Offer));
    }
    let answer = write(TextKind::Answer, &[part]).unwrap();
    let mixed = TextError::Kind { found: TextKind::Answer, wanted: TextKind::Offer };
    assert_eq!(offer(&answer), mixed);
    assert_eq!(mixed.to_string(), "this is an answer, but an offer is needed here");
    let mixed = TextError::Kind { found: TextKind::Offer, wanted: TextKind::Answer };
    assert_eq!(read(TextKind::Answer, &text), Err(mixed));
    let newer = text.replace("offer-1.", "offer-12.");
    assert_eq!(offer(&newer), TextError::Version("12".into()));
    for at in MARK.len() + 6..text.len() {
        assert_eq!(offer(&text[..at]), TextError::Truncated, "cut at {at}");
    }
    // A line was lost in the middle.
    let lost = format!("{}{}", &text[..100], &text[170..]);
    assert_eq!(offer(&lost), TextError::Garbled);
    let renamed = answer.replace("answer-1.", "offer-1.");
    assert_eq!(offer(&renamed), TextError::Garbled, "the sum covers the head");
    assert_eq!(offer(&"a".repeat(MAX_TEXT + 1)), TextError::TooLong);
}

#[test]
fn every_changed_character_shows() {
    let (_, text) = one_part();
    for at in TextKind::Offer.head().len()..text.len() - 1 {
        for with in ["A", "b", "!"] {
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            let expected = if changed == text { None } else { Some(TextError::Garbled) };
            assert_eq!(read(TextKind::Offer, &changed).err(), expected, "character {at}");
        }
    }
}

#[test]
fn vectors_of_the_specification() {
    let vectors = Vectors::read();
    let (a, b) = (
        SecretKey::from_bytes(vectors.array("a.secret")),
        SecretKey::from_bytes(vectors.array("b.secret")),
    );
    let psk = PresharedKey::from_bytes(vectors.array("psk"));
    let at_a = PairKeys::derive(&a, &b.public_key(), &psk).unwrap();
    let at_b = PairKeys::derive(&b, &a.public_key(), &psk).unwrap();
    assert_eq!(at_a.outgoing.hand.as_slice(), vectors.get("hand.a-to-b"));
    let envelope = vectors.get("answer.manual-envelope").to_vec();
    let part = Part { label: at_a.outgoing.label(&envelope), envelope };
    assert_eq!(part.label, vectors.get("answer.label"));
    let text = write(TextKind::Answer, std::slice::from_ref(&part)).unwrap();
    assert_eq!(text.as_bytes(), vectors.get("answer.text"));
    assert_eq!(read(TextKind::Answer, &text), Ok(vec![part.clone()]));
    assert_eq!(at_b.owner(&part), Owner::Peer);
    assert!(matches!(at_b.open_by_hand(&part), Ok(Message::Answer(_))));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*", head in 0..3) {
        let head = ["", "qanah-offer-1.", "qanah-answer-"][head as usize];
        let text = format!("{head}{text}");
        prop_assert!(read(TextKind::Offer, &text).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let head = TextKind::Offer.head();
        let body = [body.as_slice(), &check(&head, &body)].concat();
        let text = format!("{head}{}.", URL_SAFE_NO_PAD.encode(body));
        if let Ok(parts) = read(TextKind::Offer, &text) {
            prop_assert_eq!(write(TextKind::Offer, &parts), Ok(text));
        }
    }
}
