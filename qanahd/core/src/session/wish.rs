//! Whether a session is sought, and whether the peer can hear of it.

use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::Output;
use super::limits::NUDGE_PACE;
use super::machine::Machine;

impl<R: CryptoRngCore> Machine<R> {
    /// There is a (further) way to the peer's ear, such as a broker that is connected (again): say so
    /// to the peer at once.
    pub fn signaling_up(&mut self, now: Instant) {
        self.signaling = true;
        if self.wanted || self.live.is_some() {
            self.backoff.reset();
            self.say_hello(now);
            self.schedule_hello(now);
        }
        self.announce_restart(now);
    }

    /// Whether a session is to be sought. What there is, or is under way, lives on either way.
    pub fn want(&mut self, now: Instant, wanted: bool) {
        if std::mem::replace(&mut self.wanted, wanted) == wanted {
            return;
        }
        if !wanted {
            self.next_hello = None;
        } else if self.signaling && self.wants_hello() {
            self.backoff.reset();
            self.say_hello(now);
            self.schedule_hello(now);
        }
    }

    /// Somebody wants to send: a hello that was to come much later is said now.
    pub fn nudge(&mut self, now: Instant) {
        let late = self.next_hello.is_some_and(|at| at > now + NUDGE_PACE);
        let paced = self.nudged.is_none_or(|at| now >= at + NUDGE_PACE);
        if late && paced && self.wants_hello() {
            self.nudged = Some(now);
            self.say_hello(now);
        }
    }

    /// The longest pause between two hellos from now on. It is shorter where somebody says that the
    /// peer is there.
    pub fn set_patience(&mut self, now: Instant, patience: Duration) {
        self.patience = patience;
        if let Some(at) = &mut self.next_hello {
            *at = (*at).min(now + patience);
        }
    }

    /// Ends the session that is live or under way, politely, because it is not needed. What people do by hand
    /// goes on.
    pub fn release(&mut self, now: Instant) {
        self.want(now, false);
        for session in self.live.take().into_iter().chain(self.pending.take_by_inbox()) {
            self.dismiss(&session);
        }
        self.emit(Output::Deactivate);
    }

    /// Whether the way to the peer's ear is known to work, as a connected broker does. What others say
    /// that they can do is a way worth trying, but nothing is given up for it.
    pub const fn set_reliable(&mut self, reliable: bool) {
        self.reliable = reliable;
    }

    /// Whether the peer hears what we say.
    pub(super) const fn is_heard(&self) -> bool {
        self.signaling && self.reliable
    }

    /// No way to the peer's ear is left.
    pub fn signaling_down(&mut self) {
        self.signaling = false;
        self.next_hello = None;
    }
}
