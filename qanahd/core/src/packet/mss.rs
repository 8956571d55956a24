//! Keeps TCP segments to what a path carries: the MSS option of a SYN is lowered on the way.
//!
//! Sources: RFC 9293, section 3.7.1 and RFC 6691 (what the option means), RFC 1624 (the checksum).

use super::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, Version};

/// TCP (RFC 9293).
const TCP: u8 = 6;
/// Length of the TCP header without options, in bytes (RFC 9293, section 3.1).
const TCP_HEADER_LEN: usize = 20;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const CHECKSUM: usize = 16;

/// The options of one byte: end of the list, and no operation (RFC 9293, section 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
/// Maximum segment size: kind, length 4, and the size.
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// Lowers the MSS option of a TCP SYN (also with ACK) to what fits packets of `mtu` bytes.
///
/// That is the MTU without the fixed headers of IP and TCP: whoever sends makes room for options
/// and extension headers himself (RFC 9293, section 3.7.1). Nothing is ever raised. Unchanged stays what has no
/// such option, is a fragment, is malformed, or no packet at all; also all when `mtu` has no room for data.
///
/// The TCP checksum stays as right, or as wrong, as it was. If `checksum_is_partial` it is the sum of the pseudo
/// header only, for the hardware to complete (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, virtio 1.2, section 5.1.6.2):
/// the options are not in it, and it stays.
pub fn clamp_mss(packet: &mut [u8], mtu: usize, checksum_is_partial: bool) {
    let Some((start, limit)) = find(packet, mtu) else { return };
    let Some(tcp) = packet.get_mut(start..) else { return };
    // Every one of them, should there be several: which counts is up to the receiver.
    let mut at = TCP_HEADER_LEN;
    while let Some(option) = next_option(tcp, at) {
        if option.kind == MSS {
            lower(tcp, at + 2, limit, checksum_is_partial);
        }
        at = option.end;
    }
}

/// Whether this is a TCP SYN, with or without ACK: the only packets that [`clamp_mss`] changes.
pub fn is_syn(packet: &[u8]) -> bool {
    let transport = Packet::parse(packet).ok().and_then(|packet| packet.transport());
    transport.is_some_and(|it| {
        it.protocol == TCP
            && !it.fragment
            && it.bytes.get(FLAGS).is_some_and(|flags| flags & SYN != 0)
    })
}

/// Where the TCP header of a well-formed SYN begins, and the largest segment that it may announce.
fn find(bytes: &[u8], mtu: usize) -> Option<(usize, u16)> {
    let packet = Packet::parse(bytes).ok()?;
    let transport = packet.transport()?;
    let tcp = transport.bytes;
    if transport.protocol != TCP || transport.fragment || tcp.get(FLAGS)? & SYN == 0 {
        return None;
    }
    let mut at = TCP_HEADER_LEN;
    let end = header_len(tcp)?;
    while let Some(option) = next_option(tcp, at) {
        at = option.end;
    }
    // The walk stops early at the end of the list, or at what is no option.
    if at < end && tcp.get(at) != Some(&END) {
        return None;
    }
    let ip_header = match packet.version() {
        Version::V4 => IPV4_HEADER_LEN,
        Version::V6 => IPV6_HEADER_LEN,
    };
    let room = mtu.checked_sub(ip_header + TCP_HEADER_LEN).filter(|room| *room > 0)?;
    Some((bytes.len() - tcp.len(), u16::try_from(room).unwrap_or(u16::MAX)))
}

/// The length of the TCP header with options, if the segment holds it.
fn header_len(tcp: &[u8]) -> Option<usize> {
    let len = usize::from(tcp.get(DATA_OFFSET)? >> 4) * 4;
    (TCP_HEADER_LEN..=tcp.len()).contains(&len).then_some(len)
}

struct TcpOption {
    kind: u8,
    /// Where the next one begins.
    end: usize,
}

/// The option at an offset into the TCP header. `None` at the end of the list and of the header, and when it is
/// malformed.
fn next_option(tcp: &[u8], at: usize) -> Option<TcpOption> {
    let options = tcp.get(..header_len(tcp)?)?;
    let kind = *options.get(at)?;
    let len = match kind {
        END => return None,
        NO_OPERATION => 1,
        _ => usize::from(*options.get(at + 1)?),
    };
    let well_formed = match kind {
        NO_OPERATION => true,
        MSS => len == MSS_LEN,
        _ => len >= 2,
    };
    let end = at + len;
    (well_formed && end <= options.len()).then_some(TcpOption { kind, end })
}

/// Lowers the number at an offset into the TCP header, and adjusts the checksum.
fn lower(tcp: &mut [u8], at: usize, limit: u16, checksum_is_partial: bool) {
    let Some(old) = word(tcp, at).filter(|old| *old > limit) else { return };
    put(tcp, at, limit);
    if checksum_is_partial {
        return;
    }
    let Some(checksum) = word(tcp, CHECKSUM) else { return };
    // At an odd offset the number straddles two words of the sum: its bytes count the other way round.
    let (old, new) =
        if at.is_multiple_of(2) { (old, limit) } else { (old.swap_bytes(), limit.swap_bytes()) };
    put(tcp, CHECKSUM, adjusted(checksum, old, new));
}

/// RFC 1624, equation 3: the checksum after one word of what it covers has changed.
fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // Folded twice, three words fit one.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
