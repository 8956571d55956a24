//! What must hold for every text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::config::{TunnelName, describe};
use crate::key::{PublicKey, SecretKey};

/// A model of a configuration, apart from the parser's types.
#[derive(Debug, Clone)]
struct Model {
    secret: [u8; 32],
    addresses: Vec<IpNet>,
    mtu: Option<u32>,
    port: Option<u16>,
    mark: Option<u32>,
    hooks: Vec<String>,
    peers: Vec<ModelPeer>,
}

#[derive(Debug, Clone)]
struct ModelPeer {
    key: [u8; 32],
    preshared: Option<[u8; 32]>,
    name: Option<String>,
    allowed: Vec<IpNet>,
    keepalive: Option<u16>,
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1_u8..=223, any::<[u8; 3]>())
            .prop_map(|(a, [b, c, d])| IpAddr::from(Ipv4Addr::new(a, b, c, d))),
        any::<u64>().prop_map(|n| IpAddr::from(Ipv6Addr::from(0xfd_u128 << 120 | u128::from(n)))),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=128).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(most)).unwrap()
    })
}

fn key() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>().prop_filter("a key of zeros is none", |key| *key != [0; 32])
}

prop_compose! {
    fn model()(
        secret in key(),
        addresses in vec(net(), 0..5),
        mtu in option::of(1280_u32..=65535),
        port in option::of(1_u16..),
        mark in option::of(1_u32..),
        hooks in vec("[!-~]([ -~]{0,20}[!-~])?", 0..3),
        keys in btree_set(key(), 0..6),
        rest in vec((option::of(key()), option::of("[a-zé]([a-z #='é]{0,10}[a-z])?"),
                     vec(net(), 0..5), option::of(1_u16..)), 6),
    ) -> Model {
        let mut addresses = addresses;
        let mut seen = Vec::new();
        addresses.retain(|net: &IpNet| {
            let fresh = !seen.contains(&net.addr());
            seen.push(net.addr());
            fresh
        });
        let own = SecretKey::from_bytes(secret).public_key();
        let mut owned = Vec::new();
        let peers = keys.into_iter().zip(rest).filter(|(key, _)| key != own.as_bytes());
        let peers = peers.map(|(key, (preshared, name, mut allowed, keepalive))| {
            allowed.retain(|net| {
                let fresh = !owned.contains(&net.trunc());
                owned.push(net.trunc());
                fresh
            });
            ModelPeer { key, preshared, name, allowed, keepalive }
        }).collect();
        Model { secret, addresses, mtu, port, mark, hooks, peers }
    }
}

/// Writes configurations in ever other ways: letter case, white space, line ends, comments, and
/// lists on one line or on several.
struct Writer {
    text: String,
    style: u32,
}

impl Writer {
    fn choice(&mut self, of: u32) -> u32 {
        self.style = self.style.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.style >> 16) % of
    }

    fn word(&mut self, word: &str) {
        let word = match self.choice(3) {
            0 => word.to_lowercase(),
            1 => word.to_uppercase(),
            _ => word.to_owned(),
        };
        self.space();
        self.text.push_str(&word);
        self.space();
    }

    fn space(&mut self) {
        let space = ["", " ", "\t", "  "][self.choice(4) as usize];
        self.text.push_str(space);
    }

    fn end(&mut self) {
        let end = ["\n", "\r\n", " \n", "\n\n", "\n# MTU = 5\n"][self.choice(5) as usize];
        self.text.push_str(end);
    }

    fn line(&mut self, key: &str, value: &str) {
        self.word(key);
        self.text.push('=');
        self.space();
        self.text.push_str(value);
        if !key.starts_with('P') && self.choice(4) == 0 {
            self.text.push_str(" # = [Peer]");
        }
        self.end();
    }

    fn list(&mut self, key: &str, nets: &[IpNet]) {
        for part in nets.chunks(1 + self.choice(3) as usize) {
            let comma = [",", ", ", " , "][self.choice(3) as usize];
            let nets: Vec<String> = part.iter().map(|net| self.net(net)).collect();
            self.line(key, &nets.join(comma));
        }
    }

    fn net(&mut self, net: &IpNet) -> String {
        let host = net.prefix_len() == net.max_prefix_len();
        if host && self.choice(2) == 0 { net.addr().to_string() } else { net.to_string() }
    }

    fn model(&mut self, model: &Model) {
        self.word("[Interface]");
        self.end();
        // Both kinds of keys have the same text form.
        self.line("PrivateKey", &PublicKey::from_bytes(model.secret).to_string());
        self.list("Address", &model.addresses);
        if let Some(mtu) = model.mtu {
            self.line("MTU", &mtu.to_string());
        }
        if let Some(port) = model.port {
            self.line("ListenPort", &port.to_string());
        }
        if let Some(mark) = model.mark {
            let hex = self.choice(2) == 0;
            self.line("FwMark", &if hex { format!("{mark:#x}") } else { mark.to_string() });
        }
        for hook in &model.hooks {
            self.line("PostUp", hook);
        }
        for peer in &model.peers {
            self.word("[Peer]");
            self.end();
            if let Some(name) = &peer.name {
                self.text.push_str(&format!("# Name = {name}\n"));
            }
            self.line("PublicKey", &PublicKey::from_bytes(peer.key).to_string());
            if let Some(preshared) = peer.preshared {
                self.line("PresharedKey", &PublicKey::from_bytes(preshared).to_string());
            }
            self.list("AllowedIPs", &peer.allowed);
            if let Some(seconds) = peer.keepalive {
                self.line("PersistentKeepalive", &seconds.to_string());
            }
        }
    }
}

fn assert_same(model: &Model, config: &Config) {
    let interface = &config.interface;
    assert_eq!(interface.private_key.expose(), &model.secret);
    assert_eq!(interface.addresses, model.addresses);
    assert_eq!(interface.mtu, model.mtu.unwrap_or(1400));
    assert_eq!((interface.listen_port, interface.fw_mark), (model.port, model.mark));
    assert_eq!(interface.hooks.post_up, model.hooks);
    assert_eq!(config.peers.len(), model.peers.len());
    for (peer, model) in config.peers.iter().zip(&model.peers) {
        assert_eq!(peer.public_key.as_bytes(), &model.key);
        assert_eq!(peer.preshared_key.as_ref().map(|key| *key.expose()), model.preshared);
        assert_eq!(peer.name, model.name);
        let networks: Vec<IpNet> = model.allowed.iter().map(IpNet::trunc).collect();
        assert_eq!(peer.allowed_ips, networks);
        assert_eq!(peer.persistent_keepalive, model.keepalive);
    }
}

/// Nearly a configuration: valid lines, broken ones and noise.
fn nearly() -> impl Strategy<Value = String> {
    let keys = crate::config::keys::Key::ALL.map(|key| key.name());
    let value = prop_oneof![
        Just(ALICE.to_owned()),
        Just(BOB_PUBLIC.to_owned()),
        net().prop_map(|net| net.to_string()),
        any::<u32>().prop_map(|n| n.to_string()),
        "[0-9a-fx.:/,+ \\[\\]%=~-]{0,30}",
        "\\PC{0,30}",
    ];
    let line = prop_oneof![
        4 => (prop::sample::select(keys.to_vec()), value).prop_map(|(k, v)| format!("{k}={v}")),
        1 => Just("[Peer]".to_owned()),
        1 => "# Name = \\PC{0,20}",
        1 => "\\PC{0,40}",
    ];
    vec(line, 0..12).prop_map(|lines| with_interface(&lines.join("\n")))
}

/// Never a panic; a configuration that is taken can be shown, without its private key.
fn survives(text: &[u8]) {
    match Config::parse("t.conf", text) {
        Err(error) => assert!(error.to_string().starts_with("t.conf:")),
        Ok(parsed) => {
            let name: TunnelName = "t".parse().unwrap();
            let secret = parsed.config.interface.private_key.expose();
            let shown = describe(&name, &parsed);
            assert!(!shown.contains(&PublicKey::from_bytes(*secret).to_string()));
            let lines = text.split(|&byte| byte == b'\n').count();
            let placed = |line| (1..=lines).contains(&line);
            assert!(parsed.warnings.iter().all(|warning| placed(warning.line)));
            assert!(parsed.config.refusals().iter().all(|refusal| placed(refusal.line)));
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(model in model(), style in any::<u32>()) {
        let mut writer = Writer { text: String::new(), style };
        writer.model(&model);
        let parsed = good(&writer.text);
        assert_same(&model, &parsed.config);
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survives(text.as_bytes());
    }

    #[test]
    fn nearly_configurations_are_survived(text in nearly()) {
        survives(text.as_bytes());
    }

    #[test]
    fn server_addresses_are_survived(text in "(mqtts?|wss?|stun|turns?)?:?(//)?\\PC{0,60}") {
        use crate::servers::{SignalServer, StunUrl, TurnUrl};
        if let Ok(url) = text.parse::<SignalServer>() {
            prop_assert!(!url.to_string().is_empty());
        }
        if let Ok(url) = text.parse::<StunUrl>() {
            prop_assert_eq!(url.to_string().parse::<StunUrl>(), Ok(url));
        }
        if let Ok(url) = text.parse::<TurnUrl>() {
            prop_assert_eq!(url.to_string().parse::<TurnUrl>(), Ok(url));
        }
    }
}
