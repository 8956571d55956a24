//! Joining packets of a frame that belong together into one that stands for many: a kernel takes that in one call.
//!
//! What is joined is what the kernel would cut the result up into again, byte for byte but for the identification
//! of IPv4 packets that are never fragmented, which means nothing (RFC 6864, section 4.1). That is what Linux itself
//! does with what comes from a network card (GRO).

use super::cut::Cutter;
use crate::frame::{MIN_GSO_SIZE, SEGMENTS_HEADER_LEN, SegmentKind, SegmentsHeader};
use crate::packet::checksum::Checksum;
use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, Version};

/// The largest packet that comes of it, in bytes.
const MOST: usize = 65_535;

/// Bits of the TCP flags (RFC 9293, section 3.1).
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Where packets differ although they belong together; see the RFCs at [`Cutter`].
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// A packet that may be joined with others.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    kind: SegmentKind,
    version: Version,
    bytes: &'a [u8],
    transport: usize,
    payload: usize,
}

impl<'a> Part<'a> {
    /// Looks at a packet. `None` for one that stays alone: of another protocol, with options, too short, or with a
    /// checksum that is wrong, which its receiver is to see.
    fn new(packet: &Packet<'a>) -> Option<Self> {
        let found = packet.transport().filter(|it| it.extra == 0 && !it.fragment)?;
        let (kind, header_len) = match found.protocol {
            6 => {
                let header = found.bytes.first_chunk::<20>()?;
                let only_data = header[TCP_FLAGS] & !PSH == ACK;
                (SegmentKind::Tcp, usize::from(header[12] >> 4) * 4 * usize::from(only_data))
            }
            17 => {
                let [high, low] = *found.bytes.get(UDP_LENGTH..)?.first_chunk()?;
                let is_whole = usize::from(u16::from_be_bytes([high, low])) == found.bytes.len();
                (SegmentKind::Udp, 8 * usize::from(is_whole))
            }
            _ => return None,
        };
        let transport = packet.as_bytes().len() - found.bytes.len();
        let payload = found.bytes.len().checked_sub(header_len)?;
        let is_joined = header_len >= 8
            && payload >= usize::from(MIN_GSO_SIZE)
            && !packet.may_fragment()
            && has_right_checksum(packet, kind, found.bytes);
        is_joined.then_some(Self {
            kind,
            version: packet.version(),
            bytes: packet.as_bytes(),
            transport,
            payload: transport + header_len,
        })
    }

    fn payload_len(&self) -> usize {
        self.bytes.len() - self.payload
    }

    fn transport_byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(self.transport + at).copied()
    }

    fn sequence(&self) -> Option<u32> {
        let bytes = self.bytes.get(self.transport + TCP_SEQUENCE..)?;
        bytes.first_chunk().map(|it| u32::from_be_bytes(*it))
    }

    /// The headers without what differs between packets that belong together.
    fn common(&self) -> Option<[&'a [u8]; 6]> {
        let ip = self.bytes.get(..self.transport)?;
        let transport = self.bytes.get(self.transport..self.payload)?;
        let [a, b, c] = match self.version {
            // All but total length, identification and checksum.
            Version::V4 => [ip.get(..2)?, ip.get(6..10)?, ip.get(12..)?],
            // All but the payload length.
            Version::V6 => [ip.get(..4)?, ip.get(6..)?, &[]],
        };
        let [d, e, f] = match self.kind {
            // All but sequence number, flags and checksum.
            SegmentKind::Tcp => [
                transport.get(..TCP_SEQUENCE)?,
                transport.get(TCP_SEQUENCE + 4..TCP_FLAGS)?,
                transport.get(TCP_FLAGS + 1..TCP_CHECKSUM)?,
            ],
            SegmentKind::Udp => [transport.get(..UDP_LENGTH)?, &[], &[]],
        };
        Some([a, b, c, d, e, f])
    }

    /// What follows the checksum in the header: the urgent pointer and the options of TCP.
    fn options(&self) -> &'a [u8] {
        match self.kind {
            SegmentKind::Tcp => self.bytes.get(self.transport + TCP_CHECKSUM + 2..self.payload),
            SegmentKind::Udp => None,
        }
        .unwrap_or_default()
    }
}

fn has_right_checksum(packet: &Packet<'_>, kind: SegmentKind, bytes: &[u8]) -> bool {
    // Over IPv4 a UDP packet may have none (RFC 768). The kernel would give it one.
    if kind == SegmentKind::Udp && bytes.get(UDP_CHECKSUM..UDP_CHECKSUM + 2) == Some(&[0, 0]) {
        return false;
    }
    let Ok(len) = u32::try_from(bytes.len()) else {
        return false;
    };
    let sum = Checksum::default()
        .add_addr(packet.src())
        .add_addr(packet.dst())
        .add_u32(len)
        .add_u32(kind.protocol().into())
        .add(bytes);
    sum.finish() == [0, 0]
}

/// Joins packets, one after the other, for as long as they belong together.
#[derive(Debug, Default)]
pub struct Joiner {
    /// As the plaintext of a frame of segments.
    bytes: Vec<u8>,
    gso_size: usize,
    count: usize,
    next_sequence: u32,
    /// Nothing follows: the last one was shorter, or says so.
    is_closed: bool,
}

/// What came of some packets.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined<'a> {
    /// Nothing.
    Nothing,
    /// One packet, as it was.
    One(&'a [u8]),
    /// The plaintext of a frame of segments that stands for so many, to be [handed back](super::hand_back).
    Many(&'a mut [u8], usize),
}

impl Joiner {
    /// Adds a packet if it belongs to those that are there; the first one always does.
    pub fn add(&mut self, packet: &Packet<'_>) -> bool {
        let part = Part::new(packet);
        if self.count == 0 {
            self.begin(packet, part);
            return true;
        }
        match part {
            Some(part) if !self.is_closed && self.takes(&part) => {
                self.append(&part);
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, packet: &Packet<'_>, part: Option<Part<'_>>) {
        self.bytes.clear();
        self.bytes.resize(SEGMENTS_HEADER_LEN, 0);
        self.bytes.extend_from_slice(packet.as_bytes());
        self.count = 1;
        self.is_closed = true;
        if let Some(part) = part {
            self.gso_size = part.payload_len();
            self.follow(&part);
        }
    }

    /// The first packet, with all that was joined to it.
    fn first(&self) -> Option<Part<'_>> {
        let packet = self.bytes.get(SEGMENTS_HEADER_LEN..)?;
        let transport = match packet.first()? >> 4 {
            4 => IPV4_HEADER_LEN,
            _ => IPV6_HEADER_LEN,
        };
        let is_v4 = transport == IPV4_HEADER_LEN;
        let (version, protocol_at) = if is_v4 { (Version::V4, 9) } else { (Version::V6, 6) };
        let (kind, len) = match packet.get(protocol_at)? {
            6 => (SegmentKind::Tcp, usize::from(packet.get(transport + 12)? >> 4) * 4),
            _ => (SegmentKind::Udp, 8),
        };
        Some(Part { kind, version, bytes: packet, transport, payload: transport + len })
    }

    fn takes(&self, part: &Part<'_>) -> bool {
        let Some(first) = self.first() else {
            return false;
        };
        let fits = part.payload_len() <= self.gso_size
            && self.bytes.len() - SEGMENTS_HEADER_LEN + part.payload_len() <= MOST;
        let follows = match part.kind {
            SegmentKind::Tcp => part.sequence() == Some(self.next_sequence),
            SegmentKind::Udp => true,
        };
        fits && follows
            && (first.kind, first.version) == (part.kind, part.version)
            && first.common() == part.common()
            && first.options() == part.options()
    }

    fn append(&mut self, part: &Part<'_>) {
        self.bytes.extend_from_slice(part.bytes.get(part.payload..).unwrap_or_default());
        self.count += 1;
        self.follow(part);
    }

    /// Notes what may come after this one.
    fn follow(&mut self, part: &Part<'_>) {
        let len = part.payload_len();
        self.is_closed = len < self.gso_size;
        if part.kind == SegmentKind::Tcp {
            let pushes = part.transport_byte(TCP_FLAGS).is_some_and(|flags| flags & PSH != 0);
            self.is_closed |= pushes;
            let len = u32::try_from(len).unwrap_or_default();
            self.next_sequence = part.sequence().unwrap_or_default().wrapping_add(len);
            if pushes && self.count > 1 {
                let at = SEGMENTS_HEADER_LEN + part.transport + TCP_FLAGS;
                if let Some(flags) = self.bytes.get_mut(at) {
                    *flags |= PSH;
                }
            }
        }
    }

    /// Gives what was joined, and begins anew.
    pub fn finish(&mut self) -> Joined<'_> {
        let count = std::mem::take(&mut self.count);
        if count > 1 && self.complete().is_some() {
            return Joined::Many(&mut self.bytes, count);
        }
        match self.bytes.get(SEGMENTS_HEADER_LEN..) {
            Some(packet) if count == 1 => Joined::One(packet),
            _ => Joined::Nothing,
        }
    }

    /// Makes the headers those of the whole.
    fn complete(&mut self) -> Option<()> {
        let first = self.first()?;
        let (kind, version, transport) = (first.kind, first.version, first.transport);
        let header =
            SegmentsHeader { kind, gso_size: u16::try_from(self.gso_size).ok()? }.to_bytes();
        let (before, packet) = self.bytes.split_first_chunk_mut::<SEGMENTS_HEADER_LEN>()?;
        *before = header;
        let len = packet.len();
        match version {
            Version::V4 => {
                let total = u16::try_from(len).ok()?.to_be_bytes();
                packet.get_mut(2..4)?.copy_from_slice(&total);
                packet.get_mut(10..12)?.fill(0);
                let sum = Checksum::default().add(packet.get(..transport)?).finish();
                packet.get_mut(10..12)?.copy_from_slice(&sum);
            }
            Version::V6 => {
                let payload = u16::try_from(len - transport).ok()?.to_be_bytes();
                packet.get_mut(4..6)?.copy_from_slice(&payload);
            }
        }
        if kind == SegmentKind::Udp {
            let datagram = u16::try_from(len - transport).ok()?.to_be_bytes();
            packet.get_mut(transport + UDP_LENGTH..)?.get_mut(..2)?.copy_from_slice(&datagram);
        }
        let segments = SegmentsHeader { kind, gso_size: u16::try_from(self.gso_size).ok()? };
        Cutter::new(segments, packet).ok()?.clear_checksum(packet);
        Some(())
    }
}
