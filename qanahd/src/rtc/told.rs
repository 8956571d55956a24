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
use qanah_core::turn::{BINDING, StunHeader};
use webrtc_core::stun::attributes::{ATTR_DATA, ATTR_XOR_PEER_ADDRESS};
use webrtc_core::stun::xoraddr::XorMappedAddress;

use super::health::decoded;

/// A Data indication (RFC 8656, section 17).
const DATA_INDICATION: u16 = 0x0017;
/// How long a stranger waits: longer than a candidate travels by a broker far away.
const WAIT: Duration = Duration::from_millis(600);
/// Strangers that are remembered. With more of them nobody waits.
const MAX_STRANGERS: usize = 32;
/// Candidates that are remembered: those of a few generations.
const MAX_TOLD: usize = 128;

/// Whose datagram a TURN server hands over, and the datagram (RFC 8656, section 11.6). What comes by a bound
/// channel is from an address that was told: channels are bound for those alone.
fn handed_over(indication: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
    let message = decoded(indication)?;
    let mut peer = XorMappedAddress::default();
    peer.get_from_as(&message, ATTR_XOR_PEER_ADDRESS).ok()?;
    let contents = message.get(ATTR_DATA).ok()?;
    Some((SocketAddr::new(peer.ip, peer.port), contents))
}

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
    strangers: Vec<(SocketAddr, Instant)>,
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

    /// Whether a datagram is to be taken. Only checks are ever refused, also those that a TURN server of ours hands
    /// over for somebody: what ICE learns from one relayed address it believes everywhere.
    pub(super) fn admits_datagram(&self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        match StunHeader::read(datagram).map(|header| header.kind) {
            Some(BINDING) => self.admits(from, now),
            Some(DATA_INDICATION) => handed_over(datagram).is_none_or(|(peer, contents)| {
                let is_check = StunHeader::read(&contents).is_some_and(|it| it.kind == BINDING);
                !is_check || self.admits(peer, now)
            }),
            _ => true,
        }
    }

    /// Whether a check from there is to be taken.
    pub(super) fn admits(&self, from: SocketAddr, now: Instant) -> bool {
        if self.foreign.contains(from.ip()) {
            return false;
        }
        let mut inner = self.lock();
        if inner.told.iter().any(|(told, _)| *told == from) {
            return true;
        }
        match inner.strangers.iter().find(|(stranger, _)| *stranger == from) {
            Some((_, since)) => now.saturating_duration_since(*since) >= WAIT,
            None if inner.strangers.len() >= MAX_STRANGERS => true,
            None => {
                inner.strangers.push((from, now));
                false
            }
        }
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
    }

    #[test]
    fn checks_that_a_turn_server_hands_over_are_checks_too() {
        let server = SocketAddr::from(([192, 0, 2, 9], 3478));
        let peer = SocketAddr::from(([192, 0, 2, 1], 77));
        // XOR-PEER-ADDRESS of that peer (RFC 8489, section 14.2), then DATA.
        let indication = |contents: &[u8]| {
            let address = [0, 1, 0x21, 77 ^ 0x12, 192 ^ 0x21, 0x12, 2 ^ 0xa4, 1 ^ 0x42];
            let mut bytes = vec![0, 0x17, 0, 0, 0x21, 0x12, 0xa4, 0x42];
            bytes.extend([7; 12]);
            bytes.extend([0, 0x12, 0, 8].iter().chain(&address));
            bytes.extend([0, 0x13, 0, u8::try_from(contents.len()).unwrap()]);
            bytes.extend(contents);
            bytes[3] = u8::try_from(bytes.len() - 20).unwrap();
            bytes
        };
        let check = *b"\x00\x01\x00\x00\x21\x12\xa4\x42twelve bytes";
        let answer = *b"\x01\x01\x00\x00\x21\x12\xa4\x42twelve bytes";
        assert_eq!(handed_over(&indication(&check)), Some((peer, check.to_vec())));
        let told = Told::default();
        let now = Instant::now();
        assert!(!told.admits_datagram(server, &indication(&check), now));
        assert!(told.admits_datagram(server, &indication(&answer), now));
        assert!(told.admits_datagram(server, &indication(b"\x16\xfe\xfd\x00"), now));
        assert!(told.admits_datagram(server, b"\x00\x17\x00\x00\x21\x12\xa4\x42twelve bytes", now));
        assert!(told.add(&Candidate { kind: CandidateKind::Relayed, priority: 1, address: peer }));
        assert!(told.admits_datagram(server, &indication(&check), now));
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
