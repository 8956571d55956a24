//! Word of changes of the machine's addresses, without those of the tunnel itself.

use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::connector::Connecting;
use crate::platform::{PlatformError, watch};

/// What a change has made of the machine's addresses.
pub(crate) struct Network {
    /// Those that it has now.
    pub(crate) addresses: Vec<IpAddr>,
    /// It has IPv6 and had none, or it has an address for the whole world and had only local ones.
    pub(crate) ipv6_came: bool,
}

/// How far packets by IPv6 may get from a machine with these addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ipv6 {
    None,
    /// Unique local addresses (RFC 4193): the own site.
    Site,
    World,
}

fn ipv6_of(addresses: &[IpAddr]) -> Ipv6 {
    let reach = |address: &IpAddr| match address {
        IpAddr::V4(_) => Ipv6::None,
        IpAddr::V6(ip) if ip.is_unique_local() => Ipv6::Site,
        IpAddr::V6(_) => Ipv6::World,
    };
    addresses.iter().map(reach).max().unwrap_or(Ipv6::None)
}

/// What the machine's addresses are after each change that matters. Ends with the receiver.
///
/// # Errors
/// Where there is no netlink socket to be had.
pub(super) fn watch(connecting: &Rc<Connecting>) -> Result<mpsc::Receiver<Network>, PlatformError> {
    let mut changes = watch::watch()?;
    let connecting = Rc::clone(connecting);
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        let mut known = connecting.addresses().await.unwrap_or_default();
        known.sort_unstable();
        while changes.recv().await.is_some() {
            let Some(mut found) = connecting.addresses().await else {
                continue;
            };
            // The order tells which is likelier to work, not what there is.
            found.sort_unstable();
            if found != known {
                let ipv6_came = ipv6_of(&found) > ipv6_of(&known);
                known.clone_from(&found);
                if sender.send(Network { addresses: found, ipv6_came }).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_for_the_world_is_more_than_that_of_a_site() {
        let of = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            ipv6_of(&addresses)
        };
        assert_eq!(of(&[]), Ipv6::None);
        assert_eq!(of(&["192.0.2.1"]), Ipv6::None);
        assert_eq!(of(&["192.0.2.1", "fd00::1"]), Ipv6::Site);
        assert_eq!(of(&["fd00::1", "2001:db8::1", "192.0.2.1"]), Ipv6::World);
        assert!(Ipv6::None < Ipv6::Site && Ipv6::Site < Ipv6::World);
    }
}
