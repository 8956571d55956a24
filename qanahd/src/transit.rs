//! Packets for addresses that belong to no configured peer of their sender: a relay routes them, one hop.
//!
//! What is sent, forwarded and accepted this way, and nothing else (`proto/PROTOCOL.md`, section 13.2):
//!
//! | who | what |
//! |---|---|
//! | sender | destination in a prefix of its own `Address` lines, in nobody's allowed IPs; to one relay |
//! | relay | source in the sender's allowed IPs; once, to the peer that owns the destination or its own TUN, never back |
//! | receiver | destination an address of its own; source in a prefix of its own `Address` lines, no address of its own, in nobody's allowed IPs |

use std::net::IpAddr;

use ipnet::IpNet;
use qanah_core::frame::{FrameBuf, FrameType, packets};
use qanah_core::packet::{IcmpError, Packet, icmp_error, take_hop};
use qanah_core::router::{PeerId, Router};

use crate::clock;
use crate::downlink::Inbound;
use crate::egress::Waiting;
use crate::relay::RelayDesk;
use crate::stats::Drop;

/// The tunnel's own addresses with their prefixes.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses(Vec<IpNet>);

impl OwnAddresses {
    pub(crate) fn new(addresses: Vec<IpNet>) -> Self {
        Self(addresses)
    }

    /// Whether this is an address of ours.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.addr() == ip)
    }

    /// Whether another machine may have this address in the network of one of ours.
    pub(crate) fn is_neighbour(&self, ip: IpAddr) -> bool {
        !ip.is_multicast()
            && !ip.is_unspecified()
            && !self.is_own(ip)
            && self.0.iter().any(|net| net.contains(&ip) && names_one_host(net, ip))
    }

    /// One of ours, of the family of that one.
    fn of_family(&self, ip: IpAddr) -> Option<IpAddr> {
        self.0.iter().map(IpNet::addr).find(|own| own.is_ipv4() == ip.is_ipv4())
    }
}

/// The first and the last address of an IPv4 network name all of it (RFC 1122, section 3.2.1.3), except where
/// there are but two (RFC 3021).
fn names_one_host(net: &IpNet, ip: IpAddr) -> bool {
    ip.is_ipv6() || net.prefix_len() >= 31 || (ip != net.network() && ip != net.broadcast())
}

impl RelayDesk {
    /// Routes packets that a peer wants us to route.
    pub(crate) fn route(&self, inbound: &Inbound, plaintext: &[u8]) {
        let router = inbound.router.borrow().clone();
        for packet in packets(plaintext) {
            match packet {
                Ok(packet) => self.route_one(inbound, &router, &packet),
                Err(_) => return inbound.stats.drops.count(Drop::BadPacket),
            }
        }
    }

    fn route_one(&self, inbound: &Inbound, router: &Router, packet: &Packet<'_>) {
        let from = inbound.address.peer;
        let drops = &inbound.stats.drops;
        if !router.owns(from, packet.src()) {
            return drops.count(Drop::SpoofedSource);
        }
        let owner = router.route(packet.dst());
        match owner.filter(|_| !self.own.borrow().is_own(packet.dst())) {
            Some(to) if to == from => drops.count(Drop::RelayRefused),
            Some(to) => self.forward(inbound, to, packet),
            // An address of ours, or one that the kernel knows what to do with.
            None => inbound.hand_over(packet.as_bytes()),
        }
    }

    /// One hop, as through a router.
    fn forward(&self, inbound: &Inbound, to: PeerId, packet: &Packet<'_>) {
        let (from, drops) = (inbound.address.peer, &inbound.stats.drops);
        let len = packet.as_bytes().len();
        let mut copy = FrameBuf::with_capacity(len);
        if copy.push_packet(packet).is_err() {
            return drops.count(Drop::TooLarge);
        }
        if !take_hop(copy.plaintext_mut(), packet.version()) {
            return self.refuse(from, packet, IcmpError::TimeExceeded);
        }
        let passed = self.senders.borrow_mut().pass_on(from, to, FrameType::Routed, copy);
        if let Err(cause) = passed {
            self.books.not_passed(from, to, cause);
            self.refuse(from, packet, IcmpError::Unreachable);
        }
    }

    /// Tells the sender that its packet ended here.
    fn refuse(&self, sender: PeerId, packet: &Packet<'_>, why: IcmpError) {
        let from = self.own.borrow().of_family(packet.src());
        if !self.icmp.borrow_mut().allows(clock::now()) {
            return;
        }
        let Some(error) = icmp_error(packet, from, why) else {
            return;
        };
        let mut buf = FrameBuf::with_capacity(error.len());
        if buf.push(&error).is_ok() {
            // It is an answer to a packet that was lost: if it is lost too, so be it.
            let mut senders = self.senders.borrow_mut();
            if senders.queue(sender, Waiting::packet(buf)).is_ok() {
                senders.pump_all();
            }
        }
    }

    /// Takes packets that a relay has routed to us.
    pub(crate) fn deliver_routed(&self, inbound: &Inbound, plaintext: &[u8]) {
        let router = inbound.router.borrow();
        let own = self.own.borrow();
        for packet in packets(plaintext) {
            let Ok(packet) = packet else {
                return inbound.stats.drops.count(Drop::BadPacket);
            };
            let is_stranger = router.route(packet.src()).is_none();
            if is_stranger && own.is_neighbour(packet.src()) && own.is_own(packet.dst()) {
                inbound.hand_over(packet.as_bytes());
            } else {
                inbound.stats.drops.count(Drop::SpoofedSource);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_are_single_hosts_in_our_networks() {
        let nets = ["10.0.0.1/24", "192.0.2.1/31", "198.51.100.1/32", "fd00::1/64"];
        let own = OwnAddresses::new(nets.map(|net| net.parse().unwrap()).to_vec());
        for text in ["10.0.0.2", "10.0.0.254", "192.0.2.0", "fd00::", "fd00::2", "fd00::ffff"] {
            assert!(own.is_neighbour(ip(text)), "{text}");
        }
        for text in [
            "10.0.0.1",
            "10.0.0.0",
            "10.0.0.255",
            "10.0.1.1",
            "192.0.2.1",
            "198.51.100.1",
            "198.51.100.2",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fd00::1",
            "fd00:0:0:1::1",
            "ff02::1",
            "fe80::1",
            "::",
        ] {
            assert!(!own.is_neighbour(ip(text)), "{text}");
        }
        assert!(own.is_own(ip("fd00::1")) && !own.is_own(ip("fd00::2")));
        assert_eq!(own.of_family(ip("2001:db8::1")), Some(ip("fd00::1")));
        assert_eq!(OwnAddresses::default().of_family(ip("10.0.0.1")), None);
        // Not even the whole world makes a neighbour of everybody.
        let all = OwnAddresses::new(vec!["10.0.0.1/0".parse().unwrap()]);
        assert!(all.is_neighbour(ip("8.8.8.8")) && !all.is_neighbour(ip("224.0.0.1")));
    }
}
