//! The routers' rules for nft.
//!
//! Linux gives a mapping the port that the client has while that is free, and keeps the mapping for each
//! pair of ends apart. With one client behind a router this looks like endpoint-independent mapping with
//! filtering by address and port; `random,fully-random` makes mappings differ. What the friendlier kinds
//! let in is learnt by sets of what went out.
//!
//! A packet that nobody asked for must be dropped before it is confirmed as a connection (here: by the
//! policy of `input`). Otherwise it would occupy the pair of ends that the hole is to be punched for, and
//! what goes out then would get another port.

use super::Kind;

/// The rules of each router of a site with this client.
pub(super) fn of(kind: Kind, client: &str) -> String {
    let (learnt, let_in) = match kind {
        Kind::FullCone => ("update @open { udp sport }", "udp dport @open"),
        Kind::AddressRestricted => {
            ("update @met { ip daddr . udp sport }", "ip saddr . udp dport @met")
        }
        _ => ("", ""),
    };
    let let_in = match let_in {
        "" => String::new(),
        rule => format!("iifname eth0 {rule} dnat to {client}"),
    };
    let learnt = match learnt {
        "" => String::new(),
        rule => format!("oifname eth0 meta l4proto udp {rule}"),
    };
    let masquerade = match kind {
        Kind::Symmetric => "masquerade random,fully-random",
        _ => "masquerade",
    };
    let out = match kind {
        Kind::NoUdp => "meta l4proto udp drop",
        Kind::Only443 => "iifname lan tcp dport != 443 drop\nmeta l4proto != tcp drop",
        _ => "",
    };
    format!(
        "table ip nat {{
            set open {{ type inet_service; flags dynamic,timeout; timeout 5m; size 4096; }}
            set met {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 5m; size 4096; }}
            chain pre {{ type nat hook prerouting priority dstnat; {let_in}
            }}
            chain post {{ type nat hook postrouting priority srcnat; oifname eth0 {masquerade}
            }}
            chain learn {{ type filter hook forward priority -10; {learnt}
            }}
        }}
        table ip filter {{
            chain forward {{ type filter hook forward priority 0; policy drop;
                {out}
                ct state established,related accept
                ct status dnat accept
                iifname lan accept
            }}
            chain input {{ type filter hook input priority 0; policy drop;
                ct state established,related accept
                iifname lan accept
            }}
        }}\n"
    )
}
