//! Random histories of a mesh: whatever happened, once it is quiet everybody who can be reached is, by one session
//! and the best way. A history that fails is made shorter until it fails no more.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::node::Behaviour;
use super::world::{Faults, World};
use crate::session::SessionKind;

/// More by `QANAH_SIM_SEEDS`, as for the histories of one pair.
fn histories() -> u32 {
    let text = std::env::var("QANAH_SIM_SEEDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(30)
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// The same histories in each run, so that a failure is nobody's bad luck.
fn fixed() -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[41; 32])
}

/// Something that happens to a mesh.
#[derive(Debug, Clone, Copy)]
enum Act {
    Cut(usize, usize),
    CutOneWay(usize, usize),
    Mend(usize, usize),
    Restart(usize),
    RestartBoth(usize, usize),
    Broker(bool),
    Traffic(usize, usize),
    /// A link takes packets of at most this size.
    Narrow(usize, usize, u16),
    /// A machine sleeps: nothing gets to it or from it, and its time stands still for others only.
    Isolate(usize),
    Rejoin(usize),
}

fn act(nodes: usize) -> impl Strategy<Value = Act> {
    let node = move || 0..nodes;
    let two = move || (0..nodes, 1..nodes).prop_map(move |(a, step)| (a, (a + step) % nodes));
    prop_oneof![
        4 => two().prop_map(|(a, b)| Act::Cut(a, b)),
        1 => two().prop_map(|(a, b)| Act::CutOneWay(a, b)),
        4 => two().prop_map(|(a, b)| Act::Mend(a, b)),
        2 => node().prop_map(Act::Restart),
        1 => two().prop_map(|(a, b)| Act::RestartBoth(a, b)),
        1 => any::<bool>().prop_map(Act::Broker),
        2 => two().prop_map(|(a, b)| Act::Traffic(a, b)),
        2 => (two(), prop::sample::select(vec![1192, 1390, u16::MAX]))
            .prop_map(|((a, b), size)| Act::Narrow(a, b, size)),
        1 => node().prop_map(Act::Isolate),
        1 => node().prop_map(Act::Rejoin),
    ]
}

fn perform(world: &mut World, act: Act) {
    let all = world.nodes.len();
    match act {
        Act::Cut(a, b) => world.cut(a, b),
        Act::CutOneWay(a, b) => world.set_link(a, b, false),
        Act::Mend(a, b) => world.mend(a, b),
        Act::Restart(node) => world.restart(node),
        Act::RestartBoth(a, b) => {
            world.restart(a);
            world.restart(b);
        }
        Act::Broker(up) => world.set_broker(up),
        Act::Narrow(a, b, size) => world.narrow(a, b, size),
        Act::Traffic(a, b) => {
            for _ in 0..80 {
                world.send_packet(a, b);
                world.send_packet(b, a);
                world.run_ms(100);
            }
        }
        Act::Isolate(node) => (0..all).for_each(|other| world.cut(node, other)),
        Act::Rejoin(node) => (0..all).for_each(|other| world.mend(node, other)),
    }
}

/// Seconds of quiet after which everybody who can be reached is.
const QUIET: u64 = 20;

/// After a while without faults packets pass wherever there is a way.
fn assert_reachable(world: &mut World) -> Result<(), TestCaseError> {
    let all = world.nodes.len();
    let pairs = move || (0..all).flat_map(move |a| (0..all).map(move |b| (a, b)));
    let pairs: Vec<_> = pairs().filter(|(a, b)| a != b && world.is_reachable(*a, *b)).collect();
    // As somebody would who pings all the time.
    for _ in 0..QUIET {
        for (a, b) in &pairs {
            world.send_packet(*a, *b);
        }
        world.run(1);
    }
    let before: Vec<u32> = pairs.iter().map(|(a, b)| world.packets(*b, *a)).collect();
    for (a, b) in &pairs {
        world.send_packet(*a, *b);
    }
    world.run(1);
    for ((a, b), before) in pairs.into_iter().zip(before) {
        let passed = world.packets(b, a) - before;
        prop_assert!(
            passed == 1,
            "{passed} packets from {a} to {b}: {:?}, {:?}",
            world.way(a, b),
            world.via(a, b)
        );
    }
    Ok(())
}

/// After a longer while the way is the best one, and the same at both ends.
fn assert_settled(world: &mut World) -> Result<(), TestCaseError> {
    world.run(150);
    let all = world.nodes.len();
    for a in 0..all {
        for b in a + 1..all {
            let way = world.way(a, b);
            let kind = way.map(|(kind, _)| kind);
            let wanted = if world.is_linked(a, b) {
                Some(SessionKind::Direct)
            } else {
                world.is_reachable(a, b).then_some(SessionKind::Relayed)
            };
            prop_assert_eq!(kind, wanted, "the way from {} to {}", a, b);
            prop_assert_eq!(way, world.way(b, a), "two sessions between {} and {}", a, b);
            // A relayed one stands beside attempts for a direct one.
            let most = if world.is_linked(a, b) { 1 } else { 3 };
            prop_assert!(world.sessions(a, b) <= most, "sessions leak: {}", world.sessions(a, b));
        }
    }
    Ok(())
}

/// Where nobody sends anything any more, nothing is left of what there was.
fn assert_let_go(world: &mut World) -> Result<(), TestCaseError> {
    world.run(250);
    let all = world.nodes.len();
    for (a, b) in (0..all).flat_map(|a| (0..all).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        prop_assert_eq!(world.sessions(a, b), 0, "between {} and {}", a, b);
    }
    let said = |world: &World| world.nodes.iter().map(|node| node.said).sum::<u32>();
    let before = said(world);
    world.run(600);
    prop_assert_eq!(said(world), before, "nobody has anything to say");
    Ok(())
}

/// Nodes of which most relay.
fn behaviours() -> impl Strategy<Value = Vec<Behaviour>> {
    let relay = prop::collection::vec(prop::bool::weighted(0.85), 4);
    relay.prop_map(|nodes| nodes.into_iter().map(|relay| Behaviour { relay, lazy: None }).collect())
}

#[test]
fn whatever_happens_everybody_is_reached_when_it_is_quiet() {
    let config = config(histories());
    let mut runner = TestRunner::new_with_rng(config, fixed());
    let acts = prop::collection::vec((1..30_u64, act(4)), 1..20);
    let outcome = runner.run(&(any::<u64>(), behaviours(), acts), |(seed, behaviours, acts)| {
        let mut world = World::mixed(seed, behaviours);
        world.faults = Faults { lose: 20, repeat: 20, delay_ms: 1500, frames: 5 };
        world.start();
        for (seconds, act) in acts {
            perform(&mut world, act);
            world.run(seconds);
        }
        world.faults = Faults { delay_ms: 50, ..Faults::default() };
        // Who was never connected to anybody needs a broker to begin.
        world.set_broker(true);
        assert_reachable(&mut world)?;
        assert_settled(&mut world)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn whatever_happens_lazy_peers_reach_whom_they_send_to_and_let_go() {
    let mut runner = TestRunner::new_with_rng(config(histories() / 4), fixed());
    let acts = prop::collection::vec((1..30_u64, act(4)), 1..20);
    let outcome = runner.run(&(any::<u64>(), acts), |(seed, acts)| {
        let lazy = Behaviour { lazy: Some(std::time::Duration::from_secs(60)), relay: true };
        let mut world = World::new(seed, 4, lazy);
        world.faults = Faults { lose: 20, repeat: 20, delay_ms: 1500, frames: 5 };
        world.start();
        for (seconds, act) in acts {
            perform(&mut world, act);
            world.run(seconds);
        }
        world.faults = Faults { delay_ms: 50, ..Faults::default() };
        world.set_broker(true);
        // All send to all, so all carry for all.
        assert_reachable(&mut world)?;
        assert_let_go(&mut world)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
