//! From a configuration to ordered steps on the system, and back.
//!
//! The plan is what wg-quick(8) does with `Table = auto`, written down before anything is done:
//! create the interface, give it its addresses, bring it up, route to it. Every step has an
//! inverse; a failed start and a stop both undo what was done, last step first.
//!
//! Steps are plain comparable data, so that two plans can be compared when a configuration is
//! reloaded. Names of addresses and routes do not repeat the interface: there is one in a plan.

mod diff;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use ipnet::IpNet;

pub use diff::{Change, OtherInterface, after, diff};

/// The smallest MTU of an interface that carries IPv6, in bytes (RFC 8200, section 5).
///
/// Linux takes IPv6 away from an interface with a smaller one.
pub const IPV6_MIN_MTU: u16 = 1280;

/// The longest interface name, in bytes (`IFNAMSIZ` of Linux less the final zero).
pub const MAX_INTERFACE_NAME: usize = 15;

/// One change of the system. Applied in the order of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Create the TUN device. Always the first step of a plan, and only there.
    CreateTun {
        /// The name of the interface.
        name: String,
        /// The MTU of the interface, in bytes.
        mtu: u16,
    },
    /// Give the interface this address; the prefix becomes a connected route.
    AddAddress(IpNet),
    /// Bring the interface up. Routes need that, and addresses come before it so that nothing is
    /// sent from an address that is not the tunnel's.
    LinkUp,
    /// Send packets for this prefix to the interface.
    AddRoute(IpNet),
}

/// The inverse of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Undo {
    /// Delete the TUN device.
    DeleteTun {
        /// The name of the interface.
        name: String,
    },
    /// Take the address from the interface.
    RemoveAddress(IpNet),
    /// Bring the interface down.
    LinkDown,
    /// Remove the route.
    RemoveRoute(IpNet),
}

impl Step {
    /// What takes this step back.
    #[must_use]
    pub fn inverse(&self) -> Undo {
        match self {
            Self::CreateTun { name, .. } => Undo::DeleteTun { name: name.clone() },
            Self::AddAddress(address) => Undo::RemoveAddress(*address),
            Self::LinkUp => Undo::LinkDown,
            Self::AddRoute(prefix) => Undo::RemoveRoute(*prefix),
        }
    }

    /// The step in words, for logs and errors; it continues "cannot ...".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::CreateTun { name, mtu } => {
                format!("create the interface {name} with MTU {mtu}")
            }
            Self::AddAddress(address) => format!("add the address {address}"),
            Self::LinkUp => "bring the interface up".to_owned(),
            Self::AddRoute(prefix) => format!("add the route to {prefix}"),
        }
    }
}

impl Undo {
    /// The inverse step in words, for logs and errors; it continues "cannot ...".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::DeleteTun { name } => format!("delete the interface {name}"),
            Self::RemoveAddress(address) => format!("remove the address {address}"),
            Self::LinkDown => "bring the interface down".to_owned(),
            Self::RemoveRoute(prefix) => format!("remove the route to {prefix}"),
        }
    }
}

/// Why there is no plan. The configuration refuses most of these earlier and names the line; they
/// are checked again here because a wrong step can cut a machine off its network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Linux, or wg-quick, does not take this name.
    #[error(
        "`{0}` is no name for an interface: 1 to 15 of the characters a-z A-Z 0-9 _ = + . - are"
    )]
    InvalidName(String),
    /// A route to everything would carry the tunnel's own packets into the tunnel.
    #[error("a route to everything ({0}) is not supported; list the prefixes that are needed")]
    DefaultRoute(IpNet),
    /// An address with prefix length 0 makes a connected route to everything.
    #[error("the address {0} claims every address there is; give it a longer prefix")]
    AddressOfEverything(IpNet),
    /// The same address with two prefix lengths: which one is meant is not for us to guess.
    #[error("the address {0} is there twice, with different prefix lengths")]
    AddressTwice(std::net::IpAddr),
    /// IPv6 on an interface with a small MTU.
    #[error("IPv6 ({0}) needs an MTU of at least {IPV6_MIN_MTU}, this one is {1}")]
    MtuTooSmall(IpNet, u16),
}

/// Whether `name` can name an interface: what wg-quick takes as the name of a file, which is
/// within what Linux takes (and has no `%`, which Linux would replace by a number).
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b))
}

/// The steps that make the tunnel `name`: its interface, `addresses`, and a route for each of
/// `allowed_ips` (those of all peers) that no address of the interface covers already.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(
    name: &str,
    addresses: &[IpNet],
    mtu: u16,
    allowed_ips: impl IntoIterator<Item = IpNet>,
) -> Result<Vec<Step>, PlanError> {
    if !is_interface_name(name) {
        return Err(PlanError::InvalidName(name.to_owned()));
    }
    let addresses = checked_addresses(addresses)?;
    let routes = routes(&addresses, allowed_ips)?;
    let mut ipv6 = addresses.iter().chain(&routes).filter(|net| net.addr().is_ipv6());
    if let Some(net) = ipv6.next().filter(|_| mtu < IPV6_MIN_MTU) {
        return Err(PlanError::MtuTooSmall(*net, mtu));
    }

    let mut steps = vec![Step::CreateTun { name: name.to_owned(), mtu }];
    steps.extend(addresses.into_iter().map(Step::AddAddress));
    steps.push(Step::LinkUp);
    steps.extend(routes.into_iter().map(Step::AddRoute));
    Ok(steps)
}

/// The addresses in their order, each once.
fn checked_addresses(addresses: &[IpNet]) -> Result<Vec<IpNet>, PlanError> {
    let mut kept: Vec<IpNet> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if address.prefix_len() == 0 {
            return Err(PlanError::AddressOfEverything(*address));
        }
        match kept.iter().find(|other| other.addr() == address.addr()) {
            Some(same) if same == address => {}
            Some(_) => return Err(PlanError::AddressTwice(address.addr())),
            None => kept.push(*address),
        }
    }
    Ok(kept)
}

/// The routes that are needed, longest prefix first, as wg-quick adds them: so that no packet
/// takes a wide route in the moment before its narrow one exists.
fn routes(
    addresses: &[IpNet],
    allowed_ips: impl IntoIterator<Item = IpNet>,
) -> Result<Vec<IpNet>, PlanError> {
    let mut prefixes = BTreeSet::new();
    for prefix in allowed_ips {
        if prefix.prefix_len() == 0 {
            return Err(PlanError::DefaultRoute(prefix));
        }
        let prefix = prefix.trunc();
        if !addresses.iter().any(|address| address.contains(&prefix)) {
            prefixes.insert(prefix);
        }
    }
    let mut routes: Vec<IpNet> = prefixes.into_iter().collect();
    routes.sort_by_key(|prefix| Reverse(prefix.prefix_len()));
    Ok(routes)
}

#[cfg(test)]
mod tests;
