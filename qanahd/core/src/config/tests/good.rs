//! Configurations that are fine, in the many ways in which they may be written.

use super::*;
use crate::config::{Dns, Endpoint, Hooks, Table};

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_at_once() {
    let text = format!(
        "# a comment\n\
         [Interface]\n\
         PrivateKey = {ALICE} # mine\n\
         Address = 10.0.0.1/24, fd00::1/64\n\
         Address = 10.9.0.1 10.8.0.1/16,\n\
         ListenPort = 51820\n\
         MTU = 1380\n\
         DNS = 10.0.0.53, example.com\n\
         DNS = fd00::53 corp.example\n\
         Table = 1234\n\
         FwMark = 0xca6c\n\
         SaveConfig = true\n\
         PreUp = echo one\n\
         PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo a=b # kept\n\
         PostUp = echo two\n\
         PreDown = echo three\n\
         PostDown = echo four\n\
         \n\
         [Peer]\n\
         # the second machine\n\
         # Name = bob\n\
         PublicKey = {BOB_PUBLIC}\n\
         PresharedKey = {CAROL_PUBLIC}\n\
         AllowedIPs = 10.0.0.2/32, 192.168.7.9/24\n\
         AllowedIPs = fd00::2, 10.0.0.2\n\
         Endpoint = vpn.example.com:51820\n\
         PersistentKeepalive = 25\n"
    );
    let config = good(&text).config;
    let interface = &config.interface;
    assert_eq!(interface.private_key.public_key().to_string(), ALICE_PUBLIC);
    assert_eq!(
        texts(&interface.addresses),
        ["10.0.0.1/24", "fd00::1/64", "10.9.0.1/32", "10.8.0.1/16"]
    );
    assert_eq!((interface.listen_port, interface.mtu), (Some(51820), 1380));
    assert_eq!(
        interface.dns,
        Dns {
            servers: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            search: vec!["example.com".into(), "corp.example".into()],
        }
    );
    assert_eq!((&interface.table, interface.fw_mark), (&Table::Id(1234), Some(0xca6c)));
    assert!(interface.save_config);
    assert_eq!(
        interface.hooks,
        Hooks {
            pre_up: vec!["echo one".into()],
            post_up: vec![
                "iptables -A FORWARD -i %i -j ACCEPT; echo a=b # kept".into(),
                "echo two".into()
            ],
            pre_down: vec!["echo three".into()],
            post_down: vec!["echo four".into()],
        }
    );
    let peer = &config.peers[0];
    assert_eq!((peer.display_name().as_str(), peer.line), ("bob", 19));
    assert_eq!(peer.public_key.to_string(), BOB_PUBLIC);
    assert_eq!(peer.preshared_key, Some(CAROL_PUBLIC.parse().unwrap()));
    // Cut to the network, and the same prefix once.
    assert_eq!(texts(&peer.allowed_ips), ["10.0.0.2/32", "192.168.7.0/24", "fd00::2/128"]);
    assert_eq!(peer.endpoint, Some(Endpoint { host: "vpn.example.com".into(), port: 51820 }));
    assert_eq!(peer.persistent_keepalive, Some(25));
}

#[test]
fn the_least_that_there_can_be() {
    let interface = good(&format!("[Interface]\nPrivateKey={ALICE}")).config.interface;
    assert!(interface.addresses.is_empty() && interface.hooks.is_empty());
    assert_eq!((interface.listen_port, interface.mtu, interface.fw_mark), (None, 1400, None));
    assert_eq!((interface.table, interface.dns), (Table::Auto, Dns::default()));
    assert!(!interface.save_config);
}

#[test]
fn editors_and_letter_cases_do_not_matter() {
    let text = format!(
        "\u{feff}\r\n [ interface ]\r\n\tprivatekey\t=\t{ALICE}\r\nADDRESS=10.0.0.1\r\n\
         [PEER] # bob\r\npublicKEY={BOB_PUBLIC}#x\r\n  allowed ips = 10.0.0.2 / 32 ,fd00:: / 8"
    );
    let config = good(&text).config;
    assert_eq!(texts(&config.interface.addresses), ["10.0.0.1/32"]);
    assert_eq!(texts(&config.peers[0].allowed_ips), ["10.0.0.2/32", "fd00::/8"]);
    assert_eq!(config.peers[0].line, 5);
    assert_eq!(config.peers[0].display_name(), "3p7bfXt9wb…");
}

#[test]
fn sections_may_come_in_any_order() {
    let text = format!(
        "[Peer]\nPublicKey={BOB_PUBLIC}\n[Interface]\nPrivateKey={ALICE}\n\
         [Peer]\nPublicKey={CAROL_PUBLIC}\nAllowedIPs="
    );
    let config = good(&text).config;
    assert_eq!(config.interface.lines.header, 3);
    let lines: Vec<usize> = config.peers.iter().map(|peer| peer.line).collect();
    assert_eq!(lines, [1, 5]);
}

#[test]
fn only_a_comment_above_the_first_key_of_a_peer_names_it() {
    let name = |comment_lines: &str| {
        let text = with_interface(comment_lines);
        good(&text).config.peers[0].name.clone()
    };
    let key = format!("PublicKey = {BOB_PUBLIC}");
    assert_eq!(name(&format!("[Peer]\n\n#  name=bob\n{key}")), Some("bob".into()));
    assert_eq!(name(&format!("# Name = bob\n[Peer]\n{key}")), None);
    assert_eq!(name(&format!("[Peer]\n{key}\n# Name = bob")), None);
    assert_eq!(name(&format!("[Peer] # Name = bob\n{key}")), None);
    assert_eq!(name(&format!("[Peer]\n# Name = a\n# Name = b\n{key}")), Some("a".into()));
}

#[test]
fn empty_values_that_wg_quick_takes_for_the_default() {
    let text = with_interface("MTU =\nTable =\nAddress =\nDNS =\nPostUp = # nothing");
    // The shell gets the comment, as from wg-quick(8).
    let interface = good(&text).config.interface;
    assert_eq!((interface.mtu, interface.table), (1400, Table::Auto));
    assert_eq!(interface.hooks.post_up, ["# nothing"]);
}
