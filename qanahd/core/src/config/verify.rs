//! Checks that look at more than one line.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ipnet::IpNet;

use super::error::{ConfigError, ErrorKind, Level, Warnings};
use super::keys::Key;
use super::parse::{InterfaceDraft, PeerDraft};
use super::{DEFAULT_MTU, Dns, MIN_MTU_IPV6};
use crate::key::SecretKey;

/// Checks the sections against each other, removes prefixes that a peer has twice, and collects
/// what the author should know.
pub(super) fn check(
    interface: &InterfaceDraft,
    peers: &mut [PeerDraft],
    warnings: &mut Warnings,
) -> Result<(), ConfigError> {
    check_keys(interface, peers)?;
    check_prefixes(peers)?;
    check_mtu(interface, peers)?;
    note_unused(interface, peers, warnings);
    note_oddities(interface, peers, warnings);
    Ok(())
}

fn check_keys(interface: &InterfaceDraft, peers: &[PeerDraft]) -> Result<(), ConfigError> {
    let secret = interface.private_key.as_ref();
    let own = secret.map(SecretKey::public_key);
    let mut owners = HashMap::new();
    for peer in peers {
        let Some(key) = peer.public_key else { continue };
        let line = peer.seen.line_of(Key::PublicKey).unwrap_or(peer.line);
        let fail = |kind| Err(ConfigError::at(line, Some(Key::PublicKey), kind));
        // Public keys are shown and sent around: a private one must not get there.
        if secret.is_some_and(|secret| secret.expose() == key.as_bytes()) {
            return fail(ErrorKind::PrivateAsPublic);
        }
        if own == Some(key) {
            return fail(ErrorKind::OwnKey);
        }
        if let Some(first) = owners.insert(key, peer.line) {
            return fail(ErrorKind::PeerTwice { first });
        }
    }
    Ok(())
}

fn check_prefixes(peers: &mut [PeerDraft]) -> Result<(), ConfigError> {
    let mut owners: HashMap<IpNet, usize> = HashMap::new();
    for peer in peers {
        let mut kept = Vec::with_capacity(peer.allowed_ips.len());
        for (net, line) in std::mem::take(&mut peer.allowed_ips) {
            match owners.entry(net) {
                Entry::Vacant(free) => {
                    free.insert(peer.line);
                    kept.push((net, line));
                }
                // The same peer twice does no harm.
                Entry::Occupied(owner) if *owner.get() == peer.line => {}
                Entry::Occupied(owner) => {
                    let kind = ErrorKind::PrefixTwice { net, first: *owner.get() };
                    return Err(ConfigError::at(line, Some(Key::AllowedIps), kind));
                }
            }
        }
        peer.allowed_ips = kept;
    }
    Ok(())
}

/// Linux has no IPv6 at all on an interface with a smaller MTU: neither address nor route.
fn check_mtu(interface: &InterfaceDraft, peers: &[PeerDraft]) -> Result<(), ConfigError> {
    let mtu = interface.mtu.unwrap_or(DEFAULT_MTU);
    let mut prefixes =
        interface.addresses.iter().chain(peers.iter().flat_map(|peer| &peer.allowed_ips));
    let ipv6 = prefixes.find(|(net, _)| matches!(net, IpNet::V6(_)));
    match ipv6 {
        Some(&(_, first)) if mtu < MIN_MTU_IPV6 => Err(ConfigError::at(
            interface.lines.mtu,
            Some(Key::Mtu),
            ErrorKind::MtuForIpv6 { mtu, first },
        )),
        _ => Ok(()),
    }
}

/// Keys that are read but do nothing: nobody shall rely on them. A value that means the same as
/// no key at all (`off`, 0, nothing) promises nothing and is passed over.
fn note_unused(interface: &InterfaceDraft, peers: &[PeerDraft], warnings: &mut Warnings) {
    let mut note = |key: Key, level, line: Option<usize>, text: String| {
        if let Some(line) = line {
            warnings.add(level, line, key.name(), text);
        }
    };
    if interface.dns != Dns::default() {
        let text = "has no effect yet: no name server is set; set it by hand or remove the line";
        note(Key::Dns, Level::Warning, interface.seen.line_of(Key::Dns), text.to_owned());
    }
    let (line, more) = first_and_more(peers, Key::Endpoint, |peer| peer.endpoint.is_some());
    let text = "is not used: peers find each other by signaling, not at a fixed address";
    note(Key::Endpoint, Level::Warning, line, format!("{text}{more}"));
    let set = |peer: &PeerDraft| peer.persistent_keepalive.is_some();
    let (line, more) = first_and_more(peers, Key::PersistentKeepalive, set);
    let text = "has no effect: WebRTC keeps its paths open by itself";
    note(Key::PersistentKeepalive, Level::Notice, line, format!("{text}{more}"));
}

/// The first line of a key, and words for how many peers more have it: four thousand peers shall
/// not earn four thousand warnings.
fn first_and_more(
    peers: &[PeerDraft],
    key: Key,
    set: impl Fn(&PeerDraft) -> bool,
) -> (Option<usize>, String) {
    let mut lines = peers.iter().filter(|peer| set(peer)).filter_map(|peer| peer.seen.line_of(key));
    let first = lines.next();
    let more = match lines.count() {
        0 => String::new(),
        1 => " (the same for 1 more peer)".to_owned(),
        more => format!(" (the same for {more} more peers)"),
    };
    (first, more)
}

fn note_oddities(interface: &InterfaceDraft, peers: &[PeerDraft], warnings: &mut Warnings) {
    let header = interface.lines.header;
    if interface.addresses.is_empty() {
        let text = "no address is given, so this machine has none in the tunnel; add one such as \
                    `Address = 10.0.0.1/24`";
        warnings.add(Level::Warning, header, Key::Address.name(), text.to_owned());
    }
    if peers.is_empty() {
        let text = "no [Peer] section, so there is nobody to talk to; add one";
        warnings.add(Level::Warning, header, "[Interface]", text.to_owned());
    }
    let mut names = HashMap::new();
    for peer in peers {
        if peer.allowed_ips.is_empty() {
            let text = "no prefix is given, so no packet goes to or comes from this peer; \
                        add its tunnel address";
            warnings.add(Level::Warning, peer.line, Key::AllowedIps.name(), text.to_owned());
        }
        for (net, line) in &peer.allowed_ips {
            let host = net.prefix_len() == net.max_prefix_len();
            if host && interface.addresses.iter().any(|(own, _)| own.addr() == net.addr()) {
                let text = format!("{net} is this machine's own address; put in the peer's");
                warnings.add(Level::Warning, *line, Key::AllowedIps.name(), text);
            }
        }
        let Some((name, line)) = &peer.name else {
            continue;
        };
        if let Some(first) = names.insert(name, line) {
            let text = format!("the peer at line {first} has the same name; rename one of the two");
            warnings.add(Level::Warning, *line, "Name", text);
        }
    }
}
