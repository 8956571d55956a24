//! TURN (RFC 8656) over a stream, its time-limited passwords, and the little that we read of STUN messages.

mod attributes;
mod framing;
mod login;

pub use attributes::{
    DATA_INDICATION, SEND_INDICATION, channel_data, handed_over, has_username, receiver,
};
pub use framing::{Deframer, MAX_MESSAGE, Malformed, frame};
pub use login::{LIFETIME, TimeLimited, time_limited};

/// The bytes that tell one STUN transaction from all others (RFC 8489, section 5).
pub type TransactionId = [u8; 12];

/// What a STUN message is, as far as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StunHeader {
    /// Method and class as they stand there, such as 0x0003 for an Allocate request.
    pub kind: u16,
    /// The transaction.
    pub id: TransactionId,
}

/// The two bits of the class in a STUN message's type (RFC 8489, section 5).
const CLASS_BITS: u16 = 0x0110;
/// An Allocate request (RFC 8656, section 17).
pub const ALLOCATE: u16 = 0x0003;
/// A Binding request (RFC 8489, section 18.2).
pub const BINDING: u16 = 0x0001;
/// Added to the type of a request it is that of a success.
pub const SUCCESS: u16 = 0x0100;
/// Added to the type of a request it is that of an error.
pub const ERROR: u16 = 0x0110;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

impl StunHeader {
    /// Reads the header of a datagram that may be a STUN message; nothing when it is none.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let [high, low, _, _, cookie @ ..] = datagram.first_chunk::<8>()?;
        if high & 0xc0 != 0 || *cookie != MAGIC_COOKIE {
            return None;
        }
        let id = *datagram.get(8..)?.first_chunk()?;
        Some(Self { kind: u16::from_be_bytes([*high, *low]), id })
    }

    /// Whether an answer is expected.
    pub const fn is_request(self) -> bool {
        self.kind & CLASS_BITS == 0
    }

    /// Whether this is an answer, of success or of an error.
    pub const fn is_answer(self) -> bool {
        self.kind & SUCCESS != 0
    }

    /// The type of the request that this belongs to.
    pub const fn method(self) -> u16 {
        self.kind & !CLASS_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_other_datagrams_are_none() {
        let mut datagram = *b"\x00\x03\x00\x00\x21\x12\xa4\x42twelve bytes";
        let header = StunHeader::read(&datagram).unwrap();
        assert_eq!((header.kind, header.id), (ALLOCATE, *b"twelve bytes"));
        assert!(header.is_request());
        datagram[0] = 1;
        let answer = StunHeader::read(&datagram).unwrap();
        assert_eq!(answer.kind, ALLOCATE + SUCCESS);
        assert!(!answer.is_request());
        datagram[1] = 0x13;
        assert_eq!(StunHeader::read(&datagram).unwrap().kind, ALLOCATE + ERROR);
        assert_eq!(StunHeader::read(&datagram[..19]), None);
        datagram[4] = 0;
        assert_eq!(StunHeader::read(&datagram), None);
        assert_eq!(StunHeader::read(b""), None);
        assert_eq!(StunHeader::read(b"\x40\x00\x00\x00\x21\x12\xa4\x42twelve bytes"), None);
    }
}
