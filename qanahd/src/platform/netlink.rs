//! Plans applied to the machine, and taken back, by rtnetlink.

use std::io;
use std::sync::Arc;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use qanah_core::plan::{Change, Step, Undo, after, diff};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tracing::{debug, warn};

use super::PlatformError;
use super::query::{
    connect, errno, find_link, kernel, kind_in_words, local_address, name_of, route_owner,
};
use super::tun::TunDevice;

/// A plan that has been applied: the device, and what takes everything back.
///
/// Dropping it without [`Applied::undo`] closes the device; when nobody else holds it, the kernel
/// removes the interface with its addresses and routes.
pub(crate) struct Applied {
    netlink: Handle,
    device: Arc<TunDevice>,
    index: u32,
    /// The steps in force: the interface, addresses, routes.
    steps: Vec<Step>,
}

impl Applied {
    /// The device, to read from and write to.
    pub(crate) fn device(&self) -> &Arc<TunDevice> {
        &self.device
    }

    /// The index of the interface.
    #[cfg(test)]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Take everything back, last step first. What is gone already counts as taken back. All of
    /// it is tried, whatever fails. Afterwards every read from the device fails.
    ///
    /// # Errors
    /// The first step that could not be taken back.
    pub(crate) async fn undo(mut self) -> Result<(), PlatformError> {
        let mut first = Ok(());
        while let Some(step) = self.steps.pop() {
            let undo = step.inverse();
            debug!(interface = self.device.name(), "{}", undo.describe());
            if let Err(error) = self.take_back(&undo).await {
                warn!(interface = self.device.name(), "{error}");
                first = first.and(Err(error));
            }
        }
        first
    }

    async fn apply(&mut self, step: &Step) -> Result<(), PlatformError> {
        debug!(interface = self.device.name(), "{}", step.describe());
        match step {
            Step::CreateTun { .. } => return Err(PlatformError::Unordered),
            Step::AddAddress(address) => {
                let added = self.add_address(*address).await;
                added.map_err(|error| refused(*address, step, error))?;
            }
            Step::LinkUp => {
                let up = LinkUnspec::new_with_index(self.index).up().build();
                let change = self.netlink.link().change(up).execute().await;
                change.map_err(|error| kernel(step.describe(), error))?;
            }
            Step::AddRoute(prefix) => match self.add_route(*prefix).await {
                Err(error) if errno(&error) == Some(Errno::EEXIST) => {
                    let interface = route_owner(&self.netlink, *prefix).await;
                    return Err(PlatformError::RouteExists { prefix: *prefix, interface });
                }
                added => added.map_err(|error| refused(*prefix, step, error))?,
            },
        }
        Ok(())
    }

    /// Does what is left of the plan that [`begin`] began with. When it fails, what was done is still
    /// there, to be taken back by [`Applied::undo`].
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub(crate) async fn finish(&mut self, steps: &[Step]) -> Result<(), PlatformError> {
        for step in steps.iter().skip(1) {
            self.apply(step).await?;
            self.steps.push(step.clone());
        }
        Ok(())
    }

    /// Turns the plan in force into another one of the same interface and returns the differences.
    /// What both have stays as it is all the time.
    ///
    /// # Errors
    /// See [`PlatformError`]. The plan that was in force is in force again.
    pub(crate) async fn change(&mut self, new: &[Step]) -> Result<Vec<Change>, PlatformError> {
        let changes = diff(&self.steps, new).map_err(|_| PlatformError::Unordered)?;
        let added: Vec<Step> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Do(step) => Some(step.clone()),
                _ => None,
            })
            .collect();
        check_addresses(&self.netlink, &added, Some(self.index)).await?;
        let old = self.steps.clone();
        if let Err(error) = self.make(&changes).await {
            let back = diff(&self.steps, &old).unwrap_or_default();
            if let Err(error) = self.make(&back).await {
                warn!(interface = self.device.name(), "a change was not taken back: {error}");
            }
            return Err(error);
        }
        Ok(changes)
    }

    async fn make(&mut self, changes: &[Change]) -> Result<(), PlatformError> {
        for change in changes {
            match change {
                Change::Do(step) => self.apply(step).await?,
                Change::Undo(undo) => self.take_back(undo).await?,
                Change::SetMtu { to, .. } => {
                    debug!(interface = self.device.name(), "{}", change.describe());
                    let message = LinkUnspec::new_with_index(self.index).mtu((*to).into()).build();
                    let set = self.netlink.link().change(message).execute().await;
                    set.map_err(|error| kernel(change.describe(), error))?;
                }
            }
            after(&mut self.steps, change);
            if matches!(change, Change::Undo(Undo::RemoveAddress(_))) {
                self.repair().await?;
            }
        }
        Ok(())
    }

    /// Puts back what Linux takes with an IPv4 address: the others of its subnet (where
    /// `promote_secondaries` is off), and with the last one every IPv4 route of the interface.
    async fn repair(&self) -> Result<(), PlatformError> {
        for step in &self.steps {
            let put = match step {
                Step::AddAddress(address) if address.addr().is_ipv4() => {
                    self.add_address(*address).await
                }
                Step::AddRoute(prefix) if prefix.addr().is_ipv4() => self.add_route(*prefix).await,
                _ => continue,
            };
            match put {
                Err(error) if errno(&error) != Some(Errno::EEXIST) => {
                    return Err(kernel(step.describe(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn add_address(&self, address: IpNet) -> Result<(), rtnetlink::Error> {
        let handle = self.netlink.address();
        let mut request = handle.add(self.index, address.addr(), address.prefix_len());
        let message = request.message_mut();
        if address.addr().is_ipv6() {
            // Nobody else is on the link; a tentative address cannot be used for a second or two.
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        // There is no broadcast over a tunnel, and wg-quick sets none either.
        message.attributes.retain(|a| !matches!(a, AddressAttribute::Broadcast(_)));
        request.execute().await
    }

    async fn add_route(&self, prefix: IpNet) -> Result<(), rtnetlink::Error> {
        self.netlink.route().add(route(self.index, prefix)).execute().await
    }

    async fn take_back(&self, undo: &Undo) -> Result<(), PlatformError> {
        let result = match undo {
            Undo::DeleteTun { .. } => self.netlink.link().del(self.index).execute().await,
            Undo::LinkDown => {
                let down = LinkUnspec::new_with_index(self.index).down().build();
                self.netlink.link().change(down).execute().await
            }
            Undo::RemoveAddress(address) => {
                let handle = self.netlink.address();
                let mut request = handle.add(self.index, address.addr(), address.prefix_len());
                handle.del(request.message_mut().clone()).execute().await
            }
            Undo::RemoveRoute(prefix) => {
                self.netlink.route().del(route(self.index, *prefix)).execute().await
            }
        };
        match result {
            Err(error) if !is_gone(&error) => Err(kernel(undo.describe(), error)),
            _ => Ok(()),
        }
    }
}

/// Begin a plan: create its interface, after a look whether the rest can be done. Must be called on
/// the runtime that will read from the device.
///
/// # Errors
/// See [`PlatformError`]. Nothing is left behind.
pub(crate) async fn begin(steps: &[Step]) -> Result<Applied, PlatformError> {
    let Some((Step::CreateTun { name, mtu }, rest)) = steps.split_first() else {
        return Err(PlatformError::Unordered);
    };
    let netlink = connect()?;
    check_name(&netlink, name).await?;
    check_addresses(&netlink, rest, None).await?;
    create(netlink, name, *mtu).await
}

/// Apply a plan.
///
/// # Errors
/// See [`PlatformError`]. Whatever was applied before the failure has been taken back.
#[cfg(test)]
pub(crate) async fn bring_up(steps: &[Step]) -> Result<Applied, PlatformError> {
    let mut applied = begin(steps).await?;
    if let Err(error) = applied.finish(steps).await {
        // The reason for the failure is what the caller needs; undo logs its own.
        let _ = applied.undo().await;
        return Err(error);
    }
    Ok(applied)
}

async fn create(netlink: Handle, name: &str, mtu: u16) -> Result<Applied, PlatformError> {
    let step = Step::CreateTun { name: name.to_owned(), mtu };
    // From here on an early return drops the device, and the kernel removes the interface.
    let device = Arc::new(TunDevice::create(name)?);
    let link = find_link(&netlink, name).await.map_err(|error| kernel(step.describe(), error))?;
    let index = link.map(|link| link.header.index).ok_or_else(|| PlatformError::Kernel {
        step: step.describe(),
        source: io::ErrorKind::NotFound.into(),
    })?;

    // Before the MTU: IPv6 leaves an interface whose MTU is too small for it. No link-local
    // address, as WireGuard interfaces have none: it would only send router solicitations that
    // no peer may receive. A kernel without IPv6 refuses this, and needs it not.
    let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet]))
        .build();
    if let Err(error) = netlink.link().change(message).execute().await {
        debug!(interface = name, "cannot switch off the IPv6 link-local address: {error}");
    }
    let message = LinkUnspec::new_with_index(index).mtu(mtu.into()).build();
    let change = netlink.link().change(message).execute().await;
    change.map_err(|error| kernel(step.describe(), error))?;
    Ok(Applied { netlink, device, index, steps: vec![step] })
}

/// Refuse a name that another interface has. `TUNSETIFF` would join a persistent TUN device
/// instead of refusing it.
async fn check_name(netlink: &Handle, name: &str) -> Result<(), PlatformError> {
    let link = find_link(netlink, name).await;
    match link.map_err(|error| kernel(format!("look for the interface {name}"), error))? {
        None => Ok(()),
        Some(link) => {
            Err(PlatformError::NameTaken { name: name.to_owned(), kind: kind_in_words(&link) })
        }
    }
}

/// Refuse addresses that another interface has: Linux would take them twice, and answer for the
/// other interface's address here.
/// Those of the interface `own` are ours already.
async fn check_addresses(
    netlink: &Handle,
    steps: &[Step],
    own: Option<u32>,
) -> Result<(), PlatformError> {
    let dump: Result<Vec<AddressMessage>, _> =
        netlink.address().get().execute().try_collect().await;
    let dump = dump.map_err(|error| kernel("list the addresses", error))?;
    for step in steps {
        let Step::AddAddress(address) = step else {
            continue;
        };
        let owner = dump.iter().find(|message| {
            local_address(message) == Some(address.addr()) && Some(message.header.index) != own
        });
        if let Some(owner) = owner {
            return Err(PlatformError::AddressTaken {
                address: address.addr(),
                interface: name_of(netlink, owner.header.index).await,
            });
        }
    }
    Ok(())
}

/// Our route to `prefix`: over the interface, with the metric that `ip route add` gives.
fn route(index: u32, prefix: IpNet) -> RouteMessage {
    match prefix.trunc() {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Static)
            .output_interface(index)
            .build(),
        // Scopes mean nothing to IPv6 routes.
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .protocol(RouteProtocol::Static)
            .output_interface(index)
            .build(),
    }
}

/// Why an address or a route of this family was refused.
fn refused(net: IpNet, step: &Step, error: rtnetlink::Error) -> PlatformError {
    // What the kernel says when IPv6 is off: EACCES by disable_ipv6, the others when it is
    // not in the kernel at all.
    let off = [Errno::EACCES, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];
    match errno(&error) {
        Some(errno) if net.addr().is_ipv6() && off.contains(&errno) => {
            PlatformError::Ipv6Disabled { step: step.describe() }
        }
        _ => kernel(step.describe(), error),
    }
}

/// Whether what was to be removed is not there any more.
fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(
        errno(error),
        Some(Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENOENT)
    )
}
