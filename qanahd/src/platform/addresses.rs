//! The machine's own addresses, as candidates for ICE.
//!
//! RFC 8445, section 5.1.1.1, leaves out loopback and addresses that lead to the same place
//! twice. Left out as well: whatever is itself an overlay (TUN and TAP devices, WireGuard, and
//! tunnels such as GRE and VXLAN). A path inside another overlay, or inside our own, works until
//! that overlay moves to a path inside ours. PPP and 6in4 stay: they are how some machines reach
//! the Internet at all. A machine whose only way out is a TAP device (a rootless container) has
//! no host candidates by these rules.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkMessage, State};

use super::PlatformError;
use super::interfaces::Interfaces;
use super::query::{connect, kernel, link_kind, link_name, local_address, routes_by};

/// The most addresses in all: each is a socket, a candidate to send, and pairs to check.
pub(crate) const MAX_ADDRESSES: usize = 16;

/// The most addresses of one family on one interface.
pub(crate) const MAX_PER_FAMILY: usize = 2;

/// The most prefixes of other overlays that are remembered.
const MAX_PREFIXES: usize = 1024;

/// The two halves of everything, which VPNs set in place of a default route.
const SPLIT_DEFAULT: u8 = 1;

/// Beginnings of names that overlays give their interfaces, where the kind does not tell.
const OVERLAY_NAMES: [&str; 4] = ["tailscale", "wg", "zt", "nebula"];

/// An address of this machine that others may reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LocalAddress {
    /// The address.
    pub(crate) ip: IpAddr,
    /// The name of its interface.
    pub(crate) interface: String,
    /// The index of its interface.
    pub(crate) index: u32,
}

/// The addresses of this machine that can be host candidates, the likeliest first, at most
/// [`MAX_ADDRESSES`]. Without those of the interfaces `own` (our own tunnels), without those that
/// `choice` does not allow, and without those inside `inside` (the tunnel's own Address prefixes).
///
/// # Errors
/// Where netlink cannot be asked.
pub(crate) async fn local_addresses(
    own: &[&str],
    choice: &Interfaces,
    inside: &[IpNet],
) -> Result<Vec<LocalAddress>, PlatformError> {
    let netlink = connect()?;
    let links: Result<Vec<LinkMessage>, _> = netlink.link().get().execute().try_collect().await;
    let links = links.map_err(|error| kernel("list the interfaces", error))?;
    let dump: Result<Vec<AddressMessage>, _> =
        netlink.address().get().execute().try_collect().await;
    let dump = dump.map_err(|error| kernel("list the addresses", error))?;
    let links = links.iter().filter_map(|link| Link::of(link, own, choice)).collect();
    Ok(select(&links, dump.iter().filter_map(Address::of).collect(), inside))
}

/// The prefixes that this machine reaches through other overlays that `choice` does not allow, and through our own
/// interfaces (`own`). An address in there is no way to a peer. Default routes do not count: where all
/// traffic goes through another VPN, so does ours.
///
/// # Errors
/// Where netlink cannot be asked.
pub(crate) async fn foreign_prefixes(
    own: &[&str],
    choice: &Interfaces,
) -> Result<Vec<IpNet>, PlatformError> {
    let netlink = connect()?;
    let links: Result<Vec<LinkMessage>, _> = netlink.link().get().execute().try_collect().await;
    let links = links.map_err(|error| kernel("list the interfaces", error))?;
    let foreign: Vec<u32> = links
        .iter()
        .filter(|link| {
            link_name(link).is_some_and(|name| {
                own.contains(&name) || (is_other_overlay(link) && !choice.allow(name, true))
            })
        })
        .map(|link| link.header.index)
        .collect();
    if foreign.is_empty() {
        return Ok(Vec::new());
    }
    let mut prefixes = routes_by(&netlink, &foreign).await?;
    prefixes.retain(|prefix| prefix.prefix_len() > SPLIT_DEFAULT);
    prefixes.truncate(MAX_PREFIXES);
    Ok(prefixes)
}

/// Interfaces that may have candidates, by index.
type Links = HashMap<u32, Link>;

/// What matters of an interface.
#[derive(Debug, Clone)]
struct Link {
    name: String,
    /// Lower is likelier: hardware, then made interfaces, then bridges and dummies (often of
    /// containers and virtual machines, which nobody else reaches).
    rank: u8,
}

impl Link {
    /// The interface, unless it can have no candidates.
    fn of(link: &LinkMessage, own: &[&str], choice: &Interfaces) -> Option<(u32, Self)> {
        let name = link_name(link)?;
        let flags = link.header.flags;
        let kind = link_kind(link);
        // A bridge that never had a port counts as running, in the state "unknown".
        let leads_nowhere = kind == Some(&InfoKind::Bridge)
            && !link.attributes.contains(&LinkAttribute::OperState(State::Up));
        if !flags.contains(LinkFlags::Up | LinkFlags::Running)
            || leads_nowhere
            || flags.contains(LinkFlags::Loopback)
            || own.contains(&name)
            || !choice.allow(name, is_other_overlay(link))
        {
            return None;
        }
        let rank = match kind {
            None => 0,
            Some(InfoKind::Bridge | InfoKind::Dummy) => 2,
            Some(_) => 1,
        };
        Some((link.header.index, Self { name: name.to_owned(), rank }))
    }
}

/// Whether an interface belongs to an overlay, by its kind or its name.
fn is_other_overlay(link: &LinkMessage) -> bool {
    let named = |name: &str| OVERLAY_NAMES.iter().any(|beginning| name.starts_with(beginning));
    link_kind(link).is_some_and(is_overlay) || link_name(link).is_some_and(named)
}

/// Whether interfaces of this kind are overlays by themselves.
fn is_overlay(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Tun
            | InfoKind::Wireguard
            | InfoKind::Vxlan
            | InfoKind::Geneve
            | InfoKind::GreTun
            | InfoKind::GreTap
            | InfoKind::GreTun6
            | InfoKind::GreTap6
            | InfoKind::ErSpan
            | InfoKind::Ip6ErSpan
            | InfoKind::IpIp
            | InfoKind::Ip6Tnl
            | InfoKind::Vti
            | InfoKind::Vti6
            | InfoKind::Xfrm
            | InfoKind::Gtp
            | InfoKind::BareUdp
            | InfoKind::Amt
    )
}

/// What matters of an address.
#[derive(Debug, Clone, Copy)]
struct Address {
    ip: IpAddr,
    index: u32,
    /// A temporary address of IPv6 (RFC 8981): the one to be known by.
    temporary: bool,
    /// Seconds for which new connections should use it.
    preferred: u32,
}

impl Address {
    /// The address, unless others cannot reach it or it is not to be used.
    fn of(message: &AddressMessage) -> Option<Self> {
        let ip = local_address(message)?;
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let mut preferred = u32::MAX;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Flags(all) => flags |= *all,
                AddressAttribute::CacheInfo(info) => preferred = info.ifa_preferred,
                _ => {}
            }
        }
        let unready =
            flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
        if unready
            || flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated)
            || !is_reachable(ip)
        {
            return None;
        }
        let temporary = ip.is_ipv6() && flags.contains(AddressFlags::Secondary);
        Some(Self { ip, index: message.header.index, temporary, preferred })
    }

    /// The order within an interface: temporary before stable, unique local addresses of IPv6
    /// last, and what lasts longest first.
    fn order(&self) -> (bool, bool, Reverse<u32>, IpAddr) {
        (is_local(self.ip), !self.temporary, Reverse(self.preferred), self.ip)
    }
}

/// Whether another machine can send to the address, without knowing an interface of its own.
fn is_reachable(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast(),
        // RFC 8445, section 5.1.1.1, also leaves out IPv4-mapped, IPv4-compatible and site-local
        // addresses.
        IpAddr::V6(ip) => {
            !ip.is_unicast_link_local()
                && ip.to_ipv4().is_none()
                && ip.segments().first().is_some_and(|first| first & 0xffc0 != 0xfec0)
        }
    }
}

/// Choose, order and cut.
fn select(links: &Links, mut addresses: Vec<Address>, inside: &[IpNet]) -> Vec<LocalAddress> {
    addresses.retain(|address| !inside.iter().any(|net| net.contains(&address.ip)));
    addresses.sort_by_key(Address::order);
    // One stable address has its place beside the temporary ones, of which there may be several.
    let mut taken: HashMap<(u32, bool), Vec<Address>> = HashMap::new();
    for address in addresses {
        let of_family = taken.entry((address.index, address.ip.is_ipv6())).or_default();
        let full = of_family.len() >= MAX_PER_FAMILY;
        let one_kind = of_family.iter().all(|other| other.temporary);
        match of_family.last_mut() {
            Some(last) if full && one_kind && !address.temporary && !is_local(address.ip) => {
                *last = address;
            }
            _ if full => {}
            _ => of_family.push(address),
        }
    }
    let mut chosen: Vec<(u8, Address, &str)> = taken
        .into_values()
        .flatten()
        .filter_map(|address| {
            let link = links.get(&address.index)?;
            Some((link.rank, address, link.name.as_str()))
        })
        .collect();
    chosen.sort_by_key(|(rank, address, _)| (*rank, address.index, address.order()));
    chosen
        .into_iter()
        .take(MAX_ADDRESSES)
        .map(|(_, address, name)| LocalAddress {
            ip: address.ip,
            interface: name.to_owned(),
            index: address.index,
        })
        .collect()
}

/// Whether this is a unique local address of IPv6 (RFC 4193).
fn is_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if Ipv6Addr::is_unique_local(&ip))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::packet_route::address::{AddressHeaderFlags, CacheInfo};
    use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

    use super::super::netlink::bring_up;
    use super::super::query::find_link;
    use super::super::testing::{in_namespace, until};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn message(text: &str, flags: AddressFlags, preferred: u32) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.attributes.push(AddressAttribute::Address(ip(text)));
        message.attributes.push(AddressAttribute::Flags(flags));
        let mut info = CacheInfo::default();
        info.ifa_preferred = preferred;
        message.attributes.push(AddressAttribute::CacheInfo(info));
        message
    }

    fn links(count: u32) -> Links {
        (7..7 + count)
            .map(|index| (index, Link { name: format!("eth{}", index - 7), rank: 0 }))
            .collect()
    }

    fn chosen(messages: &[AddressMessage]) -> Vec<IpAddr> {
        let addresses = messages.iter().filter_map(Address::of).collect();
        select(&links(1), addresses, &[]).into_iter().map(|address| address.ip).collect()
    }

    #[test]
    fn addresses_that_nobody_else_can_use_are_left_out() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.3.4",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:192.0.2.1",
            "fec0::1",
        ] {
            assert!(!is_reachable(ip(text)), "{text}");
        }
        for text in ["192.0.2.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_reachable(ip(text)), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_to_be_used_yet_or_any_more_are_left_out() {
        let of = |flags| Address::of(&message("2001:db8::1", flags, 100)).is_some();
        assert!(of(AddressFlags::Permanent));
        assert!(of(AddressFlags::Tentative | AddressFlags::Optimistic));
        assert!(!of(AddressFlags::Tentative));
        assert!(!of(AddressFlags::Dadfailed));
        assert!(!of(AddressFlags::Deprecated));
        // Flags of the header count as well.
        let mut old = message("2001:db8::1", AddressFlags::empty(), 100);
        old.header.flags = AddressHeaderFlags::Tentative;
        assert!(Address::of(&old).is_none());
    }

    #[test]
    fn one_temporary_and_one_stable_address_are_kept() {
        let temporary = AddressFlags::Secondary;
        let stable = AddressFlags::Permanent;
        let messages = [
            message("fd00::5", stable, u32::MAX),
            message("2001:db8::5", stable, 5000),
            message("2001:db8::a", temporary, 200),
            message("2001:db8::b", temporary, 400),
            message("192.0.2.5", stable, 5000),
        ];
        assert_eq!(chosen(&messages), ["2001:db8::b", "192.0.2.5", "2001:db8::5"].map(ip));
        // Without a stable one, two temporary ones; without either, the local one.
        assert_eq!(chosen(&messages[2..4]), ["2001:db8::b", "2001:db8::a"].map(ip));
        assert_eq!(chosen(&messages[..1]), ["fd00::5"].map(ip));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let addresses: Vec<Address> = (7..27)
            .flat_map(|index| {
                (1..5).map(move |host| Address {
                    ip: Ipv4Addr::new(10, 0, u8::try_from(index).unwrap(), host).into(),
                    index,
                    temporary: false,
                    preferred: u32::MAX,
                })
            })
            .collect();
        let mut links = links(20);
        // The likelier interface comes first, whatever its index.
        for (index, link) in &mut links {
            link.rank = u8::from(*index != 26);
        }
        let chosen = select(&links, addresses, &[]);
        assert_eq!(chosen.len(), MAX_ADDRESSES);
        assert_eq!(chosen[0].ip, ip("10.0.26.1"));
        for address in &chosen {
            let same = chosen.iter().filter(|other| other.index == address.index).count();
            assert_eq!(same, MAX_PER_FAMILY);
        }
    }

    async fn make_up(netlink: &Handle, name: &str, addresses: &[(&str, u8)]) {
        let index = find_link(netlink, name).await.unwrap().unwrap().header.index;
        for (address, length) in addresses {
            let mut request = netlink.address().add(index, ip(address), *length);
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            request.execute().await.unwrap();
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        netlink.link().change(up).execute().await.unwrap();
    }

    #[test]
    fn of_a_machine_only_the_addresses_of_real_interfaces_are_chosen() {
        in_namespace(|| async {
            let netlink = connect().unwrap();
            for (one, other) in [("eth0", "far0"), ("eth1", "far1"), ("wgx", "far2")] {
                let pair = LinkVeth::new(one, other).build();
                netlink.link().add(pair).execute().await.unwrap();
            }
            netlink.link().add(LinkBridge::new("docker0").build()).execute().await.unwrap();
            make_up(&netlink, "lo", &[("192.0.2.99", 32)]).await;
            make_up(&netlink, "eth0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]).await;
            make_up(&netlink, "far0", &[]).await;
            // Its other end stays down: no carrier.
            make_up(&netlink, "eth1", &[("198.51.100.1", 24)]).await;
            make_up(&netlink, "wgx", &[("203.0.113.1", 24)]).await;
            make_up(&netlink, "far2", &[]).await;
            make_up(&netlink, "docker0", &[("172.17.0.1", 16)]).await;
            let addresses = ["10.9.0.1/24", "fd00:9::1/64"].map(|text| text.parse().unwrap());
            let steps = qanah_core::plan::plan("peer1", &addresses, 1400, []).unwrap();
            let tunnel = bring_up(&steps).await.unwrap();

            let expected = ["192.0.2.1", "2001:db8::1"].map(ip);
            let everything = Interfaces::default();
            let ips = async |exclude: &[&str], inside: &[&str]| {
                let inside: Vec<IpNet> = inside.iter().map(|net| net.parse().unwrap()).collect();
                let found = local_addresses(exclude, &everything, &inside).await.unwrap();
                let mut ips: Vec<IpAddr> = found.iter().map(|address| address.ip).collect();
                ips.sort();
                ips
            };
            // The kernel tells of the carrier a moment after the link is up.
            until("one interface counts", async || ips(&[], &[]).await == expected).await;
            let found = local_addresses(&[], &everything, &[]).await.unwrap();
            assert!(found.iter().all(|address| address.interface == "eth0"));
            assert_eq!(ips(&["eth0"], &[]).await, Vec::<IpAddr>::new());
            assert_eq!(ips(&["eth"], &[]).await, expected);
            assert_eq!(ips(&[], &["192.0.2.0/28"]).await, [ip("2001:db8::1")]);
            assert_eq!(ips(&[], &["2001:db8::/32"]).await, [ip("192.0.2.1")]);

            let chosen = |only: &[&str], except: &[&str]| {
                let patterns = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
                Interfaces { only: patterns(only), except: patterns(except) }
            };
            for (only, except, expected) in [
                (&["wg?"][..], &[][..], &["203.0.113.1"][..]),
                (&["eth*"], &["eth0"], &[]),
                (&[], &["e*"], &[]),
                (&["wgx", "eth0"], &["wgx"], &["192.0.2.1", "2001:db8::1"]),
            ] {
                let found = local_addresses(&[], &chosen(only, except), &[]).await.unwrap();
                let mut found: Vec<String> = found.iter().map(|it| it.ip.to_string()).collect();
                found.sort();
                assert_eq!(found, expected, "{only:?} {except:?}");
            }
            let foreign = foreign_prefixes(&["peer1"], &everything).await.unwrap();
            for (text, is_foreign) in [
                ("203.0.113.77", true),
                ("10.9.0.7", true),
                ("fd00:9::7", true),
                ("192.0.2.7", false),
                ("2001:db8::7", false),
            ] {
                let inside = foreign.iter().any(|prefix| prefix.contains(&ip(text)));
                assert_eq!(inside, is_foreign, "{text} in {foreign:?}");
            }

            // With its other end up, the second interface counts; so does a bridge with a port.
            make_up(&netlink, "far1", &[]).await;
            until("the second counts", async || ips(&[], &[]).await.contains(&ip("198.51.100.1")))
                .await;
            let bridge = find_link(&netlink, "docker0").await.unwrap().unwrap().header.index;
            let port = find_link(&netlink, "far0").await.unwrap().unwrap().header.index;
            let port = LinkUnspec::new_with_index(port).controller(bridge).build();
            netlink.link().change(port).execute().await.unwrap();
            until("the bridge counts", async || ips(&[], &[]).await.contains(&ip("172.17.0.1")))
                .await;
            tunnel.undo().await.unwrap();
        });
    }
}
