//! A better path for a session that goes through a TURN server.
//!
//! ICE keeps the pair that it has chosen, and an ICE restart gives the old path up before the new one is
//! there. So a direct path is sought by a new session beside the live one, which takes over when it is
//! confirmed, whatever its path; nothing is lost when none appears. Our hellos do not name the live session
//! meanwhile, which to the peer means that a session is wanted (PROTOCOL.md, section 5).

use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::limits::{BETTER_ASKING, BETTER_FIRST, BETTER_MAX};
use super::machine::{Machine, SessionKind};
use super::pace::jittered;
use super::state::Session;
use crate::signal::SessionId;

/// When a better path is sought.
#[derive(Debug, Default)]
pub(super) struct Better {
    /// The next try; absent while the live path is direct.
    next: Option<Instant>,
    /// The pause after it.
    pause: Duration,
    /// Until then our hellos say that a session is wanted.
    asking: Option<Instant>,
}

impl<R: CryptoRngCore> Machine<R> {
    /// ICE has chosen a path for a session; `by_turn` says that it goes through a TURN server, at either
    /// end.
    pub fn path_found(&mut self, now: Instant, id: SessionId, by_turn: bool) {
        if let Some(session) = self.session_mut(id) {
            session.by_turn = Some(by_turn);
        }
        self.plan_better(now);
    }

    /// The live session or its path is another one.
    pub(super) fn plan_better(&mut self, now: Instant) {
        match self.live.as_ref().filter(|it| !it.is_dead()).map(|it| it.by_turn) {
            Some(Some(true)) if self.better.next.is_none() => {
                self.better.pause = BETTER_FIRST;
                self.next_better(now);
            }
            // As before: one of the same kind has taken over, or it is not known yet.
            Some(Some(true) | None) => {}
            Some(Some(false)) | None => self.better = Better::default(),
        }
    }

    /// Tries soon, and then again and again as in the beginning: the network is another one.
    pub(super) fn hurry_better(&mut self, now: Instant) {
        if self.better.next.is_some() {
            self.better.pause = BETTER_FIRST;
            self.better.next = Some(now);
        }
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
        self.next_better(now);
        let alive = self.live.as_ref().is_some_and(|session: &Session| !session.is_dead());
        let free = self.pending.by_inbox().is_none();
        if self.settings.kind == SessionKind::Direct && alive && free && self.signaling {
            self.better.asking = Some(now + BETTER_ASKING);
            self.ask_for_renewal(now);
        }
    }
}
