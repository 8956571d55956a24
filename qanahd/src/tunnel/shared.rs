//! What the peers of a tunnel have in common.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use qanah_core::mesh::Reach;
use qanah_core::router::{PeerId, Router};
use qanah_core::session::RtcCommand;
use qanah_core::signal::{Candidate, SessionId};
use tokio::sync::{mpsc, watch};

use super::address::{Address, Reports};
use super::connector::Connecting;
use crate::held::Held;
use crate::mqtt::Signaling;
use crate::platform::tun::TunDevice;
use crate::relay::RelayDesk;
use crate::senders::Senders;

/// What the peers of a tunnel have in common.
pub(crate) struct Shared {
    pub(crate) tun: Arc<TunDevice>,
    pub(crate) router: watch::Receiver<Arc<Router>>,
    pub(crate) senders: Rc<RefCell<Senders>>,
    /// Packets that wait for their peer to be connected.
    pub(crate) held: Rc<RefCell<Held>>,
    /// Who is reached by whom.
    pub(crate) reach: RefCell<Reach>,
    /// What passes through us between others; absent where relaying is off.
    pub(crate) desk: Option<Rc<RelayDesk>>,
    pub(crate) signaling: Signaling,
    pub(crate) reports: Reports,
    /// Held by every connection task, so that the tunnel can wait for the last one.
    pub(crate) running: mpsc::Sender<()>,
    pub(crate) connecting: Rc<Connecting>,
}

impl Shared {
    pub(crate) fn address(&self, peer: PeerId, session: SessionId) -> Address {
        Address { peer, session, reports: self.reports.clone() }
    }

    /// Takes the candidates out of a command that lie inside this tunnel. A path to them would
    /// lead through the tunnel that it is to carry.
    pub(crate) fn keep_out_own_addresses(&self, command: &mut RtcCommand) {
        let candidates = match command {
            RtcCommand::Answer { remote, .. } | RtcCommand::AcceptAnswer(remote) => {
                &mut remote.candidates
            }
            RtcCommand::AddCandidates { candidates, .. } => candidates,
            _ => return,
        };
        let router = self.router.borrow();
        candidates.retain(|candidate| {
            !is_inside(&router, candidate)
                && !self
                    .connecting
                    .prefixes
                    .borrow()
                    .iter()
                    .any(|prefix| prefix.contains(&candidate.address.ip()))
        });
    }
}

fn is_inside(router: &Router, candidate: &Candidate) -> bool {
    router.route(candidate.address.ip()).is_some()
}
