//! Local candidates on their way to the peer (trickle ICE, RFC 8838).

use std::time::Instant;

use rand_core::CryptoRngCore;

use super::limits::{CANDIDATE_WINDOW, MAX_CANDIDATES};
use super::machine::Machine;
use super::state::{Session, Stage};
use super::{Output, RtcCommand};
use crate::signal::{Candidate, Candidates, Message, SessionId};

/// What was found so far in one ICE generation, and how much of it the peer was told.
#[derive(Debug, Default)]
pub(super) struct Trickle {
    found: Vec<Candidate>,
    told: usize,
    complete: bool,
    told_complete: bool,
    flush_at: Option<Instant>,
    announced: bool,
}

impl Trickle {
    /// Notes a candidate; duplicates and those beyond the limit are dropped.
    pub(super) fn add(&mut self, now: Instant, candidate: Candidate) {
        if self.found.len() < MAX_CANDIDATES && !self.found.contains(&candidate) {
            self.found.push(candidate);
            self.schedule(now);
        }
    }

    /// Notes that no more will come.
    pub(super) fn finish(&mut self, now: Instant) {
        if !self.complete {
            self.complete = true;
            self.schedule(now);
        }
    }

    /// Tells the peer at once, even if there is no candidate yet: new credentials cannot wait.
    pub(super) fn announce(&mut self, now: Instant) {
        self.announced = true;
        self.flush_at = Some(now);
    }

    fn schedule(&mut self, now: Instant) {
        self.flush_at.get_or_insert(now + CANDIDATE_WINDOW);
    }

    pub(super) const fn complete(&self) -> bool {
        self.complete
    }

    /// When there is something to tell.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Takes everything found so far for a description.
    pub(super) fn take_for_description(&mut self) -> Vec<Candidate> {
        self.told = self.found.len();
        self.flush_at = None;
        self.found.clone()
    }

    /// Takes what the peer was not told yet: candidates, and whether they are the last.
    pub(super) fn take_untold(&mut self) -> Option<(Vec<Candidate>, bool)> {
        self.flush_at = None;
        let untold = self.found.get(self.told..).unwrap_or_default().to_vec();
        let finished = self.complete && !self.told_complete;
        if untold.is_empty() && !finished && !std::mem::take(&mut self.announced) {
            return None;
        }
        self.announced = false;
        self.told = self.found.len();
        self.told_complete = self.complete;
        Some((untold, self.complete))
    }

    /// Everything again, for a peer that may have missed some of it.
    pub(super) fn all(&self) -> Option<(Vec<Candidate>, bool)> {
        (!self.found.is_empty()).then(|| (self.found.clone(), self.complete))
    }
}

impl Session {
    /// All candidates so far, for a peer that may have missed some.
    pub(super) fn all_candidates(&self) -> Option<Output> {
        let (candidates, end) = self.trickle.all()?;
        Some(Output::Send(Message::Candidates(self.candidates(candidates, end))))
    }
}

impl<R: CryptoRngCore> Machine<R> {
    /// The WebRTC stack has found a candidate.
    pub fn found_candidate(
        &mut self,
        now: Instant,
        id: SessionId,
        generation: u32,
        candidate: Candidate,
    ) {
        if let Some(session) = self.session_mut(id)
            && session.ice.local == generation
        {
            session.trickle.add(now, candidate);
        }
    }

    /// The WebRTC stack has found all candidates there are.
    pub fn gathered(&mut self, now: Instant, id: SessionId, generation: u32) {
        if let Some(session) = self.session_mut(id)
            && session.ice.local == generation
        {
            session.trickle.finish(now);
            self.drive_attempt(now, id);
        }
    }

    /// Candidates of the first generation; those of a restart are `live`'s business.
    pub(super) fn on_first_candidates(&mut self, message: Candidates) {
        let Some(session) = self.session_mut(message.session).filter(|it| it.ice.remote == 0)
        else {
            self.refused += 1;
            return;
        };
        let awaits_answer = matches!(
            session.stage,
            Stage::DescribingOffer { .. } | Stage::GatheringOffer { .. } | Stage::Offered { .. }
        );
        if awaits_answer {
            let room = MAX_CANDIDATES.saturating_sub(session.early.len());
            session.early.extend(message.candidates.into_iter().take(room));
        } else {
            self.add_candidates(message);
        }
    }

    /// Hands on what is new of the peer's candidates: each costs checks of every pair it makes.
    pub(super) fn add_candidates(&mut self, message: Candidates) {
        let (id, generation) = (message.session, message.generation);
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let candidates = session.take_candidates(message.candidates);
        if !candidates.is_empty() {
            self.emit(Output::Rtc(id, RtcCommand::AddCandidates { generation, candidates }));
        }
    }
}
