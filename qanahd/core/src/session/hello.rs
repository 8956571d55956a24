//! Freshness by challenge: who is there now, and who offers when.
//!
//! Clocks are not trusted: small machines at home boot with wrong ones. Instead each side holds a
//! random challenge, and only a message that echoes it proves that its sender is alive now. A
//! challenge proves one thing once; after that there is a new one.

use std::time::Instant;

use rand_core::CryptoRngCore;

use super::Output;
use super::limits::{RENEW_AFTER, RENEW_ASK_AFTER};
use super::machine::Machine;
use super::state::{Session, Stage};
use crate::signal::{Challenge, Hello, Message, SessionId};

impl<R: CryptoRngCore> Machine<R> {
    /// Says hello unasked.
    pub(super) fn say_hello(&mut self, now: Instant) {
        self.hello(now, self.heard);
    }

    /// Says hello without an echo: an echo would tell the peer that nothing is wanted.
    pub(super) fn ask_for_renewal(&mut self, now: Instant) {
        self.hello(now, None);
    }

    fn hello(&mut self, now: Instant, echo: Option<Challenge>) {
        let hello = Hello { challenge: self.challenge, echo, session: self.named_session(now) };
        self.emit(Output::Send(Message::Hello(hello)));
    }

    pub(super) fn schedule_hello(&mut self, now: Instant) {
        let may = self.signaling && self.wanted;
        self.next_hello = may.then(|| now + self.backoff.next(self.patience, &mut self.rng));
    }

    /// Nothing connects us and nothing is about to.
    pub(super) fn wants_hello(&self) -> bool {
        let connecting = self.pending.by_inbox().is_some_and(|session| session.link().is_some());
        let connected = self.live.as_ref().is_some_and(Session::is_worth_keeping);
        self.signaling && self.wanted && !connecting && !connected
    }

    /// The session that our hellos name: the attempt that both know, else the live session while
    /// it is worth keeping.
    fn named_session(&self, now: Instant) -> Option<SessionId> {
        let attempt = self.pending.by_inbox().filter(|session| {
            session.link().is_some()
                || matches!(
                    session.stage,
                    Stage::DescribingAnswer { .. } | Stage::GatheringAnswer { .. }
                )
        });
        let live = self.live.as_ref().filter(|session| {
            session.is_worth_keeping()
                && !self.asks_for_better(now)
                && session.link().is_some_and(|link| now < link.born + RENEW_ASK_AFTER)
        });
        attempt.or(live).map(|session| session.id)
    }

    pub(super) fn on_hello(&mut self, now: Instant, hello: &Hello) {
        let fresh = hello.echo == Some(self.challenge);
        let same = hello.session.is_some() && hello.session == self.named_session(now);
        // What may be a replay does not displace what was proven.
        if fresh || self.heard.is_none() {
            self.heard = Some(hello.challenge);
        }
        let wanted = fresh && (!same || self.renewal_due(now) || self.raise_due(now));
        match (fresh, self.offers) {
            (true, true) if wanted => {
                let size = if same { self.take_raise(now) } else { None };
                if !same || size.is_some() || self.renewal_due(now) {
                    self.offer_to(now, hello, size);
                }
            }
            (true, _) if same => {}
            (true, _) => {
                if self.fresh_replies.take(now) {
                    self.hello(now, Some(hello.challenge));
                }
            }
            (false, _) => {
                if self.stale_replies.take(now) {
                    self.hello(now, Some(hello.challenge));
                }
            }
        }
    }

    /// An echoed hello came and a session is wanted.
    ///
    /// `packet_size`: one with packets of this size, if the path takes them.
    fn offer_to(&mut self, now: Instant, hello: &Hello, packet_size: Option<u16>) {
        // An echo serves once: a copy of this hello proves nothing any more.
        self.challenge = Challenge::random(&mut self.rng);
        let Some(pending) = self.pending.by_inbox_mut() else {
            return self.begin_offer(now, hello.challenge, packet_size);
        };
        let id = pending.id;
        match &mut pending.stage {
            // Not sealed yet: the newest challenge serves.
            Stage::DescribingOffer { echo } | Stage::GatheringOffer { echo, .. } => {
                *echo = Some(hello.challenge);
            }
            Stage::Offered { offer, .. }
                if offer.echo == Some(hello.challenge) || hello.session == Some(id) =>
            {
                if self.fresh_replies.take(now) {
                    self.repeat_offer();
                }
            }
            _ if hello.session == Some(id) => {}
            // The peer does not know this attempt (any more): it has restarted.
            _ => {
                self.fail_attempt(now, id, "the peer began anew");
                self.begin_offer(now, hello.challenge, None);
            }
        }
    }

    fn renewal_due(&self, now: Instant) -> bool {
        self.pending.by_inbox().is_none()
            && self
                .live
                .as_ref()
                .and_then(Session::link)
                .is_some_and(|link| now >= link.born + RENEW_AFTER)
    }
}
