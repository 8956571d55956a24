//! Packets that wait for a peer to be connected, where connections are made when there is traffic.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use qanah_core::router::PeerId;

use crate::egress::Waiting;

/// Packets that wait for one peer at the most. Of more the oldest go: they are the likeliest to have been sent again.
const PER_PEER: usize = 16;
/// Packets that wait in all.
const IN_ALL: usize = 256;
/// How long a packet may wait: as long as making a connection takes, and about as long as TCP waits for its
/// second SYN to be answered.
const LONGEST: Duration = Duration::from_secs(3);

/// The packets that wait.
#[derive(Default)]
pub(crate) struct Held {
    is_used: bool,
    waiting: HashMap<PeerId, VecDeque<(Instant, Waiting)>>,
    count: usize,
}

impl Held {
    /// Holds packets if `is_used`; else gives them all back at once.
    pub(crate) fn new(is_used: bool) -> Self {
        Self { is_used, waiting: HashMap::new(), count: 0 }
    }

    /// Holds a packet, or gives one back that cannot be held (any more).
    pub(crate) fn hold(&mut self, now: Instant, peer: PeerId, packet: Waiting) -> Option<Waiting> {
        if !self.is_used || self.count >= IN_ALL {
            return Some(packet);
        }
        let queue = self.waiting.entry(peer).or_default();
        queue.push_back((now, packet));
        self.count += 1;
        if queue.len() > PER_PEER || queue.front().is_some_and(|(at, _)| now >= *at + LONGEST) {
            self.count -= 1;
            return queue.pop_front().map(|(_, packet)| packet);
        }
        None
    }

    /// Takes out what waits for a peer that is connected now.
    pub(crate) fn take(&mut self, now: Instant, peer: PeerId) -> Vec<Waiting> {
        let queue = self.waiting.remove(&peer).unwrap_or_default();
        self.count -= queue.len();
        let fresh = queue.into_iter().filter(|(at, _)| now < *at + LONGEST);
        fresh.map(|(_, packet)| packet).collect()
    }

    /// Takes out what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(PeerId, Waiting)> {
        let mut old = Vec::new();
        for (peer, queue) in &mut self.waiting {
            while queue.front().is_some_and(|(at, _)| now >= *at + LONGEST) {
                old.extend(queue.pop_front().map(|(_, packet)| (*peer, packet)));
            }
        }
        self.count -= old.len();
        self.waiting.retain(|_, queue| !queue.is_empty());
        old
    }

    /// When [`Held::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let first =
            self.waiting.values().filter_map(|queue| queue.front()).map(|(at, _)| *at).min();
        first.map(|at| at + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use qanah_core::frame::FrameBuf;

    use super::*;

    fn packet(n: u8) -> Waiting {
        let mut buf = FrameBuf::with_capacity(1);
        buf.push(&[n]).unwrap();
        Waiting::packet(buf)
    }

    fn number(packet: &Waiting) -> u8 {
        packet.as_packet()[0]
    }

    #[test]
    fn memory_is_bounded_and_the_latest_packets_stay() {
        let now = Instant::now();
        let mut held = Held::new(true);
        let back: Vec<u8> = (0..20)
            .filter_map(|n| held.hold(now, PeerId(1), packet(n)))
            .map(|it| number(&it))
            .collect();
        assert_eq!(back, [0, 1, 2, 3], "the oldest");
        for peer in 2..100 {
            for n in 0..20 {
                held.hold(now, PeerId(peer), packet(n));
            }
        }
        assert!(held.count <= IN_ALL);
        let kept: Vec<u8> = held.take(now, PeerId(1)).iter().map(number).collect();
        assert_eq!(kept, (4..20).collect::<Vec<u8>>());
        assert!(held.take(now, PeerId(1)).is_empty());
        assert_eq!(held.expire(now + LONGEST).len(), held_before(&held, IN_ALL - 16));
        assert_eq!((held.count, held.next_expiry()), (0, None));
    }

    fn held_before(held: &Held, count: usize) -> usize {
        assert!(held.waiting.is_empty());
        count
    }

    #[test]
    fn what_is_old_is_not_sent() {
        let now = Instant::now();
        let mut held = Held::new(true);
        held.hold(now, PeerId(1), packet(1));
        held.hold(now + Duration::from_secs(1), PeerId(1), packet(2));
        assert_eq!(held.next_expiry(), Some(now + LONGEST));
        assert!(held.expire(now + LONGEST / 2).is_empty());
        let sent: Vec<u8> = held.take(now + LONGEST, PeerId(1)).iter().map(number).collect();
        assert_eq!(sent, [2]);
    }

    #[test]
    fn where_it_is_not_used_nothing_waits() {
        let mut held = Held::new(false);
        assert!(held.hold(Instant::now(), PeerId(1), packet(1)).is_some());
    }
}
