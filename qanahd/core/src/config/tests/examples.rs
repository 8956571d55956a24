//! The example files fit together.

use super::*;
use crate::config::TunnelName;

const FILES: [(&str, &str); 3] = [
    ("peer1", include_str!("../../../../../examples/peer1.conf")),
    ("peer2", include_str!("../../../../../examples/peer2.conf")),
    ("peer3", include_str!("../../../../../examples/peer3.conf")),
];

#[test]
fn the_examples_are_a_full_mesh() {
    let parsed = FILES.map(|(name, text)| {
        assert!(text.contains("DO NOT USE THESE KEYS"));
        (name.parse::<TunnelName>().unwrap(), good(text))
    });
    for (name, Parsed { config, warnings }) in &parsed {
        assert_eq!(warnings, &[], "{name}");
        assert_eq!(config.refusals(), []);
        assert_eq!(config.peers.len(), parsed.len() - 1);
        for peer in &config.peers {
            let (_, other) = parsed
                .iter()
                .find(|(other, _)| peer.name.as_deref() == Some(other.as_str()))
                .unwrap();
            let other = &other.config;
            assert_eq!(peer.public_key, other.interface.private_key.public_key());
            let hosts: Vec<_> = other
                .interface
                .addresses
                .iter()
                .map(|net| ipnet::IpNet::from(net.addr()))
                .collect();
            assert_eq!(peer.allowed_ips, hosts);
            let own = config.interface.private_key.public_key();
            let back = other.peers.iter().find(|peer| peer.public_key == own).unwrap();
            assert_eq!(peer.preshared_key, back.preshared_key);
        }
    }
    let preshared = parsed.iter().flat_map(|(_, parsed)| &parsed.config.peers);
    assert_eq!(preshared.filter(|peer| peer.preshared_key.is_some()).count(), 2);
}
