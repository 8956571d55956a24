//! From a peer to the session that takes its packets, and from there to a channel.
//!
//! The tunnel's actor changes all this between packets, on the same thread: a cell, not a lock, and nothing
//! that could fill up.

mod pump;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use qanah_core::frame::{Control, FrameBuf, FrameType, Hop, RelayHeader};
use qanah_core::router::PeerId;
use qanah_core::seal::Sealer;
use qanah_core::session::SessionKind;
use qanah_core::signal::{Capabilities, PeerName, SessionId};

use crate::books::Books;
use crate::clock;
use crate::downlink::Heard;
use crate::egress::{Class, Egress, Waiting, What};
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
    /// What waits for the direct session's channel.
    egress: Option<Box<Egress>>,
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
    /// Peers for whose channel something waits.
    backlog: BTreeSet<PeerId>,
    books: Rc<Books>,
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
    pub(crate) fn new(books: Rc<Books>) -> Self {
        Self { books, ..Self::default() }
    }

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
            if let Some(egress) = &mut ways.egress {
                egress.renew(clock::now());
            }
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
        self.send(id, FrameType::Control, frame).map(drop)
    }

    /// The same by the direct session with a peer.
    pub(crate) fn send_direct_control(
        &mut self,
        peer: PeerId,
        message: &Control<'_>,
    ) -> Result<(), Drop> {
        self.send_control((peer, self.direct(peer)?), message)
    }

    /// Takes something for a peer. It leaves with the next [`Senders::pump`], or waits until there is room.
    ///
    /// # Errors
    /// When the peer is not connected.
    pub(crate) fn queue(&mut self, peer: PeerId, waiting: Waiting) -> Result<(), Drop> {
        let carrier = self.carrier(peer).ok_or(Drop::NotConnected)?;
        self.enqueue(carrier, Class::Ours(peer), waiting);
        Ok(())
    }

    /// Takes a packet for nobody's addresses, for the peer that routes it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn queue_transit(&mut self, packet: FrameBuf) -> Result<(), Drop> {
        let peer = self.transit.ok_or(Drop::NoRoute)?;
        self.direct(peer)?;
        self.enqueue(peer, Class::Transit, Waiting::packet(packet));
        Ok(())
    }

    /// Passes something of `from` on to `to`. `kind` is [`FrameType::Relay`], [`FrameType::Routed`], or
    /// [`FrameType::Control`] for signaling, of which there is little, so it does not wait.
    ///
    /// # Errors
    /// When `to` is not connected, or wants nothing that is passed on. What finds no room later is in the books.
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
        if kind == FrameType::Control {
            return self.send(id, kind, plaintext).map(drop);
        }
        let what = What::PassedOn(kind);
        self.enqueue(to, Class::Of(from), Waiting { what, buf: plaintext });
        self.pump(to);
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

    /// The peer by whose channel packets to this one leave: its own, or that of its relay.
    fn carrier(&self, peer: PeerId) -> Option<PeerId> {
        let ways = self.ways.get(&peer)?;
        match self.sessions.get(&(peer, ways.chosen?))?.outlet {
            Outlet::Channel(_) => Some(peer),
            Outlet::Relay => ways.via,
        }
    }

    /// Seals and sends, or says why it was dropped. Returns how many bytes the channel took.
    fn send(
        &mut self,
        id: (PeerId, SessionId),
        kind: FrameType,
        mut plaintext: FrameBuf,
    ) -> Result<usize, Drop> {
        let outgoing = self.sessions.get_mut(&id).ok_or(Drop::NotConnected)?;
        // An exhausted key sends nothing; the session is replaced long before.
        outgoing.sealer.seal_in_place(kind, &mut plaintext).map_err(|_| Drop::NotConnected)?;
        match &outgoing.outlet {
            Outlet::Channel(channel) => {
                let len = plaintext.len();
                channel.try_send(plaintext.into_bytes()).map_err(cause)?;
                Ok(len)
            }
            Outlet::Relay => self.send_by_relay(id.0, plaintext),
        }
    }

    /// Puts a frame to a peer into one to its relay.
    fn send_by_relay(&mut self, peer: PeerId, mut frame: FrameBuf) -> Result<usize, Drop> {
        let via = self.ways.get(&peer).and_then(|ways| ways.via).ok_or(Drop::NotConnected)?;
        let name = self.name(peer).ok_or(Drop::NotConnected)?;
        RelayHeader { hop: Hop::ToRelay, name }.cover(&mut frame).map_err(|_| Drop::TooLarge)?;
        let id = (via, self.direct(via)?);
        let outgoing = self.sessions.get(&id).ok_or(Drop::NotConnected)?;
        // One hop: a session with the relay that needs a relay itself is none.
        if matches!(outgoing.outlet, Outlet::Relay) {
            return Err(Drop::NotConnected);
        }
        self.send(id, FrameType::Relay, frame)
    }
}

const fn cause(error: SendError) -> Drop {
    match error {
        SendError::Closed => Drop::NotConnected,
        SendError::Full => Drop::QueueFull,
        SendError::TooLarge => Drop::TooLarge,
    }
}
