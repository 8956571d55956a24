//! One peer: inputs, timers, outputs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::better::Better;
use super::hand::Hand;
use super::limits::{CONFIRM_TIMEOUT, HELLO_MAX, TAKE_BACK};
use super::pace::{Backoff, Bucket};
use super::path_mtu::PathMtu;
use super::pending::Pending;
use super::state::{Answered, Link, Session, Stage, View};
use super::{Event, Output, RtcCommand};
use crate::frame::Control;
use crate::handshake::{Identity, MacPurpose};
use crate::key::{PresharedKey, PublicKey, SecretKey};
use crate::signal::{Bye, Candidate, Candidates, Capabilities, Challenge, Message, SessionId};

/// What the sessions of a machine are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// A data channel to the peer itself.
    Direct,
    /// Frames that a relay passes on. It has hellos and challenges of its own.
    Relayed,
}

/// Who the two ends are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the sessions are.
    pub kind: SessionKind,
    /// Our private key.
    pub me: Arc<SecretKey>,
    /// The peer's public key.
    pub peer: PublicKey,
    /// The preshared key; zeros where there is none.
    pub psk: PresharedKey,
    /// What we can do.
    pub capabilities: Capabilities,
    /// A rekey is begun when so many frames were sealed or opened: [`limits::REKEY_AFTER_FRAMES`],
    /// less in tests.
    ///
    /// [`limits::REKEY_AFTER_FRAMES`]: super::limits::REKEY_AFTER_FRAMES
    pub rekey_after_frames: u64,
}

/// The life of all sessions with one peer.
///
/// Call an input, then take outputs from [`Machine::poll_output`] until there are none, then wait
/// for the next input or for [`Machine::poll_timeout`].
pub struct Machine<R> {
    pub(super) settings: Settings,
    pub(super) rng: R,
    /// Ours is the greater public key: we offer, the peer answers.
    pub(super) offers: bool,
    pub(super) signaling: bool,
    /// It is known to work; see [`Machine::set_reliable`].
    pub(super) reliable: bool,
    /// A session is wanted. Else none is sought, but the peer gets one that wants it.
    pub(super) wanted: bool,
    /// The longest pause between two hellos.
    pub(super) patience: Duration,
    /// When a hello was said because there was something to send.
    pub(super) nudged: Option<Instant>,
    pub(super) challenge: Challenge,
    /// The peer's latest challenge. It may be a replay; then the peer answers with its present one.
    pub(super) heard: Option<Challenge>,
    pub(super) backoff: Backoff,
    /// Bounds what replays can make us send.
    pub(super) stale_replies: Bucket,
    pub(super) fresh_replies: Bucket,
    pub(super) next_hello: Option<Instant>,
    pub(super) pending: Pending,
    pub(super) hand: Hand,
    pub(super) live: Option<Session>,
    pub(super) retiring: Vec<Session>,
    pub(super) answered: Option<Answered>,
    pub(super) path_mtu: PathMtu,
    pub(super) failure: Option<String>,
    pub(super) better: Better,
    /// Messages that were refused: stale, out of place, or not for us.
    pub(super) refused: u64,
    outputs: VecDeque<Output>,
}

impl<R: CryptoRngCore> Machine<R> {
    /// Makes the machine of one peer. It does nothing before signaling is up.
    pub fn new(settings: Settings, mut rng: R) -> Self {
        let offers = settings.me.public_key() > settings.peer;
        let challenge = Challenge::random(&mut rng);
        Self {
            settings,
            rng,
            offers,
            signaling: false,
            reliable: true,
            wanted: true,
            patience: HELLO_MAX,
            nudged: None,
            challenge,
            heard: None,
            backoff: Backoff::new(),
            stale_replies: Bucket::new(),
            fresh_replies: Bucket::new(),
            next_hello: None,
            pending: Pending::default(),
            hand: Hand::default(),
            live: None,
            retiring: Vec::new(),
            answered: None,
            path_mtu: PathMtu::default(),
            failure: None,
            better: Better::default(),
            refused: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        Identity { me: &self.settings.me, peer: &self.settings.peer, psk: &self.settings.psk }
    }

    /// A message of the peer, opened and parsed.
    pub fn message(&mut self, now: Instant, message: Message) {
        match message {
            Message::Hello(hello) => self.on_hello(now, &hello),
            Message::Offer(offer) => self.on_offer(now, offer),
            Message::Answer(answer) => self.on_answer(now, &answer),
            Message::Candidates(candidates) => self.on_candidates(candidates),
            Message::Bye(bye) => self.on_bye(now, &bye),
            // It was taken out of its cover by whoever chose this machine.
            Message::Relayed(_) => self.refused += 1,
        }
    }

    fn on_bye(&mut self, now: Instant, bye: &Bye) {
        let genuine = self
            .session(bye.session)
            .is_some_and(|session| session.verify(MacPurpose::Bye, &bye.session.0, &bye.mac));
        if genuine {
            self.closed(now, bye.session, "the peer closed the session");
        } else {
            self.refused += 1;
        }
    }

    /// A session has ended: the peer closed it, or its WebRTC connection is gone.
    pub fn closed(&mut self, now: Instant, id: SessionId, reason: &str) {
        if self.pending.get(id).is_some() {
            self.fail_attempt(now, id, reason);
        } else if self.live.as_ref().is_some_and(|session| session.id == id) {
            if !self.take_back(now) {
                self.lose_live(now, reason);
            }
        } else if let Some(at) = self.retiring.iter().position(|session| session.id == id) {
            self.retiring.remove(at);
            self.emit(Output::Rtc(id, RtcCommand::Close));
        }
    }

    /// The live session was closed soon after it took over: of two that were confirmed at the same
    /// time the peer has kept the other. False when there is none.
    fn take_back(&mut self, now: Instant) -> bool {
        let fresh = |session: &Session| {
            session.retired.is_some_and(|at| now < at + TAKE_BACK) && !session.is_dead()
        };
        let Some(at) = self.retiring.iter().rposition(fresh) else {
            return false;
        };
        let mut session = self.retiring.remove(at);
        session.retired = None;
        if let Some(expiry) = session.link().map(Link::expiry) {
            session.deadline = expiry;
        }
        if let Some(pulse) = session.pulse_mut() {
            pulse.last_opened = now;
        }
        self.emit(Output::Activate(session.id));
        if let Some(closed) = self.live.replace(session) {
            self.emit(Output::Rtc(closed.id, RtcCommand::Close));
        }
        true
    }

    /// The live session is over and nothing took its place.
    pub(super) fn lose_live(&mut self, now: Instant, reason: &str) {
        if let Some(session) = self.live.take() {
            self.emit(Output::Deactivate);
            self.emit(Output::Rtc(session.id, RtcCommand::Close));
            self.emit(Output::Event(Event::Disconnected { reason: reason.to_owned() }));
            self.failure = Some(reason.to_owned());
            self.backoff.reset();
            self.schedule_hello(now);
        }
    }

    /// An attempt under way is over without a session.
    pub(super) fn fail_attempt(&mut self, now: Instant, id: SessionId, reason: &str) {
        if let Some(session) = self.pending.take(id) {
            self.emit(Output::Rtc(session.id, RtcCommand::Close));
            if session.must_prove() {
                self.raise_failed(now, &session);
            } else {
                self.emit(Output::Event(Event::AttemptFailed { reason: reason.to_owned() }));
                self.failure = Some(reason.to_owned());
            }
            if session.way.is_by_hand() {
                self.hand_failed(now, &session, reason);
            } else {
                self.schedule_hello(now);
            }
        }
    }

    /// Says goodbye: the tunnel goes down.
    pub fn stop(&mut self) {
        let sessions = self.live.take().into_iter().chain(self.pending.take_all());
        for session in sessions.chain(std::mem::take(&mut self.retiring)).collect::<Vec<_>>() {
            self.dismiss(&session);
        }
        self.emit(Output::Deactivate);
    }

    /// Closes a session with a bye.
    pub(super) fn dismiss(&mut self, session: &Session) {
        if let Some(link) = session.link() {
            let mac = link.keys.mac(MacPurpose::Bye, &session.id.0);
            self.emit(Output::Send(Message::Bye(Bye { session: session.id, mac })));
            self.emit(Output::SendControl(session.id, Control::Close));
        }
        self.emit(Output::Rtc(session.id, RtcCommand::Close));
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.pending.iter().chain(&self.live).find(|session| session.id == id)
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.pending.iter_mut().chain(&mut self.live).find(|session| session.id == id)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant) {
        self.drive_attempts(now);
        self.drive_live(now);
        self.drive_rekey(now);
        self.drive_better(now);
        self.drive_retiring(now);
        self.flush_candidates(now);
        if self.next_hello.is_some_and(|at| at <= now) {
            if self.wants_hello() {
                self.say_hello(now);
                self.schedule_hello(now);
            } else {
                self.next_hello = None;
            }
        }
    }

    /// When to call [`Machine::timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let capable = self.settings.capabilities.rekey;
        let reliable = self.is_heard();
        let sessions = self.pending.iter().chain(&self.live);
        sessions
            .flat_map(|session| {
                [Some(session_deadline(session, reliable)), session.trickle_deadline()]
            })
            .flatten()
            .chain(self.retiring.iter().map(|session| session.deadline))
            .chain(self.next_hello)
            .chain(self.better_deadline())
            .chain(self.raise_at())
            .chain(self.live.as_ref().and_then(|it| it.rekey_deadline(capable)))
            .min()
    }

    fn drive_retiring(&mut self, now: Instant) {
        let (over, kept) = std::mem::take(&mut self.retiring)
            .into_iter()
            .partition(|session: &Session| session.deadline <= now);
        self.retiring = kept;
        let over: Vec<Session> = over;
        for session in over {
            self.emit(Output::Rtc(session.id, RtcCommand::Close));
        }
    }

    /// Tells the peer the candidates that have waited long enough for company.
    pub(super) fn flush_candidates(&mut self, now: Instant) {
        let mut messages = Vec::new();
        for session in self.pending.iter_mut().chain(&mut self.live) {
            let due = session.trickle_deadline().is_some_and(|at| at <= now);
            if let Some((candidates, end)) = due.then(|| session.trickle.take_untold()).flatten() {
                messages.push(session.candidates(candidates, end));
            }
        }
        for message in messages {
            self.emit(Output::Send(Message::Candidates(message)));
        }
    }

    /// Whether the live session, if there is one, is to be trusted with packets: its path is not dead, and
    /// the peer answers.
    pub fn is_usable(&self, now: Instant) -> bool {
        self.live.as_ref().is_some_and(|session| {
            session.pulse().is_some_and(|it| it.dead_since.is_none() && !it.is_silent(now))
        })
    }

    /// Whether there is a live session whose pings go unanswered.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.live.as_ref().and_then(Session::pulse).is_some_and(|pulse| pulse.is_silent(now))
    }

    /// Since when the keys of an attempt by the inboxes wait to be confirmed.
    pub fn confirming_since(&self) -> Option<Instant> {
        let attempt = self.pending.by_inbox()?;
        let is_confirming = matches!(attempt.stage, Stage::Confirming { .. });
        attempt.deadline.checked_sub(CONFIRM_TIMEOUT).filter(|_| is_confirming)
    }

    /// Whether a session or an attempt has this id.
    pub fn knows(&self, id: SessionId) -> bool {
        self.session(id).is_some() || self.retiring.iter().any(|session| session.id == id)
    }

    /// The live session, and what the peer said there that it can do.
    pub fn live(&self) -> Option<(SessionId, Capabilities)> {
        let session = self.live.as_ref()?;
        Some((session.id, session.link()?.peer.capabilities))
    }

    /// There is a way to the peer's ear.
    pub const fn has_signaling(&self) -> bool {
        self.signaling
    }

    /// Whether a session is to be sought.
    pub const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Nothing is live and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.live.is_none() && self.pending.iter().next().is_none()
    }

    /// How it stands, for people.
    pub fn view(&self) -> View {
        View::of(
            self.live.as_ref(),
            &self.pending,
            self.signaling,
            self.next_hello,
            self.failure.as_deref(),
        )
    }

    /// Messages that authenticated but were refused: stale, repeated or out of place.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

impl Session {
    /// A message with these candidates. After a restart each message proves its generation.
    pub(super) fn candidates(&self, candidates: Vec<Candidate>, end: bool) -> Candidates {
        let mut message = Candidates {
            session: self.id,
            generation: self.ice.local,
            credentials: self.ice.credentials.clone(),
            candidates,
            end,
            mac: None,
        };
        if let Some(link) = self.link().filter(|_| message.credentials.is_some()) {
            message.mac = Some(link.keys.mac(MacPurpose::Restart, &message.mac_input()));
        }
        message
    }

    /// When candidates are due; none before the peer knows the description.
    pub(super) fn trickle_deadline(&self) -> Option<Instant> {
        self.trickle.deadline().filter(|_| self.described())
    }
}

fn session_deadline(session: &Session, heard: bool) -> Instant {
    match &session.stage {
        Stage::GatheringOffer { until, .. } | Stage::GatheringAnswer { until, .. } => *until,
        Stage::Offered { repeats, .. } => {
            repeats.next().map_or(session.deadline, |at| session.deadline.min(at))
        }
        Stage::Confirming { next_confirm, .. } => {
            let due = next_confirm.iter().copied().chain(session.probe_at());
            due.fold(session.deadline, Instant::min)
        }
        Stage::Live { pulse, .. } => session.deadline.min(pulse.deadline(heard)),
        _ => session.deadline,
    }
}
