//! From the kernel to a peer: TUN -> route -> seal -> channel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use qanah_core::frame::{Control, FrameBuf, FrameType};
use qanah_core::packet::{IcmpError, Packet, icmp_error};
use qanah_core::router::{PeerId, Router};
use qanah_core::seal::Sealer;
use qanah_core::signal::SessionId;
use tokio::sync::watch;

use crate::pace::Pace;
use crate::platform::tun::TunDevice;
use crate::rtc::{ChannelSender, SendError};
use crate::stats::{Drop, Drops, PeerStats};

/// Most ICMP errors a second: as many as anybody needs to see, too few to be a load.
pub(crate) const ICMP_PER_SECOND: u32 = 100;

/// Packets that are sent before others on this thread have their turn.
const TURN: u32 = 64;

/// The sending half of a session.
struct Outgoing {
    sealer: Sealer,
    /// A sealer of newer keys, by their local index, that is not to be used yet.
    next: Option<(u32, Sealer)>,
    channel: ChannelSender,
}

/// The sealers of all sessions, and which of them takes packets to which peer.
///
/// The tunnel's actor changes it between packets, on the same thread: a cell, not a lock, and
/// nothing that could fill up.
#[derive(Default)]
pub(crate) struct Senders {
    /// By peer as well: the offerer chooses the id, and one peer's must not touch another's.
    sessions: HashMap<(PeerId, SessionId), Outgoing>,
    active: HashMap<PeerId, SessionId>,
}

impl Senders {
    /// Adds a session. It sends control frames; packets only once it is active.
    pub(crate) fn install(
        &mut self,
        (peer, id): (PeerId, SessionId),
        sealer: Sealer,
        channel: ChannelSender,
    ) {
        self.sessions.insert((peer, id), Outgoing { sealer, next: None, channel });
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

    /// Packets to the session's peer go by this session from now on.
    pub(crate) fn activate(&mut self, id: (PeerId, SessionId)) {
        if self.sessions.contains_key(&id) {
            self.active.insert(id.0, id.1);
        }
    }

    /// No session takes packets to this peer any more.
    pub(crate) fn deactivate(&mut self, peer: PeerId) {
        self.active.remove(&peer);
    }

    /// Forgets a session and its key.
    pub(crate) fn remove(&mut self, id: (PeerId, SessionId)) {
        self.sessions.remove(&id);
        if self.active.get(&id.0) == Some(&id.1) {
            self.active.remove(&id.0);
        }
    }

    /// Seals and sends a control message, or says why it was dropped.
    pub(crate) fn send_control(
        &mut self,
        id: (PeerId, SessionId),
        message: &Control<'_>,
    ) -> Result<(), Drop> {
        let outgoing = self.sessions.get_mut(&id).ok_or(Drop::NotConnected)?;
        let frame = message.to_frame_buf().map_err(|_| Drop::TooLarge)?;
        outgoing.send(FrameType::Control, frame)
    }

    fn send_packet(&mut self, peer: PeerId, packet: FrameBuf) -> Result<(), Drop> {
        let id = *self.active.get(&peer).ok_or(Drop::NotConnected)?;
        let outgoing = self.sessions.get_mut(&(peer, id)).ok_or(Drop::NotConnected)?;
        outgoing.send(FrameType::Packets, packet)
    }
}

impl Outgoing {
    fn send(&mut self, kind: FrameType, plaintext: FrameBuf) -> Result<(), Drop> {
        // An exhausted key sends nothing; the session is replaced long before.
        let frame = self.sealer.seal(kind, plaintext).map_err(|_| Drop::NotConnected)?;
        self.channel.try_send(frame).map_err(|error| match error {
            SendError::Closed => Drop::NotConnected,
            SendError::Full => Drop::QueueFull,
            SendError::TooLarge => Drop::TooLarge,
        })
    }
}

/// The counters of all peers; replaced when the configuration changes.
pub(crate) type Counted = Rc<RefCell<HashMap<PeerId, Rc<PeerStats>>>>;

/// All that a tunnel needs to send.
pub(crate) struct Uplink {
    pub(crate) tun: Arc<TunDevice>,
    /// Replaced as a whole when the configuration changes.
    pub(crate) router: watch::Receiver<Arc<Router>>,
    pub(crate) senders: Rc<RefCell<Senders>>,
    pub(crate) peers: Counted,
    /// What was dropped before it had a peer.
    pub(crate) drops: Rc<Drops>,
    /// Of the interface, in bytes; changes with the configuration.
    pub(crate) mtu: Rc<Cell<usize>>,
    /// Bounds ICMP errors; see [`ICMP_PER_SECOND`].
    pub(crate) icmp: Pace,
}

impl Uplink {
    /// Sends packets until the interface is gone.
    pub(crate) async fn run(mut self) -> io::Error {
        let mut in_turn = 0_u32;
        loop {
            // A TUN device that is always readable never makes this task wait by itself.
            in_turn += 1;
            if in_turn == TURN {
                in_turn = 0;
                tokio::task::yield_now().await;
            }
            let mut packet = FrameBuf::with_capacity(self.mtu.get());
            match self.tun.recv(packet.room_mut()).await {
                Ok(len) if packet.advance(len).is_ok() => self.forward(packet),
                Ok(_) => self.drops.count(Drop::BadPacket),
                Err(error) => return error,
            }
        }
    }

    /// Sends one packet to the peer that owns its destination.
    fn forward(&mut self, frame: FrameBuf) {
        let Ok(packet) = Packet::parse(frame.plaintext()) else {
            return self.drops.count(Drop::BadPacket);
        };
        let len = packet.as_bytes().len();
        let Some(peer) = self.router.borrow().route(packet.dst()) else {
            self.drops.count(Drop::NoRoute);
            return self.refuse(&packet);
        };
        if !self.senders.borrow().active.contains_key(&peer) {
            self.count(peer, Drop::NotConnected);
            return self.refuse(&packet);
        }
        let sent = self.senders.borrow_mut().send_packet(peer, frame);
        match (sent, self.peers.borrow().get(&peer)) {
            (Ok(()), Some(stats)) => stats.sent.count(len),
            (Err(cause), _) => self.count(peer, cause),
            (Ok(()), None) => {}
        }
    }

    fn count(&self, peer: PeerId, cause: Drop) {
        self.peers.borrow().get(&peer).map_or(&*self.drops, |stats| &stats.drops).count(cause);
    }

    /// Tells the sender that the packet went nowhere, as WireGuard does.
    fn refuse(&mut self, packet: &Packet<'_>) {
        // From the address that was asked for: the kernel drops what comes from its own.
        if self.icmp.allows(Instant::now())
            && let Some(error) = icmp_error(packet, None, IcmpError::Unreachable)
            && self.tun.try_send(&error).is_err()
        {
            self.drops.count(Drop::Interface);
        }
    }
}
