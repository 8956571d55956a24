//! The forms that single values may take.

use crate::config::values::*;
use crate::config::{Endpoint, Table};

#[test]
fn prefixes_keep_host_bits_and_default_to_one_host() {
    for (text, shown) in [
        ("10.0.0.1/24", "10.0.0.1/24"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("fd00::1", "fd00::1/128"),
        ("FD00:0::1/064", "fd00::1/64"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.0.0.1/128", "::ffff:10.0.0.1/128"),
    ] {
        assert_eq!(prefix(text).unwrap().to_string(), shown);
    }
}

#[test]
fn allowed_ips_may_be_empty_spaced_and_signed() {
    let list = |value: &str| -> Vec<String> {
        allowed_ips(value).unwrap().iter().map(ToString::to_string).collect()
    };
    assert!(list("").is_empty());
    assert_eq!(list("10.0.0.1 / 24,+fd00::/8"), ["10.0.0.1/24", "fd00::/8"]);
}

#[test]
fn numbers_with_special_words() {
    assert_eq!(listen_port("0"), Ok(None));
    assert_eq!(listen_port("65535"), Ok(Some(65535)));
    assert_eq!(fw_mark("OFF"), Ok(None));
    assert_eq!(fw_mark("0"), Ok(None));
    assert_eq!(fw_mark("0x0"), Ok(None));
    assert_eq!(fw_mark("51820"), Ok(Some(51820)));
    assert_eq!(fw_mark("0xca6c"), Ok(Some(0xca6c)));
    assert_eq!(fw_mark("0xffffffff"), Ok(Some(u32::MAX)));
    assert_eq!(keepalive("off"), Ok(None));
    assert_eq!(keepalive("0"), Ok(None));
    assert_eq!(keepalive("25"), Ok(Some(25)));
    assert_eq!(mtu(""), Ok(1400));
    assert_eq!(mtu("09000"), Ok(9000));
    assert_eq!(boolean("True"), Ok(true));
    assert_eq!(boolean("FALSE"), Ok(false));
}

#[test]
fn numbers_that_are_none() {
    for bad in ["", "-1", "+1", "65536", "ntp", "1 2x", "0x10"] {
        assert!(listen_port(bad).is_err(), "{bad}");
        assert!(keepalive(bad).is_err(), "{bad}");
    }
    for bad in ["", "0x", "0xg", "0x100000000", "4294967296", "on", "-1", "ca6c", "0x+1"] {
        assert!(fw_mark(bad).is_err(), "{bad}");
    }
    for bad in ["", "yes", "1", "true false"] {
        assert!(boolean(bad).is_err(), "{bad}");
    }
}

#[test]
fn tables_by_word_number_and_name() {
    for (text, expected) in [
        ("", Table::Auto),
        ("Auto", Table::Auto),
        ("OFF", Table::Off),
        ("1234", Table::Id(1234)),
        ("0x10", Table::Id(16)),
        ("main", Table::Id(254)),
        ("local", Table::Id(255)),
        ("default", Table::Id(253)),
        ("my-table_1", Table::Name("my-table_1".to_owned())),
    ] {
        assert_eq!(table(text), Ok(expected));
    }
    for bad in ["0", "-1", "4294967296", "a b", "a;b", "1a", "ü", &"a".repeat(33)] {
        assert!(table(bad).is_err(), "{bad}");
    }
}

#[test]
fn dns_words_are_servers_or_domains() {
    for server in ["10.0.0.53", "fd00::53"] {
        assert_eq!(dns_word(server), Ok(DnsWord::Server(server.parse().unwrap())));
    }
    for domain in ["example.com", "lan", "~corp.example.", "~.", "_tcp.example.com"] {
        assert_eq!(dns_word(domain), Ok(DnsWord::Search(domain.to_owned())));
    }
    let long = "a".repeat(64);
    for bad in ["10.0.0.256", "10.0.0", "fe80::1%eth0", "a:b", "a..b", ".", "-a", "a;b", "~", &long]
    {
        assert!(dns_word(bad).is_err(), "{bad}");
    }
}

#[test]
fn endpoints_as_wg_reads_them() {
    for (text, host, port, shown) in [
        ("192.0.2.1:51820", "192.0.2.1", 51820, "192.0.2.1:51820"),
        ("[2001:db8::1]:1", "2001:db8::1", 1, "[2001:db8::1]:1"),
        ("2001:db8::1:1", "2001:db8::1", 1, "[2001:db8::1]:1"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, "[fe80::1%eth0]:1"),
        ("vpn.example.com : 65535", "vpn.example.com", 65535, "vpn.example.com:65535"),
    ] {
        let found = endpoint(text).unwrap();
        assert_eq!(found, Endpoint { host: host.to_owned(), port });
        assert_eq!(found.to_string(), shown);
    }
    for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "[::1]", "[::1:1", "a/b:1", "[a]:1", "a:ntp"]
    {
        assert!(endpoint(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_of_peers_are_printable_and_short() {
    assert_eq!(peer_name("Name = bob"), Some(Ok("bob".to_owned())));
    assert_eq!(peer_name("NAME=Bob's laptop #1 = new"), Some(Ok("Bob's laptop #1 = new".into())));
    assert_eq!(peer_name("name = Zoë 👩🏽"), Some(Ok("Zoë 👩🏽".into())));
    for other in ["bob", "", "Names = bob", "The Name = bob", "PublicKey = x"] {
        assert_eq!(peer_name(other), None, "{other}");
    }
    let long = format!("Name = {}", "a".repeat(65));
    assert!(peer_name(&long[..long.len() - 1]).unwrap().is_ok());
    for bad in ["Name =", "Name = a\x1b[31m", "Name = a\u{202e}b", "Name = a\u{200b}", &long] {
        assert!(peer_name(bad).unwrap().is_err(), "{bad:?}");
    }
}
