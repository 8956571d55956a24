//! An Ethernet frame with the header of virtio before it, which may stand for many wire packets.
//!
//! The header is `struct virtio_net_hdr` of the virtio specification, section 5.1.6, in the
//! byte order of the machine, as the kernel's TAP devices have it: `flags (1) | gso_type (1) |
//! hdr_len (2) | gso_size (2) | csum_start (2) | csum_offset (2)`.

use std::ops::Range;

/// Length of the header of virtio.
pub(super) const VNET_LEN: usize = 10;
/// Length of the Ethernet header.
pub(super) const ETHER_LEN: usize = 14;

/// `VIRTIO_NET_HDR_GSO_ECN`: a flag on top of the kinds.
const GSO_ECN: u8 = 0x80;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;

/// What a large packet is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Large {
    Tcp,
    Udp,
}

/// A frame as a TAP device has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Header of virtio, Ethernet, the rest.
    bytes: Vec<u8>,
    large: Option<Large>,
    /// Length of Ethernet, IP and transport header of a large packet.
    headers: usize,
    /// Payload of each wire packet of a large one.
    size: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([*pair.first()?, *pair.get(1)?]))
}

fn native(bytes: &[u8], at: usize) -> usize {
    word(bytes, at).map_or(0, |word| usize::from(u16::from_ne_bytes(word.to_be_bytes())))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}

/// The sum of RFC 1071 over these bytes, not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    pairs.sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// The checksum of RFC 1071.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().map(|part| sum(part)).sum())
}

impl Frame {
    /// Reads what a device gave. `None` for what is too short to be a frame or says of itself what
    /// cannot be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < VNET_LEN + ETHER_LEN {
            return None;
        }
        let mut frame = Self { bytes: bytes.to_vec(), large: None, headers: 0, size: 0 };
        let transport = native(bytes, 6);
        frame.large = match bytes.get(1)? & !GSO_ECN {
            0 => return Some(frame),
            1 | 4 => Some(Large::Tcp),
            5 => Some(Large::Udp),
            _ => return None,
        };
        let header = match frame.large {
            Some(Large::Tcp) => {
                let offset = *frame.ethernet().get(transport.checked_add(12)?)?;
                usize::from(offset >> 4) * 4
            }
            _ => 8,
        };
        frame.headers = transport.checked_add(header)?;
        frame.size = native(bytes, 4);
        let possible = frame.size > 0
            && transport > ETHER_LEN
            && header >= 8
            && frame.headers <= frame.ethernet().len();
        possible.then_some(frame)
    }

    /// A frame without anything left to do, from its Ethernet header on.
    pub(super) fn plain(ethernet: &[u8]) -> Self {
        let bytes = [&[0; VNET_LEN], ethernet].concat();
        Self { bytes, large: None, headers: 0, size: 0 }
    }

    /// As the device takes it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From the Ethernet header on.
    pub(super) fn ethernet(&self) -> &[u8] {
        self.bytes.get(VNET_LEN..).unwrap_or_default()
    }

    /// The IP packet, with its version, if it is one.
    pub(super) fn ip(&self) -> Option<(u8, &[u8])> {
        let frame = self.ethernet();
        let version = match word(frame, 12)? {
            ETHERTYPE_V4 => 4,
            ETHERTYPE_V6 => 6,
            _ => return None,
        };
        Some((version, frame.get(ETHER_LEN..)?))
    }

    /// Whether it is ARP or neighbour discovery (RFC 4861: ICMPv6 types 133 to 137).
    pub(super) fn is_neighbourly(&self) -> bool {
        match self.ip() {
            None => true,
            Some((6, ip)) => {
                ip.get(6) == Some(&58) && ip.get(40).is_some_and(|kind| (133..=137).contains(kind))
            }
            Some(_) => false,
        }
    }

    /// How many wire packets it stands for.
    pub(super) fn count(&self) -> usize {
        match self.large {
            None => 1,
            Some(_) => (self.ethernet().len() - self.headers).div_ceil(self.size).max(1),
        }
    }

    /// Length of wire packet `n`, Ethernet header included.
    pub(super) fn wire_len(&self, n: usize) -> usize {
        let all = self.ethernet().len();
        match self.large {
            None => all,
            Some(_) => {
                let rest = (all - self.headers).saturating_sub(n * self.size);
                self.headers + rest.min(self.size)
            }
        }
    }

    /// Those wire packets alone.
    pub(super) fn cut(&self, range: Range<usize>) -> Self {
        if range == (0..self.count()) {
            return self.clone();
        }
        let payload = VNET_LEN + self.headers;
        let end = self.bytes.len().min(payload + range.end * self.size);
        let body = self.bytes.get(payload + range.start * self.size..end).unwrap_or_default();
        let bytes = [self.bytes.get(..payload).unwrap_or_default(), body].concat();
        let mut part = Self { bytes, ..*self };
        if range.len() == 1 {
            // No longer large; the checksum is still to be filled in by whoever needs it.
            put(&mut part.bytes, 1, &[0]);
            put(&mut part.bytes, 4, &[0, 0]);
            part.large = None;
        }
        part.correct(self.large, range, self.count());
        part
    }

    /// Makes the headers of a part of a large packet fit it.
    fn correct(&mut self, kind: Option<Large>, range: Range<usize>, count: usize) {
        let transport = VNET_LEN + native(&self.bytes, 6);
        let ip = VNET_LEN + ETHER_LEN;
        let total = self.bytes.len() - ip;
        let length = self.bytes.len() - transport;
        let small = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        let v4 = self.ip().is_some_and(|(version, _)| version == 4);
        if v4 {
            put(&mut self.bytes, ip + 2, &small(total));
            let id = word(&self.bytes, ip + 4).unwrap_or(0);
            let id = id.wrapping_add(u16::try_from(range.start).unwrap_or(0));
            put(&mut self.bytes, ip + 4, &id.to_be_bytes());
            put(&mut self.bytes, ip + 10, &[0, 0]);
            let header = usize::from(self.bytes.get(ip).map_or(0, |first| first & 15)) * 4;
            let sum = checksum(&[self.bytes.get(ip..ip + header).unwrap_or_default()]);
            put(&mut self.bytes, ip + 10, &sum.to_be_bytes());
        } else {
            put(&mut self.bytes, ip + 4, &small(total.saturating_sub(40)));
        }
        let protocol = match kind {
            Some(Large::Udp) => {
                put(&mut self.bytes, transport + 4, &small(length));
                17
            }
            _ => {
                self.correct_tcp(transport, range, count);
                6
            }
        };
        let addresses = if v4 { ip + 12..ip + 20 } else { ip + 8..ip + 40 };
        // The sum of the pseudo header is where the checksum will be.
        let pseudo = sum(self.bytes.get(addresses).unwrap_or_default()) + protocol;
        let pseudo = fold(pseudo + u64::try_from(length).unwrap_or(0));
        let at = transport + native(&self.bytes, 8);
        put(&mut self.bytes, at, &pseudo.to_be_bytes());
    }

    /// RFC 9293, section 3.1: the first has CWR, the last has FIN and PSH, as the kernel does it.
    fn correct_tcp(&mut self, transport: usize, range: Range<usize>, count: usize) {
        let skipped = u32::try_from(range.start * self.size).unwrap_or(0);
        let before = self.bytes.get(transport + 4..transport + 8).unwrap_or_default();
        let number = before.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        put(&mut self.bytes, transport + 4, &number.wrapping_add(skipped).to_be_bytes());
        let mut keep = 0xff;
        if range.end < count {
            keep &= !0x09;
        }
        if range.start > 0 {
            keep &= !0x80;
        }
        if let Some(flags) = self.bytes.get_mut(transport + 13) {
            *flags &= keep;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A large packet of `payload` bytes in pieces of `size`, as the kernel would give it.
    pub(in crate::link) fn large(v4: bool, tcp: bool, payload: usize, size: u16) -> Frame {
        let transport = if v4 { 34_u16 } else { 54 };
        let kind = if !tcp {
            5
        } else if v4 {
            1
        } else {
            4
        };
        let mut bytes = vec![1, kind];
        for field in [54, size, transport, if tcp { 16 } else { 6 }] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend([2; 12]);
        let body = if tcp { 20 } else { 8 } + payload;
        if v4 {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend(u16::try_from(20 + body).unwrap().to_be_bytes());
            bytes.extend([0xff, 0xff, 0x40, 0, 64, if tcp { 6 } else { 17 }, 0, 0]);
            bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(u16::try_from(body).unwrap().to_be_bytes());
            bytes.extend([if tcp { 6 } else { 17 }, 64]);
            bytes.extend([0xfd; 32]);
        }
        bytes.extend([0x11, 0x11, 0x22, 0x22]);
        if tcp {
            bytes.extend([0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 7, 0x50, 0x99, 0, 1, 0, 0, 0, 0]);
        } else {
            bytes.extend(u16::try_from(body).unwrap().to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend((0..payload).map(|n| u8::try_from(n % 251).unwrap()));
        Frame::parse(&bytes).unwrap()
    }

    /// Checks a wire packet as a receiver would, after the checksum was filled in as a card does.
    fn payload_of(frame: &Frame) -> Vec<u8> {
        let (version, ip) = frame.ip().unwrap();
        assert_eq!(frame.as_bytes()[1], 0, "still large");
        let start = native(frame.as_bytes(), 6);
        let at = native(frame.as_bytes(), 8);
        let mut packet = frame.ethernet().to_vec();
        let sum = checksum(&[&packet[start..]]).to_be_bytes();
        packet[start + at..start + at + 2].copy_from_slice(&sum);
        let body = &packet[start..];
        let addresses = if version == 4 {
            assert_eq!(checksum(&[&ip[..20]]), 0);
            assert_eq!(usize::from(word(ip, 2).unwrap()), ip.len());
            &ip[12..20]
        } else {
            assert_eq!(usize::from(word(ip, 4).unwrap()), ip.len() - 40);
            &ip[8..40]
        };
        let protocol = [0, ip[if version == 4 { 9 } else { 6 }]];
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        assert_eq!(checksum(&[addresses, &protocol, &length, body]), 0, "checksum");
        if protocol[1] == 17 {
            assert_eq!(word(body, 4), word(&length, 0));
        }
        body[if protocol[1] == 6 { 20 } else { 8 }..].to_vec()
    }

    #[test]
    fn wire_packets_of_a_large_one_are_whole_and_valid() {
        for (v4, tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            let frame = large(v4, tcp, 3500, 1000);
            assert_eq!(frame.count(), 4);
            let whole = &frame.ethernet()[frame.headers..];
            // One by one, and by way of a cut in two: the same.
            let halves = [frame.cut(0..1), frame.cut(1..4)];
            assert_eq!(halves[1].count(), 3);
            for n in 0..4 {
                let one = frame.cut(n..n + 1);
                assert_eq!((one.count(), one.ethernet().len()), (1, frame.wire_len(n)));
                assert_eq!(payload_of(&one), whole[n * 1000..whole.len().min(n * 1000 + 1000)]);
                let again = if n == 0 { halves[0].clone() } else { halves[1].cut(n - 1..n) };
                assert_eq!(again, one);
                if tcp {
                    let tcp = &one.ethernet()[native(one.as_bytes(), 6)..];
                    let number = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
                    let skipped = u32::try_from(n * 1000).unwrap();
                    assert_eq!(number, 0xffff_fff0_u32.wrapping_add(skipped));
                    let flags = [0x90, 0x10, 0x10, 0x19][n];
                    assert_eq!(tcp[13], flags, "flags of packet {n}");
                }
                if v4 {
                    let id = word(one.ip().unwrap().1, 4).unwrap();
                    assert_eq!(id, 0xffff_u16.wrapping_add(u16::try_from(n).unwrap()));
                }
            }
            assert_eq!(frame.cut(0..4), frame);
        }
    }

    #[test]
    fn nonsense_is_no_frame() {
        let good = large(true, true, 3000, 1000);
        assert!(Frame::parse(&good.as_bytes()[..23]).is_none());
        let mut bytes = good.as_bytes().to_vec();
        for (at, value) in [(1, 9), (6, 250), (6, 3)] {
            let kept = bytes[at];
            bytes[at] = value;
            assert!(Frame::parse(&bytes[..80]).is_none(), "byte {at} = {value}");
            bytes[at] = kept;
        }
        bytes[4..6].fill(0);
        assert!(Frame::parse(&bytes).is_none(), "pieces of no size");
    }

    #[test]
    fn neighbours_are_told_from_travellers() {
        let plain = |rest: &[u8]| Frame::plain(&[&[2; 12], rest].concat());
        assert!(plain(&[8, 6, 0, 1]).is_neighbourly());
        let mut discovery = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255];
        discovery.extend([0xfd; 32]);
        discovery.push(135);
        assert!(plain(&discovery).is_neighbourly());
        *discovery.last_mut().unwrap() = 128;
        assert!(!plain(&discovery).is_neighbourly());
        assert!(!large(true, false, 10, 1000).is_neighbourly());
    }
}
