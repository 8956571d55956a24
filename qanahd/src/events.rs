//! What happens, for the journal: each kind has a name and an id that never change.
//!
//! A line of the journal about one of these has the fields `EVENT` and `MESSAGE_ID` (see
//! systemd.journal-fields(7)); all lines of a tunnel have `TUNNEL`, those about a peer `PEER`. The manual
//! page qanahd(8) lists them from here.

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// `EVENT`.
    pub(crate) name: &'static str,
    /// `MESSAGE_ID`: 128 random bits.
    pub(crate) id: &'static str,
    /// When it happens, for the manual.
    #[allow(dead_code, reason = "only the manual has it")]
    pub(crate) when: &'static str,
}

/// A tunnel can be used.
pub(crate) const UP: Event = Event {
    name: "up",
    id: "f9b3706f05314937b4f92deb159e716b",
    when: "A tunnel came up: its interface can be used.",
};
/// A tunnel that was up is no more.
pub(crate) const DOWN: Event =
    Event { name: "down", id: "f14b1d15521f469dbe0c2ba44f5132ba", when: "A tunnel went down." };
/// A peer without a session has one.
pub(crate) const CONNECTED: Event = Event {
    name: "connected",
    id: "6285384446b64f2cb8b73a7b6ad0327a",
    when: "A peer is connected directly, or by a TURN server.",
};
/// A peer is reached by another one.
pub(crate) const RELAYED: Event = Event {
    name: "relayed",
    id: "fdfc0718fb2c4570b63906b234db1fda",
    when: "A peer is connected through another peer.",
};
/// The session with a peer has ended and there is no other.
pub(crate) const DISCONNECTED: Event = Event {
    name: "disconnected",
    id: "13ee12c32e7d45cbbc3d40e4920328fe",
    when: "A peer that was connected directly is so no more; the message has the reason.",
};
/// Somebody asked for something over the control socket and may not.
pub(crate) const DENIED: Event = Event {
    name: "denied",
    id: "34a42f93279d4d9ebf5c0c6a7aa18fdb",
    when: "A call to the control socket was denied. UID, PID and METHOD say whose and which.",
};

/// All of them.
#[allow(dead_code, reason = "the manual and a test have the list")]
pub(crate) const ALL: [Event; 6] = [UP, DOWN, CONNECTED, RELAYED, DISCONNECTED, DENIED];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_ids_are_unique_and_well_formed() {
        let names: BTreeSet<_> = ALL.iter().map(|event| event.name).collect();
        let ids: BTreeSet<_> = ALL.iter().map(|event| event.id).collect();
        assert_eq!((names.len(), ids.len()), (ALL.len(), ALL.len()));
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(is_hex)), "{ids:?}");
    }
}
