//! Warnings, refusals and the text of `--check`.

use super::*;
use crate::config::{Level, TunnelName, describe};

fn warnings(text: &str) -> Vec<String> {
    good(text).warnings.iter().map(ToString::to_string).collect()
}

fn refusals(text: &str) -> Vec<String> {
    good(text).config.refusals().iter().map(|refusal| refusal.in_file("t.conf")).collect()
}

/// Warnings about lines in a `[Peer]` section that is otherwise fine. They begin at line 7.
fn peer_warnings(lines: &str) -> Vec<String> {
    warnings(&with_peer(&format!("AllowedIPs = 10.0.0.2\n{lines}")))
}

#[test]
fn a_plain_configuration_earns_no_warning() {
    assert_eq!(peer_warnings(""), [""; 0]);
    assert_eq!(peer_warnings("PersistentKeepalive = off"), [""; 0]);
    let nothing = "DNS =\nListenPort = 0\nAddress = 10.0.0.1\n[Peer]\nAllowedIPs = 10.0.0.2\n";
    let text = with_interface(&format!("{nothing}PublicKey = {BOB_PUBLIC}"));
    assert_eq!(warnings(&text), [""; 0]);
}

#[test]
fn keys_without_effect_are_not_passed_over() {
    let lines = "DNS = 10.0.0.53\nListenPort = 51820\nDNS = lan\nAddress = 10.0.0.1/24\n[Peer]";
    let text = with_interface(&format!(
        "{lines}\nPublicKey = {BOB_PUBLIC}\nEndpoint = a:1\nPersistentKeepalive = 25\n\
         AllowedIPs = 10.0.0.2\n[Peer]\nEndpoint = b:1\nAllowedIPs = 10.0.0.3\n\
         PublicKey = {CAROL_PUBLIC}"
    ));
    assert_eq!(
        warnings(&text),
        [
            "line 3: DNS: has no effect yet: no name server is set; set it by hand or remove the \
             line",
            "line 9: Endpoint: is not used: peers find each other by signaling, not at a fixed \
             address (the same for 1 more peer)",
            "line 10: PersistentKeepalive: has no effect: WebRTC keeps its paths open by itself",
        ]
    );
    let levels: Vec<Level> = good(&text).warnings.iter().map(|warning| warning.level).collect();
    assert_eq!(levels, [Level::Warning, Level::Warning, Level::Notice]);
    let first = good(&text).warnings[0].in_file("t.conf");
    assert!(first.starts_with("t.conf:3: DNS: has no effect yet"), "{first}");
}

#[test]
fn oddities_earn_warnings() {
    assert_eq!(
        warnings(&with_interface("")),
        [
            "line 1: Address: no address is given, so this machine has none in the tunnel; \
             add one such as `Address = 10.0.0.1/24`",
            "line 1: [Interface]: no [Peer] section, so there is nobody to talk to; add one",
        ]
    );
    assert_eq!(
        warnings(&with_peer("")),
        ["line 4: AllowedIPs: no prefix is given, so no packet goes to or comes from this \
             peer; add its tunnel address"]
    );
    assert_eq!(
        peer_warnings("AllowedIPs = 10.7.7.7/8, 10.0.0.1"),
        [
            "line 7: AllowedIPs: 10.7.7.7/8 has host bits set and is taken as 10.0.0.0/8",
            "line 7: AllowedIPs: 10.0.0.1/32 is this machine's own address; put in the peer's",
        ]
    );
    let zeros = "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(
        peer_warnings(zeros),
        ["line 7: PresharedKey: is all zeros, which means none; remove the line"]
    );
    let text = with_peer(zeros);
    assert!(good(&text).config.peers[0].preshared_key.is_none());
    let hook = with_peer("AllowedIPs = 10.0.0.2").replace("Address", "PostUp =\nAddress");
    assert_eq!(warnings(&hook), ["line 3: PostUp: is empty and does nothing; remove the line"]);
    assert!(good(&hook).config.interface.hooks.is_empty());
}

#[test]
fn names_that_cannot_be_used_earn_warnings() {
    let named = |names: &str| {
        let text = with_interface(&format!(
            "Address = 10.0.0.1\n[Peer]\n{names}\nPublicKey={BOB_PUBLIC}\nAllowedIPs=10.0.0.2"
        ));
        let parsed = good(&text);
        (parsed.config.peers[0].name.clone(), warnings(&text))
    };
    let (name, warned) = named("# Name = b\u{1b}ob");
    assert_eq!(name, None);
    assert_eq!(
        warned,
        ["line 5: Name: this peer name contains a character that cannot be shown, so it is \
             ignored; correct or remove it"]
    );
    let (name, warned) = named("# Name = a\n# Name = b");
    assert_eq!(name.as_deref(), Some("a"));
    assert!(warned[0].starts_with("line 6: Name: this peer name is the second one (the first"));

    let twins = with_interface(&format!(
        "Address = 10.0.0.1\n[Peer]\n# Name = bob\nPublicKey={BOB_PUBLIC}\nAllowedIPs=10.0.0.2\n\
         [Peer]\n# Name = bob\nPublicKey={CAROL_PUBLIC}\nAllowedIPs=10.0.0.3"
    ));
    assert_eq!(
        warnings(&twins),
        ["line 9: Name: the peer at line 5 has the same name; rename one of the two"]
    );
}

#[test]
fn what_has_no_effect_yet_and_matters_refuses_the_start() {
    let lines = "Table = off\nFwMark = 1\nSaveConfig = true\nPreUp = a\nPostUp = b\nPostUp = c\n\
                 PreDown = d\nPostDown = e\nAddress = 10.0.0.1/0";
    let text = with_interface(&format!(
        "{lines}\n[Peer]\nPublicKey = {BOB_PUBLIC}\nAllowedIPs = 10.0.0.2\nAllowedIPs = ::/0"
    ));
    assert_eq!(
        refusals(&text),
        [
            "t.conf:3: Table: routes can only be put into the main table yet; \
             remove the line or write `Table = auto`"
                .to_owned(),
            "t.conf:4: FwMark: outgoing packets are not marked yet; \
             remove the line or write `FwMark = off`"
                .to_owned(),
            "t.conf:5: SaveConfig: the file is never written back; \
             remove the line or write `SaveConfig = false`"
                .to_owned(),
            "t.conf:11: Address: a prefix length of 0 would route everything into the tunnel; \
             write the length of the tunnel's network, such as 10.0.0.1/24"
                .to_owned(),
            "t.conf:15: AllowedIPs: a default route (0.0.0.0/0 or ::/0) through the tunnel cannot be set up yet; \
             name the networks behind the peer instead, such as 10.0.0.0/24"
                .to_owned(),
        ]
    );
    let hooks = good(&text).config.hooks_refused("not from here", "use a file");
    let hooks: Vec<String> = hooks.iter().map(|refusal| refusal.in_file("t.conf")).collect();
    assert_eq!(
        hooks,
        ["6: PreUp", "7: PostUp", "9: PreDown", "10: PostDown"]
            .map(|place| format!("t.conf:{place}: not from here; use a file"))
    );
    let harmless = "Table = AUTO\nFwMark = 0x0\nSaveConfig = false\nPostUp =";
    assert_eq!(refusals(&with_interface(harmless)), [""; 0]);
    assert!(refusals(&with_interface("Table = my-table"))[0].starts_with("t.conf:3: Table:"));
}

#[test]
fn check_shows_everything_but_secrets() {
    let name: TunnelName = "t".parse().unwrap();
    let text = with_interface(&format!(
        "Address = 10.0.0.1/24, fd00::1/64\nListenPort = 51820\nDNS = 10.0.0.53, lan\nTable = off\n\
         FwMark = 0xca6c\nSaveConfig = true\nPostUp = curl -u me:hunter2 x\nPostUp = b\n\
         PostDown = c\n[Peer]\n# Name = bob\nPublicKey = {BOB_PUBLIC}\n\
         PresharedKey = {CAROL_PUBLIC}\nAllowedIPs = 10.0.0.2/32, fd00::2/128\n\
         Endpoint = 192.0.2.1:51820\nPersistentKeepalive = 25"
    ));
    let shown = describe(&name, &good(&text));
    let (before_notes, notes) = shown.split_once("\nwarnings:\n").unwrap();
    assert_eq!(
        before_notes,
        format!(
            "interface: t\n  \
               public key: {ALICE_PUBLIC}\n  \
               private key: (hidden)\n  \
               addresses: 10.0.0.1/24, fd00::1/64\n  \
               mtu: 1400\n  \
               listening port: 51820\n  \
               dns servers: 10.0.0.53\n  \
               dns search: lan\n  \
               table: off\n  \
               fwmark: 0xca6c\n  \
               save config: true\n  \
               post up: 2 commands\n  \
               post down: 1 command\n\
             \n\
             peer: bob\n  \
               public key: {BOB_PUBLIC}\n  \
               preshared key: (hidden)\n  \
               allowed ips: 10.0.0.2/32, fd00::2/128\n  \
               endpoint: 192.0.2.1:51820 (not used)\n  \
               persistent keepalive: every 25 seconds (not used)\n"
        )
    );
    assert!(notes.starts_with("  line 5: DNS: has no effect yet"));
    assert!(notes.contains("\nnotices:\n") && !notes.contains("ListenPort"));
    assert!(notes.contains("\nthe tunnel does not start because of:\n  line 6: Table: routes"));
    let debugged = format!("{:?}", good(&text));
    for secret in [ALICE, CAROL_PUBLIC, "hunter2"] {
        assert!(!shown.contains(secret) && !debugged.contains(secret));
    }
    let least = describe(&name, &good(&with_peer("AllowedIPs =")));
    assert!(least.contains("  addresses: 10.0.0.1/32\n  mtu: 1400\n\npeer: 3p7bfXt9wb…\n"));
    assert!(least.contains("  allowed ips: (none)\n"));
}

/// The largest file with the most to say about: bounded notes, and no work that grows with the
/// square of its size.
#[test]
fn a_full_file_is_read_with_few_words() {
    let mut text = with_peer("");
    let addresses: Vec<String> = (2..=u8::MAX).map(|n| format!("10.0.0.{n}")).collect();
    text = text.replace("= 10.0.0.1", &format!("= 10.0.0.1,{}", addresses.join(",")));
    for n in 0..50_000_u16 {
        let [high, low] = n.to_be_bytes();
        text.push_str(&format!("AllowedIPs=9.{high}.{low}.1/24\n"));
        if text.len() > 1_040_000 {
            break;
        }
    }
    let parsed = good(&text);
    assert!(parsed.config.peers[0].allowed_ips.len() > 40_000);
    assert_eq!(parsed.warnings.len(), 65);
}
