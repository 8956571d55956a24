//! What a relay passes on: a frame of two others, and between whom.
//!
//! `hop (1) | name (16) | inner frame`. On its way to the relay the name is that of the destination, from there
//! on that of the source, and the hop says which of the two it is: a frame that has passed one relay passes no
//! other.

use thiserror::Error;

use super::{FrameBuf, FrameFull, OVERHEAD};
use crate::signal::PeerName;

/// What stands before the inner frame, in bytes.
pub const RELAY_HEADER_LEN: usize = 1 + PeerName::LEN;
/// What a frame by a relay is longer than the same one by a direct session, in bytes.
pub const RELAY_OVERHEAD: usize = RELAY_HEADER_LEN + OVERHEAD;

/// Which of its two hops something is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hop {
    /// From the source to the relay; the name is that of the destination.
    ToRelay = 1,
    /// From the relay to the destination; the name is that of the source.
    FromRelay = 2,
}

impl Hop {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::ToRelay),
            2 => Some(Self::FromRelay),
            _ => None,
        }
    }
}

/// Why the plaintext of a relay frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RelayError {
    /// No room for hop, name and the shortest frame.
    #[error("relay frame of {0} bytes is too short")]
    TooShort(usize),
    /// A hop that does not exist.
    #[error("unknown hop {0}")]
    Hop(u8),
}

/// Hop and name, as they stand in the plaintext of a relay frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayHeader {
    /// Which of its two hops the frame is on.
    pub hop: Hop,
    /// Destination or source, as the hop says.
    pub name: PeerName,
}

impl RelayHeader {
    /// Takes the plaintext of a relay frame apart: header, and the inner frame to be opened where it lies.
    ///
    /// # Errors
    /// When it is too short or names no hop. The inner frame is not looked at.
    pub fn split(plaintext: &mut [u8]) -> Result<(Self, &mut [u8]), RelayError> {
        let len = plaintext.len();
        let too_short = RelayError::TooShort(len);
        if len < RELAY_HEADER_LEN + OVERHEAD {
            return Err(too_short);
        }
        let ([hop], rest) = plaintext.split_first_chunk_mut().ok_or(too_short)?;
        let (name, inner) = rest.split_first_chunk_mut().ok_or(too_short)?;
        let hop = Hop::from_byte(*hop).ok_or(RelayError::Hop(*hop))?;
        Ok((Self { hop, name: PeerName(*name) }, inner))
    }

    /// The header as it travels.
    pub fn to_bytes(self) -> [u8; RELAY_HEADER_LEN] {
        let mut bytes = [self.hop as u8; RELAY_HEADER_LEN];
        bytes.iter_mut().skip(1).zip(self.name.0).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Puts this header in the place of the one before an inner frame.
    pub fn write_over(self, plaintext: &mut [u8]) {
        plaintext.iter_mut().zip(self.to_bytes()).for_each(|(to, from)| *to = from);
    }

    /// Turns a frame into the plaintext of a relay frame with this header, where it lies.
    ///
    /// # Errors
    /// For what was covered before: one hop is all there is.
    pub fn cover(self, frame: &mut FrameBuf) -> Result<(), FrameFull> {
        frame.surround(&self.to_bytes(), &[])
    }

    /// The plaintext of a relay frame with this header.
    ///
    /// # Errors
    /// Never for frames that were sealed here: there is room for whatever is given.
    pub fn wrap(self, inner: &[u8]) -> Result<FrameBuf, FrameFull> {
        let mut buf = FrameBuf::with_capacity(RELAY_HEADER_LEN + inner.len());
        buf.push(&self.to_bytes())?;
        buf.push(inner)?;
        Ok(buf)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: PeerName = PeerName([7; 16]);

    #[test]
    fn layout() {
        let header = RelayHeader { hop: Hop::ToRelay, name: NAME };
        let mut plaintext = header.wrap(&[9; OVERHEAD]).unwrap().plaintext().to_vec();
        assert_eq!(plaintext, [vec![1], vec![7; 16], vec![9; OVERHEAD]].concat());
        assert_eq!(plaintext.len() + OVERHEAD, OVERHEAD + RELAY_OVERHEAD);
        let from = RelayHeader { hop: Hop::FromRelay, name: PeerName([8; 16]) };
        from.write_over(&mut plaintext);
        assert_eq!(plaintext, [vec![2], vec![8; 16], vec![9; OVERHEAD]].concat());
        assert_eq!(RelayHeader::split(&mut plaintext).unwrap().0, from);
    }

    #[test]
    fn what_has_no_hop_or_no_room_is_refused() {
        let header = RelayHeader { hop: Hop::ToRelay, name: NAME };
        let plaintext = header.wrap(&[9; OVERHEAD]).unwrap().plaintext().to_vec();
        for hop in [0, 3, 255] {
            let mut strange = plaintext.clone();
            strange[0] = hop;
            assert_eq!(RelayHeader::split(&mut strange).unwrap_err(), RelayError::Hop(hop));
        }
        for len in 0..plaintext.len() {
            let mut short = plaintext[..len].to_vec();
            assert_eq!(RelayHeader::split(&mut short).unwrap_err(), RelayError::TooShort(len));
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(name in any::<[u8; 16]>(), inner in prop::collection::vec(any::<u8>(), 32..200)) {
            let header = RelayHeader { hop: Hop::FromRelay, name: PeerName(name) };
            let mut plaintext = header.wrap(&inner).unwrap().plaintext().to_vec();
            let (found, rest) = RelayHeader::split(&mut plaintext).unwrap();
            prop_assert_eq!((found, &*rest), (header, inner.as_slice()));
        }
    }
}
