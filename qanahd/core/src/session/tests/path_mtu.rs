//! Larger packets: tried beside what works, proved both ways, left when they do not pass any more.

use std::time::Duration;

use super::super::limits::{BASE_PACKET, RAISE_AGAIN};
use super::super::*;
use super::world::{Faults, World};

/// What a path of 1500 bytes takes.
const ROOM: u16 = 1412;

fn world() -> World {
    let mut world = World::new(7, Faults::none());
    world.room = Some(ROOM);
    world.start();
    world.run(2);
    world
}

fn sizes(world: &World) -> [Option<u16>; 2] {
    [0, 1].map(|at| world.packet_size(at))
}

fn refused(world: &World, at: usize) -> Vec<(u16, u16)> {
    let events = world.nodes[at].events.iter();
    let refused = events.filter_map(|event| match event {
        Event::LargerRefused { size, passed } => Some((*size, *passed)),
        _ => None,
    });
    refused.collect()
}

#[test]
fn packets_grow_when_there_is_traffic_and_none_is_lost() {
    let mut world = world();
    assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
    world.run(60);
    assert_eq!(sizes(&world), [Some(BASE_PACKET); 2], "nothing is woken for it");
    let passed = world.chat(10);
    assert_eq!(passed, 80, "a packet was lost");
    assert_eq!(sizes(&world), [Some(ROOM); 2]);
    world.assert_one_session("larger");
    let offers = world.nodes[0].offers;
    world.chat(700);
    world.run(100);
    assert_eq!(world.nodes[0].offers, offers, "there is no more to be had");
    world.assert_one_session("later");
    assert_eq!(sizes(&world), [Some(ROOM); 2]);
}

#[test]
fn pings_are_as_large_while_packets_flow() {
    let mut world = world();
    world.chat(10);
    let before = world.nodes[1].machine.view().rtt;
    assert!(before.is_some());
    world.run(700);
    world.assert_one_session("padded pings are answered");
}

#[test]
fn a_path_that_takes_no_more_keeps_what_works() {
    for limits in [[1192; 2], [1192, ROOM], [ROOM, 1192]] {
        let mut world = world();
        world.set_limits(limits);
        let passed = world.chat(60);
        assert_eq!(passed, 480, "{limits:?}: a packet was lost");
        world.assert_one_session("small");
        for (at, limit) in limits.into_iter().enumerate() {
            let size = world.packet_size(at).unwrap();
            assert!(size <= limit.max(BASE_PACKET), "{size} of {limits:?}");
        }
    }
}

#[test]
fn what_was_refused_is_tried_again_after_ten_minutes() {
    let mut world = world();
    world.set_limits([1192; 2]);
    world.chat(30);
    assert_eq!(refused(&world, 0), [(ROOM, BASE_PACKET)]);
    let offers = world.nodes[0].offers;
    world.set_limits([ROOM; 2]);
    world.chat(RAISE_AGAIN.as_secs() - 40);
    assert_eq!(world.nodes[0].offers, offers, "too soon");
    world.chat(40);
    assert_eq!(sizes(&world), [Some(ROOM); 2]);
}

#[test]
fn a_network_that_changed_is_tried_at_once() {
    let mut world = world();
    world.set_limits([1192; 2]);
    world.chat(30);
    world.set_limits([ROOM; 2]);
    let now = world.now;
    world.nodes[0].machine.network_changed(now, false);
    world.nodes[1].machine.network_changed(now, false);
    world.chat(20);
    assert_eq!(sizes(&world), [Some(ROOM); 2]);
}

#[test]
fn a_path_between_two_sizes_is_found() {
    let mut world = world();
    world.set_limits([1404, 1390]);
    assert_eq!(world.chat(40), 320, "a packet was lost");
    assert_eq!(sizes(&world), [Some(1404), Some(1384)]);
    world.assert_one_session("between");
}

#[test]
fn a_path_that_becomes_smaller_costs_seconds_and_one_that_grows_again_is_used_later() {
    for limits in [[1192; 2], [1192, ROOM], [ROOM, 1192]] {
        let mut world = world();
        world.chat(10);
        assert_eq!(sizes(&world), [Some(ROOM); 2]);
        world.set_limits(limits);
        world.chat(5);
        assert_eq!(world.chat(20), 160, "{limits:?}: packets are still lost");
        world.assert_one_session("fallen");
        assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
        world.set_limits([ROOM; 2]);
        world.chat(RAISE_AGAIN.as_secs() + 30);
        assert_eq!(sizes(&world), [Some(ROOM); 2]);
    }
}

#[test]
fn a_path_that_becomes_smaller_while_it_is_idle_is_seen_with_the_first_packets() {
    let mut world = world();
    world.chat(10);
    world.run(30);
    world.set_limits([1192; 2]);
    world.run(100);
    world.assert_one_session("idle");
    assert_eq!(sizes(&world), [Some(ROOM); 2], "an idle path is left alone");
    world.chat(6);
    assert_eq!(world.chat(10), 80);
    assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
}

#[test]
fn a_path_that_is_known_to_be_smaller_is_not_waited_for() {
    for at in 0..2 {
        let mut world = world();
        world.chat(10);
        world.room = Some(1192);
        let (now, session) = (world.now, world.nodes[at].active.unwrap());
        world.nodes[at].machine.path_chosen(now, session, Some(1192));
        world.settle(at);
        world.run(1);
        assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
        assert_eq!(world.chat(200), 1600, "a packet was lost");
        assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
        world.assert_one_session("told");
    }
}

#[test]
fn a_peer_that_restarted_begins_small_and_grows_soon() {
    let mut world = world();
    world.chat(10);
    for at in 0..2 {
        world.restart(at);
        world.run(2);
        world.assert_one_session("restarted");
        assert_eq!(sizes(&world), [Some(BASE_PACKET); 2], "nothing was proved for this session");
        world.chat(10);
        assert_eq!(sizes(&world), [Some(ROOM); 2]);
    }
}

#[test]
fn who_has_no_signaling_tries_nothing() {
    let mut world = world();
    world.nodes[0].machine.signaling_down();
    assert_eq!(world.chat(60), 480);
    assert_eq!(sizes(&world), [Some(BASE_PACKET); 2]);
    assert_eq!(world.nodes[0].offers, 1);
}

#[test]
fn without_the_capability_or_room_nothing_is_tried() {
    let mut world = World::new(7, Faults::none());
    world.start();
    world.run(2);
    world.chat(60);
    assert_eq!(world.nodes[0].offers, 1, "there is no room by a TURN server");
    for at in 0..2 {
        let mut world = World::new(7, Faults::none());
        world.room = Some(ROOM);
        world.nodes[at].machine.settings.capabilities.path_mtu = false;
        world.start();
        world.run(2);
        world.chat(60);
        assert_eq!(world.nodes[0].offers, 1, "one of the two cannot");
    }
}

#[test]
fn an_attempt_whose_messages_are_lost_costs_nothing_and_is_not_hurried() {
    let mut world = world();
    // Hellos pass, the channel never opens.
    world.opens = false;
    assert_eq!(world.chat(600), 4800, "a packet was lost");
    world.assert_one_session("beside a failure");
    let tries = world.nodes[0].offers - 1;
    assert!((2..=6).contains(&tries), "{tries} tries in ten minutes");
    assert!(refused(&world, 0).is_empty(), "that says nothing of the path");
    let failed = |event: &Event| matches!(event, Event::AttemptFailed { .. });
    assert!(!world.nodes[0].events.iter().any(failed), "people see no failure: it is connected");
}

#[test]
fn offers_of_absurd_sizes_are_cut_to_what_our_side_takes() {
    let mut world = World::new(9, Faults::none());
    world.room = Some(ROOM);
    world.start();
    world.run(2);
    // The offerer believes that its path takes as much as can be written.
    let now = world.now;
    let session = world.nodes[0].active.unwrap();
    world.nodes[0].machine.path_chosen(now, session, Some(u16::MAX));
    world.set_limits([1450; 2]);
    assert_eq!(world.chat(60), 480);
    let offered = world.nodes[1].sizes.values().copied().max();
    assert_eq!(offered, Some(ROOM));
    world.assert_one_session("absurd");
    let age = Duration::from_secs(400);
    world.run(age.as_secs());
    world.assert_one_session("later");
}
