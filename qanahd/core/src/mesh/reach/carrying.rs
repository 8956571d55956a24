//! A connected peer that carries for others, and what it is asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Carrier;
use crate::frame::reach::MAX_NAMES;
use crate::mesh::limits::{ASK_AGAIN, ASK_PACE, ASK_TIMEOUT};
use crate::router::PeerId;

/// A question that was asked.
#[derive(Debug)]
struct Question {
    id: u32,
    about: Vec<PeerId>,
    asked_at: Instant,
}

/// A connected peer that carries for others.
#[derive(Debug)]
pub(super) struct Carrying {
    pub(super) is: Carrier,
    open: Option<Question>,
    /// Whom to ask it about next.
    queue: VecDeque<PeerId>,
    /// When it may be asked at the earliest.
    ready_at: Instant,
    /// When it is asked about everybody again.
    next_round: Instant,
    pause: Duration,
}

impl Carrying {
    /// One that is to be asked about these at once.
    pub(super) fn new(now: Instant, is: Carrier, queue: VecDeque<PeerId>) -> Self {
        let pause = ASK_AGAIN;
        Self { is, open: None, queue, ready_at: now, next_round: now + pause, pause }
    }

    /// Asks about this peer as soon as possible, and about everybody more often again.
    pub(super) fn ask_soon(&mut self, now: Instant, peer: PeerId) {
        self.queue.push_front(peer);
        self.pause = ASK_AGAIN;
        self.next_round = self.next_round.min(now + ASK_AGAIN);
    }

    /// When it is time, asks about all of these again; the pauses double up to `longest`.
    pub(super) fn begin_round(
        &mut self,
        now: Instant,
        longest: Duration,
        about: impl Iterator<Item = PeerId>,
    ) {
        if self.next_round <= now {
            self.pause = (self.pause * 2).min(longest);
            self.next_round = now + self.pause;
            self.queue = about.collect();
        }
    }

    /// When the next round begins.
    pub(super) const fn next_round(&self) -> Instant {
        self.next_round
    }

    /// When the next question may be asked, if there is one.
    pub(super) fn next_question(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.ready_at)
    }

    /// Takes the next question out of the queue, if it may be asked now: whom it is about, as far as that matters
    /// still; nobody else.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        id: u32,
        matters: impl Fn(&PeerId) -> bool,
    ) -> Vec<PeerId> {
        let mut about = Vec::new();
        if self.next_question().is_none_or(|at| at > now) {
            return about;
        }
        while about.len() < MAX_NAMES {
            let Some(peer) = self.queue.pop_front() else {
                break;
            };
            if matters(&peer) && !about.contains(&peer) {
                about.push(peer);
            }
        }
        if !about.is_empty() {
            self.ready_at = now + ASK_TIMEOUT;
            self.open = Some(Question { id, about: about.clone(), asked_at: now });
        }
        about
    }

    /// An answer came: whom the question was about. `None` for an answer to nothing, or to what was given up.
    pub(super) fn answered(&mut self, now: Instant, id: u32) -> Option<Vec<PeerId>> {
        let question = self.open.take_if(|question| question.id == id)?;
        self.ready_at = (question.asked_at + ASK_PACE).max(now);
        Some(question.about)
    }
}
