//! The addresses that the other side has told, and those who come from another one.
//!
//! ICE takes a check from an address that it does not know for that of a peer behind a NAT that nobody could
//! guess (peer-reflexive), and a path to it for a direct one. It may as well be the peer's TURN server, when
//! the check was faster than the word of the candidate. So who is a stranger waits a little: checks are
//! repeated, and by then the candidate has been told and ICE knows what it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use qanah_core::signal::{Candidate, CandidateKind};

use super::candidate;

/// How long a stranger waits: longer than a candidate travels by a broker far away.
const WAIT: Duration = Duration::from_millis(600);
/// How long a stranger is remembered who does not come again.
const FORGET: Duration = Duration::from_secs(30);
/// Strangers that are remembered. With more of them nobody waits: whom ICE takes for the wrong one is judged again when
/// the candidate is told.
const MAX_STRANGERS: usize = 32;
/// Candidates that are remembered: those of a few generations.
const MAX_TOLD: usize = 128;

/// Prefixes in which no peer is to be reached, such as those of other overlays: a path through them may end
/// up in our own tunnel. Shared by all connections of a tunnel.
#[derive(Clone, Default)]
pub(crate) struct Foreign(Arc<Mutex<Vec<IpNet>>>);

impl Foreign {
    /// Replaces them.
    pub(crate) fn set(&self, prefixes: Vec<IpNet>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = prefixes;
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        let prefixes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes.iter().any(|prefix| prefix.contains(&ip))
    }
}

/// Shared by a connection and its sockets.
#[derive(Clone, Default)]
pub(super) struct Told {
    inner: Arc<Mutex<Inner>>,
    foreign: Foreign,
}

#[derive(Default)]
struct Inner {
    told: Vec<(SocketAddr, CandidateKind)>,
    strangers: Vec<Stranger>,
}

struct Stranger {
    address: SocketAddr,
    first: Instant,
    last: Instant,
}

impl Told {
    pub(super) fn new(foreign: Foreign) -> Self {
        Self { inner: Arc::default(), foreign }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other side has told this candidate. False when no check may go there.
    pub(super) fn add(&self, candidate: &Candidate) -> bool {
        if self.foreign.contains(candidate.address.ip()) {
            return false;
        }
        let mut inner = self.lock();
        inner.told.retain(|(address, _)| *address != candidate.address);
        if inner.told.len() >= MAX_TOLD {
            inner.told.remove(0);
        }
        inner.told.push((candidate.address, candidate.kind));
        true
    }

    /// What the other side calls this address.
    pub(super) fn kind(&self, address: SocketAddr) -> Option<CandidateKind> {
        self.lock().told.iter().find(|(told, _)| *told == address).map(|(_, kind)| *kind)
    }

    /// Whether a check from there that bears our name is to be taken, also one that a TURN server of ours hands over: what ICE learns from
    /// one relayed address it believes everywhere.
    pub(super) fn admits(&self, from: SocketAddr, now: Instant) -> bool {
        if !candidate::is_sane(from) || self.foreign.contains(from.ip()) {
            return false;
        }
        let mut inner = self.lock();
        if inner.told.iter().any(|(told, _)| *told == from) {
            return true;
        }
        let strangers = &mut inner.strangers;
        if let Some(stranger) = strangers.iter_mut().find(|stranger| stranger.address == from) {
            stranger.last = now;
            return now.saturating_duration_since(stranger.first) >= WAIT;
        }
        if strangers.len() >= MAX_STRANGERS {
            strangers.retain(|it| now.saturating_duration_since(it.last) <= FORGET);
        }
        let is_crowd = strangers.len() >= MAX_STRANGERS;
        if !is_crowd {
            strangers.push(Stranger { address: from, first: now, last: now });
        }
        is_crowd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_wait_and_those_who_were_told_do_not() {
        let told = Told::default();
        let now = Instant::now();
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let relay = Candidate { kind: CandidateKind::Relayed, priority: 1, address: at(1) };
        assert!(!told.admits(at(1), now));
        told.add(&relay);
        assert!(told.admits(at(1), now));
        assert_eq!(told.kind(at(1)), Some(CandidateKind::Relayed));
        assert_eq!(told.kind(at(2)), None);
        assert!(!told.admits(at(2), now));
        assert!(!told.admits(at(2), now + WAIT / 2));
        assert!(told.admits(at(2), now + WAIT));
        // A crowd finds no memory to fill, and keeps nobody out.
        let crowd = (100..1000).filter(|port| !told.admits(at(*port), now)).count();
        assert_eq!(crowd, MAX_STRANGERS - 2);
        // Nor for long: who comes later waits again, and who stayed need not.
        let later = now + FORGET + WAIT;
        assert!(told.admits(at(2), now + FORGET));
        assert!(told.admits(at(2), later));
        assert!(!told.admits(at(5000), later));
        assert!(told.admits(at(2), later));
    }

    #[test]
    fn nobody_is_taken_for_a_peer_where_none_can_be() {
        let told = Told::default();
        let now = Instant::now();
        for text in ["127.0.0.1:77", "[::1]:77", "224.0.0.1:77", "192.0.2.1:0", "240.0.0.1:3478"] {
            let address = text.parse().unwrap();
            assert!(!told.admits(address, now), "{address}");
            assert!(!told.admits(address, now + 2 * WAIT), "{address}");
        }
        assert!(told.lock().strangers.is_empty());
    }

    #[test]
    fn foreign_prefixes_are_closed_to_candidates_and_checks() {
        let foreign = Foreign::default();
        let told = Told::new(foreign.clone());
        let address = SocketAddr::from(([100, 64, 0, 1], 1));
        let candidate = Candidate { kind: CandidateKind::Host, priority: 1, address };
        assert!(told.add(&candidate));
        foreign.set(vec!["100.64.0.0/10".parse().unwrap()]);
        let now = Instant::now();
        assert!(!told.add(&candidate) && !told.admits(address, now));
        assert!(!told.admits(address, now + 2 * WAIT), "nor as a stranger who waited");
        foreign.set(Vec::new());
        assert!(told.admits(address, now));
    }

    #[test]
    fn the_memory_of_candidates_is_bounded() {
        let told = Told::default();
        for port in 1..=1000 {
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            told.add(&Candidate { kind: CandidateKind::Host, priority: 1, address });
        }
        assert_eq!(told.lock().told.len(), MAX_TOLD);
        assert!(told.kind(SocketAddr::from(([192, 0, 2, 1], 1000))).is_some());
    }
}
