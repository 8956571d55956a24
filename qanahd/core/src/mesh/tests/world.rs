//! Several peers, the links between them, a broker, a pretended WebRTC stack and a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::super::ReachOutput;
use super::hands::description;
use super::node::{Behaviour, Frame, Node, Text};
use crate::frame::Hop;
use crate::key::SecretKey;
use crate::router::PeerId;
use crate::session::SessionKind;
use crate::signal::{DtlsRole, Message, PeerName, SessionId};

/// How long a node that hesitates keeps what it passes on.
const HESITATES_MS: u32 = 40;

/// What the broker does to messages, and links to frames, in per cent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lose: u32,
    pub(super) repeat: u32,
    pub(super) delay_ms: u32,
    pub(super) frames: u32,
}

/// The largest SCTP packet that nodes can send.
pub(super) const ROOM: u16 = 1412;

/// Something that will happen at a node, about one of its peers.
#[derive(Debug)]
pub(super) enum What {
    Message(Message),
    Frame(SessionId, Frame),
    Described(SessionId, DtlsRole),
    Restarted(SessionId, u32),
    /// ICE looks for a path; so many tries are left.
    Try(SessionId, u32),
    Open(SessionId),
    /// Something is sent to this peer, late.
    Late(Text),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    pub(super) broker: bool,
    behaviours: Vec<Behaviour>,
    secrets: Vec<Arc<SecretKey>>,
    /// Links that carry nothing, each in one direction.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// The largest SCTP packet that a link carries, in one direction, where that is less than all send.
    pub(super) limits: BTreeMap<(usize, usize), u16>,
    /// Sessions that sent something larger, and send in vain since.
    pub(super) clogged: BTreeSet<(usize, SessionId)>,
    /// Nodes whose links take longer.
    pub(super) slow: BTreeSet<usize>,
    queue: BTreeMap<(Instant, u64), (usize, u32, PeerId, What)>,
    count: u64,
    pub(super) rng: ChaCha8Rng,
}

pub(super) fn id(node: usize) -> PeerId {
    PeerId(u32::try_from(node).expect("few"))
}

pub(super) const fn at(peer: PeerId) -> usize {
    peer.0 as usize
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, behaviour: Behaviour) -> Self {
        Self::mixed(seed, vec![behaviour; nodes])
    }

    /// Nodes that behave differently.
    pub(super) fn mixed(seed: u64, behaviours: Vec<Behaviour>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let generate = |_: &Behaviour| Arc::new(SecretKey::generate(&mut rng));
        let secrets: Vec<_> = behaviours.iter().map(generate).collect();
        let now = Instant::now();
        let nodes = behaviours.iter().enumerate();
        let nodes = nodes
            .map(|(me, behaviour)| Node::new(me, &secrets, *behaviour, now, rng.next_u64()))
            .collect();
        let faults = Faults { delay_ms: 5, ..Faults::default() };
        Self {
            now,
            nodes,
            faults,
            broker: true,
            behaviours,
            secrets,
            cut: BTreeSet::new(),
            limits: BTreeMap::new(),
            clogged: BTreeSet::new(),
            slow: BTreeSet::new(),
            queue: BTreeMap::new(),
            count: 0,
            rng,
        }
    }

    pub(super) fn start(&mut self) {
        for node in 0..self.nodes.len() {
            self.tell_broker(node);
        }
    }

    fn tell_broker(&mut self, node: usize) {
        let (now, broker) = (self.now, self.broker);
        for peer in self.peers(node) {
            self.nodes[node].pair(peer).paths.set_broker(now, broker);
            self.settle(node, peer);
        }
    }

    fn peers(&self, node: usize) -> Vec<PeerId> {
        self.nodes[node].pairs.keys().copied().collect()
    }

    pub(super) fn set_broker(&mut self, up: bool) {
        self.broker = up;
        self.start();
    }

    /// Restarts a node: it forgets everything but its key.
    pub(super) fn restart(&mut self, node: usize) {
        let seed = self.rng.next_u64();
        let mut fresh = Node::new(node, &self.secrets, self.behaviours[node], self.now, seed);
        fresh.life = self.nodes[node].life + 1;
        fresh.said = self.nodes[node].said;
        self.nodes[node] = fresh;
        if self.broker {
            self.tell_broker(node);
        }
    }

    /// Cuts or mends a link in one direction.
    pub(super) fn set_link(&mut self, from: usize, to: usize, works: bool) {
        if works {
            self.cut.remove(&(from, to));
        } else {
            self.cut.insert((from, to));
        }
    }

    /// From now on a link carries packets of up to this size, both ways.
    pub(super) fn narrow(&mut self, a: usize, b: usize, size: u16) {
        self.limits.insert((a, b), size);
        self.limits.insert((b, a), size);
        self.clogged.clear();
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.set_link(a, b, false);
        self.set_link(b, a, false);
    }

    pub(super) fn mend(&mut self, a: usize, b: usize) {
        self.set_link(a, b, true);
        self.set_link(b, a, true);
    }

    /// Whether the link works both ways.
    pub(super) fn is_linked(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Whether there is a way of one or two hops.
    pub(super) fn is_reachable(&self, a: usize, b: usize) -> bool {
        let relays = |node: usize| self.behaviours[node].relay;
        let by = |relay| relays(relay) && self.is_linked(a, relay) && self.is_linked(relay, b);
        let mut others = (0..self.nodes.len()).filter(|it| *it != a && *it != b);
        self.is_linked(a, b) || (relays(a) && relays(b) && others.any(by))
    }

    pub(super) fn percent(&mut self, chance: u32) -> bool {
        self.rng.next_u32() % 100 < chance
    }

    pub(super) fn push(&mut self, after_ms: u32, node: usize, peer: PeerId, what: What) {
        self.count += 1;
        let at = self.now + Duration::from_millis(after_ms.into());
        self.queue.insert((at, self.count), (node, self.nodes[node].life, peer, what));
    }

    /// Runs for some milliseconds of virtual time.
    pub(super) fn run_ms(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let timers = self.nodes.iter().filter_map(Node::deadline).min();
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let Some(next) = timers.into_iter().chain(queued).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if queued.is_some_and(|at| at <= self.now) {
                let Some((_, (node, life, peer, what))) = self.queue.pop_first() else {
                    break;
                };
                // A broker delivers to whoever listens now.
                if self.nodes[node].life == life || matches!(what, What::Message(_)) {
                    self.happen(node, peer, what);
                }
            } else {
                self.timeouts();
            }
        }
        self.now = end;
    }

    pub(super) fn run(&mut self, seconds: u64) {
        self.run_ms(seconds * 1000);
    }

    fn timeouts(&mut self) {
        let now = self.now;
        for node in 0..self.nodes.len() {
            for peer in self.peers(node) {
                let paths = &mut self.nodes[node].pair(peer).paths;
                if paths.poll_timeout().is_some_and(|at| at <= now) {
                    paths.timeout(now);
                    self.settle(node, peer);
                }
            }
            self.nodes[node].reach.timeout(now);
            self.follow(node);
        }
    }

    fn happen(&mut self, node: usize, peer: PeerId, what: What) {
        let now = self.now;
        let pair = self.nodes[node].pair(peer);
        let machine = pair.paths.direct_mut();
        match what {
            What::Message(message) => pair.paths.message(now, message),
            What::Frame(session, frame) => self.receive(node, peer, session, frame),
            What::Late(text) => self.send_direct(node, peer, text),
            What::Described(session, role) => machine.described(now, session, description(role)),
            What::Restarted(session, generation) => {
                machine.restarted(now, session, generation, description(DtlsRole::Active).ice);
            }
            What::Try(session, 0) => machine.path_failed(now, session),
            What::Try(session, left) => self.try_open(node, peer, session, left),
            What::Open(session) => {
                if pair.connections.contains_key(&session) {
                    machine.path_chosen(now, session, Some(ROOM));
                    machine.channel_open(now, session);
                }
            }
        }
        self.settle(node, peer);
    }

    /// ICE, DTLS and SCTP of the offerer.
    fn try_open(&mut self, node: usize, peer: PeerId, session: SessionId, left: u32) {
        let here = self.nodes[node].pair(peer).connections.contains_key(&session);
        let there = self.nodes[at(peer)].pair(id(node)).connections.contains_key(&session);
        if here && there && self.is_linked(node, at(peer)) {
            self.push(0, node, peer, What::Open(session));
            self.push(2, at(peer), id(node), What::Open(session));
        } else if here {
            self.push(1000, node, peer, What::Try(session, left - 1));
        }
    }

    fn receive(&mut self, node: usize, from: PeerId, session: SessionId, frame: Frame) {
        let now = self.now;
        let Some(text) = self.nodes[node].pair(from).open(now, session, frame) else {
            return;
        };
        let relay = self.nodes[node].relay;
        match text {
            _ if !relay => {}
            Text::Relay(Hop::ToRelay, name, id_inside, inner) => {
                let to = self.nodes[node].reach.peer(name).filter(|to| *to != from);
                let to = to.filter(|_| !self.nodes[node].swallows);
                let source = PeerName::of(&self.nodes[at(from)].secret.public_key());
                if let Some(to) = to {
                    self.nodes[node].passed_on.insert(inner.key.clone());
                    let late = if self.nodes[node].hesitates { HESITATES_MS } else { 0 };
                    let text = Text::Relay(Hop::FromRelay, source, id_inside, inner);
                    self.push(late, node, to, What::Late(text));
                }
            }
            Text::Relay(Hop::FromRelay, name, session, inner) => {
                if let Some(source) = self.nodes[node].reach.peer(name) {
                    // One hop: what is inside is for us or for nobody.
                    self.nodes[node].pair(source).open(now, session, *inner);
                    self.nodes[node].reach.heard(now, from, source);
                    self.settle(node, source);
                }
            }
            Text::Signaling(Hop::ToRelay, name, message) => {
                let to = self.nodes[node].reach.signal_target(from, name);
                let source = PeerName::of(&self.nodes[at(from)].secret.public_key());
                if let Some(to) = to {
                    self.send_direct(node, to, Text::Signaling(Hop::FromRelay, source, message));
                }
            }
            Text::Signaling(Hop::FromRelay, name, message) => {
                if let Some(source) = self.nodes[node].reach.peer(name) {
                    self.nodes[node].reach.heard(now, from, source);
                    self.nodes[node].pair(source).paths.message(now, message);
                    self.settle(node, source);
                }
            }
            Text::Query(number, names) => self.answer(node, from, number, &names),
            Text::Answer(number, reached) => {
                self.nodes[node].reach.answer(now, from, number, &reached);
            }
            Text::Control(_) | Text::Rekey(_) | Text::Packet => {}
        }
        self.follow(node);
    }

    fn answer(&mut self, node: usize, asker: PeerId, number: u32, names: &[PeerName]) {
        let reached = self.nodes[node].reach.reached(asker, names);
        self.send_direct(node, asker, Text::Answer(number, reached));
    }

    /// Carries out what the machines of a peer want, and notes what that means for others.
    pub(super) fn settle(&mut self, node: usize, peer: PeerId) {
        let now = self.now;
        self.nodes[node].pair(peer).paths.update(now);
        while let Some((kind, output)) = self.nodes[node].pair(peer).paths.poll_output() {
            self.carry_out(node, peer, kind, output);
        }
        let paths = &mut self.nodes[node].pair(peer).paths;
        paths.update(now);
        if !self.nodes[node].relay {
            return;
        }
        let standing = self.nodes[node].pair(peer).paths.standing(now);
        self.nodes[node].reach.observe(now, peer, &standing);
        self.follow(node);
    }

    fn follow(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].reach.poll_output() {
            match output {
                ReachOutput::Ask { carrier, id, names } => {
                    self.send_direct(node, carrier, Text::Query(id, names));
                }
                ReachOutput::Changed { peer, fresh } => {
                    let (now, reach) = (self.now, &self.nodes[node].reach);
                    let (carried, via) = (reach.is_carried(peer), reach.via(peer));
                    self.nodes[node].pair(peer).paths.set_reach(now, carried, fresh, via);
                    self.settle(node, peer);
                }
            }
        }
    }

    /// Sends a packet by whatever way is chosen; nothing without one.
    pub(super) fn send_packet(&mut self, from: usize, to: usize) {
        let now = self.now;
        let pair = self.nodes[from].pair(id(to));
        match pair.paths.chosen() {
            Some((_, session)) => {
                self.send(from, id(to), session, Text::Packet);
            }
            None => pair.paths.want(now),
        }
        self.settle(from, id(to));
    }

    /// The way that packets from one node to another take.
    pub(super) fn way(&self, from: usize, to: usize) -> Option<(SessionKind, SessionId)> {
        self.nodes[from].pairs[&id(to)].paths.chosen()
    }

    /// The relay that one node uses to another.
    pub(super) fn via(&self, from: usize, to: usize) -> Option<usize> {
        self.nodes[from].pairs[&id(to)].paths.via().map(at)
    }

    /// Packets that came to one node from another.
    pub(super) fn packets(&self, node: usize, from: usize) -> u32 {
        self.nodes[node].pairs[&id(from)].packets
    }

    /// Sessions with keys that one node has with another.
    pub(super) fn sessions(&self, node: usize, with: usize) -> usize {
        self.nodes[node].pairs[&id(with)].sessions.len()
    }
}
