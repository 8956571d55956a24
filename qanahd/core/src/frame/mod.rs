//! The frame codec: what one data channel message holds.
//!
//! A frame is a header of 16 bytes, a ciphertext and a tag of 16 bytes. The header is
//! authenticated, not encrypted: `type (1) | reserved zero (3) | receiver index (4) | counter (8)`,
//! big-endian. Sealing and opening are in [`crate::seal`]; here is what the bytes mean.

use thiserror::Error;

mod buf;
mod control;
mod packets;
pub mod reach;
mod relay;
mod segments;

pub use buf::{FrameBuf, FrameFull};
pub use control::{Control, ControlError, MAX_REKEY_MESSAGE};
pub use packets::{Packets, PacketsError, packets};
pub use relay::{Hop, RELAY_HEADER_LEN, RELAY_OVERHEAD, RelayError, RelayHeader};
pub use segments::{
    MAX_SEGMENTS, MIN_GSO_SIZE, SEGMENTS_HEADER_LEN, SegmentKind, Segments, SegmentsError,
    SegmentsHeader,
};

/// Length of the frame header, in bytes.
pub const HEADER_LEN: usize = 16;
/// Length of the authentication tag at the end of a frame, in bytes.
pub const TAG_LEN: usize = 16;
/// What a frame is longer than its plaintext, in bytes.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The most IP packets that one frame may hold.
pub const MAX_PACKETS: usize = 128;

/// What the plaintext of a frame is.
///
/// The values stay outside the ranges that RFC 7983 gives to STUN, DTLS and TURN, so that frames
/// can share a UDP socket with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Whole IP packets, one after another: [`packets()`].
    Packets = 0xc1,
    /// One large TCP or UDP packet that stands for many: [`Segments`].
    Segments = 0xc2,
    /// Something between the two ends of the session: [`Control`].
    Control = 0xc3,
    /// A frame that a relay passes on: [`RelayHeader`].
    Relay = 0xc4,
    /// Whole IP packets for a destination of no configured peer, for a relay to route.
    Transit = 0xc5,
    /// Whole IP packets that a relay has routed: it is the last hop.
    Routed = 0xc6,
}

/// A type byte that names no frame type. Such frames are counted and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("unknown frame type {0:#04x}")]
pub struct UnknownFrameType(pub u8);

impl TryFrom<u8> for FrameType {
    type Error = UnknownFrameType;

    fn try_from(byte: u8) -> Result<Self, UnknownFrameType> {
        match byte {
            0xc1 => Ok(Self::Packets),
            0xc2 => Ok(Self::Segments),
            0xc3 => Ok(Self::Control),
            0xc4 => Ok(Self::Relay),
            0xc5 => Ok(Self::Transit),
            0xc6 => Ok(Self::Routed),
            unknown => Err(UnknownFrameType(unknown)),
        }
    }
}

/// Why some bytes cannot be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Shorter than a header and a tag.
    #[error("frame of {0} bytes is too short")]
    TooShort(usize),
    /// A reserved byte of the header is not zero.
    #[error("reserved bytes of the frame header are not zero")]
    Reserved,
}

/// The header of a frame, in the clear and, before the frame is opened, not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The type byte; see [`FrameType`].
    pub kind: u8,
    /// Names the receiver's key: the receiver chose it in the handshake.
    pub index: u32,
    /// Counts the frames sealed with this key, from zero.
    pub counter: u64,
}

impl FrameHeader {
    /// Reads the header of a whole frame.
    ///
    /// # Errors
    /// When the frame has no room for header and tag, or a reserved byte is not zero.
    pub fn parse(frame: &[u8]) -> Result<Self, FrameError> {
        let header = frame.first_chunk::<HEADER_LEN>();
        let (Some(header), true) = (header, frame.len() >= OVERHEAD) else {
            return Err(FrameError::TooShort(frame.len()));
        };
        let [kind, r0, r1, r2, i0, i1, i2, i3, counter @ ..] = *header;
        if [r0, r1, r2] != [0; 3] {
            return Err(FrameError::Reserved);
        }
        Ok(Self {
            kind,
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            counter: u64::from_be_bytes(counter),
        })
    }

    /// The header as it travels, which is also the associated data of the AEAD.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        [self.kind, 0, 0, 0, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_layout() {
        let header = FrameHeader {
            kind: FrameType::Packets as u8,
            index: 0x0102_0304,
            counter: 0x0506_0708_090a_0b0c,
        };
        let bytes = [0xc1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(header.to_bytes(), bytes);
        let frame = [bytes, [0; TAG_LEN]].concat();
        assert_eq!(FrameHeader::parse(&frame), Ok(header));
        assert_eq!(FrameHeader::parse(&frame[..31]), Err(FrameError::TooShort(31)));
        assert_eq!(FrameHeader::parse(&[]), Err(FrameError::TooShort(0)));
        for at in 1..4 {
            let mut frame = frame.clone();
            frame[at] = 1;
            assert_eq!(FrameHeader::parse(&frame), Err(FrameError::Reserved));
        }
    }

    #[test]
    fn types_stay_out_of_the_ranges_of_rfc_7983() {
        let known: Vec<u8> =
            (0..=u8::MAX).filter(|byte| FrameType::try_from(*byte).is_ok()).collect();
        assert_eq!(known, [0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6]);
        assert!(
            known
                .iter()
                .all(|byte| { FrameType::try_from(*byte).is_ok_and(|kind| kind as u8 == *byte) })
        );
        assert_eq!(FrameType::try_from(0xc0), Err(UnknownFrameType(0xc0)));
    }

    proptest! {
        #[test]
        fn headers_round_trip(kind in any::<u8>(), index in any::<u32>(), counter in any::<u64>()) {
            let header = FrameHeader { kind, index, counter };
            let frame = [header.to_bytes(), [0; TAG_LEN]].concat();
            prop_assert_eq!(FrameHeader::parse(&frame), Ok(header));
        }
    }
}
