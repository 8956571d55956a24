//! What a mesh does in one situation after the other.

use std::time::Duration;

use super::node::Behaviour;
use super::world::World;
use crate::mesh::limits::RELAY_LINGER;
use crate::session::SessionKind;

fn world(nodes: usize) -> World {
    World::new(7, nodes, Behaviour::default())
}

fn chain() -> World {
    let mut world = world(3);
    world.cut(0, 2);
    world.start();
    world.run(4);
    world
}

fn kind(world: &World, from: usize, to: usize) -> Option<SessionKind> {
    world.way(from, to).map(|(kind, _)| kind)
}

/// Sends a packet each way every 50 ms; how long the longest time without one was, at either end.
fn traffic(world: &mut World, a: usize, b: usize, ms: u64) -> Duration {
    let mut silent_since = [world.now; 2];
    let mut longest = Duration::ZERO;
    let mut counts = [world.packets(a, b), world.packets(b, a)];
    for _ in 0..ms / 50 {
        world.send_packet(a, b);
        world.send_packet(b, a);
        world.run_ms(50);
        for (at, (node, other)) in [(a, b), (b, a)].into_iter().enumerate() {
            let count = world.packets(node, other);
            if std::mem::replace(&mut counts[at], count) != count {
                silent_since[at] = world.now;
            }
            longest = longest.max(world.now - silent_since[at]);
        }
    }
    longest
}

/// The same as `ping` does it: `b` only answers.
fn pings(world: &mut World, a: usize, b: usize, ms: u64) -> Duration {
    let mut silent_since = world.now;
    let mut longest = Duration::ZERO;
    let mut counts = [world.packets(a, b), world.packets(b, a)];
    for _ in 0..ms / 100 {
        world.send_packet(a, b);
        for _ in 0..10 {
            world.run_ms(5);
            let asked = world.packets(b, a);
            for _ in std::mem::replace(&mut counts[1], asked)..asked {
                world.send_packet(b, a);
            }
        }
        world.run_ms(50);
        let answered = world.packets(a, b);
        if std::mem::replace(&mut counts[0], answered) != answered {
            silent_since = world.now;
        }
        longest = longest.max(world.now - silent_since);
    }
    longest
}

/// The same, when none may be lost.
fn lossless(world: &mut World, a: usize, b: usize, ms: u64) {
    let before = [world.packets(a, b), world.packets(b, a)];
    traffic(world, a, b, ms);
    world.run_ms(100);
    let sent = u32::try_from(ms / 50).unwrap();
    assert_eq!(world.packets(a, b) - before[0], sent);
    assert_eq!(world.packets(b, a) - before[1], sent);
}

#[test]
fn who_is_cut_off_is_reached_by_a_third() {
    let mut world = chain();
    for (a, b) in [(0, 2), (2, 0)] {
        assert_eq!(kind(&world, a, b), Some(SessionKind::Relayed));
        assert_eq!(world.via(a, b), Some(1));
    }
    assert_eq!(kind(&world, 0, 1), Some(SessionKind::Direct));
    assert_eq!(world.way(0, 2), world.way(2, 0), "one session at both ends");
    lossless(&mut world, 0, 2, 10_000);
    // Keys are changed by relays too: ten minutes, and not a gap.
    for _ in 0..10 {
        world.run(55);
        lossless(&mut world, 0, 2, 5000);
    }
}

#[test]
fn everybody_who_is_reached_directly_needs_no_relay() {
    let mut world = world(4);
    world.start();
    world.run(60);
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            assert_eq!(kind(&world, a, b), Some(SessionKind::Direct));
            assert_eq!(world.sessions(a, b), 1, "no other session was made");
        }
    }
}

#[test]
fn the_direct_path_is_taken_again_without_loss() {
    let mut world = chain();
    world.mend(0, 2);
    // The next attempt finds it.
    lossless(&mut world, 0, 2, 20_000);
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct));
    assert_eq!(kind(&world, 2, 0), Some(SessionKind::Direct));
    lossless(&mut world, 0, 2, (RELAY_LINGER.as_millis() + 10_000).try_into().unwrap());
    assert_eq!((world.sessions(0, 2), world.sessions(2, 0)), (1, 1), "the relay is let go");
}

#[test]
fn a_cut_link_is_an_outage_of_seconds() {
    let mut world = world(3);
    world.start();
    world.run(30);
    let calm = traffic(&mut world, 0, 2, 5000);
    world.cut(0, 2);
    let cut = traffic(&mut world, 0, 2, 20_000);
    println!("without a fault {calm:?}, link cut {cut:?}");
    assert!(cut < Duration::from_secs(5), "{cut:?}");
    assert_eq!(world.via(0, 2), Some(1));
    for (asks, answers) in [(0, 2), (2, 0)] {
        let mut world = self::world(3);
        world.start();
        world.run(30);
        pings(&mut world, asks, answers, 5000);
        world.cut(0, 2);
        let cut = pings(&mut world, asks, answers, 20_000);
        println!("for who pings from {asks} {cut:?}");
        assert!(cut < Duration::from_secs(5), "{cut:?}");
    }
}

#[test]
fn a_link_that_works_one_way_is_not_used() {
    for (from, to) in [(0, 2), (2, 0)] {
        let mut world = world(3);
        world.start();
        world.run(30);
        world.set_link(from, to, false);
        let outage = traffic(&mut world, 0, 2, 30_000);
        println!("cut from {from} to {to}: {outage:?}");
        assert!(outage < Duration::from_secs(8), "{outage:?}");
        for (a, b) in [(0, 2), (2, 0)] {
            assert_eq!(kind(&world, a, b), Some(SessionKind::Relayed), "{a} to {b}");
        }
        world.set_link(from, to, true);
        traffic(&mut world, 0, 2, 40_000);
        assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct));
        assert_eq!(world.way(0, 2), world.way(2, 0));
    }
}

#[test]
fn when_a_relay_dies_another_takes_over() {
    let mut world = world(4);
    world.cut(0, 2);
    world.start();
    world.run(10);
    for _ in 0..3 {
        let relay = world.via(0, 2).unwrap();
        let other = 4 - relay;
        for node in 0..4 {
            world.cut(relay, node);
        }
        let outage = traffic(&mut world, 0, 2, 20_000);
        println!("the relay died: {outage:?}");
        assert!(outage < Duration::from_secs(6), "{outage:?}");
        assert_eq!(world.via(0, 2), Some(other));
        for node in 0..4 {
            world.mend(relay, node);
        }
        world.cut(0, 2);
        world.run(40);
    }
}

#[test]
fn a_relay_that_keeps_what_it_is_given_is_left_for_another() {
    let mut world = world(4);
    world.cut(0, 2);
    // The one that is nearest, as far as anybody can tell.
    world.nodes[1].swallows = true;
    world.slow.insert(3);
    world.start();
    traffic(&mut world, 0, 2, 10_000);
    assert_eq!((world.via(0, 2), world.via(2, 0)), (Some(3), Some(3)));
    // It is tried again now and then, for the case that it has changed its mind.
    let before = world.packets(2, 0);
    let outage = traffic(&mut world, 0, 2, 1_200_000);
    let lost = 24_000 - (world.packets(2, 0) - before);
    println!("the worst relay in 20 minutes: outage {outage:?}, lost {lost} of 24000");
    assert!(outage < Duration::from_secs(4) && lost < 360, "{outage:?}, {lost} lost");
    // The only one there is is tried all the time.
    world.nodes[1].swallows = false;
    for node in 0..4 {
        world.cut(3, node);
    }
    traffic(&mut world, 0, 2, 20_000);
    assert_eq!(world.via(0, 2), Some(1));
    lossless(&mut world, 0, 2, 10_000);
}

#[test]
fn a_relay_whose_way_is_longer_than_it_says_is_judged_by_what_is_measured() {
    let mut world = world(4);
    world.cut(0, 2);
    world.start();
    traffic(&mut world, 0, 2, 40_000);
    let relay = world.via(0, 2).unwrap();
    // It gets slow, and says nothing of it.
    world.nodes[relay].hesitates = true;
    traffic(&mut world, 0, 2, 60_000);
    assert_eq!(world.via(0, 2), Some(4 - relay));
    traffic(&mut world, 0, 2, 300_000);
    assert_eq!(world.via(0, 2), Some(4 - relay), "and is remembered");
}

#[test]
fn a_relay_that_keeps_frames_is_left_after_it_has_worked() {
    let mut world = world(4);
    world.cut(0, 2);
    world.start();
    traffic(&mut world, 0, 2, 10_000);
    let relay = world.via(0, 2).unwrap();
    world.nodes[relay].swallows = true;
    let outage = traffic(&mut world, 0, 2, 20_000);
    assert_eq!(world.via(0, 2), Some(4 - relay));
    assert!(outage < Duration::from_secs(4), "{outage:?}");
}

#[test]
fn with_relaying_off_nothing_is_relayed() {
    let mut world = World::new(7, 3, Behaviour { relay: false, ..Behaviour::default() });
    world.cut(0, 2);
    world.start();
    world.run(60);
    assert_eq!((kind(&world, 0, 2), kind(&world, 2, 0)), (None, None));
    assert_eq!(kind(&world, 0, 1), Some(SessionKind::Direct));
    assert_eq!(world.sessions(0, 2), 0);
}

#[test]
fn without_a_broker_a_new_pair_meets_through_the_mesh() {
    let mut world = chain();
    world.set_broker(false);
    world.run(10);
    world.mend(0, 2);
    world.run(30);
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct));
    // And after a cut that took long enough to end the session.
    world.cut(0, 2);
    traffic(&mut world, 0, 2, 120_000);
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Relayed));
    world.mend(0, 2);
    lossless(&mut world, 0, 2, 30_000);
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct));
    assert!(world.nodes.iter().all(|node| node.said < 100));
}

#[test]
fn a_peer_that_knows_one_reaches_all_while_the_broker_is_down() {
    let mut world = world(5);
    // All but the last are connected when the broker goes.
    for node in 0..4 {
        world.cut(4, node);
    }
    world.start();
    world.run(5);
    world.set_broker(false);
    world.run(60);
    // It finds one of them, as by a broker of their own: only that pair hears anything.
    world.mend(4, 0);
    world.broker = true;
    let now = world.now;
    for (node, peer) in [(4, 0), (0, 4)] {
        world.nodes[node].pair(crate::router::PeerId(peer)).paths.set_broker(now, true);
        world.settle(node, crate::router::PeerId(peer));
    }
    world.run(2);
    assert_eq!(kind(&world, 4, 0), Some(SessionKind::Direct));
    world.set_broker(false);
    world.run(5);
    for node in 1..4 {
        assert_eq!(world.via(4, node), Some(0));
        assert_eq!(world.via(node, 4), Some(0));
    }
    // New direct sessions are made as links come.
    for node in 1..4 {
        world.mend(4, node);
    }
    world.run(30);
    for node in 0..4 {
        assert_eq!(kind(&world, 4, node), Some(SessionKind::Direct), "{node}");
    }
}

#[test]
fn lazy_peers_connect_for_traffic_and_let_go() {
    let idle = Duration::from_secs(60);
    let behaviour = Behaviour { lazy: Some(idle), ..Behaviour::default() };
    let mut world = World::new(7, 3, behaviour);
    world.start();
    world.run(60);
    assert!(world.nodes.iter().all(|node| node.said == 0), "nobody says anything");
    world.send_packet(0, 2);
    world.run(2);
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct));
    assert_eq!(kind(&world, 0, 1), None);
    for _ in 0..10 {
        world.send_packet(0, 2);
        world.run(50);
    }
    assert_eq!(kind(&world, 0, 2), Some(SessionKind::Direct), "it is used");
    world.run(65);
    assert_eq!((kind(&world, 0, 2), kind(&world, 2, 0)), (None, None));
    assert_eq!((world.sessions(0, 2), world.sessions(2, 0)), (0, 0));
    let said: u32 = world.nodes.iter().map(|node| node.said).sum();
    world.run(300);
    assert_eq!(world.nodes.iter().map(|node| node.said).sum::<u32>(), said, "and silence");
    // The other side may begin as well.
    world.send_packet(2, 0);
    world.run(2);
    assert_eq!(kind(&world, 2, 0), Some(SessionKind::Direct));
}

#[test]
fn lazy_peers_are_reached_by_a_relay_that_they_are_connected_to() {
    let behaviour = Behaviour { lazy: Some(Duration::from_secs(60)), ..Behaviour::default() };
    let mut world = World::new(9, 3, behaviour);
    world.cut(0, 2);
    world.start();
    world.send_packet(0, 1);
    world.send_packet(2, 1);
    world.run(2);
    for _ in 0..100 {
        world.send_packet(0, 2);
        world.run_ms(100);
    }
    assert_eq!(world.via(0, 2), Some(1));
    assert!(world.packets(2, 0) > 50);
    // What a session carries for others is a use of it: it is not let go under them.
    lossless(&mut world, 0, 2, 200_000);
    assert_eq!(world.via(0, 2), Some(1));
    world.run(150);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        assert_eq!((world.sessions(a, b), world.sessions(b, a)), (0, 0), "{a} and {b}");
    }
}

#[test]
fn a_session_that_only_the_other_side_wanted_is_let_go_too() {
    let lazy = Behaviour { lazy: Some(Duration::from_secs(60)), ..Behaviour::default() };
    let mut world = World::mixed(5, vec![lazy; 2]);
    world.start();
    world.send_packet(0, 1);
    world.run(2);
    // Who wanted it restarts: nobody wants it any more.
    world.restart(0);
    world.send_packet(0, 1);
    world.run(2);
    assert_eq!(kind(&world, 1, 0), Some(SessionKind::Direct));
    world.run(130);
    assert_eq!((world.sessions(0, 1), world.sessions(1, 0)), (0, 0));
    // A peer that is not lazy keeps its session.
    let mut world = World::mixed(5, vec![lazy, Behaviour::default()]);
    world.start();
    world.run(300);
    assert_eq!(kind(&world, 0, 1), Some(SessionKind::Direct));
    // Nor is one let go that nobody could make again.
    let mut world = World::mixed(5, vec![lazy; 2]);
    world.start();
    world.send_packet(0, 1);
    world.run(2);
    world.set_broker(false);
    world.run(100);
    assert_eq!(kind(&world, 0, 1), Some(SessionKind::Direct));
    world.set_broker(true);
    world.run(2);
    assert_eq!(kind(&world, 0, 1), None);
}

#[test]
fn a_mesh_at_rest_says_little() {
    let mut world = world(5);
    world.start();
    world.run(30);
    let before: u32 = world.nodes.iter().map(|node| node.said).sum();
    world.run(600);
    let said: u32 = world.nodes.iter().map(|node| node.said).sum::<u32>() - before;
    assert_eq!(said, 0, "whoever is connected needs no broker");
}
