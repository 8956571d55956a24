//! How large the packets of a session are: when a larger size is tried, what proves it, and when it is left
//! (PROTOCOL.md, section 10.8; the terms are those of RFC 8899).
//!
//! The WebRTC stack fixes the size when a connection is made and sends a packet that is too large for the path
//! again for ever. So the first session with a peer has packets that fit every path, and larger ones come with
//! another session, made beside it, that takes over once both ends have seen their largest packets answered. One that
//! fails costs nothing: the first goes on. If the path of a session with larger packets gets smaller, its pings,
//! which are as large, go unanswered, and a session of the first kind takes its place.

use std::time::Instant;

use rand_core::CryptoRngCore;

use super::limits::{
    BASE_PACKET, FALL_PAUSE, PROBE_AGAIN, PROVE_LEAST, PROVE_SLACK, PROVE_TIMEOUT, RAISE_AFTER,
    RAISE_AGAIN, RAISE_GAIN, RAISE_RETRY, RAISE_TRAFFIC,
};
use super::machine::{Machine, SessionKind};
use super::pulse::Pulse;
use super::state::{Session, Stage};
use super::{Event, Output};
use crate::frame::Control;
use crate::signal::SessionId;

/// SCTP packets for paths of 1400, 1472 and 1492 bytes, which tunnels, mobile networks and PPPoE have: sizes that are
/// probed on the way to the largest (as the plateaus of RFC 1191, section 7.1). Few, since a peer may ignore control
/// frames beyond ten a second, and each end has its probes, the other's and a confirm in that.
const STEPS: [u16; 3] = [1312, 1384, 1404];
/// Common header and chunk header of an SCTP packet with one DATA chunk (RFC 9260, sections 3 and 3.3.1), in bytes.
const SCTP_HEADERS: u16 = 28;

/// The frame that fills one SCTP packet of this size. Chunks are padded to a multiple of 4 bytes.
pub(super) const fn frame_size(packet_size: u16) -> u16 {
    packet_size.saturating_sub(SCTP_HEADERS) & !3
}

/// What is known of the path to a peer.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// What the live session's path takes at its beginning; absent where a TURN server carries it.
    room: Option<u16>,
    /// The room turned out to be too large: this is what passed, and until when to believe it.
    passed: Option<(u16, Instant)>,
    /// Not tried before this.
    not_before: Option<Instant>,
    /// The last hello that was to begin it.
    asked: Option<Instant>,
    /// Falls, and attempts that never got to a channel, since a larger size last lasted.
    failures: u32,
}

impl PathMtu {
    /// What to try, if anything.
    fn target(&self, now: Instant) -> Option<u16> {
        let passed = self.passed.filter(|(_, until)| now < *until);
        passed.map(|(size, _)| size).or(self.room)
    }

    /// When, from `at` on, there is something to try that is more than what there is.
    fn worth_it(&self, at: Instant, now_used: u16) -> Option<Instant> {
        let is_more = |at| self.target(at).is_some_and(|size| size >= now_used + RAISE_GAIN);
        let later = self.passed.map(|(_, until)| until.max(at));
        [Some(at), later].into_iter().flatten().find(|at| is_more(*at))
    }

    fn wait(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    /// An attempt that says nothing of the path has failed, or a larger size does not work any more.
    fn failed(&mut self, now: Instant) {
        let pause = FALL_PAUSE * 2_u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause.min(RAISE_AGAIN));
    }
}

/// The proof that a path takes a session's packets, as far as it has come.
#[derive(Debug)]
pub(super) struct Proof {
    /// The largest size of ours that was answered.
    passed: u16,
    /// When the probes went out.
    probed: Option<Instant>,
    /// When the largest is sent again: the peer may have dropped it, or its answer.
    again: Option<Instant>,
    /// The peer's packets pass: it says so with a confirm.
    peer: bool,
}

impl Session {
    /// The session is to have packets of this size, once they are proved.
    fn expect_proof(&mut self, packet_size: u16) {
        self.packet_size = packet_size.max(BASE_PACKET);
        self.proof = Some(Proof { passed: 0, probed: None, again: None, peer: false });
    }

    /// Whether an attempt must prove its packets before it may take over.
    pub(super) const fn must_prove(&self) -> bool {
        self.proof.is_some() && self.pulse().is_none()
    }

    /// Whether its packets may turn out to be too large, and pings have to show that.
    pub(super) const fn is_larger(&self) -> bool {
        self.packet_size > BASE_PACKET
    }

    /// Whether our probes have been on their way for long enough to say that what was not answered does not pass.
    fn is_refuted(&self, now: Instant) -> bool {
        let probed = self.proof.as_ref().and_then(|proof| proof.probed);
        !self.has_proved() && probed.is_some_and(|at| now >= at + PROVE_LEAST)
    }

    /// When its largest probe is due again.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        let again = self.proof.as_ref().and_then(|proof| proof.again);
        again.filter(|_| self.must_prove() && !self.has_proved())
    }

    fn has_proved(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.passed >= self.packet_size)
    }
}

impl<R: CryptoRngCore> Machine<R> {
    /// ICE has chosen a path for a session. `room` is the largest SCTP packet, in bytes, that leaves for it whole;
    /// none where a TURN server carries it.
    pub fn path_chosen(&mut self, now: Instant, id: SessionId, room: Option<u16>) {
        if let Some(session) = self.session_mut(id) {
            session.room = room;
            self.follow_room(now);
        }
        let too_large = |live: &Session| {
            let is_fresh = live.pulse().is_some_and(|pulse| !pulse.narrowed);
            is_fresh && live.is_larger() && live.room.is_some_and(|room| room < live.packet_size)
        };
        // Another path, or a router has said so: nobody needs to wait for pings.
        if self.live.as_ref().is_some_and(too_large) {
            self.path_narrowed(now);
        }
    }

    /// Whether the live session's path takes more than that of the sessions before it is known anew.
    fn follow_room(&mut self, now: Instant) {
        let Some(room) = self.live.as_ref().map(|live| live.room) else {
            return;
        };
        if room != self.path_mtu.room {
            self.path_mtu = PathMtu { room, ..PathMtu::default() };
            self.path_mtu.wait(now + RAISE_AFTER);
        }
    }

    /// The machine's addresses have changed: what was known of the path may be wrong.
    pub(super) fn forget_path(&mut self, now: Instant) {
        self.path_mtu = PathMtu { room: self.path_mtu.room, ..PathMtu::default() };
        self.path_mtu.wait(now + RAISE_AFTER);
    }

    /// When a session with larger packets is to be tried; `None` while there is no reason.
    ///
    /// Only who offers judges, and only while packets flow: nothing is woken for it.
    pub(super) fn raise_at(&self) -> Option<Instant> {
        let live = self.live.as_ref()?;
        let pulse = live.pulse().filter(|pulse| pulse.dead_since.is_none() && !pulse.narrowed)?;
        let able = self.settings.capabilities.path_mtu && live.link()?.peer.capabilities.path_mtu;
        let may = able
            && self.offers
            && self.wanted
            && self.is_heard()
            && self.settings.kind == SessionKind::Direct
            && self.pending.by_inbox().is_none()
            && live.ice.local == live.ice.remote;
        let at = self.path_mtu.not_before.filter(|_| may)?;
        let at = self.path_mtu.worth_it(at, live.packet_size)?;
        let used = pulse.last_sent.is_some_and(|sent| sent + RAISE_TRAFFIC >= at);
        used.then_some(at)
    }

    /// Asks the peer for a hello that can be answered by an offer of larger packets.
    pub(super) fn drive_raise(&mut self, now: Instant) {
        if self.raise_at().is_some_and(|at| at <= now) {
            self.path_mtu.not_before = Some(now + RAISE_RETRY);
            if !self.is_silent(now) {
                self.path_mtu.asked = Some(now);
                self.ask_for_renewal(now);
            }
        }
    }

    /// The size of the packets to offer, in the answer to a hello that names the live session. Asked for once.
    pub(super) fn take_raise(&mut self, now: Instant) -> Option<u16> {
        let asked = self.path_mtu.asked.take()?;
        let live = self.live.as_ref().filter(|_| now < asked + RAISE_RETRY)?;
        self.path_mtu.worth_it(now, live.packet_size).filter(|at| *at <= now)?;
        self.path_mtu.target(now).filter(|_| !self.is_silent(now))
    }

    /// Whether a hello of the peer that names the live session is answered by an offer of larger packets.
    pub(super) fn raise_due(&self, now: Instant) -> bool {
        self.pending.by_inbox().is_none()
            && self.path_mtu.asked.is_some_and(|asked| now < asked + RAISE_RETRY)
    }

    /// An attempt is one for packets of this size.
    pub(super) fn expect_proof(&mut self, id: SessionId, packet_size: u16) {
        if let Some(session) = self.pending.get_mut(id) {
            session.expect_proof(packet_size);
        }
    }

    /// The peer offers packets of this size. Ours are as large, if our side of the path takes that.
    pub(super) fn follow_raise(&mut self, now: Instant, id: SessionId, offered: u16) {
        if self.settings.capabilities.path_mtu && offered > BASE_PACKET {
            let own = self.path_mtu.target(now).unwrap_or(BASE_PACKET);
            self.expect_proof(id, offered.min(own));
        }
    }

    /// Sends the probes of an attempt, the smallest first: what passes is known before the first that does not
    /// holds up all that follow.
    pub(super) fn send_probes(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        let size = session.packet_size;
        let Some(proof) = session.proof.as_mut().filter(|proof| proof.probed.is_none()) else {
            return;
        };
        proof.probed = Some(now);
        proof.again = Some(now + PROBE_AGAIN);
        session.deadline = now + PROVE_TIMEOUT;
        let steps = STEPS.into_iter().filter(|step| *step < size).chain([size]);
        for step in steps {
            let probe = Control::PathProbe { size: frame_size(step) };
            self.emit(Output::SendControl(id, probe));
        }
    }

    /// Sends the largest probe of an attempt again, when it is time.
    pub(super) fn repeat_probe(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        let is_due = session.probe_at().is_some_and(|at| at <= now) && now < session.deadline;
        let size = frame_size(session.packet_size);
        if let Some(proof) = session.proof.as_mut().filter(|_| is_due) {
            proof.again = Some(now + PROBE_AGAIN);
            self.emit(Output::SendControl(id, Control::PathProbe { size }));
        }
    }

    /// A control frame of an attempt that must prove its packets.
    pub(super) fn on_proof(&mut self, now: Instant, id: SessionId, control: &Control<'_>) {
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        let (before, own) = (session.has_proved(), session.packet_size);
        let Some(proof) = &mut session.proof else {
            return;
        };
        match *control {
            Control::ProbeAnswer { size } => {
                let answered = STEPS.into_iter().chain([own]).filter(|it| frame_size(*it) == size);
                proof.passed = answered.fold(proof.passed, u16::max);
            }
            Control::Confirm => proof.peer = true,
            _ => return,
        }
        let peer = proof.peer;
        match (session.has_proved(), peer) {
            (true, true) => {
                if !session.offerer {
                    self.emit(Output::SendControl(id, Control::Confirm));
                }
                self.take_over(now, id);
            }
            (true, false) if !before => self.confirm_packets(now, id),
            // One after the other: what does not pass would hold up the answers to the other's probes too.
            (false, true) => self.send_probes(now, id),
            _ => {}
        }
    }

    /// Our packets pass: the peer is told, and has as long as we had.
    fn confirm_packets(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.pending.get_mut(id).filter(|session| session.offerer) else {
            return;
        };
        session.deadline = now + PROVE_TIMEOUT + PROVE_SLACK;
        if let Stage::Confirming { next_confirm, .. } = &mut session.stage {
            *next_confirm = Some(now);
        }
        self.drive_attempt(now, id);
    }

    /// An attempt for larger packets is over without a session.
    pub(super) fn raise_failed(&mut self, now: Instant, session: &Session) {
        let size = session.packet_size;
        let base = self.live.as_ref().map_or(BASE_PACKET, |live| live.packet_size);
        let passed = session.proof.as_ref().map_or(0, |proof| proof.passed);
        if !session.is_refuted(now) {
            // Something else, or the peer's packets did not pass. Next time it will send smaller ones, so that comes
            // soon, but soon only once.
            let is_first = self.path_mtu.failures == 0;
            self.path_mtu.failed(now);
            if session.has_proved() && is_first {
                self.path_mtu.not_before = Some(now + RAISE_AFTER);
            }
            return;
        }
        let passed = passed.max(base);
        self.path_mtu.passed = Some((passed, now + RAISE_AGAIN));
        self.path_mtu.not_before = Some(now + RAISE_AFTER);
        self.emit(Output::Event(Event::LargerRefused { size, passed }));
    }

    /// A session has taken over.
    pub(super) fn size_taken(&mut self, now: Instant) {
        let Some(live) = &self.live else { return };
        let (size, is_proved) = (live.packet_size, live.proof.is_some());
        self.follow_room(now);
        self.path_mtu.wait(now + RAISE_AFTER);
        if is_proved {
            self.emit(Output::Event(Event::LargerPackets { size }));
        }
    }

    /// Pings that are as large as the session's packets go unanswered: the path may have become smaller.
    pub(super) fn path_narrowed(&mut self, now: Instant) {
        let Some(pulse) = self.live.as_mut().and_then(Session::pulse_mut) else {
            return;
        };
        pulse.narrowed = true;
        let lasted = now.saturating_duration_since(pulse.since) >= RAISE_AGAIN;
        if lasted {
            self.path_mtu.failures = 0;
        }
        self.path_mtu.failed(now);
        self.emit(Output::Event(Event::PathNarrowed));
        if self.signaling && self.wanted {
            self.backoff.reset();
            self.say_hello(now);
            self.schedule_hello(now);
        }
    }

    /// Whether the live session's path has just turned out to be smaller than its packets.
    pub(super) fn is_narrowing(&self, now: Instant) -> bool {
        self.live.as_ref().is_some_and(|session| {
            let silent = |pulse: &Pulse| !pulse.narrowed && pulse.is_silent(now);
            session.is_larger() && session.pulse().is_some_and(silent)
        })
    }
}
