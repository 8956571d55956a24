//! The ICMP errors that answer packets which cannot be carried.
//!
//! Sources: RFC 792 and RFC 1812 section 4.3.2 (IPv4), RFC 4443 (IPv6), RFC 1122 section 3.2.2
//! (when not to answer).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;
use super::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, Transport, Version};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ICMP_HEADER_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;

/// RFC 1812, section 4.3.2.3: as much of the original as fits 576 bytes.
const MAX_ANSWER_V4: usize = 576;
/// RFC 4443, section 2.4 (c): as much of the original as fits the minimum IPv6 MTU.
const MAX_ANSWER_V6: usize = 1280;

/// What is wrong with a packet that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// No peer, or one that is not connected. As WireGuard answers: host unreachable (RFC 792,
    /// type 3 code 1) or address unreachable (RFC 4443, section 3.1, code 3).
    Unreachable,
    /// The packet is larger than `mtu` bytes and may not be fragmented (RFC 1191, section 4;
    /// RFC 4443, section 3.2).
    TooBig {
        /// The largest packet that would pass, in bytes. IPv4 has room for 65535 at most.
        mtu: u32,
    },
    /// The packet has passed as many routers as it may: time to live (RFC 792, type 11 code 0) or hop limit
    /// (RFC 4443, section 3.3) exceeded in transit.
    TimeExceeded,
}

impl IcmpError {
    /// Type, code and the four bytes after the checksum.
    fn fields(self, version: Version) -> (u8, u8, [u8; 4]) {
        match (self, version) {
            (Self::Unreachable, Version::V4) => (3, 1, [0; 4]),
            (Self::Unreachable, Version::V6) => (1, 3, [0; 4]),
            (Self::TimeExceeded, Version::V4) => (11, 0, [0; 4]),
            (Self::TimeExceeded, Version::V6) => (3, 0, [0; 4]),
            (Self::TooBig { mtu }, Version::V4) => {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                (3, 4, u32::from(mtu).to_be_bytes())
            }
            (Self::TooBig { mtu }, Version::V6) => (2, 0, mtu.to_be_bytes()),
        }
    }
}

/// Builds the ICMP packet that tells the sender of `original` what is wrong.
///
/// `from` is an address of the tunnel in the packet's family. Without one the answer comes from
/// the address that was asked for, which every host accepts (if it is a host's address).
///
/// Returns `None` when the standards forbid an answer: about ICMP errors and redirects, multicast
/// and broadcast (but IPv6 "too big" is allowed to multicast, RFC 4443 section 2.4 e), later
/// fragments, sources that name no single host, and "too big" about a packet that may be
/// fragmented. The caller limits the rate (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
pub fn icmp_error(
    original: &Packet<'_>,
    from: Option<IpAddr>,
    error: IcmpError,
) -> Option<Vec<u8>> {
    if !may_answer(original, error) {
        return None;
    }
    let (to, asked) = (original.src(), original.dst());
    let from = from.filter(|from| from.is_ipv4() == to.is_ipv4()).unwrap_or(asked);
    if !names_one_host(from) {
        return None;
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => answer_v4(original, from, to, error),
        (IpAddr::V6(from), IpAddr::V6(to)) => answer_v6(original, from, to, error),
        _ => None,
    }
}

fn may_answer(original: &Packet<'_>, error: IcmpError) -> bool {
    let too_big = matches!(error, IcmpError::TooBig { .. });
    let dst_answers = match original.dst() {
        IpAddr::V4(dst) => !(dst.is_multicast() || dst.is_broadcast()),
        IpAddr::V6(dst) => too_big || !dst.is_multicast(),
    };
    dst_answers
        && names_one_host(original.src())
        && !(too_big && original.may_fragment())
        && original
            .transport()
            .is_some_and(|transport| !transport.later_fragment && !is_icmp_error(&transport))
}

/// RFC 1122, section 3.2.2: no answer to "zero address, loopback, broadcast, multicast, class E".
fn names_one_host(src: IpAddr) -> bool {
    match src {
        IpAddr::V4(src) => {
            let [first, ..] = src.octets();
            first != 0 && first < 224 && !src.is_loopback()
        }
        IpAddr::V6(src) => !(src.is_unspecified() || src.is_multicast() || src.is_loopback()),
    }
}

fn is_icmp_error(transport: &Transport<'_>) -> bool {
    match (transport.protocol, transport.bytes.first()) {
        // Without a type it could be one.
        (ICMP | ICMPV6, None) => true,
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // RFC 4443, section 2.1: errors have the high bit clear. 137 is redirect (section 2.4 e).
        (ICMPV6, Some(kind)) => *kind < 128 || *kind == 137,
        _ => false,
    }
}

fn answer_v4(
    original: &Packet<'_>,
    from: Ipv4Addr,
    to: Ipv4Addr,
    error: IcmpError,
) -> Option<Vec<u8>> {
    let quoted = quote(original, MAX_ANSWER_V4 - IPV4_HEADER_LEN - ICMP_HEADER_LEN);
    let total = u16::try_from(IPV4_HEADER_LEN + ICMP_HEADER_LEN + quoted.len()).ok()?;
    let mut header = [0; IPV4_HEADER_LEN];
    header[0] = 0x45;
    header[1] = 0xc0; // RFC 1812, section 4.3.2.5: precedence "internetwork control".
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6] = 0x40; // Never fragmented, so the identification may be zero (RFC 6864).
    header[8] = HOP_LIMIT;
    header[9] = ICMP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = Checksum::default().add(&header).finish();
    header[10..12].copy_from_slice(&checksum);
    let icmp = icmp_header(error, Version::V4, Checksum::default(), quoted);
    Some([header.as_slice(), &icmp, quoted].concat())
}

fn answer_v6(
    original: &Packet<'_>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    error: IcmpError,
) -> Option<Vec<u8>> {
    let quoted = quote(original, MAX_ANSWER_V6 - IPV6_HEADER_LEN - ICMP_HEADER_LEN);
    let len = u16::try_from(ICMP_HEADER_LEN + quoted.len()).ok()?;
    let mut header = [0; IPV6_HEADER_LEN];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header[6] = ICMPV6;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
    // RFC 8200, section 8.1: the pseudo header.
    let pseudo = Checksum::default()
        .add_addr(from.into())
        .add_addr(to.into())
        .add_u32(len.into())
        .add_u32(ICMPV6.into());
    let icmp = icmp_header(error, Version::V6, pseudo, quoted);
    Some([header.as_slice(), &icmp, quoted].concat())
}

fn icmp_header(
    error: IcmpError,
    version: Version,
    pseudo: Checksum,
    quoted: &[u8],
) -> [u8; ICMP_HEADER_LEN] {
    let (kind, code, [a, b, c, d]) = error.fields(version);
    let mut header = [kind, code, 0, 0, a, b, c, d];
    let checksum = pseudo.add(&header).add(quoted).finish();
    header[2..4].copy_from_slice(&checksum);
    header
}

fn quote<'a>(original: &Packet<'a>, most: usize) -> &'a [u8] {
    let bytes = original.as_bytes();
    bytes.get(..most).unwrap_or(bytes)
}
