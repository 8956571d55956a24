//! Networks of their own around single peers: routers with a NAT of a known kind, and networks that let
//! little out.
//!
//! A [`Site`] is a node and the routers before it, on the bridge of a [`Lab`]. All homes have the same
//! prefix, 192.168.1.0/24, as homes do. What NAT a site has is checked by [`probe`] before anything is
//! concluded from it, and [`theory`] says which path two sites can have.

pub mod draw;
pub mod ground;
pub mod matrix;
pub mod probe;
mod rules;
pub mod servers;
pub mod table;
pub mod theory;

use std::fmt;

use anyhow::{Result, ensure};

use crate::lab::{HUB4, HUB6, Lab};
use crate::ns::{Namespace, Place};

/// The addresses of a home's router inside.
const HOME_ROUTER: &str = "192.168.1.254";
/// The carrier's router and the home's router, on the carrier's network (RFC 6598).
const CARRIER_ROUTER: &str = "100.64.0.1";
const CARRIER_CLIENT: &str = "100.64.0.2";

/// What is between a peer and the rest of the world. Mapping and filtering in the terms of RFC 4787.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: a public address, no filter.
    Open,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering: the usual router at home.
    PortRestricted,
    /// Address- and port-dependent mapping and filtering.
    Symmetric,
    /// A home's router behind that of its provider, each port-restricted.
    CarrierGrade,
    /// No UDP goes out, everything else does.
    NoUdp,
    /// Nothing goes out but TCP to port 443.
    Only443,
}

impl Kind {
    /// All kinds, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::CarrierGrade,
        Self::NoUdp,
        Self::Only443,
    ];

    /// A word for the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "addr-restr",
            Self::PortRestricted => "port-restr",
            Self::Symmetric => "symmetric",
            Self::CarrierGrade => "cgnat",
            Self::NoUdp => "no-udp",
            Self::Only443 => "only-443",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Which addresses a site without NAT has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
    /// Both.
    Dual,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Dual];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Dual => "both",
        })
    }
}

/// One node with the routers before it. Gone when dropped.
#[derive(Debug)]
pub struct Site {
    number: u8,
    outside: String,
    inside: String,
    node: Namespace,
    /// From the node outwards.
    routers: Vec<Namespace>,
}

impl Site {
    /// Makes one on the bridge of the lab, with IPv4 alone. `number` (1 to 240) is its place there, which no
    /// node of the lab and no other site has.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn new(lab: &Lab, number: u8, kind: Kind) -> Result<Self> {
        if kind == Kind::Open {
            return Self::bare(lab, number, Family::V4);
        }
        let site = Self::enclosed(lab, number, kind == Kind::CarrierGrade)?;
        for router in &site.routers {
            router.place().shell(&format!(
                "echo 1 > /proc/sys/net/ipv4/ip_forward
                 nft -f - <<'END'\n{}END",
                rules::of(kind, &site.inside)
            ))?;
        }
        Ok(site)
    }

    /// A site without NAT, with addresses of these families.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn bare(lab: &Lab, number: u8, family: Family) -> Result<Self> {
        ensure!((1..=240).contains(&number), "no place {number}");
        let node = Namespace::new()?;
        plug(lab, number, node.place())?;
        let address = format!("172.31.9.{number}");
        if family != Family::V6 {
            node.place().shell(&format!(
                "ip addr add {address}/24 dev eth0; ip route add default via {HUB4}"
            ))?;
        }
        if family != Family::V4 {
            node.place().shell(&format!(
                "ip addr add fd31:9::{number}/64 dev eth0 nodad; ip -6 route add default via {HUB6}"
            ))?;
        }
        Ok(Self { number, outside: address.clone(), inside: address, node, routers: Vec::new() })
    }

    /// A home with a router, and one more router of the provider before it if there is a carrier.
    fn enclosed(lab: &Lab, number: u8, carrier: bool) -> Result<Self> {
        ensure!((1..=240).contains(&number), "no place {number}");
        let (node, home) = (Namespace::new()?, Namespace::new()?);
        let inside = format!("192.168.1.{number}");
        join(home.place(), node.place())?;
        home.place().run(&format!("ip addr add {HOME_ROUTER}/24 dev lan"))?;
        node.place().shell(&format!(
            "ip addr add {inside}/24 dev eth0; ip route add default via {HOME_ROUTER}"
        ))?;
        let mut routers = vec![home];
        if carrier {
            let provider = Namespace::new()?;
            if let Some(home) = routers.first() {
                join(provider.place(), home.place())?;
                home.place().shell(&format!(
                    "ip addr add {CARRIER_CLIENT}/24 dev eth0
                     ip route add default via {CARRIER_ROUTER}"
                ))?;
            }
            provider.place().run(&format!("ip addr add {CARRIER_ROUTER}/24 dev lan"))?;
            routers.push(provider);
        }
        let outside = format!("172.31.9.{number}");
        if let Some(last) = routers.last() {
            plug(lab, number, last.place())?;
            last.place().shell(&format!(
                "ip addr add {outside}/24 dev eth0; ip route add default via {HUB4}"
            ))?;
        }
        Ok(Self { number, outside, inside, node, routers })
    }

    /// Where the node is.
    pub fn place(&self) -> Place {
        self.node.place()
    }

    /// Its place on the bridge.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The name of its port at the bridge of the lab.
    pub fn port(&self) -> String {
        format!("s{}", self.number)
    }

    /// The address by which the world knows it.
    pub fn outside(&self) -> &str {
        &self.outside
    }

    /// The node's own address.
    pub fn inside(&self) -> &str {
        &self.inside
    }

    /// Drops what comes here from another site.
    ///
    /// # Errors
    /// When it was cut already.
    pub fn cut_from(&self, other: &Site) -> Result<()> {
        let from = other.outside();
        self.place()
            .shell(&format!(
                "nft add table ip cut
                 nft 'add chain ip cut in {{ type filter hook input priority 0; }}'
                 nft add rule ip cut in ip saddr {from} drop"
            ))
            .map(drop)
    }

    /// Undoes [`Site::cut_from`].
    ///
    /// # Errors
    /// When nothing is cut.
    pub fn mend(&self) -> Result<()> {
        self.place().run("nft delete table ip cut").map(drop)
    }

    /// The outermost router, if there is one.
    pub fn router(&self) -> Option<Place> {
        self.routers.last().map(Namespace::place)
    }
}

/// Puts a place on the bridge of the lab, by its `eth0`.
fn plug(lab: &Lab, number: u8, place: Place) -> Result<()> {
    lab.hub().shell(&format!(
        "ip link add s{number} type veth peer name eth0 netns {}
         ip link set s{number} master br0 up",
        place.holder()
    ))?;
    place.run("ip link set eth0 up").map(drop)
}

/// Joins the `lan` of a router and the `eth0` of what is behind it.
fn join(router: Place, behind: Place) -> Result<()> {
    router.shell(&format!(
        "ip link add lan type veth peer name eth0 netns {}; ip link set lan up",
        behind.holder()
    ))?;
    behind.run("ip link set eth0 up").map(drop)
}
