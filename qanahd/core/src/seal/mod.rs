//! Sealing and opening frames: one key, one direction, one carrier.
//!
//! Each half owns its key. The sealer alone chooses nonces: it counts from zero, never goes back
//! and cannot be copied, so that no nonce serves twice under one key. The opener remembers what
//! it has seen and takes each frame once.

use std::fmt;

use bytes::BytesMut;
use thiserror::Error;
use zeroize::ZeroizeOnDrop;

use crate::frame::{
    FrameBuf, FrameError, FrameHeader, FrameType, HEADER_LEN, TAG_LEN, UnknownFrameType,
};
use crate::replay::{ReplayError, ReplayWindow};

mod aead;
mod openers;

use aead::Key;
pub use openers::Openers;

/// No key seals or opens more frames than this: far below the end of the counter, and more than
/// any link carries before the key is too old.
pub const FRAME_LIMIT: u64 = 1 << 60;

/// The key of one direction of one carrier. Never printed, never copied, wiped on drop.
#[derive(ZeroizeOnDrop)]
pub struct CarrierKey([u8; 32]);

impl CarrierKey {
    /// Takes the raw bytes of a key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CarrierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CarrierKey(redacted)")
    }
}

/// Why a frame was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The key has sealed [`FRAME_LIMIT`] frames and serves no more.
    #[error("the key is used up")]
    Exhausted,
    /// The cipher refused, which it does only for plaintexts of many gigabytes.
    #[error("the plaintext is too long to seal")]
    TooLong,
}

/// Why a frame was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No frame at all.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// For another key.
    #[error("frame for receiver {0:#010x}")]
    Index(u32),
    /// The counter is beyond what any sealer uses.
    #[error("counter beyond the limit of a key")]
    Limit,
    /// Replayed, or too old to know.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Not sealed with this key, or altered on the way.
    #[error("frame is not authentic")]
    Forged,
}

/// Seals frames. Owns its key and its counter.
#[derive(Debug)]
pub struct Sealer {
    key: Key,
    index: u32,
    next: u64,
}

impl Sealer {
    /// Starts a key at counter zero. `index` is the one that the receiver chose.
    pub fn new(key: CarrierKey, index: u32) -> Self {
        Self { key: Key::new(&key), index, next: 0 }
    }

    /// How many counters were used up: when it nears [`FRAME_LIMIT`] it is time for a new key.
    pub const fn sealed(&self) -> u64 {
        self.next
    }

    /// Seals a plaintext where it lies and returns the frame, ready to send.
    ///
    /// # Errors
    /// When the key is used up. The plaintext is lost.
    pub fn seal(
        &mut self,
        kind: FrameType,
        mut plaintext: FrameBuf,
    ) -> Result<BytesMut, SealError> {
        self.seal_in_place(kind, &mut plaintext)?;
        Ok(plaintext.into_bytes())
    }

    /// Seals a plaintext where it lies; the frame takes its place, and may become the plaintext of another one.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_in_place(
        &mut self,
        kind: FrameType,
        plaintext: &mut FrameBuf,
    ) -> Result<(), SealError> {
        let counter = self.next;
        if counter >= FRAME_LIMIT {
            return Err(SealError::Exhausted);
        }
        // Before anything can fail: a counter that may have been used never comes again.
        self.next += 1;
        let header = FrameHeader { kind: kind as u8, index: self.index, counter };
        let header = header.to_bytes();
        let body = plaintext.plaintext_mut();
        let tag = self.key.seal(counter, &header, body).ok_or(SealError::TooLong)?;
        plaintext.surround(&header, &tag).map_err(|_| SealError::TooLong)
    }
}

/// A frame that proved authentic and new.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What the plaintext is. An unknown type is counted and dropped.
    pub kind: Result<FrameType, UnknownFrameType>,
    /// The plaintext, in the buffer that the frame came in.
    pub plaintext: &'a mut [u8],
    /// The sender's counter.
    pub counter: u64,
}

/// Opens frames. Owns its key and its window.
#[derive(Debug)]
pub struct Opener {
    key: Key,
    index: u32,
    window: ReplayWindow,
}

impl Opener {
    /// Starts a key with an empty window. `index` is the one that this side chose.
    pub fn new(key: CarrierKey, index: u32) -> Self {
        Self { key: Key::new(&key), index, window: ReplayWindow::new() }
    }

    /// The receiver index of the frames that this key opens.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Opens a frame where it lies. After an error the buffer holds nothing of use.
    ///
    /// # Errors
    /// When it is no frame, not for this key, replayed or not authentic. None of these changes
    /// anything here.
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = FrameHeader::parse(frame)?;
        if header.index != self.index {
            return Err(OpenError::Index(header.index));
        }
        if header.counter >= FRAME_LIMIT {
            return Err(OpenError::Limit);
        }
        self.window.check(header.counter)?;
        let too_short = FrameError::TooShort(frame.len());
        let (_, body) = frame.split_first_chunk_mut::<HEADER_LEN>().ok_or(too_short)?;
        let (body, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(too_short)?;
        let plaintext = self
            .key
            .open(header.counter, &header.to_bytes(), body, *tag)
            .ok_or(OpenError::Forged)?;
        self.window.mark(header.counter);
        Ok(Opened { kind: FrameType::try_from(header.kind), plaintext, counter: header.counter })
    }
}

#[cfg(test)]
mod tests;
