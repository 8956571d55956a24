//! New keys for a session that goes on.

use std::time::Duration;

use super::super::limits::{KEY_LIFETIME, REKEY_AFTER};
use super::super::*;
use super::world::{Faults, World};

/// Connected, and without any broker from then on.
fn alone(seed: u64, rekey_after_frames: Option<u64>) -> World {
    let mut world = World::with(seed, Faults::none(), rekey_after_frames);
    world.start();
    world.run(2);
    world.assert_one_session("start");
    for node in &mut world.nodes {
        node.machine.signaling_down();
        node.events.clear();
        node.sent.clear();
    }
    world
}

/// Runs for some seconds with ten packets a second each way; returns how many were sent.
fn busy(world: &mut World, seconds: u64) -> u32 {
    for _ in 0..seconds * 10 {
        for at in 0..2 {
            assert!(world.nodes[at].active.is_some(), "a gap");
            world.send_packet(at);
        }
        world.run_ms(100);
    }
    u32::try_from(seconds * 10).expect("a few")
}

fn rekeys(world: &World, at: usize) -> usize {
    world.nodes[at].events.iter().filter(|event| **event == Event::Rekeyed).count()
}

#[test]
fn keys_change_for_ever_without_signaling_or_a_lost_packet() {
    let mut world = alone(41, Some(u64::MAX));
    let session = world.nodes[0].active;
    let keys = world.keys.len();
    let sent = busy(&mut world, 3600);
    for at in 0..2 {
        assert_eq!(world.nodes[at].active, session, "the same session");
        assert_eq!(world.nodes[at].packets, sent, "every packet was opened");
        assert_eq!(world.nodes[at].strays, 0);
        assert_eq!(rekeys(&world, at), 34, "each 105 s");
        assert!(world.nodes[at].sent.is_empty(), "nothing by a broker");
        assert!(world.nodes[at].most_keys <= 2);
        assert_eq!(world.nodes[at].machine.refused(), 0);
    }
    assert_eq!(world.keys.len(), keys + 2 * 34, "two new keys each time");
}

#[test]
fn an_idle_session_changes_its_keys_too() {
    let mut world = alone(42, Some(u64::MAX));
    for _ in 0..1000 {
        world.run(1);
        for node in &world.nodes {
            let born = node.machine.view().handshake_at.expect("connected");
            assert!(world.now - born < REKEY_AFTER + Duration::from_secs(2), "old keys");
        }
    }
    assert_eq!((rekeys(&world, 0), rekeys(&world, 1)), (9, 9));
}

#[test]
fn lost_and_repeated_frames_make_no_gap() {
    for (seed, frames) in (0..super::seeds()).map(|seed| (seed, 10 + (seed % 5) as u32 * 10)) {
        let mut world = alone(seed, Some(u64::MAX));
        let session = world.nodes[0].active;
        world.faults = Faults::rough(frames);
        busy(&mut world, 700);
        for at in 0..2 {
            let node = &world.nodes[at];
            assert_eq!(node.active, session, "seed {seed}");
            assert_eq!(node.strays, 0, "seed {seed}: what arrives can be opened");
            assert_eq!(rekeys(&world, at), 6, "seed {seed}");
            assert!(node.most_keys <= 2, "seed {seed}");
        }
    }
}

#[test]
fn former_keys_are_wiped_when_they_are_too_old() {
    let mut world = alone(43, Some(u64::MAX));
    world.run(REKEY_AFTER.as_secs() + 1);
    let openers = |world: &World| world.nodes.iter().map(|it| it.openers()).collect::<Vec<_>>();
    assert_eq!(rekeys(&world, 0), 1);
    assert_eq!(openers(&world), [2, 2], "what is on its way can be opened");
    world.run((KEY_LIFETIME - REKEY_AFTER).as_secs());
    assert_eq!(openers(&world), [1, 1]);
}

#[test]
fn a_worn_key_is_replaced_however_young_it_is() {
    let mut world = alone(44, Some(1000));
    let (session, now) = (world.nodes[0].active.expect("connected"), world.now);
    world.nodes[0].machine.frames(session, 999);
    world.nodes[0].machine.timeout(now);
    world.settle(0);
    world.run(1);
    assert_eq!(rekeys(&world, 0), 0);
    for round in 1..=20 {
        let now = world.now;
        world.nodes[0].machine.frames(session, 1000);
        world.nodes[0].machine.timeout(now);
        world.settle(0);
        busy(&mut world, 1);
        assert_eq!((rekeys(&world, 0), rekeys(&world, 1)), (round, round));
        assert!(world.nodes.iter().all(|node| node.most_keys <= 2));
    }
    assert!(world.nodes.iter().all(|node| node.strays == 0));
}

#[test]
fn the_answerers_count_does_not_begin_a_rekey() {
    let mut world = alone(45, Some(1000));
    let (session, now) = (world.nodes[0].active.expect("connected"), world.now);
    world.nodes[1].machine.frames(session, 5000);
    world.nodes[1].machine.timeout(now);
    assert!(world.nodes[1].machine.poll_output().is_none());
}

#[test]
fn a_session_by_hand_lives_on_whoever_has_the_greater_key() {
    for offerer in 0..2 {
        let mut world = World::new(46, Faults::none());
        super::by_hand::pair(&mut world, offerer);
        let session = world.nodes[0].active;
        world.run(1200);
        world.assert_one_session("by hand");
        assert_eq!(world.nodes[0].active, session);
        assert!(rekeys(&world, 0) >= 10);
    }
}

#[test]
fn a_rekey_that_fails_gives_way_to_a_new_session() {
    let mut world = World::new(47, Faults::none());
    world.start();
    world.run(2);
    let session = world.nodes[0].active;
    world.deaf_to_rekey = true;
    for _ in 0..140 {
        world.run(1);
        assert!(world.nodes.iter().all(|node| node.active.is_some()), "a gap");
    }
    world.assert_one_session("after the renewal");
    assert_ne!(world.nodes[0].active, session);
}

#[test]
fn a_peer_that_cannot_rekey_is_not_asked_to() {
    let mut world = World::with(48, Faults::none(), None);
    world.start();
    world.run(2);
    let (session, now) = (world.nodes[0].active.expect("connected"), world.now);
    let message = RekeyMessage { is_response: false, number: 1, noise: vec![0; 52] };
    world.nodes[1].machine.rekey(now, session, &message);
    assert!(world.nodes[1].machine.poll_output().is_none());
    assert_eq!(world.nodes[1].machine.refused(), 1);
}

#[test]
fn a_forged_or_old_message_changes_nothing() {
    let mut world = alone(49, Some(u64::MAX));
    let (session, now) = (world.nodes[0].active.expect("connected"), world.now);
    let forged = RekeyMessage { is_response: false, number: 1, noise: vec![7; 52] };
    world.nodes[1].machine.rekey(now, session, &forged);
    assert!(world.nodes[1].machine.poll_output().is_none());
    world.run(REKEY_AFTER.as_secs() + 1);
    assert_eq!((rekeys(&world, 0), rekeys(&world, 1)), (1, 1), "the true one came through");
    // As if it had been on its way since: this number was answered, other bytes do not matter.
    let now = world.now;
    world.nodes[1].machine.rekey(now, session, &forged);
    while let Some(output) = world.nodes[1].machine.poll_output() {
        assert!(matches!(&output, Output::SendRekey(_, it) if it.is_response), "{output:?}");
    }
    let response = RekeyMessage { is_response: true, number: 1, noise: vec![7; 52] };
    world.nodes[0].machine.rekey(now, session, &response);
    assert!(world.nodes[0].machine.poll_output().is_none());
    // The offerer does not answer, the answerer does not begin.
    world.nodes[0].machine.rekey(now, session, &forged);
    assert!(world.nodes[0].machine.poll_output().is_none());
}
