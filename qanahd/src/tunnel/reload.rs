//! A changed configuration, applied to a tunnel that is up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use qanah_core::config::{self, Config, Hooks, TunnelName};
use qanah_core::key::{PresharedKey, PublicKey};
use qanah_core::plan::{Change, Step};
use qanah_core::router::PeerId;

use super::actor::Actor;
use super::members::{Member, Members};
use super::peer::{Peer, Seed};
use super::{Behaviour, TunnelError, prepare_peer, steps};

/// Changes that are told one by one; of more only the number.
const TOLD: usize = 200;

/// What the daemon keeps of a tunnel's configuration, to compare the next one with.
pub(crate) struct Outline {
    public_key: PublicKey,
    hooks: Hooks,
    listen_port: Option<u16>,
    behaviour: Behaviour,
    peers: HashMap<PublicKey, Known>,
    /// Ids are not used again: what is still under way for a peer that is gone must not reach another.
    next: u32,
}

struct Known {
    id: PeerId,
    psk: PresharedKey,
    topic: String,
}

/// What a tunnel needs to take on another configuration. Made away from its thread, because keys
/// take time to derive.
pub(crate) struct Reload {
    config: Config,
    steps: Vec<Step>,
    /// Of the peers of the configuration, in its order.
    ids: Vec<PeerId>,
    /// Peers that are new, or share another key with us.
    fresh: Vec<Seed>,
}

impl Outline {
    pub(super) fn new(
        public_key: PublicKey,
        config: &Config,
        seeds: &[Seed],
        behaviour: Behaviour,
    ) -> Self {
        let hooks = config.interface.hooks.clone();
        let listen_port = config.interface.listen_port;
        let peers = HashMap::new();
        let mut outline = Self { public_key, hooks, listen_port, behaviour, peers, next: 0 };
        for (seed, peer) in seeds.iter().zip(&config.peers) {
            outline.note(seed, peer);
        }
        outline
    }

    fn note(&mut self, seed: &Seed, peer: &config::Peer) {
        let topic = seed.keys.inbox().topic();
        let psk = peer.preshared_key.clone().unwrap_or_default();
        self.next = self.next.max(seed.id.0.saturating_add(1));
        self.peers.insert(peer.public_key, Known { id: seed.id, psk, topic });
    }

    /// The topic of each peer's inbox for us.
    pub(crate) fn topics(&self) -> HashMap<String, PeerId> {
        self.peers.values().map(|known| (known.topic.clone(), known.id)).collect()
    }

    /// Compares with another configuration: what the tunnel is to do, and the outline that holds when
    /// it has done it.
    ///
    /// # Errors
    /// What cannot change while the tunnel is up, and whatever is wrong with the configuration.
    pub(crate) fn compare(
        &self,
        name: &TunnelName,
        config: Config,
    ) -> Result<(Reload, Self), TunnelError> {
        let me = Arc::new(config.interface.private_key.clone());
        if me.public_key() != self.public_key {
            return Err(TunnelError::OtherKey);
        }
        let steps = steps(name, &config)?;
        let mut next = Self {
            public_key: self.public_key,
            // Those of the start stay in force.
            hooks: self.hooks.clone(),
            listen_port: self.listen_port,
            behaviour: self.behaviour,
            peers: HashMap::new(),
            next: self.next,
        };
        let (mut ids, mut fresh) = (Vec::new(), Vec::new());
        for peer in &config.peers {
            let psk = peer.preshared_key.clone().unwrap_or_default();
            let known = self.peers.get(&peer.public_key);
            let id = known.map_or(PeerId(next.next), |known| known.id);
            match known.filter(|known| known.psk == psk) {
                Some(same) => {
                    let topic = same.topic.clone();
                    next.peers.insert(peer.public_key, Known { id, psk, topic });
                }
                None => {
                    let seed = prepare_peer(&me, id, peer, self.behaviour)?;
                    next.note(&seed, peer);
                    fresh.push(seed);
                }
            }
            ids.push(id);
        }
        Ok((Reload { config, steps, ids, fresh }, next))
    }

    /// What of a changed configuration has no effect before the next start.
    pub(crate) fn later(&self, config: &Config) -> Option<String> {
        let hooks = config.interface.hooks != self.hooks;
        let port = config.interface.listen_port != self.listen_port;
        let what = match (hooks, port) {
            (false, false) => return None,
            (true, false) => "the hooks have",
            (false, true) => "ListenPort has",
            (true, true) => "the hooks and ListenPort have",
        };
        Some(format!(
            "{what} changed; what was read when the tunnel came up stays in force until it is taken \
             down and brought up again"
        ))
    }
}

impl Actor {
    /// Takes on another configuration and says what was changed. Sessions of peers that are in both
    /// with the same keys live on.
    ///
    /// # Errors
    /// What the machine does not allow; then everything is as before.
    pub(super) async fn reload(&mut self, reload: Reload) -> Result<Vec<String>, TunnelError> {
        let Reload { config, steps, ids, fresh } = reload;
        let made = self.applied.change(&steps).await?;
        let mut told: Vec<String> = made.iter().map(done).collect();

        let old = std::mem::take(&mut self.members).into_inner();
        let mut old: HashMap<PeerId, Member> =
            old.into_iter().map(|member| (member.peer.id, member)).collect();
        let mut fresh: HashMap<PeerId, Seed> =
            fresh.into_iter().map(|seed| (seed.id, seed)).collect();
        let mut members = Vec::with_capacity(ids.len());
        for (id, peer) in ids.into_iter().zip(&config.peers) {
            let known = old.remove(&id);
            members.extend(match (fresh.remove(&id), known) {
                (Some(seed), known) => Some(self.replace(known, seed, peer, &mut told)),
                (None, Some(known)) => Some(kept(known, peer, &mut told)),
                // The outline and the tunnel know the same peers.
                (None, None) => None,
            });
        }
        let mut gone: Vec<Member> = old.into_values().collect();
        gone.sort_by_key(|member| member.peer.id);
        for member in gone {
            told.push(format!("peer {} removed", member.peer.label));
            self.retire(member.peer);
        }
        self.members = Members::new(members);
        self.identity.update(&config);
        self.shared.connecting.prefixes.borrow_mut().clone_from(&config.interface.addresses);
        self.applied.device().note_mtu(config.interface.mtu);
        self.books.peers.replace(self.members.stats());
        self.routes.send_replace(Arc::new(self.members.router()));
        self.name_peers(config.interface.addresses);
        // Peers that stay know it already, and mind nothing.
        self.with_all(|_| {});
        Ok(shortened(told))
    }

    /// A peer that is new, or whose key has changed.
    fn replace(
        &mut self,
        known: Option<Member>,
        seed: Seed,
        config: &config::Peer,
        told: &mut Vec<String>,
    ) -> Member {
        let mut peer = Peer::new(seed);
        let label = config.display_name();
        match known {
            None => told.push(format!("peer {label} added")),
            Some(known) => {
                told.push(format!("peer {label} has another PresharedKey and connects again"));
                peer.stats = std::rc::Rc::clone(&known.peer.stats);
                self.retire(known.peer);
                // Who reaches it, and by what way, is found out anew.
                self.shared.reach.get_mut().forget(crate::clock::now(), peer.id);
            }
        }
        if self.signaling {
            peer.paths.set_broker(crate::clock::now(), true);
        }
        Member::new(peer, config)
    }

    /// Says goodbye to a peer and forgets its keys.
    fn retire(&self, mut peer: Peer) {
        peer.paths.stop();
        peer.settle(&self.shared);
        self.shared.senders.borrow_mut().forget(peer.id);
    }
}

/// A peer that stays, with what the configuration says of it now.
fn kept(mut member: Member, config: &config::Peer, told: &mut Vec<String>) -> Member {
    let label = config.display_name();
    if member.peer.label != label {
        told.push(format!("peer {} is called {label} now", member.peer.label));
    }
    let set = |nets: &[ipnet::IpNet]| nets.iter().copied().collect::<BTreeSet<_>>();
    if set(&member.allowed_ips) != set(&config.allowed_ips) {
        told.push(format!("peer {label} has other AllowedIPs"));
    }
    member.peer.label = label;
    member.name.clone_from(&config.name);
    member.allowed_ips.clone_from(&config.allowed_ips);
    member
}

/// A change of the machine in the words for one that was made.
fn done(change: &Change) -> String {
    format!("done: {}", change.describe())
}

fn shortened(mut told: Vec<String>) -> Vec<String> {
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("and {more} more changes"));
    }
    told
}
