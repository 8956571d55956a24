//! What a router says to the sender of a packet that is too big.

use super::frame::{ETHER_LEN, Frame, checksum};
use crate::lab::{HUB4, HUB6};

/// RFC 4443, section 2.4 (c): no error message makes a packet of more than this many bytes.
const MOST_V6: usize = 1280;
/// RFC 1812, section 4.3.2.3: as much of the packet as fits.
const MOST_V4: usize = 576;

/// The ICMP message for this frame, on its way back, from the address of the lab's router. `None`
/// where none may be sent: for IPv4 without "don't fragment", for errors and for what is no IP.
pub(super) fn too_big(frame: &Frame, mtu: usize) -> Option<Frame> {
    // Of a large packet the first one on the wire is meant.
    let first = frame.cut(0..1);
    let (version, ip) = first.ip()?;
    let macs = first.ethernet().get(..12)?;
    let mut out = [macs.get(6..)?, macs.get(..6)?, first.ethernet().get(12..ETHER_LEN)?].concat();
    if version == 4 {
        out.extend(v4(ip, mtu)?);
    } else {
        out.extend(v6(ip, mtu)?);
    }
    Some(Frame::plain(&out))
}

/// RFC 792 and RFC 1191: type 3, code 4, the MTU of the next hop.
fn v4(ip: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = usize::from(*ip.first()? & 15) * 4;
    let unbroken = *ip.get(6)? & 0x40 != 0;
    let icmp_error = *ip.get(9)? == 1 && !matches!(*ip.get(header)?, 0 | 8);
    if !unbroken || icmp_error {
        return None;
    }
    let quote = ip.get(..ip.len().min(MOST_V4 - 28))?;
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(u16::try_from(mtu).ok()?.to_be_bytes());
    message.extend(quote);
    let sum = checksum(&[&message]).to_be_bytes();
    message.get_mut(2..4)?.copy_from_slice(&sum);
    let total = u16::try_from(20 + message.len()).ok()?.to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(total);
    packet.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    packet.extend(HUB4.parse::<std::net::Ipv4Addr>().ok()?.octets());
    packet.extend(ip.get(12..16)?);
    let sum = checksum(&[&packet]).to_be_bytes();
    packet.get_mut(10..12)?.copy_from_slice(&sum);
    packet.extend(message);
    Some(packet)
}

/// RFC 4443, section 3.2: type 2, the MTU.
fn v6(ip: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let icmp_error = *ip.get(6)? == 58 && *ip.get(40)? < 128;
    if icmp_error {
        return None;
    }
    let quote = ip.get(..ip.len().min(MOST_V6 - 48))?;
    let mut message = vec![2, 0, 0, 0];
    message.extend(u32::try_from(mtu).ok()?.to_be_bytes());
    message.extend(quote);
    let length = u16::try_from(message.len()).ok()?.to_be_bytes();
    let source = HUB6.parse::<std::net::Ipv6Addr>().ok()?.octets();
    let to = ip.get(8..24)?;
    let sum = checksum(&[&source, to, &length, &[0, 58], &message]).to_be_bytes();
    message.get_mut(2..4)?.copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length);
    packet.extend([58, 64]);
    packet.extend(source);
    packet.extend(to);
    packet.extend(message);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::large;
    use super::*;

    #[test]
    fn messages_are_valid_and_quote_the_packet() {
        let frame = large(true, true, 3000, 1400);
        let told = too_big(&frame, 1280).unwrap();
        let (version, ip) = told.ip().unwrap();
        assert_eq!((version, ip.len()), (4, 576));
        assert_eq!((checksum(&[&ip[..20]]), checksum(&[&ip[20..]])), (0, 0));
        assert_eq!((ip[16..20].to_vec(), &ip[20..22]), (vec![10, 0, 0, 1], &[3, 4][..]));
        assert_eq!(ip[26..28], 1280_u16.to_be_bytes());
        assert_eq!(ip[28..48], frame.cut(0..1).ip().unwrap().1[..20]);
        assert!(too_big(&told, 500).is_none(), "an error about an error");
        let frame = large(false, false, 3000, 1400);
        let told = too_big(&frame, 1300).unwrap();
        let (version, ip) = told.ip().unwrap();
        assert_eq!((version, ip.len(), ip[40]), (6, 1280, 2));
        let length = u16::try_from(ip.len() - 40).unwrap().to_be_bytes();
        assert_eq!(checksum(&[&ip[8..40], &length, &[0, 58], &ip[40..]]), 0);
        assert_eq!(ip[44..48], 1300_u32.to_be_bytes());
        assert!(too_big(&told, 500).is_none(), "an error about an error");
    }

    #[test]
    fn nobody_is_told_about_fragments_and_other_protocols() {
        let mut bytes = large(true, false, 1400, 2000).ethernet().to_vec();
        bytes[ETHER_LEN + 6] = 0;
        assert!(too_big(&Frame::plain(&bytes), 1280).is_none());
        bytes[12..14].copy_from_slice(&[8, 6]);
        assert!(too_big(&Frame::plain(&bytes), 1280).is_none());
    }
}
