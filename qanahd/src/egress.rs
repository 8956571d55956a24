//! What waits to leave by one channel, and when it may.
//!
//! A channel takes no more than keeps its path busy ([`Window`]); the rest waits here, in order of fairness between
//! those whose it is and between their flows ([`FairQueue`]). Small packets that wait together leave in one frame.

use std::time::{Duration, Instant};

use qanah_core::frame::{FrameBuf, FrameType, OVERHEAD, SEGMENTS_HEADER_LEN, Segments};
use qanah_core::offload::Cutter;
use qanah_core::queue::{FairQueue, Item, Limits};
use qanah_core::router::PeerId;
use qanah_core::signal::Capabilities;
use qanah_core::window::Window;

/// Bytes that wait for one peer from all, ourselves among them: what its path carries in [`LONGEST`], within these
/// bounds. Of what is too much, those give way who have most.
const LEAST_IN_ALL: usize = 512 * 1024;
pub(crate) const IN_ALL: usize = 4 * 1024 * 1024;
const LONGEST: Duration = Duration::from_millis(200);
/// The same for those of one peer, at the most.
pub(crate) const PER_CLASS: usize = IN_ALL / 2;
/// How long something may wait, and for as long as what goes on. The interval is a round trip of what passes, at least
/// the usual one; the target is a twentieth of it (RFC 8289, section 4).
const INTERVAL: Duration = Duration::from_millis(100);
const TARGET_SHARE: u32 = 20;
/// A path by satellite, with another one behind it. What is longer was measured wrongly.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of a turn (RFC 8290, section 5.2): a packet of the usual MTU.
const QUANTUM: usize = 1514;
/// Flows of one class that are told apart (RFC 8290, section 5.2).
const FLOWS: usize = 1024;

/// Plaintext of a frame of packets, at most, in bytes: what measures best.
const MAX_PACKED: usize = 16 * 1024;
/// A frame that loses one of its parts waits for it, and one that is large keeps others waiting. So a frame of packets
/// is as long as what passes in this time, and a packet that stands for many is no longer than what passes in that.
/// Where loss or a bottleneck makes a path slow, that is one packet.
const PACKED: Duration = Duration::from_millis(1);
const WHOLE: Duration = Duration::from_millis(4);

/// Whose it is that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Ours for this peer. It may be one beyond the one whose channel it is.
    Ours(PeerId),
    /// Ours for nobody's addresses: the peer routes it.
    Transit,
    /// Of this peer: we pass it on.
    Of(PeerId),
}

/// What it is that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// One IP packet.
    Packet,
    /// One packet that stands for many, as in a frame of segments.
    Segments,
    /// The plaintext of a frame of this type, to be passed on.
    PassedOn(FrameType),
}

/// Something that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) what: What,
    pub(crate) buf: FrameBuf,
}

impl Waiting {
    /// One IP packet.
    pub(crate) const fn packet(buf: FrameBuf) -> Self {
        Self { what: What::Packet, buf }
    }

    /// The IP packet, where it is one.
    pub(crate) fn as_packet(&self) -> &[u8] {
        match self.what {
            What::Packet => self.buf.plaintext(),
            What::Segments => self.buf.plaintext().get(SEGMENTS_HEADER_LEN..).unwrap_or_default(),
            What::PassedOn(_) => &[],
        }
    }
}

impl Waiting {
    /// The packets that it stands for, each in a buffer of its own.
    pub(crate) fn into_packets(self) -> Vec<FrameBuf> {
        if self.what == What::Packet {
            return vec![self.buf];
        }
        let Ok(view) = Segments::parse(self.buf.plaintext()) else {
            return Vec::new();
        };
        let one_each = Capabilities::default();
        cut(&Cutter::of(&view), view.packet().as_bytes(), &one_each)
    }
}

impl Item for Waiting {
    fn len(&self) -> usize {
        self.buf.len()
    }
}

/// What waits for one peer's channel.
pub(crate) struct Egress {
    pub(crate) queue: FairQueue<Class, Waiting>,
    window: Window,
}

impl Egress {
    pub(crate) fn new(now: Instant) -> Self {
        let limits = Limits {
            total: IN_ALL,
            per_class: PER_CLASS,
            target: INTERVAL / TARGET_SHARE,
            interval: INTERVAL,
            quantum: QUANTUM,
            flows: FLOWS,
        };
        Self { queue: FairQueue::new(limits), window: Window::new(now) }
    }

    /// Another channel takes what waits.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.window = Window::new(now);
    }

    /// Takes something that is to wait. What gives way to it is `dropped`.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        class: Class,
        flow: u64,
        waiting: Waiting,
        dropped: &mut impl FnMut(Class, Waiting),
    ) {
        let total = self.window.in_time(LONGEST).clamp(LEAST_IN_ALL, IN_ALL);
        self.queue.set_limits(total, total / 2);
        let interval =
            self.window.round_trip().map_or(INTERVAL, |it| it.clamp(INTERVAL, LONGEST_INTERVAL));
        self.queue.set_target(interval / TARGET_SHARE, interval);
        if waiting.what == What::Segments && waiting.buf.len() > self.window.in_time(WHOLE) {
            for packet in waiting.into_packets() {
                self.queue.push(now, class, flow, Waiting::packet(packet), dropped);
            }
        } else {
            self.queue.push(now, class, flow, waiting, dropped);
        }
    }

    /// Whether the channel, which has so many bytes that have not arrived, may take something.
    pub(crate) fn has_room(&mut self, now: Instant, outstanding: usize) -> bool {
        self.window.outstanding(now, outstanding);
        outstanding < self.window.size()
    }

    /// The channel took a frame of so many bytes.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        self.window.sent(now, bytes, !self.queue.is_empty());
    }

    /// Packs packets that wait with the first one into one frame, as many as the receiver takes. Returns how many.
    pub(crate) fn pack(
        &mut self,
        now: Instant,
        class: Class,
        first: FrameBuf,
        receiver: &Capabilities,
        dropped: &mut impl FnMut(Class, Waiting),
    ) -> (FrameBuf, usize) {
        let most = usize::from(receiver.max_packets.max(1));
        let limit = MAX_PACKED.min(plaintext_limit(receiver)).min(self.window.in_time(PACKED));
        let (mut len, mut more) = (first.len(), Vec::new());
        while more.len() + 1 < most
            && let Some(next) = self.queue.pop_more(
                now,
                class,
                |next| next.what == What::Packet && len + next.buf.len() <= limit,
                dropped,
            )
        {
            len += next.buf.len();
            more.push(next.buf);
        }
        if more.is_empty() {
            return (first, 1);
        }
        let mut frame = FrameBuf::with_capacity(len);
        for packet in std::iter::once(&first).chain(&more) {
            // There is room for all of them.
            let _ = frame.push(packet.plaintext());
        }
        (frame, 1 + more.len())
    }
}

/// The longest plaintext of a frame to this receiver; of one that says nothing, any single packet.
pub(crate) fn plaintext_limit(receiver: &Capabilities) -> usize {
    match receiver.max_frame as usize {
        0 => usize::MAX,
        max_frame => max_frame.saturating_sub(OVERHEAD),
    }
}

/// Cuts a packet up for a receiver that wants whole packets.
pub(crate) fn cut(cutter: &Cutter, packet: &[u8], receiver: &Capabilities) -> Vec<FrameBuf> {
    let most = usize::from(receiver.max_packets.max(1));
    let limit = plaintext_limit(receiver);
    let each = cutter.longest();
    let together = (limit / each.max(1)).clamp(1, most);
    let mut frames = Vec::with_capacity(cutter.count().div_ceil(together));
    let mut frame = FrameBuf::with_capacity(each * together.min(cutter.count()));
    for number in 0..cutter.count() {
        if frame.packets() == together {
            let left = cutter.count() - number;
            let next = FrameBuf::with_capacity(each * together.min(left));
            frames.push(std::mem::replace(&mut frame, next));
        }
        // There is room: none of them is longer than that.
        let _ = cutter.add(packet, number, &mut frame);
    }
    frames.push(frame);
    frames
}
