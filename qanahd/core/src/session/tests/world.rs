//! Two machines, a message bus, a pretended WebRTC stack and a virtual clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::super::*;
use super::node::{Frame, Keys, Node, Plaintext};
use crate::key::{PresharedKey, SecretKey};
use crate::signal::DtlsRole;

pub(super) type Peer = Machine<ChaCha8Rng>;

/// What the bus does to messages, in per cent.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) lose: u32,
    pub(super) repeat: u32,
    pub(super) delay_ms: u32,
    /// Frames that get lost, and as many that come twice.
    pub(super) frames: u32,
}

impl Faults {
    pub(super) const fn none() -> Self {
        Self { lose: 0, repeat: 0, delay_ms: 5, frames: 0 }
    }

    pub(super) const fn wild() -> Self {
        Self { lose: 20, repeat: 20, delay_ms: 1500, frames: 5 }
    }

    /// Nothing happens to messages, but much to frames.
    pub(super) const fn rough(frames: u32) -> Self {
        Self { lose: 0, repeat: 0, delay_ms: 5, frames }
    }
}

/// Something that will happen at one of the two.
#[derive(Debug)]
enum Happening {
    Message(Message),
    Frame(SessionId, Frame),
    Described(SessionId),
    Candidate(SessionId),
    Gathered(SessionId),
    Restarted(SessionId, u32),
    Open(SessionId),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: [Node; 2],
    pub(super) faults: Faults,
    /// The network between the two carries frames.
    pub(super) path: bool,
    /// The STUN servers answer: gathering ends.
    pub(super) gathers: bool,
    rng: ChaCha8Rng,
    queue: BTreeMap<(Instant, u64), (usize, u32, Happening)>,
    count: u64,
    /// All keys that there ever were, with the key of the other direction.
    pub(super) keys: HashMap<Vec<u8>, Vec<u8>>,
    /// Messages of a rekey get lost, all of them.
    pub(super) deaf_to_rekey: bool,
    /// Both sides can rekey.
    rekey: Option<u64>,
    /// The largest SCTP packet that leaves for the path.
    pub(super) room: Option<u16>,
    /// The largest SCTP packet that passes, from each side. What is larger vanishes, and with it all that the session
    /// sends there after it.
    pub(super) limits: [u16; 2],
    clogged: BTreeSet<(usize, SessionId)>,
    /// Channels open where there is a path.
    pub(super) opens: bool,
    /// The sides that have an address of IPv6.
    pub(super) ipv6: [bool; 2],
}

impl World {
    /// Node 0 has the greater key: it offers. Both can rekey.
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self::with(seed, faults, Some(limits::REKEY_AFTER_FRAMES))
    }

    /// Both sides can rekey, and do when a key has sealed so many frames; or neither can.
    pub(super) fn with(seed: u64, faults: Faults, rekey: Option<u64>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut secrets = [SecretKey::generate(&mut rng), SecretKey::generate(&mut rng)];
        secrets.sort_by_key(|secret| Reverse(secret.public_key()));
        let now = Instant::now();
        let [first, second] = secrets.map(Arc::new);
        let nodes = [
            Node::new(Arc::clone(&first), &second, PresharedKey::default(), rekey, rng.next_u64()),
            Node::new(second, &first, PresharedKey::default(), rekey, rng.next_u64()),
        ];
        let queue = BTreeMap::new();
        Self {
            now,
            nodes,
            faults,
            path: true,
            gathers: true,
            rng,
            queue,
            count: 0,
            keys: HashMap::new(),
            deaf_to_rekey: false,
            rekey,
            room: None,
            limits: [u16::MAX; 2],
            clogged: BTreeSet::new(),
            opens: true,
            ipv6: [false; 2],
        }
    }

    /// From now on packets of this size pass, from each side.
    pub(super) fn set_limits(&mut self, limits: [u16; 2]) {
        self.limits = limits;
        // SCTP sends again what was too large; it may pass now.
        self.clogged.clear();
    }

    /// The packets of the session that a side sends by.
    pub(super) fn packet_size(&self, at: usize) -> Option<u16> {
        self.nodes[at].sizes.get(&self.nodes[at].active?).copied()
    }

    pub(super) fn start(&mut self) {
        for at in 0..2 {
            self.nodes[at].machine.signaling_up(self.now);
            self.settle(at);
        }
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.rng.next_u32() % 100 < chance
    }

    fn push(&mut self, at: Instant, node: usize, what: Happening) {
        self.count += 1;
        self.queue.insert((at, self.count), (node, self.nodes[node].life, what));
    }

    /// Restarts one side: it forgets everything but its keys.
    pub(super) fn restart(&mut self, at: usize) {
        self.restart_silently(at);
        self.nodes[at].machine.signaling_up(self.now);
        self.settle(at);
    }

    /// Restarts one side without any signaling.
    pub(super) fn restart_silently(&mut self, at: usize) {
        self.renew(at, PresharedKey::default());
    }

    /// Begins one side anew with another PresharedKey.
    pub(super) fn set_psk(&mut self, at: usize, psk: PresharedKey) {
        self.renew(at, psk);
    }

    fn renew(&mut self, at: usize, psk: PresharedKey) {
        let other = Arc::clone(&self.nodes[1 - at].secret);
        let old = &self.nodes[at];
        let mut fresh =
            Node::new(Arc::clone(&old.secret), &other, psk, self.rekey, self.rng.next_u64());
        fresh.life = old.life + 1;
        self.nodes[at] = fresh;
    }

    /// A source of chance for tests, decided by the seed.
    pub(super) fn random(&mut self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.rng.next_u64())
    }

    /// Runs for some seconds of virtual time.
    pub(super) fn run(&mut self, seconds: u64) {
        self.run_ms(seconds * 1000);
    }

    /// Runs for some milliseconds of virtual time.
    pub(super) fn run_ms(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let timers = self.nodes.iter().filter_map(|node| node.machine.poll_timeout()).min();
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let Some(next) = [timers, queued].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if queued.is_some_and(|at| at <= self.now) {
                let Some((_, (node, life, what))) = self.queue.pop_first() else {
                    break;
                };
                if self.nodes[node].life == life || matches!(what, Happening::Message(_)) {
                    self.happen(node, what);
                }
            } else {
                for at in 0..2 {
                    self.nodes[at].machine.timeout(self.now);
                    self.settle(at);
                }
            }
        }
        self.now = end;
    }

    /// Runs with restarts and lost paths at random times.
    pub(super) fn run_wildly(&mut self, seconds: u64) {
        self.start();
        let mut left = seconds;
        while left > 0 {
            let step = u64::from(self.rng.next_u32() % 20) + 1;
            self.run(step.min(left));
            left = left.saturating_sub(step);
            match self.rng.next_u32() % 9 {
                0 => self.restart(0),
                1 => self.restart(1),
                2 => self.path = !self.path,
                3 => {
                    let at = (self.rng.next_u32() % 2) as usize;
                    self.nodes[at].machine.signaling_down();
                    self.nodes[at].machine.signaling_up(self.now);
                    self.settle(at);
                }
                4 => {
                    let sizes = [1192, 1390, 1412, u16::MAX];
                    let limits = [(); 2].map(|()| sizes[(self.rng.next_u32() % 4) as usize]);
                    self.set_limits(limits);
                }
                5 | 6 => {
                    let seconds = 5 + u64::from(self.rng.next_u32() % 20);
                    self.chat(seconds);
                }
                _ => {}
            }
        }
        self.path = true;
    }

    fn happen(&mut self, at: usize, what: Happening) {
        let now = self.now;
        let node = &mut self.nodes[at];
        match what {
            Happening::Message(message) => node.machine.message(now, message),
            Happening::Frame(id, frame) => node.receive(now, id, &frame),
            Happening::Described(id) => {
                let offers = node.offered.contains(&id);
                let role = if offers { DtlsRole::ActPass } else { DtlsRole::Active };
                node.machine.described(now, id, RtcDescription { role, ..description() });
            }
            Happening::Candidate(id) => {
                node.machine.found_candidate(now, id, 0, candidate(at));
                if self.ipv6[at] {
                    node.machine.found_candidate(now, id, 0, candidate6(at));
                }
            }
            Happening::Gathered(id) => node.machine.gathered(now, id, 0),
            Happening::Restarted(id, generation) => {
                node.machine.restarted(now, id, generation, description().ice);
            }
            Happening::Open(id) => {
                node.machine.path_chosen(now, id, self.room);
                node.machine.channel_open(now, id);
            }
        }
        self.settle(at);
    }

    /// Carries out what the machine wants.
    pub(super) fn settle(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].machine.poll_output() {
            match output {
                Output::Send(message) => {
                    self.nodes[at].sent.push(message.clone());
                    self.carry(1 - at, message);
                }
                Output::ByHand(_, message) => self.nodes[at].texts.push((self.now, message)),
                Output::HandFailed(_, reason) => self.nodes[at].failed_texts.push(reason),
                Output::Rtc(id, command) => self.rtc(at, id, command),
                Output::Install(id, install) => self.install(at, id, &install),
                Output::SendControl(id, control) => {
                    self.send(at, id, &Plaintext::Control(control));
                }
                Output::SendRekey(id, message) => self.send(at, id, &Plaintext::Rekey(message)),
                Output::InstallKeys(id, install) => self.install(at, id, &install),
                Output::ActivateKeys(id, index) => self.nodes[at].use_keys(id, index),
                Output::DropKeys(id, index) => self.nodes[at].drop_keys(id, index),
                Output::Activate(id) => self.nodes[at].active = Some(id),
                Output::Deactivate => self.nodes[at].active = None,
                Output::Event(event) => self.nodes[at].events.push(event),
            }
        }
    }

    fn carry(&mut self, to: usize, message: Message) {
        let copies = 1 + u32::from(self.percent(self.faults.repeat));
        for _ in 0..copies {
            if !self.percent(self.faults.lose) {
                let delay = 1 + self.rng.next_u32() % self.faults.delay_ms.max(1);
                let arrival = self.now + Duration::from_millis(u64::from(delay));
                self.push(arrival, to, Happening::Message(message.clone()));
            }
        }
    }

    fn rtc(&mut self, at: usize, id: SessionId, command: RtcCommand) {
        let soon = self.now + Duration::from_millis(2);
        match command {
            RtcCommand::Offer { patience, packet_size } => {
                self.nodes[at].sizes.insert(id, packet_size);
                self.nodes[at].offers += 1;
                self.nodes[at].offered.insert(id);
                self.describe(at, id, patience.is_some());
            }
            RtcCommand::Answer { patience, packet_size, .. } => {
                self.nodes[at].sizes.insert(id, packet_size);
                self.nodes[at].accepted.insert(id);
                self.describe(at, id, patience.is_some());
            }
            RtcCommand::AcceptAnswer(_) => {
                let other = self.nodes[1 - at].accepted.contains(&id);
                if other && self.path && self.opens {
                    self.push(soon, at, Happening::Open(id));
                    self.push(soon, 1 - at, Happening::Open(id));
                }
            }
            RtcCommand::BeginRestart { generation }
            | RtcCommand::AnswerRestart { generation, .. } => {
                self.push(soon, at, Happening::Restarted(id, generation));
            }
            RtcCommand::Close => {
                self.nodes[at].accepted.remove(&id);
                self.nodes[at].installed.remove(&id);
            }
            RtcCommand::AddCandidates { .. } | RtcCommand::FinishRestart { .. } => {}
        }
    }

    fn describe(&mut self, at: usize, id: SessionId, by_hand: bool) {
        let soon = self.now + Duration::from_millis(2);
        self.push(soon, at, Happening::Described(id));
        if by_hand || self.ipv6[at] {
            self.push(soon, at, Happening::Candidate(id));
            if by_hand && self.gathers {
                self.push(soon + Duration::from_millis(200), at, Happening::Gathered(id));
            }
        }
    }

    fn install(&mut self, at: usize, id: SessionId, install: &Install) {
        let (send, recv) = (install.send_key.to_vec(), install.recv_key.to_vec());
        match self.keys.get(&send) {
            Some(other) => assert_eq!(*other, recv, "both ends hold the same two keys"),
            None => {
                self.keys.insert(send.clone(), recv.clone());
                let before = self.keys.insert(recv.clone(), send.clone());
                assert!(before.is_none(), "a key was used before");
            }
        }
        let index = install.local_index;
        let node = &mut self.nodes[at];
        let keys = node.installed.entry(id).or_insert_with(|| Keys {
            sealers: Vec::new(),
            active: index,
            openers: Vec::new(),
            unconfirmed: None,
        });
        let used = keys.sealers.iter().any(|(_, key, _)| *key == send);
        assert!(!used, "a key was installed twice at one end");
        keys.sealers.push((index, send, install.remote_index));
        keys.openers.push((index, recv));
        keys.unconfirmed = Some(index);
        node.most_keys = node.most_keys.max(keys.openers.len());
    }

    fn send(&mut self, at: usize, id: SessionId, text: &Plaintext) {
        let Some(keys) = self.nodes[at].installed.get(&id) else {
            return;
        };
        let sealer = keys.sealers.iter().find(|(index, ..)| *index == keys.active);
        let (_, key, index) = sealer.expect("a key to seal with").clone();
        if self.clogs(at, id, text) {
            return;
        }
        let deaf = self.deaf_to_rekey && matches!(text, Plaintext::Rekey(_));
        let copies = u32::from(!deaf) * (1 + u32::from(self.percent(self.faults.frames)));
        for _ in 0..copies {
            if self.path && !self.percent(self.faults.frames) {
                let delay = 1 + u64::from(self.rng.next_u32() % (1 + self.faults.frames));
                let arrival = self.now + Duration::from_millis(delay);
                let frame = Frame { index, key: key.clone(), text: text.clone() };
                self.push(arrival, 1 - at, Happening::Frame(id, frame));
            }
        }
    }

    /// Whether a frame does not get through, because it is too large for the path or waits behind one that is.
    fn clogs(&mut self, at: usize, id: SessionId, text: &Plaintext) -> bool {
        let packet = self.nodes[at].sizes.get(&id).copied().unwrap_or_default();
        let size = match text {
            Plaintext::Control(Control::PathProbe { size } | Control::PaddedPing { size, .. }) => {
                assert!(size + 28 <= packet, "a probe that is larger than the packets");
                size + 28
            }
            Plaintext::Packet => packet,
            _ => 0,
        };
        if size > self.limits[at] {
            self.clogged.insert((at, id));
        }
        self.clogged.contains(&(at, id))
    }

    /// Sends a packet, as large as it can be, by the active session.
    pub(super) fn send_packet(&mut self, at: usize) {
        if let Some(id) = self.nodes[at].active {
            self.send(at, id, &Plaintext::Packet);
            self.nodes[at].machine.last_sent(self.now, id, Some(self.now));
        }
    }

    /// Sends packets both ways for some seconds, and says how many came.
    pub(super) fn chat(&mut self, seconds: u64) -> u32 {
        let before = self.nodes[0].packets + self.nodes[1].packets;
        for _ in 0..seconds * 4 {
            self.send_packet(0);
            self.send_packet(1);
            self.run_ms(250);
        }
        self.nodes[0].packets + self.nodes[1].packets - before
    }

    pub(super) fn assert_one_session(&self, context: &str) {
        let [a, b] = &self.nodes;
        let views = [a.machine.view(), b.machine.view()];
        assert!(
            views.iter().all(|view| view.phase == Phase::Connected),
            "{context}: {views:?}\n{:?}\n{:?}",
            a.events,
            b.events
        );
        assert!(a.active.is_some() && a.active == b.active, "{context}: two sessions");
        assert!(a.installed.len() <= 3 && b.installed.len() <= 3, "{context}: sessions leak");
    }
}

fn candidate(at: usize) -> Candidate {
    let kind = crate::signal::CandidateKind::Host;
    let address = ([192, 0, 2, if at == 0 { 1 } else { 2 }], 40_000).into();
    Candidate { kind, priority: 1, address }
}

fn candidate6(at: usize) -> Candidate {
    let last = if at == 0 { 1 } else { 2 };
    Candidate { address: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 40_000).into(), ..candidate(at) }
}

/// What the pretended WebRTC stack says of itself.
pub(super) fn description() -> RtcDescription {
    RtcDescription {
        ice: IceCredentials { ufrag: "abcd".to_owned(), pwd: "abcdefghijklmnopqrstuv".to_owned() },
        fingerprint: [7; 32],
        role: DtlsRole::ActPass,
        sctp_port: 5000,
        max_message_size: 65_536,
        packet_size: None,
        candidates: Vec::new(),
    }
}
