//! Datagrams that wait to leave together.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

/// Most bytes in one call: the largest UDP payload over IPv4 is 65,507.
const MAX_BATCH_BYTES: usize = 65_000;
/// Most segments in one call (the kernel's UDP_MAX_SEGMENTS).
pub(super) const MAX_BATCH_SEGMENTS: usize = 64;

/// Datagrams to one destination, all of `segment` bytes, the last maybe shorter.
pub(super) struct Batch {
    pub(super) destination: SocketAddr,
    pub(super) segment: usize,
    count: usize,
    pub(super) bytes: Vec<u8>,
    /// Bytes that have left.
    pub(super) sent: usize,
}

impl Batch {
    fn takes(&self, destination: SocketAddr, length: usize, max_segments: usize) -> bool {
        self.destination == destination
            && self.count < max_segments
            && length <= self.segment
            && length > 0
            // A shorter datagram can only be the last one.
            && self.bytes.len() == self.count * self.segment
            && self.bytes.len() + length <= MAX_BATCH_BYTES
            && self.sent == 0
    }

    pub(super) fn is_full(&self, max_segments: usize) -> bool {
        self.count >= max_segments || self.bytes.len() + self.segment > MAX_BATCH_BYTES
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) batches: VecDeque<Batch>,
    pub(super) bytes: usize,
    /// An empty buffer to use again.
    spare: Option<Vec<u8>>,
    /// Wakes the driver's receive future.
    pub(super) waker: Option<Waker>,
}

impl Queue {
    pub(super) fn push(&mut self, destination: SocketAddr, datagram: &[u8], max_segments: usize) {
        self.bytes += datagram.len();
        if let Some(last) = self.batches.back_mut()
            && last.takes(destination, datagram.len(), max_segments)
        {
            last.bytes.extend_from_slice(datagram);
            last.count += 1;
            return;
        }
        let mut bytes = self.spare.take().unwrap_or_default();
        bytes.extend_from_slice(datagram);
        self.batches.push_back(Batch {
            destination,
            segment: datagram.len().max(1),
            count: 1,
            bytes,
            sent: 0,
        });
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }

    /// Counts `length` bytes of the first batch as gone.
    pub(super) fn advance(&mut self, length: usize) {
        self.bytes = self.bytes.saturating_sub(length);
        let Some(first) = self.batches.front_mut() else {
            return;
        };
        first.sent += length;
        if first.sent < first.bytes.len() {
            return;
        }
        if let Some(mut batch) = self.batches.pop_front() {
            batch.bytes.clear();
            self.spare = Some(batch.bytes);
        }
    }
}
