//! A session through a TURN server is replaced while a direct path may be had.

use super::super::limits::{BETTER_FIRST, BETTER_MAX};
use super::world::{Faults, World};

/// Both sides say of each session that becomes active which path it has.
fn paths(world: &mut World, by_turn: bool) {
    for at in 0..2 {
        if let Some(id) = world.nodes[at].active {
            let now = world.now;
            world.nodes[at].machine.path_found(now, id, by_turn);
            world.settle(at);
        }
    }
}

fn connected(by_turn: bool) -> World {
    let mut world = World::new(7, Faults::none());
    world.start();
    world.run(2);
    paths(&mut world, by_turn);
    world
}

#[test]
fn a_direct_session_stays() {
    let mut world = connected(false);
    world.run(100);
    assert_eq!(world.nodes[0].offers, 1);
}

#[test]
fn a_session_by_turn_is_replaced_and_ever_more_seldom() {
    let mut world = connected(true);
    let first = world.nodes[0].active;
    let mut offers = vec![];
    for _ in 0..60 {
        world.run(BETTER_FIRST.as_secs());
        paths(&mut world, true);
        offers.push(world.nodes[0].offers);
        world.assert_one_session("while a better path is sought");
    }
    assert_ne!(world.nodes[0].active, first);
    // 10 + 20 + 40 + 80 + 160 s, then each 300 s: some six of them in ten minutes, from either side.
    let tries = offers.last().copied().unwrap_or_default();
    assert!((5..=20).contains(&tries), "{offers:?}");
    assert!(BETTER_MAX >= 10 * BETTER_FIRST);
    // The path is direct now: it stays.
    paths(&mut world, false);
    let offers = world.nodes[0].offers;
    world.run(600);
    assert_eq!(world.nodes[0].offers, offers);
}

#[test]
fn either_side_tries_at_once_when_its_network_changes() {
    for at in 0..2 {
        let mut world = connected(true);
        let now = world.now;
        world.nodes[at].machine.network_changed(now, false);
        world.settle(at);
        let before = world.nodes[0].active;
        world.run(2);
        assert_ne!(world.nodes[0].active, before, "side {at}");
        assert_eq!(world.nodes[0].active, world.nodes[1].active);
    }
}

/// The path of a direct session dies, and its ICE restart finds one by TURN: that is looked at again too.
#[test]
fn a_session_that_came_to_be_by_turn_is_replaced_too() {
    let mut world = connected(false);
    let before = world.nodes[0].active;
    world.path = false;
    world.run(10);
    // ICE tells of the new path before anything is heard by it.
    paths(&mut world, true);
    world.path = true;
    world.run(1);
    assert_eq!(world.nodes[0].active, before, "the session lives on");
    world.run(2 * BETTER_FIRST.as_secs());
    assert_ne!(world.nodes[0].active, before);
    world.assert_one_session("after all");
}

#[test]
fn nothing_is_lost_when_no_better_path_is_found() {
    let mut world = connected(true);
    let before = world.nodes[0].active;
    // The bus takes nothing: the asking ends by itself.
    world.faults.lose = 100;
    world.run(60);
    assert_eq!(world.nodes[0].active, before);
    world.faults.lose = 0;
    world.run(2 * BETTER_MAX.as_secs());
    assert!(world.nodes[0].active.is_some());
    world.assert_one_session("after all");
}
