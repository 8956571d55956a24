//! The machines of two peers against each other, over a bus that loses, repeats and reorders.

mod better;
mod by_hand;
mod node;
mod rekey;
mod rules;
mod world;

use world::{Faults, World};

/// Whatever the bus did, and whoever restarted: once it is quiet there is exactly one session.
#[test]
fn every_history_ends_in_one_session() {
    for (seed, rekey) in (0..seeds()).flat_map(|seed| [(seed, None), (seed, Some(200))]) {
        let mut world = World::with(seed, Faults::wild(), rekey);
        world.run_wildly(90);
        world.faults = Faults::none();
        world.run(150);
        world.assert_one_session(&format!("seed {seed}, rekey after {rekey:?}"));
    }
}

/// More by `QANAH_SIM_SEEDS`; each seed is a few milliseconds of real handshakes.
fn seeds() -> u64 {
    std::env::var("QANAH_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}
