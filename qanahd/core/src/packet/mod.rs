//! A checked view of an IPv4 or IPv6 packet.
//!
//! A [`Packet`] borrows its bytes and copies nothing. What it promises is the fixed IP header and
//! a total length that fits the buffer exactly; anything beyond that (options, extension headers,
//! transport headers) is checked by those who look at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

pub(crate) mod checksum;
mod flow;
mod hop;
mod icmp;
mod mss;
mod transport;

pub use hop::take_hop;
pub use icmp::{IcmpError, icmp_error};
pub use mss::{clamp_mss, is_syn};
pub(crate) use transport::Transport;

/// Length of the IPv4 header without options, in bytes (RFC 791, section 3.1).
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of the fixed IPv6 header, in bytes (RFC 8200, section 3).
pub const IPV6_HEADER_LEN: usize = 40;

/// Why some bytes are not an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// There are no bytes.
    #[error("empty packet")]
    Empty,
    /// The version is neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// The buffer ends before the packet does.
    #[error("packet cut short")]
    Truncated,
    /// The header or total length is less than a header.
    #[error("impossible length in the IP header")]
    Length,
    /// Bytes follow the packet where it should end.
    #[error("{0} bytes after the packet")]
    Trailing(usize),
    /// An IPv6 jumbogram (RFC 2675). No TUN device makes one.
    #[error("jumbograms are not supported")]
    Jumbogram,
}

/// The IP version of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header<'a> {
    V4(&'a [u8; IPV4_HEADER_LEN]),
    V6(&'a [u8; IPV6_HEADER_LEN]),
}

/// One whole IP packet, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: Header<'a>,
}

impl<'a> Packet<'a> {
    /// Takes a buffer that holds exactly one packet.
    ///
    /// # Errors
    /// When the version, the header length or the total length is wrong, or bytes follow.
    pub fn parse(buffer: &'a [u8]) -> Result<Self, PacketError> {
        match Self::split_first(buffer)? {
            (packet, []) => Ok(packet),
            (_, rest) => Err(PacketError::Trailing(rest.len())),
        }
    }

    /// Takes the first packet of a buffer, as long as its own header says, and what follows it.
    ///
    /// # Errors
    /// When the version, the header length or the total length is wrong.
    pub fn split_first(buffer: &'a [u8]) -> Result<(Self, &'a [u8]), PacketError> {
        let first = *buffer.first().ok_or(PacketError::Empty)?;
        let (header, total) = match first >> 4 {
            4 => ipv4_header(buffer)?,
            6 => ipv6_header(buffer)?,
            other => return Err(PacketError::Version(other)),
        };
        let (bytes, rest) = buffer.split_at_checked(total).ok_or(PacketError::Truncated)?;
        Ok((Self { bytes, header }, rest))
    }

    /// The IP version.
    pub const fn version(&self) -> Version {
        match self.header {
            Header::V4(_) => Version::V4,
            Header::V6(_) => Version::V6,
        }
    }

    /// The source address.
    pub fn src(&self) -> IpAddr {
        match self.header {
            Header::V4(h) => Ipv4Addr::new(h[12], h[13], h[14], h[15]).into(),
            Header::V6(h) => ipv6_addr(h, 8),
        }
    }

    /// The destination address.
    pub fn dst(&self) -> IpAddr {
        match self.header {
            Header::V4(h) => Ipv4Addr::new(h[16], h[17], h[18], h[19]).into(),
            Header::V6(h) => ipv6_addr(h, 24),
        }
    }

    /// The whole packet.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn ipv6_addr(header: &[u8; IPV6_HEADER_LEN], at: usize) -> IpAddr {
    let octets = header.get(at..).and_then(|tail| tail.first_chunk::<16>());
    // Both callers pass offsets inside the header, so the fallback is never taken.
    Ipv6Addr::from(octets.copied().unwrap_or_default()).into()
}

fn ipv4_header(buffer: &[u8]) -> Result<(Header<'_>, usize), PacketError> {
    let header = buffer.first_chunk().ok_or(PacketError::Truncated)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < IPV4_HEADER_LEN || total < header_len {
        return Err(PacketError::Length);
    }
    Ok((Header::V4(header), total))
}

fn ipv6_header(buffer: &[u8]) -> Result<(Header<'_>, usize), PacketError> {
    let header = buffer.first_chunk().ok_or(PacketError::Truncated)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // RFC 2675, section 3: a jumbogram says zero here and its length in a hop-by-hop option.
    if payload == 0 && header[6] == transport::HOP_BY_HOP {
        return Err(PacketError::Jumbogram);
    }
    Ok((Header::V6(header), IPV6_HEADER_LEN + payload))
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
