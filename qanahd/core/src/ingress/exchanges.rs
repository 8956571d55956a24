//! Requests of ours, and those who answered them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::turn::{ALLOCATE, BINDING, SUCCESS, StunHeader, TransactionId, has_username};

/// Requests whose answers are waited for: checks of some hundred pairs of candidates, for a second or two.
const MAX_REQUESTS: usize = 1024;
/// How long an answer may take: longer than anybody repeats a request.
const PATIENCE: Duration = Duration::from_secs(40);
/// Peers' addresses that are remembered. Who is heard again stays; the one not heard for longest goes.
const MAX_PEERS: usize = 64;
/// TURN servers that are remembered: those of the configuration, at most.
const MAX_SERVERS: usize = 32;

#[derive(Debug)]
struct Request {
    id: TransactionId,
    kind: u16,
    to: SocketAddr,
    known_as: SocketAddr,
    is_check: bool,
    at: Instant,
}

/// Who answered a request of ours, at the very address to which it went: nobody else knows its transaction.
#[derive(Debug, Default)]
pub struct Exchanges {
    requests: VecDeque<Request>,
    /// Those who answered checks, the last one last.
    peers: Vec<SocketAddr>,
    /// TURN servers with an allocation of ours, as they are and as they are called, the last one last.
    servers: Vec<(SocketAddr, SocketAddr)>,
}

impl Exchanges {
    /// A request goes to this address, which is called `known_as` where its name was not known.
    pub fn sent(
        &mut self,
        to: SocketAddr,
        known_as: SocketAddr,
        header: StunHeader,
        request: &[u8],
        now: Instant,
    ) {
        let is_over = |old: &Request| now.saturating_duration_since(old.at) > PATIENCE;
        while self.requests.len() >= MAX_REQUESTS || self.requests.front().is_some_and(is_over) {
            self.requests.pop_front();
        }
        let is_check = header.kind == BINDING && has_username(request);
        let (id, kind) = (header.id, header.kind);
        self.requests.push_back(Request { id, kind, to, known_as, is_check, at: now });
    }

    /// The request that an answer belongs to. It stays: an answer may come twice, or be forged before the true one.
    fn request(&self, from: SocketAddr, header: StunHeader) -> Option<&Request> {
        let is_its = |it: &&Request| it.id == header.id && it.to == from;
        self.requests.iter().rev().find(is_its).filter(|it| it.kind == header.method())
    }

    /// Whether an answer from there is one to a request of ours.
    pub fn awaits(&self, from: SocketAddr, header: StunHeader) -> bool {
        self.request(from, header).is_some()
    }

    /// An answer: what the address that it is from is called; `None` when nobody asked there.
    pub fn answered(&mut self, from: SocketAddr, header: StunHeader) -> Option<SocketAddr> {
        let request = self.request(from, header)?;
        let (known_as, is_check) = (request.known_as, request.is_check);
        if is_check && header.kind == BINDING | SUCCESS {
            learn(&mut self.peers, from, MAX_PEERS);
        }
        if header.kind == ALLOCATE | SUCCESS {
            learn(&mut self.servers, (from, known_as), MAX_SERVERS);
        }
        Some(known_as)
    }

    /// Whether somebody at this address has answered a check.
    pub fn is_peer(&self, address: SocketAddr) -> bool {
        self.peers.iter().rev().any(|peer| *peer == address)
    }

    /// What the TURN server at this address is called; `None` where we have no allocation.
    pub fn server(&self, address: SocketAddr) -> Option<SocketAddr> {
        let found = self.servers.iter().rev().find(|(server, _)| *server == address);
        found.map(|(_, known_as)| *known_as)
    }
}

/// Puts something at the end, where it is the last to be forgotten.
fn learn<T: PartialEq>(known: &mut Vec<T>, one: T, most: usize) {
    if known.last() == Some(&one) {
        return;
    }
    known.retain(|other| *other != one);
    if known.len() >= most {
        known.remove(0);
    }
    known.push(one);
}
