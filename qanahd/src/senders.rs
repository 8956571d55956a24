//! From a peer to the session that takes its packets, and from there to a channel.
//!
//! The tunnel's actor changes all this between packets, on the same thread: a cell, not a lock, and nothing
//! that could fill up.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use qanah_core::frame::{Control, FrameBuf, FrameType, Hop, RelayHeader};
use qanah_core::router::PeerId;
use qanah_core::seal::Sealer;
use qanah_core::session::SessionKind;
use qanah_core::signal::{Capabilities, PeerName, SessionId};

use crate::clock;
use crate::downlink::Heard;
use crate::relay::Ledger;
use crate::rtc::{ChannelSender, SendError};
use crate::stats::{Drop, SessionStats};
use crate::tunnel::{Address, Happening};

/// The sending half of a session.
struct Outgoing {
    sealer: Sealer,
    /// A sealer of newer keys, by their local index, that is not to be used yet.
    next: Option<(u32, Sealer)>,
    outlet: Outlet,
    capabilities: Capabilities,
    stats: Rc<SessionStats>,
    address: Address,
}

/// Where the frames of a session go.
pub(crate) enum Outlet {
    /// Into a data channel to the peer.
    Channel(ChannelSender),
    /// To a relay: whichever is in use.
    Relay,
}

/// The ways to one peer.
#[derive(Default)]
struct Ways {
    /// The direct session that works: it carries for others too.
    direct: Option<SessionId>,
    /// The session that takes packets.
    chosen: Option<SessionId>,
    /// The relay of sessions that need one.
    via: Option<PeerId>,
    /// What waits in the direct session's channel for others.
    ledger: Ledger,
}

/// The sealers of all sessions, and which of them takes packets to which peer.
#[derive(Default)]
pub(crate) struct Senders {
    /// By peer as well: the offerer chooses the id, and one peer's must not touch another's.
    sessions: HashMap<(PeerId, SessionId), Outgoing>,
    ways: HashMap<PeerId, Ways>,
    names: HashMap<PeerId, PeerName>,
    /// The peer that packets go to which belong to no configured one.
    transit: Option<PeerId>,
}

/// What is needed to send by a session.
pub(crate) struct NewSession {
    pub(crate) sealer: Sealer,
    pub(crate) outlet: Outlet,
    pub(crate) capabilities: Capabilities,
    pub(crate) stats: Rc<SessionStats>,
    /// Whom to tell when packets begin to flow.
    pub(crate) address: Address,
}

/// Packets flow while the last one is not older than this.
const FLOWING: Duration = Duration::from_secs(1);

impl Outgoing {
    /// Packets were sent. Who sends wants to know soon if nobody hears it, so the tunnel is told when that begins.
    fn note_sent(&self) {
        let now = clock::now();
        let before = self.stats.sent.replace(Some(now));
        if before.is_none_or(|before| now > before + FLOWING) {
            // If there is no room, the tunnel has much to do, and looks by itself a little later.
            let _ = self.address.try_tell(Happening::Heard(Heard::Sending));
        }
    }
}

impl Senders {
    /// The names of the peers on the wire.
    pub(crate) fn set_names(&mut self, names: HashMap<PeerId, PeerName>) {
        self.names = names;
    }

    /// Adds a session. It sends control frames; packets only once it is chosen.
    pub(crate) fn install(&mut self, id: (PeerId, SessionId), new: NewSession) {
        let NewSession { sealer, outlet, capabilities, stats, address } = new;
        let outgoing = Outgoing { sealer, next: None, outlet, capabilities, stats, address };
        self.sessions.insert(id, outgoing);
    }

    /// Adds the sealer of newer keys. [`Senders::change_keys`] puts it to use.
    pub(crate) fn install_keys(&mut self, id: (PeerId, SessionId), index: u32, sealer: Sealer) {
        if let Some(outgoing) = self.sessions.get_mut(&id) {
            outgoing.next = Some((index, sealer));
        }
    }

    /// From the next frame on a session seals under these newer keys; those before are wiped.
    pub(crate) fn change_keys(&mut self, id: (PeerId, SessionId), index: u32) {
        if let Some(outgoing) = self.sessions.get_mut(&id)
            && let Some((_, sealer)) = outgoing.next.take_if(|(next, _)| *next == index)
        {
            outgoing.sealer = sealer;
        }
    }

    /// Forgets newer keys that were never put to use.
    pub(crate) fn drop_keys(&mut self, id: (PeerId, SessionId), index: u32) {
        if let Some(outgoing) = self.sessions.get_mut(&id) {
            outgoing.next.take_if(|(next, _)| *next == index);
        }
    }

    /// How many frames a session has sealed under the keys that it uses.
    pub(crate) fn sealed(&self, id: (PeerId, SessionId)) -> u64 {
        self.sessions.get(&id).map_or(0, |outgoing| outgoing.sealer.sealed())
    }

    /// The live session of this kind is this one, or there is none. What goes through us to the peer takes the
    /// direct one.
    pub(crate) fn set_live(&mut self, kind: SessionKind, peer: PeerId, id: Option<SessionId>) {
        if kind == SessionKind::Direct {
            let ways = self.ways.entry(peer).or_default();
            ways.direct = id;
            ways.ledger = Ledger::default();
        }
    }

    /// Packets to the peer go by this session from now on; by none, they are refused.
    pub(crate) fn choose(&mut self, peer: PeerId, id: Option<SessionId>) {
        let id = id.filter(|id| self.sessions.contains_key(&(peer, *id)));
        self.ways.entry(peer).or_default().chosen = id;
    }

    /// Sessions by a relay to this peer go by this one from now on.
    pub(crate) fn set_via(&mut self, peer: PeerId, via: Option<PeerId>) {
        self.ways.entry(peer).or_default().via = via;
    }

    /// Packets for nobody's addresses go to this peer from now on.
    pub(crate) fn set_transit(&mut self, carrier: Option<PeerId>) {
        self.transit = carrier;
    }

    /// Whether packets to this peer are taken.
    pub(crate) fn is_chosen(&self, peer: PeerId) -> bool {
        self.ways.get(&peer).is_some_and(|ways| ways.chosen.is_some())
    }

    /// The peer that packets go to which belong to no configured one.
    pub(crate) fn transit(&self) -> Option<PeerId> {
        self.transit
    }

    /// Forgets a session and its key.
    pub(crate) fn remove(&mut self, id: (PeerId, SessionId)) {
        self.sessions.remove(&id);
        if let Some(ways) = self.ways.get_mut(&id.0) {
            ways.direct.take_if(|direct| *direct == id.1);
            ways.chosen.take_if(|chosen| *chosen == id.1);
        }
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.ways.remove(&peer);
        self.sessions.retain(|(owner, _), _| *owner != peer);
    }

    /// Seals and sends a control message by a session, or says why it was dropped.
    pub(crate) fn send_control(
        &mut self,
        id: (PeerId, SessionId),
        message: &Control<'_>,
    ) -> Result<(), Drop> {
        let frame = message.to_frame_buf().map_err(|_| Drop::TooLarge)?;
        self.send(id, FrameType::Control, frame, None)
    }

    /// The same by the direct session with a peer.
    pub(crate) fn send_direct_control(
        &mut self,
        peer: PeerId,
        message: &Control<'_>,
    ) -> Result<(), Drop> {
        self.send_control((peer, self.direct(peer)?), message)
    }

    /// Sends packets by the session that is chosen for their peer.
    pub(crate) fn send_packets(&mut self, peer: PeerId, packets: FrameBuf) -> Result<(), Drop> {
        let chosen = self.ways.get(&peer).and_then(|ways| ways.chosen);
        let id = (peer, chosen.ok_or(Drop::NotConnected)?);
        self.send(id, FrameType::Packets, packets, None)?;
        self.note_sent(id);
        Ok(())
    }

    /// Sends packets for nobody's addresses to the peer that routes them.
    pub(crate) fn send_transit(&mut self, packets: FrameBuf) -> Result<(), Drop> {
        let peer = self.transit.ok_or(Drop::NoRoute)?;
        let id = (peer, self.direct(peer)?);
        self.send(id, FrameType::Transit, packets, None)?;
        self.note_sent(id);
        Ok(())
    }

    /// Passes something of `from` on to `to`, if there is room for what is not our own. `kind` is
    /// [`FrameType::Relay`], [`FrameType::Routed`], or [`FrameType::Control`] for signaling.
    pub(crate) fn pass_on(
        &mut self,
        from: PeerId,
        to: PeerId,
        kind: FrameType,
        plaintext: FrameBuf,
    ) -> Result<(), Drop> {
        let id = (to, self.direct(to)?);
        let outgoing = self.sessions.get(&id).ok_or(Drop::NotConnected)?;
        // Who passes nothing on gets nothing that was passed on.
        let takes = match kind {
            FrameType::Control => outgoing.capabilities.mesh_signaling,
            _ => outgoing.capabilities.relay,
        };
        if !takes {
            return Err(Drop::RelayRefused);
        }
        let Outlet::Channel(channel) = &outgoing.outlet else {
            return Err(Drop::NotConnected);
        };
        let waiting = channel.outstanding_bytes().ok_or(Drop::NotConnected)?;
        let ways = self.ways.get_mut(&to).ok_or(Drop::NotConnected)?;
        if !ways.ledger.takes(from, plaintext.len(), waiting) {
            return Err(Drop::RelayFull);
        }
        self.send(id, kind, plaintext, Some(from))?;
        if kind != FrameType::Control {
            self.note_sent(id);
        }
        Ok(())
    }

    /// A session was used: it carries packets, ours or others'.
    fn note_sent(&self, id: (PeerId, SessionId)) {
        if let Some(outgoing) = self.sessions.get(&id) {
            outgoing.note_sent();
        }
    }

    /// The name of a peer, to tell others whom something is from.
    pub(crate) fn name(&self, peer: PeerId) -> Option<PeerName> {
        self.names.get(&peer).copied()
    }

    /// The direct session with a peer.
    fn direct(&self, peer: PeerId) -> Result<SessionId, Drop> {
        let ways = self.ways.get(&peer).ok_or(Drop::NotConnected)?;
        ways.direct.ok_or(Drop::NotConnected)
    }

    /// `source` is whose it is, when it is not ours.
    fn send(
        &mut self,
        id: (PeerId, SessionId),
        kind: FrameType,
        plaintext: FrameBuf,
        source: Option<PeerId>,
    ) -> Result<(), Drop> {
        let outgoing = self.sessions.get_mut(&id).ok_or(Drop::NotConnected)?;
        // An exhausted key sends nothing; the session is replaced long before.
        let frame = outgoing.sealer.seal(kind, plaintext).map_err(|_| Drop::NotConnected)?;
        match &outgoing.outlet {
            Outlet::Channel(channel) => {
                let len = frame.len();
                channel.try_send(frame).map_err(cause)?;
                if let Some(ways) = self.ways.get_mut(&id.0) {
                    ways.ledger.note(source, len);
                }
                Ok(())
            }
            Outlet::Relay => self.send_by_relay(id.0, kind, &frame),
        }
    }

    /// Puts a frame to a peer into one to its relay.
    fn send_by_relay(&mut self, peer: PeerId, kind: FrameType, frame: &[u8]) -> Result<(), Drop> {
        let via = self.ways.get(&peer).and_then(|ways| ways.via).ok_or(Drop::NotConnected)?;
        let name = self.name(peer).ok_or(Drop::NotConnected)?;
        let header = RelayHeader { hop: Hop::ToRelay, name };
        let frame = header.wrap(frame).map_err(|_| Drop::TooLarge)?;
        let id = (via, self.direct(via)?);
        let outgoing = self.sessions.get(&id).ok_or(Drop::NotConnected)?;
        // One hop: a session with the relay that needs a relay itself is none.
        if matches!(outgoing.outlet, Outlet::Relay) {
            return Err(Drop::NotConnected);
        }
        self.send(id, FrameType::Relay, frame, None)?;
        if kind == FrameType::Packets {
            self.note_sent(id);
        }
        Ok(())
    }
}

const fn cause(error: SendError) -> Drop {
    match error {
        SendError::Closed => Drop::NotConnected,
        SendError::Full => Drop::QueueFull,
        SendError::TooLarge => Drop::TooLarge,
    }
}
