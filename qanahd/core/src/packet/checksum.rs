//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A running one's complement sum. Every part but the last must be of even length.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Adds bytes; an odd last byte counts as the high half of a word.
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        // The sum does not mind how the words are taken (RFC 1071, section 2): several at a time is faster.
        let (wide, rest) = bytes.as_chunks::<4>();
        let sum: u64 = wide.iter().map(|four| u64::from(u32::from_be_bytes(*four))).sum();
        // Folded to 33 bits, so that no number of calls overflows.
        self.0 += (sum >> 32) + (sum & 0xffff_ffff);
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            self.0 += u64::from(u16::from_be_bytes(*word));
        }
        if let [odd] = rest {
            self.0 += u64::from(u16::from_be_bytes([*odd, 0]));
        }
        self
    }

    /// Adds one 32-bit number.
    pub(crate) fn add_u32(self, number: u32) -> Self {
        self.add(&number.to_be_bytes())
    }

    /// Adds an address of either family, as pseudo headers do.
    pub(crate) fn add_addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.add(&addr.octets()),
            IpAddr::V6(addr) => self.add(&addr.octets()),
        }
    }

    /// The checksum, in network byte order.
    pub(crate) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [.., high, low] = sum.to_be_bytes();
        [!high, !low]
    }
}
