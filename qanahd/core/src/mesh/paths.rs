//! The ways to one peer: a direct session, one by a relay, and which of them takes packets.

use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::limits::{DIRECT_FIRST, HELLO_WHEN_REACHED, RELAY_LINGER};
use super::reach::{ByRelay, Carrier, Standing};
use crate::router::PeerId;
use crate::session::limits::{HELLO_MAX, SILENT_AFTER};
use crate::session::{HandError, Machine, Output, SessionKind};
use crate::signal::{Message, Offer, SessionId};

/// What a tunnel wants of its paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathSettings {
    /// Sessions by relays may be made.
    pub relay: bool,
    /// A session is sought only when there is something to send, and let go when it has carried nothing for so
    /// long, if the peer does the same.
    pub lazy: Option<Duration>,
}

/// The ways to one peer.
///
/// Call an input, then [`Paths::update`], then take outputs from [`Paths::poll_output`] until there are
/// none, then look at [`Paths::chosen`], then wait for the next input or for [`Paths::poll_timeout`].
pub struct Paths<R> {
    direct: Machine<R>,
    relayed: Machine<R>,
    settings: PathSettings,
    /// A broker is connected.
    broker: bool,
    /// Connected peers pass messages on to this one.
    carried: bool,
    /// The relay that frames go by, if there is one.
    via: Option<PeerId>,
    /// The last relay that there was, and since when.
    last_via: Option<(PeerId, Instant)>,
    /// A session is wanted.
    wanted: bool,
    /// When packets last went either way, and when they last came by a relay.
    traffic: Option<Instant>,
    relay_traffic: Option<Instant>,
    /// Since when the direct session cannot be used although one is wanted.
    missing_since: Option<Instant>,
    /// Since when it can.
    usable_since: Option<Instant>,
    chosen: Option<(SessionKind, SessionId)>,
    /// When conclusions were last drawn.
    looked_at: Instant,
    /// Messages that were refused here.
    refused: u64,
}

impl<R: CryptoRngCore> Paths<R> {
    /// Puts the two machines of a peer together: the first for direct sessions, the second for those by a relay.
    pub fn new(
        mut direct: Machine<R>,
        mut relayed: Machine<R>,
        settings: PathSettings,
        now: Instant,
    ) -> Self {
        let wanted = settings.lazy.is_none();
        direct.want(now, wanted);
        relayed.want(now, false);
        Self {
            direct,
            relayed,
            settings,
            broker: false,
            carried: false,
            via: None,
            last_via: None,
            wanted,
            traffic: None,
            relay_traffic: None,
            missing_since: None,
            usable_since: None,
            chosen: None,
            looked_at: now,
            refused: 0,
        }
    }

    /// The machine of direct sessions.
    pub const fn direct(&self) -> &Machine<R> {
        &self.direct
    }

    /// The machine of sessions of this kind.
    pub const fn machine(&mut self, kind: SessionKind) -> &mut Machine<R> {
        match kind {
            SessionKind::Direct => &mut self.direct,
            SessionKind::Relayed => &mut self.relayed,
        }
    }

    /// The machine of direct sessions, to tell it what happened.
    pub const fn direct_mut(&mut self) -> &mut Machine<R> {
        &mut self.direct
    }

    /// The machine of sessions by a relay.
    pub const fn relayed(&self) -> &Machine<R> {
        &self.relayed
    }

    /// Messages that authenticated but were refused.
    pub const fn refused(&self) -> u64 {
        self.refused + self.direct.refused() + self.relayed.refused()
    }

    /// Nothing is connected and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.direct.is_idle() && self.relayed.is_idle()
    }

    /// Whether a session is wanted.
    pub const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// The session that takes packets, and its kind.
    pub const fn chosen(&self) -> Option<(SessionKind, SessionId)> {
        self.chosen
    }

    /// The relay by which frames go, if a session by a relay takes packets.
    pub fn via(&self) -> Option<PeerId> {
        self.via.filter(|_| matches!(self.chosen, Some((SessionKind::Relayed, _))))
    }

    /// How the peer stands, for what it can do for others and others for it.
    pub fn standing(&self, now: Instant) -> Standing {
        let usable = self.direct.live().filter(|_| self.direct.is_usable(now));
        Standing {
            carrier: usable.map(|(_, capabilities)| Carrier {
                relays: capabilities.relay,
                signals: capabilities.mesh_signaling,
                rtt: self.direct.view().rtt,
            }),
            sought: self.wanted && !self.direct.is_usable(now),
            by_relay: self.via.and_then(|via| self.by_relay(now, via)),
        }
    }

    fn by_relay(&self, now: Instant, via: PeerId) -> Option<ByRelay> {
        let unconfirmed = self.unconfirmed_until().is_some_and(|at| at <= now);
        if self.relayed.is_silent(now) || unconfirmed {
            return Some(ByRelay::Silent(via));
        }
        Some(ByRelay::Answers(via, self.relayed.view().rtt?))
    }

    /// When keys that are not confirmed show that the relay passes nothing on: it takes part in the handshake for
    /// anybody to see, and then keeps the frames.
    fn unconfirmed_until(&self) -> Option<Instant> {
        let (_, since) = self.last_via?;
        Some(self.relayed.confirming_since()?.max(since) + SILENT_AFTER)
    }

    /// A message of the peer, opened and parsed.
    pub fn message(&mut self, now: Instant, message: Message) {
        match message {
            Message::Relayed(inner) if self.settings.relay => {
                if self.is_taken(&inner, &self.direct) {
                    self.refused += 1;
                } else {
                    self.relayed.message(now, *inner);
                }
            }
            other if self.is_taken(&other, &self.relayed) => self.refused += 1,
            other => self.direct.message(now, other),
        }
    }

    /// Whether this is an offer under an id that a session of the other kind has.
    fn is_taken(&self, message: &Message, other: &Machine<R>) -> bool {
        matches!(message, Message::Offer(offer) if other.knows(offer.session))
    }

    /// As [`Machine::answer_by_hand`].
    ///
    /// # Errors
    /// The same.
    pub fn answer_by_hand(&mut self, now: Instant, offer: &Offer) -> Result<(), HandError> {
        if self.relayed.knows(offer.session) {
            return Err(HandError::Used);
        }
        self.direct.answer_by_hand(now, offer)
    }

    /// A broker has connected (again), or none is connected any more.
    pub fn set_broker(&mut self, now: Instant, connected: bool) {
        self.broker = connected;
        // Before anything is said of sessions that end now.
        self.let_go(now);
        if connected {
            self.direct.signaling_up(now);
            self.relayed.signaling_up(now);
        } else {
            self.without_signaling();
        }
    }

    /// By whom the peer is reached: whether anybody passes messages on, and the relay that is to be used.
    /// `fresh` says that somebody does who did not before.
    pub fn set_reach(&mut self, now: Instant, carried: bool, fresh: bool, via: Option<PeerId>) {
        self.carried = carried;
        let patience = if carried { HELLO_WHEN_REACHED } else { HELLO_MAX };
        self.direct.set_patience(now, patience);
        self.relayed.set_patience(now, patience);
        if (carried && !self.direct.has_signaling()) || (fresh && !self.direct.is_usable(now)) {
            self.direct.signaling_up(now);
        }
        if carried && !self.relayed.has_signaling() {
            self.relayed.signaling_up(now);
        }
        if !carried {
            self.without_signaling();
        }
        self.via = via;
        let Some(relay) = via.filter(|via| self.last_via.is_none_or(|(last, _)| last != *via))
        else {
            return;
        };
        if self.last_via.replace((relay, now)).is_some() {
            self.relayed.way_changed(now);
        }
    }

    fn without_signaling(&mut self) {
        if !self.broker && !self.carried {
            self.direct.signaling_down();
            self.relayed.signaling_down();
        }
    }

    /// When packets last went to or came from the peer.
    pub fn set_traffic(&mut self, at: Option<Instant>) {
        self.traffic = self.traffic.max(at);
    }

    /// When packets last came by a relay. The peer does not hear us by the direct session, it seems.
    pub fn set_relay_traffic(&mut self, now: Instant, at: Option<Instant>) {
        if at > self.relay_traffic {
            self.relay_traffic = at;
            self.direct.ask(now);
        }
    }

    /// There is a packet for the peer, and no session that takes it.
    pub fn want(&mut self, now: Instant) {
        self.traffic = self.traffic.max(Some(now));
        self.wanted = true;
        self.direct.want(now, true);
        self.direct.nudge(now);
    }

    /// Says goodbye by a relay.
    pub fn stop_relayed(&mut self) {
        self.relayed.stop();
    }

    /// Says goodbye: the tunnel goes down.
    pub fn stop(&mut self) {
        self.direct.stop();
        self.relayed.stop();
        self.chosen = None;
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant) {
        self.direct.timeout(now);
        self.relayed.timeout(now);
    }

    /// Draws the conclusions of what has happened.
    pub fn update(&mut self, now: Instant) {
        self.looked_at = now;
        // That somebody says it passes messages on proves nothing; that frames come back by a relay does.
        self.direct.set_reliable(self.broker || self.relayed.is_usable(now));
        self.relayed.set_reliable(self.broker || self.direct.is_usable(now));
        self.let_go(now);
        let usable = self.direct.is_usable(now);
        if usable {
            self.missing_since = None;
            self.usable_since.get_or_insert(now);
        } else {
            self.usable_since = None;
            let wanted = self.wanted.then_some(now);
            self.missing_since = self.missing_since.or(wanted).filter(|_| self.wanted);
        }
        let wants_relay = self.relay_due().is_some_and(|at| at <= now);
        self.relayed.want(now, wants_relay);
        if self.linger_until().is_some_and(|at| at <= now) {
            self.relayed.release(now);
        }
        self.choose(now, usable);
    }

    fn choose(&mut self, now: Instant, usable: bool) {
        let direct = self.direct.live().map(|(id, _)| (SessionKind::Direct, id));
        let relayed = self.relayed.live().map(|(id, _)| (SessionKind::Relayed, id));
        let relayed = relayed.filter(|_| self.via.is_some());
        self.chosen = if usable || relayed.is_none() || !self.relayed.is_usable(now) {
            direct.or(relayed)
        } else {
            relayed
        };
    }

    /// When a relay is asked to help; `None` while it is not needed or there is none.
    fn relay_due(&self) -> Option<Instant> {
        let since = self.missing_since.filter(|_| self.settings.relay && self.via.is_some())?;
        // What worked before and does not now is replaced at once.
        let had_one = self.direct.live().is_some();
        Some(if had_one { since } else { since + DIRECT_FIRST })
    }

    /// When the session by a relay ends that is not needed any more.
    fn linger_until(&self) -> Option<Instant> {
        let since = self.usable_since.filter(|_| !self.relayed.is_idle())?;
        let live = self.relayed.view().connected_since;
        let used = self.relay_traffic.max(live).max(Some(since))?;
        Some(used + RELAY_LINGER)
    }

    /// Whether a session of this machine is let go when it carries nothing. A peer that is not lazy would only
    /// make another one, and without signaling nobody could.
    fn lets_go(&self, machine: &Machine<R>) -> bool {
        (self.broker || self.carried) && machine.live().is_some_and(|(_, peer)| peer.lazy)
    }

    /// When sessions that carry nothing are let go, whoever wanted them.
    fn idle_at(&self) -> Option<Instant> {
        let idle = self.settings.lazy?;
        if !self.wanted && !self.lets_go(&self.direct) && !self.lets_go(&self.relayed) {
            return None;
        }
        let since = [&self.direct, &self.relayed].map(|it| it.view().connected_since);
        let since = since.into_iter().chain([self.traffic]).flatten().max()?;
        Some(since + idle)
    }

    /// Lets go what has carried nothing for long.
    fn let_go(&mut self, now: Instant) {
        if self.idle_at().is_none_or(|at| at > now) {
            return;
        }
        self.wanted = false;
        self.direct.want(now, false);
        if self.lets_go(&self.direct) {
            self.direct.release(now);
        }
        if self.lets_go(&self.relayed) {
            self.relayed.release(now);
        }
    }

    /// The next thing to do, in order, and with which kind of session.
    pub fn poll_output(&mut self) -> Option<(SessionKind, Output)> {
        let direct = self.direct.poll_output().map(|output| (SessionKind::Direct, output));
        direct.or_else(|| self.relayed.poll_output().map(|it| (SessionKind::Relayed, it)))
    }

    /// When to call [`Paths::timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let relay_due = self.relay_due().filter(|_| !self.relayed.is_wanted());
        [
            self.direct.poll_timeout(),
            self.relayed.poll_timeout(),
            relay_due,
            self.linger_until(),
            self.idle_at(),
            self.unconfirmed_until().filter(|at| *at > self.looked_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
