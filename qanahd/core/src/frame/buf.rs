//! A plaintext that will become a frame, with room for header and tag around it.

use bytes::BytesMut;
use thiserror::Error;

use super::{HEADER_LEN, MAX_PACKETS, OVERHEAD, TAG_LEN};
use crate::packet::Packet;

/// What was to be added does not fit the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no room in the frame")]
pub struct FrameFull;

/// The plaintext of one frame while it grows.
///
/// The buffer keeps room for the header in front and for the tag behind, so that
/// [`Sealer::seal`](crate::seal::Sealer::seal) turns it into a frame where it lies. It never
/// holds more than it was made for and never allocates again.
#[derive(Debug)]
pub struct FrameBuf {
    /// Initialised from the start: room for the header, the plaintext, perhaps unused room.
    bytes: BytesMut,
    /// Where the plaintext ends in `bytes`.
    end: usize,
    /// Where the plaintext ends at most.
    limit: usize,
    packets: usize,
}

impl FrameBuf {
    /// Makes a buffer for at most `limit` bytes of plaintext.
    pub fn with_capacity(limit: usize) -> Self {
        Self::reuse(BytesMut::with_capacity(limit.saturating_add(OVERHEAD)), limit)
    }

    /// As [`with_capacity`](Self::with_capacity), in an allocation that exists (say, of a pool).
    /// What is in it is lost. Allocates only if it is too small.
    pub fn reuse(mut bytes: BytesMut, limit: usize) -> Self {
        bytes.clear();
        bytes.reserve(limit.saturating_add(OVERHEAD));
        bytes.resize(HEADER_LEN, 0);
        Self { bytes, end: HEADER_LEN, limit: limit.saturating_add(HEADER_LEN), packets: 0 }
    }

    /// The plaintext of a frame that was opened where it lay, to be sealed under other keys: header and
    /// tag of the frame are the room for those to come. `None` when it is no whole frame.
    pub fn reopened(mut frame: BytesMut) -> Option<Self> {
        let end = frame.len().checked_sub(TAG_LEN).filter(|end| *end >= HEADER_LEN)?;
        frame.truncate(end);
        Some(Self { bytes: frame, end, limit: end, packets: 0 })
    }

    /// How many bytes of plaintext there are.
    pub const fn len(&self) -> usize {
        self.end - HEADER_LEN
    }

    /// Whether there is no plaintext yet.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more bytes fit.
    pub const fn remaining(&self) -> usize {
        self.limit - self.end
    }

    /// How many packets were added with [`push_packet`](Self::push_packet).
    pub const fn packets(&self) -> usize {
        self.packets
    }

    /// The plaintext.
    pub fn plaintext(&self) -> &[u8] {
        self.bytes.get(HEADER_LEN..self.end).unwrap_or_default()
    }

    /// The plaintext, to be changed where it lies.
    pub fn plaintext_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(HEADER_LEN..self.end).unwrap_or_default()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When they do not fit; then nothing was added.
    pub fn push(&mut self, more: &[u8]) -> Result<(), FrameFull> {
        if more.len() > self.remaining() {
            return Err(FrameFull);
        }
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(more);
        self.end = self.bytes.len();
        Ok(())
    }

    /// Adds one IP packet, for a frame of packets.
    ///
    /// # Errors
    /// When it does not fit, or the frame holds [`MAX_PACKETS`]; then nothing was added.
    pub fn push_packet(&mut self, packet: &Packet<'_>) -> Result<(), FrameFull> {
        if self.packets >= MAX_PACKETS {
            return Err(FrameFull);
        }
        self.push(packet.as_bytes())?;
        self.packets += 1;
        Ok(())
    }

    /// All the room that is left, to read into. What was read counts only after
    /// [`advance`](Self::advance), so a read that is abandoned leaves no trace.
    pub fn room_mut(&mut self) -> &mut [u8] {
        // Zeroed once a buffer, not once a read: what a past call made stays initialised.
        if self.bytes.len() < self.limit {
            self.bytes.resize(self.limit, 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes the first `len` bytes of the [room](Self::room_mut) into the plaintext.
    ///
    /// # Errors
    /// When the room that was handed out is not that large.
    pub fn advance(&mut self, len: usize) -> Result<(), FrameFull> {
        if len > self.bytes.len() - self.end {
            return Err(FrameFull);
        }
        self.end += len;
        Ok(())
    }

    /// The room for the header and the plaintext; the tag can follow without an allocation.
    pub(crate) fn into_bytes(mut self) -> BytesMut {
        self.bytes.truncate(self.end);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::packet;

    #[test]
    fn holds_what_it_was_made_for_and_no_more() {
        let mut buf = FrameBuf::with_capacity(8);
        assert!(buf.is_empty());
        buf.push(b"hello").unwrap();
        assert_eq!(buf.push(b"1234"), Err(FrameFull));
        assert_eq!((buf.len(), buf.remaining()), (5, 3));
        buf.push(b"123").unwrap();
        assert_eq!(buf.plaintext(), b"hello123");
        assert_eq!(buf.push(b"1"), Err(FrameFull));
    }

    #[test]
    fn reading_into_the_room() {
        let mut buf = FrameBuf::with_capacity(8);
        buf.push(b"ab").unwrap();
        assert_eq!(buf.advance(1), Err(FrameFull));
        assert_eq!(buf.room_mut().len(), 6);
        buf.room_mut()[..3].copy_from_slice(b"cde");
        assert_eq!(buf.plaintext(), b"ab");
        buf.advance(3).unwrap();
        assert_eq!(buf.advance(4), Err(FrameFull));
        buf.room_mut()[0] = b'x';
        buf.push(b"f").unwrap();
        assert_eq!(buf.plaintext(), b"abcdef");
        assert_eq!(buf.into_bytes()[HEADER_LEN..], *b"abcdef");
    }

    #[test]
    fn neither_growing_nor_reuse_allocates() {
        let mut buf = FrameBuf::with_capacity(1000);
        let start = buf.bytes.as_ptr();
        buf.room_mut().fill(1);
        buf.advance(1000).unwrap();
        let mut bytes = buf.into_bytes();
        bytes.extend_from_slice(&[0; TAG_LEN]);
        assert_eq!(bytes.as_ptr(), start);
        let again = FrameBuf::reuse(bytes, 1000);
        assert_eq!(again.bytes.as_ptr(), start);
        assert!(again.is_empty());
    }

    #[test]
    fn an_opened_frame_becomes_a_plaintext_where_it_lies() {
        let frame = BytesMut::from(&[&[1; HEADER_LEN][..], b"hello", &[2; TAG_LEN]].concat()[..]);
        let start = frame.as_ptr();
        let mut buf = FrameBuf::reopened(frame).unwrap();
        assert_eq!((buf.plaintext(), buf.remaining()), (b"hello".as_slice(), 0));
        buf.plaintext_mut()[0] = b'H';
        let mut bytes = buf.into_bytes();
        bytes.extend_from_slice(&[0; TAG_LEN]);
        assert_eq!((&bytes[HEADER_LEN..][..5], bytes.as_ptr()), (b"Hello".as_slice(), start));
        for len in 0..HEADER_LEN + TAG_LEN {
            assert!(FrameBuf::reopened(BytesMut::zeroed(len)).is_none());
        }
        assert!(FrameBuf::reopened(BytesMut::zeroed(HEADER_LEN + TAG_LEN)).unwrap().is_empty());
    }

    #[test]
    fn counts_packets() {
        let bytes = packet("10.0.0.1", "10.0.0.2", 17, b"");
        let view = Packet::parse(&bytes).unwrap();
        let mut buf = FrameBuf::with_capacity(1 << 16);
        for _ in 0..MAX_PACKETS {
            buf.push_packet(&view).unwrap();
        }
        assert_eq!(buf.push_packet(&view), Err(FrameFull));
        assert_eq!((buf.packets(), buf.len()), (128, 128 * 20));
    }
}
