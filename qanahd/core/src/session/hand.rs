//! Offers and answers that people carry: no challenge, no broker (PROTOCOL.md, section 5.7).
//!
//! The offerer alone judges by its own monotonic clock how long an offer is open: it forgets the
//! ephemeral key. The answerer remembers the offers that it has answered while it runs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use thiserror::Error;

use super::limits::{BASE_PACKET, HAND_LIFETIME, HAND_LIFETIME_MAX, HAND_REMEMBERED};
use super::machine::Machine;
use super::state::{Session, Stage, Way};
use super::{Output, RtcCommand};
use crate::handshake::HandshakeError;
use crate::signal::{Answer, Offer, SessionId};

/// How an offer by hand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedOffer {
    /// Its lifetime was over.
    Expired,
    /// A newer offer to the same peer took its place.
    Replaced,
    /// It has got its answer.
    Answered,
    /// The connection could not be prepared.
    Failed,
}

/// Why an offer or an answer by hand is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandError {
    /// The offer was answered before.
    #[error("this offer was answered already; an offer can be answered once")]
    Used,
    /// The offer that this answers is not open any more.
    #[error("the offer is not open any more")]
    Ended(EndedOffer),
    /// No offer of this machine, or one from before a restart.
    #[error("no offer of this kind was made here since the tunnel is up")]
    Unknown,
    /// The handshake in it fails.
    #[error("the handshake in it does not authenticate")]
    Forged,
    /// The peer's own doing: another version, or broken.
    #[error("the peer's description cannot be used: {0}")]
    Malformed(&'static str),
    /// A fault of this machine.
    #[error("the handshake could not be computed")]
    Broken,
}

impl From<HandshakeError> for HandError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Description(what) => Self::Malformed(what),
            HandshakeError::Length => Self::Malformed("the handshake has an impossible length"),
            HandshakeError::Forged => Self::Forged,
            HandshakeError::Finished => Self::Used,
            _ => Self::Broken,
        }
    }
}

/// What is remembered of offers by hand, bounded by [`HAND_REMEMBERED`] each.
#[derive(Default)]
pub(super) struct Hand {
    /// The peer's offers that were answered.
    used: VecDeque<SessionId>,
    /// Our offers that are not open any more.
    ended: VecDeque<(SessionId, EndedOffer)>,
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == HAND_REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

impl Hand {
    fn end(&mut self, id: SessionId, how: EndedOffer) {
        if self.ended(id).is_none() {
            remember(&mut self.ended, (id, how));
        }
    }

    fn ended(&self, id: SessionId) -> Option<EndedOffer> {
        self.ended.iter().find(|(ended, _)| *ended == id).map(|(_, how)| *how)
    }
}

impl<R: CryptoRngCore> Machine<R> {
    /// Begins an offer for people to carry. It comes as [`Output::ByHand`] when the candidates are
    /// gathered, after 3 s at the latest (more only if the WebRTC stack is slow to begin).
    ///
    /// An older open offer by hand to the same peer ends. At most a day is granted.
    pub fn offer_by_hand(&mut self, now: Instant, lifetime: Duration) -> SessionId {
        let id = SessionId::random(&mut self.rng);
        let lifetime = lifetime.min(HAND_LIFETIME_MAX);
        if let Some(older) = self.pending.rival(Way::Hand { lifetime }, true) {
            self.hand.end(older, EndedOffer::Replaced);
        }
        self.begin(now, id, Way::Hand { lifetime }, Stage::DescribingOffer { echo: None });
        self.emit(Output::Rtc(
            id,
            RtcCommand::Offer { patience: Some(lifetime), packet_size: BASE_PACKET },
        ));
        id
    }

    /// Begins to answer an offer that people have carried. The answer comes as [`Output::ByHand`],
    /// as soon as an offer would.
    ///
    /// # Errors
    /// An offer that was answered before, or that does not authenticate.
    pub fn answer_by_hand(&mut self, now: Instant, offer: &Offer) -> Result<(), HandError> {
        if self.hand.used.contains(&offer.session) {
            return Err(HandError::Used);
        }
        let seconds = offer.lifetime.map(|seconds| Duration::from_secs(seconds.into()));
        let lifetime = seconds.unwrap_or(HAND_LIFETIME).min(HAND_LIFETIME_MAX);
        let way = Way::Hand { lifetime };
        let rtc = self.read_offer(now, way, offer)?;
        remember(&mut self.hand.used, offer.session);
        if let Some(remote) = rtc {
            let (remote, patience) = (Box::new(remote), way.patience());
            self.emit(Output::Rtc(
                offer.session,
                RtcCommand::Answer { remote, patience, packet_size: BASE_PACKET },
            ));
        }
        Ok(())
    }

    /// Takes the answer to an open offer by hand; the connection is made now.
    ///
    /// # Errors
    /// An answer to an offer that is not open (any more), or one that does not authenticate. Then
    /// the offer stays as it was.
    pub fn accept_by_hand(&mut self, now: Instant, answer: &Answer) -> Result<(), HandError> {
        let id = answer.session;
        let open = |session: &Session| {
            session.way.is_by_hand() && matches!(session.stage, Stage::Offered { .. })
        };
        let Some(session) = self.pending.get(id).filter(|session| open(session)) else {
            return Err(self.hand.ended(id).map_or(HandError::Unknown, HandError::Ended));
        };
        if session.deadline <= now {
            self.fail_attempt(now, id, "the offer by hand has expired");
            return Err(HandError::Ended(EndedOffer::Expired));
        }
        self.read_answer(now, answer)?;
        self.hand.end(id, EndedOffer::Answered);
        Ok(())
    }

    /// An attempt by hand is over.
    pub(super) fn hand_failed(&mut self, now: Instant, session: &Session, reason: &str) {
        let carried = matches!(session.stage, Stage::Offered { .. }) || session.link().is_some();
        if session.offerer {
            let expired = matches!(session.stage, Stage::Offered { .. }) && session.deadline <= now;
            let how = if expired { EndedOffer::Expired } else { EndedOffer::Failed };
            self.hand.end(session.id, how);
        }
        if !carried {
            self.emit(Output::HandFailed(session.id, reason.to_owned()));
        }
    }
}
