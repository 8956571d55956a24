//! `qanahctl status [NAME]`: the state of tunnels and their peers.
//!
//! Exit codes: 0 all peers are connected, 3 up but not all of them, 4 no daemon, no tunnel or no such
//! tunnel, 5 denied. Peers that are disabled on purpose, or idle (--lazy), do not count.
//!
//! # `--json`
//!
//! One object. Within `"schema": 1` no key is removed, renamed or changed in meaning or type; keys
//! and values of the enumerations may be added. Every key is always there; what is not known or does
//! not apply is `null`. Times are whole seconds before or after the moment of the answer.
//!
//! ```text
//! schema                      1
//! tunnels[]
//!   name                      string, also that of the interface
//!   socket                    string, path of the control socket of its daemon
//!   version                   string, version of its daemon
//!   public_key                string, base64
//!   addresses[]               string, address/length
//!   mtu                       number, bytes
//!   uptime_seconds            number
//!   signaling.brokers[]       empty: no broker is used
//!     url                     string, without user and password
//!     connected               bool
//!     error                   string or null
//!     since_seconds           number, since `connected` changed
//!   servers[]                 STUN and TURN, in the order of the options
//!     url                     string, without any secret
//!     kind                    "stun", "turn" or "unknown"
//!     state                   "works", "trouble" or "unknown" (not asked yet)
//!     error                   string or null
//!     since_seconds           number, since `state` or `error` changed
//!   nat                       "unknown", "no_udp", "none", "endpoint_independent", "address_dependent" or "some_kind":
//!                             what stands between this machine and the Internet, as far as servers tell
//!   listen_port               object or null: `ListenPort` of the configuration
//!     port                    number
//!     error                   string or null: where connections could not have it, why, and what helps
//!   peers[]                   in the order of the configuration
//!     name                    string or null
//!     public_key              string, base64
//!     allowed_ips[]           string, prefix
//!     state                   "disabled", "idle", "waiting_for_signaling", "connecting",
//!                             "connected", "recovering" or "unknown"
//!     reason                  string or null, for people
//!     next_try_seconds        number or null
//!     path                    object or null
//!       kind                  "direct", "relay" or "unknown"
//!       via                   string or null, the relaying peer
//!       local, remote         object or null, the ends of the ICE pair
//!         kind                "host", "server_reflexive", "peer_reflexive", "relayed" or "unknown"
//!         address             string, address:port
//!       packet_size           number or null: the largest SCTP packet that is sent, in bytes, which
//!                             follows what the path takes (path MTU)
//!     rtt_micros              number or null
//!     last_handshake_seconds  number or null
//!     received, sent          object: packets, bytes (numbers; inner packets)
//!     drops                   object: cause -> number
//!   drops                     object: cause -> number, before a packet belonged to a peer
//!   relaying                  object or null: what is carried between two other peers; null: --no-relay
//!     limit_per_pair          number, bytes that may wait for one peer from one other
//!     limit_in_all            number, bytes that may wait for one peer from all others
//!     pairs[]                 from, to (names or short keys), frames, bytes, dropped
//! errors[]                    what went wrong; also on standard error
//!   exit                      number, the exit code that belongs to it
//!   message                   string
//! ```

use qanah_proto::exit::Exit;
use qanah_proto::v1::{PeerState, Tunnel};

use crate::client::{Sockets, Trouble};
use crate::cmds::status_json;
use crate::find::gather;
use crate::output::{Outcome, Style};
use crate::table;
use crate::text::escape_json;

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this tunnel
    name: Option<String>,

    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

/// Asks the daemons and says what they answered.
pub(crate) async fn run(args: &Args, sockets: &Sockets, style: Style) -> Outcome {
    let (found, mut troubles) = match sockets.find() {
        Ok(paths) => gather(&paths, args.name.as_deref()).await,
        Err(trouble) => (Vec::new(), vec![trouble]),
    };
    if found.is_empty() && troubles.is_empty() {
        troubles.push(Trouble::new(Exit::Down, "no tunnel is up"));
    }
    let exit = found.iter().map(|found| exit_of(&found.tunnel)).fold(Exit::Well, Exit::worst);
    let text = if args.json {
        escape_json(&status_json::render(&found, &troubles))
    } else {
        let blocks: Vec<_> = found.iter().map(|f| table::tunnel(&f.tunnel, style)).collect();
        blocks.join("\n")
    };
    Outcome { text, troubles, exit, ..Outcome::default() }
}

/// The exit code that a tunnel calls for.
pub(crate) fn exit_of(tunnel: &Tunnel) -> Exit {
    let well =
        |state| matches!(state, PeerState::Connected | PeerState::Disabled | PeerState::Idle);
    if tunnel.peers.iter().all(|peer| well(peer.state())) {
        Exit::Well
    } else {
        Exit::NotAllConnected
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
