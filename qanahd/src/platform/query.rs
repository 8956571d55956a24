//! Questions to rtnetlink, and what its messages say.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::PlatformError;

/// A connection to rtnetlink, served by a task that ends when the last handle is dropped.
pub(super) fn connect() -> Result<Handle, PlatformError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|e| PlatformError::of("open a netlink socket", e))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The machine's own address in an address message; on a point-to-point link `IFA_ADDRESS` is
/// the other end's.
pub(super) fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    address
}

/// The name in a link message.
pub(super) fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The kind (`IFLA_INFO_KIND`) in a link message; hardware has none.
pub(super) fn link_kind(link: &LinkMessage) -> Option<&InfoKind> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

pub(super) fn kind_in_words(link: &LinkMessage) -> String {
    match link_kind(link) {
        Some(InfoKind::Tun) => "a TUN or TAP device, of another process or a persistent one".into(),
        Some(kind) => format!("an interface of kind {kind}"),
        None => "another network interface".to_owned(),
    }
}

pub(super) async fn find_link(
    netlink: &Handle,
    name: &str,
) -> Result<Option<LinkMessage>, rtnetlink::Error> {
    match netlink.link().get().match_name(name).execute().try_next().await {
        Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
        result => result,
    }
}

/// The name of an interface, or its number when it is gone: this is for messages only.
pub(super) async fn name_of(netlink: &Handle, index: u32) -> String {
    let link = netlink.link().get().match_index(index).execute().try_next().await;
    let name = link.ok().flatten().and_then(|link| link_name(&link).map(str::to_owned));
    name.unwrap_or_else(|| format!("interface {index}"))
}

/// Who has the route to `prefix` in the main table, for a message. Stops at the first match, and
/// gives up quietly: the message does without.
pub(super) async fn route_owner(netlink: &Handle, prefix: IpNet) -> Option<String> {
    let dump = match prefix {
        IpNet::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        IpNet::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    };
    let request = netlink.route().get(dump).execute();
    let mut routes = std::pin::pin!(request.try_filter(|message| {
        let same = message.header.table == RouteHeader::RT_TABLE_MAIN
            && message.header.destination_prefix_length == prefix.prefix_len()
            && destination(message) == Some(prefix.network());
        std::future::ready(same)
    }));
    let message = routes.try_next().await.ok()??;
    let index = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    Some(name_of(netlink, index).await)
}

/// The destinations of all routes, of whatever table, through these interfaces.
pub(super) async fn routes_by(
    netlink: &Handle,
    interfaces: &[u32],
) -> Result<Vec<IpNet>, PlatformError> {
    let dumps = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    let mut found = Vec::new();
    for dump in dumps {
        let routes: Result<Vec<RouteMessage>, _> =
            netlink.route().get(dump).execute().try_collect().await;
        let routes = routes.map_err(|error| kernel("list the routes", error))?;
        found.extend(routes.iter().filter_map(|route| {
            let oif = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })?;
            let length = route.header.destination_prefix_length;
            let destination = destination(route).filter(|ip| !ip.is_multicast())?;
            // Link-local addresses are the same on every link.
            let is_local = matches!(destination, IpAddr::V6(ip) if ip.is_unicast_link_local());
            (interfaces.contains(&oif) && !is_local)
                .then(|| IpNet::new(destination, length).ok())?
        }));
    }
    Ok(found)
}

/// The destination of a route; the default route has none.
fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// The kernel's error number in a netlink error.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            Some(Errno::from_raw(message.raw_code().checked_neg()?))
        }
        _ => None,
    }
}

/// An error of `step` by what netlink answered.
pub(super) fn kernel(step: impl Into<String>, error: rtnetlink::Error) -> PlatformError {
    let source = match errno(&error) {
        Some(errno) => io::Error::from(errno),
        None => io::Error::other(error),
    };
    PlatformError::of(step, source)
}
