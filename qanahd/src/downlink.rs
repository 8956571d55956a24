//! From a peer to the kernel: channel -> open -> source check -> TUN.
//!
//! One task a session. It opens with the session's openers; the tunnel's actor adds newer keys and
//! takes old ones away between frames, on the same thread: a cell, not a lock. Frames of sessions that go by a
//! relay come out of those of the relay ([`crate::relay`]) and take the same way from there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use qanah_core::frame::{
    Control, FrameHeader, FrameType, HEADER_LEN, Hop, SegmentKind, Segments, TAG_LEN, packets,
    reach,
};
use qanah_core::offload::{Cutter, Joined, Joiner, hand_back};
use qanah_core::packet::{Packet, clamp_mss, is_syn};
use qanah_core::router::{PeerId, Router};
use qanah_core::seal::{OpenError, Openers};
use qanah_core::session::RekeyMessage;
use qanah_core::signal::{Capabilities, PeerName};
use tokio::sync::watch;

use crate::clock;
use crate::egress::cut;
use crate::pace::Pace;
use crate::platform::tun::TunDevice;
use crate::relay::RelayDesk;
use crate::rtc::ChannelReceiver;
use crate::stats::{Drop, PeerStats, SessionStats};
use crate::tunnel::{Address, Happening};

/// What a session tells the tunnel beside packets.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The first frame was opened under the keys with this index: they are confirmed.
    Opened(u32),
    /// A control message that changes the session's keys.
    Rekey(RekeyMessage),
    /// A control message for the session machine.
    Control(Control<'static>),
    /// Frames of the session, which goes by relays, come by this one.
    By(PeerId),
    /// Packets begin to flow out.
    Sending,
    /// A control message about other peers.
    Mesh(MeshMessage),
    /// The channel has ended.
    Ended,
}

/// What peers say to each other about others.
#[derive(Debug)]
pub(crate) enum MeshMessage {
    /// Signaling that is to be passed on, or was.
    Signaling {
        /// Which of the two.
        hop: Hop,
        /// Destination or source.
        name: PeerName,
        /// What would lie in an inbox.
        envelope: Vec<u8>,
    },
    /// Whom of these do you reach?
    ReachQuery(u32, Vec<PeerName>),
    /// These.
    ReachAnswer(u32, Vec<reach::Reached>),
}

/// All that one direct session needs to receive.
pub(crate) struct Downlink {
    pub(crate) inbound: Inbound,
    pub(crate) channel: ChannelReceiver,
}

/// What is done with the frames of one session.
pub(crate) struct Inbound {
    /// Which session this is, and whom to tell.
    pub(crate) address: Address,
    pub(crate) openers: Rc<RefCell<Openers>>,
    /// Replaced as a whole when the configuration changes.
    pub(crate) router: watch::Receiver<Arc<Router>>,
    pub(crate) tun: Arc<TunDevice>,
    pub(crate) stats: Rc<PeerStats>,
    pub(crate) session: Rc<SessionStats>,
    /// The newest keys of which the tunnel knows that a frame was opened under them.
    pub(crate) confirmed: Option<u32>,
    /// The relay by which frames come, as far as the tunnel knows.
    pub(crate) relay: Option<PeerId>,
    /// Bounds how often that is told: two relays that take turns are no news.
    pub(crate) relays: Pace,
    /// Bounds control messages; see [`CONTROL_PER_SECOND`].
    pub(crate) control: Pace,
    /// Bounds signaling for others; see [`SIGNALING_PER_SECOND`].
    pub(crate) signaling: Pace,
    /// What passes through us. Absent where relaying is off, and in sessions that go by a relay themselves: one
    /// hop is all there is.
    pub(crate) desk: Option<Rc<RelayDesk>>,
    /// Joins packets that came in one frame.
    pub(crate) joiner: Joiner,
}

/// Frames that are received before others on this thread have their turn.
const TURN: u32 = 64;

/// Most control messages a second that a session hands on. An honest peer sends a few.
pub(crate) const CONTROL_PER_SECOND: u32 = 10;
/// Most messages of signaling for others a second, from one peer: some ten make a session.
pub(crate) const SIGNALING_PER_SECOND: u32 = 50;

/// How often a second it is told that frames come by another relay.
pub(crate) const RELAYS_PER_SECOND: u32 = 1;

impl Downlink {
    /// Receives until the channel ends.
    pub(crate) async fn run(mut self) {
        let mut in_turn = 0_u32;
        while let Some(frame) = self.channel.recv().await {
            self.inbound.receive(frame);
            in_turn += 1;
            if in_turn == TURN {
                in_turn = 0;
                tokio::task::yield_now().await;
            }
        }
        self.inbound.address.tell(Happening::Heard(Heard::Ended)).await;
    }
}

impl Inbound {
    /// Takes a frame from the session's own channel.
    fn receive(&mut self, mut frame: BytesMut) {
        let Some(kind) = self.open(&mut frame) else {
            return;
        };
        let peer = self.address.peer;
        if matches!(kind, FrameType::Relay | FrameType::Transit | FrameType::Routed) {
            // What it carries for others is a use of a session too.
            self.session.received.set(self.session.opened.get());
        }
        match (kind, &self.desk) {
            (FrameType::Packets, _) => self.deliver(plaintext(&frame)),
            (FrameType::Segments, _) => self.deliver_segments(plaintext_mut(&mut frame)),
            (FrameType::Control, _) => self.control(plaintext(&frame)),
            (FrameType::Relay, Some(desk)) => desk.take(peer, frame, &self.stats.drops),
            (FrameType::Transit, Some(desk)) => {
                desk.route(self, plaintext(&frame));
            }
            (FrameType::Routed, Some(desk)) => desk.deliver_routed(self, plaintext(&frame)),
            (FrameType::Relay | FrameType::Transit | FrameType::Routed, None) => {
                self.stats.drops.count(Drop::RelayRefused);
            }
        }
    }

    /// Whether a frame is for keys of this session.
    pub(crate) fn expects(&self, frame: &[u8]) -> bool {
        FrameHeader::parse(frame).is_ok_and(|header| self.openers.borrow().has(header.index))
    }

    /// Takes a frame that came by a relay.
    pub(crate) fn receive_relayed(&mut self, relay: PeerId, frame: &mut [u8]) {
        let Some(kind) = self.open(frame) else {
            return;
        };
        // Told again with the next frame if there was no room for it.
        if self.relay != Some(relay)
            && self.relays.allows(clock::now())
            && self.address.try_tell(Happening::Heard(Heard::By(relay)))
        {
            self.relay = Some(relay);
        }
        match kind {
            FrameType::Packets => self.deliver(plaintext(frame)),
            FrameType::Control => self.control(plaintext(frame)),
            FrameType::Segments => self.deliver_segments(plaintext_mut(frame)),
            FrameType::Relay | FrameType::Transit | FrameType::Routed => {
                self.stats.drops.count(Drop::RelayRefused);
            }
        }
    }

    /// Opens a frame where it lies and says what is in it.
    fn open(&mut self, frame: &mut [u8]) -> Option<FrameType> {
        let mut openers = self.openers.borrow_mut();
        let (kind, index) = match openers.open(frame) {
            Ok((opened, index)) => (opened.kind, index),
            Err(error) => {
                self.stats.drops.count(cause(&error));
                return None;
            }
        };
        let is_newest = openers.newest() == Some(index);
        drop(openers);
        self.session.opened.set(Some(clock::now()));
        // Told again with the next frame if there was no room for it.
        if is_newest
            && self.confirmed != Some(index)
            && self.address.try_tell(Happening::Heard(Heard::Opened(index)))
        {
            self.confirmed = Some(index);
        }
        match kind {
            Ok(kind) => Some(kind),
            Err(_) => {
                self.stats.drops.count(Drop::UnknownType);
                None
            }
        }
    }

    /// Checks every packet of a frame against the peer's allowed IPs and gives it to the kernel.
    fn deliver(&mut self, plaintext: &[u8]) {
        self.session.received.set(self.session.opened.get());
        let router = Arc::clone(&self.router.borrow());
        // A lone packet has nothing to be joined with.
        let cuts = self.tun.cuts(SegmentKind::Tcp) && self.tun.cuts(SegmentKind::Udp);
        let may_join = cuts && Packet::parse(plaintext).is_err();
        for packet in packets(plaintext) {
            let Ok(packet) = packet else {
                self.stats.drops.count(Drop::BadPacket);
                break;
            };
            if !router.owns(self.address.peer, packet.src()) {
                self.stats.drops.count(Drop::SpoofedSource);
            } else if !may_join {
                self.hand_over(packet.as_bytes());
            } else if !self.joiner.add(&packet) {
                self.hand_over_joined();
                // The first one is always taken.
                self.joiner.add(&packet);
            }
        }
        self.hand_over_joined();
    }

    /// Gives what was joined to the kernel.
    fn hand_over_joined(&mut self) {
        let mut joiner = std::mem::take(&mut self.joiner);
        match joiner.finish() {
            Joined::Nothing => {}
            Joined::One(packet) => self.hand_over(packet),
            Joined::Many(plaintext, count) => self.hand_over_unfinished(plaintext, count),
        }
        self.joiner = joiner;
    }

    /// Gives the plaintext of a frame of segments, which stands for so many packets, to the kernel.
    fn hand_over_unfinished(&self, plaintext: &mut [u8], count: usize) {
        let taken = hand_back(plaintext).is_ok_and(|(header, packet)| {
            let sent = self.tun.try_send_unfinished(header, packet).is_ok();
            if sent {
                self.stats.received.count_many(count, packet.len());
            }
            sent
        });
        if !taken {
            self.stats.drops.count(Drop::Interface);
        }
    }

    /// The same for a packet that stands for many. What the kernel is told of it comes from the packet as it was
    /// checked, and nothing of it from the wire.
    fn deliver_segments(&self, plaintext: &mut [u8]) {
        self.session.received.set(self.session.opened.get());
        let Ok(view) = Segments::parse(plaintext) else {
            return self.stats.drops.count(Drop::BadPacket);
        };
        if !self.router.borrow().owns(self.address.peer, view.packet().src()) {
            return self.stats.drops.count(Drop::SpoofedSource);
        }
        let count = view.count();
        if count > 1 && !self.tun.cuts(view.kind()) {
            let one_each = Capabilities::default();
            let packets = cut(&Cutter::of(&view), view.packet().as_bytes(), &one_each);
            return packets.iter().for_each(|packet| self.hand_over(packet.plaintext()));
        }
        self.hand_over_unfinished(plaintext, count);
    }

    /// Gives one packet to the kernel.
    pub(crate) fn hand_over(&self, packet: &[u8]) {
        let sent = if is_syn(packet) {
            // Whoever answers it shall send no segments that do not fit the interface.
            let mut clamped = packet.to_vec();
            clamp_mss(&mut clamped, self.tun.mtu(), false);
            self.tun.try_send(&clamped)
        } else {
            self.tun.try_send(packet)
        };
        if sent.is_err() {
            self.stats.drops.count(Drop::Interface);
        } else {
            self.stats.received.count(packet.len());
        }
    }

    fn control(&mut self, plaintext: &[u8]) {
        let Ok(control) = Control::parse(plaintext) else {
            return self.stats.drops.count(Drop::UnknownType);
        };
        let heard = match control {
            Control::Confirm => Heard::Control(Control::Confirm),
            Control::Ping(value) => Heard::Control(Control::Ping(value)),
            Control::PaddedPing { value, size } => {
                Heard::Control(Control::PaddedPing { value, size })
            }
            Control::Pong(value) => Heard::Control(Control::Pong(value)),
            Control::PathProbe { size } => Heard::Control(Control::PathProbe { size }),
            Control::Close => Heard::Control(Control::Close),
            Control::RekeyInit { .. } | Control::RekeyResponse { .. } => {
                match RekeyMessage::from_control(&control) {
                    Some(message) => Heard::Rekey(message),
                    None => return,
                }
            }
            Control::ProbeAnswer { size } => Heard::Control(Control::ProbeAnswer { size }),
            Control::Signaling { .. }
            | Control::ReachQuery { .. }
            | Control::ReachAnswer { .. }
                if self.desk.is_none() =>
            {
                return self.stats.drops.count(Drop::RelayRefused);
            }
            Control::Signaling { hop, name, envelope } => {
                let envelope = envelope.to_vec();
                Heard::Mesh(MeshMessage::Signaling { hop, name, envelope })
            }
            Control::ReachQuery { id, names } => {
                Heard::Mesh(MeshMessage::ReachQuery(id, reach::names(names).collect()))
            }
            Control::ReachAnswer { id, entries } => {
                Heard::Mesh(MeshMessage::ReachAnswer(id, reach::entries(entries).collect()))
            }
        };
        let is_signaling = matches!(heard, Heard::Mesh(MeshMessage::Signaling { .. }));
        let pace = if is_signaling { &mut self.signaling } else { &mut self.control };
        if !pace.allows(clock::now()) || !self.address.try_tell(Happening::Heard(heard)) {
            self.stats.drops.count(Drop::Busy);
        }
    }
}

/// The plaintext of a frame that was opened where it lies.
fn plaintext(frame: &[u8]) -> &[u8] {
    frame.get(HEADER_LEN..frame.len().saturating_sub(TAG_LEN)).unwrap_or_default()
}

fn plaintext_mut(frame: &mut [u8]) -> &mut [u8] {
    let end = frame.len().saturating_sub(TAG_LEN);
    frame.get_mut(HEADER_LEN..end).unwrap_or_default()
}

const fn cause(error: &OpenError) -> Drop {
    match error {
        OpenError::Replay(_) => Drop::Replayed,
        OpenError::Forged => Drop::Forged,
        _ => Drop::BadFrame,
    }
}
