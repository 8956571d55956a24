//! From the kernel's packets to ones that can travel, and back.

use thiserror::Error;

use super::cut::Cutter;
use super::virtio::{Gso, VirtioHeader};
use crate::frame::{SEGMENTS_HEADER_LEN, SegmentKind, Segments, SegmentsError, SegmentsHeader};
use crate::packet::checksum::Checksum;
use crate::packet::{Packet, PacketError};

/// Why what a kernel has said of a packet cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// It is no IP packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The checksum would lie outside of it.
    #[error("the place of the checksum is not in the packet")]
    Checksum,
    /// Its headers are not those of what it is to be cut up as.
    #[error("the packet is not what it is to be cut up as")]
    Headers,
}

/// What is made of a packet of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is whole now: nothing is missing.
    Whole,
    /// It stands for many, or lacks its checksum, and may travel so: as [`Segments`] with this header.
    Segments(SegmentsHeader),
    /// It stands for many and may not travel so: [`Cutter`] cuts it up.
    Cut(Cutter),
}

impl Taken {
    /// Sees to what the kernel says is missing. `worthwhile` is how long a packet must be that may travel
    /// without its checksum, where that alone is missing: of a short one the checksum is soon computed, and
    /// several short packets share a frame.
    ///
    /// # Errors
    /// A header that does not fit the packet; the packet is lost.
    pub fn from_kernel(
        header: VirtioHeader,
        packet: &mut [u8],
        worthwhile: usize,
    ) -> Result<Self, OffloadError> {
        Packet::parse(packet)?;
        let kind = match header.gso {
            Gso::None => None,
            Gso::TcpV4 | Gso::TcpV6 => Some(SegmentKind::Tcp),
            Gso::Udp => Some(SegmentKind::Udp),
        };
        let Some(kind) = kind else {
            let Some((start, offset)) = header.checksum else {
                return Ok(Self::Whole);
            };
            if packet.len() >= worthwhile
                && let Some(segments) = without_checksum(packet)
            {
                return Ok(Self::Segments(segments));
            }
            complete(packet, start, offset)?;
            return Ok(Self::Whole);
        };
        let segments = SegmentsHeader { kind, gso_size: header.gso_size };
        let cutter = Cutter::new(segments, packet)?;
        cutter.clear_checksum(packet);
        let may_travel =
            Packet::parse(packet).is_ok_and(|packet| Segments::check(segments, packet).is_ok());
        Ok(if may_travel { Self::Segments(segments) } else { Self::Cut(cutter) })
    }
}

/// Clears the checksum of a packet that may travel without it.
fn without_checksum(packet: &mut [u8]) -> Option<SegmentsHeader> {
    let view = Packet::parse(packet).ok()?;
    let kind = match view.transport()?.protocol {
        protocol if protocol == SegmentKind::Tcp.protocol() => SegmentKind::Tcp,
        protocol if protocol == SegmentKind::Udp.protocol() => SegmentKind::Udp,
        _ => return None,
    };
    // One segment: larger than all there is.
    let header = SegmentsHeader { kind, gso_size: u16::MAX };
    let cutter = Cutter::new(header, packet).ok()?;
    let before = cutter.clear_checksum(packet)?;
    let view = Packet::parse(packet).ok()?;
    if Segments::check(header, view).is_ok() {
        return Some(header);
    }
    cutter.put_checksum(packet, before);
    None
}

/// Computes the checksum of a packet that has only that of its pseudo header.
fn complete(packet: &mut [u8], start: u16, offset: u16) -> Result<(), OffloadError> {
    let summed = packet.get_mut(usize::from(start)..).ok_or(OffloadError::Checksum)?;
    let at = usize::from(offset);
    if summed.len() < at + 2 {
        return Err(OffloadError::Checksum);
    }
    let sum = match Checksum::default().add(summed).finish() {
        // RFC 768: zero would say that there is none; to TCP both zeros are the same.
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    summed.get_mut(at..at + 2).ok_or(OffloadError::Checksum)?.copy_from_slice(&sum);
    Ok(())
}

/// Prepares the plaintext of a frame of segments for a kernel that cuts it up: what is to stand before the packet. The
/// packet, which begins behind the first [`SEGMENTS_HEADER_LEN`] bytes, gets the checksum of its pseudo header.
///
/// # Errors
/// When it is no such frame.
pub fn hand_back(plaintext: &mut [u8]) -> Result<(VirtioHeader, &[u8]), SegmentsError> {
    let view = Segments::parse(plaintext)?;
    let (kind, gso_size, count) = (view.kind(), view.gso_size(), view.count());
    let (start, headers_len) = (view.ip_header_len(), view.headers_len());
    let is_v4 = start == crate::packet::IPV4_HEADER_LEN;
    let cutter = Cutter::of(&view);
    let packet = plaintext.get_mut(SEGMENTS_HEADER_LEN..).ok_or(SegmentsError::Truncated)?;
    cutter.put_pseudo_sum(packet);
    let number = |n: usize| u16::try_from(n).map_err(|_| SegmentsError::Transport);
    let place = (number(start)?, number(kind.checksum_offset())?);
    let gso = match (count, kind, is_v4) {
        (1, ..) => Gso::None,
        (_, SegmentKind::Tcp, true) => Gso::TcpV4,
        (_, SegmentKind::Tcp, false) => Gso::TcpV6,
        (_, SegmentKind::Udp, _) => Gso::Udp,
    };
    let is_cut = gso != Gso::None;
    let header = VirtioHeader {
        checksum: Some(place),
        gso,
        headers_len: if is_cut { number(headers_len)? } else { 0 },
        gso_size: if is_cut { gso_size } else { 0 },
    };
    Ok((header, packet))
}
