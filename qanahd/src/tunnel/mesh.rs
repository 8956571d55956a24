//! What the tunnel does for, and hears of, pairs of other peers: signaling for others, questions who reaches
//! whom, and the relays of peers that are not reached directly.

use std::collections::HashMap;

use qanah_core::frame::reach::{write_entries, write_names};
use qanah_core::frame::{Control, Hop};
use qanah_core::mesh::ReachOutput;
use qanah_core::router::PeerId;
use qanah_core::signal::PeerName;

use super::actor::Actor;
use crate::clock;
use crate::downlink::MeshMessage;
use crate::stats::Drop;
use crate::transit::OwnAddresses;

impl Actor {
    /// Takes on the peers and addresses of a configuration.
    pub(super) fn name_peers(&mut self, addresses: Vec<ipnet::IpNet>) {
        let names = self.members.names();
        let by_id: HashMap<PeerId, PeerName> = names.iter().copied().collect();
        if let Some(desk) = &self.shared.desk {
            desk.peers.replace(names.iter().map(|(id, name)| (*name, *id)).collect());
            desk.own.replace(OwnAddresses::new(addresses));
            desk.retain(|peer| by_id.contains_key(&peer));
            self.shared.reach.get_mut().set_peers(clock::now(), &names);
        }
        self.shared.senders.borrow_mut().set_names(by_id);
        self.choose_transit();
    }

    /// A peer says something about others.
    pub(super) fn mesh(&mut self, from: PeerId, message: MeshMessage) {
        let now = clock::now();
        match message {
            MeshMessage::Signaling { hop: Hop::ToRelay, name, envelope } => {
                self.pass_signaling_on(from, name, &envelope);
            }
            MeshMessage::Signaling { hop: Hop::FromRelay, name, envelope } => {
                let reach = self.shared.reach.get_mut();
                let Some(source) = reach.peer(name) else {
                    return self.count(from, Drop::RelayRefused);
                };
                reach.heard(now, from, source);
                let mut is_forged = false;
                self.touch(source, |peer, now| is_forged = peer.envelope_by_mesh(now, &envelope));
                if is_forged {
                    self.count(from, Drop::SignalForged);
                }
            }
            MeshMessage::ReachQuery(id, names) => self.tell_reach(from, id, &names),
            MeshMessage::ReachAnswer(id, reached) => {
                self.shared.reach.get_mut().answer(now, from, id, &reached);
            }
        }
        self.follow_reach();
    }

    /// Frames of `peer` come by `relay`.
    pub(super) fn heard_by(&mut self, peer: PeerId, relay: PeerId) {
        self.shared.reach.get_mut().heard(clock::now(), relay, peer);
        self.follow_reach();
    }

    fn count(&self, from: PeerId, cause: Drop) {
        if let Some(member) = self.members.get(from) {
            member.peer.stats.drops.count(cause);
        }
    }

    /// An envelope that `from` wants the peer of this name to have. It is sealed; we only see between whom.
    fn pass_signaling_on(&self, from: PeerId, name: PeerName, envelope: &[u8]) {
        let to = self.shared.reach.borrow().signal_target(from, name);
        let (Some(to), Some(desk)) = (to, &self.shared.desk) else {
            return self.count(from, Drop::RelayRefused);
        };
        if let Err(cause) = desk.pass_signaling_on(from, to, envelope) {
            self.count(from, cause);
        }
    }

    /// Answers which of these peers we reach.
    fn tell_reach(&self, asker: PeerId, id: u32, names: &[PeerName]) {
        let reached = self.shared.reach.borrow().reached(asker, names);
        let answer = Control::ReachAnswer { id, entries: &write_entries(&reached) };
        // It is asked again if this is lost.
        let _ = self.shared.senders.borrow_mut().send_direct_control(asker, &answer);
    }

    /// Notes how a peer is now, for what it can do for others and others for it.
    pub(super) fn observe(&mut self, id: PeerId) {
        if self.shared.desk.is_none() {
            return;
        }
        let now = clock::now();
        let Some(member) = self.members.get(id) else {
            return;
        };
        let standing = member.peer.paths.standing(now);
        if self.shared.reach.get_mut().observe(now, id, &standing) {
            self.choose_transit();
        }
    }

    /// Packets for nobody's addresses go to the first peer of the configuration that is connected and relays.
    fn choose_transit(&self) {
        let order = self.members.iter().map(|member| member.peer.id);
        let first = self.shared.reach.borrow().first_relay(order);
        self.shared.senders.borrow_mut().set_transit(first);
    }

    /// Does what follows from who is reached by whom.
    pub(super) fn follow_reach(&mut self) {
        loop {
            let output = self.shared.reach.get_mut().poll_output();
            match output {
                None => return,
                Some(ReachOutput::Ask { carrier, id, names }) => {
                    let query = Control::ReachQuery { id, names: &write_names(&names) };
                    // Without an answer it is asked again.
                    let _ = self.shared.senders.borrow_mut().send_direct_control(carrier, &query);
                }
                Some(ReachOutput::Changed { peer, fresh }) => {
                    let reach = self.shared.reach.get_mut();
                    let (carried, via) = (reach.is_carried(peer), reach.via(peer));
                    // Before anything is sent by it.
                    self.shared.senders.borrow_mut().set_via(peer, via);
                    self.touch(peer, |it, now| it.paths.set_reach(now, carried, fresh, via));
                }
            }
        }
    }
}
