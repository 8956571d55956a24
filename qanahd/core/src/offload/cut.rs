//! Cutting a packet up, as the Linux kernel does for TCP segmentation and UDP GSO.

use super::OffloadError;
use crate::frame::{FrameBuf, FrameFull, SegmentKind, Segments, SegmentsHeader};
use crate::packet::checksum::Checksum;
use crate::packet::{Packet, Version};

/// Bits of the TCP flags (RFC 9293, section 3.1; RFC 3168, section 6.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// Where they are in the header, and the sequence number.
const FLAGS: usize = 13;
const SEQUENCE: usize = 4;

/// Where in an IPv4 header the total length, the identification and the checksum are (RFC 791, section 3.1), and where in an
/// IPv6 header the payload length is (RFC 8200, section 3).
const V4_LENGTH: usize = 2;
const V4_ID: usize = 4;
const V4_CHECKSUM: usize = 10;
const V6_LENGTH: usize = 4;
const V6_FIXED: usize = 40;
/// Where in a UDP header the length is (RFC 768).
const UDP_LENGTH: usize = 4;

/// How a large packet is made of parts: its headers, and how much payload each segment gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutter {
    kind: SegmentKind,
    version: Version,
    /// Where the transport header begins, behind options and extension headers.
    transport: usize,
    /// Where the payload begins.
    payload: usize,
    /// Length of the packet.
    len: usize,
    gso_size: usize,
}

impl Cutter {
    /// Looks at a packet that is to be cut up.
    ///
    /// # Errors
    /// When it is no packet of that kind, a fragment, or its segments would hold nothing.
    pub fn new(header: SegmentsHeader, packet: &[u8]) -> Result<Self, OffloadError> {
        let view = Packet::parse(packet)?;
        let found = view.transport().ok_or(OffloadError::Headers)?;
        let is_kind = found.protocol == header.kind.protocol() && !found.fragment;
        if !is_kind || header.gso_size == 0 {
            return Err(OffloadError::Headers);
        }
        let transport = packet.len() - found.bytes.len();
        let header_len = match header.kind {
            // RFC 9293, section 3.1: the data offset, in words of 4 bytes.
            SegmentKind::Tcp => {
                let offset = found.bytes.get(12).ok_or(OffloadError::Headers)?;
                usize::from(offset >> 4) * 4
            }
            SegmentKind::Udp => 8,
        };
        let least = if header.kind == SegmentKind::Tcp { 20 } else { 8 };
        if header_len < least || header_len > found.bytes.len() {
            return Err(OffloadError::Headers);
        }
        Ok(Self {
            kind: header.kind,
            version: view.version(),
            transport,
            payload: transport + header_len,
            len: packet.len(),
            gso_size: usize::from(header.gso_size),
        })
    }

    /// The same for segments that were checked already.
    pub const fn of(segments: &Segments<'_>) -> Self {
        Self {
            kind: segments.kind(),
            version: segments.packet().version(),
            transport: segments.ip_header_len(),
            payload: segments.headers_len(),
            len: segments.packet().as_bytes().len(),
            gso_size: segments.gso_size() as usize,
        }
    }

    /// How many packets it stands for.
    pub fn count(&self) -> usize {
        self.len.saturating_sub(self.payload).div_ceil(self.gso_size).max(1)
    }

    /// Length of the longest of them, in bytes.
    pub fn longest(&self) -> usize {
        self.len.min(self.payload + self.gso_size)
    }

    /// Adds the packet with this number, from 0, to a frame of packets.
    ///
    /// # Errors
    /// When it does not fit; then nothing was added. A number beyond the last one adds nothing.
    pub fn add(&self, packet: &[u8], number: usize, frame: &mut FrameBuf) -> Result<(), FrameFull> {
        let from = self.payload + number * self.gso_size;
        let to = self.len.min(from + self.gso_size);
        let (Some(headers), Some(payload)) = (packet.get(..self.payload), packet.get(from..to))
        else {
            return Ok(());
        };
        let at = frame.len();
        if headers.len() + payload.len() > frame.remaining() {
            return Err(FrameFull);
        }
        frame.push(headers)?;
        frame.push(payload)?;
        if let Some(segment) = frame.plaintext_mut().get_mut(at..) {
            // All places are inside the headers, which are there.
            let _ = self.finish(segment, number);
        }
        frame.note_packet();
        Ok(())
    }

    /// Makes headers of the large packet those of one segment.
    fn finish(&self, segment: &mut [u8], number: usize) -> Option<()> {
        let (len, is_last) = (segment.len(), number + 1 == self.count());
        match self.version {
            Version::V4 => {
                put_u16(segment, V4_LENGTH, u16::try_from(len).ok()?)?;
                let id = u16_at(segment, V4_ID)?.wrapping_add(u16::try_from(number).ok()?);
                put_u16(segment, V4_ID, id)?;
                put_u16(segment, V4_CHECKSUM, 0)?;
                let sum = Checksum::default().add(segment.get(..ipv4_header_len(segment)?)?);
                segment.get_mut(V4_CHECKSUM..)?.first_chunk_mut().map(|it| *it = sum.finish())?;
            }
            Version::V6 => {
                put_u16(segment, V6_LENGTH, u16::try_from(len.checked_sub(V6_FIXED)?).ok()?)?;
            }
        }
        let header = segment.get_mut(self.transport..)?;
        match self.kind {
            SegmentKind::Tcp => {
                let sequence = header.get_mut(SEQUENCE..)?.first_chunk_mut::<4>()?;
                let before = u32::try_from(number * self.gso_size).ok()?;
                *sequence = u32::from_be_bytes(*sequence).wrapping_add(before).to_be_bytes();
                let flags = header.get_mut(FLAGS)?;
                if number > 0 {
                    *flags &= !CWR;
                }
                if !is_last {
                    *flags &= !(FIN | PSH);
                }
            }
            SegmentKind::Udp => {
                let len = u16::try_from(header.len()).ok()?;
                put_u16(header, UDP_LENGTH, len)?;
            }
        }
        self.put_pseudo_sum(segment);
        let summed = segment.get(self.transport..)?;
        let sum = match Checksum::default().add(summed).finish() {
            [0, 0] => [0xff, 0xff],
            sum => sum,
        };
        self.put_checksum(segment, sum);
        Some(())
    }

    fn checksum_at(&self) -> usize {
        self.transport + self.kind.checksum_offset()
    }

    /// Sets the checksum to zero and returns what it was.
    pub(super) fn clear_checksum(&self, packet: &mut [u8]) -> Option<[u8; 2]> {
        let place = packet.get_mut(self.checksum_at()..)?.first_chunk_mut::<2>()?;
        Some(std::mem::take(place))
    }

    pub(super) fn put_checksum(&self, packet: &mut [u8], sum: [u8; 2]) {
        if let Some(place) =
            packet.get_mut(self.checksum_at()..).and_then(<[u8]>::first_chunk_mut::<2>)
        {
            *place = sum;
        }
    }

    /// Puts the sum over the pseudo header where the checksum belongs, for whoever adds the rest (RFC 9293, section
    /// 3.1; RFC 8200, section 8.1).
    pub(super) fn put_pseudo_sum(&self, packet: &mut [u8]) {
        let Ok(view) = Packet::parse(packet) else {
            return;
        };
        let len = u32::try_from(packet.len() - self.transport).unwrap_or_default();
        let sum = Checksum::default()
            .add_addr(view.src())
            .add_addr(view.dst())
            .add_u32(len)
            .add_u32(self.kind.protocol().into());
        let [high, low] = sum.finish();
        self.put_checksum(packet, [!high, !low]);
    }
}

fn ipv4_header_len(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|it| u16::from_be_bytes(*it))
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}
