//! By which connected peers the others can be reached, and which of them is the relay of each.

mod carrying;
mod choice;
mod shunned;
mod standing;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::carrying::Carrying;
use self::choice::{Weighed, length, settle};
use self::shunned::Shunned;
pub use self::standing::{ByRelay, Carrier, ReachOutput, Standing};
use super::limits::{
    ASK_SELDOM, ASK_WHEN_RELAYED, BELIEVED, BETTER_FOR, MEASURED_COUNTS, SIGNAL_CARRIERS,
};
use crate::frame::reach::Reached;
use crate::router::PeerId;
use crate::signal::PeerName;

/// That a carrier reaches a peer.
#[derive(Debug, Clone, Copy)]
struct Reaching {
    /// From the carrier on.
    rtt: Option<Duration>,
    said: Instant,
}

#[derive(Debug)]
struct Entry {
    name: PeerName,
    /// Other ways to it than a direct session are looked for.
    sought: bool,
    by: BTreeMap<PeerId, Reaching>,
    via: Option<PeerId>,
    /// A relay that is clearly better than the one in use, and since when.
    better: Option<(PeerId, Instant)>,
    /// Relays by which nothing came back.
    shunned: Shunned,
    /// Measured round-trip times by relays, and when.
    measured: BTreeMap<PeerId, (Duration, Instant)>,
    /// What was told last: the relay, and whether anybody passes messages on.
    told: (Option<PeerId>, bool),
}

/// Who is reached by whom, for all peers of a tunnel.
///
/// Its owner says what it sees of the peers, and takes outputs after each input.
#[derive(Debug, Default)]
pub struct Reach {
    names: HashMap<PeerName, PeerId>,
    peers: BTreeMap<PeerId, Entry>,
    carriers: BTreeMap<PeerId, Carrying>,
    outputs: VecDeque<ReachOutput>,
    asked: u32,
}

impl Reach {
    /// Takes on the peers of a configuration. Those that were known before keep what is known of them.
    pub fn set_peers(&mut self, now: Instant, peers: &[(PeerId, PeerName)]) {
        self.names = peers.iter().map(|(id, name)| (*name, *id)).collect();
        let gone: Vec<PeerId> = self
            .peers
            .keys()
            .filter(|id| !peers.iter().any(|(it, _)| it == *id))
            .copied()
            .collect();
        for id in gone {
            self.peers.remove(&id);
            self.lose_carrier(now, id);
        }
        for (id, name) in peers {
            let entry = self.peers.entry(*id).or_insert_with(|| Entry {
                name: *name,
                sought: false,
                by: BTreeMap::new(),
                via: None,
                better: None,
                shunned: Shunned::default(),
                measured: BTreeMap::new(),
                told: (None, false),
            });
            entry.name = *name;
        }
    }

    /// Which peer has this name.
    pub fn peer(&self, name: PeerName) -> Option<PeerId> {
        self.names.get(&name).copied()
    }

    /// The name of a peer.
    pub fn name(&self, peer: PeerId) -> Option<PeerName> {
        self.peers.get(&peer).map(|entry| entry.name)
    }

    /// Forgets all that is known of a peer: it begins anew.
    pub fn forget(&mut self, now: Instant, peer: PeerId) {
        if let Some(entry) = self.peers.remove(&peer) {
            self.names.remove(&entry.name);
        }
        self.lose_carrier(now, peer);
    }

    /// Notes how a peer stands now. Says whether it carries something else than before.
    pub fn observe(&mut self, now: Instant, peer: PeerId, standing: &Standing) -> bool {
        match standing.by_relay {
            Some(ByRelay::Silent(relay)) => self.shun(now, peer, relay),
            Some(ByRelay::Answers(relay, rtt)) => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.measured.insert(relay, (rtt, now));
                }
            }
            None => {}
        }
        let carrier = standing.carrier.filter(|carrier| carrier.relays || carrier.signals);
        let changed = match (self.carriers.get_mut(&peer), carrier) {
            (Some(known), Some(carrier)) => {
                let before = std::mem::replace(&mut known.is, carrier);
                if before != carrier {
                    self.carrier_changed(now, peer);
                }
                (before.relays, before.signals) != (carrier.relays, carrier.signals)
            }
            (None, Some(carrier)) => self.gain_carrier(now, peer, carrier),
            (Some(_), None) => self.lose_carrier(now, peer),
            (None, None) => false,
        };
        self.seek(now, peer, standing.sought);
        changed
    }

    /// The first of these peers that passes frames on for us.
    pub fn first_relay(&self, mut order: impl Iterator<Item = PeerId>) -> Option<PeerId> {
        order.find(|id| self.carriers.get(id).is_some_and(|carrier| carrier.is.relays))
    }

    /// The peer that signaling of `from` under this name is passed on to.
    pub fn signal_target(&self, from: PeerId, name: PeerName) -> Option<PeerId> {
        let to = self.peer(name).filter(|to| *to != from)?;
        self.carriers.get(&to).filter(|carrier| carrier.is.signals).map(|_| to)
    }

    /// Which of these peers we reach directly, and pass frames and signaling on to. Of others nothing is said, not
    /// even that they are configured.
    pub fn reached(&self, asker: PeerId, names: &[PeerName]) -> Vec<Reached> {
        let carried = |name: &PeerName| {
            let peer = self.peer(*name).filter(|peer| *peer != asker)?;
            let is = self.carriers.get(&peer)?.is;
            (is.relays && is.signals).then_some(Reached { name: *name, rtt: is.rtt })
        };
        names.iter().filter_map(carried).collect()
    }

    fn seek(&mut self, now: Instant, peer: PeerId, sought: bool) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if std::mem::replace(&mut entry.sought, sought) != sought && sought {
            for (id, carrier) in &mut self.carriers {
                if *id != peer {
                    carrier.ask_soon(now, peer);
                }
            }
            self.ask_all(now);
        }
    }

    fn gain_carrier(&mut self, now: Instant, peer: PeerId, is: Carrier) -> bool {
        let sought = self.peers.iter().filter(|(id, entry)| entry.sought && **id != peer);
        let queue = sought.map(|(id, _)| *id).collect();
        self.carriers.insert(peer, Carrying::new(now, is, queue));
        self.ask(now, peer);
        true
    }

    fn lose_carrier(&mut self, now: Instant, peer: PeerId) -> bool {
        if self.carriers.remove(&peer).is_none() {
            return false;
        }
        let by_it: Vec<PeerId> = self
            .peers
            .iter_mut()
            .filter_map(|(id, entry)| entry.by.remove(&peer).map(|_| *id))
            .collect();
        for id in by_it {
            self.reconsider(now, id, false);
        }
        true
    }

    /// It is farther or nearer than before, or carries something else.
    fn carrier_changed(&mut self, now: Instant, peer: PeerId) {
        let by_it = self.peers.iter().filter(|(_, entry)| entry.by.contains_key(&peer));
        for id in by_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reconsider(now, id, false);
        }
    }

    /// Something came from `peer` by `carrier`: it reaches it.
    pub fn heard(&mut self, now: Instant, carrier: PeerId, peer: PeerId) {
        if carrier == peer || !self.carriers.contains_key(&carrier) {
            return;
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let known = entry.by.get_mut(&carrier);
        match known {
            Some(reaching) => reaching.said = now,
            None => {
                entry.by.insert(carrier, Reaching { rtt: None, said: now });
                self.reconsider(now, peer, true);
            }
        }
    }

    /// A carrier has answered a question.
    pub fn answer(&mut self, now: Instant, carrier: PeerId, id: u32, reached: &[Reached]) {
        let Some(carrying) = self.carriers.get_mut(&carrier) else {
            return;
        };
        // An answer to nothing, or to what was given up, says nothing.
        let Some(asked) = carrying.answered(now, id) else {
            return;
        };
        for about in asked {
            let Some(entry) = self.peers.get_mut(&about) else {
                continue;
            };
            let yes = reached.iter().find(|it| it.name == entry.name);
            let (fresh, changed) = match yes {
                Some(yes) => {
                    let reaching = Reaching { rtt: yes.rtt, said: now };
                    let before = entry.by.insert(carrier, reaching);
                    (before.is_none(), true)
                }
                None => (false, entry.by.remove(&carrier).is_some()),
            };
            if changed {
                self.reconsider(now, about, fresh);
            }
        }
        self.ask(now, carrier);
    }

    /// Nothing comes back by this relay.
    fn shun(&mut self, now: Instant, peer: PeerId, relay: PeerId) {
        if self.peers.get_mut(&peer).is_some_and(|entry| entry.shunned.add(now, relay)) {
            self.reconsider(now, peer, false);
        }
    }

    /// Whether anybody passes messages on to this peer.
    pub fn is_carried(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|entry| entry.told.1)
    }

    /// The relay by which frames to this peer go.
    pub fn via(&self, peer: PeerId) -> Option<PeerId> {
        self.peers.get(&peer)?.via
    }

    /// The peers that pass messages on to this one, the best first, and no more than are useful.
    pub fn signal_carriers(&self, now: Instant, peer: PeerId) -> Vec<PeerId> {
        let Some(entry) = self.peers.get(&peer) else {
            return Vec::new();
        };
        let mut found: Vec<Weighed> = self.ways(now, entry, |is| is.signals).collect();
        found.sort_unstable();
        found.into_iter().take(SIGNAL_CARRIERS).map(|(.., id)| id).collect()
    }

    /// The ways to a peer by carriers that do what is asked of them.
    fn ways<'a>(
        &'a self,
        now: Instant,
        entry: &'a Entry,
        does: impl Fn(&Carrier) -> bool + 'a,
    ) -> impl Iterator<Item = Weighed> + 'a {
        entry.by.iter().filter_map(move |(id, reaching)| {
            let is = self.carriers.get(id).map(|carrier| carrier.is).filter(&does)?;
            let measured = entry.measured.get(id).filter(|(_, at)| now < *at + MEASURED_COUNTS);
            let length = measured.map_or_else(|| length(is.rtt, reaching.rtt), |(rtt, _)| *rtt);
            Some((entry.shunned.has(now, *id), length, *id))
        })
    }

    /// Chooses the relay of a peer anew, and tells that something has changed.
    fn reconsider(&mut self, now: Instant, peer: PeerId, fresh: bool) {
        let Some(entry) = self.peers.get(&peer) else {
            return;
        };
        let best = self.ways(now, entry, |is| is.relays).min();
        let mut ways = self.ways(now, entry, |is| is.relays);
        let current = entry.via.and_then(|via| ways.find(|(_, _, id)| *id == via));
        let (via, better) = settle(now, current, best, entry.better);
        let now_so = (via, self.ways(now, entry, |is| is.signals).next().is_some());
        drop(ways);
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.shunned.forgive(now);
        entry.measured.retain(|_, (_, at)| now < *at + MEASURED_COUNTS);
        entry.better = better;
        entry.via = via;
        let before = std::mem::replace(&mut entry.told, now_so);
        if fresh || before != now_so {
            self.outputs.push_back(ReachOutput::Changed { peer, fresh });
        }
    }

    fn ask_all(&mut self, now: Instant) {
        for id in self.carriers.keys().copied().collect::<Vec<_>>() {
            self.ask(now, id);
        }
    }

    /// Asks a carrier what there is to ask, if it may be asked now.
    fn ask(&mut self, now: Instant, carrier: PeerId) {
        let Some(carrying) = self.carriers.get_mut(&carrier) else {
            return;
        };
        let asked = self.asked.wrapping_add(1);
        let peers = &self.peers;
        let matters = |id: &PeerId| peers.get(id).is_some_and(|it| it.sought || it.via.is_some());
        let about = carrying.ask(now, asked, matters);
        let names: Vec<PeerName> =
            about.iter().filter_map(|id| self.peers.get(id).map(|entry| entry.name)).collect();
        if !names.is_empty() {
            self.asked = asked;
            self.outputs.push_back(ReachOutput::Ask { carrier, id: asked, names });
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant) {
        self.disbelieve(now);
        let sought: Vec<PeerId> =
            self.peers.iter().filter(|(_, entry)| entry.sought).map(|(id, _)| *id).collect();
        let relayed = self.peers.values().any(|entry| entry.sought && !entry.by.is_empty());
        let longest = if relayed { ASK_WHEN_RELAYED } else { ASK_SELDOM };
        for (id, carrier) in &mut self.carriers {
            let others = sought.iter().filter(|peer| *peer != id).copied();
            carrier.begin_round(now, longest, others);
        }
        self.ask_all(now);
        let waiting = self
            .peers
            .iter()
            .filter(|(_, it)| it.better.is_some() || it.shunned.next_change().is_some());
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reconsider(now, id, false);
        }
    }

    /// What was said long ago and not again does not count any more.
    fn disbelieve(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for (id, entry) in &mut self.peers {
            let before = entry.by.len();
            entry.by.retain(|_, reaching| now < reaching.said + BELIEVED);
            if entry.by.len() < before {
                changed.push(*id);
            }
        }
        for id in changed {
            self.reconsider(now, id, false);
        }
    }

    /// When to call [`Reach::timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sought = self.peers.values().any(|entry| entry.sought);
        let rounds = self.carriers.values().filter(|_| sought).map(|carrier| carrier.next_round());
        let questions = self.carriers.values().filter_map(Carrying::next_question);
        let beliefs = self.peers.values().flat_map(|entry| entry.by.values());
        let beliefs = beliefs.map(|reaching| reaching.said + BELIEVED);
        let better = self.peers.values().filter_map(|entry| entry.better);
        let better = better.map(|(_, since)| since + BETTER_FOR);
        let shunned = self.peers.values().filter_map(|entry| entry.shunned.next_change());
        rounds.chain(questions).chain(beliefs).chain(better).chain(shunned).min()
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<ReachOutput> {
        self.outputs.pop_front()
    }
}
