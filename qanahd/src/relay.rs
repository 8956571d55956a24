//! What passes through this peer between two others, and what others pass on to it.
//!
//! A relay frame that comes from a peer is either to be passed on (it names its destination) or was passed on (it names its
//! source). What was passed on once goes no further, so there are no loops. What is passed on stays sealed
//! between the two others: see `proto/PROTOCOL.md`, section 13.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::BytesMut;
use qanah_core::frame::{Control, FrameBuf, FrameType, Hop, RelayHeader};
use qanah_core::router::PeerId;
use qanah_core::signal::{PeerName, SessionId};

use crate::books::Books;
use crate::clock;
use crate::downlink::Inbound;
use crate::pace::Pace;
use crate::senders::Senders;
use crate::stats::{Drop, Drops};
use crate::transit::OwnAddresses;
use crate::uplink::ICMP_PER_SECOND;

/// Most messages of signaling a second from one peer to one other: some ten make a session. Else one could use up
/// another's patience with all that we pass on.
const SIGNALING_PER_PAIR: u32 = 20;

/// The receiving end of a session that goes by relays.
type Expected = (SessionId, Rc<RefCell<Inbound>>);

/// The receiving ends of the sessions that go by relays, and what is known to pass frames on.
pub(crate) struct RelayDesk {
    pub(crate) senders: Rc<RefCell<Senders>>,
    pub(crate) books: Rc<Books>,
    /// By their names on the wire; replaced when the configuration changes.
    pub(crate) peers: RefCell<HashMap<PeerName, PeerId>>,
    inbound: RefCell<HashMap<PeerId, Vec<Expected>>>,
    /// The tunnel's own addresses; replaced when the configuration changes.
    pub(crate) own: RefCell<OwnAddresses>,
    /// Bounds ICMP errors to peers whose packets end here.
    pub(crate) icmp: RefCell<Pace>,
    signaling: RefCell<HashMap<(PeerId, PeerId), Pace>>,
}

impl RelayDesk {
    pub(crate) fn new(senders: Rc<RefCell<Senders>>, books: Rc<Books>) -> Self {
        Self {
            senders,
            books,
            peers: RefCell::default(),
            inbound: RefCell::default(),
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

    /// Forgets what passed from or to peers that are no more.
    pub(crate) fn retain(&self, known: impl Fn(PeerId) -> bool) {
        self.books.retain(&known);
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
        let mut senders = self.senders.borrow_mut();
        let Some(name) = senders.name(from).filter(|_| from != to) else {
            return drops.count(Drop::RelayRefused);
        };
        RelayHeader { hop: Hop::FromRelay, name }.write_over(plaintext.plaintext_mut());
        if let Err(cause) = senders.pass_on(from, to, FrameType::Relay, plaintext) {
            self.books.not_passed(from, to, cause);
        }
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
}
