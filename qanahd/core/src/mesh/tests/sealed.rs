//! What a relay can do with what it passes on: nothing.

use std::collections::BTreeSet;

use rand_core::SeedableRng;

use super::node::Behaviour;
use super::world::{World, id};
use crate::frame::{FrameBuf, FrameType};
use crate::handshake::{Identity, Initiator, Mode, Responder};
use crate::key::PresharedKey;
use crate::seal::{CarrierKey, OpenError, Opener, Sealer};
use crate::session::SessionKind;
use crate::signal::{
    Capabilities, Carrier, Challenge, Description, Message, Offer, PairKeys, SessionId,
};

fn chain() -> World {
    let mut world = World::new(11, 3, Behaviour::default());
    world.cut(0, 2);
    world.start();
    world.run(4);
    assert_eq!(world.via(0, 2), Some(1));
    world
}

fn key(bytes: &[u8]) -> CarrierKey {
    CarrierKey::from_bytes(bytes.try_into().expect("32 bytes"))
}

/// Real frames under the real keys of the session between the two ends, and all keys that the relay ever had.
#[test]
fn no_key_of_the_relay_opens_a_frame_that_it_passes_on() {
    let mut world = chain();
    world.send_packet(0, 2);
    world.send_packet(2, 0);
    world.run(1);
    let mut of_relay = BTreeSet::new();
    for peer in [0, 2] {
        for keys in world.nodes[1].pair(id(peer)).sessions.values() {
            of_relay.extend(keys.sealers.iter().map(|(_, key, _)| key.clone()));
            of_relay.extend(keys.openers.iter().map(|(_, key)| key.clone()));
        }
    }
    assert!(of_relay.len() >= 4, "two sessions, two directions");
    of_relay.insert(world.nodes[1].secret.expose().to_vec());
    let passed_on = world.nodes[1].passed_on.clone();
    assert!(passed_on.len() >= 2, "frames went both ways");
    assert!(passed_on.is_disjoint(&of_relay), "and it knew none of their keys");
    for (from, to) in [(0, 2), (2, 0)] {
        let sessions = world.nodes[from].pair(id(to)).sessions.values();
        let mut end_to_end = sessions.filter(|keys| keys.kind == SessionKind::Relayed);
        let (_, secret, index) = end_to_end.next_back().unwrap().sealers[0].clone();
        let mut buf = FrameBuf::with_capacity(100);
        buf.push(b"what only the two ends know").unwrap();
        let frame = Sealer::new(key(&secret), index).seal(FrameType::Packets, buf).unwrap();
        for known in &of_relay {
            assert_ne!(*known, secret);
            assert!(passed_on.contains(&secret));
            let opened = Opener::new(key(known), index).open(&mut frame.clone()).map(|_| ());
            assert_eq!(opened, Err(OpenError::Forged));
        }
        assert!(Opener::new(key(&secret), index).open(&mut frame.clone()).is_ok());
    }
}

/// The relay sees every envelope of the handshake, and has a static key of its own.
#[test]
fn the_relay_can_neither_read_nor_answer_the_handshake() {
    let world = chain();
    let [a, relay, c] = [0, 1, 2].map(|node| &world.nodes[node].secret);
    let psk = PresharedKey::default();
    let mut rng = rand_chacha::ChaCha8Rng::from_seed([3; 32]);
    let at_a = PairKeys::derive(a, &c.public_key(), &psk).unwrap();
    let session = SessionId([5; 16]);
    let bare = Description { index: 1, capabilities: Capabilities::default(), rtc: None };
    let identity = Identity { me: a, peer: &c.public_key(), psk: &psk };
    let (_, noise) = Initiator::start(identity, Mode::Relay, session, &bare).unwrap();
    let offer =
        Offer { session, echo: Some(Challenge([6; 16])), lifetime: None, noise: noise.clone() };
    let message = Message::Relayed(Box::new(Message::Offer(offer)));
    let envelope = at_a.seal(&message, Carrier::Inbox, &mut rng).unwrap();
    for peer in [a, c] {
        let keys = PairKeys::derive(relay, &peer.public_key(), &psk).unwrap();
        assert!(keys.open(&envelope, Carrier::Inbox).is_err());
        // Even if it had the Noise message itself: it is made for another static key.
        let identity = Identity { me: relay, peer: &peer.public_key(), psk: &psk };
        assert!(Responder::read(identity, Mode::Relay, session, &noise).is_err());
    }
    // Nor does it serve as the offer of another kind of session.
    let at_c = PairKeys::derive(c, &a.public_key(), &psk).unwrap();
    assert_eq!(at_c.open(&envelope, Carrier::Inbox), Ok(message));
    let identity = Identity { me: c, peer: &a.public_key(), psk: &psk };
    assert!(Responder::read(identity, Mode::Broker, session, &noise).is_err());
    assert!(Responder::read(identity, Mode::Relay, session, &noise).is_ok());
}
