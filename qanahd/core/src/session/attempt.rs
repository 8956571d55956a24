//! From an offer to an open channel whose keys are confirmed.

use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;

use super::limits::{
    BASE_PACKET, CONFIRM_INTERVAL, CONFIRM_TIMEOUT, CONNECT_TIMEOUT, DESCRIBE_TIMEOUT,
    DESCRIPTION_WINDOW, GATHER_BY_HAND, OFFER_LIFETIME, RAISE_CONNECT,
};
use super::machine::{Machine, SessionKind};
use super::state::{Answered, Link, Peer, Repeats, Session, Stage, Way};
use super::{Output, RtcCommand};
use crate::frame::Control;
use crate::handshake::{HandshakeError, Initiator, Responder};
use crate::signal::{
    Answer, Candidate, Challenge, Description, Message, Offer, RtcDescription, SessionId,
};

impl<R: CryptoRngCore> Machine<R> {
    /// `packet_size`: larger packets than those that fit every path, to be proved.
    pub(super) fn begin_offer(&mut self, now: Instant, echo: Challenge, packet_size: Option<u16>) {
        let id = SessionId::random(&mut self.rng);
        let stage = Stage::DescribingOffer { echo: Some(echo) };
        self.begin(now, id, self.way(), stage);
        if let Some(size) = packet_size {
            self.expect_proof(id, size);
        }
        match self.settings.kind {
            SessionKind::Direct => {
                let packet_size = packet_size.unwrap_or(BASE_PACKET);
                self.emit(Output::Rtc(id, RtcCommand::Offer { patience: None, packet_size }));
            }
            SessionKind::Relayed => self.describe_itself(now, id),
        }
    }

    /// How offers and answers travel by the inboxes.
    fn way(&self) -> Way {
        match self.settings.kind {
            SessionKind::Direct => Way::Broker,
            SessionKind::Relayed => Way::Relay,
        }
    }

    /// Where there is no data channel, there is nothing to describe and to wait for.
    fn describe_itself(&mut self, now: Instant, id: SessionId) {
        self.gather(id, None, now);
        self.send_description(now, id);
    }

    /// Adds an attempt, in the place of an older one of its kind.
    pub(super) fn begin(&mut self, now: Instant, id: SessionId, way: Way, stage: Stage) {
        let offerer = matches!(stage, Stage::DescribingOffer { .. });
        if let Some(rival) = self.pending.rival(way, offerer) {
            self.fail_attempt(now, rival, "a newer attempt took its place");
        }
        let index = self.rng.next_u32();
        let mut session = Session::new(id, way, stage, now, now + DESCRIBE_TIMEOUT, index);
        session.replaces = self.live.as_ref().map(|live| live.id);
        self.pending.put(session);
    }

    pub(super) fn on_offer(&mut self, now: Instant, offer: Offer) {
        if self.answered.as_ref().is_some_and(|answered| answered.offer == offer) {
            if self.fresh_replies.take(now) {
                self.repeat_answer();
            }
            return;
        }
        if self.offers || self.knows(offer.session) || offer.echo != Some(self.challenge) {
            self.refused += 1;
            return;
        }
        let Ok(rtc) = self.read_offer(now, self.way(), &offer) else {
            self.refused += 1;
            return;
        };
        // Used up: the same offer replayed later finds another challenge.
        self.challenge = Challenge::random(&mut self.rng);
        let id = offer.session;
        self.answered = Some(Answered { offer, answer: None });
        match rtc {
            Some(remote) => {
                if let Some(offered) = remote.packet_size {
                    self.follow_raise(now, id, offered);
                }
                let packet_size = self.pending.get(id).map_or(BASE_PACKET, |it| it.packet_size);
                let remote = Box::new(remote);
                let answer = RtcCommand::Answer { remote, patience: None, packet_size };
                self.emit(Output::Rtc(id, answer));
            }
            None => self.describe_itself(now, id),
        }
    }

    /// Begins to answer an offer whose Noise message opens, and says what it describes.
    pub(super) fn read_offer(
        &mut self,
        now: Instant,
        way: Way,
        offer: &Offer,
    ) -> Result<Option<RtcDescription>, HandshakeError> {
        let id = offer.session;
        if self.knows(id) {
            return Err(HandshakeError::Finished);
        }
        let (responder, remote) = Responder::read(self.identity(), way.mode(), id, &offer.noise)?;
        let peer = Peer::from(&remote);
        let stage = Stage::DescribingAnswer { responder: Box::new(responder), remote: peer };
        self.begin(now, id, way, stage);
        if let (Some(session), Some(rtc)) = (self.pending.get_mut(id), &remote.rtc) {
            session.taken.clone_from(&rtc.candidates);
        }
        Ok(remote.rtc)
    }

    pub(super) fn repeat_offer(&mut self) {
        if let Some(session) = self.pending.by_inbox()
            && let Stage::Offered { offer, .. } = &session.stage
        {
            let offer = Message::Offer(offer.clone());
            let candidates = session.all_candidates();
            self.emit(Output::Send(offer));
            candidates.into_iter().for_each(|message| self.emit(message));
        }
    }

    fn repeat_answer(&mut self) {
        let Some(answer) = self.answered.as_ref().and_then(|answered| answered.answer.clone())
        else {
            return;
        };
        let candidates = self.session(answer.session).and_then(Session::all_candidates);
        self.emit(Output::Send(Message::Answer(answer)));
        candidates.into_iter().for_each(|message| self.emit(message));
    }

    /// The WebRTC stack has made its description of a session. Candidates are filled in here.
    pub fn described(&mut self, now: Instant, id: SessionId, rtc: RtcDescription) {
        let Some(session) = self.pending.get(id) else {
            return;
        };
        let by_hand = session.way.is_by_hand();
        let window = if by_hand { GATHER_BY_HAND } else { DESCRIPTION_WINDOW };
        self.gather(id, Some(rtc), now + window);
        self.drive_attempt(now, id);
    }

    /// Waits for candidates that can travel in the description.
    fn gather(&mut self, id: SessionId, rtc: Option<RtcDescription>, until: Instant) {
        let capabilities = self.settings.capabilities;
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        let packet_size = session.proof.is_some().then_some(session.packet_size);
        let rtc = rtc.map(|rtc| RtcDescription { packet_size, ..rtc });
        let local = Box::new(Description { index: session.index, capabilities, rtc });
        session.deadline = until;
        session.stage = match session.take_stage() {
            Stage::DescribingOffer { echo } => Stage::GatheringOffer { echo, local, until },
            Stage::DescribingAnswer { responder, remote } => {
                Stage::GatheringAnswer { responder, remote, local, until }
            }
            other => other,
        };
    }

    pub(super) fn drive_attempts(&mut self, now: Instant) {
        for id in self.pending.ids() {
            self.drive_attempt(now, id);
        }
    }

    pub(super) fn drive_attempt(&mut self, now: Instant, id: SessionId) {
        self.repeat_probe(now, id);
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        let way = session.way;
        match &mut session.stage {
            Stage::GatheringOffer { until, .. } | Stage::GatheringAnswer { until, .. }
                if *until <= now || session.trickle.complete() =>
            {
                self.send_description(now, id);
            }
            Stage::GatheringOffer { .. } | Stage::GatheringAnswer { .. } => {}
            Stage::Offered { repeats, .. }
                if now < session.deadline && repeats.next().is_some_and(|at| at <= now) =>
            {
                repeats.done += 1;
                self.repeat_offer();
            }
            Stage::Confirming { next_confirm: Some(at), .. }
                if *at <= now && now < session.deadline =>
            {
                *at = now + CONFIRM_INTERVAL;
                self.emit(Output::SendControl(id, Control::Confirm));
            }
            stage if session.deadline <= now => {
                let reason = match stage {
                    Stage::DescribingOffer { .. } | Stage::DescribingAnswer { .. } => {
                        "the WebRTC stack made no description in time"
                    }
                    Stage::Offered { .. } if way.is_by_hand() => "the offer by hand has expired",
                    Stage::Offered { .. } => "no answer to the offer",
                    Stage::Confirming { .. } => {
                        "the channel opened but its keys were not confirmed"
                    }
                    _ => "no path found (ICE, DTLS or SCTP did not finish in time)",
                };
                self.fail_attempt(now, id, reason);
            }
            _ => {}
        }
    }

    fn send_description(&mut self, now: Instant, id: SessionId) {
        let Some(mut session) = self.pending.take(id) else {
            return;
        };
        let local = session.trickle.take_for_description();
        let by_hand = session.way.is_by_hand();
        let sealed = match session.take_stage() {
            _ if by_hand && local.is_empty() => Err("no address was found to be reached at".into()),
            Stage::GatheringOffer { echo, local: description, .. } => self
                .send_offer(now, &mut session, echo, with(*description, local))
                .map_err(|error| error.to_string()),
            Stage::GatheringAnswer { responder, remote, local: description, .. } => self
                .send_answer(now, &mut session, *responder, remote, &with(*description, local))
                .map_err(|error| error.to_string()),
            other => {
                session.stage = other;
                Ok(())
            }
        };
        // A session by a relay needs no channel: when both sides are described, it is there.
        let is_ready = session.way == Way::Relay && session.link().is_some();
        self.pending.put(session);
        match sealed {
            Err(error) => self.fail_attempt(now, id, &error),
            Ok(()) if is_ready => self.channel_open(now, id),
            Ok(()) => {}
        }
    }

    fn send_offer(
        &mut self,
        now: Instant,
        session: &mut Session,
        echo: Option<Challenge>,
        local: Description,
    ) -> Result<(), HandshakeError> {
        let way = session.way;
        let (initiator, noise) = Initiator::start(self.identity(), way.mode(), session.id, &local)?;
        let lifetime = way.patience().map(|lifetime| lifetime.as_secs());
        let lifetime = lifetime.and_then(|seconds| u32::try_from(seconds).ok());
        let offer = Offer { session: session.id, echo, lifetime, noise };
        let message = Message::Offer(offer.clone());
        let repeats = match way {
            Way::Broker | Way::Relay => {
                self.emit(Output::Send(message));
                session.deadline = now + OFFER_LIFETIME;
                Repeats::from(now)
            }
            Way::Hand { lifetime } => {
                self.emit(Output::ByHand(session.id, message));
                session.deadline = now + lifetime;
                Repeats::none(now)
            }
        };
        session.stage = Stage::Offered { initiator: Box::new(initiator), offer, repeats };
        Ok(())
    }

    fn send_answer(
        &mut self,
        now: Instant,
        session: &mut Session,
        responder: Responder,
        peer: Peer,
        local: &Description,
    ) -> Result<(), HandshakeError> {
        let (keys, noise) = responder.finish(local)?;
        let answer = Answer { session: session.id, noise };
        session.deadline = now + session.connect_timeout();
        match session.way {
            Way::Broker | Way::Relay => {
                if let Some(answered) =
                    self.answered.as_mut().filter(|answered| answered.offer.session == session.id)
                {
                    answered.answer = Some(answer.clone());
                }
                self.emit(Output::Send(Message::Answer(answer)));
            }
            Way::Hand { lifetime } => {
                self.emit(Output::ByHand(session.id, Message::Answer(answer)));
                session.deadline += lifetime;
            }
        }
        session.stage = Stage::Connecting { link: Link { keys, peer, born: now } };
        Ok(())
    }

    pub(super) fn on_answer(&mut self, now: Instant, answer: &Answer) {
        let by_inbox = |session: &Session| !session.way.is_by_hand();
        let known = self.pending.get(answer.session).is_some_and(by_inbox);
        if !known || self.read_answer(now, answer).is_err() {
            self.refused += 1;
        }
    }

    /// Goes on with the attempt that an answer belongs to, if its Noise message opens.
    pub(super) fn read_answer(
        &mut self,
        now: Instant,
        answer: &Answer,
    ) -> Result<(), HandshakeError> {
        let id = answer.session;
        let Some(session) = self.pending.get_mut(id) else {
            return Err(HandshakeError::Finished);
        };
        let Stage::Offered { initiator, .. } = &mut session.stage else {
            return Err(HandshakeError::Finished);
        };
        let (keys, remote) = match initiator.finish(&answer.noise) {
            Ok(finished) => finished,
            Err(error) => {
                // The peer itself said nonsense: the true answer will not come any more.
                if matches!(error, HandshakeError::Description(_)) {
                    self.fail_attempt(now, id, &error.to_string());
                }
                return Err(error);
            }
        };
        let link = Link { keys, peer: Peer::from(&remote), born: now };
        session.stage = Stage::Connecting { link };
        session.deadline = now + session.connect_timeout();
        let Some(rtc) = remote.rtc else {
            self.channel_open(now, id);
            return Ok(());
        };
        session.taken.clone_from(&rtc.candidates);
        let early = std::mem::take(&mut session.early);
        let candidates = session.take_candidates(early);
        self.emit(Output::Rtc(id, RtcCommand::AcceptAnswer(Box::new(rtc))));
        if !candidates.is_empty() {
            let add = RtcCommand::AddCandidates { generation: 0, candidates };
            self.emit(Output::Rtc(id, add));
        }
        Ok(())
    }

    /// The data channel of a session is open, or it needs none. That proves nothing yet: the keys must be confirmed.
    pub fn channel_open(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.pending.get_mut(id) else {
            return;
        };
        match session.take_stage() {
            Stage::Connecting { mut link } => {
                if let Way::Hand { .. } = session.way {
                    // The answer may have been on its way for an hour: the keys age from their
                    // first use.
                    link.born = now;
                }
                let install = link.install(session.index);
                // A confirm says that our packets pass, where that is to be proved.
                let must_prove = session.proof.is_some();
                let probes = must_prove && session.offerer;
                let next_confirm = (session.offerer && !must_prove).then_some(now);
                session.stage = Stage::Confirming { link, next_confirm };
                session.deadline = now + CONFIRM_TIMEOUT;
                let Some(install) = install else {
                    return self.fail_attempt(now, id, "the channel opened twice");
                };
                self.emit(Output::Install(id, install));
                if probes {
                    self.send_probes(now, id);
                }
                self.drive_attempt(now, id);
            }
            other => session.stage = other,
        }
    }
}

impl Session {
    /// How long it may take until the channel is open. Where a session works already, a shorter time is enough.
    const fn connect_timeout(&self) -> Duration {
        if self.must_prove() { RAISE_CONNECT } else { CONNECT_TIMEOUT }
    }
}

fn with(mut description: Description, candidates: Vec<Candidate>) -> Description {
    if let Some(rtc) = &mut description.rtc {
        rtc.candidates = candidates;
    }
    description
}
