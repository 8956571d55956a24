//! Errors of the platform, each with what can be done about it.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

/// Why something could not be done to, or learnt from, the machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlatformError {
    /// The process lacks `CAP_NET_ADMIN`.
    #[error("cannot {0}: not permitted; run as root (or with the capability CAP_NET_ADMIN)")]
    NotPermitted(String),
    /// The kernel has no TUN driver, or the device node is missing.
    #[error(
        "there is no /dev/net/tun: load the driver with `modprobe tun`; in a container, pass the \
         device in (docker and podman: --device /dev/net/tun --cap-add NET_ADMIN)"
    )]
    NoTunDevice,
    /// The device node is there, but may not be opened.
    #[error(
        "/dev/net/tun may not be opened: run as root; in a container, allow the device \
         (docker and podman: --device /dev/net/tun --cap-add NET_ADMIN; systemd units: \
         DeviceAllow=/dev/net/tun rw)"
    )]
    TunDeviceDenied,
    /// Another interface has the name.
    #[error(
        "the interface name {name} is taken by {kind}: stop what uses it, or rename the \
         configuration file"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// What has it, with its article.
        kind: String,
    },
    /// Not a name that Linux or wg-quick takes.
    #[error(
        "`{0}` is no name for an interface: 1 to 15 of the characters a-z A-Z 0-9 _ = + . - are"
    )]
    InvalidName(String),
    /// Another interface of this machine has the address.
    #[error(
        "the address {address} is already on {interface}: remove it there, or give this tunnel \
         another"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// There is a route to the same prefix with the same metric.
    #[error(
        "there is already a route to {prefix}{}: remove that route, or take the prefix out of \
         AllowedIPs",
        interface.as_ref().map(|name| format!(" (by {name})")).unwrap_or_default()
    )]
    RouteExists {
        /// The prefix.
        prefix: IpNet,
        /// The interface of the other route, where it has one.
        interface: Option<String>,
    },
    /// IPv6 is switched off in the kernel, this network namespace or for new interfaces.
    #[error(
        "cannot {step}: IPv6 is disabled on this machine; enable it (sysctl -w \
         net.ipv6.conf.all.disable_ipv6=0, and no ipv6.disable=1 on the kernel's command line), \
         or remove the IPv6 addresses and prefixes from the configuration"
    )]
    Ipv6Disabled {
        /// What was tried.
        step: String,
    },
    /// A plan that does not begin with its interface, or creates two.
    #[error("the plan is out of order: it creates its interface first, and once")]
    Unordered,
    /// Anything else that the kernel said no to.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl PlatformError {
    /// An error of `step` by what the kernel answered, where no more is known.
    pub(super) fn of(step: impl Into<String>, source: io::Error) -> Self {
        let step = step.into();
        if source.raw_os_error() == Some(Errno::EPERM as i32) {
            return Self::NotPermitted(step);
        }
        Self::Kernel { step, source }
    }
}
