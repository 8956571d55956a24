//! What may pass from a broker to the library that speaks MQTT: whole packets of the few kinds that a client
//! is sent which subscribes with QoS 0 and publishes with QoS 0.
//!
//! The broker is chosen by the user but not trusted. The library keeps what it is sent: a packet of any length until
//! it is whole, and each message of QoS 2 until it is released. "Maximum Packet Size" (MQTT 5, section 3.1.2.11.4) is
//! only a request. And it reads properties past the end of a packet that is wrong about their length. So lengths and
//! kinds are judged here, by the fixed header (section 2.1), and then that everything in a packet lies within it,
//! before the library sees anything.
//!
//! A PUBLISH that is too long is left out and the connection lives on: with MQTT 3.1.1 a broker passes on messages of any
//! length, and a stranger must not be able to end our connection with one. Everything else that does not belong
//! ends it.

mod hello;
mod read;

pub use self::hello::{NotConnect, client_id};
use self::read::At;

/// Longest fixed header in bytes: the kind, and four bytes of length.
const MAX_HEADER: usize = 5;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// Why a broker's bytes are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A length of more than four bytes.
    #[error("the broker sends what is not MQTT: a length that never ends")]
    Length,
    /// A packet, other than a message, that is longer than there can be a use for.
    #[error("the broker sends a packet of {length} bytes; more than {most} are not read")]
    TooLong {
        /// Its length in bytes, without the fixed header.
        length: u32,
        /// The most that is read, with the fixed header.
        most: u32,
    },
    /// A packet that ends before all is there that belongs to its kind, or whose properties are none.
    #[error("the broker sends a packet of kind {kind} that is not whole or not in order")]
    Malformed {
        /// The kind (MQTT 5, table 2-1).
        kind: u8,
    },
    /// A message with a quality of service that nobody asked for.
    #[error("the broker sends a message with QoS {0}, for which nobody asked")]
    Quality(u8),
    /// A packet that no broker sends to such a client, or flags that it cannot have.
    #[error("the broker sends what nobody asked for: a packet of kind {kind} with flags {flags}")]
    Unexpected {
        /// The kind (MQTT 5, table 2-1).
        kind: u8,
        /// The flags beside it.
        flags: u8,
    },
}

/// The version of MQTT that the library speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// The way from a broker to the library. One for each connection. Holds one packet at most.
#[derive(Debug)]
pub struct Filter {
    version: Version,
    most: u32,
    /// The packet that is coming, as far as it is here.
    packet: Vec<u8>,
    /// Length of the whole packet, once its header is here.
    length: Option<usize>,
    /// Bytes of a message that is left out which have still to come.
    skip: usize,
    greeted: bool,
    refused: Option<Refusal>,
    left_out: u64,
}

impl Filter {
    /// For packets of this version, of at most `most` bytes, fixed header and all.
    pub fn new(version: Version, most: u32) -> Self {
        Self {
            version,
            most,
            packet: Vec::new(),
            length: None,
            skip: 0,
            greeted: false,
            refused: None,
            left_out: 0,
        }
    }

    /// How many messages were left out since the last call because they were too long.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// Takes what came from the broker, in pieces of any size, and adds to `out` what may pass: whole packets.
    ///
    /// # Errors
    /// When the broker sends what it must not. What is in `out` may pass all the same; nothing that comes
    /// later does.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        while !bytes.is_empty() {
            let taken = self.step(bytes, out).inspect_err(|refusal| {
                self.refused = Some(*refusal);
                self.packet = Vec::new();
            })?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes at least one byte of `bytes`; says how many.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        if self.skip > 0 {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            return Ok(skipped);
        }
        let taken = match self.length {
            Some(length) => {
                let missing = length.saturating_sub(self.packet.len());
                let piece = bytes.get(..missing).unwrap_or(bytes);
                self.packet.extend_from_slice(piece);
                piece.len()
            }
            None => {
                self.packet.extend(bytes.first());
                self.judge_header()?;
                1
            }
        };
        if self.length == Some(self.packet.len()) {
            self.judge_whole()?;
            out.append(&mut self.packet);
            self.length = None;
        }
        Ok(taken)
    }

    /// Looks at the fixed header, byte by byte as it comes.
    fn judge_header(&mut self) -> Result<(), Refusal> {
        let Some((&first, digits)) = self.packet.split_first() else {
            return Ok(());
        };
        let (kind, flags) = (first >> 4, first & 0x0f);
        if digits.is_empty() {
            return self.judge_kind(kind, flags);
        }
        if digits.last().is_some_and(|digit| digit & 0x80 != 0) {
            let more = self.packet.len() < MAX_HEADER;
            return if more { Ok(()) } else { Err(Refusal::Length) };
        }
        let length = digits.iter().rev().fold(0, |sum, digit| sum << 7 | u32::from(digit & 0x7f));
        let whole = usize::try_from(length).map_or(usize::MAX, |it| it + self.packet.len());
        if u32::try_from(whole).is_ok_and(|whole| whole <= self.most) {
            self.length = Some(whole);
        } else if kind == PUBLISH {
            self.skip = whole.saturating_sub(self.packet.len());
            self.packet.clear();
            self.left_out += 1;
        } else {
            return Err(Refusal::TooLong { length, most: self.most });
        }
        Ok(())
    }

    fn judge_kind(&mut self, kind: u8, flags: u8) -> Result<(), Refusal> {
        let quality = flags >> 1 & 3;
        match (kind, flags) {
            // The first packet, and no other (MQTT 5, section 3.2).
            (CONNACK, 0) if !self.greeted => self.greeted = true,
            (PUBLISH, _) if self.greeted && quality > 0 => return Err(Refusal::Quality(quality)),
            // Before MQTT 5 only clients say this.
            (DISCONNECT, 0) if self.version == Version::V5 && self.greeted => {}
            (PUBLISH, _) | (SUBACK | UNSUBACK | PINGRESP, 0) if self.greeted => {}
            _ => return Err(Refusal::Unexpected { kind, flags }),
        }
        Ok(())
    }

    /// Looks into a whole packet.
    fn judge_whole(&self) -> Result<(), Refusal> {
        let kind = self.packet.first().map_or(0, |first| first >> 4);
        let digits = self.packet.iter().skip(1).take_while(|digit| **digit & 0x80 != 0).count();
        let body = self.packet.get(digits + 2..).unwrap_or_default();
        match is_sound(kind, body, self.version == Version::V5) {
            Some(true) => Ok(()),
            Some(false) | None => Err(Refusal::Malformed { kind }),
        }
    }
}

/// Whether the body of a packet is what belongs to its kind; `None` when it ends too soon.
fn is_sound(kind: u8, body: &[u8], five: bool) -> Option<bool> {
    let mut at = At(body);
    match kind {
        CONNACK => {
            at.take(2)?;
            // A broker that knows no MQTT 5 says so without properties.
            if five && !at.0.is_empty() {
                at.properties()?;
            }
            Some(at.0.is_empty())
        }
        PUBLISH => {
            at.string()?;
            if five {
                at.properties()?;
            }
            Some(true)
        }
        SUBACK | UNSUBACK => {
            at.take(2)?;
            if five {
                at.properties()?;
            }
            // A code for each topic, but for UNSUBACK in MQTT 3.1.1.
            Some(!at.0.is_empty() || (kind == UNSUBACK && !five))
        }
        DISCONNECT => {
            if at.take(1).is_some() && !at.0.is_empty() {
                at.properties()?;
            }
            Some(at.0.is_empty())
        }
        _ => Some(at.0.is_empty()),
    }
}

#[cfg(test)]
mod tests;
