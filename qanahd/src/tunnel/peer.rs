//! One peer of a tunnel: its session machine, and the hands that do what the machine wants.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use qanah_core::frame::Control;
use qanah_core::key::PublicKey;
use qanah_core::router::PeerId;
use qanah_core::seal::{CarrierKey, Opener, Openers, Sealer};
use qanah_core::session::{Event, Install, Machine, Output, RtcCommand};
use qanah_core::signal::{CandidateKind, Carrier, Message, OpenError, PairKeys, SessionId};
use rand_core::OsRng;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::address::Happening;
use super::connector::{self, Commands, Report};
use super::pairing::Made;
use super::seen::Seen;
use super::shared::Shared;
use crate::downlink::{CONTROL_PER_SECOND, Downlink, Heard};
use crate::pace::Pace;
use crate::rtc::{Channel, RtcEvent, SelectedCandidate};
use crate::stats::{Drop as Cause, PeerStats, SessionStats};

/// How often a peer's forged or refused messages are worth a line in the log.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What exists of one session beside the machine's own state.
struct Session {
    commands: Commands,
    channel: Option<Channel>,
    receiving: Option<AbortHandle>,
    openers: Option<Rc<RefCell<Openers>>>,
    stats: Rc<SessionStats>,
    path: Option<(SelectedCandidate, SelectedCandidate)>,
}

impl std::ops::Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = &self.receiving {
            task.abort();
        }
    }
}

/// What a peer begins with, before it has a thread.
pub(crate) struct Seed {
    pub(crate) id: PeerId,
    pub(crate) public_key: PublicKey,
    pub(crate) label: String,
    pub(crate) keys: PairKeys,
    pub(crate) machine: Machine<OsRng>,
}

/// One peer of a tunnel.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) public_key: PublicKey,
    /// Its name, or its short key.
    pub(crate) label: String,
    pub(crate) keys: PairKeys,
    pub(crate) machine: Machine<OsRng>,
    pub(crate) stats: Rc<PeerStats>,
    /// The last sign that keys differ.
    pub(crate) forged_at: Option<Instant>,
    /// The last completed handshake, also when its session is gone.
    pub(crate) handshake_at: Option<Instant>,
    complained_at: Option<Instant>,
    seen: Seen,
    /// Offers and answers by hand that were made since the tunnel last looked.
    pub(super) made: Vec<Made>,
    sessions: HashMap<SessionId, Session>,
}

impl Peer {
    pub(crate) fn new(seed: Seed) -> Self {
        let Seed { id, public_key, label, keys, machine } = seed;
        Self {
            id,
            public_key,
            label,
            keys,
            machine,
            stats: Rc::default(),
            forged_at: None,
            handshake_at: None,
            complained_at: None,
            seen: Seen::default(),
            made: Vec::new(),
            sessions: HashMap::new(),
        }
    }

    /// An envelope came to the inbox that this peer writes to.
    pub(crate) fn envelope(&mut self, now: Instant, envelope: &[u8]) {
        // Copies by a second broker or of somebody who recorded it cost nothing.
        if self.seen.knows(envelope) {
            return;
        }
        match self.keys.open(envelope, Carrier::Inbox) {
            Ok(message) => {
                self.seen.note(envelope);
                let refused = self.machine.refused();
                self.machine.message(now, message);
                if self.machine.refused() > refused {
                    self.stats.drops.count(Cause::SignalRefused);
                }
            }
            Err(error) => self.complain(now, &error),
        }
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
        match what {
            Happening::Heard(Heard::Opened(index)) => self.machine.opened(now, id, index),
            Happening::Heard(Heard::Rekey(message)) => self.machine.rekey(now, id, &message),
            Happening::Heard(Heard::Control(message)) => self.machine.control(now, id, &message),
            Happening::Heard(Heard::Ended) => self.machine.closed(now, id, "the channel closed"),
            Happening::Report(report) => self.reported(now, id, report),
        }
    }

    fn reported(&mut self, now: Instant, id: SessionId, report: Report) {
        match report {
            Report::Described(description) => self.machine.described(now, id, *description),
            Report::Restarted(generation, credentials) => {
                self.machine.restarted(now, id, generation, credentials);
            }
            Report::RestartFailed(generation) => self.machine.restart_failed(id, generation),
            Report::Failed(reason) => self.machine.closed(now, id, &reason),
            Report::Rtc(event) => self.rtc_event(now, id, event),
        }
    }

    fn rtc_event(&mut self, now: Instant, id: SessionId, event: RtcEvent) {
        match event {
            RtcEvent::LocalCandidate { generation, candidate } => {
                self.machine.found_candidate(now, id, generation, candidate);
            }
            RtcEvent::GatheringDone { generation } => self.machine.gathered(now, id, generation),
            RtcEvent::ChannelOpen(channel) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.channel = Some(channel);
                    self.machine.channel_open(now, id);
                }
            }
            RtcEvent::IceConnected { local, remote } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.path = Some((local, remote));
                }
                info!(PEER = %self.label, "path: {:?} {} to {:?} {}", local.kind, local.address,
                    remote.kind, remote.address);
            }
            // It often comes back by itself; the machine judges by frames that were opened.
            RtcEvent::IceDisconnected => {
                debug!(PEER = %self.label, session = %id, "ICE hears nothing");
            }
            RtcEvent::IceFailed => self.machine.path_failed(now, id),
            RtcEvent::Closed { reason } => self.machine.closed(now, id, &reason),
        }
    }

    /// Tells the machine what the data path saw, then what time it is.
    pub(crate) fn timeout(&mut self, now: Instant) {
        self.refresh();
        self.machine.timeout(now);
    }

    /// Tells the machine when the last frame was opened.
    pub(crate) fn refresh(&mut self) {
        for (id, session) in &self.sessions {
            if let Some(at) = session.stats.last_opened.get() {
                self.machine.last_opened(*id, at);
            }
        }
    }

    /// The machine has these addresses now.
    pub(crate) fn network_changed(&mut self, now: Instant, addresses: &[IpAddr]) {
        let session = self.machine.view().session;
        let path = session.and_then(|id| self.path(id));
        // A relayed path begins at a TURN server's address; its death shows by silence.
        let gone = path.is_some_and(|(local, _)| {
            local.kind == CandidateKind::Host && !addresses.contains(&local.address.ip())
        });
        self.machine.network_changed(now, gone);
    }

    /// The path of a session, as ICE chose it.
    pub(crate) fn path(&self, id: SessionId) -> Option<(SelectedCandidate, SelectedCandidate)> {
        self.sessions.get(&id).and_then(|session| session.path)
    }

    /// Tells the machine how worn the keys are.
    fn count_frames(&mut self, shared: &Shared) {
        let senders = shared.senders.borrow();
        for (id, session) in &self.sessions {
            if let Some(openers) = &session.openers {
                let openers = openers.borrow();
                let opened = openers.newest().map_or(0, |index| openers.opened(index));
                self.machine.frames(*id, senders.sealed((self.id, *id)).max(opened));
            }
        }
    }

    /// Does all that the machine wants.
    pub(crate) fn settle(&mut self, shared: &Shared) {
        self.count_frames(shared);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send(message) => self.publish(shared, &message),
                Output::ByHand(id, message) => {
                    let part = self.keys.seal_by_hand(&message, &mut OsRng);
                    self.made.push((id, part.map_err(|error| error.to_string())));
                }
                Output::HandFailed(id, reason) => self.made.push((id, Err(reason))),
                Output::Rtc(id, command) => self.command(shared, id, command),
                Output::Install(id, install) => self.install(shared, id, install),
                Output::SendControl(id, message) => self.send_control(shared, id, &message),
                Output::SendRekey(id, message) => {
                    self.send_control(shared, id, &message.control());
                }
                Output::InstallKeys(id, install) => self.install_keys(shared, id, &install),
                Output::ActivateKeys(id, index) => {
                    shared.senders.borrow_mut().change_keys((self.id, id), index);
                }
                Output::DropKeys(id, index) => self.drop_keys(shared, id, index),
                Output::Activate(id) => shared.senders.borrow_mut().activate((self.id, id)),
                Output::Deactivate => shared.senders.borrow_mut().deactivate(self.id),
                Output::Event(event) => self.log(&event),
            }
        }
        self.handshake_at = self.machine.view().handshake_at.or(self.handshake_at);
    }

    fn send_control(&self, shared: &Shared, id: SessionId, message: &Control<'_>) {
        if let Err(cause) = shared.senders.borrow_mut().send_control((self.id, id), message) {
            self.stats.drops.count(cause);
        }
    }

    fn publish(&self, shared: &Shared, message: &Message) {
        match self.keys.seal(message, Carrier::Inbox, &mut OsRng) {
            Ok(envelope) => shared.signaling.publish(&self.keys.outbox().topic(), envelope),
            Err(error) => warn!(PEER = %self.label, "a message could not be sealed: {error}"),
        }
    }

    fn command(&mut self, shared: &Shared, id: SessionId, command: RtcCommand) {
        match command {
            RtcCommand::Close => {
                shared.senders.borrow_mut().remove((self.id, id));
                self.sessions.remove(&id);
            }
            RtcCommand::Offer { .. } | RtcCommand::Answer { .. } => {
                let address = shared.address(self.id, id);
                let settings = Rc::clone(&shared.connecting);
                let commands = connector::spawn(address, settings, shared.running.clone());
                self.hand_over(shared, &commands, command);
                let session = Session {
                    commands,
                    channel: None,
                    receiving: None,
                    openers: None,
                    stats: Rc::default(),
                    path: None,
                };
                self.sessions.insert(id, session);
            }
            other => {
                if let Some(session) = self.sessions.get(&id) {
                    self.hand_over(shared, &session.commands, other);
                }
            }
        }
    }

    fn hand_over(&self, shared: &Shared, commands: &Commands, mut command: RtcCommand) {
        shared.keep_out_own_addresses(&mut command);
        if commands.try_send(command).is_err() {
            self.stats.drops.count(Cause::Busy);
        }
    }

    /// The channel is open: one half of it goes to the uplink, the other gets a task.
    fn install(&mut self, shared: &Shared, id: SessionId, install: Install) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(channel) = session.channel.take() else {
            return;
        };
        let (sealer, opener) = halves(&install);
        let openers = Rc::new(RefCell::new(Openers::new(opener)));
        session.openers = Some(Rc::clone(&openers));
        shared.senders.borrow_mut().install((self.id, id), sealer, channel.sender);
        let downlink = Downlink {
            address: shared.address(self.id, id),
            openers,
            channel: channel.receiver,
            router: shared.router.clone(),
            tun: shared.tun.clone(),
            stats: Rc::clone(&self.stats),
            session: Rc::clone(&session.stats),
            confirmed: None,
            control: Pace::new(CONTROL_PER_SECOND),
        };
        session.receiving = Some(tokio::task::spawn_local(downlink.run()).abort_handle());
    }

    /// Newer keys: the opener is ready at once, the sealer waits until it is wanted.
    fn install_keys(&self, shared: &Shared, id: SessionId, install: &Install) {
        let session = self.sessions.get(&id);
        if let Some(openers) = session.and_then(|session| session.openers.as_ref()) {
            let (sealer, opener) = halves(install);
            openers.borrow_mut().add(opener);
            shared.senders.borrow_mut().install_keys((self.id, id), install.local_index, sealer);
        }
    }

    fn drop_keys(&self, shared: &Shared, id: SessionId, index: u32) {
        let session = self.sessions.get(&id);
        if let Some(openers) = session.and_then(|session| session.openers.as_ref()) {
            openers.borrow_mut().remove(index);
        }
        shared.senders.borrow_mut().drop_keys((self.id, id), index);
    }

    fn log(&self, event: &Event) {
        let peer = &self.label;
        match event {
            Event::Connected { replaced: false, .. } => {
                info!(PEER = %peer, EVENT = "connected", "{peer} is connected");
            }
            Event::Connected { replaced: true, session } => {
                debug!(PEER = %peer, session = %session, "a new session took over");
            }
            Event::Disconnected { reason } => {
                info!(PEER = %peer, EVENT = "disconnected", "{peer} is disconnected: {reason}");
            }
            Event::AttemptFailed { reason } => {
                info!(PEER = %peer, "could not connect to {peer}: {reason}");
            }
            Event::Rekeyed => debug!(PEER = %peer, "the session has new keys"),
            Event::PathLost => info!(PEER = %peer, "nothing heard from {peer}, looking for a path"),
            Event::PathRestored => info!(PEER = %peer, "{peer} is heard again"),
        }
    }
}

/// The two ends of one set of keys.
fn halves(install: &Install) -> (Sealer, Opener) {
    let sealer = Sealer::new(CarrierKey::from_bytes(*install.send_key), install.remote_index);
    let opener = Opener::new(CarrierKey::from_bytes(*install.recv_key), install.local_index);
    (sealer, opener)
}
