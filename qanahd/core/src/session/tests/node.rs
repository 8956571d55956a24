//! One side of the simulation: its machine, and a data path that knows which keys it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::super::*;
use super::world::Peer;
use crate::key::{PresharedKey, SecretKey};

/// A frame on its way: what it says, and the keys that it was sealed with.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) index: u32,
    pub(super) key: Vec<u8>,
    pub(super) text: Plaintext,
}

#[derive(Debug, Clone)]
pub(super) enum Plaintext {
    Control(Control<'static>),
    Rekey(RekeyMessage),
    Packet,
}

/// The data path of a session.
pub(super) struct Keys {
    /// Local index, sending key, the index that it is for.
    pub(super) sealers: Vec<(u32, Vec<u8>, u32)>,
    /// Which of them seals.
    pub(super) active: u32,
    pub(super) openers: Vec<(u32, Vec<u8>)>,
    /// No frame was opened under the newest yet.
    pub(super) unconfirmed: Option<u32>,
}

pub(super) struct Node {
    pub(super) machine: Peer,
    pub(super) secret: Arc<SecretKey>,
    /// Counts restarts: what was on its way to an earlier life is lost.
    pub(super) life: u32,
    pub(super) accepted: BTreeSet<SessionId>,
    pub(super) offered: BTreeSet<SessionId>,
    pub(super) installed: BTreeMap<SessionId, Keys>,
    /// Sizes of the sessions' packets.
    pub(super) sizes: BTreeMap<SessionId, u16>,
    pub(super) active: Option<SessionId>,
    pub(super) events: Vec<Event>,
    pub(super) sent: Vec<Message>,
    pub(super) offers: u32,
    /// Offers and answers by hand, ready to be carried.
    pub(super) texts: Vec<(Instant, Message)>,
    pub(super) failed_texts: Vec<String>,
    /// Packets that were opened.
    pub(super) packets: u32,
    /// Frames of an installed session for which there was no key (any more).
    pub(super) strays: u32,
    /// The most keys that a session had at once.
    pub(super) most_keys: usize,
}

impl Node {
    pub(super) fn receive(&mut self, now: Instant, id: SessionId, frame: &Frame) {
        let Some(keys) = self.installed.get_mut(&id) else {
            return;
        };
        if !keys.openers.contains(&(frame.index, frame.key.clone())) {
            self.strays += 1;
            return;
        }
        if keys.unconfirmed.take_if(|index| *index == frame.index).is_some() {
            self.machine.opened(now, id, frame.index);
        }
        match &frame.text {
            Plaintext::Control(control) => self.machine.control(now, id, control),
            Plaintext::Rekey(message) => self.machine.rekey(now, id, message),
            Plaintext::Packet => {
                self.machine.last_opened(id, now);
                self.packets += 1;
            }
        }
    }

    pub(super) fn use_keys(&mut self, id: SessionId, index: u32) {
        let keys = self.installed.get_mut(&id).expect("an installed session");
        assert!(keys.sealers.iter().any(|(sealer, ..)| *sealer == index), "unknown keys");
        keys.active = index;
        keys.sealers.retain(|(sealer, ..)| *sealer == index);
    }

    pub(super) fn drop_keys(&mut self, id: SessionId, index: u32) {
        if let Some(keys) = self.installed.get_mut(&id) {
            assert_ne!(keys.active, index, "the keys in use were dropped");
            keys.openers.retain(|(opener, _)| *opener != index);
            keys.sealers.retain(|(sealer, ..)| *sealer != index);
        }
    }

    /// The openers of the active session.
    pub(super) fn openers(&self) -> usize {
        self.active.and_then(|id| self.installed.get(&id)).map_or(0, |keys| keys.openers.len())
    }

    pub(super) fn new(
        secret: Arc<SecretKey>,
        peer: &SecretKey,
        psk: PresharedKey,
        rekey: Option<u64>,
        seed: u64,
    ) -> Self {
        let settings = Settings {
            kind: SessionKind::Direct,
            me: Arc::clone(&secret),
            peer: peer.public_key(),
            psk,
            capabilities: Capabilities {
                rekey: rekey.is_some(),
                path_mtu: true,
                ..Capabilities::default()
            },
            rekey_after_frames: rekey.unwrap_or(u64::MAX),
        };
        Self {
            machine: Machine::new(settings, ChaCha8Rng::seed_from_u64(seed)),
            secret,
            life: 0,
            accepted: BTreeSet::new(),
            offered: BTreeSet::new(),
            installed: BTreeMap::new(),
            sizes: BTreeMap::new(),
            active: None,
            events: Vec::new(),
            sent: Vec::new(),
            offers: 0,
            texts: Vec::new(),
            failed_texts: Vec::new(),
            packets: 0,
            strays: 0,
            most_keys: 0,
        }
    }
}
