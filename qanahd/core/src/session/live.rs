//! A session that works: pings, dead paths, ICE restarts, renewal and replacement.

use std::time::Instant;

use rand_core::CryptoRngCore;

use super::limits::{
    DEAD_GRACE, PATH_DEAD, RENEW_AFTER, RENEW_ASK_AFTER, RENEW_RETRY, RESTART_GRACE, RETIRE_AFTER,
};
use super::machine::{Machine, SessionKind};
use super::pace::jittered;
use super::path_mtu::frame_size;
use super::pulse::Pulse;
use super::state::{Session, Stage};
use super::trickle::Trickle;
use super::{Event, Output, RtcCommand};
use crate::frame::Control;
use crate::handshake::MacPurpose;
use crate::signal::{Candidates, IceCredentials, SessionId};

/// An ICE generation may be so far ahead of the last that was heard of. A larger step is no honest
/// peer's, and would bring the counter to its end.
const MAX_RESTARTS_MISSED: u32 = 64;
/// Replaced sessions that may still receive. More at once means that sessions die young.
const MAX_RETIRING: usize = 2;

impl<R: CryptoRngCore> Machine<R> {
    /// The data path has opened its first frame of a session under the keys with this local index:
    /// the keys are confirmed, and packets go this way from now on.
    pub fn opened(&mut self, now: Instant, id: SessionId, index: u32) {
        self.keys_opened(id, index);
        self.session_opened(now, id);
    }

    fn session_opened(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.pending.get(id) else {
            return;
        };
        if session.must_prove() {
            // It takes over when its packets were seen to pass.
            return;
        }
        self.take_over(now, id);
    }

    /// An attempt is confirmed: it becomes a session.
    pub(super) fn take_over(&mut self, now: Instant, id: SessionId) {
        let confirming = |session: &Session| matches!(session.stage, Stage::Confirming { .. });
        if !self.pending.get(id).is_some_and(confirming) {
            return;
        }
        let Some(mut session) = self.pending.take(id) else {
            return;
        };
        if let Stage::Confirming { link, .. } = session.take_stage() {
            session.deadline = link.expiry();
            let padding = session.is_larger().then(|| frame_size(session.packet_size));
            let pulse = Pulse::new(now, self.renewal_at(link.born)).padded(padding);
            session.stage = Stage::Live { link, pulse };
            self.confirmed(now, session);
        }
    }

    /// A session was confirmed. It takes over, unless another one was confirmed since it began:
    /// of those two the lower id stays, at both ends.
    fn confirmed(&mut self, now: Instant, session: Session) {
        let rival = self
            .live
            .as_ref()
            .filter(|live| session.replaces != Some(live.id) && !live.is_dead())
            .map(|live| live.id);
        if rival.is_some_and(|rival| rival < session.id) {
            return self.dismiss(&session);
        }
        if let Some(old) = self.go_live(now, session) {
            if rival.is_some() {
                self.dismiss(&old);
            } else {
                self.retire(now, old);
            }
        }
    }

    /// When to have a session replaced whose keys were made then.
    pub(super) fn renewal_at(&self, born: Instant) -> Instant {
        born + if self.offers { RENEW_AFTER } else { RENEW_ASK_AFTER }
    }

    /// Makes this session the one that takes packets, and returns the one before.
    fn go_live(&mut self, now: Instant, session: Session) -> Option<Session> {
        let id = session.id;
        let replaced = self.live.replace(session);
        self.emit(Output::Activate(id));
        self.emit(Output::Event(Event::Connected { session: id, replaced: replaced.is_some() }));
        self.next_hello = None;
        self.backoff.reset();
        self.failure = None;
        self.stop_asking();
        self.plan_better(now);
        self.size_taken(now);
        self.ping(now);
        replaced
    }

    /// What is still on its way by a replaced session shall arrive.
    fn retire(&mut self, now: Instant, mut old: Session) {
        old.deadline = old.deadline.min(now + RETIRE_AFTER);
        old.retired = Some(now);
        self.drop_former_keys(&mut old);
        self.retiring.push(old);
        if self.retiring.len() > MAX_RETIRING {
            let oldest = self.retiring.remove(0);
            self.emit(Output::Rtc(oldest.id, RtcCommand::Close));
        }
    }

    /// When the data path last sent a packet by a session, if it did. Call it before [`Machine::timeout`]
    /// and when packets begin to flow: who sends is interested in answers.
    pub fn last_sent(&mut self, now: Instant, id: SessionId, at: Option<Instant>) {
        let session = self.live.as_mut().filter(|session| session.id == id);
        if let Some(pulse) = session.and_then(Session::pulse_mut) {
            pulse.last_sent = pulse.last_sent.max(at);
            pulse.looked_at = now;
        }
    }

    /// The frames of the live session take another way from now on: what is known of the former one
    /// does not count.
    pub fn way_changed(&mut self, now: Instant) {
        if let Some(pulse) = self.live.as_mut().and_then(Session::pulse_mut) {
            pulse.forget_pings();
            self.ping(now);
        }
    }

    /// Asks the peer whether it hears us, unless that was done just now.
    pub fn ask(&mut self, now: Instant) {
        let pulse = self.live.as_ref().and_then(Session::pulse);
        if pulse.is_some_and(|pulse| pulse.may_ask(now)) {
            self.ping(now);
        }
    }

    /// When the data path last opened a frame of a session. Call it before
    /// [`Machine::timeout`], so that a busy session is not asked whether it lives.
    pub fn last_opened(&mut self, id: SessionId, at: Instant) {
        let Some(session) = self.live.as_mut().filter(|session| session.id == id) else {
            return;
        };
        let Some(pulse) = session.pulse_mut() else {
            return;
        };
        pulse.last_opened = pulse.last_opened.max(at);
        if pulse.dead_since.is_some_and(|since| since < at) {
            pulse.dead_since = None;
            self.next_hello = None;
            self.backoff.reset();
            self.emit(Output::Event(Event::PathRestored));
            self.plan_better(at);
        }
    }

    /// A control frame of a session, opened.
    pub fn control(&mut self, now: Instant, id: SessionId, control: &Control<'_>) {
        self.session_opened(now, id);
        self.last_opened(id, now);
        let proves = self.pending.get(id).is_some_and(Session::must_prove);
        match control {
            Control::Confirm | Control::ProbeAnswer { .. } if proves => {
                self.on_proof(now, id, control);
            }
            // The answerer confirms back, each time: the first may have been lost.
            Control::Confirm if self.session(id).is_some_and(|session| !session.offerer) => {
                self.emit(Output::SendControl(id, Control::Confirm));
            }
            Control::Ping(value) | Control::PaddedPing { value, .. } => {
                self.emit(Output::SendControl(id, Control::Pong(*value)));
            }
            Control::PathProbe { size } => {
                self.emit(Output::SendControl(id, Control::ProbeAnswer { size: *size }));
            }
            Control::Pong(value) => self.on_pong(now, id, *value),
            Control::Close => self.closed(now, id, "the peer closed the session"),
            _ => {}
        }
    }

    fn on_pong(&mut self, now: Instant, id: SessionId, value: u64) {
        let Some(session) = self.live.as_mut().filter(|session| session.id == id) else {
            return;
        };
        let Some(pulse) = session.pulse_mut() else {
            return;
        };
        pulse.ponged(now, value);
    }

    pub(super) fn ping(&mut self, now: Instant) {
        let value = self.rng.next_u64();
        let Some(session) = &mut self.live else {
            return;
        };
        let id = session.id;
        if let Some(pulse) = session.pulse_mut() {
            pulse.pinged(now, value);
            let ping = match pulse.padding(now) {
                Some(size) => Control::PaddedPing { value, size },
                None => Control::Ping(value),
            };
            self.emit(Output::SendControl(id, ping));
        }
    }

    pub(super) fn drive_live(&mut self, now: Instant) {
        if let Some(pulse) = self.live.as_mut().and_then(Session::pulse_mut) {
            pulse.looked_at = now;
        }
        if self.is_narrowing(now) {
            self.path_narrowed(now);
        }
        let Some(session) = &self.live else { return };
        if session.deadline <= now {
            return self.lose_live(now, "the keys reached the end of their life");
        }
        let Some(pulse) = session.pulse() else { return };
        let age = |at: Instant| now.saturating_duration_since(at);
        let quiet = age(pulse.last_opened);
        let dead_for = pulse.dead_since.map(age);
        if pulse.next_ping() <= now {
            self.ping(now);
        }
        match dead_for {
            None if quiet >= PATH_DEAD => self.path_died(now, self.is_heard()),
            // Who is not heard gets nothing better: the path may still come back, while the keys live.
            Some(dead) if dead >= DEAD_GRACE && self.is_heard() => {
                self.lose_live(now, "nothing heard from the peer");
            }
            _ => {
                self.renew(now);
                self.drive_raise(now);
            }
        }
    }

    /// `restart`: an ICE restart is worth it. It gives the old path up for good, so the peer must be able to hear
    /// of it.
    fn path_died(&mut self, now: Instant, restart: bool) {
        let Some(pulse) = self.live.as_mut().and_then(Session::pulse_mut) else {
            return;
        };
        pulse.dead_since = Some(now);
        self.emit(Output::Event(Event::PathLost));
        if restart && self.settings.kind == SessionKind::Direct {
            self.restart_ice();
        }
        // A new session is sought beside the restart, a little later.
        self.backoff.reset();
        self.next_hello = (self.signaling && self.wanted).then_some(now + RESTART_GRACE);
    }

    fn renew(&mut self, now: Instant) {
        let pause = jittered(RENEW_RETRY, &mut self.rng);
        let Some(pulse) = self.live.as_mut().and_then(Session::pulse_mut) else {
            return;
        };
        if pulse.next_renewal <= now {
            pulse.next_renewal = now + pause;
            if self.pending.by_inbox().is_none() && self.signaling {
                self.ask_for_renewal(now);
            }
        }
    }

    /// The machine's addresses have changed. `path_gone` says that the live session's path began at
    /// one that is no more: then nothing is waited for. Who is not connected tries at once.
    pub fn network_changed(&mut self, now: Instant, path_gone: bool) {
        self.forget_path(now);
        let connected = self.live.as_ref().is_some_and(|session| !session.is_dead());
        if connected && path_gone {
            // There is nothing to lose.
            self.path_died(now, self.signaling);
        } else if connected {
            self.hurry_better(now);
        } else if !connected && self.signaling && self.wanted {
            self.backoff.reset();
            self.say_hello(now);
            self.schedule_hello(now);
        }
    }

    /// Looks for another path for the live session.
    fn restart_ice(&mut self) {
        let Some(session) = &mut self.live else {
            return;
        };
        let Some(generation) = session.ice.local.checked_add(1) else {
            return;
        };
        if session.ice.local != session.ice.remote {
            return;
        }
        session.ice.local = generation;
        session.ice.credentials = None;
        session.trickle = Trickle::default();
        let id = session.id;
        self.emit(Output::Rtc(id, RtcCommand::BeginRestart { generation }));
    }

    /// The WebRTC stack could not begin an ICE restart, or not follow one.
    pub fn restart_failed(&mut self, id: SessionId, generation: u32) {
        let session = self.live.as_mut().filter(|it| it.id == id);
        if let Some(session) = session.filter(|it| it.ice.local == generation) {
            // The next one may work: an address was missing for a moment.
            session.ice.local = session.ice.remote.max(generation.saturating_sub(1));
            session.ice.remote = session.ice.local;
            session.ice.credentials = None;
        }
    }

    /// ICE has given a session's path up, long before the machine would miss anything.
    pub fn path_failed(&mut self, now: Instant, id: SessionId) {
        if self.pending.get(id).is_some() {
            self.fail_attempt(now, id, "no path found (ICE tried all candidates)");
        } else if self.live.as_ref().is_some_and(|it| it.id == id && !it.is_dead()) {
            self.path_died(now, self.is_heard());
        }
    }

    /// The peer may have missed our part of an ICE restart: there was no broker then.
    pub(super) fn announce_restart(&mut self, now: Instant) {
        let halfway =
            |it: &&mut Session| it.ice.local != it.ice.remote && it.ice.credentials.is_some();
        if let Some(session) = self.live.as_mut().filter(halfway) {
            session.trickle.announce(now);
            self.flush_candidates(now);
        }
    }

    /// The WebRTC stack has made its credentials for an ICE restart.
    pub fn restarted(
        &mut self,
        now: Instant,
        id: SessionId,
        generation: u32,
        credentials: IceCredentials,
    ) {
        let session = self.live.as_mut().filter(|it| it.id == id);
        if let Some(session) = session.filter(|it| it.ice.local == generation) {
            session.ice.credentials = Some(credentials);
            session.trickle.announce(now);
            self.flush_candidates(now);
        }
    }

    pub(super) fn on_candidates(&mut self, message: Candidates) {
        if message.generation == 0 {
            return self.on_first_candidates(message);
        }
        let genuine = self.follow_restart(&message);
        let current = self
            .live
            .as_ref()
            .is_some_and(|it| it.id == message.session && it.ice.remote == message.generation);
        if genuine && current {
            self.add_candidates(message);
        } else {
            self.refused += 1;
        }
    }

    /// Enters the generation that a message with credentials begins. False if it is forged.
    fn follow_restart(&mut self, message: &Candidates) -> bool {
        let Some(credentials) = &message.credentials else {
            return false;
        };
        let id = message.session;
        let Some(session) = self.live.as_mut().filter(|it| it.id == id) else {
            return false;
        };
        let genuine = message
            .mac
            .is_some_and(|mac| session.verify(MacPurpose::Restart, &message.mac_input(), &mac));
        if !genuine || message.generation <= session.ice.remote {
            return genuine;
        }
        if message.generation - session.ice.remote > MAX_RESTARTS_MISSED {
            return false;
        }
        let (generation, credentials) = (message.generation, credentials.clone());
        session.ice.remote = generation;
        session.taken.clear();
        let command = if session.ice.local == generation {
            RtcCommand::FinishRestart { generation, credentials }
        } else {
            session.ice.local = generation;
            session.ice.credentials = None;
            session.trickle = Trickle::default();
            RtcCommand::AnswerRestart { generation, credentials }
        };
        self.emit(Output::Rtc(id, command));
        true
    }
}
