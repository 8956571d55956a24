use std::time::{Duration, Instant};

use super::{FairQueue, Item, Limits};

mod codel;
mod properties;
mod rules;

/// A packet of a test: which it is, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sized {
    id: usize,
    flow: u64,
    len: usize,
}

impl Item for Sized {
    fn len(&self) -> usize {
        self.len
    }
}

fn sized(flow: u64, len: usize) -> Sized {
    Sized { id: 0, flow, len }
}

fn limits() -> Limits {
    Limits {
        total: 1 << 30,
        per_class: 1 << 30,
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
        quantum: 1500,
        flows: 1024,
    }
}

type Queue = FairQueue<u8, Sized>;

fn nothing_drops(class: u8, item: Sized) {
    panic!("{item:?} of {class} was dropped");
}

fn push(queue: &mut Queue, now: Instant, class: u8, item: Sized) {
    queue.push(now, class, item.flow, item, &mut nothing_drops);
}

/// Class and flow of the next one.
fn pop(queue: &mut Queue, now: Instant) -> Option<(u8, u64)> {
    queue.pop(now, &mut nothing_drops).map(|(class, item)| (class, item.flow))
}
