//! One test for each rule.

use super::*;

#[test]
fn a_sparse_flow_does_not_wait_for_a_bulk_flow() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    for _ in 0..100 {
        push(&mut queue, now, 0, sized(1, 1500));
    }
    for _ in 0..10 {
        pop(&mut queue, now);
        push(&mut queue, now, 0, sized(2, 100));
        // Ahead of the bulk flow, whose turn may be going on.
        assert_eq!(pop(&mut queue, now), Some((0, 2)));
        assert_eq!(pop(&mut queue, now), Some((0, 1)));
    }
}

#[test]
fn a_flow_that_comes_back_is_not_new_again_in_the_same_round() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    for flow in 1..=3 {
        for _ in 0..10 {
            push(&mut queue, now, 0, sized(flow, 1500));
        }
    }
    // All three become old.
    for flow in [1, 2, 3] {
        assert_eq!(pop(&mut queue, now), Some((0, flow)));
    }
    push(&mut queue, now, 0, sized(9, 1500));
    assert_eq!(pop(&mut queue, now), Some((0, 9)));
    // It has sent its quantum and stands at the end now, though it was empty in between.
    push(&mut queue, now, 0, sized(9, 1500));
    for flow in [1, 2, 3, 9] {
        assert_eq!(pop(&mut queue, now), Some((0, flow)));
    }
}

#[test]
fn flows_share_bytes_whatever_the_size_of_their_packets() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    for _ in 0..2000 {
        push(&mut queue, now, 0, sized(1, 1500));
        push(&mut queue, now, 0, sized(2, 100));
    }
    let mut sent = [0_usize; 3];
    while sent.iter().sum::<usize>() < 200_000 {
        let (_, item) = queue.pop(now, &mut nothing_drops).unwrap();
        sent[usize::try_from(item.flow).unwrap()] += item.len;
    }
    assert!(sent[1].abs_diff(sent[2]) <= 3000, "{sent:?}");
}

#[test]
fn classes_share_alike_however_many_flows_they_have() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    for flow in 0..100 {
        for _ in 0..10 {
            push(&mut queue, now, 0, sized(flow, 1000));
        }
    }
    for _ in 0..2000 {
        push(&mut queue, now, 1, sized(7, 500));
    }
    let mut sent = [0_usize; 2];
    for _ in 0..600 {
        let (class, item) = queue.pop(now, &mut nothing_drops).unwrap();
        sent[usize::from(class)] += item.len;
        assert!(sent[0].abs_diff(sent[1]) <= 1500 + 1000, "{sent:?}");
    }
}

#[test]
fn what_a_frame_holds_beyond_a_turn_is_paid_back() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    for _ in 0..100 {
        push(&mut queue, now, 1, sized(1, 500));
    }
    let (mut sent, mut turns) = ([0_usize; 2], [0; 2]);
    for _ in 0..70 {
        // This class empties with each frame; that does not forgive its debt.
        while queue.class_bytes(0) < 6000 {
            push(&mut queue, now, 0, sized(0, 500));
        }
        let (class, item) = queue.pop(now, &mut nothing_drops).unwrap();
        sent[usize::from(class)] += item.len;
        turns[usize::from(class)] += 1;
        while class == 0
            && let Some(more) = queue.pop_more(now, 0, |_| true, &mut nothing_drops)
        {
            sent[0] += more.len;
        }
        assert!(sent[0] <= sent[1] + 6000 + 2 * 1500, "{sent:?}");
    }
    assert!(turns[0] >= 5, "{turns:?}");
}

#[test]
fn more_is_taken_only_of_that_class_and_if_it_fits() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    push(&mut queue, now, 0, sized(1, 700));
    push(&mut queue, now, 1, sized(2, 100));
    let mut more = |class, room| {
        let fits = |item: &Sized| item.len <= room;
        queue.pop_more(now, class, fits, &mut nothing_drops).map(|item| item.flow)
    };
    assert_eq!(more(0, 699), None);
    assert_eq!(more(2, 9999), None);
    assert_eq!(more(0, 700), Some(1));
    assert_eq!(more(0, 700), None);
    assert_eq!((queue.len(), queue.bytes()), (1, 100));
}

#[test]
fn a_full_class_drops_the_oldest_of_its_longest_flow() {
    let now = Instant::now();
    let mut queue = Queue::new(Limits { per_class: 10_000, ..limits() });
    for id in 0..9 {
        push(&mut queue, now, 0, Sized { id, flow: 1, len: 1000 });
    }
    push(&mut queue, now, 0, sized(2, 1000));
    push(&mut queue, now, 1, sized(3, 1000));
    let mut lost = Vec::new();
    let mut over = |flow| {
        let dropped = &mut |class, item: Sized| lost.push((class, item.flow, item.id));
        queue.push(now, 0, flow, sized(flow, 1000), dropped);
    };
    over(4);
    over(2);
    assert_eq!(lost, [(0, 1, 0), (0, 1, 1)]);
    assert_eq!((queue.class_bytes(0), queue.class_bytes(1)), (10_000, 1000));
}

#[test]
fn a_full_queue_drops_of_its_longest_class() {
    let now = Instant::now();
    let mut queue = Queue::new(Limits { total: 10_000, ..limits() });
    for _ in 0..8 {
        push(&mut queue, now, 0, sized(1, 1000));
    }
    let mut lost = Vec::new();
    for _ in 0..8 {
        queue.push(now, 1, 2, sized(2, 1000), &mut |class, _| lost.push(class));
    }
    // Until both have their half, of the first one; then the one that wants more pays itself.
    assert_eq!(lost, [0, 0, 0, 1, 1, 1]);
    assert_eq!((queue.class_bytes(0), queue.class_bytes(1)), (5000, 5000));
}

#[test]
fn what_waits_alone_may_be_larger_than_any_limit() {
    let now = Instant::now();
    let mut queue = Queue::new(Limits { total: 0, per_class: 0, ..limits() });
    let mut lost = 0;
    for _ in 0..2 {
        queue.push(now, 0, 1, sized(1, 70_000), &mut |_, _| lost += 1);
        queue.push(now, 0, 2, sized(2, 1), &mut |_, _| lost += 1);
        queue.push(now, 1, 2, sized(2, 70_000), &mut |_, _| lost += 1);
        assert_eq!((queue.len(), queue.bytes()), (1, 70_000));
        assert_eq!(pop(&mut queue, now), Some((0, 1)));
        assert_eq!(pop(&mut queue, now), None);
    }
    assert_eq!(lost, 4);
}

#[test]
fn nothing_is_kept_of_what_has_gone() {
    let (mut queue, now) = (Queue::new(limits()), Instant::now());
    push(&mut queue, now, 200, sized(0, 100));
    push(&mut queue, now, 200, sized(0, 100));
    for class in 0..100 {
        for flow in 0..3 {
            push(&mut queue, now, class, sized(flow, 60_000));
        }
    }
    // Emptied by packing too: its debt is kept while others wait, and no longer.
    while queue.pop_more(now, 0, |_| true, &mut nothing_drops).is_some() {}
    assert_eq!((queue.classes.len(), queue.class_bytes(0)), (101, 0));
    assert_eq!(queue.remove_class(1), 3);
    assert_eq!(queue.remove_class(1), 0);
    while queue.len() > 1 {
        pop(&mut queue, now);
        assert_eq!(queue.classes.len(), queue.ring.len());
    }
    while pop(&mut queue, now).is_some() {}
    // The last one stays, until there is another.
    assert_eq!((queue.classes.len(), queue.ring.len()), (1, 1));
    assert_eq!((queue.bytes(), queue.len()), (0, 0));
    push(&mut queue, now, 250, sized(0, 1));
    assert_eq!(pop(&mut queue, now), Some((250, 0)));
    assert_eq!((queue.classes.len(), queue.ring.len()), (1, 1));

    push(&mut queue, now, 0, sized(0, 60_000));
    push(&mut queue, now, 1, sized(0, 1));
    pop(&mut queue, now);
    assert_eq!(queue.remove_class(1), 1);
    assert!(queue.classes.is_empty() && queue.ring.is_empty(), "the debt of class 0 too");
    assert_eq!(pop(&mut queue, now), None);
}

#[test]
fn classes_emptied_by_drops_leave_nothing() {
    let now = Instant::now();
    let mut queue = FairQueue::new(Limits { total: 5000, ..limits() });
    let mut lost = 0;
    for class in 0..10_000_u32 {
        queue.push(now, class, 0, sized(0, 1000), &mut |_, _| lost += 1);
        assert!(queue.classes.len() <= 6 && queue.ring.len() == queue.classes.len());
    }
    assert_eq!(lost, 9_995);
}

#[test]
fn strange_items_and_limits_end() {
    let now = Instant::now();
    for (len, quantum) in [(0, 0), (usize::MAX, 0), (usize::MAX, usize::MAX), (0, usize::MAX)] {
        let most = usize::MAX;
        let mut queue =
            Queue::new(Limits { total: most, per_class: most, quantum, flows: 0, ..limits() });
        queue.set_target(Duration::ZERO, Duration::MAX);
        for at in 0..1000_u16 {
            push(&mut queue, now, u8::try_from(at % 3).unwrap(), sized(at.into(), len));
        }
        assert!(queue.bytes() >= 1000);
        for _ in 0..1000 {
            assert!(pop(&mut queue, now).is_some());
        }
        assert!(queue.is_empty());
    }
}
