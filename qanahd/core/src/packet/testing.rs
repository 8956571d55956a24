//! Packets for tests.

use std::net::IpAddr;

use proptest::prelude::*;

/// A packet without options between two addresses of one family.
pub(crate) fn packet(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut bytes = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let mut bytes = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes
        }
        _ => panic!("two families in one packet"),
    };
    bytes.extend(payload);
    bytes
}

/// Well-formed packets of both families, of every protocol, with arbitrary payload.
pub(crate) fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..200);
    // The next header 0 promises options that arbitrary payload does not keep.
    let v4 = (any::<[u8; 8]>(), any::<u8>(), payload()).prop_map(|(addrs, protocol, payload)| {
        let mut bytes = packet("0.0.0.0", "0.0.0.0", protocol, &payload);
        bytes[12..20].copy_from_slice(&addrs);
        bytes
    });
    let v6 = (any::<[u8; 32]>(), 1_u8.., payload()).prop_map(|(addrs, protocol, payload)| {
        let mut bytes = packet("::", "::", protocol, &payload);
        bytes[8..40].copy_from_slice(&addrs);
        bytes
    });
    prop_oneof![v4, v6]
}
