//! What waits to go into a stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qanah_core::turn::{StunHeader, TransactionId, frame};
use tokio::sync::Notify;

/// Bytes that may wait while the stream is open. As many again may be in the writer's hands, and
/// 64 KiB in the kernel's (`dial`). A burst of SCTP's must fit; more only makes everything late.
const MAX_OPEN: usize = 256 * 1024;
/// Bytes that may wait while it is not: a few requests.
const MAX_OPENING: usize = 8 * 1024;
/// How many requests are remembered, to know one that is said again.
const MEMORY: usize = 64;

/// A queue of bytes with a limit, between the driver's socket and the task of a stream. What finds it
/// full is lost, as a datagram would be.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// For `take`, the only one who waits for it.
    changed: Notify,
    /// For `closed`, likewise: a wake-up goes to one who waits.
    ended: Notify,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    is_open: bool,
    /// Nothing comes any more.
    is_closed: bool,
    /// The stream has ended.
    is_broken: bool,
    asked: VecDeque<TransactionId>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), ended: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a datagram, or drops it: one that is no TURN message, one that finds no room, and a request
    /// that is in here or in the stream already. A stream loses nothing, so requests are said once
    /// (RFC 8489, section 6.2.2); `webrtc` says them again, for it thinks that it speaks UDP.
    pub(super) fn push(&self, datagram: &[u8]) {
        let mut state = self.state();
        if state.is_broken || state.is_closed {
            return;
        }
        let request = StunHeader::read(datagram).filter(|header| header.is_request());
        if request.is_some_and(|header| state.asked.contains(&header.id)) {
            return;
        }
        let limit = if state.is_open { MAX_OPEN } else { MAX_OPENING };
        if state.bytes.len() + datagram.len() > limit || frame(datagram, &mut state.bytes).is_err()
        {
            return;
        }
        if let Some(header) = request {
            if state.asked.len() >= MEMORY {
                state.asked.pop_front();
            }
            state.asked.push_back(header.id);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The stream is there.
    pub(super) fn open(&self) {
        self.state().is_open = true;
    }

    /// The stream has ended; what waits is lost.
    pub(super) fn break_off(&self) {
        let mut state = self.state();
        state.is_broken = true;
        state.bytes = Vec::new();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Nothing will be pushed any more. What waits still goes.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
        self.ended.notify_one();
    }

    /// Everything that waits, once there is something, put into `into` (which must be empty); false
    /// when nothing comes any more.
    pub(super) async fn take(&self, into: &mut Vec<u8>) -> bool {
        loop {
            {
                let mut state = self.state();
                if !state.bytes.is_empty() {
                    std::mem::swap(&mut state.bytes, into);
                    return true;
                }
                if state.is_closed {
                    return false;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns when nothing will be pushed any more.
    pub(super) async fn closed(&self) {
        while !self.state().is_closed {
            self.ended.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel_data(length: u16) -> Vec<u8> {
        let mut message = vec![0x40, 0];
        message.extend(length.to_be_bytes());
        message.resize(4 + usize::from(length), 9);
        message
    }

    fn request(number: u8) -> Vec<u8> {
        let mut message = b"\x00\x03\x00\x00\x21\x12\xa4\x42twelve byte".to_vec();
        message.push(number);
        message
    }

    async fn taken(outbox: &Outbox) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(outbox.take(&mut bytes).await);
        bytes
    }

    #[tokio::test]
    async fn what_is_full_drops_and_never_grows() {
        let outbox = Outbox::new();
        for _ in 0..1000 {
            outbox.push(&channel_data(1000));
        }
        assert!(taken(&outbox).await.len() <= MAX_OPENING);
        outbox.open();
        for _ in 0..1000 {
            outbox.push(&channel_data(1001));
        }
        let bytes = taken(&outbox).await;
        assert!(bytes.len() <= MAX_OPEN && bytes.len() > MAX_OPEN - 2000);
        // Whole messages only.
        assert_eq!(bytes.len() % 1008, 0);
        outbox.push(b"no message");
        outbox.close();
        assert!(!outbox.take(&mut Vec::new()).await);
    }

    #[tokio::test]
    async fn a_request_goes_once() {
        let outbox = Outbox::new();
        outbox.open();
        for number in [1, 1, 2, 1, 2] {
            outbox.push(&request(number));
        }
        assert_eq!(taken(&outbox).await, [request(1), request(2)].concat());
        outbox.push(&request(1));
        outbox.push(&channel_data(4));
        outbox.push(&channel_data(4));
        assert_eq!(taken(&outbox).await.len(), 16);
    }

    #[tokio::test]
    async fn last_words_go_and_a_broken_stream_takes_nothing() {
        let outbox = Outbox::new();
        outbox.push(&request(1));
        outbox.close();
        assert_eq!(taken(&outbox).await, request(1));
        assert!(!outbox.take(&mut Vec::new()).await);
        let broken = Outbox::new();
        broken.break_off();
        broken.push(&request(1));
        broken.close();
        assert!(!broken.take(&mut Vec::new()).await);
    }
}
