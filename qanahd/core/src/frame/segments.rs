//! The plaintext of a frame of segments: one large TCP or UDP packet that stands for many.
//!
//! `kind (1) | reserved zero (1) | gso_size (2) | one IP packet`. The transport checksum in the
//! packet is zero; who cuts the packet up, or has the kernel do so, fills it in.
//!
//! What is accepted is what can be handed to a kernel: every header is whole, and nothing stands
//! between the IP and the transport header. Anything else a sender cuts up itself and sends as
//! packets.

use thiserror::Error;

use crate::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Packet, PacketError, Transport, Version};

/// Length of what precedes the packet, in bytes.
pub const SEGMENTS_HEADER_LEN: usize = 4;
/// The smallest payload of one segment, in bytes: less would let a frame stand for a flood.
pub const MIN_GSO_SIZE: u16 = 536;
/// The most segments that one frame stands for. The largest packet in the smallest segments is
/// already fewer.
pub const MAX_SEGMENTS: usize = 128;

/// The largest packet that a TUN device takes, in bytes.
const MAX_PACKET: usize = 65_535;

const _: () = assert!(MAX_PACKET.div_ceil(MIN_GSO_SIZE as usize) <= MAX_SEGMENTS);

/// What kind of packet is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// TCP (RFC 9293): each segment gets a header with its own sequence number.
    Tcp = 1,
    /// UDP (RFC 768): each segment becomes a datagram.
    Udp = 2,
}

impl SegmentKind {
    /// The IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum is in the transport header, in bytes.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Why a frame of segments is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentsError {
    /// Shorter than its own header.
    #[error("frame of segments cut short")]
    Truncated,
    /// Neither TCP nor UDP.
    #[error("unknown kind of segments {0}")]
    Kind(u8),
    /// The reserved byte is not zero.
    #[error("reserved byte of a frame of segments is not zero")]
    Reserved,
    /// Segments smaller than [`MIN_GSO_SIZE`].
    #[error("segment size {0} is less than {MIN_GSO_SIZE}")]
    GsoSize(u16),
    /// Not exactly one IP packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The packet is larger than 65535 bytes.
    #[error("packet of {0} bytes is too large")]
    TooLarge(usize),
    /// IPv4 options or IPv6 extension headers, which are not carried this way.
    #[error("options or extension headers in a frame of segments")]
    Options,
    /// A fragment, which has no whole transport packet to cut up.
    #[error("fragment in a frame of segments")]
    Fragment,
    /// The IP protocol is not what the kind says.
    #[error("protocol {0} does not match the kind of segments")]
    Protocol(u8),
    /// The transport header is cut short or has an impossible length.
    #[error("bad transport header in a frame of segments")]
    Transport,
    /// The transport checksum is not zero.
    #[error("transport checksum of a frame of segments is not zero")]
    Checksum,
}

/// What precedes the packet in a frame of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentsHeader {
    /// What kind of packet follows.
    pub kind: SegmentKind,
    /// Payload of each segment but the last, in bytes.
    pub gso_size: u16,
}

impl SegmentsHeader {
    /// The header as it travels.
    pub const fn to_bytes(self) -> [u8; SEGMENTS_HEADER_LEN] {
        let [high, low] = self.gso_size.to_be_bytes();
        [self.kind as u8, 0, high, low]
    }

    fn parse(bytes: [u8; SEGMENTS_HEADER_LEN]) -> Result<Self, SegmentsError> {
        let [kind, reserved, high, low] = bytes;
        let kind = match kind {
            1 => SegmentKind::Tcp,
            2 => SegmentKind::Udp,
            other => return Err(SegmentsError::Kind(other)),
        };
        if reserved != 0 {
            return Err(SegmentsError::Reserved);
        }
        Ok(Self { kind, gso_size: u16::from_be_bytes([high, low]) })
    }
}

/// A checked frame of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments<'a> {
    header: SegmentsHeader,
    packet: Packet<'a>,
    ip_header_len: usize,
    transport_header_len: usize,
}

impl<'a> Segments<'a> {
    /// Reads the plaintext of a frame of segments.
    ///
    /// # Errors
    /// When anything in it is not as the module describes.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, SegmentsError> {
        let (header, packet) = plaintext.split_first_chunk().ok_or(SegmentsError::Truncated)?;
        Self::check(SegmentsHeader::parse(*header)?, Packet::parse(packet)?)
    }

    /// Checks that a packet may travel as segments. The sender asks the same before it sends.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(header: SegmentsHeader, packet: Packet<'a>) -> Result<Self, SegmentsError> {
        if header.gso_size < MIN_GSO_SIZE {
            return Err(SegmentsError::GsoSize(header.gso_size));
        }
        if packet.as_bytes().len() > MAX_PACKET {
            return Err(SegmentsError::TooLarge(packet.as_bytes().len()));
        }
        let transport = packet.transport().ok_or(SegmentsError::Options)?;
        if transport.fragment {
            return Err(SegmentsError::Fragment);
        }
        if transport.extra != 0 {
            return Err(SegmentsError::Options);
        }
        if transport.protocol != header.kind.protocol() {
            return Err(SegmentsError::Protocol(transport.protocol));
        }
        Ok(Self {
            header,
            packet,
            ip_header_len: match packet.version() {
                Version::V4 => IPV4_HEADER_LEN,
                Version::V6 => IPV6_HEADER_LEN,
            },
            transport_header_len: transport_header_len(header.kind, &transport)?,
        })
    }

    /// TCP or UDP.
    pub const fn kind(&self) -> SegmentKind {
        self.header.kind
    }

    /// Payload of each segment but the last, in bytes.
    pub const fn gso_size(&self) -> u16 {
        self.header.gso_size
    }

    /// The large packet, its transport checksum still zero.
    pub const fn packet(&self) -> Packet<'a> {
        self.packet
    }

    /// Where the transport header begins in the packet, in bytes.
    pub const fn ip_header_len(&self) -> usize {
        self.ip_header_len
    }

    /// Length of the IP and the transport header, in bytes.
    pub const fn headers_len(&self) -> usize {
        self.ip_header_len + self.transport_header_len
    }

    /// Length of what the segments share out, in bytes.
    pub const fn payload_len(&self) -> usize {
        self.packet.as_bytes().len().saturating_sub(self.headers_len())
    }

    /// How many packets it stands for. One means that only the checksum is missing.
    pub fn count(&self) -> usize {
        self.payload_len().div_ceil(usize::from(self.header.gso_size)).max(1)
    }
}

fn transport_header_len(
    kind: SegmentKind,
    transport: &Transport<'_>,
) -> Result<usize, SegmentsError> {
    let bytes = transport.bytes;
    let (len, checksum) = match kind {
        SegmentKind::Tcp => {
            let fixed: &[u8; 20] = bytes.first_chunk().ok_or(SegmentsError::Transport)?;
            // RFC 9293, section 3.1: the data offset, in words of 4 bytes.
            let len = usize::from(fixed[12] >> 4) * 4;
            if len < fixed.len() || len > bytes.len() {
                return Err(SegmentsError::Transport);
            }
            (len, [fixed[16], fixed[17]])
        }
        SegmentKind::Udp => {
            let fixed: &[u8; 8] = bytes.first_chunk().ok_or(SegmentsError::Transport)?;
            if usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) != bytes.len() {
                return Err(SegmentsError::Transport);
            }
            (fixed.len(), [fixed[6], fixed[7]])
        }
    };
    if checksum != [0; 2] {
        return Err(SegmentsError::Checksum);
    }
    Ok(len)
}

#[cfg(test)]
mod tests;
