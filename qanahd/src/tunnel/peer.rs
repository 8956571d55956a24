//! One peer of a tunnel: its session machine, and the hands that do what the machine wants.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use qanah_core::frame::{Control, Hop};
use qanah_core::key::PublicKey;
use qanah_core::mesh::Paths;
use qanah_core::router::PeerId;
use qanah_core::session::limits::MAX_CANDIDATES;
use qanah_core::session::{Event, Install, Output, RtcCommand, SessionKind};
use qanah_core::signal::{
    Candidate, CandidateKind, Carrier, Message, OpenError, PairKeys, PeerName, SessionId,
};
use rand_core::OsRng;
use tracing::{debug, info, warn};

use super::address::Happening;
use super::connector::{self, Report};
use super::network::Network;
use super::pairing::Made;
use super::seen::Seen;
use super::session::{Session, class};
use super::shared::Shared;
use crate::clock;
use crate::downlink::Heard;
use crate::events::{CONNECTED, DISCONNECTED, RELAYED};
use crate::rtc::{RtcEvent, SelectedCandidate, packet_room};
use crate::stats::{Drop as Cause, PeerStats};

/// How often a peer's forged or refused messages are worth a line in the log.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What a peer begins with, before it has a thread.
pub(crate) struct Seed {
    pub(crate) id: PeerId,
    pub(crate) public_key: PublicKey,
    pub(crate) label: String,
    pub(crate) keys: PairKeys,
    pub(crate) paths: Paths<OsRng>,
}

/// One peer of a tunnel.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) public_key: PublicKey,
    /// What others call it on the wire.
    pub(crate) name: PeerName,
    /// Its name, or its short key.
    pub(crate) label: String,
    pub(crate) keys: PairKeys,
    pub(crate) paths: Paths<OsRng>,
    pub(crate) stats: Rc<PeerStats>,
    /// The last sign that keys differ.
    pub(crate) forged_at: Option<Instant>,
    /// The last completed handshake, also when its session is gone.
    pub(crate) handshake_at: Option<Instant>,
    complained_at: Option<Instant>,
    /// The candidates of both sides, ours first, between which the last attempt found no path.
    unreached: Option<(Vec<Candidate>, Vec<Candidate>)>,
    seen: Seen,
    /// Offers and answers by hand that were made since the tunnel last looked.
    pub(super) made: Vec<Made>,
    sessions: HashMap<SessionId, Session>,
}

impl Peer {
    pub(crate) fn new(seed: Seed) -> Self {
        let Seed { id, public_key, label, keys, paths } = seed;
        Self {
            id,
            public_key,
            name: PeerName::of(&public_key),
            label,
            keys,
            paths,
            stats: Rc::default(),
            forged_at: None,
            handshake_at: None,
            complained_at: None,
            unreached: None,
            seen: Seen::default(),
            made: Vec::new(),
            sessions: HashMap::new(),
        }
    }

    /// An envelope came to the inbox that this peer writes to.
    pub(crate) fn envelope(&mut self, now: Instant, envelope: &[u8]) {
        if let Err(error) = self.open(now, envelope) {
            self.complain(now, &error);
        }
    }

    /// Another peer has passed an envelope of this one on. True if it is none: that is the other's doing, and says
    /// nothing of this one's keys.
    pub(crate) fn envelope_by_mesh(&mut self, now: Instant, envelope: &[u8]) -> bool {
        self.open(now, envelope).is_err()
    }

    fn open(&mut self, now: Instant, envelope: &[u8]) -> Result<(), OpenError> {
        // Copies by a second broker or of somebody who recorded it cost nothing.
        if self.seen.knows(envelope) {
            return Ok(());
        }
        let message = self.keys.open(envelope, Carrier::Inbox)?;
        self.seen.note(envelope);
        let refused = self.paths.refused();
        self.paths.message(now, message);
        if self.paths.refused() > refused {
            self.stats.drops.count(Cause::SignalRefused);
        }
        Ok(())
    }

    fn complain(&mut self, now: Instant, error: &OpenError) {
        if matches!(error, OpenError::Forged) {
            self.stats.drops.count(Cause::SignalForged);
            self.forged_at = Some(now);
        } else {
            self.stats.drops.count(Cause::SignalMalformed);
        }
        if self.complained_at.is_none_or(|at| now >= at + COMPLAINT_INTERVAL) {
            self.complained_at = Some(now);
            warn!(PEER = %self.label, "a message in the peer's inbox was dropped: {error}");
        }
    }

    /// Something happened to one of the sessions.
    pub(crate) fn happened(&mut self, now: Instant, id: SessionId, what: Happening) {
        let kind = self.sessions.get(&id).map_or(SessionKind::Direct, |session| session.kind);
        let machine = self.paths.machine(kind);
        match what {
            Happening::Heard(Heard::Opened(index)) => machine.opened(now, id, index),
            Happening::Heard(Heard::Rekey(message)) => machine.rekey(now, id, &message),
            Happening::Heard(Heard::Control(message)) => machine.control(now, id, &message),
            Happening::Heard(Heard::Ended) => machine.closed(now, id, "the channel closed"),
            Happening::Heard(Heard::Sending) => self.refresh(now),
            Happening::Report(report) => self.reported(now, id, report),
            // About others: the tunnel takes these before they come here.
            Happening::Heard(Heard::By(_) | Heard::Mesh(_)) => {}
        }
    }

    fn reported(&mut self, now: Instant, id: SessionId, report: Report) {
        let machine = self.paths.direct_mut();
        match report {
            Report::Described(description) => machine.described(now, id, *description),
            Report::Restarted(generation, credentials) => {
                machine.restarted(now, id, generation, credentials);
            }
            Report::RestartFailed(generation) => machine.restart_failed(id, generation),
            Report::Failed(reason) => machine.closed(now, id, &reason),
            Report::Rtc(event) => self.rtc_event(now, id, event),
        }
    }

    fn rtc_event(&mut self, now: Instant, id: SessionId, event: RtcEvent) {
        let machine = self.paths.direct_mut();
        match event {
            RtcEvent::LocalCandidate { generation, candidate } => {
                let session = self.sessions.get_mut(&id);
                if let Some(session) = session.filter(|it| it.ours.len() < MAX_CANDIDATES) {
                    session.ours.push(candidate);
                }
                machine.found_candidate(now, id, generation, candidate);
            }
            RtcEvent::GatheringDone { generation } => machine.gathered(now, id, generation),
            RtcEvent::ChannelOpen(channel) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.channel = Some(channel);
                    machine.channel_open(now, id);
                }
            }
            RtcEvent::IceConnected { local, remote } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.path = Some((local, remote));
                    session.is_measured = false;
                }
                self.unreached = None;
                machine.path_found(now, id, class(local, remote));
                info!(PEER = %self.label, "path: {:?} {} to {:?} {}", local.kind, local.address,
                    remote.kind, remote.address);
            }
            // It often comes back by itself; the machine judges by frames that were opened.
            RtcEvent::IceDisconnected => {
                debug!(PEER = %self.label, session = %id, "ICE hears nothing");
            }
            RtcEvent::IceFailed => {
                if let Some(session) = self.sessions.get(&id) {
                    self.unreached = Some((session.ours.clone(), session.theirs.borrow().clone()));
                }
                machine.path_failed(now, id);
            }
            RtcEvent::Closed { reason } => machine.closed(now, id, &reason),
        }
    }

    /// Tells the machines what the data path saw, then what time it is.
    pub(crate) fn timeout(&mut self, now: Instant) {
        self.refresh(now);
        self.paths.timeout(now);
    }

    /// Tells the machines when frames came and went.
    pub(crate) fn refresh(&mut self, now: Instant) {
        for (id, session) in &self.sessions {
            let (sent, received) = (session.stats.sent.get(), session.stats.received.get());
            let machine = self.paths.machine(session.kind);
            machine.last_sent(now, *id, sent);
            if let Some(at) = session.stats.opened.get() {
                machine.last_opened(*id, at);
            }
            self.paths.set_traffic(sent.max(received));
            if session.kind == SessionKind::Relayed {
                self.paths.set_relay_traffic(now, received);
            }
        }
    }

    /// The machine's addresses have changed.
    pub(crate) fn network_changed(&mut self, now: Instant, network: &Network) {
        let session = self.paths.direct().view().session;
        let path = session.and_then(|id| self.path(id));
        // A relayed path begins at a TURN server's address; its death shows by silence.
        let gone = path.is_some_and(|(local, _)| {
            local.kind == CandidateKind::Host && !network.addresses.contains(&local.address.ip())
        });
        let machine = self.paths.direct_mut();
        machine.network_changed(now, gone);
        if network.ipv6_came {
            machine.ipv6_came(now);
        }
        self.measure_anew();
    }

    /// What is known of how large packets may be is asked for again.
    fn measure_anew(&mut self) {
        self.sessions.values_mut().for_each(|session| session.is_measured = false);
    }

    /// Tells the machine how large packets may be, where a path is new.
    fn measure_paths(&mut self, now: Instant, fw_mark: Option<u32>) {
        for (id, session) in &mut self.sessions {
            let Some((local, remote)) = session.path.filter(|_| !session.is_measured) else {
                continue;
            };
            session.is_measured = true;
            let is_straight = [local, remote].iter().all(|it| it.kind != CandidateKind::Relayed);
            let room = is_straight
                .then(|| packet_room(local.address.ip(), remote.address, fw_mark))
                .transpose()
                .unwrap_or_else(|error| {
                    debug!(PEER = %self.label, "the MTU of the path is not known: {error}");
                    None
                });
            self.paths.direct_mut().path_chosen(now, *id, room);
        }
    }

    /// The candidates of both sides, ours first, between which the last attempt found no path.
    pub(crate) fn unreached(&self) -> Option<(&[Candidate], &[Candidate])> {
        self.unreached.as_ref().map(|(ours, theirs)| (ours.as_slice(), theirs.as_slice()))
    }

    /// The path of a session, as ICE chose it.
    pub(crate) fn path(&self, id: SessionId) -> Option<(SelectedCandidate, SelectedCandidate)> {
        self.sessions.get(&id).and_then(|session| session.path)
    }

    /// Tells the machines how worn the keys are.
    fn count_frames(&mut self, shared: &Shared) {
        let senders = shared.senders.borrow();
        for (id, session) in &self.sessions {
            let frames = session.frames(senders.sealed((self.id, *id)));
            self.paths.machine(session.kind).frames(*id, frames);
        }
    }

    /// Does all that the machines want, and sees to it that packets take the way that is best now.
    pub(crate) fn settle(&mut self, shared: &Shared) {
        let now = clock::now();
        self.count_frames(shared);
        self.measure_paths(now, shared.connecting.rtc.fw_mark);
        self.paths.update(now);
        while let Some((kind, output)) = self.paths.poll_output() {
            self.carry_out(shared, kind, output);
        }
        let [direct, relayed] =
            [self.paths.direct(), self.paths.relayed()].map(|it| it.view().handshake_at);
        self.handshake_at = self.handshake_at.max(direct).max(relayed);
        self.choose(now, shared);
    }

    fn choose(&mut self, now: Instant, shared: &Shared) {
        // What the last output was about may have changed what is best.
        self.paths.update(now);
        let chosen = self.paths.chosen().map(|(_, id)| id);
        let mut senders = shared.senders.borrow_mut();
        senders.choose(self.id, chosen);
        if !senders.is_chosen(self.id) {
            return;
        }
        for waiting in shared.held.borrow_mut().take(now, self.id) {
            if let Err(cause) = senders.queue(self.id, waiting) {
                self.stats.drops.count(cause);
            }
        }
        // What waited for another way takes this one.
        senders.pump_all();
    }

    fn carry_out(&mut self, shared: &Shared, kind: SessionKind, output: Output) {
        let peer = self.id;
        match output {
            Output::Send(message) => {
                let message = match kind {
                    SessionKind::Direct => message,
                    SessionKind::Relayed => Message::Relayed(Box::new(message)),
                };
                self.publish(shared, &message);
            }
            Output::ByHand(id, message) => {
                let part = self.keys.seal_by_hand(&message, &mut OsRng);
                self.made.push((id, part.map_err(|error| error.to_string())));
            }
            Output::HandFailed(id, reason) => self.made.push((id, Err(reason))),
            Output::Rtc(id, command) => self.command(shared, id, command),
            Output::Install(id, install) => self.install(shared, kind, id, &install),
            Output::SendControl(id, message) => self.send_control(shared, id, &message),
            Output::SendRekey(id, message) => self.send_control(shared, id, &message.control()),
            Output::InstallKeys(id, install) => {
                if let Some(session) = self.sessions.get(&id) {
                    session.install_keys(shared, (peer, id), &install);
                }
            }
            Output::ActivateKeys(id, index) => {
                shared.senders.borrow_mut().change_keys((peer, id), index);
            }
            Output::DropKeys(id, index) => {
                if let Some(session) = self.sessions.get(&id) {
                    session.drop_keys(shared, (peer, id), index);
                }
            }
            Output::Activate(id) => shared.senders.borrow_mut().set_live(kind, peer, Some(id)),
            Output::Deactivate => shared.senders.borrow_mut().set_live(kind, peer, None),
            Output::Event(event) => {
                // A router may have told the kernel meanwhile what it takes.
                if matches!(event, Event::LargerRefused { .. }) {
                    self.measure_anew();
                }
                self.log(kind, &event);
            }
        }
    }

    fn send_control(&self, shared: &Shared, id: SessionId, message: &Control<'_>) {
        if let Err(cause) = shared.senders.borrow_mut().send_control((self.id, id), message) {
            self.stats.drops.count(cause);
        }
    }

    /// Says something to the peer: by the brokers, and by connected peers that reach it.
    fn publish(&self, shared: &Shared, message: &Message) {
        let envelope = match self.keys.seal(message, Carrier::Inbox, &mut OsRng) {
            Ok(envelope) => envelope,
            Err(error) => {
                return warn!(PEER = %self.label, "a message could not be sealed: {error}");
            }
        };
        let control =
            Control::Signaling { hop: Hop::ToRelay, name: self.name, envelope: &envelope };
        for carrier in shared.reach.borrow().signal_carriers(clock::now(), self.id) {
            // One that has just gone is noticed soon; the message is said again.
            let _ = shared.senders.borrow_mut().send_direct_control(carrier, &control);
        }
        shared.signaling.publish(&self.keys.outbox().topic(), envelope);
    }

    fn command(&mut self, shared: &Shared, id: SessionId, command: RtcCommand) {
        match command {
            RtcCommand::Close => {
                shared.senders.borrow_mut().remove((self.id, id));
                if let Some(desk) = &shared.desk {
                    desk.remove((self.id, id));
                }
                self.sessions.remove(&id);
            }
            RtcCommand::Offer { .. } | RtcCommand::Answer { .. } => {
                let address = shared.address(self.id, id);
                let settings = Rc::clone(&shared.connecting);
                let commands = connector::spawn(address, settings, shared.running.clone());
                self.sessions.insert(id, Session::direct(commands));
                self.hand_over(shared, id, command);
            }
            other => self.hand_over(shared, id, other),
        }
    }

    fn hand_over(&self, shared: &Shared, id: SessionId, command: RtcCommand) {
        let session = self.sessions.get(&id);
        if session.is_some_and(|session| !session.hand_over(shared, command)) {
            self.stats.drops.count(Cause::Busy);
        }
    }

    /// The keys of a session are there, and its channel, if it needs one.
    fn install(&mut self, shared: &Shared, kind: SessionKind, id: SessionId, install: &Install) {
        if kind == SessionKind::Relayed {
            self.sessions.insert(id, Session::relayed());
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.install(shared, (self.id, id), install, &self.stats);
        }
    }

    fn log(&self, kind: SessionKind, event: &Event) {
        let peer = &self.label;
        match (event, kind) {
            (Event::Connected { replaced: false, .. }, SessionKind::Direct) => {
                info!(PEER = %peer, EVENT = CONNECTED.name, MESSAGE_ID = CONNECTED.id, "{peer} is connected");
            }
            (Event::Connected { replaced: false, .. }, SessionKind::Relayed) => {
                info!(PEER = %peer, EVENT = RELAYED.name, MESSAGE_ID = RELAYED.id, "{peer} is connected by a relay");
            }
            (Event::Connected { replaced: true, session }, _) => {
                debug!(PEER = %peer, session = %session, "a new session took over");
            }
            (Event::Disconnected { reason }, SessionKind::Direct) => {
                info!(PEER = %peer, EVENT = DISCONNECTED.name, MESSAGE_ID = DISCONNECTED.id, "{peer} is disconnected: {reason}");
            }
            (Event::Disconnected { reason }, SessionKind::Relayed) => {
                info!(PEER = %peer, "the session with {peer} by a relay has ended: {reason}");
            }
            (Event::AttemptFailed { reason }, _) => {
                info!(PEER = %peer, "could not connect to {peer}: {reason}");
            }
            (Event::Rekeyed, _) => debug!(PEER = %peer, "the session has new keys"),
            (Event::PathLost, SessionKind::Direct) => {
                info!(PEER = %peer, "nothing heard from {peer}, looking for a path");
            }
            (Event::PathLost, SessionKind::Relayed) => {
                info!(PEER = %peer, "nothing heard from {peer} by a relay");
            }
            (Event::LargerPackets { size }, _) => {
                info!(PEER = %peer, "the path to {peer} takes packets of {size} bytes");
            }
            (Event::LargerRefused { size, passed }, _) => {
                info!(PEER = %peer, "the path to {peer} does not take packets of {size} bytes, \
                    but {passed}");
            }
            (Event::PathNarrowed, _) => {
                info!(PEER = %peer, "the path to {peer} does not take as large packets any more");
            }
            (Event::PathRestored, _) => info!(PEER = %peer, "{peer} is heard again"),
        }
    }
}
