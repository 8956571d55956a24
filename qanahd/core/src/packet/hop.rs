//! One hop of a packet, as through a router (RFC 1812, section 5.3.1; RFC 8200, section 3).

use super::Version;

/// Where the time to live of IPv4 and its checksum are (RFC 791, section 3.1).
const TTL: usize = 8;
const CHECKSUM: std::ops::Range<usize> = 10..12;
/// Where the hop limit of IPv6 is (RFC 8200, section 3).
const HOP_LIMIT: usize = 7;

/// Takes one from the time to live (IPv4) or hop limit (IPv6) of a packet. False when it ends here: then the packet is
/// as it was, and its sender is to be told.
pub fn take_hop(packet: &mut [u8], version: Version) -> bool {
    match version {
        Version::V4 => take_hop_v4(packet).unwrap_or(false),
        Version::V6 => decrement(packet, HOP_LIMIT).is_some(),
    }
}

/// Takes one, if something is left then.
fn decrement(packet: &mut [u8], at: usize) -> Option<()> {
    let field = packet.get_mut(at)?;
    *field = field.checked_sub(1).filter(|left| *left > 0)?;
    Some(())
}

fn take_hop_v4(packet: &mut [u8]) -> Option<bool> {
    let checksum: &[u8; 2] = packet.get(CHECKSUM)?.try_into().ok()?;
    // RFC 1624, equation 3, for a word that gets less by 0x0100: one's complement addition of 0x0100.
    let sum = u32::from(u16::from_be_bytes(*checksum)) + 0x0100;
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).ok()?;
    // Of the two zeros the one that a sum from scratch gives.
    let sum = if sum == u16::MAX { 0 } else { sum };
    if decrement(packet, TTL).is_none() {
        return Some(false);
    }
    packet.get_mut(CHECKSUM)?.copy_from_slice(&sum.to_be_bytes());
    Some(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::checksum::Checksum;
    use crate::packet::testing::packet;
    use crate::packet::{IPV4_HEADER_LEN, Packet};

    /// The sum over a header with a right checksum is zero (RFC 1071, section 1).
    fn is_right(packet: &[u8]) -> bool {
        Checksum::default().add(&packet[..IPV4_HEADER_LEN]).finish() == [0, 0]
    }

    fn v4(ttl: u8, id: [u8; 2]) -> Vec<u8> {
        let mut bytes = packet("10.0.0.1", "10.0.0.2", 17, b"payload");
        bytes[8] = ttl;
        bytes[4..6].copy_from_slice(&id);
        bytes[10..12].fill(0);
        let sum = Checksum::default().add(&bytes[..IPV4_HEADER_LEN]).finish();
        bytes[10..12].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        for ttl in [0, 1] {
            let mut bytes = v4(ttl, [0; 2]);
            assert!(!take_hop(&mut bytes, Version::V4));
            assert_eq!(bytes, v4(ttl, [0; 2]), "unchanged");
            let mut bytes = packet("fd00::1", "fd00::2", 17, b"payload");
            bytes[7] = ttl;
            assert!(!take_hop(&mut bytes, Version::V6));
            assert_eq!(bytes[7], ttl);
        }
        let mut bytes = packet("fd00::1", "fd00::2", 17, b"payload");
        bytes[7] = 2;
        assert!(take_hop(&mut bytes, Version::V6));
        assert_eq!(bytes[7], 1);
        assert!(Packet::parse(&bytes).is_ok());
    }

    #[test]
    fn what_is_too_short_ends_here() {
        for len in 0..IPV4_HEADER_LEN {
            take_hop(&mut vec![255; len], Version::V4);
            take_hop(&mut vec![255; len], Version::V6);
        }
    }

    proptest! {
        #[test]
        fn the_checksum_stays_right(ttl in 2..=255_u8, id in any::<[u8; 2]>()) {
            let mut bytes = v4(ttl, id);
            prop_assert!(take_hop(&mut bytes, Version::V4));
            prop_assert_eq!(bytes[8], ttl - 1);
            prop_assert!(is_right(&bytes));
            prop_assert_eq!(bytes, v4(ttl - 1, id));
        }
    }
}
