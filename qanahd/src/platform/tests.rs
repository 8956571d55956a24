//! Plans applied in network namespaces of the tests' own, and read back from the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use qanah_core::plan::{Step, plan};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::net::UdpSocket;

use super::PlatformError;
use super::netlink::bring_up;
use super::query::{connect, find_link, local_address};
use super::testing::{in_namespace, routes};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Two addresses; of each family a covered prefix and a routed one.
fn steps() -> Vec<Step> {
    let allowed = ["10.9.0.2/32", "10.77.0.0/16", "fd00:9::2/128", "fd00:77::/48"].map(net);
    plan("peer1", &[net("10.9.0.1/24"), net("fd00:9::1/64")], 1400, allowed).unwrap()
}

async fn links(netlink: &Handle) -> Vec<LinkMessage> {
    netlink.link().get().execute().try_collect().await.unwrap()
}

async fn addresses(netlink: &Handle) -> Vec<AddressMessage> {
    netlink.address().get().execute().try_collect().await.unwrap()
}

/// How many links, addresses and routes there are, to compare before and after. Without routes
/// over `lo` (interface 1 of every namespace): the kernel adds those of IPv6 in its own time.
async fn snapshot(netlink: &Handle) -> (usize, usize, usize) {
    let mut routes = routes(netlink).await;
    routes.retain(|route| !route.attributes.contains(&RouteAttribute::Oif(1)));
    (links(netlink).await.len(), addresses(netlink).await.len(), routes.len())
}

async fn index_of(netlink: &Handle, name: &str) -> u32 {
    find_link(netlink, name).await.unwrap().unwrap().header.index
}

fn has_route(routes: &[RouteMessage], index: u32, prefix: &str) -> bool {
    let prefix = net(prefix);
    routes.iter().any(|route| {
        let destination = RouteAttribute::Destination(match prefix.addr() {
            IpAddr::V4(ip) => rtnetlink::packet_route::route::RouteAddress::Inet(ip),
            IpAddr::V6(ip) => rtnetlink::packet_route::route::RouteAddress::Inet6(ip),
        });
        route.header.destination_prefix_length == prefix.prefix_len()
            && route.attributes.contains(&destination)
            && route.attributes.contains(&RouteAttribute::Oif(index))
    })
}

#[test]
fn a_plan_is_applied_and_taken_back() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        let applied = bring_up(&steps()).await.unwrap();
        let index = applied.index();

        let link = find_link(&netlink, "peer1").await.unwrap().unwrap();
        assert_eq!(link.header.index, index);
        assert!(link.header.flags.contains(LinkFlags::Up));
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1400)));

        let ours: Vec<_> =
            addresses(&netlink).await.into_iter().filter(|a| a.header.index == index).collect();
        let mut ips: Vec<_> =
            ours.iter().map(|a| (local_address(a).unwrap(), a.header.prefix_len)).collect();
        ips.sort();
        // Exactly these: no link-local address either.
        assert_eq!(ips, [("10.9.0.1".parse().unwrap(), 24), ("fd00:9::1".parse().unwrap(), 64)]);
        for address in &ours {
            let flags = address.attributes.iter().find_map(|a| match a {
                AddressAttribute::Flags(flags) => Some(*flags),
                _ => None,
            });
            assert!(!flags.unwrap().intersects(AddressFlags::Tentative | AddressFlags::Dadfailed));
            assert!(
                !address.attributes.iter().any(|a| matches!(a, AddressAttribute::Broadcast(_)))
            );
        }

        let all = routes(&netlink).await;
        for prefix in ["10.9.0.0/24", "10.77.0.0/16", "fd00:9::/64", "fd00:77::/48"] {
            assert!(has_route(&all, index, prefix), "no route to {prefix}");
        }
        for covered in ["10.9.0.2/32", "fd00:9::2/128"] {
            assert!(!has_route(&all, index, covered), "a needless route to {covered}");
        }

        applied.undo().await.unwrap();
        assert!(find_link(&netlink, "peer1").await.unwrap().is_none());
        assert_eq!(snapshot(&netlink).await, before);
    });
}

#[test]
fn a_tunnel_that_was_deleted_by_hand_is_undone_without_an_error() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        let applied = bring_up(&steps()).await.unwrap();
        let reader = tokio::task::spawn_local({
            let device = applied.device().clone();
            async move { while device.recv(&mut [0; 2000]).await.is_ok() {} }
        });
        netlink.link().del(applied.index()).execute().await.unwrap();
        // A reader learns of it by an error, and is not left waiting.
        reader.await.unwrap();
        assert!(applied.device().try_send(&[0x45; 40]).is_err());
        applied.undo().await.unwrap();
        assert_eq!(snapshot(&netlink).await, before);
    });
}

#[test]
fn a_dropped_tunnel_leaves_nothing() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        drop(bring_up(&steps()).await.unwrap());
        assert_eq!(snapshot(&netlink).await, before);
    });
}

#[test]
fn a_taken_name_is_refused_with_its_owner() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let pair = LinkVeth::new("peer1", "other").build();
        netlink.link().add(pair).execute().await.unwrap();
        let before = snapshot(&netlink).await;
        let error = bring_up(&steps()).await.err().unwrap();
        assert!(matches!(&error, PlatformError::NameTaken { name, .. } if name == "peer1"));
        assert!(error.to_string().contains("an interface of kind veth"), "{error}");
        assert_eq!(snapshot(&netlink).await, before);
        netlink.link().del(index_of(&netlink, "peer1").await).execute().await.unwrap();

        let first = bring_up(&steps()).await.unwrap();
        let error = bring_up(&steps()).await.err().unwrap().to_string();
        assert!(error.contains("taken by a TUN or TAP device"), "{error}");
        first.undo().await.unwrap();
    });
}

#[test]
fn a_taken_address_is_refused_before_anything_is_done() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let lo = index_of(&netlink, "lo").await;
        for taken in ["10.9.0.1", "fd00:9::1"] {
            let taken: IpAddr = taken.parse().unwrap();
            // With another prefix length: it is the address that counts.
            let length = if taken.is_ipv4() { 32 } else { 128 };
            netlink.address().add(lo, taken, length).execute().await.unwrap();
            let before = snapshot(&netlink).await;
            let error = bring_up(&steps()).await.err().unwrap().to_string();
            assert!(error.contains(&format!("the address {taken} is already on lo")), "{error}");
            assert_eq!(snapshot(&netlink).await, before);
            let mut address = netlink.address().add(lo, taken, length);
            let message = address.message_mut().clone();
            netlink.address().del(message).execute().await.unwrap();
        }
        bring_up(&steps()).await.unwrap().undo().await.unwrap();
    });
}

#[test]
fn a_route_of_another_interface_fails_the_start_and_undoes_it() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let lo = index_of(&netlink, "lo").await;
        let up = LinkUnspec::new_with_index(lo).up().build();
        netlink.link().change(up).execute().await.unwrap();
        for (prefix, foreign) in [
            (
                "10.77.0.0/16",
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(Ipv4Addr::new(10, 77, 0, 0), 16)
                    .output_interface(lo)
                    .build(),
            ),
            (
                "fd00:77::/48",
                RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                    .destination_prefix("fd00:77::".parse().unwrap(), 48)
                    .output_interface(lo)
                    .build(),
            ),
        ] {
            netlink.route().add(foreign.clone()).execute().await.unwrap();
            let before = snapshot(&netlink).await;
            let error = bring_up(&steps()).await.err().unwrap().to_string();
            let expected = format!("there is already a route to {prefix} (by lo)");
            assert!(error.contains(&expected), "{error}");
            assert!(has_route(&routes(&netlink).await, lo, prefix), "the other route is gone");
            assert_eq!(snapshot(&netlink).await, before);
            netlink.route().del(foreign).execute().await.unwrap();
        }
    });
}

#[test]
fn disabled_ipv6_is_named_as_such() {
    in_namespace(|| async {
        // The file is the one of this thread's network namespace.
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        let error = bring_up(&steps()).await.err().unwrap().to_string();
        assert!(error.contains("add the address fd00:9::1/64: IPv6 is disabled"), "{error}");
        assert!(error.contains("net.ipv6.conf.all.disable_ipv6=0"), "{error}");

        let only_a_route =
            plan("peer1", &[net("10.9.0.1/24")], 1400, [net("fd00:77::/48")]).unwrap();
        let error = bring_up(&only_a_route).await.err().unwrap().to_string();
        assert!(error.contains("add the route to fd00:77::/48: IPv6 is disabled"), "{error}");
        assert_eq!(snapshot(&netlink).await, before);

        let v4 = plan("peer1", &[net("10.9.0.1/24")], 1400, []).unwrap();
        bring_up(&v4).await.unwrap().undo().await.unwrap();
    });
}

#[test]
fn a_plan_out_of_order_is_refused() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        let twice = [steps(), steps()].concat();
        for bad in [&steps()[1..], &[], &twice] {
            assert!(matches!(bring_up(bad).await.err(), Some(PlatformError::Unordered)));
        }
        assert_eq!(snapshot(&netlink).await, before);
    });
}

/// An IPv4 UDP packet; the UDP checksum is left out, as IPv4 allows (RFC 768).
fn udp_packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    let sum: u32 =
        packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn packets_pass_both_ways_whole_and_without_a_header() {
    in_namespace(|| async {
        let applied = bring_up(&steps()).await.unwrap();
        let device = applied.device();
        let (ours, peer) = (Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2));
        let socket = UdpSocket::bind((ours, 7000)).await.unwrap();

        let mut buffer = [0; 2000];
        for size in [0, 1, 1372] {
            let payload = vec![0xab; size];
            socket.send_to(&payload, (peer, 7001)).await.unwrap();
            let (length, _) = device.recv(&mut buffer).await.unwrap();
            let packet = &buffer[..length];
            assert_eq!((packet[0], length), (0x45, 28 + size));
            assert_eq!(
                (&packet[12..16], &packet[16..20]),
                (&ours.octets()[..], &peer.octets()[..])
            );
            assert_eq!(packet[28..], payload);

            device.try_send(&udp_packet((peer, 7001), (ours, 7000), &payload)).unwrap();
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (&payload[..], SocketAddr::from((peer, 7001))));
        }

        // Nothing waits: the interface says nothing of its own accord.
        let idle = device.try_recv(&mut buffer).unwrap_err();
        assert_eq!(idle.kind(), std::io::ErrorKind::WouldBlock);
        socket.send_to(b"x", (peer, 7001)).await.unwrap();
        assert_eq!(device.try_recv(&mut buffer).unwrap().0, 29);

        assert!(device.try_send(&[]).is_err());
        assert!(device.try_send(&[0; 40]).is_err());
        applied.undo().await.unwrap();
    });
}

#[test]
fn ipv6_packets_reach_the_device_at_once() {
    in_namespace(|| async {
        let applied = bring_up(&steps()).await.unwrap();
        // A tentative address cannot be bound.
        let socket = UdpSocket::bind("[fd00:9::1]:7000").await.unwrap();
        socket.send_to(b"ping", "[fd00:77::5]:7001").await.unwrap();
        let mut buffer = [0; 2000];
        loop {
            // The kernel may report its multicast groups first.
            let (length, _) = applied.device().recv(&mut buffer).await.unwrap();
            assert_eq!(buffer[0] >> 4, 6);
            if buffer[6] == 17 {
                assert_eq!(&buffer[length - 4..length], b"ping");
                break;
            }
        }
        applied.undo().await.unwrap();
    });
}

#[test]
fn a_plan_in_force_becomes_another_and_what_both_have_stays() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let before = snapshot(&netlink).await;
        let mut applied = bring_up(&steps()).await.unwrap();
        let index = applied.index();
        let allowed = ["10.77.0.0/16", "10.78.0.0/16", "10.9.0.0/24", "fd00:77::/48"].map(net);
        // The only IPv4 address goes, and the kernel would take the IPv4 routes with it.
        let other = plan("peer1", &[net("fd00:9::1/72")], 1300, allowed).unwrap();
        let changes = applied.change(&other).await.unwrap();
        assert!(!changes.is_empty());
        let all = routes(&netlink).await;
        for prefix in ["10.77.0.0/16", "10.78.0.0/16", "10.9.0.0/24", "fd00:77::/48", "fd00:9::/72"]
        {
            assert!(has_route(&all, index, prefix), "no route to {prefix}");
        }
        let link = find_link(&netlink, "peer1").await.unwrap().unwrap();
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1300)));

        // Two of a subnet, of which the first one goes: the kernel would take the second with it.
        let of = |texts: &[&str]| {
            let addresses: Vec<IpNet> = texts.iter().map(|text| net(text)).collect();
            plan("peer1", &addresses, 1400, []).unwrap()
        };
        applied.change(&of(&["10.9.0.1/24", "10.9.0.5/24"])).await.unwrap();
        applied.change(&of(&["10.9.0.5/24"])).await.unwrap();
        let ours: Vec<_> = addresses(&netlink)
            .await
            .iter()
            .filter(|a| a.header.index == index)
            .filter_map(local_address)
            .collect();
        assert_eq!(ours, ["10.9.0.5".parse::<IpAddr>().unwrap()]);
        applied.undo().await.unwrap();
        assert_eq!(snapshot(&netlink).await, before);
    });
}

#[test]
fn a_change_that_fails_is_taken_back() {
    in_namespace(|| async {
        let netlink = connect().unwrap();
        let first = plan("other", &[net("10.50.0.1/24")], 1400, [net("10.60.0.0/16")]).unwrap();
        let _other = bring_up(&first).await.unwrap();
        let mut applied = bring_up(&steps()).await.unwrap();
        // Without those to the machine itself, which the kernel adds in its own time.
        let state = async || {
            let mut routes = routes(&netlink).await;
            routes.retain(|route| route.header.table == RouteHeader::RT_TABLE_MAIN);
            (addresses(&netlink).await, routes.len())
        };
        let with_it = state().await;
        // The route is the other tunnel's.
        let allowed = [net("10.99.0.0/16"), net("10.60.0.0/16")];
        let clash = plan("peer1", &[net("10.9.0.7/24")], 1300, allowed).unwrap();
        let error = applied.change(&clash).await.unwrap_err();
        assert!(matches!(error, PlatformError::RouteExists { .. }), "{error}");
        let taken = plan("peer1", &[net("10.50.0.1/32")], 1400, []).unwrap();
        let error = applied.change(&taken).await.unwrap_err();
        assert!(matches!(error, PlatformError::AddressTaken { .. }), "{error}");
        assert_eq!(state().await, with_it);
        assert_eq!(applied.change(&steps()).await.unwrap(), []);
    });
}
