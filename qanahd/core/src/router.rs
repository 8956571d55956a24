//! The allowed IPs of all peers: longest prefix first.
//!
//! WireGuard calls it cryptokey routing: the same table says to whom a packet goes and from whom
//! one may come (WireGuard paper, section 2).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Names a peer within its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// Which peer owns which addresses. Never changed after it was built: a reload builds another.
#[derive(Debug, Clone, Default)]
pub struct Router {
    // Two tables, so that an IPv4-mapped IPv6 address never meets an IPv4 prefix.
    v4: PrefixMap<Ipv4Net, PeerId>,
    v6: PrefixMap<Ipv6Net, PeerId>,
}

impl Router {
    /// Builds the table. Host bits are ignored; of the same prefix given twice the last one holds,
    /// as in WireGuard.
    pub fn new(prefixes: impl IntoIterator<Item = (PeerId, IpNet)>) -> Self {
        let mut router = Self::default();
        for (peer, prefix) in prefixes {
            match prefix {
                IpNet::V4(prefix) => router.v4.insert(prefix.trunc(), peer),
                IpNet::V6(prefix) => router.v6.insert(prefix.trunc(), peer),
            };
        }
        router
    }

    /// The peer that a packet to `dst` goes to.
    pub fn route(&self, dst: IpAddr) -> Option<PeerId> {
        match dst {
            IpAddr::V4(dst) => self.v4.get_lpm(&dst.into()).map(|(_, peer)| *peer),
            IpAddr::V6(dst) => self.v6.get_lpm(&dst.into()).map(|(_, peer)| *peer),
        }
    }

    /// Whether a packet from `src` may come from `peer`: the longest prefix around it is this
    /// very peer's.
    pub fn owns(&self, peer: PeerId, src: IpAddr) -> bool {
        self.route(src) == Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn router(prefixes: &[(u32, &str)]) -> Router {
        let parse = |(peer, text): &(u32, &str)| (PeerId(*peer), text.parse().unwrap());
        Router::new(prefixes.iter().map(parse))
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_in_both_directions() {
        let table = router(&[(1, "10.0.0.0/8"), (2, "10.1.0.0/16"), (3, "10.1.2.3/32")]);
        assert_eq!(table.route(addr("10.9.9.9")), Some(PeerId(1)));
        assert_eq!(table.route(addr("10.1.9.9")), Some(PeerId(2)));
        assert_eq!(table.route(addr("10.1.2.3")), Some(PeerId(3)));
        assert_eq!(table.route(addr("11.0.0.1")), None);
        assert!(table.owns(PeerId(3), addr("10.1.2.3")));
        // Peer 1 has a prefix around this address too, but not the longest.
        assert!(!table.owns(PeerId(1), addr("10.1.2.3")));
        assert!(!table.owns(PeerId(1), addr("11.0.0.1")));
    }

    #[test]
    fn default_routes_catch_one_family_only() {
        let table = router(&[(1, "0.0.0.0/0")]);
        assert_eq!(table.route(addr("192.0.2.1")), Some(PeerId(1)));
        assert_eq!(table.route(addr("2001:db8::1")), None);
        let table = router(&[(1, "::/0")]);
        assert_eq!(table.route(addr("192.0.2.1")), None);
        assert_eq!(table.route(addr("2001:db8::1")), Some(PeerId(1)));
    }

    #[test]
    fn mapped_addresses_are_not_ipv4() {
        let table = router(&[(1, "10.0.0.0/8"), (2, "::ffff:0:0/96")]);
        assert_eq!(table.route(addr("::ffff:10.0.0.1")), Some(PeerId(2)));
        assert_eq!(table.route(addr("10.0.0.1")), Some(PeerId(1)));
        assert_eq!(router(&[(1, "10.0.0.0/8")]).route(addr("::ffff:10.0.0.1")), None);
    }

    #[test]
    fn host_bits_are_ignored_and_the_last_of_two_holds() {
        let table = router(&[(1, "10.0.0.1/24"), (2, "10.0.0.2/24"), (3, "fd00::5/64")]);
        assert_eq!(table.route(addr("10.0.0.200")), Some(PeerId(2)));
        assert_eq!(table.route(addr("fd00::1")), Some(PeerId(3)));
    }

    /// The same by definition: look at every prefix.
    fn naive(prefixes: &[(PeerId, IpNet)], dst: IpAddr) -> Option<PeerId> {
        prefixes
            .iter()
            .filter(|(_, prefix)| prefix.contains(&dst))
            .max_by_key(|(_, prefix)| prefix.prefix_len())
            .map(|(peer, _)| *peer)
    }

    /// Few distinct bits, so that prefixes nest and addresses fall into them.
    fn any_addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (any::<u32>(), any::<u32>())
                .prop_map(|(a, b)| Ipv4Addr::from(a & b & 0x8101_0103).into()),
            (any::<u128>(), any::<u128>())
                .prop_map(|(a, b)| Ipv6Addr::from(a & b & (0x8101 << 112 | 0x0103)).into()),
            any::<u32>().prop_map(|a| Ipv4Addr::from(a).into()),
            any::<u128>().prop_map(|a| Ipv6Addr::from(a).into()),
            any::<u32>().prop_map(|a| Ipv4Addr::from(a & 0x8101_0103).to_ipv6_mapped().into()),
        ]
    }

    fn any_prefix() -> impl Strategy<Value = (PeerId, IpNet)> {
        (any_addr(), 0_u8..=128, 0_u32..8).prop_map(|(addr, len, peer)| {
            let most = if addr.is_ipv4() { 32 } else { 128 };
            (PeerId(peer), IpNet::new(addr, len % (most + 1)).unwrap())
        })
    }

    proptest! {
        #[test]
        fn behaves_as_a_linear_search(
            prefixes in prop::collection::vec(any_prefix(), 0..40),
            addrs in prop::collection::vec(any_addr(), 1..40),
        ) {
            let table = Router::new(prefixes.iter().copied());
            let inside = prefixes.iter().map(|(_, prefix)| prefix.broadcast());
            for addr in addrs.into_iter().chain(inside) {
                let owner = naive(&prefixes, addr);
                prop_assert_eq!(table.route(addr), owner);
                for peer in (0..8).map(PeerId) {
                    prop_assert_eq!(table.owns(peer, addr), owner == Some(peer));
                }
            }
        }
    }
}
