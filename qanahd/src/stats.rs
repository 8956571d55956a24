//! Counters of a tunnel. All of it lives on the tunnel's thread, so plain cells do.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

/// Why a packet or a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    /// Out: no peer has the destination in its allowed IPs.
    NoRoute,
    /// Out: the peer is not connected.
    NotConnected,
    /// Out: the channel is full, or has just closed.
    QueueFull,
    /// Out: larger than one frame to this peer may be.
    TooLarge,
    /// In: not a frame, or not one of this session.
    BadFrame,
    /// In: the counter was seen before or is too old.
    Replayed,
    /// In: does not authenticate.
    Forged,
    /// In: of a type that this version does not know.
    UnknownType,
    /// Either way: not a whole IP packet.
    BadPacket,
    /// In: the inner source is not in the peer's allowed IPs.
    SpoofedSource,
    /// In: the kernel did not take it.
    Interface,
    /// To be passed on, or passed on to us, against a rule: from or to somebody unknown, back to where it came
    /// from, through two relays, or where relaying is off.
    RelayRefused,
    /// To be passed on, but too much waits already.
    RelayFull,
    /// Signaling: did not authenticate.
    SignalForged,
    /// Signaling: stale, repeated, or out of place.
    SignalRefused,
    /// Signaling: not an envelope of this version, or too large.
    SignalMalformed,
    /// A queue inside the daemon was full.
    Busy,
}

/// All causes, in the order of their declaration.
const CAUSES: [(Drop, &str); 17] = [
    (Drop::NoRoute, "no_route"),
    (Drop::NotConnected, "not_connected"),
    (Drop::QueueFull, "queue_full"),
    (Drop::TooLarge, "too_large"),
    (Drop::BadFrame, "bad_frame"),
    (Drop::Replayed, "replayed"),
    (Drop::Forged, "forged"),
    (Drop::UnknownType, "unknown_type"),
    (Drop::BadPacket, "bad_packet"),
    (Drop::SpoofedSource, "spoofed_source"),
    (Drop::Interface, "interface"),
    (Drop::RelayRefused, "relay_refused"),
    (Drop::RelayFull, "relay_full"),
    (Drop::SignalForged, "signal_forged"),
    (Drop::SignalRefused, "signal_refused"),
    (Drop::SignalMalformed, "signal_malformed"),
    (Drop::Busy, "busy"),
];

/// Counts of what was dropped, by cause.
#[derive(Debug, Default)]
pub(crate) struct Drops([Cell<u64>; CAUSES.len()]);

impl Drops {
    pub(crate) fn count(&self, cause: Drop) {
        if let Some(cell) = self.0.get(cause as usize) {
            cell.set(cell.get() + 1);
        }
    }

    /// The causes that happened, by their names in the control API.
    pub(crate) fn report(&self) -> BTreeMap<&'static str, u64> {
        let counts = CAUSES.iter().zip(&self.0);
        counts.map(|((_, name), cell)| (*name, cell.get())).filter(|(_, n)| *n > 0).collect()
    }
}

/// Inner packets and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) packets: Cell<u64>,
    pub(crate) bytes: Cell<u64>,
}

impl Traffic {
    pub(crate) fn count(&self, bytes: usize) {
        self.count_many(1, bytes);
    }

    /// Packets, and the bytes of all of them.
    pub(crate) fn count_many(&self, packets: usize, bytes: usize) {
        self.packets.set(self.packets.get() + packets as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

/// What passed between us and one peer, over all its sessions.
#[derive(Debug, Default)]
pub(crate) struct PeerStats {
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    pub(crate) drops: Drops,
}

/// When the frames of one session came and went.
#[derive(Debug, Default)]
pub(crate) struct SessionStats {
    /// Any frame that was opened.
    pub(crate) opened: Cell<Option<Instant>>,
    /// A frame of packets that was sent.
    pub(crate) sent: Cell<Option<Instant>>,
    /// A frame of packets that was opened.
    pub(crate) received: Cell<Option<Instant>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_counts_under_its_own_name() {
        for (at, (cause, name)) in CAUSES.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{name} is out of order");
            let drops = Drops::default();
            drops.count(cause);
            assert_eq!(drops.report(), BTreeMap::from([(name, 1)]));
        }
    }
}
