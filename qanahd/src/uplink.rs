//! From the kernel to a peer: TUN -> route -> queue -> seal -> channel.
//!
//! What the kernel leaves to us is seen to here ([`Taken`]); what waits for room in a channel waits in
//! [`crate::egress`], and is sealed when it leaves.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use qanah_core::frame::{FrameBuf, SEGMENTS_HEADER_LEN, SegmentsHeader};
use qanah_core::offload::{Cutter, Taken};
use qanah_core::packet::{IcmpError, Packet, clamp_mss, icmp_error};
use qanah_core::router::{PeerId, Router};
use tokio::sync::{mpsc, watch};

use crate::books::Books;
use crate::clock;
use crate::egress::{Waiting, What};
use crate::held::Held;
use crate::pace::Pace;
use crate::platform::tun::{MAX_READ, Read, TunDevice};
use crate::relay::RelayDesk;
use crate::rtc::Progress;
use crate::senders::Senders;
use crate::stats::Drop;

/// Most ICMP errors a second: as many as anybody needs to see, too few to be a load.
pub(crate) const ICMP_PER_SECOND: u32 = 100;

/// What is read before others on this thread have their turn: packets, and bytes.
const TURN_PACKETS: usize = 64;
const TURN_BYTES: usize = 256 * 1024;

/// From this length on, in bytes, a packet travels in the buffer that it was read into. A shorter one is copied, and
/// gets its checksum: it may share a frame with others.
const WHOLE_BUFFER: usize = 8 * 1024;

/// How long what waits for room waits without word of any.
const BACKSTOP: Duration = Duration::from_millis(50);

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
    /// Packets read so far, for whoever watches that it goes on.
    pub(crate) reads: Rc<Cell<u64>>,
    /// Replaced as a whole when the configuration changes.
    pub(crate) router: watch::Receiver<Arc<Router>>,
    pub(crate) senders: Rc<RefCell<Senders>>,
    pub(crate) books: Rc<Books>,
    /// Word of channels that may have room again.
    pub(crate) progress: Progress,
    /// Bounds ICMP errors; see [`ICMP_PER_SECOND`].
    pub(crate) icmp: Pace,
    /// Knows what may go by a relay; absent where relaying is off.
    pub(crate) desk: Option<Rc<RelayDesk>>,
    /// What waits for peers that are connected when there is traffic for them.
    pub(crate) held: Rc<RefCell<Held>>,
    /// Told of packets for peers that are not connected.
    pub(crate) wanted: Wanted,
}

/// A buffer to read into: room for a packet, and before it for what a frame of segments says of it.
fn room() -> FrameBuf {
    let mut room = FrameBuf::with_capacity(SEGMENTS_HEADER_LEN + MAX_READ);
    empty(&mut room);
    room
}

fn empty(room: &mut FrameBuf) {
    room.clear();
    // It was made for more than that.
    let _ = room.push(&[0; SEGMENTS_HEADER_LEN]);
}

impl Uplink {
    /// Sends packets until the interface is gone.
    pub(crate) async fn run(mut self) -> io::Error {
        let mut room = room();
        let tun = Arc::clone(&self.tun);
        loop {
            let waits = self.senders.borrow().has_backlog();
            if waits {
                self.progress.want();
            }
            let read = tokio::select! {
                biased;
                read = tun.recv(room.room_mut()) => Some(read),
                () = self.progress.made(), if waits => None,
                () = tokio::time::sleep(BACKSTOP), if waits => None,
            };
            if let Some(read) = read {
                self.reads.set(self.reads.get().wrapping_add(1));
                match read {
                    Ok(read) => self.take_all(&mut room, read),
                    Err(error) => return error,
                }
            }
            self.senders.borrow_mut().pump_all();
            // A TUN device that is always readable never makes this task wait by itself.
            tokio::task::yield_now().await;
        }
    }

    /// Takes a packet, and those that are there already, as many as make a turn.
    fn take_all(&mut self, room: &mut FrameBuf, first: Read) {
        let (mut packets, mut bytes, mut read) = (0, 0, first);
        loop {
            packets += 1;
            bytes += read.0;
            self.take(room, read);
            empty(room);
            if packets >= TURN_PACKETS || bytes >= TURN_BYTES {
                return;
            }
            match self.tun.try_recv(room.room_mut()) {
                Ok(next) => read = next,
                // An error comes again, to whoever waits for the next one.
                Err(_) => return,
            }
        }
    }

    /// Makes of what was read what can travel.
    fn take(&mut self, room: &mut FrameBuf, (len, header): Read) {
        let taken = match (room.advance(len), header) {
            (Ok(()), Some(header)) => {
                let packet = room.plaintext_mut().get_mut(SEGMENTS_HEADER_LEN..);
                Taken::from_kernel(header, packet.unwrap_or_default(), WHOLE_BUFFER).ok()
            }
            _ => None,
        };
        match taken {
            Some(Taken::Whole) => {
                if let Some(mut packet) = copy(room, SEGMENTS_HEADER_LEN) {
                    clamp_mss(packet.plaintext_mut(), self.tun.mtu(), false);
                    self.forward(Waiting::packet(packet));
                }
            }
            Some(Taken::Segments(header)) => self.take_segments(room, header),
            Some(Taken::Cut(cutter)) => self.cut(room, &cutter),
            None => self.books.drops.count(Drop::BadPacket),
        }
    }

    fn take_segments(&mut self, room: &mut FrameBuf, header: SegmentsHeader) {
        let plaintext = room.plaintext_mut();
        plaintext.iter_mut().zip(header.to_bytes()).for_each(|(to, from)| *to = from);
        let buf = if room.len() < WHOLE_BUFFER {
            copy(room, 0)
        } else {
            Some(std::mem::replace(room, self::room()))
        };
        if let Some(buf) = buf {
            self.forward(Waiting { what: What::Segments, buf });
        }
    }

    /// A packet that stands for many and cannot travel so.
    fn cut(&mut self, room: &FrameBuf, cutter: &Cutter) {
        let packet = room.plaintext().get(SEGMENTS_HEADER_LEN..).unwrap_or_default();
        for number in 0..cutter.count() {
            let mut buf = FrameBuf::with_capacity(cutter.longest());
            if cutter.add(packet, number, &mut buf).is_ok() {
                self.forward(Waiting::packet(buf));
            }
        }
    }

    /// Sends one packet to the peer that owns its destination.
    fn forward(&mut self, waiting: Waiting) {
        let Ok(packet) = Packet::parse(waiting.as_packet()) else {
            return self.books.drops.count(Drop::BadPacket);
        };
        let Some(peer) = self.router.borrow().route(packet.dst()) else {
            return self.without_peer(waiting);
        };
        if !self.senders.borrow().is_chosen(peer) {
            return self.without_session(peer, waiting);
        }
        let queued = self.senders.borrow_mut().queue(peer, waiting);
        if let Err(cause) = queued {
            self.books.dropped(peer, cause);
        }
    }

    /// A packet for nobody's addresses: a relay may know more.
    fn without_peer(&mut self, waiting: Waiting) {
        let Ok(packet) = Packet::parse(waiting.as_packet()) else {
            return;
        };
        let desk = self.desk.as_ref();
        let is_neighbour = desk.is_some_and(|desk| desk.own.borrow().is_neighbour(packet.dst()));
        let carrier = self.senders.borrow().transit().filter(|_| is_neighbour);
        let Some(carrier) = carrier else {
            self.books.drops.count(Drop::NoRoute);
            return self.refuse(&packet);
        };
        let mut senders = self.senders.borrow_mut();
        for packet in waiting.into_packets() {
            if let Err(cause) = senders.queue_transit(packet) {
                self.books.dropped(carrier, cause);
            }
        }
    }

    /// A packet for a peer that is not connected.
    fn without_session(&mut self, peer: PeerId, waiting: Waiting) {
        self.wanted.tell(peer);
        let Some(waiting) = self.held.borrow_mut().hold(clock::now(), peer, waiting) else {
            return;
        };
        self.books.dropped(peer, Drop::NotConnected);
        if let Ok(packet) = Packet::parse(waiting.as_packet()) {
            self.refuse(&packet);
        }
    }

    /// Tells the sender that the packet went nowhere, as WireGuard does.
    fn refuse(&mut self, packet: &Packet<'_>) {
        // From the address that was asked for: the kernel drops what comes from its own.
        if self.icmp.allows(clock::now())
            && let Some(error) = icmp_error(packet, None, IcmpError::Unreachable)
            && self.tun.try_send(&error).is_err()
        {
            self.books.drops.count(Drop::Interface);
        }
    }
}

/// What was read, from `start` on, in a buffer of its own size.
fn copy(room: &FrameBuf, start: usize) -> Option<FrameBuf> {
    let bytes = room.plaintext().get(start..)?;
    let mut buf = FrameBuf::with_capacity(bytes.len());
    buf.push(bytes).ok()?;
    Some(buf)
}
