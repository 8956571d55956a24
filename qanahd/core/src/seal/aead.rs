//! The cipher of the packet path: ChaCha20-Poly1305 (RFC 8439) of `ring`.
//!
//! It is about three times as fast as the `chacha20poly1305` crate at packet size. The tests check
//! one against the other.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::CarrierKey;
use crate::frame::TAG_LEN;

/// A key ready for use, on the heap so that moving its owner leaves no copies behind.
///
/// `None` only if the cipher refused a key of its own length, which it does not; such a key seals
/// and opens nothing.
pub(super) struct Key(Option<Box<LessSafeKey>>);

impl Key {
    pub(super) fn new(key: &CarrierKey) -> Self {
        Self(expand(&key.0).map(Box::new))
    }

    /// Encrypts in place and returns the tag. The caller never repeats a counter.
    pub(super) fn seal(
        &self,
        counter: u64,
        header: &[u8],
        body: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        let tag = self
            .0
            .as_ref()?
            .seal_in_place_separate_tag(nonce(counter), Aad::from(header), body)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts in place if the tag is right.
    pub(super) fn open<'a>(
        &self,
        counter: u64,
        header: &[u8],
        body: &'a mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Option<&'a mut [u8]> {
        self.0
            .as_ref()?
            .open_in_place_separate_tag(
                nonce(counter),
                Aad::from(header),
                Tag::from(tag),
                body,
                0..,
            )
            .ok()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // `ring` does not wipe its keys. Another key over this one does, and the barrier keeps
        // the compiler from leaving out a write that nobody reads.
        if let (Some(key), Some(zeros)) = (&mut self.0, expand(&[0; 32])) {
            **key = zeros;
            zeroize::optimization_barrier(&**key);
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

fn expand(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new)
}

/// Four zero bytes and the counter in little-endian, as WireGuard and Noise have it.
fn nonce(counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}
