//! The machines of two peers against each other, over a bus that loses, repeats and reorders.

mod better;
mod by_hand;
mod node;
mod path_mtu;
mod rekey;
mod rules;
mod world;

use super::limits;
use world::{Faults, World};

/// Whatever the bus did, and whoever restarted: once it is quiet there is exactly one session.
#[test]
fn every_history_ends_in_one_session() {
    let mut larger = 0;
    for (seed, rekey) in (0..seeds()).flat_map(|seed| [(seed, None), (seed, Some(200))]) {
        let mut world = World::with(seed, Faults::wild(), rekey);
        world.room = Some(1412).filter(|_| seed % 4 != 0);
        world.run_wildly(90);
        world.faults = Faults::none();
        world.run(150);
        let context =
            format!("seed {seed}, rekey after {rekey:?}, packets up to {:?}", world.limits);
        world.assert_one_session(&context);
        // Packets pass, whatever the path takes.
        world.chat(15);
        assert_eq!(world.chat(5), 40, "{context}");
        world.run(60);
        world.assert_one_session(&context);
        larger += u32::from(world.packet_size(0) > Some(limits::BASE_PACKET));
    }
    assert!(larger > 0, "no history ends with larger packets");
}

/// More by `QANAH_SIM_SEEDS`; each seed is a few milliseconds of real handshakes.
fn seeds() -> u64 {
    std::env::var("QANAH_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}
