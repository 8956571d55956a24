//! What becomes of the wishes of a node: messages, pretended connections, frames.

use rand_core::RngCore;

use super::node::Text;
use super::world::{What, World, at, id};
use crate::frame::{Control, Hop};
use crate::router::PeerId;
use crate::session::{Output, RtcCommand, SessionKind};
use crate::signal::{DtlsRole, IceCredentials, Message, PeerName, RtcDescription, SessionId};

/// What a slow node's links take longer.
const SLOW_MS: u32 = 20;
/// How long the pretended ICE looks for a path.
const ICE_TRIES: u32 = 12;

impl World {
    pub(super) fn carry_out(
        &mut self,
        node: usize,
        peer: PeerId,
        kind: SessionKind,
        output: Output,
    ) {
        let pair = self.nodes[node].pair(peer);
        match output {
            Output::Send(message) => self.publish(node, peer, kind, message),
            Output::Rtc(session, command) => self.rtc(node, peer, session, command),
            Output::Install(session, install) | Output::InstallKeys(session, install) => {
                pair.install(kind, session, &install);
            }
            Output::SendControl(session, control) => {
                self.send(node, peer, session, Text::Control(control));
            }
            Output::SendRekey(session, message) => {
                self.send(node, peer, session, Text::Rekey(message));
            }
            Output::ActivateKeys(session, index) => pair.use_keys(session, index),
            Output::DropKeys(session, index) => pair.drop_keys(session, index),
            Output::Activate(session) if kind == SessionKind::Direct => {
                pair.direct = Some(session);
            }
            Output::Deactivate if kind == SessionKind::Direct => pair.direct = None,
            Output::Activate(_) | Output::Deactivate => {}
            Output::Event(event) => pair.events.push(event),
            Output::ByHand(..) | Output::HandFailed(..) => {}
        }
    }

    fn publish(&mut self, node: usize, peer: PeerId, kind: SessionKind, message: Message) {
        let message = match kind {
            SessionKind::Direct => message,
            SessionKind::Relayed => Message::Relayed(Box::new(message)),
        };
        let name = PeerName::of(&self.nodes[at(peer)].secret.public_key());
        for carrier in self.nodes[node].reach.signal_carriers(self.now, peer) {
            let text = Text::Signaling(Hop::ToRelay, name, message.clone());
            self.send_direct(node, carrier, text);
        }
        if !self.broker {
            return;
        }
        self.nodes[node].said += 1;
        for _ in 0..=u32::from(self.percent(self.faults.repeat)) {
            if !self.percent(self.faults.lose) {
                let delay = 1 + self.rng.next_u32() % self.faults.delay_ms.max(1);
                self.push(delay, at(peer), id(node), What::Message(message.clone()));
            }
        }
    }

    fn rtc(&mut self, node: usize, peer: PeerId, session: SessionId, command: RtcCommand) {
        let pair = self.nodes[node].pair(peer);
        match command {
            RtcCommand::Offer { packet_size, .. } => {
                pair.sizes.insert(session, packet_size);
                pair.connections.insert(session, true);
                self.push(2, node, peer, What::Described(session, DtlsRole::ActPass));
            }
            RtcCommand::Answer { packet_size, .. } => {
                pair.sizes.insert(session, packet_size);
                pair.connections.insert(session, false);
                self.push(2, node, peer, What::Described(session, DtlsRole::Active));
            }
            RtcCommand::AcceptAnswer(_) => {
                self.push(2, node, peer, What::Try(session, ICE_TRIES));
            }
            RtcCommand::BeginRestart { generation }
            | RtcCommand::AnswerRestart { generation, .. } => {
                self.push(2, node, peer, What::Restarted(session, generation));
            }
            RtcCommand::Close => {
                pair.connections.remove(&session);
                pair.sessions.remove(&session);
                pair.direct.take_if(|direct| *direct == session);
            }
            RtcCommand::AddCandidates { .. } | RtcCommand::FinishRestart { .. } => {}
        }
    }

    pub(super) fn send_direct(&mut self, node: usize, peer: PeerId, text: Text) {
        if let Some(session) = self.nodes[node].pair(peer).direct {
            self.send(node, peer, session, text);
        }
    }

    pub(super) fn send(&mut self, node: usize, peer: PeerId, session: SessionId, text: Text) {
        let now = self.now;
        let pair = self.nodes[node].pair(peer);
        let is_traffic = matches!(text, Text::Packet | Text::Relay(..));
        let Some((kind, frame)) = pair.seal(session, text) else {
            return;
        };
        if is_traffic {
            pair.paths.set_traffic(Some(now));
            pair.paths.machine(kind).last_sent(now, session, Some(now));
        }
        if kind == SessionKind::Relayed {
            let name = PeerName::of(&self.nodes[at(peer)].secret.public_key());
            if let Some(via) = self.nodes[node].reach.via(peer) {
                let text = Text::Relay(Hop::ToRelay, name, session, Box::new(frame));
                self.send_direct(node, via, text);
            }
            return;
        }
        if self.clogs(node, peer, session, &frame.text) {
            return;
        }
        for _ in 0..=u32::from(self.percent(self.faults.frames)) {
            if !self.cut.contains(&(node, at(peer))) && !self.percent(self.faults.frames) {
                let slow = self.slow.contains(&node) || self.slow.contains(&at(peer));
                let slow = if slow { SLOW_MS } else { 0 };
                let delay = 1 + slow + self.rng.next_u32() % (1 + self.faults.frames);
                self.push(delay, at(peer), id(node), What::Frame(session, frame.clone()));
            }
        }
    }
}

impl World {
    /// Whether a frame does not get through, because it is too large for the link or waits behind one that is.
    fn clogs(&mut self, node: usize, peer: PeerId, session: SessionId, text: &Text) -> bool {
        let packet = self.nodes[node].pair(peer).sizes.get(&session).copied().unwrap_or_default();
        let size = match text {
            Text::Control(Control::PathProbe { size } | Control::PaddedPing { size, .. }) => {
                size + 28
            }
            Text::Packet | Text::Relay(..) => packet,
            _ => 0,
        };
        if self.limits.get(&(node, at(peer))).is_some_and(|limit| size > *limit) {
            self.clogged.insert((node, session));
        }
        self.clogged.contains(&(node, session))
    }
}

/// What the pretended WebRTC stack says of itself.
pub(super) fn description(role: DtlsRole) -> RtcDescription {
    RtcDescription {
        ice: IceCredentials { ufrag: "abcd".to_owned(), pwd: "abcdefghijklmnopqrstuv".to_owned() },
        fingerprint: [7; 32],
        role,
        sctp_port: 5000,
        max_message_size: 65_536,
        packet_size: None,
        candidates: Vec::new(),
    }
}
