//! What passes through others, as the specification writes it.

use std::time::Duration;

use crate::frame::reach::{Reached, entries, names, write_entries, write_names};
use crate::frame::{Control, FrameType, Hop, RelayHeader};
use crate::key::PublicKey;
use crate::seal::{CarrierKey, Opener};
use crate::signal::codec;
use crate::signal::vectors::Vectors;
use crate::signal::{Message, PeerName};

fn name(vectors: &Vectors, peer: &str) -> PeerName {
    let key = PublicKey::from_bytes(vectors.array(&format!("{peer}.public")));
    let name = PeerName::of(&key);
    assert_eq!(name.0.as_slice(), vectors.get(&format!("name.{peer}")));
    name
}

#[test]
fn frames_through_a_relay() {
    let vectors = Vectors::read();
    let (a, b) = (name(&vectors, "a"), name(&vectors, "b"));
    let inner = vectors.get("relayed.frame");
    let header = RelayHeader { hop: Hop::ToRelay, name: a };
    let mut plaintext = header.wrap(inner).unwrap().plaintext().to_vec();
    assert_eq!(plaintext, vectors.get("relayed.to-relay"));
    RelayHeader { hop: Hop::FromRelay, name: b }.write_over(&mut plaintext);
    assert_eq!(plaintext, vectors.get("relayed.from-relay"));
    let (header, inner) = RelayHeader::split(&mut plaintext).unwrap();
    assert_eq!(header, RelayHeader { hop: Hop::FromRelay, name: b });
    let key = CarrierKey::from_bytes(vectors.array("relayed.channel.initiator"));
    let mut opener = Opener::new(key, 0x4142_4344);
    let opened = opener.open(inner).unwrap();
    assert_eq!(opened.kind, Ok(FrameType::Control));
    assert_eq!(Control::parse(opened.plaintext), Ok(Control::Confirm));
}

#[test]
fn control_messages_about_others() {
    let vectors = Vectors::read();
    let (a, b) = (name(&vectors, "a"), name(&vectors, "b"));
    let envelope = vectors.get("hello.envelope");
    let list = write_names(&[a, b]);
    assert_eq!(names(&list).collect::<Vec<_>>(), [a, b]);
    let reached = [Reached { name: a, rtt: Some(Duration::from_micros(1500)) }];
    let reached_bytes = write_entries(&reached);
    assert_eq!(entries(&reached_bytes).collect::<Vec<_>>(), reached);
    for (vector, message) in [
        ("signaling.to-relay", Control::Signaling { hop: Hop::ToRelay, name: a, envelope }),
        ("signaling.from-relay", Control::Signaling { hop: Hop::FromRelay, name: b, envelope }),
        ("reach.query", Control::ReachQuery { id: 7, names: &list }),
        ("reach.answer", Control::ReachAnswer { id: 7, entries: &reached_bytes }),
    ] {
        let bytes = vectors.get(vector);
        assert_eq!(message.to_frame_buf().unwrap().plaintext(), bytes, "{vector}");
        assert_eq!(Control::parse(bytes), Ok(message), "{vector}");
    }
}

#[test]
fn messages_about_the_relayed_session() {
    let vectors = Vectors::read();
    for vector in ["relayed.hello.message", "relayed.offer.message"] {
        let bytes = vectors.get(vector);
        let message = codec::decode(bytes).unwrap();
        let Message::Relayed(inner) = &message else { panic!("{vector} is {message:?}") };
        assert!(matches!(**inner, Message::Hello(_) | Message::Offer(_)));
        assert_eq!(codec::encode(&message).unwrap(), bytes);
    }
}
