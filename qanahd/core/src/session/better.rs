//! A better path for a session that goes through a TURN server, or by IPv4 where IPv6 has come.
//!
//! ICE keeps the pair that it has chosen, and an ICE restart gives the old path up before the new one is
//! there. So a direct path is sought by a new session beside the live one, which takes over when it is
//! confirmed, whatever its path; nothing is lost when none appears. Our hellos do not name the live session
//! meanwhile, which to the peer means that a session is wanted (PROTOCOL.md, section 5).

use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::limits::{BETTER_ASKING, BETTER_FIRST, BETTER_MAX, IPV6_TRIES};
use super::machine::{Machine, SessionKind};
use super::pace::jittered;
use super::state::Session;
use crate::signal::{CandidateKind, SessionId};

/// How good the path of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathClass {
    /// Through a TURN server, at either end.
    ByTurn,
    /// Direct, by IPv4.
    Ipv4,
    /// Direct, by IPv6: there is nothing better.
    Ipv6,
}

/// IPv6 has come to this machine.
#[derive(Debug, Clone, Copy)]
struct Ipv6Came {
    /// When. A session that was begun before, even if it was not live then, has no socket for it, and does not know what
    /// the peer has by now.
    at: Instant,
    /// So many more sessions are tried.
    tries: u32,
}

/// When a better path is sought.
#[derive(Debug, Default)]
pub(super) struct Better {
    /// The next try; absent while the live path is good enough.
    next: Option<Instant>,
    /// The pause after it.
    pause: Duration,
    /// Until then our hellos say that a session is wanted.
    asking: Option<Instant>,
    /// The last try.
    tried: Option<Instant>,
    ipv6: Option<Ipv6Came>,
}

impl<R: CryptoRngCore> Machine<R> {
    /// ICE has chosen a path for a session.
    pub fn path_found(&mut self, now: Instant, id: SessionId, path: PathClass) {
        if let Some(session) = self.session_mut(id) {
            session.path = Some(path);
        }
        self.plan_better(now);
    }

    /// This machine has IPv6 now, or a wider kind of it than before. Whether the peer has it too is not known: it may
    /// have come there as well, since the live session began.
    pub fn ipv6_came(&mut self, now: Instant) {
        self.better.ipv6 = Some(Ipv6Came { at: now, tries: IPV6_TRIES });
        self.plan_better(now);
    }

    /// The live session or its path is another one.
    pub(super) fn plan_better(&mut self, now: Instant) {
        match self.live.as_ref().filter(|it| !it.is_dead()).map(|it| it.path) {
            Some(Some(PathClass::ByTurn)) => self.begin_better(now),
            Some(Some(PathClass::Ipv4)) if self.may_have_ipv6() => self.begin_better(now),
            // Not known yet: one of the same kind has taken over.
            Some(None) => {}
            // The path that a dead session finds may be by IPv4 still.
            None => self.better = Better { ipv6: self.better.ipv6, ..Better::default() },
            Some(Some(PathClass::Ipv4 | PathClass::Ipv6)) => self.better = Better::default(),
        }
    }

    /// Whether a session that is made now may go by IPv6 although the live one does not.
    fn may_have_ipv6(&self) -> bool {
        let (Some(came), Some(session)) = (self.better.ipv6, &self.live) else {
            return false;
        };
        let told = || {
            session.taken.iter().any(|it| it.address.is_ipv6() && it.kind != CandidateKind::Relayed)
        };
        came.tries > 0 && (session.began <= came.at || told())
    }

    fn begin_better(&mut self, now: Instant) {
        if self.better.next.is_none() {
            self.better.pause = BETTER_FIRST;
            self.next_better(now);
        }
    }

    /// Tries soon, and then again and again as in the beginning: the network is another one. It may be so many
    /// times a minute, by somebody's doing.
    pub(super) fn hurry_better(&mut self, now: Instant) {
        if self.better.next.is_some() && self.live_path() == Some(PathClass::ByTurn) {
            self.better.pause = BETTER_FIRST;
            let soonest = self.better.tried.map(|at| at + BETTER_FIRST);
            self.better.next = Some(soonest.map_or(now, |at| at.max(now)));
        }
    }

    fn live_path(&self) -> Option<PathClass> {
        self.live.as_ref().and_then(|session| session.path)
    }

    fn next_better(&mut self, now: Instant) {
        let pause = self.better.pause;
        self.better.pause = (pause * 2).min(BETTER_MAX);
        self.better.next = Some(now + jittered(pause, &mut self.rng));
    }

    /// When there is something to do.
    pub(super) fn better_deadline(&self) -> Option<Instant> {
        self.better.next
    }

    /// Whether the live session is to be replaced by one that may have a better path.
    pub(super) fn asks_for_better(&self, now: Instant) -> bool {
        self.better.asking.is_some_and(|until| now < until)
    }

    /// Another session is live: that was what we asked for.
    pub(super) fn stop_asking(&mut self) {
        self.better.asking = None;
    }

    pub(super) fn drive_better(&mut self, now: Instant) {
        if self.better.next.is_none_or(|at| at > now) {
            return;
        }
        if self.live.is_none() {
            self.better = Better::default();
            return;
        }
        if self.live_path() == Some(PathClass::Ipv4) && !self.may_have_ipv6() {
            // All was tried, or the peer has told no such address by now.
            self.better = Better::default();
            return;
        }
        self.next_better(now);
        let alive = self.live.as_ref().is_some_and(|session: &Session| !session.is_dead());
        let free = self.pending.by_inbox().is_none();
        if self.settings.kind == SessionKind::Direct && alive && free && self.signaling {
            self.better.asking = Some(now + BETTER_ASKING);
            self.better.tried = Some(now);
            if let Some(came) = &mut self.better.ipv6 {
                came.tries = came.tries.saturating_sub(1);
            }
            self.ask_for_renewal(now);
        }
    }
}
