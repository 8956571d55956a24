//! What follows the IP header: the transport protocol, past options and extension headers.

use super::{Header, IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet};

/// IPv6 hop-by-hop options (RFC 8200, section 4.3).
pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// More extension headers than this is no traffic that anybody sends on purpose.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Where the transport header of a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport<'a> {
    /// The protocol or next header number.
    pub(crate) protocol: u8,
    /// What stands between the fixed header and the transport header, in bytes.
    pub(crate) extra: usize,
    /// Whether the packet is a fragment of a larger one.
    pub(crate) fragment: bool,
    /// Whether it is one that does not begin with a transport header.
    pub(crate) later_fragment: bool,
    /// The transport header and what follows.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Finds the transport header; `None` when options or extension headers are cut short.
    pub(crate) fn transport(&self) -> Option<Transport<'a>> {
        match self.header {
            Header::V4(header) => {
                let header_len = usize::from(header[0] & 0x0f) * 4;
                // RFC 791, section 3.1: the more-fragments bit and the 13-bit offset.
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                Some(Transport {
                    protocol: header[9],
                    extra: header_len.checked_sub(IPV4_HEADER_LEN)?,
                    fragment: fragment != 0,
                    later_fragment: fragment & 0x1fff != 0,
                    bytes: self.bytes.get(header_len..)?,
                })
            }
            Header::V6(header) => ipv6_transport(header[6], self.bytes.get(IPV6_HEADER_LEN..)?),
        }
    }

    /// Whether an IPv4 router may cut this packet up: "don't fragment" is clear.
    pub(crate) const fn may_fragment(&self) -> bool {
        match self.header {
            Header::V4(header) => header[6] & 0x40 == 0,
            Header::V6(_) => false,
        }
    }
}

/// Walks the extension headers of RFC 8200, section 4 (and those that RFC 7045 lists beside).
fn ipv6_transport(first: u8, payload: &[u8]) -> Option<Transport<'_>> {
    let mut found = Transport {
        protocol: first,
        extra: 0,
        fragment: false,
        later_fragment: false,
        bytes: payload,
    };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let len = match found.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => {
                (usize::from(*found.bytes.get(1)?) + 1) * 8
            }
            AUTHENTICATION => (usize::from(*found.bytes.get(1)?) + 2) * 4,
            FRAGMENT => {
                let offset = found.bytes.get(2..4)?.try_into().map(u16::from_be_bytes).ok()?;
                found.fragment = true;
                found.later_fragment |= offset & 0xfff8 != 0;
                8
            }
            _ => return Some(found),
        };
        found.protocol = *found.bytes.first()?;
        found.bytes = found.bytes.get(len..)?;
        found.extra += len;
        // What follows belongs to the middle of some header of the first fragment.
        if found.later_fragment {
            return Some(found);
        }
    }
    None
}
