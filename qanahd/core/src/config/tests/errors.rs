//! One test a mistake: the whole message, as its author will read it.

use super::*;

fn message(text: &str) -> String {
    parse(text).expect_err("the text is wrong").to_string()
}

/// The message for lines in the `[Interface]` section; the first of them is line 3.
fn interface(lines: &str) -> String {
    message(&with_interface(lines))
}

/// The message for lines in the `[Peer]` section; the first of them is line 6.
fn peer(lines: &str) -> String {
    message(&with_peer(lines))
}

#[test]
fn files_that_are_no_text() {
    let bytes = |bytes: &[u8]| Config::parse("t.conf", bytes).unwrap_err().to_string();
    assert_eq!(
        bytes(b"[Interface]\n\xff"),
        "t.conf:2: is not UTF-8 text, expected a text file; save it as UTF-8"
    );
    assert_eq!(
        bytes(b"[Interface]\0"),
        "t.conf:1: contains a NUL byte, expected text; save the file as UTF-8 without NUL bytes"
    );
    assert_eq!(
        bytes(&vec![b'#'; 1_048_577]),
        "t.conf: is 1048577 bytes long, expected at most 1048576; is this a configuration file?"
    );
}

#[test]
fn lines_that_are_not_understood() {
    assert_eq!(
        interface("hello"),
        "t.conf:3: is neither a section nor `KEY = VALUE`, expected a line such as `MTU = 1400`; \
         correct it, or start it with `#` to make it a comment"
    );
    assert_eq!(
        interface("Mut = 5"),
        "t.conf:3: unknown key `Mut` in [Interface], expected one of PrivateKey, Address, \
         ListenPort, MTU, DNS, Table, FwMark, SaveConfig, PreUp, PostUp, PreDown, PostDown; \
         correct the spelling or remove the line"
    );
    assert_eq!(
        peer("AllowedIP = 5"),
        "t.conf:6: unknown key `AllowedIP` in [Peer], expected one of PublicKey, PresharedKey, \
         AllowedIPs, Endpoint, PersistentKeepalive; correct the spelling or remove the line"
    );
    assert!(interface(" = 5").starts_with("t.conf:3: unknown key `` in [Interface], expected"));
    assert_eq!(
        message("[Interfaces]"),
        "t.conf:1: unknown section `[Interfaces]`, expected [Interface] or [Peer]; \
         correct or remove it"
    );
}

#[test]
fn keys_and_sections_in_the_wrong_place() {
    assert_eq!(
        message("\nMTU = 1400"),
        "t.conf:2: MTU: stands before any section, expected [Interface] or [Peer] above it; \
         move it down"
    );
    assert_eq!(
        interface("allowedips = 10.0.0.0/24"),
        "t.conf:3: AllowedIPs: stands in [Interface], expected in [Peer]; move it there"
    );
    assert_eq!(
        peer("Address = 10.0.0.1/24"),
        "t.conf:6: Address: stands in [Peer], expected in [Interface]; move it there"
    );
    assert_eq!(
        interface("[interface]"),
        "t.conf:3: second [Interface] section, expected one (the first is at line 1); merge them"
    );
}

#[test]
fn what_is_missing() {
    assert_eq!(
        message(""),
        "t.conf: there is no [Interface] section, expected one; add it with a PrivateKey"
    );
    assert_eq!(message("[Peer]\n"), message("# nothing"));
    assert_eq!(
        message("\n[Interface]\nMTU = 1400\n"),
        "t.conf:2: PrivateKey: missing in [Interface], expected a key from `wg genkey`; \
         add `PrivateKey = ...`"
    );
    assert_eq!(
        interface("[Peer]\nAllowedIPs = 10.0.0.2"),
        "t.conf:3: PublicKey: missing in [Peer], expected the key of that peer; \
         add `PublicKey = ...`"
    );
}

#[test]
fn keys_given_twice_name_both_lines() {
    for line in ["MTU = 1400", "ListenPort = 1", "Table = auto", "FwMark = off", "SaveConfig=true"]
    {
        let key = line.split_once('=').unwrap().0.trim();
        assert_eq!(
            interface(&format!("{line}\n{line}")),
            format!(
                "t.conf:4: {key}: given twice, expected once (the first is at line 3); \
                 remove one of the two"
            )
        );
    }
    assert!(interface(&format!("PrivateKey={ALICE}")).starts_with("t.conf:3: PrivateKey: given"));
    for line in ["PublicKey = x", "Endpoint = a:1", "PersistentKeepalive = 5"] {
        assert!(peer(&format!("{line}\n{line}")).contains("given twice"), "{line}");
    }
    let preshared = format!("PresharedKey={ALICE}\npresharedkey={ALICE}");
    assert!(peer(&preshared).starts_with("t.conf:7: PresharedKey: given twice"));
}

#[test]
fn bad_cryptographic_keys_are_not_quoted() {
    let base64 = "is not valid base64 (expected 44 characters as `wg genkey` prints them); \
                  copy the whole key again";
    let wrong = "wAnz5TF+lXXJte14tji3zlMNq";
    let short = "QUJDRA==";
    let length = "holds 4 bytes (expected 32, written as 44 base64 characters); \
                  copy the whole key again";
    for (value, why) in [(wrong, base64), (short, length), ("ü", base64)] {
        let text = format!("[Interface]\nPrivateKey = {value}\n");
        assert_eq!(message(&text), format!("t.conf:2: PrivateKey: {why}"));
        assert_eq!(
            peer(&format!("PresharedKey = {value}")),
            format!("t.conf:6: PresharedKey: {why}")
        );
        let text = with_interface(&format!("[Peer]\nPublicKey = {value}"));
        assert_eq!(message(&text), format!("t.conf:4: PublicKey: {why}"));
    }
    assert_eq!(
        peer("PresharedKey ="),
        "t.conf:6: PresharedKey: is empty, expected a key as `wg genpsk` prints it; \
         fill it in or remove the line"
    );
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let zero = "is all zeros, which is no key; put in the key of this machine or peer";
    assert_eq!(
        message(&format!("[Interface]\nPrivateKey = {zeros}")),
        format!("t.conf:2: PrivateKey: {zero}")
    );
    let text = with_interface(&format!("[Peer]\nPublicKey = {zeros}"));
    assert_eq!(message(&text), format!("t.conf:4: PublicKey: {zero}"));
}

/// A secret that landed in the wrong place must not come out in a message either.
#[test]
fn misplaced_secrets_are_not_quoted() {
    let bare = ALICE.trim_end_matches('=');
    for key in [
        "",
        "Address =",
        "MTU =",
        "DNS =",
        "Table =",
        "ListenPort =",
        "FwMark =",
        "SaveConfig =",
        "PrivateKye =",
        "PrivateKey",
        "[",
        "# a\n[Peer]\nEndpoint =",
        "[Peer]\nAllowedIPs =",
        "[Peer]\nPersistentKeepalive =",
        "[Peer]\nPublicKey = x",
        "[Peer]\nAllowedIPs = -",
    ] {
        for secret in [ALICE, bare] {
            let text = format!("[Interface]\n{key} {secret}\n");
            let shown = format!("{0} {0:?}", parse(&text).unwrap_err());
            let leaks = |part: &[u8]| shown.contains(std::str::from_utf8(part).unwrap());
            assert!(!ALICE.as_bytes().windows(8).any(leaks), "{key}: {shown}");
        }
    }
}

#[test]
fn peers_that_collide() {
    let private = with_interface(&format!("[Peer]\nPublicKey = {ALICE}"));
    assert_eq!(
        message(&private),
        "t.conf:4: PublicKey: is this machine's PrivateKey, which must stay secret, expected the \
         public key of another one; put that in"
    );
    let own = with_interface(&format!("[Peer]\nPublicKey = {ALICE_PUBLIC}"));
    assert_eq!(
        message(&own),
        "t.conf:4: PublicKey: is this machine's own key, expected the key of another one; \
         put in that peer's public key or remove the peer"
    );
    assert_eq!(
        peer(&format!("[Peer]\nPublicKey = {BOB_PUBLIC}")),
        "t.conf:7: PublicKey: is the key of the peer at line 4, expected each peer once; \
         merge the two"
    );
    let prefixes = format!(
        "AllowedIPs = 10.1.0.7/16\n[Peer]\nPublicKey = {CAROL_PUBLIC}\nAllowedIPs=10.2.0.0/16\n\
         AllowedIPs = fd00::/8, 10.1.0.0/16"
    );
    assert_eq!(
        peer(&prefixes),
        "t.conf:10: AllowedIPs: 10.1.0.0/16 belongs to the peer at line 4 already, expected each \
         prefix with one peer; remove it from one of the two"
    );
}

#[test]
fn bad_addresses() {
    let expected = "expected an address with an optional prefix length, such as 10.0.0.2/32 or \
                    fd00::2/128 (IPv4 up to /32, IPv6 up to /128)";
    for bad in [
        "10.0.0.1/33",
        "fd00::1/129",
        "10.0.0/24",
        "10.0.0.1/",
        "10.0.0.1/+8",
        "10.0.0.1/-1",
        "10.0.0.01",
        "example.com",
        "fd00::1%eth0/64",
        "10.0.0.1/24/24",
        "1.2.3.4/999999999999",
        "/24",
        "[fd00::1]/64",
        "10.0.0.1/255.255.255.0",
    ] {
        assert_eq!(
            interface(&format!("Address = 10.9.9.9, {bad}")),
            format!("t.conf:3: Address: cannot read `{bad}`, {expected}")
        );
        assert_eq!(
            peer(&format!("AllowedIPs = {bad}")),
            format!("t.conf:6: AllowedIPs: cannot read `{bad}`, {expected}")
        );
    }
    assert_eq!(
        peer("AllowedIPs = 10.0.0.2/32 10.0.0.3"),
        "t.conf:6: AllowedIPs: cannot read `10.0.0.2/32 10.0.0.3`, \
         expected commas between the addresses"
    );
    for bad in ["10.0.0.2,", ",", "10.0.0.2,,10.0.0.3", "+"] {
        assert_eq!(
            peer(&format!("AllowedIPs = {bad}")),
            "t.conf:6: AllowedIPs: is empty, expected an address between the commas; \
             fill it in or remove the line"
        );
    }
    assert_eq!(
        peer("AllowedIPs = -10.0.0.2/32"),
        "t.conf:6: AllowedIPs: `-10.0.0.2/32` takes an address away, which only `wg set` can do, \
         expected the whole list; remove the entry"
    );
}

#[test]
fn addresses_that_no_interface_can_have() {
    for bad in ["0.0.0.0/8", "224.0.0.1/24", "255.255.255.255", "::/64", "ff02::1/64"] {
        let message = interface(&format!("Address = {bad}"));
        assert!(message.contains("not an address that a host can have"), "{message}");
    }
    assert_eq!(
        interface("Address = 10.0.0.1/24\nAddress = 10.0.0.1/32"),
        "t.conf:4: Address: 10.0.0.1 is given twice, expected each address once; \
         remove one of the two"
    );
    let many: Vec<String> = (0..=u8::MAX).map(|n| format!("10.0.0.{n}")).collect();
    assert!(parse(&with_interface(&format!("Address = {}", many.join(",")))).is_ok());
    assert_eq!(
        interface(&format!("Address = 10.1.1.1, {}", many.join(","))),
        "t.conf:3: Address: more than 256 addresses, expected at most that many; remove some"
    );
}

#[test]
fn mtu_out_of_range() {
    for bad in ["575", "65536", "0", "4294967295"] {
        assert_eq!(
            interface(&format!("MTU = {bad}")),
            "t.conf:3: MTU: is out of range, expected 576 to 65535 bytes; 1400 suits most paths"
        );
    }
    for bad in ["1400.5", "auto", "0x578", "-1", "4294967296"] {
        assert_eq!(
            interface(&format!("MTU = {bad}")),
            format!(
                "t.conf:3: MTU: cannot read `{bad}`, \
                 expected a number of bytes from 576 to 65535 such as 1400"
            )
        );
    }
    let ipv6 = "1279 is too small for IPv6, expected at least 1280 (RFC 8200) because line";
    assert!(
        interface("MTU = 1279\nAddress = fd00::1/64")
            .starts_with(&format!("t.conf:3: MTU: {ipv6} 4 has an IPv6 prefix; raise"))
    );
    let routed = with_peer("AllowedIPs = fd00::2").replace("Address", "MTU = 1279\nAddress");
    assert!(message(&routed).starts_with(&format!("t.conf:3: MTU: {ipv6} 7 has an")));
    assert!(parse(&with_interface("MTU = 1280\nAddress = fd00::1/64")).is_ok());
    assert!(parse(&with_interface("MTU = 576\nAddress = 10.0.0.1/24")).is_ok());
}

#[test]
fn too_many_peers() {
    let peers = |count| {
        let mut text = with_interface("");
        for n in 0_u16..count {
            let [high, low] = n.to_be_bytes();
            let mut key = [9; 32];
            key[..2].copy_from_slice(&[high, low]);
            let key = crate::key::PublicKey::from_bytes(key);
            text.push_str(&format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 10.1.{high}.{low}\n"));
        }
        text
    };
    assert_eq!(good(&peers(4096)).config.peers.len(), 4096);
    assert_eq!(
        message(&peers(4097)),
        "t.conf:12292: more than 4096 peers, expected at most that many; split the tunnel"
    );
}

#[test]
fn the_place_of_an_error_quotes_nothing() {
    let error = parse(&with_interface("Address = secret-host")).unwrap_err();
    assert_eq!(error.place(), "line 3: Address");
    assert_eq!(parse("secret").unwrap_err().place(), "line 1");
    assert_eq!(parse("").unwrap_err().place(), "the file as a whole");
}
