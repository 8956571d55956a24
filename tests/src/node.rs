//! A node of the lab, its addresses on the bridge and its link.

use anyhow::Result;

use crate::lab::{HUB4, HUB6};
use crate::ns::{Namespace, Place};

/// Which addresses the nodes have on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4 and IPv6.
    Both,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    number: usize,
    namespace: Namespace,
}

impl Node {
    /// Makes its namespaces; it has no link yet.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub(crate) fn new(number: usize) -> Result<Self> {
        Ok(Self { number, namespace: Namespace::new()? })
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.namespace.place()
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address on the bridge.
    pub fn outer4(&self) -> String {
        format!("172.31.9.{}", self.number)
    }

    /// Another address that it may take on the bridge.
    pub fn other4(&self) -> String {
        format!("172.31.9.{}", 100 + self.number)
    }

    /// Gives up its IPv4 address on the bridge and takes the other one, or back.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn move_address(&self, to_other: bool) -> Result<()> {
        let (old, new) = (self.outer4(), self.other4());
        let (old, new) = if to_other { (old, new) } else { (new, old) };
        self.place().shell(&format!(
            "ip addr add {new}/24 dev eth0; ip addr del {old}/24 dev eth0
             ip addr replace {new}/24 dev eth0; ip route replace default via {HUB4}"
        ))?;
        Ok(())
    }

    /// Its IPv6 address on the bridge.
    pub fn outer6(&self) -> String {
        format!("fd31:9::{}", self.number)
    }

    /// Drops all that arrives from that other node, silently and in both directions: only an
    /// indirect way is left.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn cut_from(&self, other: &Node) -> Result<()> {
        for (here, there) in [(self, other), (other, self)] {
            here.drop_from(there)?;
        }
        Ok(())
    }

    /// Drops all that arrives here from that other node, silently; what goes there passes.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn drop_from(&self, other: &Node) -> Result<()> {
        self.place().shell(&format!(
            "nft list table inet cut >/dev/null 2>&1 || nft -f - <<'END'
             table inet cut {{
                 set v4 {{ type ipv4_addr; }}
                 set v6 {{ type ipv6_addr; }}
                 chain in {{
                     type filter hook input priority 0
                     iifname eth0 ip saddr @v4 drop
                     iifname eth0 ip6 saddr @v6 drop
                     iifname eth0 ip6 saddr fe80::/10 udp dport 1-65535 drop
                 }}
             }}
END
             nft add element inet cut v4 '{{ {}, {} }}'
             nft add element inet cut v6 '{{ {} }}'",
            other.outer4(),
            other.other4(),
            other.outer6()
        ))?;
        Ok(())
    }

    /// Undoes [`Node::cut_from`] and [`Node::drop_from`] between these two.
    ///
    /// # Errors
    /// When nft does not take it.
    pub fn mend_with(&self, other: &Node) -> Result<()> {
        for (here, there) in [(self, other), (other, self)] {
            here.place().shell(&format!(
                "nft list table inet cut >/dev/null 2>&1 || exit 0
                 nft delete element inet cut v4 '{{ {}, {} }}' 2>/dev/null || true
                 nft delete element inet cut v6 '{{ {} }}' 2>/dev/null || true",
                there.outer4(),
                there.other4(),
                there.outer6()
            ))?;
        }
        Ok(())
    }

    /// Undoes all cuts of this node.
    ///
    /// # Errors
    /// When there was none.
    pub fn heal(&self) -> Result<()> {
        self.place().run("nft delete table inet cut").map(drop)
    }

    /// Takes the link to the bridge down.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_down(&self) -> Result<()> {
        self.place().run("ip link set eth0 down").map(drop)
    }

    /// Brings the link to the bridge up, with the addresses and routes that went with it.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_up(&self, underlay: Underlay) -> Result<()> {
        self.place().run("ip link set eth0 up")?;
        self.address(underlay)
    }

    fn address(&self, underlay: Underlay) -> Result<()> {
        let place = self.place();
        if underlay != Underlay::V6 {
            place.run(&format!("ip addr replace {}/24 dev eth0", self.outer4()))?;
            place.run(&format!("ip route replace default via {HUB4}"))?;
        }
        if underlay != Underlay::V4 {
            place.run(&format!("ip addr replace {}/64 dev eth0 nodad", self.outer6()))?;
            place.run(&format!("ip -6 route replace default via {HUB6}"))?;
        }
        Ok(())
    }
}
