//! What waits for one broker's worker thread: bounded, and never waited for by those who put it in.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Publications that wait for one worker at most. A worker empties them as fast as it can call the
/// library, so more than a few mean that the broker does not read.
const MAX_OUTGOING: usize = 128;

/// Notices of one connection are few: the answers to subscriptions, of which there may be thousands, are counted.
/// What is more than this is a broker's doing.
const MAX_NOTICES: usize = 64;

/// One message for every connected broker.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) topic: CString,
    pub(super) payload: Vec<u8>,
}

/// Who says that an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refuser {
    /// The broker, which wants another version of the protocol.
    Version,
    /// The broker, by its CONNACK.
    Broker,
    /// The library: it found no broker, or lost it. The gate may know more.
    Library,
}

/// What the library has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The gate has news.
    Gate,
    /// CONNACK: welcome.
    Connected,
    /// The attempt failed.
    Refused { by: Refuser, reason: String },
    /// So many requests for topics were answered, and so many topics refused.
    Subscribed { answers: usize, refused: usize },
    /// The broker ends the connection and says why (MQTT 5).
    Dismissed(String),
    /// The connection is gone.
    Lost,
}

/// What a worker wakes up for.
#[derive(Debug)]
pub(super) enum Work {
    Stop,
    Notice(Notice),
    Topics,
    Publish(Arc<Publication>),
    /// The machine's network has changed: look whether the connection still fits it.
    Network,
    /// Nothing came until the deadline.
    Deadline,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    /// Publications are taken only while this is set: nothing piles up for a broker that is away.
    open: bool,
    topics_changed: bool,
    network_changed: bool,
    notices: VecDeque<Notice>,
    /// Answers to subscriptions that the worker has not seen yet, and topics refused in them.
    answers: usize,
    refused: usize,
    outgoing: VecDeque<Arc<Publication>>,
}

/// The mailbox of one worker.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the library's threads. The end of a connection is never left out.
    pub(super) fn notify(&self, notice: Notice) {
        let mut state = self.lock();
        match notice {
            Notice::Subscribed { answers, refused } => {
                state.answers = state.answers.saturating_add(answers);
                state.refused = state.refused.saturating_add(refused);
            }
            // Twice gone is as good as once: there is one place more at most.
            Notice::Lost if state.notices.contains(&Notice::Lost) => {}
            Notice::Lost => state.notices.push_back(Notice::Lost),
            notice if state.notices.len() < MAX_NOTICES => state.notices.push_back(notice),
            _ => {}
        }
        self.wake.notify_one();
    }

    /// Whether the publication was taken.
    pub(super) fn publish(&self, publication: &Arc<Publication>) -> bool {
        let mut state = self.lock();
        let taken = state.open && state.outgoing.len() < MAX_OUTGOING;
        if taken {
            state.outgoing.push_back(Arc::clone(publication));
            self.wake.notify_one();
        }
        taken
    }

    pub(super) fn topics_changed(&self) {
        self.lock().topics_changed = true;
        self.wake.notify_one();
    }

    pub(super) fn network_changed(&self) {
        self.lock().network_changed = true;
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Opens or closes the mailbox for publications; a closed one is empty.
    pub(super) fn set_open(&self, open: bool) {
        let mut state = self.lock();
        state.open = open;
        state.outgoing.clear();
    }

    /// Forgets what a client that no longer exists had to say, and topic changes, because the next
    /// client starts from the whole list.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        state.notices.clear();
        (state.answers, state.refused) = (0, 0);
        state.topics_changed = false;
    }

    /// The next thing to do; the most urgent first.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Work {
        let mut state = self.lock();
        loop {
            // What was published before the stop is said first: the goodbyes. What the mailbox holds
            // is bounded, and the worker's time for its end as well.
            if state.stop && (!state.open || state.outgoing.is_empty()) {
                return Work::Stop;
            }
            if let Some(notice) = state.notices.pop_front().filter(|_| !state.stop) {
                return Work::Notice(notice);
            }
            if state.answers > 0 && !state.stop {
                let (answers, refused) = (state.answers, state.refused);
                (state.answers, state.refused) = (0, 0);
                return Work::Notice(Notice::Subscribed { answers, refused });
            }
            if std::mem::take(&mut state.network_changed) {
                return Work::Network;
            }
            // While the mailbox is closed the worker is not ready for these.
            if state.open && state.topics_changed {
                state.topics_changed = false;
                return Work::Topics;
            }
            if let Some(publication) = state.outgoing.pop_front() {
                return Work::Publish(publication);
            }
            state = match deadline {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Work::Deadline;
                    }
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is in 3000 networks asks a broker of MQTT 3.1.1 for as many topics, one by one, before it looks
    /// at the answers.
    #[test]
    fn no_answer_and_no_end_is_lost_however_many_come() {
        let mailbox = Mailbox::default();
        for answer in 0..3000 {
            mailbox.notify(Notice::Subscribed { answers: 1, refused: usize::from(answer < 7) });
            mailbox.notify(Notice::Dismissed(String::from("goodbye")));
            mailbox.notify(Notice::Lost);
        }
        let now = Some(Instant::now());
        let (mut ends, mut notices) = (0, 0);
        loop {
            match mailbox.next(now) {
                Work::Notice(Notice::Subscribed { answers, refused }) => {
                    assert_eq!((answers, refused), (3000, 7));
                }
                Work::Notice(notice) => {
                    ends += usize::from(notice == Notice::Lost);
                    notices += 1;
                }
                Work::Deadline => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ends, 1);
        assert!(notices <= MAX_NOTICES + 1, "{notices}");
    }
}
