//! A session through a TURN server is replaced while a direct path may be had, and one by IPv4 when IPv6 comes.

use super::super::PathClass;
use super::super::limits::{BETTER_FIRST, BETTER_MAX, IPV6_TRIES};
use super::world::{Faults, World};

/// Both sides say of each session that becomes active which path it has.
fn paths(world: &mut World, path: PathClass) {
    for at in 0..2 {
        if let Some(id) = world.nodes[at].active {
            let now = world.now;
            world.nodes[at].machine.path_found(now, id, path);
            world.settle(at);
        }
    }
}

fn connected(path: PathClass) -> World {
    let mut world = World::new(7, Faults::none());
    world.start();
    world.run(2);
    paths(&mut world, path);
    world
}

#[test]
fn a_direct_session_stays() {
    let mut world = connected(PathClass::Ipv4);
    world.run(100);
    assert_eq!(world.nodes[0].offers, 1);
}

#[test]
fn a_session_by_turn_is_replaced_and_ever_more_seldom() {
    let mut world = connected(PathClass::ByTurn);
    let first = world.nodes[0].active;
    let mut offers = vec![];
    for _ in 0..60 {
        world.run(BETTER_FIRST.as_secs());
        paths(&mut world, PathClass::ByTurn);
        offers.push(world.nodes[0].offers);
        world.assert_one_session("while a better path is sought");
    }
    assert_ne!(world.nodes[0].active, first);
    // 10 + 20 + 40 + 80 + 160 s, then each 300 s: some six of them in ten minutes, from either side.
    let tries = offers.last().copied().unwrap_or_default();
    assert!((5..=20).contains(&tries), "{offers:?}");
    assert!(BETTER_MAX >= 10 * BETTER_FIRST);
    // The path is direct now: it stays.
    paths(&mut world, PathClass::Ipv4);
    let offers = world.nodes[0].offers;
    world.run(600);
    assert_eq!(world.nodes[0].offers, offers);
}

#[test]
fn either_side_tries_at_once_when_its_network_changes() {
    for at in 0..2 {
        let mut world = connected(PathClass::ByTurn);
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
    let mut world = connected(PathClass::Ipv4);
    let before = world.nodes[0].active;
    world.path = false;
    world.run(10);
    // ICE tells of the new path before anything is heard by it.
    paths(&mut world, PathClass::ByTurn);
    world.path = true;
    world.run(1);
    assert_eq!(world.nodes[0].active, before, "the session lives on");
    world.run(2 * BETTER_FIRST.as_secs());
    assert_ne!(world.nodes[0].active, before);
    world.assert_one_session("after all");
}

#[test]
fn nothing_is_lost_when_no_better_path_is_found() {
    let mut world = connected(PathClass::ByTurn);
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

/// IPv6 comes to one side of a session by IPv4.
fn ipv6_comes(world: &mut World, at: usize) {
    world.ipv6[at] = true;
    let now = world.now;
    world.nodes[at].machine.network_changed(now, false);
    world.nodes[at].machine.ipv6_came(now);
    world.settle(at);
}

/// Goes on until another session is live, which has this path, for at most so many times [`BETTER_FIRST`].
fn replaced(world: &mut World, path: PathClass, limit: u32) -> bool {
    let before = world.nodes[0].active;
    for _ in 0..limit * 10 {
        world.run(BETTER_FIRST.as_secs() / 10);
        if world.nodes[0].active != before {
            paths(world, path);
            return true;
        }
    }
    false
}

#[test]
fn a_session_by_ipv4_is_replaced_when_ipv6_has_come_to_both() {
    // Whoever has it last sees to it.
    for last in 0..2 {
        let mut world = connected(PathClass::Ipv4);
        world.ipv6[1 - last] = true;
        ipv6_comes(&mut world, last);
        assert!(replaced(&mut world, PathClass::Ipv6, 2), "side {last}");
        world.assert_one_session("by IPv6");
        // It stays.
        let offers = world.nodes[0].offers;
        world.run(600);
        assert_eq!(world.nodes[0].offers, offers);
    }
}

#[test]
fn a_peer_without_ipv6_is_asked_once() {
    for at in 0..2 {
        let mut world = connected(PathClass::Ipv4);
        ipv6_comes(&mut world, at);
        assert!(replaced(&mut world, PathClass::Ipv4, 2), "side {at}");
        let offers = world.nodes[0].offers;
        world.run(600);
        assert_eq!(world.nodes[0].offers, offers, "side {at}");
        // When the peer gets it, that sees to it.
        ipv6_comes(&mut world, 1 - at);
        assert!(replaced(&mut world, PathClass::Ipv6, 2), "side {at}");
    }
}

#[test]
fn ipv6_that_does_not_work_is_tried_a_few_times() {
    let mut world = connected(PathClass::Ipv4);
    ipv6_comes(&mut world, 0);
    ipv6_comes(&mut world, 1);
    let before = world.nodes[0].offers;
    let mut sessions = 0;
    while replaced(&mut world, PathClass::Ipv4, 20) {
        sessions += 1;
        assert!(sessions <= 2 * IPV6_TRIES, "it never ends");
        world.assert_one_session("while IPv6 does not work");
    }
    // Either side has its tries, and those at the same time are one.
    assert!(sessions >= IPV6_TRIES, "{sessions}");
    assert!(world.nodes[0].offers - before <= 2 * IPV6_TRIES);
}

/// The path dies and is mended by IPv4 before the try for IPv6 was due.
#[test]
fn ipv6_that_came_before_a_path_was_lost_is_not_forgotten() {
    let mut world = connected(PathClass::Ipv4);
    world.ipv6[1] = true;
    ipv6_comes(&mut world, 0);
    world.path = false;
    world.run(9);
    paths(&mut world, PathClass::Ipv4);
    world.path = true;
    assert!(replaced(&mut world, PathClass::Ipv6, 3));
    world.assert_one_session("by IPv6");
}

/// As when a machine boots: the first session is begun before there is IPv6.
#[test]
fn ipv6_that_comes_while_a_session_is_made_is_not_forgotten() {
    let mut world = World::new(7, Faults::none());
    world.start();
    world.run_ms(50);
    assert!(world.nodes[0].active.is_none() && world.nodes[0].offers == 1);
    world.ipv6[1] = true;
    ipv6_comes(&mut world, 0);
    world.run(5);
    assert!(world.nodes[0].active.is_some());
    paths(&mut world, PathClass::Ipv4);
    assert!(replaced(&mut world, PathClass::Ipv6, 3));
    world.assert_one_session("by IPv6");
}

/// Somebody on the local network announces IPv6 and takes it back, again and again.
#[test]
fn a_network_that_changes_all_the_time_makes_few_sessions() {
    const SECONDS: u64 = 600;
    for path in [PathClass::Ipv4, PathClass::ByTurn] {
        let mut world = connected(path);
        let before = world.nodes[0].offers;
        for second in 0..SECONDS {
            ipv6_comes(&mut world, usize::from(second % 2 == 0));
            world.run(1);
            paths(&mut world, path);
            world.assert_one_session("while the network changes");
        }
        // Either side waits for three quarters of the first pause at the least.
        let most = 2 * SECONDS * 4 / (3 * BETTER_FIRST.as_secs());
        let made = u64::from(world.nodes[0].offers - before);
        assert!((1..=most).contains(&made), "{path:?}: {made} sessions");
    }
}
