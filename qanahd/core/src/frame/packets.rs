//! The plaintext of a frame of packets: whole IP packets, delimited by their own length fields.

use thiserror::Error;

use super::MAX_PACKETS;
use crate::packet::{Packet, PacketError};

/// Why the rest of a frame of packets is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketsError {
    /// One of them is no packet, so nobody knows where the next begins.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The sender put in more than it may.
    #[error("more than {MAX_PACKETS} packets in a frame")]
    TooMany,
}

/// The packets of one frame. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
    seen: usize,
}

/// Takes the plaintext of a frame of packets apart. An empty one holds none.
pub const fn packets(plaintext: &[u8]) -> Packets<'_> {
    Packets { rest: plaintext, seen: 0 }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, PacketsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        if self.seen == MAX_PACKETS {
            return Some(Err(PacketsError::TooMany));
        }
        Some(match Packet::split_first(rest) {
            Ok((packet, after)) => {
                self.rest = after;
                self.seen += 1;
                Ok(packet)
            }
            Err(error) => Err(error.into()),
        })
    }
}

impl std::iter::FusedIterator for Packets<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::FrameBuf;
    use crate::packet::testing::{any_packet, packet};

    #[test]
    fn an_empty_frame_holds_no_packet() {
        assert!(packets(&[]).next().is_none());
    }

    #[test]
    fn the_rest_after_a_bad_packet_is_dropped() {
        let good = packet("10.0.0.1", "10.0.0.2", 17, b"x");
        let plaintext = [good.as_slice(), &[0x90; 30], &good].concat();
        let found: Vec<_> = packets(&plaintext).collect();
        assert_eq!(found[0].unwrap().as_bytes(), good);
        assert_eq!(found[1..], [Err(PacketError::Version(9).into())]);
    }

    #[test]
    fn no_more_packets_than_the_limit() {
        let one = packet("10.0.0.1", "10.0.0.2", 17, b"");
        let full = one.repeat(MAX_PACKETS);
        assert_eq!(packets(&full).filter(Result::is_ok).count(), MAX_PACKETS);
        assert!(packets(&full).all(|packet| packet.is_ok()));
        let over = one.repeat(MAX_PACKETS + 2);
        let found: Vec<_> = packets(&over).collect();
        assert_eq!(found.len(), MAX_PACKETS + 1);
        assert_eq!(found.last(), Some(&Err(PacketsError::TooMany)));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(expected in prop::collection::vec(any_packet(), 0..20)) {
            let mut buf = FrameBuf::with_capacity(1 << 16);
            for bytes in &expected {
                buf.push_packet(&Packet::parse(bytes).unwrap()).unwrap();
            }
            let found: Result<Vec<_>, _> = packets(buf.plaintext())
                .map(|packet| packet.map(|packet| packet.as_bytes().to_vec()))
                .collect();
            prop_assert_eq!(found, Ok(expected));
        }

        #[test]
        fn arbitrary_bytes_end_and_never_panic(
            start in prop::collection::vec(any_packet(), 0..4),
            noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let plaintext = [start.concat(), noise].concat();
            let found: Vec<_> = packets(&plaintext).collect();
            prop_assert!(found.len() <= MAX_PACKETS + 1);
            let held: usize = found.iter().flatten().map(|packet| packet.as_bytes().len()).sum();
            prop_assert!(held <= plaintext.len());
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
