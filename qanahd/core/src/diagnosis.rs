//! Why two peers find no direct path, and what would help: told from the candidates of both sides.
//!
//! What a NAT does is seen as RFC 5780 (section 4.3) tests it: one socket that looks the same to several STUN
//! servers has an endpoint-independent mapping, so a hole can be punched. What it lets in cannot be seen
//! without a server that answers from elsewhere, so nothing is said of that.

use std::net::{IpAddr, SocketAddr};

use crate::signal::{Candidate, CandidateKind};

/// What is between a machine and the Internet, as far as STUN servers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Nothing is known (yet).
    Unknown,
    /// No STUN server answers: UDP does not get out, or not back.
    NoUdp,
    /// The world sees the machine's own address.
    None,
    /// Every server sees the same address and port: endpoint-independent mapping (RFC 4787, REQ-1).
    Independent,
    /// Servers see different ports: address-dependent mapping, or address- and port-dependent ("symmetric").
    Dependent,
    /// There is one, and a single server cannot tell of which kind.
    SomeKind,
}

impl Nat {
    /// The kind by how one socket looked: its own address, and for each server what that saw.
    pub fn of(local: SocketAddr, seen: &[(SocketAddr, SocketAddr)]) -> Self {
        let mut views = seen.iter().map(|(_, mapped)| *mapped);
        let Some(first) = views.next() else {
            return Self::Unknown;
        };
        let others: Vec<_> = views.filter(|mapped| *mapped != first).collect();
        if others.iter().any(|mapped| mapped.ip() == first.ip()) {
            Self::Dependent
        } else if !others.is_empty() {
            // Two ways out, or a server on this side of the NAT: that says nothing of its ports.
            Self::SomeKind
        } else if first.ip() == local.ip() {
            Self::None
        } else if seen.iter().any(|(server, _)| seen.first().is_some_and(|(one, _)| one != server))
        {
            Self::Independent
        } else {
            Self::SomeKind
        }
    }

    /// Of several sockets: what is worst for hole punching.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |nat| match nat {
            Self::Unknown => 0,
            Self::NoUdp => 1,
            Self::None => 2,
            Self::Independent => 3,
            Self::SomeKind => 4,
            Self::Dependent => 5,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// What one side has to be reached at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sides {
    /// Candidates of any kind.
    any: bool,
    /// An address that everybody can send to, its own or as a NAT shows it.
    outside: bool,
    relayed: bool,
    /// One outside address with several ports: a NAT whose mapping differs.
    dependent: bool,
    v4: bool,
    v6: bool,
}

impl Sides {
    fn of(candidates: &[Candidate]) -> Self {
        let mut sides = Self::default();
        let mut reflexive: Vec<SocketAddr> = Vec::new();
        for candidate in candidates {
            let ip = candidate.address.ip();
            sides.any = true;
            sides.v4 |= ip.is_ipv4();
            sides.v6 |= ip.is_ipv6();
            match candidate.kind {
                CandidateKind::Relayed => sides.relayed = true,
                CandidateKind::Host => sides.outside |= is_public(ip),
                CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => {
                    sides.outside = true;
                    sides.dependent |= reflexive
                        .iter()
                        .any(|other| other.ip() == ip && other.port() != candidate.address.port());
                    reflexive.push(candidate.address);
                }
            }
        }
        sides
    }
}

/// Whether everybody can send there, as far as the address tells.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !ip.is_private() && !ip.is_link_local() && !ip.is_loopback() && !is_shared
        }
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_unicast_link_local(),
    }
}

/// What is known of our side beside its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSide {
    /// What the STUN servers tell.
    pub nat: Nat,
    /// TURN servers are configured.
    pub has_turn: bool,
    /// One of them gave an address.
    pub turn_works: bool,
}

/// Why no path was found between the candidates of both sides, and what would help. For people.
pub fn why_no_path(own: OwnSide, ours: &[Candidate], theirs: &[Candidate]) -> String {
    let (us, them) = (Sides::of(ours), Sides::of(theirs));
    let relayed = us.relayed || them.relayed;
    let turn = "a TURN server (--turn-url) at either end would help";
    if !us.any {
        return "this machine has no address to be reached at; is it connected to a network, and \
                does --interface allow one?"
            .to_owned();
    }
    if !them.any {
        return "the peer told no address; its log says why".to_owned();
    }
    if own.has_turn && !own.turn_works && own.nat == Nat::NoUdp {
        return "no UDP gets out of this network, and no TURN server gives an address: see its state \
                in `status`"
            .to_owned();
    }
    if own.nat == Nat::NoUdp && !us.relayed {
        return "no UDP gets out of this network (no STUN server answers); a TURN server over TLS, \
                such as --turn-url turns:HOST:443, would help"
            .to_owned();
    }
    let common = us.v4 && them.v4 || us.v6 && them.v6;
    if !relayed && !common {
        return format!("one side has only IPv4 and the other only IPv6; {turn}, if it has both");
    }
    if !relayed && own.nat == Nat::Dependent && them.dependent {
        return format!(
            "the NATs of both sides are symmetric, so no hole can be punched; {turn}, or a peer \
             that both reach"
        );
    }
    if !relayed && !them.outside {
        return format!(
            "the peer told no address outside of its own network (no UDP gets out there, or no STUN \
             server answers it); {turn}"
        );
    }
    if own.has_turn && !own.turn_works {
        return "no direct path, and no TURN server gives an address: see its state in `status`"
            .to_owned();
    }
    if !relayed && (own.nat == Nat::Dependent || them.dependent) {
        let whose = if them.dependent { "peer's NAT" } else { "NAT here" };
        return format!(
            "the {whose} is symmetric, and the other side lets nothing in that it does not expect; \
             {turn}, or a ListenPort that is open at the other side"
        );
    }
    if relayed {
        return "not even the TURN servers' addresses answer; a firewall may drop all UDP between them"
            .to_owned();
    }
    format!("a firewall between the two drops what was sent; {turn}, or a peer that both reach")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, address: &str) -> Candidate {
        Candidate { kind, priority: 1, address: address.parse().unwrap() }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_kind_of_a_nat_is_seen_by_two_servers() {
        let local = address("192.168.1.2:4000");
        let (one, two) = (address("203.0.113.1:3478"), address("203.0.113.2:3478"));
        let (mapped, other) = (address("198.51.100.7:4000"), address("198.51.100.7:61000"));
        let elsewhere = address("198.51.100.9:61000");
        for (seen, expected) in [
            (&[][..], Nat::Unknown),
            (&[(one, mapped)], Nat::SomeKind),
            (&[(one, mapped), (one, mapped)], Nat::SomeKind),
            (&[(one, mapped), (two, mapped)], Nat::Independent),
            (&[(one, mapped), (two, other)], Nat::Dependent),
            (&[(one, mapped), (two, elsewhere)], Nat::SomeKind),
            (&[(one, local), (two, mapped)], Nat::SomeKind),
            (&[(one, local)], Nat::None),
        ] {
            assert_eq!(Nat::of(local, seen), expected, "{seen:?}");
        }
        assert_eq!(Nat::None.worse(Nat::Dependent), Nat::Dependent);
        assert_eq!(Nat::Dependent.worse(Nat::NoUdp), Nat::Dependent);
    }

    #[test]
    fn each_cause_is_told_with_what_would_help() {
        use CandidateKind::{Host, Relayed, ServerReflexive};
        let home = |host: &str, outside: &[&str]| -> Vec<Candidate> {
            let outside = outside.iter().map(|address| candidate(ServerReflexive, address));
            [candidate(Host, host)].into_iter().chain(outside).collect()
        };
        let cone = home("192.168.1.2:1", &["198.51.100.1:1"]);
        let symmetric = home("192.168.1.3:1", &["198.51.100.2:1", "198.51.100.2:2"]);
        let closed = home("192.168.1.4:1", &[]);
        let six = vec![candidate(Host, "[2001:db8::1]:1")];
        let by_turn = vec![candidate(Relayed, "203.0.113.1:1")];
        let side = |nat| OwnSide { nat, has_turn: false, turn_works: false };
        let failing = |nat| OwnSide { nat, has_turn: true, turn_works: false };
        let works = |nat| OwnSide { nat, has_turn: true, turn_works: true };
        for (own, ours, theirs, words) in [
            (side(Nat::NoUdp), &closed, &cone, "no UDP gets out of this network"),
            (failing(Nat::NoUdp), &closed, &cone, "no TURN server gives an address"),
            (failing(Nat::Independent), &cone, &cone, "no TURN server gives an address"),
            (side(Nat::Dependent), &symmetric, &symmetric, "both sides are symmetric"),
            (side(Nat::Dependent), &symmetric, &cone, "the NAT here is symmetric"),
            (side(Nat::Independent), &cone, &symmetric, "the peer's NAT is symmetric"),
            (side(Nat::Independent), &cone, &closed, "no address outside of its own network"),
            (side(Nat::None), &six, &cone, "only IPv4 and the other only IPv6"),
            (side(Nat::Independent), &cone, &cone, "a firewall between the two"),
            (works(Nat::Dependent), &by_turn, &cone, "not even the TURN servers'"),
            (side(Nat::Unknown), &vec![], &cone, "no address to be reached at"),
            (side(Nat::Unknown), &cone, &vec![], "the peer told no address"),
        ] {
            let told = why_no_path(own, ours, theirs);
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
