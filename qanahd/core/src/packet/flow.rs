//! What belongs together: packets of one conversation between two programs.

use std::hash::{Hash as _, Hasher};

use super::{Header, Packet};

/// Protocols whose header begins with two ports: TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

impl Packet<'_> {
    /// Puts what all packets of a flow have in common into a hash: addresses, protocol and, where there are some,
    /// ports. Fragments of a packet are one flow, of all that have no ports. The hash is to be keyed with what
    /// nobody else knows, or a stranger chooses whose flow is whose.
    pub fn hash_flow(&self, state: &mut impl Hasher) {
        match self.header {
            Header::V4(header) => header.get(12..20).hash(state),
            Header::V6(header) => header.get(8..40).hash(state),
        }
        let Some(transport) = self.transport() else {
            return;
        };
        transport.protocol.hash(state);
        if !transport.fragment && WITH_PORTS.contains(&transport.protocol) {
            transport.bytes.get(..4).hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;
    use crate::packet::testing::packet;

    #[test]
    fn flows_are_told_apart_by_addresses_protocol_and_ports() {
        let keys = RandomState::new();
        let hash = |bytes: &[u8]| {
            let mut state = keys.build_hasher();
            Packet::parse(bytes).unwrap().hash_flow(&mut state);
            state.finish()
        };
        let of = |src, dst, protocol, ports: &[u8], rest: &[u8]| {
            packet(src, dst, protocol, &[ports, rest].concat())
        };
        let one = of("10.0.0.1", "10.0.0.2", 17, &[1, 2, 3, 4], b"a");
        assert_eq!(hash(&one), hash(&of("10.0.0.1", "10.0.0.2", 17, &[1, 2, 3, 4], b"other")));
        for other in [
            of("10.0.0.1", "10.0.0.2", 17, &[1, 2, 3, 5], b"a"),
            of("10.0.0.1", "10.0.0.2", 6, &[1, 2, 3, 4], b"a"),
            of("10.0.0.1", "10.0.0.3", 17, &[1, 2, 3, 4], b"a"),
            of("10.0.0.3", "10.0.0.2", 17, &[1, 2, 3, 4], b"a"),
            of("fd00::1", "fd00::2", 17, &[1, 2, 3, 4], b"a"),
        ] {
            assert_ne!(hash(&one), hash(&other));
        }
        let ping = |sequence| of("fd00::1", "fd00::2", 58, &[128, 0, 0, sequence], b"");
        assert_eq!(hash(&ping(1)), hash(&ping(2)), "no ports");
        let mut first = one.clone();
        first[6] = 0x20;
        let mut later = of("10.0.0.1", "10.0.0.2", 17, &[9, 9, 9, 9], b"x");
        later[7] = 1;
        assert_eq!(hash(&first), hash(&later), "fragments of one packet");
    }
}
