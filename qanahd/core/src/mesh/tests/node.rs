//! One peer of the simulation: its machines, and a data path that knows which keys it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::super::{PathSettings, Paths, Reach};
use crate::frame::reach::Reached;
use crate::frame::{Control, Hop};
use crate::key::{PresharedKey, SecretKey};
use crate::router::PeerId;
use crate::session::limits::REKEY_AFTER_FRAMES;
use crate::session::{Event, Install, Machine, RekeyMessage, SessionKind, Settings};
use crate::signal::{Capabilities, Message, PeerName, SessionId};

/// A frame on its way: what it says, and the keys that it was sealed with.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) index: u32,
    pub(super) key: Vec<u8>,
    pub(super) text: Text,
}

#[derive(Debug, Clone)]
pub(super) enum Text {
    Control(Control<'static>),
    Rekey(RekeyMessage),
    Packet,
    Relay(Hop, PeerName, SessionId, Box<Frame>),
    Signaling(Hop, PeerName, Message),
    Query(u32, Vec<PeerName>),
    Answer(u32, Vec<Reached>),
}

/// The keys of a session.
pub(super) struct Keys {
    pub(super) kind: SessionKind,
    /// Local index, sending key, the index that it is for.
    pub(super) sealers: Vec<(u32, Vec<u8>, u32)>,
    /// Which of them seals.
    pub(super) active: u32,
    pub(super) openers: Vec<(u32, Vec<u8>)>,
    /// No frame was opened under the newest yet.
    pub(super) unconfirmed: Option<u32>,
}

/// One other peer, as a node sees it.
pub(super) struct Pair {
    pub(super) paths: Paths<ChaCha8Rng>,
    pub(super) sessions: BTreeMap<SessionId, Keys>,
    /// The direct session that carries for others.
    pub(super) direct: Option<SessionId>,
    /// Sessions for which a connection exists here.
    pub(super) connections: BTreeMap<SessionId, bool>,
    /// The largest SCTP packets of their sessions.
    pub(super) sizes: BTreeMap<SessionId, u16>,
    pub(super) events: Vec<Event>,
    /// Packets that were opened.
    pub(super) packets: u32,
    /// When the last one was.
    pub(super) heard: Option<Instant>,
}

pub(super) struct Node {
    pub(super) secret: Arc<SecretKey>,
    /// Counts restarts: what was on its way to an earlier life is lost.
    pub(super) life: u32,
    pub(super) pairs: BTreeMap<PeerId, Pair>,
    pub(super) reach: Reach,
    pub(super) relay: bool,
    /// It says that it relays, passes signaling on, and keeps the frames.
    pub(super) swallows: bool,
    /// It keeps what it passes on for a while.
    pub(super) hesitates: bool,
    /// Under which keys the frames were sealed that it passed on.
    pub(super) passed_on: BTreeSet<Vec<u8>>,
    /// Signaling messages that went out, by the broker.
    pub(super) said: u32,
}

/// How the nodes of a world behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    pub(super) relay: bool,
    pub(super) lazy: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { relay: true, lazy: None }
    }
}

impl Node {
    pub(super) fn new(
        me: usize,
        secrets: &[Arc<SecretKey>],
        behaviour: Behaviour,
        now: Instant,
        seed: u64,
    ) -> Self {
        let secret = Arc::clone(&secrets[me]);
        let mut pairs = BTreeMap::new();
        let mut names = Vec::new();
        for (other, key) in secrets.iter().enumerate().filter(|(other, _)| *other != me) {
            let id = PeerId(u32::try_from(other).expect("few"));
            names.push((id, PeerName::of(&key.public_key())));
            let machine = |kind, number: u64| {
                let settings = Settings {
                    kind,
                    me: Arc::clone(&secret),
                    peer: key.public_key(),
                    psk: PresharedKey::default(),
                    capabilities: Capabilities {
                        rekey: true,
                        path_mtu: true,
                        relay: behaviour.relay,
                        mesh_signaling: behaviour.relay,
                        lazy: behaviour.lazy.is_some(),
                        ..Capabilities::default()
                    },
                    rekey_after_frames: REKEY_AFTER_FRAMES,
                };
                let seed = seed.wrapping_mul(31).wrapping_add(number * 1000 + other as u64);
                Machine::new(settings, ChaCha8Rng::seed_from_u64(seed))
            };
            let settings = PathSettings { relay: behaviour.relay, lazy: behaviour.lazy };
            let machines = [machine(SessionKind::Direct, 1), machine(SessionKind::Relayed, 2)];
            let [direct, relayed] = machines;
            let pair = Pair {
                paths: Paths::new(direct, relayed, settings, now),
                sessions: BTreeMap::new(),
                direct: None,
                connections: BTreeMap::new(),
                sizes: BTreeMap::new(),
                events: Vec::new(),
                packets: 0,
                heard: None,
            };
            pairs.insert(id, pair);
        }
        let mut reach = Reach::default();
        if behaviour.relay {
            reach.set_peers(now, &names);
        }
        Self {
            secret,
            life: 0,
            pairs,
            reach,
            relay: behaviour.relay,
            swallows: false,
            hesitates: false,
            passed_on: BTreeSet::new(),
            said: 0,
        }
    }

    pub(super) fn pair(&mut self, peer: PeerId) -> &mut Pair {
        self.pairs.get_mut(&peer).expect("a configured peer")
    }

    /// When something is to be done although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let pairs = self.pairs.values().filter_map(|pair| pair.paths.poll_timeout());
        pairs.chain(self.reach.poll_timeout()).min()
    }
}

impl Pair {
    /// Notes the keys of a session, or further ones.
    pub(super) fn install(&mut self, kind: SessionKind, id: SessionId, install: &Install) {
        let index = install.local_index;
        let keys = self.sessions.entry(id).or_insert_with(|| Keys {
            kind,
            sealers: Vec::new(),
            active: index,
            openers: Vec::new(),
            unconfirmed: None,
        });
        keys.sealers.push((index, install.send_key.to_vec(), install.remote_index));
        keys.openers.push((index, install.recv_key.to_vec()));
        keys.unconfirmed = Some(index);
    }

    pub(super) fn use_keys(&mut self, id: SessionId, index: u32) {
        if let Some(keys) = self.sessions.get_mut(&id) {
            keys.active = index;
            keys.sealers.retain(|(sealer, ..)| *sealer == index);
        }
    }

    pub(super) fn drop_keys(&mut self, id: SessionId, index: u32) {
        if let Some(keys) = self.sessions.get_mut(&id) {
            keys.openers.retain(|(opener, _)| *opener != index);
            keys.sealers.retain(|(sealer, ..)| *sealer != index);
        }
    }

    /// Seals something under the keys in use.
    pub(super) fn seal(&self, id: SessionId, text: Text) -> Option<(SessionKind, Frame)> {
        let keys = self.sessions.get(&id)?;
        let (_, key, index) = keys.sealers.iter().find(|(index, ..)| *index == keys.active)?;
        Some((keys.kind, Frame { index: *index, key: key.clone(), text }))
    }

    /// Opens a frame; the machine is told what it tells.
    pub(super) fn open(&mut self, now: Instant, id: SessionId, frame: Frame) -> Option<Text> {
        let keys = self.sessions.get_mut(&id)?;
        if !keys.openers.contains(&(frame.index, frame.key)) {
            return None;
        }
        let machine = self.paths.machine(keys.kind);
        if keys.unconfirmed.take_if(|index| *index == frame.index).is_some() {
            machine.opened(now, id, frame.index);
        }
        machine.last_opened(id, now);
        match frame.text {
            Text::Control(control) => machine.control(now, id, &control),
            Text::Rekey(message) => machine.rekey(now, id, &message),
            Text::Packet => {
                self.packets += 1;
                self.heard = Some(now);
                let kind = keys.kind;
                self.paths.set_traffic(Some(now));
                if kind == SessionKind::Relayed {
                    self.paths.set_relay_traffic(now, Some(now));
                }
            }
            Text::Relay(..) => {
                self.paths.set_traffic(Some(now));
                return Some(frame.text);
            }
            other => return Some(other),
        }
        None
    }
}
