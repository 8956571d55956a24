//! What passes through this peer between two others, and what others pass on to it.
//!
//! A relay frame that comes from a peer is either to be passed on (it names its destination) or was passed on (it names its
//! source). What was passed on once goes no further, so there are no loops. What is passed on stays sealed
//! between the two others: see `proto/PROTOCOL.md`, section 13.

mod ledger;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::BytesMut;
use qanah_core::frame::{Control, FrameBuf, FrameType, Hop, RelayHeader};
use qanah_core::router::PeerId;
use qanah_core::signal::{PeerName, SessionId};

pub(crate) use self::ledger::{IN_ALL, Ledger, PER_PAIR};
use crate::clock;
use crate::downlink::Inbound;
use crate::pace::Pace;
use crate::senders::Senders;
use crate::stats::{Drop, Drops};
use crate::transit::OwnAddresses;
use crate::uplink::ICMP_PER_SECOND;

/// Pairs whose traffic is counted. A tunnel has more only if it has hundreds of peers that all need us.
const MAX_PAIRS: usize = 1024;

/// Most messages of signaling a second from one peer to one other: some ten make a session. Else one could use up
/// another's patience with all that we pass on.
const SIGNALING_PER_PAIR: u32 = 20;

/// What passed from one peer to another.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Frames or packets.
    pub(crate) frames: Cell<u64>,
    /// Their bytes.
    pub(crate) bytes: Cell<u64>,
    /// Those that were not passed on.
    pub(crate) dropped: Cell<u64>,
}

/// The receiving end of a session that goes by relays.
type Expected = (SessionId, Rc<RefCell<Inbound>>);

/// The receiving ends of the sessions that go by relays, and the books of what is passed on.
pub(crate) struct RelayDesk {
    pub(crate) senders: Rc<RefCell<Senders>>,
    /// By their names on the wire; replaced when the configuration changes.
    pub(crate) peers: RefCell<HashMap<PeerName, PeerId>>,
    inbound: RefCell<HashMap<PeerId, Vec<Expected>>>,
    carried: RefCell<BTreeMap<(PeerId, PeerId), Rc<Carried>>>,
    /// The tunnel's own addresses; replaced when the configuration changes.
    pub(crate) own: RefCell<OwnAddresses>,
    /// Bounds ICMP errors to peers whose packets end here.
    pub(crate) icmp: RefCell<Pace>,
    signaling: RefCell<HashMap<(PeerId, PeerId), Pace>>,
}

impl RelayDesk {
    pub(crate) fn new(senders: Rc<RefCell<Senders>>) -> Self {
        Self {
            senders,
            peers: RefCell::default(),
            inbound: RefCell::default(),
            carried: RefCell::default(),
            own: RefCell::default(),
            icmp: RefCell::new(Pace::new(ICMP_PER_SECOND)),
            signaling: RefCell::default(),
        }
    }

    /// Frames of this session may come by relays from now on.
    pub(crate) fn expect(&self, (peer, id): (PeerId, SessionId), inbound: Inbound) {
        let mut all = self.inbound.borrow_mut();
        all.entry(peer).or_default().push((id, Rc::new(RefCell::new(inbound))));
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, (peer, id): (PeerId, SessionId)) {
        let mut all = self.inbound.borrow_mut();
        if let Some(sessions) = all.get_mut(&peer) {
            sessions.retain(|(session, _)| *session != id);
            if sessions.is_empty() {
                all.remove(&peer);
            }
        }
    }

    /// What passed, by source and destination.
    pub(crate) fn carried(&self) -> Vec<((PeerId, PeerId), Rc<Carried>)> {
        let carried = self.carried.borrow();
        carried.iter().map(|(pair, carried)| (*pair, Rc::clone(carried))).collect()
    }

    /// Forgets what passed from or to peers that are no more.
    pub(crate) fn retain(&self, known: impl Fn(PeerId) -> bool) {
        self.carried.borrow_mut().retain(|(from, to), _| known(*from) && known(*to));
        self.signaling.borrow_mut().retain(|(from, to), _| known(*from) && known(*to));
    }

    /// Takes a relay frame that was opened where it lies; `from` is whose session it came by.
    pub(crate) fn take(&self, from: PeerId, frame: BytesMut, drops: &Drops) {
        let Some(mut buf) = FrameBuf::reopened(frame) else {
            return drops.count(Drop::BadFrame);
        };
        let Ok((header, inner)) = RelayHeader::split(buf.plaintext_mut()) else {
            return drops.count(Drop::BadFrame);
        };
        let Some(peer) = self.peers.borrow().get(&header.name).copied() else {
            return drops.count(Drop::RelayRefused);
        };
        match header.hop {
            Hop::FromRelay => self.arrived(from, peer, inner, drops),
            Hop::ToRelay => self.pass_on(from, peer, buf, drops),
        }
    }

    /// A frame that `source` has sent us by `relay`.
    fn arrived(&self, relay: PeerId, source: PeerId, frame: &mut [u8], drops: &Drops) {
        let inbound = self.inbound.borrow();
        let mut sessions = inbound.get(&source).into_iter().flatten();
        match sessions.find(|(_, session)| session.borrow().expects(frame)) {
            Some((_, session)) => session.borrow_mut().receive_relayed(relay, frame),
            None => drops.count(Drop::BadFrame),
        }
    }

    /// A frame that `from` wants `to` to have.
    fn pass_on(&self, from: PeerId, to: PeerId, mut plaintext: FrameBuf, drops: &Drops) {
        let len = plaintext.len();
        let mut senders = self.senders.borrow_mut();
        let Some(name) = senders.name(from).filter(|_| from != to) else {
            return drops.count(Drop::RelayRefused);
        };
        RelayHeader { hop: Hop::FromRelay, name }.write_over(plaintext.plaintext_mut());
        let passed = senders.pass_on(from, to, FrameType::Relay, plaintext);
        self.note(from, to, len, passed, drops);
    }

    /// Passes an envelope of `from` on to `to`, as far as there is room for what is not our own.
    ///
    /// # Errors
    /// Why it was not passed on.
    pub(crate) fn pass_signaling_on(
        &self,
        from: PeerId,
        to: PeerId,
        envelope: &[u8],
    ) -> Result<(), Drop> {
        let mut paces = self.signaling.borrow_mut();
        let pace = paces.entry((from, to)).or_insert_with(|| Pace::new(SIGNALING_PER_PAIR));
        if !pace.allows(clock::now()) {
            return Err(Drop::Busy);
        }
        let mut senders = self.senders.borrow_mut();
        let name = senders.name(from).ok_or(Drop::RelayRefused)?;
        let message = Control::Signaling { hop: Hop::FromRelay, name, envelope };
        let plaintext = message.to_frame_buf().map_err(|_| Drop::TooLarge)?;
        senders.pass_on(from, to, FrameType::Control, plaintext)
    }

    /// Writes down what became of something that was to be passed on.
    pub(crate) fn note(
        &self,
        from: PeerId,
        to: PeerId,
        len: usize,
        passed: Result<(), Drop>,
        drops: &Drops,
    ) {
        let mut books = self.carried.borrow_mut();
        let known = books.contains_key(&(from, to));
        let carried = (known || books.len() < MAX_PAIRS)
            .then(|| Rc::clone(books.entry((from, to)).or_default()));
        match passed {
            Ok(()) => {
                if let Some(carried) = carried {
                    carried.frames.set(carried.frames.get() + 1);
                    carried.bytes.set(carried.bytes.get() + len as u64);
                }
            }
            Err(cause) => {
                drops.count(cause);
                if let Some(carried) = carried {
                    carried.dropped.set(carried.dropped.get() + 1);
                }
            }
        }
    }
}
