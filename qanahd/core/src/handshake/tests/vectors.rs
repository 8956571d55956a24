//! The vectors of `proto/PROTOCOL.md`.

use super::*;
use crate::signal::vectors::Vectors;

#[test]
fn vectors_of_the_specification() {
    let vectors = Vectors::read();
    // The greater key offers: b is the initiator.
    let (a, b) = (
        SecretKey::from_bytes(vectors.array("a.secret")),
        SecretKey::from_bytes(vectors.array("b.secret")),
    );
    let party = |me: &SecretKey, peer: &SecretKey| Party {
        me: me.clone(),
        peer: peer.public_key(),
        psk: PresharedKey::from_bytes(vectors.array("psk")),
    };
    let (initiator, responder) = (party(&b, &a), party(&a, &b));
    let session = SessionId(vectors.array("session"));
    let prologue = prologue(Mode::Broker, session, &b.public_key(), &a.public_key());
    assert_eq!(prologue, vectors.get("prologue"));
    let offered = codec::decode_description(vectors.get("description.offer")).unwrap();
    assert_eq!(offered, description());
    assert_eq!(codec::encode_description(&offered).unwrap(), vectors.get("description.offer"));
    let answered = codec::decode_description(vectors.get("description.answer")).unwrap();

    let (mut offerer, noise1) = Initiator::begin(
        builder(&initiator.identity(), &prologue)
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(vectors.get("ephemeral.initiator")),
        Mode::Broker,
        &offered,
    )
    .unwrap();
    assert_eq!(noise1, vectors.get("noise.1"));
    let (answerer, _) = Responder::begin(
        builder(&responder.identity(), &prologue)
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(vectors.get("ephemeral.responder")),
        Mode::Broker,
        &noise1,
    )
    .unwrap();
    let (at_a, noise2) = answerer.finish(&answered).unwrap();
    assert_eq!(noise2, vectors.get("noise.2"));
    let (at_b, _) = offerer.finish(&noise2).unwrap();
    assert_eq!(offerer.noise.get_handshake_hash(), vectors.get("hash"));
    let (first, second) = offerer.noise.dangerously_get_raw_split();
    assert_eq!(first, vectors.get("split.initiator"));
    assert_eq!(second, vectors.get("split.responder"));
    check_keys(&vectors, at_b, at_a, session);
}

#[test]
fn vectors_of_a_relayed_session() {
    let vectors = Vectors::read();
    let (a, b) = (
        SecretKey::from_bytes(vectors.array("a.secret")),
        SecretKey::from_bytes(vectors.array("b.secret")),
    );
    let party = |me: &SecretKey, peer: &SecretKey| Party {
        me: me.clone(),
        peer: peer.public_key(),
        psk: PresharedKey::from_bytes(vectors.array("psk")),
    };
    let session = SessionId(vectors.array("session"));
    let prologue = prologue(Mode::Relay, session, &b.public_key(), &a.public_key());
    assert_eq!(prologue, vectors.get("relayed.prologue"));
    let [offered, answered] = ["offer", "answer"].map(|which| {
        let bytes = vectors.get(&format!("relayed.description.{which}"));
        let description = codec::decode_description(bytes).unwrap();
        assert_eq!(codec::encode_description(&description).unwrap(), bytes);
        assert_eq!(description.rtc, None);
        description
    });
    let (initiator, responder) = (party(&b, &a), party(&a, &b));
    let fixed = |party: &Party, which| {
        let ephemeral = vectors.get(which);
        let builder = builder(&party.identity(), &prologue).unwrap();
        let builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
        if party.me.public_key() == b.public_key() {
            builder.build_initiator().unwrap()
        } else {
            builder.build_responder().unwrap()
        }
    };
    let mut offerer = fixed(&initiator, "relayed.ephemeral.initiator");
    let mut answerer = fixed(&responder, "relayed.ephemeral.responder");
    let noise1 = write(&mut offerer, Mode::Relay, &offered).unwrap();
    assert_eq!(noise1, vectors.get("relayed.noise.1"));
    assert_eq!(read(&mut answerer, Mode::Relay, &noise1), Ok(offered));
    let noise2 = write(&mut answerer, Mode::Relay, &answered).unwrap();
    assert_eq!(noise2, vectors.get("relayed.noise.2"));
    assert_eq!(read(&mut offerer, Mode::Relay, &noise2), Ok(answered));
    let channel = SessionKeys::split(&mut offerer).unwrap().take_channel().unwrap();
    assert_eq!(*channel.send, vectors.array("relayed.channel.initiator"));
    assert_eq!(*channel.recv, vectors.array("relayed.channel.responder"));
}

/// `at_b` is the initiator's.
fn check_keys(vectors: &Vectors, mut at_b: SessionKeys, at_a: SessionKeys, session: SessionId) {
    let channel = at_b.take_channel().unwrap();
    let datagram = at_b.take_datagram().unwrap();
    for (key, name) in [
        (&channel.send, "channel.initiator"),
        (&channel.recv, "channel.responder"),
        (&datagram.send, "datagram.initiator"),
        (&datagram.recv, "datagram.responder"),
        (&at_b.mac_keys(MacPurpose::Bye).send, "bye.initiator"),
        (&at_b.mac_keys(MacPurpose::Bye).recv, "bye.responder"),
        (&at_b.mac_keys(MacPurpose::Restart).send, "restart.initiator"),
        (&at_b.mac_keys(MacPurpose::Restart).recv, "restart.responder"),
    ] {
        assert_eq!(key.as_slice(), vectors.get(name), "{name}");
    }
    let frame = vectors.get("frame");
    let (header, sealed) = frame.split_at(16);
    let mut nonce = [0; 12];
    let counter = u64::from_be_bytes(header[8..].try_into().unwrap());
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let payload = Payload { msg: sealed, aad: header };
    let opened =
        ChaCha20Poly1305::new((&*channel.send).into()).decrypt(&nonce.into(), payload).unwrap();
    assert_eq!(opened, vectors.get("frame.plaintext"));

    let mac = vectors.array("bye.mac");
    let bye = Bye { session, mac };
    assert_eq!(at_b.mac(MacPurpose::Bye, &bye.mac_input()), mac);
    assert!(at_a.verify(MacPurpose::Bye, &bye.mac_input(), &mac));
    let restart = Candidates {
        session,
        generation: 1,
        credentials: Some(IceCredentials {
            ufrag: "Rst1".into(),
            pwd: "0123456789abcdefghijKL".into(),
        }),
        candidates: Vec::new(),
        end: false,
        mac: None,
    };
    assert_eq!(restart.mac_input(), vectors.get("restart.input"));
    assert_eq!(at_b.mac(MacPurpose::Restart, &restart.mac_input()), vectors.get("restart.mac"));
}
