//! The peers of a tunnel, in the order of its configuration.

use std::collections::HashMap;
use std::rc::Rc;

use ipnet::IpNet;
use qanah_core::config;
use qanah_core::router::{PeerId, Router};
use qanah_core::session::{Phase, SessionKind};
use qanah_core::signal::{PeerName, SessionId};

use super::peer::Peer;
use crate::rtc::SelectedCandidate;
use crate::stats::PeerStats;

/// A peer with what the configuration says of it beside its keys.
pub(crate) struct Member {
    pub(crate) peer: Peer,
    /// Its name, where it has one.
    pub(crate) name: Option<String>,
    pub(crate) allowed_ips: Vec<IpNet>,
    /// How it looked when somebody was told last.
    outlook: Option<Outlook>,
}

/// What of a peer's state is worth telling at once. Counters and ages are not.
#[derive(Debug, PartialEq, Eq)]
struct Outlook {
    phase: Phase,
    detail: Option<String>,
    session: Option<(SessionKind, SessionId)>,
    via: Option<PeerId>,
    path: Option<(SelectedCandidate, SelectedCandidate)>,
    measured: bool,
    forged: bool,
}

impl Member {
    pub(super) fn new(mut peer: Peer, config: &config::Peer) -> Self {
        peer.label = config.display_name();
        Self {
            peer,
            name: config.name.clone(),
            allowed_ips: config.allowed_ips.clone(),
            outlook: None,
        }
    }

    /// Whether the peer looks other than at the last call.
    pub(super) fn looks_new(&mut self) -> bool {
        let view = self.peer.paths.direct().view();
        let session = self.peer.paths.chosen();
        let outlook = Outlook {
            path: session.and_then(|(_, session)| self.peer.path(session)),
            phase: view.phase,
            detail: view.detail,
            session,
            via: self.peer.paths.via(),
            measured: view.rtt.is_some(),
            forged: self.peer.forged_at.is_some(),
        };
        let new = self.outlook.as_ref() != Some(&outlook);
        self.outlook = Some(outlook);
        new
    }
}

/// The peers of a tunnel, in the order of its configuration. Their ids do not depend on it.
#[derive(Default)]
pub(crate) struct Members {
    ordered: Vec<Member>,
    places: HashMap<PeerId, usize>,
}

impl Members {
    pub(super) fn new(ordered: Vec<Member>) -> Self {
        let places = ordered.iter().zip(0..).map(|(member, at)| (member.peer.id, at)).collect();
        Self { ordered, places }
    }

    pub(super) fn into_inner(self) -> Vec<Member> {
        self.ordered
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&Member> {
        self.places.get(&id).and_then(|at| self.ordered.get(*at))
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Member> {
        self.places.get(&id).and_then(|at| self.ordered.get_mut(*at))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.ordered.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.ordered.iter_mut()
    }

    /// The peers alone, for what goes by their keys.
    pub(super) fn peers_mut(&mut self) -> Vec<&mut Peer> {
        self.ordered.iter_mut().map(|member| &mut member.peer).collect()
    }

    /// Who owns which addresses.
    pub(super) fn router(&self) -> Router {
        Router::new(
            self.ordered.iter().flat_map(|member| {
                member.allowed_ips.iter().map(|prefix| (member.peer.id, *prefix))
            }),
        )
    }

    /// Their names on the wire.
    pub(super) fn names(&self) -> Vec<(PeerId, PeerName)> {
        self.ordered.iter().map(|member| (member.peer.id, member.peer.name)).collect()
    }

    /// The counters of all of them.
    pub(super) fn stats(&self) -> HashMap<PeerId, Rc<PeerStats>> {
        self.ordered.iter().map(|m| (m.peer.id, Rc::clone(&m.peer.stats))).collect()
    }
}
