//! A plaintext that will become a frame, with room for header and tag around it.

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

use super::{HEADER_LEN, MAX_PACKETS, RELAY_OVERHEAD, TAG_LEN};
use crate::packet::Packet;

/// What was to be added does not fit the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no room in the frame")]
pub struct FrameFull;

/// Room in front: the header of a frame, and all that a relay's cover puts before that.
const FRONT: usize = HEADER_LEN + RELAY_OVERHEAD - TAG_LEN;
/// Room behind: the tag of a frame and that of its cover.
const BEHIND: usize = 2 * TAG_LEN;

/// The plaintext of one frame while it grows.
///
/// The buffer keeps room in front and behind, so that [`Sealer::seal`](crate::seal::Sealer::seal) turns it into a
/// frame where it lies, and that into the plaintext of the frame that covers it on the way to a relay. It never
/// holds more than it was made for and never allocates again.
#[derive(Debug)]
pub struct FrameBuf {
    /// Initialised from the start: room in front, the plaintext, perhaps unused room.
    bytes: BytesMut,
    /// Where the plaintext begins in `bytes`.
    start: usize,
    /// Where it ends.
    end: usize,
    /// Where the plaintext ends at most.
    limit: usize,
    packets: usize,
}

impl FrameBuf {
    /// Makes a buffer for at most `limit` bytes of plaintext.
    pub fn with_capacity(limit: usize) -> Self {
        Self::reuse(BytesMut::with_capacity(limit.saturating_add(FRONT + BEHIND)), limit)
    }

    /// As [`with_capacity`](Self::with_capacity), in an allocation that exists (say, of a pool).
    /// What is in it is lost. Allocates only if it is too small.
    pub fn reuse(mut bytes: BytesMut, limit: usize) -> Self {
        bytes.clear();
        bytes.reserve(limit.saturating_add(FRONT + BEHIND));
        bytes.resize(FRONT, 0);
        let limit = limit.saturating_add(FRONT);
        Self { bytes, start: FRONT, end: FRONT, limit, packets: 0 }
    }

    /// The plaintext of a frame that was opened where it lay, to be sealed under other keys: header and
    /// tag of the frame are the room for those to come. `None` when it is no whole frame.
    pub fn reopened(mut frame: BytesMut) -> Option<Self> {
        let end = frame.len().checked_sub(TAG_LEN).filter(|end| *end >= HEADER_LEN)?;
        frame.truncate(end);
        Some(Self { bytes: frame, start: HEADER_LEN, end, limit: end, packets: 0 })
    }

    /// How many bytes of plaintext there are.
    pub const fn len(&self) -> usize {
        self.end - self.start
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
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The plaintext, to be changed where it lies.
    pub fn plaintext_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When they do not fit; then nothing was added.
    pub fn push(&mut self, more: &[u8]) -> Result<(), FrameFull> {
        if more.len() > self.remaining() {
            return Err(FrameFull);
        }
        let end = self.end + more.len();
        // What a past call of `room_mut` made stays initialised.
        match self.bytes.get_mut(self.end..end) {
            Some(room) => room.copy_from_slice(more),
            None => {
                self.bytes.truncate(self.end);
                self.bytes.extend_from_slice(more);
            }
        }
        self.end = end;
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

    /// Counts one more packet, whose bytes were added otherwise.
    pub(crate) const fn note_packet(&mut self) {
        self.packets += 1;
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

    /// Forgets the plaintext and keeps the room.
    pub fn clear(&mut self) {
        (self.end, self.packets) = (self.start, 0);
    }

    /// Puts bytes before and after the plaintext, which are then a part of it. Nothing more is added behind them.
    ///
    /// # Errors
    /// When there is no room in front; then nothing was put.
    pub(crate) fn surround(&mut self, before: &[u8], after: &[u8]) -> Result<(), FrameFull> {
        let start = self.start.checked_sub(before.len()).ok_or(FrameFull)?;
        self.bytes.get_mut(start..self.start).ok_or(FrameFull)?.copy_from_slice(before);
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(after);
        (self.start, self.end, self.limit) = (start, self.bytes.len(), self.bytes.len());
        Ok(())
    }

    /// The plaintext alone, without a copy.
    pub fn into_bytes(mut self) -> BytesMut {
        self.bytes.truncate(self.end);
        self.bytes.advance(self.start);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::RELAY_HEADER_LEN;
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
        buf.clear();
        assert!(buf.is_empty());
        buf.push(b"12345678").unwrap();
        assert_eq!(buf.into_bytes(), b"12345678".as_slice());
    }

    #[test]
    fn neither_growing_nor_reuse_allocates() {
        let mut buf = FrameBuf::with_capacity(1000);
        let start = buf.bytes.as_ptr();
        buf.room_mut().fill(1);
        buf.advance(1000).unwrap();
        buf.surround(&[2; HEADER_LEN], &[3; TAG_LEN]).unwrap();
        assert_eq!(buf.push(b"x"), Err(FrameFull), "what is sealed does not grow");
        buf.surround(&[4; RELAY_HEADER_LEN], &[]).unwrap();
        buf.surround(&[5; HEADER_LEN], &[6; TAG_LEN]).unwrap();
        assert_eq!(buf.bytes.as_ptr(), start);
        assert_eq!(buf.surround(&[7], &[]), Err(FrameFull));
        let parts: [&[u8]; 7] = [
            &[5; HEADER_LEN],
            &[4; RELAY_HEADER_LEN],
            &[2; HEADER_LEN],
            &[1; 1000],
            &[3; TAG_LEN],
            &[6; TAG_LEN],
            &[],
        ];
        assert_eq!(buf.plaintext(), parts.concat());
        let again = FrameBuf::reuse(buf.bytes, 1000);
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
        buf.surround(&[3; HEADER_LEN], &[4; TAG_LEN]).unwrap();
        let bytes = buf.into_bytes();
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
