//! Single attributes of STUN messages, read where they lie.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, StunHeader};

/// USERNAME (RFC 8489, section 14.3).
const USERNAME: u16 = 0x0006;
/// XOR-PEER-ADDRESS (RFC 8656, section 18.3).
const XOR_PEER_ADDRESS: u16 = 0x0012;
/// DATA (RFC 8656, section 18.4).
const DATA: u16 = 0x0013;
/// A Send indication (RFC 8656, section 17): a client hands a datagram over to its server.
pub const SEND_INDICATION: u16 = 0x0016;
/// A Data indication (RFC 8656, section 17): a server hands a datagram over to its client.
pub const DATA_INDICATION: u16 = 0x0017;

/// The value of the first attribute of this type; nothing where the message ends or is broken before it.
fn attribute(message: &[u8], kind: u16) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*message.get(2..)?.first_chunk()?);
    let mut rest = message.get(20..)?.get(..usize::from(length))?;
    loop {
        let (head, body) = rest.split_first_chunk::<4>()?;
        let [high, low, length @ ..] = *head;
        let length = usize::from(u16::from_be_bytes(length));
        let value = body.get(..length)?;
        if u16::from_be_bytes([high, low]) == kind {
            return Some(value);
        }
        rest = body.get(length.next_multiple_of(4)..)?;
    }
}

/// Whether a STUN message has a USERNAME: a check of ICE has, a question for one's own address has not.
pub fn has_username(message: &[u8]) -> bool {
    attribute(message, USERNAME).is_some()
}

/// Whom a check is for: the first part of its USERNAME (RFC 8445, section 7.2.2). It was not proved.
pub fn receiver(check: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(attribute(check, USERNAME)?).ok()?;
    name.split_once(':').map(|(ufrag, _)| ufrag)
}

/// The peer and the datagram in a Send or Data indication (RFC 8656, section 11).
pub fn handed_over(indication: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let header = StunHeader::read(indication)?;
    if header.kind != SEND_INDICATION && header.kind != DATA_INDICATION {
        return None;
    }
    let peer = unmasked(attribute(indication, XOR_PEER_ADDRESS)?, header)?;
    Some((peer, attribute(indication, DATA)?))
}

/// The address in an attribute like XOR-MAPPED-ADDRESS (RFC 8489, section 14.2).
fn unmasked(value: &[u8], header: StunHeader) -> Option<SocketAddr> {
    let ([_, family, high, low], address) = value.split_first_chunk::<4>()?;
    let [first, second, ..] = MAGIC_COOKIE;
    let port = u16::from_be_bytes([high ^ first, low ^ second]);
    let mut mask = MAGIC_COOKIE.iter().chain(&header.id);
    let mut next = |byte: &u8| byte ^ mask.next().copied().unwrap_or_default();
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?.each_ref().map(next))),
        2 => IpAddr::V6(Ipv6Addr::from(
            <[u8; 16]>::try_from(address).ok()?.each_ref().map(&mut next),
        )),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The datagram in a ChannelData message (RFC 8656, section 12.4); nothing when it is none.
pub fn channel_data(message: &[u8]) -> Option<&[u8]> {
    let ([first, _, length @ ..], body) = message.split_first_chunk::<4>()?;
    if !(0x40..=0x4f).contains(first) {
        return None;
    }
    body.get(..usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(b"twelve bytes");
        for (kind, value) in attributes {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = u16::try_from(bytes.len() - 20).unwrap().to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        bytes
    }

    #[test]
    fn the_receiver_of_a_check_is_read() {
        let check = message(1, &[(0x8022, b"other"), (USERNAME, b"ours:theirs")]);
        assert!(has_username(&check));
        assert_eq!(receiver(&check), Some("ours"));
        assert_eq!(receiver(&message(1, &[(USERNAME, b"ours")])), None);
        assert_eq!(receiver(&message(1, &[(USERNAME, b"\xff:x")])), None);
        assert!(!has_username(&message(1, &[])));
        for length in 0..check.len() {
            assert_eq!(receiver(&check[..length]), None, "cut to {length}");
        }
    }

    #[test]
    fn what_a_server_hands_over_is_found() {
        let v4 = [0, 1, 0x21, 77 ^ 0x12, 192 ^ 0x21, 0x12, 2 ^ 0xa4, 1 ^ 0x42];
        let indication = message(DATA_INDICATION, &[(XOR_PEER_ADDRESS, &v4), (DATA, b"inside")]);
        let peer = SocketAddr::from(([192, 0, 2, 1], 77));
        assert_eq!(handed_over(&indication), Some((peer, &b"inside"[..])));
        let mut v6 = vec![0, 2, 0x21, 77 ^ 0x12];
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mask = MAGIC_COOKIE.iter().chain(b"twelve bytes");
        v6.extend(address.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        let indication = message(SEND_INDICATION, &[(DATA, b""), (XOR_PEER_ADDRESS, &v6)]);
        assert_eq!(handed_over(&indication), Some((SocketAddr::from((address, 77)), &b""[..])));
        assert_eq!(handed_over(&message(DATA_INDICATION, &[(DATA, b"x")])), None);
        assert_eq!(handed_over(&message(1, &[(XOR_PEER_ADDRESS, &v4), (DATA, b"x")])), None);
        assert_eq!(
            handed_over(&message(DATA_INDICATION, &[(XOR_PEER_ADDRESS, &v4[..7]), (DATA, b"")])),
            None
        );
    }

    #[test]
    fn channel_data_ends_where_it_says() {
        assert_eq!(channel_data(b"\x40\x00\x00\x02abcd"), Some(&b"ab"[..]));
        assert_eq!(channel_data(b"\x40\x00\x00\x05abcd"), None);
        assert_eq!(channel_data(b"\x50\x00\x00\x02ab"), None);
        assert_eq!(channel_data(b"\x40\x00"), None);
    }
}
