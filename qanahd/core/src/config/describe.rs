//! A configuration in words, without its secrets.

use std::fmt::Write as _;

use super::{Dns, Level, Parsed, Peer, Table, TunnelName};

/// What `qanahd --check` prints: the configuration as it was understood, in the manner of
/// `wg show`, then warnings, notices and what keeps the tunnel from starting.
///
/// Keys other than public ones are not in it, nor are the commands of hooks, which may hold
/// passwords.
pub fn describe(name: &TunnelName, parsed: &Parsed) -> String {
    let mut out = format!("interface: {name}\n");
    interface(&mut out, parsed);
    for peer in &parsed.config.peers {
        out.push('\n');
        describe_peer(&mut out, peer);
    }
    for (level, title) in [(Level::Warning, "warnings"), (Level::Notice, "notices")] {
        let of_level = parsed.warnings.iter().filter(|warning| warning.level == level);
        list(&mut out, title, of_level.map(ToString::to_string));
    }
    let refusals = parsed.config.refusals();
    list(
        &mut out,
        "the tunnel does not start because of",
        refusals.iter().map(ToString::to_string),
    );
    out
}

fn interface(out: &mut String, parsed: &Parsed) {
    let interface = &parsed.config.interface;
    field(out, "public key", &interface.private_key.public_key().to_string());
    field(out, "private key", "(hidden)");
    field(out, "addresses", &joined(&interface.addresses));
    field(out, "mtu", &interface.mtu.to_string());
    if let Some(port) = interface.listen_port {
        field(out, "listening port", &port.to_string());
    }
    if interface.dns != Dns::default() {
        field(out, "dns servers", &joined(&interface.dns.servers));
        field(out, "dns search", &joined(&interface.dns.search));
    }
    match &interface.table {
        Table::Auto => {}
        Table::Off => field(out, "table", "off"),
        Table::Id(id) => field(out, "table", &id.to_string()),
        Table::Name(name) => field(out, "table", name),
    }
    if let Some(mark) = interface.fw_mark {
        field(out, "fwmark", &format!("0x{mark:x}"));
    }
    if interface.save_config {
        field(out, "save config", "true");
    }
    let hooks = &interface.hooks;
    for (title, commands) in [
        ("pre up", &hooks.pre_up),
        ("post up", &hooks.post_up),
        ("pre down", &hooks.pre_down),
        ("post down", &hooks.post_down),
    ] {
        match commands.len() {
            0 => {}
            1 => field(out, title, "1 command"),
            count => field(out, title, &format!("{count} commands")),
        }
    }
}

fn describe_peer(out: &mut String, peer: &Peer) {
    // String's `write!` cannot fail; so throughout this file.
    let _ = writeln!(out, "peer: {}", peer.display_name());
    field(out, "public key", &peer.public_key.to_string());
    if peer.preshared_key.is_some() {
        field(out, "preshared key", "(hidden)");
    }
    field(out, "allowed ips", &joined(&peer.allowed_ips));
    if let Some(endpoint) = &peer.endpoint {
        field(out, "endpoint", &format!("{endpoint} (not used)"));
    }
    if let Some(seconds) = peer.persistent_keepalive {
        field(out, "persistent keepalive", &format!("every {seconds} seconds (not used)"));
    }
}

fn field(out: &mut String, title: &str, value: &str) {
    let _ = writeln!(out, "  {title}: {value}");
}

fn list(out: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        let _ = writeln!(out, "\n{title}:");
    }
    for item in items {
        let _ = writeln!(out, "  {item}");
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    if values.is_empty() {
        return "(none)".to_owned();
    }
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
