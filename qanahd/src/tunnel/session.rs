//! What exists of one session beside the state of its machine: a connection, a channel, keys, counters.

use std::cell::RefCell;
use std::rc::Rc;

use qanah_core::offload::Joiner;
use qanah_core::router::PeerId;
use qanah_core::seal::{CarrierKey, Opener, Openers, Sealer};
use qanah_core::session::limits::MAX_CANDIDATES;
use qanah_core::session::{Install, PathClass, RtcCommand, SessionKind};
use qanah_core::signal::{Candidate, CandidateKind, SessionId};
use tokio::task::AbortHandle;

use super::connector::Commands;
use super::shared::Shared;
use crate::downlink::{
    CONTROL_PER_SECOND, Downlink, Inbound, RELAYS_PER_SECOND, SIGNALING_PER_SECOND,
};
use crate::pace::Pace;
use crate::rtc::{Channel, SelectedCandidate};
use crate::senders::{NewSession, Outlet};
use crate::stats::{PeerStats, SessionStats};

/// One session of a peer.
pub(super) struct Session {
    pub(super) kind: SessionKind,
    /// The task of its connection; absent where a relay passes frames on.
    commands: Option<Commands>,
    pub(super) channel: Option<Channel>,
    receiving: Option<AbortHandle>,
    openers: Option<Rc<RefCell<Openers>>>,
    pub(super) stats: Rc<SessionStats>,
    /// The path that ICE chose.
    pub(super) path: Option<(SelectedCandidate, SelectedCandidate)>,
    /// What we are to be reached at, and what the peer is: to tell why there is no path.
    pub(super) ours: Vec<Candidate>,
    pub(super) theirs: RefCell<Vec<Candidate>>,
    /// The machine knows how large packets the path takes at its beginning.
    pub(super) is_measured: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = &self.receiving {
            task.abort();
        }
    }
}

impl Session {
    /// A session with a connection of its own.
    pub(super) fn direct(commands: Commands) -> Self {
        Self::new(SessionKind::Direct, Some(commands))
    }

    /// A session by a relay.
    pub(super) fn relayed() -> Self {
        Self::new(SessionKind::Relayed, None)
    }

    fn new(kind: SessionKind, commands: Option<Commands>) -> Self {
        Self {
            kind,
            commands,
            channel: None,
            receiving: None,
            openers: None,
            stats: Rc::default(),
            path: None,
            ours: Vec::new(),
            theirs: RefCell::default(),
            is_measured: false,
        }
    }

    /// Hands a command to the task of the connection. False when it has too much to do.
    pub(super) fn hand_over(&self, shared: &Shared, mut command: RtcCommand) -> bool {
        shared.keep_out_own_addresses(&mut command);
        let told = match &command {
            RtcCommand::Answer { remote, .. } | RtcCommand::AcceptAnswer(remote) => {
                remote.candidates.as_slice()
            }
            RtcCommand::AddCandidates { candidates, .. } => candidates,
            _ => &[],
        };
        self.theirs.borrow_mut().extend_from_slice(told);
        self.theirs.borrow_mut().truncate(MAX_CANDIDATES);
        self.commands.as_ref().is_none_or(|commands| commands.try_send(command).is_ok())
    }

    /// Gives the keys to the data path: one half goes to the uplink, the other to a task that reads the channel,
    /// or to where frames come out of those of relays.
    pub(super) fn install(
        &mut self,
        shared: &Shared,
        id: (PeerId, SessionId),
        install: &Install,
        stats: &Rc<PeerStats>,
    ) {
        let (sealer, opener) = halves(install);
        let openers = Rc::new(RefCell::new(Openers::new(opener)));
        let (outlet, receiver) = match (self.kind, self.channel.take()) {
            (SessionKind::Relayed, _) => (Outlet::Relay, None),
            (SessionKind::Direct, Some(channel)) => {
                (Outlet::Channel(channel.sender), Some(channel.receiver))
            }
            (SessionKind::Direct, None) => return,
        };
        self.openers = Some(Rc::clone(&openers));
        let capabilities = install.capabilities;
        let address = shared.address(id.0, id.1);
        let new = NewSession {
            sealer,
            outlet,
            capabilities,
            stats: Rc::clone(&self.stats),
            address: address.clone(),
        };
        shared.senders.borrow_mut().install(id, new);
        let desk = shared.desk.clone();
        let inbound = Inbound {
            address,
            openers,
            router: shared.router.clone(),
            tun: shared.tun.clone(),
            stats: Rc::clone(stats),
            session: Rc::clone(&self.stats),
            confirmed: None,
            relay: None,
            relays: Pace::new(RELAYS_PER_SECOND),
            control: Pace::new(CONTROL_PER_SECOND),
            signaling: Pace::new(SIGNALING_PER_SECOND),
            desk: desk.clone().filter(|_| self.kind == SessionKind::Direct),
            joiner: Joiner::default(),
        };
        match (receiver, desk) {
            (Some(channel), _) => {
                let downlink = Downlink { inbound, channel };
                let task = tokio::task::spawn_local(downlink.run());
                self.receiving = Some(task.abort_handle());
            }
            (None, Some(desk)) => desk.expect(id, inbound),
            (None, None) => {}
        }
    }

    /// Newer keys: the opener is ready at once, the sealer waits until it is wanted.
    pub(super) fn install_keys(&self, shared: &Shared, id: (PeerId, SessionId), install: &Install) {
        if let Some(openers) = &self.openers {
            let (sealer, opener) = halves(install);
            openers.borrow_mut().add(opener);
            shared.senders.borrow_mut().install_keys(id, install.local_index, sealer);
        }
    }

    /// Forgets keys that nobody needs any more.
    pub(super) fn drop_keys(&self, shared: &Shared, id: (PeerId, SessionId), index: u32) {
        if let Some(openers) = &self.openers {
            openers.borrow_mut().remove(index);
        }
        shared.senders.borrow_mut().drop_keys(id, index);
    }

    /// How many frames were sealed or opened under the keys in use, whichever is more.
    pub(super) fn frames(&self, sealed: u64) -> u64 {
        let opened = self.openers.as_ref().map_or(0, |openers| {
            let openers = openers.borrow();
            openers.newest().map_or(0, |index| openers.opened(index))
        });
        sealed.max(opened)
    }
}

/// The two ends of one set of keys.
fn halves(install: &Install) -> (Sealer, Opener) {
    let sealer = Sealer::new(CarrierKey::from_bytes(*install.send_key), install.remote_index);
    let opener = Opener::new(CarrierKey::from_bytes(*install.recv_key), install.local_index);
    (sealer, opener)
}

/// How good a path between these is.
pub(super) fn class(local: SelectedCandidate, remote: SelectedCandidate) -> PathClass {
    if [local.kind, remote.kind].contains(&CandidateKind::Relayed) {
        PathClass::ByTurn
    } else if remote.address.is_ipv6() {
        PathClass::Ipv6
    } else {
        PathClass::Ipv4
    }
}
