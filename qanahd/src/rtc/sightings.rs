//! How our sockets look to STUN servers: what is known of the NATs before us.

use std::collections::VecDeque;
use std::net::SocketAddr;

use qanah_core::diagnosis::Nat;
use webrtc_core::stun::message::Getter as _;
use webrtc_core::stun::xoraddr::XorMappedAddress;

use super::health::decoded;

/// Answers that are remembered: those of a few connections with a few servers and addresses.
const MAX_SEEN: usize = 64;

/// What STUN servers said of late.
#[derive(Default)]
pub(super) struct Sightings(VecDeque<Seen>);

struct Seen {
    local: SocketAddr,
    server: SocketAddr,
    mapped: SocketAddr,
}

impl Sightings {
    /// A server's answer to a request of the socket with this address. IPv6 is not translated, and says nothing.
    pub(super) fn note(&mut self, local: SocketAddr, server: SocketAddr, answer: &[u8]) {
        let mut address = XorMappedAddress::default();
        let found = decoded(answer).is_some_and(|message| address.get_from(&message).is_ok());
        if !found || !local.is_ipv4() {
            return;
        }
        let mapped = SocketAddr::new(address.ip, address.port);
        self.0.retain(|seen| (seen.local, seen.server) != (local, server));
        if self.0.len() >= MAX_SEEN {
            self.0.pop_front();
        }
        self.0.push_back(Seen { local, server, mapped });
    }

    /// The machine is somewhere else: what was seen is of no interest.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// The NAT of the way out that is worst for hole punching.
    pub(super) fn nat(&self) -> Nat {
        self.0.iter().fold(Nat::Unknown, |nat, one| {
            let same = self.0.iter().filter(|seen| seen.local == one.local);
            let views: Vec<_> = same.map(|seen| (seen.server, seen.mapped)).collect();
            nat.worse(Nat::of(one.local, &views))
        })
    }
}
