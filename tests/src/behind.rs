//! Networks behind a node of the lab: with address translation, or routed.

use anyhow::Result;

use crate::lab::HUB4;
use crate::ns::{Namespace, Place};

/// A machine behind a router, with `192.168.NET.10`, and the router as its way to everywhere.
///
/// # Errors
/// When the network cannot be made.
pub fn host(router: Place, net: u8) -> Result<Namespace> {
    let host = Namespace::new()?;
    router.shell(&format!(
        "ip link add lan{net} type veth peer name eth0 netns {}
         ip addr add 192.168.{net}.1/24 dev lan{net}
         ip link set lan{net} up",
        host.place().holder()
    ))?;
    host.place().shell(&format!(
        "ip addr add 192.168.{net}.10/24 dev eth0
         ip link set eth0 up
         ip route add default via 192.168.{net}.1"
    ))?;
    Ok(host)
}

/// Makes a router of a place that translates the addresses of all that leaves it, and lets nothing in that was
/// not asked for. It does not answer that either, as home routers do not: an answer would make the kernel
/// remember the packet, and give the one that goes the other way another port.
///
/// # Errors
/// When nft does not take it.
pub fn translate(router: Place) -> Result<()> {
    router
        .shell(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             nft add table ip nat
             nft 'add chain ip nat out { type nat hook postrouting priority 100; }'
             nft add rule ip nat out oifname eth0 masquerade
             nft 'add chain ip nat pass { type filter hook forward priority 0; }'
             nft add rule ip nat pass iifname eth0 ct state established,related accept
             nft add rule ip nat pass iifname eth0 drop
             nft 'add chain ip nat in { type filter hook input priority 0; }'
             nft add rule ip nat in iifname eth0 ct state new drop",
        )
        .map(drop)
}

/// A machine behind the router of a home and the NAT of the provider, which is `carrier`; with one network of
/// its own each, that of the home being `net`.
///
/// # Errors
/// When the networks cannot be made.
pub fn carrier_nat(carrier: Place, net: u8) -> Result<[Namespace; 2]> {
    let router = host(carrier, net + 100)?;
    translate(carrier)?;
    let home = host(router.place(), net)?;
    translate(router.place())?;
    home.place().run(&format!("ping -c 1 -W 5 {HUB4}"))?;
    Ok([router, home])
}
