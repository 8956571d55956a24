//! What holds for any sequence of calls.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Push { class: u8, flow: u64, len: usize },
    Pop,
    More { class: u8, room: usize },
    Remove { class: u8 },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0_usize..100, 1000_usize..1600, Just(70_000)];
    prop_oneof![
        12 => (0..4_u8, 0..12_u64, len)
            .prop_map(|(class, flow, len)| Step::Push { class, flow, len }),
        6 => Just(Step::Pop),
        3 => (0..4_u8, 0..2000_usize).prop_map(|(class, room)| Step::More { class, room }),
        1 => (0..4_u8).prop_map(|class| Step::Remove { class }),
        3 => (0..120_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What waits, by class, as one list each.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<u8, Vec<Sized>>,
}

impl Model {
    /// Takes out what was popped or dropped: it was there, and was the first of its flow.
    fn take(&mut self, class: u8, item: Sized, buckets: u64) -> Result<(), TestCaseError> {
        let list = self.waiting.entry(class).or_default();
        let bucket = |item: &Sized| item.flow % buckets;
        let first = list.iter().position(|other| bucket(other) == bucket(&item));
        let first = first.ok_or_else(|| TestCaseError::fail(format!("{item:?} is not there")))?;
        prop_assert_eq!(list.remove(first), item);
        Ok(())
    }

    fn agrees(&self, queue: &Queue) -> Result<(), TestCaseError> {
        let bytes = |list: &Vec<Sized>| list.iter().map(|item| item.len.max(1)).sum::<usize>();
        prop_assert_eq!(queue.len(), self.waiting.values().map(Vec::len).sum::<usize>());
        prop_assert_eq!(queue.bytes(), self.waiting.values().map(bytes).sum::<usize>());
        for class in 0..4 {
            let expected = self.waiting.get(&class).map_or(0, bytes);
            prop_assert_eq!(queue.class_bytes(class), expected);
        }
        prop_assert_eq!(queue.is_empty(), self.waiting.values().all(Vec::is_empty));
        Ok(())
    }
}

/// Does one step in both. Returns what was dropped.
fn go(
    queue: &mut Queue,
    model: &mut Model,
    now: &mut Instant,
    (id, step): (usize, Step),
) -> Result<usize, TestCaseError> {
    let buckets = u64::try_from(queue.limits.flows).unwrap();
    let mut dropped = Vec::new();
    let mut drop = |class, item| dropped.push((class, item));
    let mut popped = None;
    match step {
        Step::Push { class, flow, len } => {
            let item = Sized { id, flow, len };
            model.waiting.entry(class).or_default().push(item);
            queue.push(*now, class, flow, item, &mut drop);
        }
        Step::Pop => {
            let waiting = !queue.is_empty();
            popped = queue.pop(*now, &mut drop);
            prop_assert_eq!(popped.is_some(), waiting);
        }
        Step::More { class, room } => {
            let item = queue.pop_more(*now, class, |item| item.len <= room, &mut drop);
            prop_assert!(item.is_none_or(|item| item.len <= room));
            popped = item.map(|item| (class, item));
        }
        Step::Remove { class } => {
            let gone = model.waiting.remove(&class).unwrap_or_default();
            prop_assert_eq!(queue.remove_class(class), gone.len());
        }
        Step::Wait { ms } => *now += Duration::from_millis(ms),
    }
    // A push that finds no room drops the new one, which is not the first of its flow.
    if let Step::Push { class, .. } = step
        && let [(of, item)] = dropped[..]
        && (of, item.id) == (class, id)
    {
        prop_assert_eq!(model.waiting.get_mut(&class).and_then(Vec::pop), Some(item));
        return Ok(1);
    }
    for (class, item) in dropped.iter().copied().chain(popped) {
        model.take(class, item, buckets)?;
    }
    Ok(dropped.len())
}

proptest! {
    #[test]
    fn everything_comes_out_once_and_in_order(
        steps in prop::collection::vec(step(), 1..400),
        total in prop_oneof![Just(0), 1_usize..200_000],
        per_class in prop_oneof![Just(0), 1_usize..100_000],
        quantum in 0_usize..3000,
        flows in 1_usize..8,
    ) {
        let mut queue = Queue::new(Limits { total, per_class, quantum, flows, ..limits() });
        let (mut model, mut now) = (Model::default(), Instant::now());
        for step in steps.into_iter().enumerate() {
            go(&mut queue, &mut model, &mut now, step)?;
            model.agrees(&queue)?;
            prop_assert!(queue.bytes() <= total || queue.len() == 1);
            for list in model.waiting.values() {
                let bytes: usize = list.iter().map(|item| item.len.max(1)).sum();
                prop_assert!(bytes <= per_class || list.len() == 1);
            }
            let in_ring: HashSet<_> = queue.ring.iter().copied().collect();
            prop_assert_eq!(in_ring.len(), queue.ring.len());
            prop_assert!(queue.classes.keys().all(|class| in_ring.contains(class)));
            prop_assert_eq!(queue.classes.len(), queue.ring.len());
        }
        while !queue.is_empty() {
            go(&mut queue, &mut model, &mut now, (0, Step::Pop))?;
        }
        model.agrees(&queue)?;
    }

    /// Deficit round robin: between two that always have something waiting the difference is at most a
    /// quantum and the largest packet of each (Shreedhar and Varghese, lemma 2 and theorem 3).
    #[test]
    fn those_who_always_wait_get_the_same(
        lens in prop::collection::vec(prop::collection::vec(40_usize..1500, 1..6), 2..6),
        quantum in 256_usize..4000,
        by_class in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut queue = Queue::new(Limits { quantum, ..limits() });
        let mut sent = vec![0_usize; lens.len()];
        let mut ids = vec![0_usize; lens.len()];
        let mut add = |queue: &mut Queue, who: usize| {
            let len = lens[who][ids[who] % lens[who].len()];
            ids[who] += 1;
            let item = sized(u64::try_from(who).unwrap(), len);
            let class = if by_class { u8::try_from(who).unwrap() } else { 0 };
            push(queue, now, class, item);
        };
        for who in 0..lens.len() {
            // Two, so that none is ever without.
            add(&mut queue, who);
            add(&mut queue, who);
        }
        for _ in 0..600 {
            let (_, item) = queue.pop(now, &mut nothing_drops).unwrap();
            let who = usize::try_from(item.flow).unwrap();
            sent[who] += item.len;
            add(&mut queue, who);
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            prop_assert!(most - least <= quantum + 2 * 1500, "{:?}", sent);
        }
    }
}
