//! Frames of packets: taken apart, joined for the kernel, cut up again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qanah_core::frame::{FrameBuf, Segments, packets};
use qanah_core::offload::{Cutter, Joined, Joiner, hand_back};
use qanah_core::packet::clamp_mss;

fuzz_target!(|data: &[u8]| {
    let (mut joiner, mut came, mut went) = (Joiner::default(), 0, 0);
    for packet in packets(data) {
        let Ok(packet) = packet else { break };
        came += packet.as_bytes().len();
        let mut clamped = packet.as_bytes().to_vec();
        clamp_mss(&mut clamped, 1400, false);
        assert_eq!(clamped.len(), packet.as_bytes().len());
        if !joiner.add(&packet) {
            went += taken(joiner.finish());
            assert!(joiner.add(&packet), "the first one always is");
        }
    }
    went += taken(joiner.finish());
    assert_eq!(came, went, "all that came went to the kernel");
});

/// How many bytes of packets go to the kernel.
fn taken(joined: Joined<'_>) -> usize {
    match joined {
        Joined::Nothing => 0,
        Joined::One(packet) => packet.len(),
        Joined::Many(plaintext, count) => {
            let view = Segments::parse(plaintext).expect("it can be handed back");
            let cutter = Cutter::of(&view);
            assert_eq!(cutter.count(), count);
            let mut len = 0;
            for number in 0..count {
                let mut frame = FrameBuf::with_capacity(cutter.longest());
                cutter.add(view.packet().as_bytes(), number, &mut frame).expect("there is room");
                len += frame.len();
            }
            hand_back(plaintext).expect("it can be handed back");
            len
        }
    }
}
