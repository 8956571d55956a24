//! Who is connected to whom, asked by name and never listed.
//!
//! `query: id (4) | names (16 each)`; `answer: id (4) | (name (16) | round-trip time (4))` for those of
//! the names that the answerer has a direct session with. The time is in microseconds, all ones where it is not
//! known.

use std::time::Duration;

use crate::signal::PeerName;

/// Most names in a query.
pub const MAX_NAMES: usize = 64;
/// Length of an entry of an answer, in bytes.
const ENTRY_LEN: usize = PeerName::LEN + 4;
/// In the place of a round-trip time that was not measured yet.
const UNKNOWN: u32 = u32::MAX;

/// A peer that the answerer of a query is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Which peer.
    pub name: PeerName,
    /// Round-trip time between the answerer and that peer, where it is known.
    pub rtt: Option<Duration>,
}

/// The names of a query, which has a whole number of them, at least one and at most [`MAX_NAMES`].
pub(super) fn are_names(bytes: &[u8]) -> bool {
    let (names, rest) = bytes.as_chunks::<{ PeerName::LEN }>();
    rest.is_empty() && (1..=MAX_NAMES).contains(&names.len())
}

/// Whether these are whole entries, perhaps none.
pub(super) fn are_entries(bytes: &[u8]) -> bool {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    rest.is_empty() && entries.len() <= MAX_NAMES
}

/// The names in the body of a query.
pub fn names(bytes: &[u8]) -> impl Iterator<Item = PeerName> {
    bytes.as_chunks().0.iter().map(|name| PeerName(*name))
}

/// The body of a query for these names; those beyond [`MAX_NAMES`] are left out.
pub fn write_names(names: &[PeerName]) -> Vec<u8> {
    names.iter().take(MAX_NAMES).flat_map(|name| name.0).collect()
}

/// The entries in the body of an answer.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = Reached> {
    bytes.as_chunks::<ENTRY_LEN>().0.iter().filter_map(|entry| {
        let (name, rtt) = entry.split_first_chunk()?;
        let micros = u32::from_be_bytes(rtt.try_into().ok()?);
        let rtt = (micros != UNKNOWN).then(|| Duration::from_micros(micros.into()));
        Some(Reached { name: PeerName(*name), rtt })
    })
}

/// The body of an answer; entries beyond [`MAX_NAMES`] are left out.
pub fn write_entries(entries: &[Reached]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    for entry in entries.iter().take(MAX_NAMES) {
        let micros = entry.rtt.map_or(UNKNOWN, |rtt| {
            u32::try_from(rtt.as_micros()).unwrap_or(UNKNOWN - 1).min(UNKNOWN - 1)
        });
        bytes.extend(entry.name.0);
        bytes.extend(micros.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_that_are_not_known_or_very_long() {
        let name = PeerName([3; 16]);
        let of = |rtt| Reached { name, rtt };
        let hour = Duration::from_secs(3600);
        let bytes =
            write_entries(&[of(None), of(Some(Duration::from_micros(258))), of(Some(hour * 9))]);
        assert_eq!(bytes[16..20], [255; 4]);
        assert_eq!(bytes[36..40], [0, 0, 1, 2]);
        assert_eq!(bytes[56..60], [255, 255, 255, 254]);
        let most = Duration::from_micros(u64::from(UNKNOWN - 1));
        let read: Vec<_> = entries(&bytes).map(|entry| entry.rtt).collect();
        assert_eq!(read, [None, Some(Duration::from_micros(258)), Some(most)]);
    }

    #[test]
    fn lengths_are_whole_and_bounded() {
        assert!(!are_names(&[]) && !are_names(&[0; 15]) && !are_names(&[0; 17]));
        assert!(are_names(&[0; 16]) && are_names(&[0; 16 * MAX_NAMES]));
        assert!(!are_names(&[0; 16 * (MAX_NAMES + 1)]));
        assert!(are_entries(&[]) && are_entries(&[0; 20]) && !are_entries(&[0; 21]));
        assert!(are_entries(&[0; 20 * MAX_NAMES]) && !are_entries(&[0; 20 * (MAX_NAMES + 1)]));
        let many = vec![PeerName([1; 16]); MAX_NAMES + 5];
        assert!(are_names(&write_names(&many)));
        let many = vec![Reached { name: PeerName([1; 16]), rtt: None }; MAX_NAMES + 5];
        assert!(are_entries(&write_entries(&many)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(list in prop::collection::vec((any::<[u8; 16]>(), prop::option::of(0..u32::MAX)), 0..64)) {
            let list: Vec<_> = list.into_iter().map(|(name, rtt)| Reached {
                name: PeerName(name),
                rtt: rtt.map(|micros| Duration::from_micros(micros.into())),
            }).collect();
            prop_assert_eq!(entries(&write_entries(&list)).collect::<Vec<_>>(), list.clone());
            let wanted: Vec<_> = list.iter().map(|entry| entry.name).collect();
            prop_assert_eq!(names(&write_names(&wanted)).collect::<Vec<_>>(), wanted);
        }
    }
}
