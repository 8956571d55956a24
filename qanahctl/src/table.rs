//! The status of a tunnel as a person reads it, in 80 columns.

use std::collections::BTreeMap;

use qanah_proto::v1::{
    Broker, Candidate, CandidateKind, Nat, Path, PathKind, Peer, PeerState, ServerState, Tunnel,
};

use crate::output::Style;
use crate::text::{WIDTH, age, bytes, cut, escape, keep, long_age, pad, round_trip, width, wrap};

const HEADERS: [&str; 7] = ["PEER", "STATE", "PATH", "RTT", "HANDSHAKE", "RECEIVED", "SENT"];

/// Columns that give way when a line would be too long, and how narrow they may get.
const SHRINKABLE: [usize; 2] = [0, 2];
const NARROWEST: usize = 8;

/// What stands where a value is not known.
const NONE: &str = "-";

type Row = [String; 7];

/// The whole block of one tunnel.
pub(crate) fn tunnel(tunnel: &Tunnel, style: Style) -> String {
    let mut facts = vec![keep(&format!("up {}", long_age(tunnel.uptime_seconds)))];
    facts.push(keep(&format!("MTU {}", tunnel.mtu)));
    facts.extend(tunnel.addresses.iter().map(|address| escape(address)));
    let title = format!("tunnel {}  ", escape(&tunnel.name));
    let mut out = paint_first_line(&wrap(&title, &facts.join(", ")), width(&title), style);
    out += &wrap("  public key  ", &escape(&tunnel.public_key));
    out += &signaling(tunnel);
    out += &servers(tunnel);
    if let Some(nat) = nat(tunnel.nat()) {
        out += &wrap("  NAT         ", nat);
    }
    if let Some(port) = tunnel.listen_port.as_ref().filter(|port| !port.error.is_empty()) {
        out += &wrap("  ListenPort  ", &format!("{} {}", port.port, escape(&port.error)));
    }
    if let Some(relaying) = relaying(tunnel) {
        out += &wrap("  relaying    ", &relaying);
    }
    if let Some(drops) = drops(&tunnel.drops) {
        out += &wrap("  dropped     ", &drops);
    }
    out.push('\n');
    out + &peers(&tunnel.peers, style)
}

fn signaling(tunnel: &Tunnel) -> String {
    let brokers = tunnel.signaling.as_ref().map(|s| s.brokers.as_slice()).unwrap_or_default();
    if brokers.is_empty() {
        return "  signaling   no broker\n".to_owned();
    }
    let mut first = "  signaling   ";
    let mut out = String::new();
    for broker in brokers {
        out += &wrap(first, &broker_line(broker));
        first = "              ";
    }
    out
}

/// The servers that are in trouble; of the others there is nothing to say.
fn servers(tunnel: &Tunnel) -> String {
    let mut first = "  servers     ";
    let mut out = String::new();
    for server in tunnel.servers.iter().filter(|s| s.state() == ServerState::Trouble) {
        let since = keep(&long_age(server.since_seconds));
        let line = format!("{} fails for {since}: {}", escape(&server.url), escape(&server.error));
        out += &wrap(first, &line);
        first = "              ";
    }
    out
}

/// What is between this machine and the Internet, where something is known.
const fn nat(nat: Nat) -> Option<&'static str> {
    match nat {
        Nat::Unspecified => None,
        Nat::NoUdp => Some("no UDP gets out: no STUN server answers"),
        Nat::None => Some("none"),
        Nat::EndpointIndependent => Some("endpoint-independent mapping: holes can be punched"),
        Nat::AddressDependent => Some("address-dependent mapping (symmetric)"),
        Nat::SomeKind => Some("of unknown kind: one STUN server answers, two would tell"),
    }
}

fn broker_line(broker: &Broker) -> String {
    let label = escape(&broker.label);
    let since = keep(&long_age(broker.since_seconds));
    match (broker.connected, broker.error.as_str()) {
        (true, _) => format!("{label} connected for {since}"),
        (false, "") => format!("{label} not connected yet, trying for {since}"),
        (false, error) => format!("{label} not connected for {since}: {}", escape(error)),
    }
}

/// What is carried for others, if anything ever was, and how much of it may wait.
fn relaying(tunnel: &Tunnel) -> Option<String> {
    let Some(relaying) = &tunnel.relaying else {
        return Some("off".to_owned());
    };
    let pairs = relaying.pairs.iter().map(|pair| {
        let (from, to) = (escape(&pair.from), escape(&pair.to));
        let dropped = match pair.dropped {
            0 => String::new(),
            dropped => format!(" ({})", keep(&format!("{dropped} dropped"))),
        };
        format!("{from} to {to} {}{dropped}", keep(&bytes(pair.bytes)))
    });
    let pairs: Vec<String> = pairs.collect();
    let [pair, all] = [relaying.limit_per_pair, relaying.limit_in_all].map(|it| keep(&bytes(it)));
    (!pairs.is_empty())
        .then(|| format!("{}; at most {pair} a pair and {all} in all wait", pairs.join(", ")))
}

fn peers(peers: &[Peer], style: Style) -> String {
    if peers.is_empty() {
        return "  no peers\n".to_owned();
    }
    let rows: Vec<Option<Row>> =
        peers.iter().map(|peer| has_row(peer).then(|| row(peer))).collect();
    let mut columns = HEADERS.map(width);
    for row in rows.iter().flatten() {
        for (column, cell) in columns.iter_mut().zip(row) {
            *column = width(cell).max(*column);
        }
    }
    // The names of peers without figures stand in the same column.
    let [first, ..] = &mut columns;
    *first = peers.iter().map(|peer| width(&name(peer))).fold(*first, usize::max);
    shrink(&mut columns);
    let [first, ..] = columns;
    let mut out = String::new();
    if rows.iter().any(Option::is_some) {
        out += &paint(&line(&HEADERS.map(str::to_owned), &columns), "1", style);
        out.push('\n');
    }
    for (peer, row) in peers.iter().zip(&rows) {
        match row {
            Some(row) => {
                let painted = paint_state(&line(row, &columns), peer, first, style);
                out += &format!("{painted}\n");
            }
            None => {
                let start = format!("  {}  ", pad(&cut(&name(peer), first), first));
                out += &paint_state(&wrap(&start, &state_text(peer)), peer, first, style);
            }
        }
        out += &details(peer, row.is_some(), first);
    }
    out
}

/// Whether the peer has figures to show: a session, or one that is being replaced.
fn has_row(peer: &Peer) -> bool {
    matches!(peer.state(), PeerState::Connected | PeerState::Recovering)
}

fn row(peer: &Peer) -> Row {
    let traffic =
        |traffic: Option<qanah_proto::v1::Traffic>| bytes(traffic.unwrap_or_default().bytes);
    [
        name(peer),
        state_name(peer.state()).to_owned(),
        peer.path.as_ref().map_or(NONE.to_owned(), path),
        peer.rtt_micros.map_or(NONE.to_owned(), round_trip),
        peer.last_handshake_seconds.map_or(NONE.to_owned(), |s| format!("{} ago", age(s))),
        traffic(peer.received),
        traffic(peer.sent),
    ]
}

/// Makes the columns fit, the widest one that may give way first.
fn shrink(columns: &mut [usize; 7]) {
    while columns.iter().map(|column| column + 2).sum::<usize>() > WIDTH {
        let widest = SHRINKABLE.iter().filter_map(|i| columns.get(*i).map(|c| (*c, *i))).max();
        match widest.and_then(|(_, i)| columns.get_mut(i)).filter(|column| **column > NARROWEST) {
            Some(column) => *column -= 1,
            None => return,
        }
    }
}

fn line(cells: &Row, columns: &[usize; 7]) -> String {
    let cells = cells.iter().zip(columns).map(|(cell, column)| pad(&cut(cell, *column), *column));
    format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
}

/// The lines below a peer.
fn details(peer: &Peer, has_row: bool, indent: usize) -> String {
    let start = " ".repeat(indent.min(16) + 4);
    let mut out = String::new();
    let mut say = |text: &str| out += &wrap(&start, text);
    if width(&name(peer)) > indent {
        say(&name(peer));
    }
    let allowed: Vec<_> = peer.allowed_ips.iter().map(|prefix| escape(prefix)).collect();
    let allowed = if allowed.is_empty() { "no addresses".to_owned() } else { allowed.join(", ") };
    if peer.name.is_empty() {
        say(&allowed);
    } else {
        say(&format!("{} {allowed}", short_key(&peer.public_key)));
    }
    if let Some(ends) = peer.path.as_ref().and_then(ends) {
        say(&ends);
    }
    if has_row {
        let reason = reason_text(peer);
        if !reason.is_empty() {
            say(&reason);
        }
    } else if let Some(handshake) = peer.last_handshake_seconds {
        let [.., received, sent] = row(peer).map(|cell| keep(&cell));
        let handshake = keep(&age(handshake));
        say(&format!("last handshake {handshake} ago, received {received}, sent {sent}"));
    }
    if let Some(drops) = drops(&peer.drops) {
        say(&format!("dropped {drops}"));
    }
    out
}

pub(crate) fn name(peer: &Peer) -> String {
    if peer.name.is_empty() { short_key(&peer.public_key) } else { escape(&peer.name) }
}

fn short_key(key: &str) -> String {
    cut(&escape(key), 11)
}

pub(crate) fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Unspecified => "unknown",
        PeerState::Disabled => "disabled",
        PeerState::Idle => "idle",
        PeerState::WaitingForSignaling => "waiting for signaling",
        PeerState::Connecting => "connecting",
        PeerState::Connected => "connected",
        PeerState::Recovering => "recovering",
    }
}

/// "connecting: no answer yet, next try in 3 s".
fn state_text(peer: &Peer) -> String {
    let state = state_name(peer.state());
    let reason = reason_text(peer);
    if reason.is_empty() { state.to_owned() } else { format!("{state}: {reason}") }
}

/// "peer3 is connecting: no answer yet, next try in 3 s".
pub(crate) fn peer_line(peer: &Peer) -> String {
    format!("{} is {}", name(peer), state_text(peer)).replace('\u{a0}', " ")
}

fn reason_text(peer: &Peer) -> String {
    let mut parts = Vec::new();
    if !peer.reason.is_empty() {
        parts.push(escape(&peer.reason));
    }
    if let Some(seconds) = peer.next_try_seconds {
        parts.push(format!("next try in {}", keep(&age(seconds))));
    }
    parts.join(", ")
}

fn path(path: &Path) -> String {
    let relayed = |end: &Option<Candidate>| {
        end.as_ref().is_some_and(|end| end.kind() == CandidateKind::Relayed)
    };
    match path.kind() {
        PathKind::Unspecified => "unknown".to_owned(),
        PathKind::Relay => format!("via {}", escape(&path.via)),
        PathKind::Direct if relayed(&path.local) || relayed(&path.remote) => "by TURN".to_owned(),
        PathKind::Direct => "direct".to_owned(),
    }
}

/// Both ends of a direct path, ours first.
fn ends(path: &Path) -> Option<String> {
    let end = |candidate: &Candidate| {
        let kind = match candidate.kind() {
            CandidateKind::Unspecified => "unknown",
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => "reflexive",
            CandidateKind::Relayed => "relayed",
        };
        format!("{kind} {}", escape(&candidate.address))
    };
    match (&path.local, &path.remote) {
        (Some(local), Some(remote)) => Some(format!("{} to {}", end(local), end(remote))),
        (Some(local), None) => Some(format!("from {}", end(local))),
        (None, Some(remote)) => Some(format!("to {}", end(remote))),
        (None, None) => None,
    }
}

/// "7 no session, 1 spoofed source".
fn drops(drops: &BTreeMap<String, u64>) -> Option<String> {
    let counts = drops.iter().filter(|(_, count)| **count > 0);
    let texts: Vec<_> = counts
        .map(|(cause, count)| format!("{count} {}", escape(cause).replace('_', " ")))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn paint(text: &str, code: &str, style: Style) -> String {
    match style {
        Style::Plain => text.to_owned(),
        Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
    }
}

/// Bold for the first `columns` of a text.
fn paint_first_line(text: &str, columns: usize, style: Style) -> String {
    // The title is never wrapped, so its width in columns is found again at the front.
    let mut seen = 0;
    let end = text.char_indices().find(|(_, c)| {
        let here = seen;
        seen += width(c.encode_utf8(&mut [0; 4]));
        here >= columns
    });
    let (title, rest) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    format!("{}{rest}", paint(title, "1", style))
}

/// Colours the state where it first stands after the name.
fn paint_state(text: &str, peer: &Peer, first: usize, style: Style) -> String {
    let state = state_name(peer.state());
    let code = match peer.state() {
        PeerState::Connected => "32",
        PeerState::Disabled | PeerState::Idle | PeerState::Unspecified => "2",
        _ => "33",
    };
    let name = pad(&cut(&name(peer), first), first);
    let Some(rest) = text.strip_prefix("  ").and_then(|text| text.strip_prefix(name.as_str()))
    else {
        return text.to_owned();
    };
    format!("  {name}{}", rest.replacen(state, &paint(state, code, style), 1))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
