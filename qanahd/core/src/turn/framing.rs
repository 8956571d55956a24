//! Messages in a stream: where one ends and the next begins.
//!
//! Over TCP and TLS the messages of TURN follow each other without anything between them; each says
//! its length in its header, and ChannelData messages are filled up to a multiple of four bytes
//! (RFC 8656, sections 3.1 and 12.5).

use bytes::{Buf, BytesMut};
use thiserror::Error;

use super::MAGIC_COOKIE;

/// Longest message in bytes that is passed on. What is in it came, or goes, in one UDP datagram
/// between relays, so an honest one is hardly longer than a packet of Ethernet. A longer one is
/// read and forgotten.
pub const MAX_MESSAGE: usize = 4096;

const STUN_HEADER: usize = 20;
const CHANNEL_HEADER: usize = 4;

/// What is in a stream is no TURN message. There is no way to find the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what it sends is not TURN")]
pub struct Malformed;

/// The length of a message by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length {
    /// Of the message alone.
    own: usize,
    /// With what fills it up.
    padded: usize,
}

/// Nothing while too few bytes are there.
fn length(head: &[u8]) -> Result<Option<Length>, Malformed> {
    let Some(&[first, _, high, low]) = head.first_chunk::<CHANNEL_HEADER>() else {
        return match head.first() {
            None | Some(0..=0x4f) => Ok(None),
            Some(_) => Err(Malformed),
        };
    };
    let body = usize::from(u16::from_be_bytes([high, low]));
    match first {
        0..=0x3f => {
            let cookie = head.get(CHANNEL_HEADER..).unwrap_or_default();
            let is_stun = MAGIC_COOKIE.iter().zip(cookie).all(|(a, b)| a == b);
            if !body.is_multiple_of(4) || !is_stun {
                return Err(Malformed);
            }
            let own = STUN_HEADER + body;
            Ok(Some(Length { own, padded: own }))
        }
        0x40..=0x4f => {
            let own = CHANNEL_HEADER + body;
            Ok(Some(Length { own, padded: own.next_multiple_of(4) }))
        }
        _ => Err(Malformed),
    }
}

/// Finds the messages in what comes out of a stream.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Bytes of a message that is too long which are still to come.
    skip: usize,
}

impl Deframer {
    /// Takes the next whole message off the front of `buffer`, without what fills it up; nothing when
    /// more bytes are needed. Call it until it gives nothing, then read more: `buffer` never holds more
    /// than [`MAX_MESSAGE`] bytes then.
    ///
    /// # Errors
    /// [`Malformed`]: the stream is of no use any more.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
        loop {
            let skipped = self.skip.min(buffer.len());
            buffer.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            let Some(Length { own, padded }) = length(buffer)? else {
                return Ok(None);
            };
            if padded > MAX_MESSAGE {
                // Not before the cookie was seen: else any four bytes make 64 KiB go by.
                if buffer.len() < CHANNEL_HEADER + MAGIC_COOKIE.len() {
                    return Ok(None);
                }
                self.skip = padded;
                continue;
            }
            if buffer.len() < padded {
                return Ok(None);
            }
            let mut message = buffer.split_to(padded);
            message.truncate(own);
            return Ok(Some(message));
        }
    }
}

/// Appends one message to what goes into a stream, filled up as it must be.
///
/// # Errors
/// [`Malformed`] when the datagram is not exactly one message, or one of more than [`MAX_MESSAGE`]
/// bytes. Nothing is appended then.
pub fn frame(datagram: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Length { own, padded } = length(datagram)?.ok_or(Malformed)?;
    // A datagram may be filled up too (RFC 8656, section 12.5).
    if padded > MAX_MESSAGE || datagram.len() < own || datagram.len() > padded {
        return Err(Malformed);
    }
    out.extend_from_slice(datagram);
    out.resize(out.len() + padded - datagram.len(), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(body: usize) -> Vec<u8> {
        let length = u16::try_from(body).unwrap();
        let mut message = vec![0, 1];
        message.extend(length.to_be_bytes());
        message.extend(MAGIC_COOKIE);
        message.extend([7; 12]);
        message.resize(STUN_HEADER + body, 0xaa);
        message
    }

    fn channel(number: u16, body: usize) -> Vec<u8> {
        let mut message = number.to_be_bytes().to_vec();
        message.extend(u16::try_from(body).unwrap().to_be_bytes());
        message.resize(CHANNEL_HEADER + body, 0xbb);
        message
    }

    /// All messages of a stream that comes in pieces of these sizes (over and over).
    fn deframe(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut deframer = Deframer::default();
        let mut buffer = BytesMut::new();
        let mut messages = Vec::new();
        let mut rest = stream;
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            buffer.extend_from_slice(now);
            rest = later;
            while let Some(message) = deframer.next(&mut buffer)? {
                messages.push(message.to_vec());
            }
            assert!(buffer.len() <= MAX_MESSAGE, "{} bytes are kept", buffer.len());
            if rest.is_empty() {
                return Ok(messages);
            }
        }
        unreachable!("there is always a piece")
    }

    #[test]
    fn channel_data_is_filled_up_and_stun_is_as_it_is() {
        let mut out = Vec::new();
        frame(&channel(0x4000, 5), &mut out).unwrap();
        assert_eq!(out, b"\x40\x00\x00\x05\xbb\xbb\xbb\xbb\xbb\0\0\0");
        // As the library gives it, filled up already.
        let filled = std::mem::take(&mut out);
        frame(&filled, &mut out).unwrap();
        assert_eq!(out, filled);
        frame(&stun(8), &mut out).unwrap();
        assert_eq!(out.len(), filled.len() + 28);
    }

    #[test]
    fn what_is_not_one_message_is_not_sent() {
        let mut out = Vec::new();
        let cut = |mut message: Vec<u8>| {
            message.pop();
            message
        };
        let grown = |mut message: Vec<u8>| {
            message.extend([0; 4]);
            message
        };
        for wrong in [
            vec![],
            vec![0x40, 0],
            cut(stun(8)),
            grown(stun(8)),
            cut(channel(0x4001, 4)),
            grown(channel(0x4001, 4)),
            channel(0x5000, 4),
            channel(0x4000, MAX_MESSAGE),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![22; 100],
        ] {
            assert_eq!(frame(&wrong, &mut out), Err(Malformed), "{wrong:?}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn garbage_is_seen_as_soon_as_it_can_be() {
        for wrong in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"SSH-2.0",
            b"\x50",
            b"\x7f",
            b"\x80",
            b"\xff",
            b"\x00\x01\x00\x03",
            b"\x00\x01\x00\x00\x21\x12\xa4\x43",
            b"\x00\x01\xff\xfc\x21\x12\x00",
        ] {
            assert_eq!(deframe(wrong, &[1]), Err(Malformed), "{wrong:?}");
        }
        assert_eq!(deframe(b"\x00\x01\xff", &[1]), Ok(vec![]));
        assert_eq!(deframe(b"\x40\x00\xff\xff", &[1]), Ok(vec![]));
        // A web server looks like the beginning of a long message on a channel, and goes by.
        assert_eq!(deframe(b"HTTP/1.1 400 Bad Request\r\n\r\n", &[1]), Ok(vec![]));
    }

    #[test]
    fn what_is_too_long_goes_by() {
        let mut stream = stun(65_532);
        stream.extend(channel(0x4fff, 65_535));
        stream.push(0);
        stream.extend(stun(0));
        for piece in [1, 999, 100_000] {
            // A buffer as it is filled at once; it is empty in the end.
            let mut buffer = BytesMut::new();
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(piece) {
                buffer.extend_from_slice(chunk);
                while let Some(message) = deframer.next(&mut buffer).unwrap() {
                    found.push(message.to_vec());
                }
            }
            assert_eq!(found, [stun(0)]);
            assert!(buffer.is_empty());
        }
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0_usize..300).prop_map(|words| stun(words * 4)),
            (0x4000_u16..0x5000, 0_usize..1500).prop_map(|(number, body)| channel(number, body)),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(message(), 0..12),
            pieces in prop::collection::vec(1_usize..3000, 1..8),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                frame(message, &mut stream).unwrap();
            }
            prop_assert_eq!(deframe(&stream, &pieces), Ok(messages));
        }

        #[test]
        fn any_bytes_end_in_messages_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            pieces in prop::collection::vec(1_usize..3000, 1..8),
        ) {
            if let Ok(messages) = deframe(&bytes, &pieces) {
                for message in messages {
                    prop_assert!(frame(&message, &mut Vec::new()).is_ok());
                }
            }
        }

        /// Also what begins like a message and goes on as it likes.
        #[test]
        fn messages_and_then_garbage(
            first in message(),
            bytes in prop::collection::vec(any::<u8>(), 0..500),
            pieces in prop::collection::vec(1_usize..600, 1..8),
        ) {
            let mut stream = Vec::new();
            frame(&first, &mut stream).unwrap();
            stream.extend(&bytes);
            if let Ok(messages) = deframe(&stream, &pieces) {
                prop_assert_eq!(messages.first(), Some(&first));
            }
        }

        #[test]
        fn any_datagram_is_framed_whole_or_not_at_all(
            datagram in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut out = vec![1, 2, 3];
            match frame(&datagram, &mut out) {
                Ok(()) => {
                    prop_assert_eq!(&out[3..3 + datagram.len()], &datagram[..]);
                    prop_assert!((out.len() - 3).is_multiple_of(4));
                }
                Err(Malformed) => prop_assert_eq!(out.len(), 3),
            }
        }
    }
}
