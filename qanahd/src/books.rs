//! What became of packets: for whom they were, and what passed between others.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use qanah_core::router::PeerId;

use crate::stats::{Drop, Drops, PeerStats};

/// Pairs whose traffic is counted. A tunnel has more only if it has hundreds of peers that all need us.
const MAX_PAIRS: usize = 1024;

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

/// The books of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// The counters of all peers; replaced when the configuration changes.
    pub(crate) peers: RefCell<HashMap<PeerId, Rc<PeerStats>>>,
    /// What was dropped and belongs to no peer.
    pub(crate) drops: Drops,
    carried: RefCell<BTreeMap<(PeerId, PeerId), Rc<Carried>>>,
}

impl Books {
    /// Packets went to a peer.
    pub(crate) fn sent(&self, peer: PeerId, packets: usize, bytes: usize) {
        if let Some(stats) = self.peers.borrow().get(&peer) {
            stats.sent.count_many(packets, bytes);
        }
    }

    /// Something for a peer, or from one, was dropped.
    pub(crate) fn dropped(&self, peer: PeerId, cause: Drop) {
        match self.peers.borrow().get(&peer) {
            Some(stats) => stats.drops.count(cause),
            None => self.drops.count(cause),
        }
    }

    /// Something of `from` was passed on to `to`.
    pub(crate) fn passed(&self, from: PeerId, to: PeerId, bytes: usize) {
        if let Some(carried) = self.pair(from, to) {
            carried.frames.set(carried.frames.get() + 1);
            carried.bytes.set(carried.bytes.get() + bytes as u64);
        }
    }

    /// Something of `from` was not passed on to `to`.
    pub(crate) fn not_passed(&self, from: PeerId, to: PeerId, cause: Drop) {
        self.dropped(from, cause);
        if let Some(carried) = self.pair(from, to) {
            carried.dropped.set(carried.dropped.get() + 1);
        }
    }

    fn pair(&self, from: PeerId, to: PeerId) -> Option<Rc<Carried>> {
        let mut carried = self.carried.borrow_mut();
        let is_known = carried.contains_key(&(from, to));
        (is_known || carried.len() < MAX_PAIRS)
            .then(|| Rc::clone(carried.entry((from, to)).or_default()))
    }

    /// What passed, by source and destination.
    pub(crate) fn carried(&self) -> Vec<((PeerId, PeerId), Rc<Carried>)> {
        let carried = self.carried.borrow();
        carried.iter().map(|(pair, carried)| (*pair, Rc::clone(carried))).collect()
    }

    /// Forgets what passed from or to peers that are no more.
    pub(crate) fn retain(&self, known: impl Fn(PeerId) -> bool) {
        self.carried.borrow_mut().retain(|(from, to), _| known(*from) && known(*to));
    }
}
