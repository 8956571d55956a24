//! From the kernel to a peer: TUN -> route -> seal -> channel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use qanah_core::frame::FrameBuf;
use qanah_core::packet::{IcmpError, Packet, icmp_error};
use qanah_core::router::{PeerId, Router};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::held::Held;
use crate::pace::Pace;
use crate::platform::tun::TunDevice;
use crate::relay::RelayDesk;
use crate::senders::Senders;
use crate::stats::{Drop, Drops, PeerStats};

/// Most ICMP errors a second: as many as anybody needs to see, too few to be a load.
pub(crate) const ICMP_PER_SECOND: u32 = 100;

/// Packets that are sent before others on this thread have their turn.
const TURN: u32 = 64;

/// The counters of all peers; replaced when the configuration changes.
pub(crate) type Counted = Rc<RefCell<HashMap<PeerId, Rc<PeerStats>>>>;

/// Peers whose pace is kept: those that were removed are among them.
const MOST_WANTED: usize = 4096;

/// Tells the tunnel which peers are wanted, each once a second at the most.
pub(crate) struct Wanted {
    queue: mpsc::Sender<PeerId>,
    paces: HashMap<PeerId, Pace>,
}

impl Wanted {
    pub(crate) fn new(queue: mpsc::Sender<PeerId>) -> Self {
        Self { queue, paces: HashMap::new() }
    }

    fn tell(&mut self, peer: PeerId) {
        if self.paces.len() >= MOST_WANTED {
            self.paces.clear();
        }
        let pace = self.paces.entry(peer).or_insert_with(|| Pace::new(1));
        if pace.allows(clock::now()) {
            // A full queue is full of others that come first; this one is wanted again.
            let _ = self.queue.try_send(peer);
        }
    }
}

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
    /// Knows what may go by a relay; absent where relaying is off.
    pub(crate) desk: Option<Rc<RelayDesk>>,
    /// What waits for peers that are connected when there is traffic for them.
    pub(crate) held: Rc<RefCell<Held>>,
    /// Told of packets for peers that are not connected.
    pub(crate) wanted: Wanted,
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
            return self.without_peer(frame);
        };
        if !self.senders.borrow().is_chosen(peer) {
            return self.without_session(peer, frame);
        }
        let sent = self.senders.borrow_mut().send_packets(peer, frame);
        self.count(peer, len, sent);
    }

    /// A packet for nobody's addresses: a relay may know more.
    fn without_peer(&mut self, frame: FrameBuf) {
        let Ok(packet) = Packet::parse(frame.plaintext()) else {
            return;
        };
        let len = packet.as_bytes().len();
        let desk = self.desk.as_ref();
        let is_neighbour = desk.is_some_and(|desk| desk.own.borrow().is_neighbour(packet.dst()));
        let carrier = self.senders.borrow().transit().filter(|_| is_neighbour);
        let Some(carrier) = carrier else {
            self.drops.count(Drop::NoRoute);
            return self.refuse(&packet);
        };
        let sent = self.senders.borrow_mut().send_transit(frame);
        self.count(carrier, len, sent);
    }

    /// A packet for a peer that is not connected.
    fn without_session(&mut self, peer: PeerId, frame: FrameBuf) {
        self.wanted.tell(peer);
        let Some(frame) = self.held.borrow_mut().hold(clock::now(), peer, frame) else {
            return;
        };
        self.count(peer, 0, Err(Drop::NotConnected));
        if let Ok(packet) = Packet::parse(frame.plaintext()) {
            self.refuse(&packet);
        }
    }

    fn count(&self, peer: PeerId, len: usize, sent: Result<(), Drop>) {
        let peers = self.peers.borrow();
        match (sent, peers.get(&peer)) {
            (Ok(()), Some(stats)) => stats.sent.count(len),
            (Err(cause), Some(stats)) => stats.drops.count(cause),
            (Err(cause), None) => self.drops.count(cause),
            (Ok(()), None) => {}
        }
    }

    /// Tells the sender that the packet went nowhere, as WireGuard does.
    fn refuse(&mut self, packet: &Packet<'_>) {
        // From the address that was asked for: the kernel drops what comes from its own.
        if self.icmp.allows(clock::now())
            && let Some(error) = icmp_error(packet, None, IcmpError::Unreachable)
            && self.tun.try_send(&error).is_err()
        {
            self.drops.count(Drop::Interface);
        }
    }
}
