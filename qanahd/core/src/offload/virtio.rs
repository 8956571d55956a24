//! The header before each packet of a TUN device with `IFF_VNET_HDR` (virtio 1.2, section 5.1.6).

/// Length of the header, in bytes: that of a device whose length nobody has changed.
pub const VIRTIO_HEADER_LEN: usize = 10;

/// The checksum is not computed: what stands in its place is the sum over the pseudo header.
const NEEDS_CHECKSUM: u8 = 1;

/// Ways to cut a packet up. All else is unknown here.
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Set beside the above where the congestion window was reduced: the cutter minds that anyway.
const GSO_ECN: u8 = 0x80;

/// How a packet is to be cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// Not at all.
    None,
    /// As TCP over IPv4.
    TcpV4,
    /// As TCP over IPv6.
    TcpV6,
    /// As UDP datagrams.
    Udp,
}

/// The header before a packet. What comes from a kernel may say anything: whoever uses it looks at the packet too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Where the checksummed part of the packet begins, and where in that the checksum is; if it is missing.
    pub checksum: Option<(u16, u16)>,
    /// How the packet is to be cut up.
    pub gso: Gso,
    /// Length of the IP and the transport header, in bytes.
    pub headers_len: u16,
    /// Payload of each segment but the last, in bytes.
    pub gso_size: u16,
}

impl VirtioHeader {
    /// Of a packet that lacks nothing.
    pub const WHOLE: Self = Self { checksum: None, gso: Gso::None, headers_len: 0, gso_size: 0 };

    /// Reads the header; `None` for a way to cut that is not known here, which no kernel chooses that was not asked to.
    pub fn from_bytes(bytes: [u8; VIRTIO_HEADER_LEN]) -> Option<Self> {
        let [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        // A device that nobody has told otherwise speaks as its machine does.
        let number = |low, high| u16::from_ne_bytes([low, high]);
        Some(Self {
            checksum: (flags & NEEDS_CHECKSUM != 0).then_some((number(s0, s1), number(o0, o1))),
            gso: match gso & !GSO_ECN {
                GSO_NONE => Gso::None,
                GSO_TCP_V4 => Gso::TcpV4,
                GSO_TCP_V6 => Gso::TcpV6,
                GSO_UDP => Gso::Udp,
                _ => return None,
            },
            headers_len: number(h0, h1),
            gso_size: number(g0, g1),
        })
    }

    /// The header as a kernel reads it.
    pub const fn to_bytes(self) -> [u8; VIRTIO_HEADER_LEN] {
        let (flags, (start, offset)) = match self.checksum {
            Some(place) => (NEEDS_CHECKSUM, place),
            None => (0, (0, 0)),
        };
        let gso = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCP_V4,
            Gso::TcpV6 => GSO_TCP_V6,
            Gso::Udp => GSO_UDP,
        };
        let [h0, h1] = self.headers_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        assert_eq!(VirtioHeader::WHOLE.to_bytes(), [0; VIRTIO_HEADER_LEN]);
        assert_eq!(VirtioHeader::from_bytes([0; VIRTIO_HEADER_LEN]), Some(VirtioHeader::WHOLE));
        let header = VirtioHeader {
            checksum: Some((0x28, 0x10)),
            gso: Gso::TcpV6,
            headers_len: 0x3c,
            gso_size: 0x05a0,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..2], [1, 4]);
        assert_eq!(bytes[2..4], 0x3c_u16.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x05a0_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x28_u16.to_ne_bytes());
        assert_eq!(bytes[8..], 0x10_u16.to_ne_bytes());
        assert_eq!(VirtioHeader::from_bytes(bytes), Some(header));
        let mut reduced = bytes;
        reduced[1] |= GSO_ECN;
        assert_eq!(VirtioHeader::from_bytes(reduced), Some(header));
    }

    #[test]
    fn ways_to_cut_that_nobody_asked_for_are_refused() {
        for gso in [2, 3, 6, 0x7f, 0x83] {
            let mut bytes = [0; VIRTIO_HEADER_LEN];
            bytes[1] = gso;
            assert_eq!(VirtioHeader::from_bytes(bytes), None, "{gso}");
        }
    }
}
