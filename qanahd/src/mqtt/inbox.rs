//! Judges what brokers deliver: who may grow what, decided before anything is copied.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::Sender;

use super::{Event, MAX_PAYLOAD};

/// Messages that one topic may bring at once, and then each second. Signaling needs a few a minute; a
/// topic on a public broker is open to everybody who has seen it, and must not crowd the others out.
const BURST: f64 = 64.0;
const PER_SECOND: f64 = 16.0;

/// What was dropped since the start, for the status and for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Messages delivered to the receiver of events.
    pub(crate) received: u64,
    /// Retained, larger than 4096 bytes, or on a topic that nobody asked for.
    pub(crate) ignored: u64,
    /// More than their topic's share.
    pub(crate) throttled: u64,
    /// Events that found the channel full.
    pub(crate) overflowed: u64,
    /// Publications that no broker could take.
    pub(crate) unsent: u64,
}

#[derive(Debug)]
struct Share {
    tokens: f64,
    refilled: Instant,
}

impl Share {
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * PER_SECOND).min(BURST);
        self.refilled = now;
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// The topics that are wanted, and the way to whoever wants them. Shared by all brokers.
#[derive(Debug)]
pub(super) struct Inbox {
    topics: Mutex<HashMap<Arc<str>, Share>>,
    events: Sender<Event>,
    received: AtomicU64,
    ignored: AtomicU64,
    throttled: AtomicU64,
    overflowed: AtomicU64,
    unsent: AtomicU64,
}

impl Inbox {
    pub(super) fn new(events: Sender<Event>) -> Self {
        Self {
            topics: Mutex::default(),
            events,
            received: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Share>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, topics: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        let mut wanted = self.lock();
        for topic in topics {
            wanted.entry(topic.into()).or_insert(Share { tokens: BURST, refilled: now });
        }
    }

    pub(super) fn remove(&self, topics: impl IntoIterator<Item = String>) {
        let mut wanted = self.lock();
        for topic in topics {
            wanted.remove(topic.as_str());
        }
    }

    pub(super) fn wanted(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    /// Takes or drops one message. Called on the library's thread: copies only what is wanted, never
    /// waits.
    pub(super) fn offer(&self, topic: &[u8], payload: &[u8], retained: bool) {
        let Some(name) =
            std::str::from_utf8(topic).ok().filter(|_| !retained && payload.len() <= MAX_PAYLOAD)
        else {
            self.ignored.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let topic = {
            let mut wanted = self.lock();
            let Some((key, _)) = wanted.get_key_value(name) else {
                self.ignored.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let key = Arc::clone(key);
            if !wanted.get_mut(name).is_some_and(|share| share.take(Instant::now())) {
                self.throttled.fetch_add(1, Ordering::Relaxed);
                return;
            }
            key
        };
        // The copy is made only when there is a place for it.
        match self.events.try_reserve() {
            Ok(place) => {
                // Before it is sent, so that whoever has a message finds it counted.
                self.received.fetch_add(1, Ordering::Relaxed);
                place.send(Event::Message { topic, payload: payload.to_vec() });
            }
            Err(_) => {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reports a change of a connection. Waits for room, so never from a thread of the library: a connection
    /// that came or went must not be lost among messages. Nobody listens any more when the channel is closed.
    pub(super) fn report(&self, event: Event) {
        let _ = self.events.blocking_send(event);
    }

    /// Counts messages that were left out before they came here.
    pub(super) fn count_ignored(&self, messages: u64) {
        self.ignored.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn count_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            received: read(&self.received),
            ignored: read(&self.ignored),
            throttled: read(&self.throttled),
            overflowed: read(&self.overflowed),
            unsent: read(&self.unsent),
        }
    }
}
