//! What `qanahctl status --json` says.

use std::fmt;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::daemon::{qanahctl, socket};
use crate::ns::Place;

/// The state of one tunnel.
#[derive(Debug, Clone)]
pub struct Status {
    /// Exit code of `qanahctl`: 0 all connected, 3 not all.
    pub code: i32,
    tunnel: Value,
}

impl Status {
    /// Asks the daemon of that tunnel.
    ///
    /// # Errors
    /// When there is none, or it says something strange.
    pub fn of(place: Place, name: &str) -> Result<Self> {
        Self::at(place, name, name)
    }

    /// Asks the daemon behind a socket of that stem, which may serve other tunnels, too.
    ///
    /// # Errors
    /// When there is none, or it says something strange.
    pub fn at(place: Place, stem: &str, name: &str) -> Result<Self> {
        let path = format!("/run/qanah/{stem}.sock");
        ensure!(socket(place, stem).exists(), "there is no {path}");
        let said = qanahctl(place, &["--socket", &path, "status", name, "--json"])?;
        ensure!(matches!(said.code, 0 | 3), "exit code {}: {}{}", said.code, said.out, said.err);
        let all: Value =
            serde_json::from_str(&said.out).with_context(|| format!("no JSON: {}", said.out))?;
        let tunnel = find(&all, "tunnels", name)?.clone();
        Ok(Self { code: said.code, tunnel })
    }

    /// A field of the tunnel.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn field(&self, name: &str) -> Result<&Value> {
        self.tunnel.get(name).ok_or_else(|| anyhow!("no {name} in {self}"))
    }

    /// One peer.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn peer<'a>(&'a self, name: &str) -> Result<Peer<'a>> {
        find(&self.tunnel, "peers", name).map(Peer)
    }

    /// Packets and frames that were dropped before they belonged to a peer, of all causes.
    pub fn drops(&self) -> u64 {
        sum(self.tunnel.get("drops"))
    }

    /// What it carried from one peer to another; nothing where it carried nothing.
    ///
    /// # Errors
    /// When relaying is off.
    pub fn carried(&self, from: &str, to: &str) -> Result<Carried> {
        let pairs = self.field("relaying")?.get("pairs").and_then(Value::as_array);
        let is = |pair: &&Value, end: &str, wanted: &str| {
            pair.get(end).and_then(Value::as_str) == Some(wanted)
        };
        let found = pairs.and_then(|pairs| {
            pairs.iter().find(|pair| is(pair, "from", from) && is(pair, "to", to))
        });
        Ok(found.map_or(Carried::default(), |pair| Carried {
            bytes: number(pair, "bytes"),
            dropped: number(pair, "dropped"),
        }))
    }

    /// How many brokers are connected.
    ///
    /// # Errors
    /// When nothing is said of brokers.
    pub fn brokers_connected(&self) -> Result<usize> {
        let brokers = self.field("signaling")?.get("brokers").and_then(Value::as_array);
        let brokers = brokers.ok_or_else(|| anyhow!("no brokers in {self}"))?;
        Ok(brokers.iter().filter(|b| b.get("connected") == Some(&Value::Bool(true))).count())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tunnel.fmt(f)
    }
}

/// What a relay did for a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes that were passed on.
    pub bytes: u64,
    /// Frames or packets that were not.
    pub dropped: u64,
}

/// The state of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a>(&'a Value);

impl Peer<'_> {
    /// Its state in words, such as `connected`.
    ///
    /// # Errors
    /// When there is none.
    pub fn state(self) -> Result<String> {
        let state = self.0.get("state").and_then(Value::as_str);
        state.map(str::to_lowercase).ok_or_else(|| anyhow!("no state in {}", self.0))
    }

    /// Whether it is connected.
    ///
    /// # Errors
    /// When it has no state.
    pub fn connected(self) -> Result<bool> {
        Ok(self.state()? == "connected")
    }

    /// Why it is in that state; may be empty.
    pub fn reason(self) -> String {
        self.0.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Packets and frames dropped, of all causes.
    pub fn drops(self) -> u64 {
        sum(self.0.get("drops"))
    }

    /// Those dropped of one cause.
    pub fn dropped(self, cause: &str) -> u64 {
        self.0.get("drops").and_then(|d| d.get(cause)).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Bytes of packets that were received from it and sent to it.
    pub fn bytes(self) -> (u64, u64) {
        let of = |way: &str| self.0.get(way).map_or(0, |traffic| number(traffic, "bytes"));
        (of("received"), of("sent"))
    }

    /// Seconds since the last completed handshake.
    pub fn last_handshake(self) -> Option<u64> {
        self.0.get("last_handshake_seconds").and_then(Value::as_u64)
    }

    /// The peer by which it is reached, if a relay is used.
    pub fn via(self) -> Option<String> {
        let path =
            self.0.get("path").filter(|path| path.get("kind").is_some_and(|k| k == "relay"))?;
        path.get("via").and_then(Value::as_str).map(str::to_owned)
    }

    /// Whether packets go straight to it.
    pub fn is_direct(self) -> bool {
        self.0.get("path").and_then(|path| path.get("kind")).is_some_and(|kind| kind == "direct")
    }

    /// Whether packets go through a TURN server, at either end.
    pub fn is_by_turn(self) -> bool {
        self.is_direct() && [self.local_kind(), self.remote_kind()].contains(&Some("relayed"))
    }

    /// The kind of our end of the path.
    pub fn local_kind(&self) -> Option<&str> {
        self.0.get("path")?.get("local")?.get("kind")?.as_str()
    }

    /// The kind of the other end of the path.
    pub fn remote_kind(&self) -> Option<&str> {
        self.0.get("path")?.get("remote")?.get("kind")?.as_str()
    }

    /// Largest SCTP packet that goes to it, in bytes.
    pub fn packet_size(self) -> Option<u64> {
        self.0.get("path").and_then(|path| path.get("packet_size")).and_then(Value::as_u64)
    }

    /// Round-trip time of the whole way, in microseconds.
    pub fn rtt_micros(self) -> Option<u64> {
        self.0.get("rtt_micros").and_then(Value::as_u64)
    }

    /// The path in use, as text; empty without one.
    pub fn path(self) -> String {
        self.0.get("path").filter(|p| !p.is_null()).map(Value::to_string).unwrap_or_default()
    }
}

fn find<'a>(value: &'a Value, list: &str, name: &str) -> Result<&'a Value> {
    let items = value.get(list).and_then(Value::as_array);
    items
        .and_then(|items| {
            items.iter().find(|i| i.get("name").and_then(Value::as_str) == Some(name))
        })
        .ok_or_else(|| anyhow!("no {name} in the {list} of {value}"))
}

/// A number of that name, 0 without one.
fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn sum(drops: Option<&Value>) -> u64 {
    let counts = drops.and_then(Value::as_object).map(|map| map.values());
    counts.map_or(0, |counts| counts.filter_map(Value::as_u64).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let all: Value = serde_json::from_str(
            r#"{"tunnels":[{"name":"peer1","drops":{"a":2,"b":3},
                "relaying":{"pairs":[{"from":"x","to":"y","bytes":7,"dropped":1}]},
                "signaling":{"brokers":[{"connected":true},{"connected":false}]},
                "peers":[{"name":"peer2","state":"CONNECTED","drops":{"source":4},"path":null,
                          "sent":{"bytes":9}}]}]}"#,
        )
        .unwrap();
        let tunnel = find(&all, "tunnels", "peer1").unwrap().clone();
        let status = Status { code: 0, tunnel };
        assert_eq!(status.drops(), 5);
        assert_eq!(status.brokers_connected().unwrap(), 1);
        let peer = status.peer("peer2").unwrap();
        assert!(peer.connected().unwrap() && peer.path().is_empty());
        assert_eq!((peer.drops(), peer.dropped("source"), peer.dropped("x")), (4, 4, 0));
        assert_eq!(peer.bytes(), (0, 9));
        assert!(status.peer("peer3").is_err());
        assert_eq!(status.carried("x", "y").unwrap(), Carried { bytes: 7, dropped: 1 });
        assert_eq!(status.carried("y", "x").unwrap(), Carried::default());
    }
}
