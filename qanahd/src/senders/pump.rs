//! From what waits to the channels.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

use qanah_core::frame::{FrameBuf, FrameType, SegmentKind, Segments};
use qanah_core::offload::Cutter;
use qanah_core::packet::Packet;
use qanah_core::router::PeerId;
use qanah_core::signal::SessionId;

use super::{Outlet, Senders};
use crate::books::Books;
use crate::clock;
use crate::egress::{Class, Egress, Waiting, What, cut, plaintext_limit};
use crate::stats::Drop;

/// Keys the hash by which flows are told apart: whose packets wait with whose is not for strangers to choose.
static FLOW_KEYS: OnceLock<RandomState> = OnceLock::new();

fn flow(waiting: &Waiting) -> u64 {
    let mut state = FLOW_KEYS.get_or_init(RandomState::new).build_hasher();
    if let Ok(packet) = Packet::parse(waiting.as_packet()) {
        packet.hash_flow(&mut state);
    }
    state.finish()
}

impl Senders {
    /// Whether something waits for room in a channel.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends what there is room for, to all.
    pub(crate) fn pump_all(&mut self) {
        for peer in std::mem::take(&mut self.backlog) {
            self.pump(peer);
        }
    }

    pub(super) fn enqueue(&mut self, carrier: PeerId, class: Class, waiting: Waiting) {
        let now = clock::now();
        let books = Rc::clone(&self.books);
        let ways = self.ways.entry(carrier).or_default();
        let egress = ways.egress.get_or_insert_with(|| Box::new(Egress::new(now)));
        let hash = flow(&waiting);
        egress.push(now, class, hash, waiting, &mut |class, _| {
            count_drop(&books, carrier, class, Drop::QueueFull);
        });
        self.backlog.insert(carrier);
    }

    /// Sends what there is room for in the channel to this peer.
    pub(crate) fn pump(&mut self, peer: PeerId) {
        let now = clock::now();
        let Some(mut egress) = self.ways.get_mut(&peer).and_then(|ways| ways.egress.take()) else {
            self.backlog.remove(&peer);
            return;
        };
        let books = Rc::clone(&self.books);
        let mut dropped = |class, _| count_drop(&books, peer, class, Drop::QueueFull);
        while self.has_room(now, peer, &mut egress)
            && let Some((class, waiting)) = egress.queue.pop(now, &mut dropped)
        {
            if let Err(cause) = self.dispatch(now, peer, &mut egress, class, waiting) {
                count_drop(&self.books, peer, class, cause);
            }
        }
        if egress.queue.is_empty() {
            self.backlog.remove(&peer);
        } else {
            self.backlog.insert(peer);
        }
        if let Some(ways) = self.ways.get_mut(&peer) {
            ways.egress = Some(egress);
        }
    }

    /// Whether the channel to a peer takes more. Where there is none, what waits is to go another way at once.
    fn has_room(&self, now: Instant, peer: PeerId, egress: &mut Egress) -> bool {
        let session = self.direct(peer).ok().and_then(|id| self.sessions.get(&(peer, id)));
        match session.map(|session| &session.outlet) {
            Some(Outlet::Channel(channel)) => {
                channel.outstanding_bytes().is_none_or(|waiting| egress.has_room(now, waiting))
            }
            _ => true,
        }
    }

    /// Sends something that has waited for the channel to `carrier`.
    fn dispatch(
        &mut self,
        now: Instant,
        carrier: PeerId,
        egress: &mut Egress,
        class: Class,
        waiting: Waiting,
    ) -> Result<(), Drop> {
        match (class, waiting.what) {
            (Class::Ours(peer), _) => {
                let way = self.carrier(peer).ok_or(Drop::NotConnected)?;
                if way != carrier {
                    // The way has changed while it waited.
                    self.enqueue(way, class, waiting);
                    return Ok(());
                }
                let chosen = self.ways.get(&peer).and_then(|ways| ways.chosen);
                let id = (peer, chosen.ok_or(Drop::NotConnected)?);
                self.send_own(now, id, egress, class, waiting)
            }
            (Class::Transit, _) => {
                let peer = self.transit.ok_or(Drop::NoRoute)?;
                let id = (peer, self.direct(peer)?);
                if peer != carrier {
                    self.enqueue(peer, class, waiting);
                    return Ok(());
                }
                self.send_packed(now, id, egress, class, waiting.buf, FrameType::Transit)
            }
            (Class::Of(from), What::PassedOn(kind)) => {
                // Who was removed while this waited is carried no more.
                self.name(from).ok_or(Drop::RelayRefused)?;
                let id = (carrier, self.direct(carrier)?);
                let len = waiting.buf.len();
                let sent = self.send(id, kind, waiting.buf)?;
                egress.sent(now, sent);
                self.books.passed(from, carrier, len);
                self.note_sent(id);
                Ok(())
            }
            // Nobody puts such a thing there.
            (Class::Of(_), What::Packet | What::Segments) => Ok(()),
        }
    }

    /// Sends a packet of ours, or one that stands for many, and what can go with it.
    fn send_own(
        &mut self,
        now: Instant,
        id: (PeerId, SessionId),
        egress: &mut Egress,
        class: Class,
        waiting: Waiting,
    ) -> Result<(), Drop> {
        if waiting.what == What::Packet {
            return self.send_packed(now, id, egress, class, waiting.buf, FrameType::Packets);
        }
        let receiver = self.sessions.get(&id).ok_or(Drop::NotConnected)?.capabilities;
        let view = Segments::parse(waiting.buf.plaintext()).map_err(|_| Drop::BadPacket)?;
        let (count, len) = (view.count(), view.packet().as_bytes().len());
        let takes = match view.kind() {
            SegmentKind::Tcp => receiver.tcp_segments,
            SegmentKind::Udp => receiver.udp_segments,
        };
        if takes && waiting.buf.len() <= plaintext_limit(&receiver) {
            let sent = self.send(id, FrameType::Segments, waiting.buf)?;
            egress.sent(now, sent);
        } else {
            let frames = cut(&Cutter::of(&view), view.packet().as_bytes(), &receiver);
            for frame in frames {
                let sent = self.send(id, FrameType::Packets, frame)?;
                egress.sent(now, sent);
            }
        }
        self.books.sent(id.0, count, len);
        self.note_sent(id);
        Ok(())
    }

    fn send_packed(
        &mut self,
        now: Instant,
        id: (PeerId, SessionId),
        egress: &mut Egress,
        class: Class,
        first: FrameBuf,
        kind: FrameType,
    ) -> Result<(), Drop> {
        let receiver = self.sessions.get(&id).ok_or(Drop::NotConnected)?.capabilities;
        let books = Rc::clone(&self.books);
        let mut dropped = |class, _| count_drop(&books, id.0, class, Drop::QueueFull);
        let (frame, packets) = egress.pack(now, class, first, &receiver, &mut dropped);
        let len = frame.len();
        match self.send(id, kind, frame) {
            Ok(sent) => egress.sent(now, sent),
            Err(cause) => {
                // The caller counts one of them.
                (1..packets).for_each(|_| self.books.dropped(id.0, cause));
                return Err(cause);
            }
        }
        self.books.sent(id.0, packets, len);
        self.note_sent(id);
        Ok(())
    }
}

/// Writes down that something that waited for the channel to `carrier` was dropped.
fn count_drop(books: &Books, carrier: PeerId, class: Class, cause: Drop) {
    match class {
        Class::Ours(peer) => books.dropped(peer, cause),
        Class::Transit => books.dropped(carrier, cause),
        Class::Of(from) => {
            let cause = if cause == Drop::QueueFull { Drop::RelayFull } else { cause };
            books.not_passed(from, carrier, cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures_util::FutureExt as _;
    use qanah_core::key::PublicKey;
    use qanah_core::seal::{CarrierKey, Sealer};
    use qanah_core::session::SessionKind;
    use qanah_core::signal::{Capabilities, PeerName};
    use tokio::sync::mpsc;

    use super::*;
    use crate::rtc::Channel;
    use crate::senders::NewSession;
    use crate::tunnel::Address;

    const FROM: PeerId = PeerId(1);
    const TO: PeerId = PeerId(2);

    #[test]
    fn what_waits_of_a_peer_that_was_removed_is_not_passed_on() {
        let books = Rc::<Books>::default();
        let mut senders = Senders::new(Rc::clone(&books));
        let (near, mut far) = Channel::pipe(8);
        let session = SessionId([1; 16]);
        let new = NewSession {
            sealer: Sealer::new(CarrierKey::from_bytes([7; 32]), 1),
            outlet: Outlet::Channel(near.sender),
            capabilities: Capabilities { relay: true, ..Capabilities::default() },
            stats: Rc::default(),
            address: Address { peer: TO, session, reports: mpsc::channel(1).0 },
        };
        senders.install((TO, session), new);
        senders.set_live(SessionKind::Direct, TO, Some(session));
        let name = PeerName::of(&PublicKey::from_bytes([9; 32]));
        for is_known in [true, false] {
            senders
                .set_names(is_known.then_some((FROM, name)).into_iter().collect::<HashMap<_, _>>());
            let mut buf = FrameBuf::with_capacity(5);
            buf.push(b"frame").unwrap();
            let what = What::PassedOn(FrameType::Relay);
            senders.enqueue(TO, Class::Of(FROM), Waiting { what, buf });
            senders.pump_all();
            assert_eq!(far.receiver.recv().now_or_never().is_some(), is_known);
        }
        let (_, carried) = books.carried().remove(0);
        assert_eq!((carried.frames.get(), carried.dropped.get()), (1, 1));
    }
}
