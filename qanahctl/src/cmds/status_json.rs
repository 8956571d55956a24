//! The JSON form of `status`; its schema is described in [`super::status`].

use std::collections::BTreeMap;

use qanah_proto::v1::{
    Broker, Candidate, CandidateKind, Carried, ListenPort, Nat, Path, PathKind, Peer, PeerState,
    Relaying, Server, ServerKind, ServerState, Traffic, Tunnel,
};
use serde_json::{Map, Value, json};

use crate::client::Trouble;
use crate::find::Found;

/// The number of the schema.
const SCHEMA: u32 = 1;

/// The whole object, indented, with a line end.
pub(crate) fn render(found: &[Found], troubles: &[Trouble]) -> String {
    format!("{:#}\n", whole(found, troubles))
}

/// The whole object in one line, with a line end.
pub(crate) fn render_line(found: &[Found], troubles: &[Trouble]) -> String {
    format!("{}\n", whole(found, troubles))
}

fn whole(found: &[Found], troubles: &[Trouble]) -> Value {
    let errors = troubles.iter().map(|t| json!({ "exit": t.exit.code(), "message": t.message }));
    json!({
        "schema": SCHEMA,
        "tunnels": found.iter().map(tunnel).collect::<Vec<_>>(),
        "errors": errors.collect::<Vec<_>>(),
    })
}

fn tunnel(found: &Found) -> Value {
    let Tunnel { name, public_key, addresses, mtu, uptime_seconds, .. } = &found.tunnel;
    let Tunnel { signaling, servers, peers, drops, relaying, .. } = &found.tunnel;
    let brokers = signaling.as_ref().map(|s| s.brokers.as_slice()).unwrap_or_default();
    json!({
        "name": name,
        "socket": found.socket.display().to_string(),
        "version": found.version,
        "public_key": public_key,
        "addresses": addresses,
        "mtu": mtu,
        "uptime_seconds": uptime_seconds,
        "signaling": { "brokers": brokers.iter().map(broker).collect::<Vec<_>>() },
        "nat": nat(found.tunnel.nat()),
        "listen_port": found.tunnel.listen_port.as_ref().map(listen_port),
        "servers": servers.iter().map(server).collect::<Vec<_>>(),
        "peers": peers.iter().map(peer).collect::<Vec<_>>(),
        "drops": counts(drops),
        "relaying": relaying.as_ref().map(relaying_value),
    })
}

fn listen_port(port: &ListenPort) -> Value {
    json!({ "port": port.port, "error": text(&port.error) })
}

const fn nat(nat: Nat) -> &'static str {
    match nat {
        Nat::Unspecified => "unknown",
        Nat::NoUdp => "no_udp",
        Nat::None => "none",
        Nat::EndpointIndependent => "endpoint_independent",
        Nat::AddressDependent => "address_dependent",
        Nat::SomeKind => "some_kind",
    }
}

fn relaying_value(relaying: &Relaying) -> Value {
    let pair = |pair: &Carried| {
        json!({
            "from": pair.from,
            "to": pair.to,
            "frames": pair.frames,
            "bytes": pair.bytes,
            "dropped": pair.dropped,
        })
    };
    json!({
        "limit_per_pair": relaying.limit_per_pair,
        "limit_in_all": relaying.limit_in_all,
        "pairs": relaying.pairs.iter().map(pair).collect::<Vec<_>>(),
    })
}

fn broker(broker: &Broker) -> Value {
    json!({
        "url": broker.label,
        "connected": broker.connected,
        "error": text(&broker.error),
        "since_seconds": broker.since_seconds,
    })
}

fn server(server: &Server) -> Value {
    let kind = match server.kind() {
        ServerKind::Unspecified => "unknown",
        ServerKind::Stun => "stun",
        ServerKind::Turn => "turn",
    };
    let state = match server.state() {
        ServerState::Unspecified => "unknown",
        ServerState::Works => "works",
        ServerState::Trouble => "trouble",
    };
    json!({
        "url": server.url,
        "kind": kind,
        "state": state,
        "error": text(&server.error),
        "since_seconds": server.since_seconds,
    })
}

fn peer(peer: &Peer) -> Value {
    let state = match peer.state() {
        PeerState::Unspecified => "unknown",
        PeerState::Disabled => "disabled",
        PeerState::Idle => "idle",
        PeerState::WaitingForSignaling => "waiting_for_signaling",
        PeerState::Connecting => "connecting",
        PeerState::Connected => "connected",
        PeerState::Recovering => "recovering",
    };
    json!({
        "name": text(&peer.name),
        "public_key": peer.public_key,
        "allowed_ips": peer.allowed_ips,
        "state": state,
        "reason": text(&peer.reason),
        "next_try_seconds": peer.next_try_seconds,
        "path": peer.path.as_ref().map(path),
        "rtt_micros": peer.rtt_micros,
        "last_handshake_seconds": peer.last_handshake_seconds,
        "received": traffic(peer.received.unwrap_or_default()),
        "sent": traffic(peer.sent.unwrap_or_default()),
        "drops": counts(&peer.drops),
    })
}

fn path(path: &Path) -> Value {
    let kind = match path.kind() {
        PathKind::Unspecified => "unknown",
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
    };
    json!({
        "kind": kind,
        "via": text(&path.via),
        "local": path.local.as_ref().map(candidate),
        "remote": path.remote.as_ref().map(candidate),
        "packet_size": path.packet_size,
    })
}

fn candidate(candidate: &Candidate) -> Value {
    let kind = match candidate.kind() {
        CandidateKind::Unspecified => "unknown",
        CandidateKind::Host => "host",
        CandidateKind::ServerReflexive => "server_reflexive",
        CandidateKind::PeerReflexive => "peer_reflexive",
        CandidateKind::Relayed => "relayed",
    };
    json!({ "kind": kind, "address": candidate.address })
}

fn traffic(traffic: Traffic) -> Value {
    json!({ "packets": traffic.packets, "bytes": traffic.bytes })
}

fn counts(drops: &BTreeMap<String, u64>) -> Value {
    Value::Object(drops.iter().map(|(k, v)| (k.clone(), (*v).into())).collect::<Map<_, _>>())
}

/// An empty text of the API means that there is none.
fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
