//! wg-quick configuration files: text in, typed values out.
//!
//! The grammar is that of wg(8), "CONFIGURATION FILE FORMAT", with the keys that wg-quick(8)
//! adds. Where the two tools are silent about a likely mistake (a key given twice, a prefix that
//! two peers claim), this parser is not: the first error is reported with its line.
//!
//! Parsing has no effects: hooks stay text, names are not looked up, and no other file is read.

mod describe;
mod error;
mod keys;
mod lexer;
mod name;
mod parse;
mod refusal;
mod values;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::key::{PresharedKey, PublicKey, SecretKey};

pub use describe::describe;
pub use error::{ConfigError, ErrorKind, Level, Warning};
pub use name::{MAX_NAME_LEN, TunnelName, TunnelNameError};
pub use refusal::Refusal;
pub use values::Endpoint;

/// Largest configuration that is read, in bytes.
pub const MAX_FILE_LEN: usize = 1 << 20;
/// Most peers in one configuration.
pub const MAX_PEERS: usize = 4096;
/// Most addresses of one interface.
pub const MAX_ADDRESSES: usize = 256;
/// Longest name that a comment can give a peer, in characters.
pub const MAX_PEER_NAME_LEN: usize = 64;
/// MTU of a tunnel whose configuration names none, in bytes.
pub const DEFAULT_MTU: u32 = 1400;
/// Smallest MTU, in bytes: what every IPv4 host must be able to receive (RFC 791).
pub const MIN_MTU: u32 = 576;
/// Smallest MTU for IPv6, in bytes (RFC 8200, section 5).
pub const MIN_MTU_IPV6: u32 = 1280;
/// Largest MTU, in bytes: the largest IP packet.
pub const MAX_MTU: u32 = 65535;

/// A configuration file that holds together.
#[derive(Debug, Clone)]
pub struct Config {
    /// The `[Interface]` section.
    pub interface: Interface,
    /// The `[Peer]` sections, in the order of the file.
    pub peers: Vec<Peer>,
}

/// A configuration and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The configuration.
    pub config: Config,
    /// What is odd in it or has no effect, in the order of the lines.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads a configuration. `file_label` names the file in errors and is not opened.
    ///
    /// # Errors
    /// The first mistake in the text, with its line and key. Secrets are never quoted.
    pub fn parse(file_label: &str, text: &[u8]) -> Result<Parsed, ConfigError> {
        parse::parse(text).map_err(|e| ConfigError { file: file_label.to_owned(), ..e })
    }

    /// What the configuration asks for that has no effect yet. A tunnel does not start while
    /// there is any, because somebody may rely on it.
    pub fn refusals(&self) -> Vec<Refusal> {
        refusal::refusals(self)
    }

    /// The hooks as refusals, for a configuration whose origin does not allow any. They are refused
    /// and not left out, because somebody may rely on them (a firewall, for example).
    pub fn hooks_refused(&self, why: &'static str, advice: &'static str) -> Vec<Refusal> {
        refusal::of_hooks(&self.interface, why, advice)
    }
}

/// The `[Interface]` section: this machine's end of the tunnel.
#[derive(Debug, Clone)]
pub struct Interface {
    /// The identity of this machine.
    pub private_key: SecretKey,
    /// Addresses of the interface. Host bits are kept: `10.0.0.1/24` is also an on-link route.
    pub addresses: Vec<IpNet>,
    /// UDP port of WireGuard; has no effect here. None when 0 (any port).
    pub listen_port: Option<u16>,
    /// Largest packet in the tunnel, in bytes.
    pub mtu: u32,
    /// Name servers and search domains.
    pub dns: Dns,
    /// Where routes go.
    pub table: Table,
    /// Mark of outgoing packets. None when 0 or `off`.
    pub fw_mark: Option<u32>,
    /// Whether the file is to be written anew on shutdown.
    pub save_config: bool,
    /// Shell commands around the start and the end.
    pub hooks: Hooks,
    /// Where in the file things stand.
    pub lines: InterfaceLines,
}

/// The `DNS` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a leading `~` marks a routing-only domain, as in resolved.conf(5).
    pub search: Vec<String>,
}

/// The routing table that gets the routes of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Table {
    /// The main table, with special care for default routes.
    #[default]
    Auto,
    /// No routes at all.
    Off,
    /// A table by its number, never 0.
    Id(u32),
    /// A table by its name in rt_tables(5), other than the three that are always there.
    Name(String),
}

/// Shell commands, in order. `%i` in them stands for the interface name and is not expanded.
/// `Debug` does not show them: commands hold passwords at times.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the interface is set up.
    pub pre_up: Vec<String>,
    /// After it was set up.
    pub post_up: Vec<String>,
    /// Before it is taken down.
    pub pre_down: Vec<String>,
    /// After it was taken down.
    pub post_down: Vec<String>,
}

impl Hooks {
    /// Whether there is no command at all.
    pub fn is_empty(&self) -> bool {
        self.pre_up.is_empty()
            && self.post_up.is_empty()
            && self.pre_down.is_empty()
            && self.post_down.is_empty()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [&self.pre_up, &self.post_up, &self.pre_down, &self.post_down];
        write!(f, "Hooks({} commands)", lists.map(Vec::len).iter().sum::<usize>())
    }
}

/// Lines on which keys of the `[Interface]` section stand first; 0 for a key that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceLines {
    /// The `[Interface]` header.
    pub header: usize,
    /// `Address` with a prefix length of 0.
    pub default_route: usize,
    /// `MTU`.
    pub mtu: usize,
    /// `Table`.
    pub table: usize,
    /// `FwMark`.
    pub fw_mark: usize,
    /// `SaveConfig`.
    pub save_config: usize,
    /// `PreUp`.
    pub pre_up: usize,
    /// `PostUp`.
    pub post_up: usize,
    /// `PreDown`.
    pub pre_down: usize,
    /// `PostDown`.
    pub post_down: usize,
}

/// A `[Peer]` section.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The identity of the peer.
    pub public_key: PublicKey,
    /// The symmetric key shared with the peer. None also when it is all zeros.
    pub preshared_key: Option<PresharedKey>,
    /// The name from a `# Name = bob` comment under `[Peer]`: printable, on one line, at most
    /// [`MAX_PEER_NAME_LEN`] characters. Names need not be unique.
    pub name: Option<String>,
    /// Prefixes that belong to the peer, without host bits, in the order of the file, each once.
    pub allowed_ips: Vec<IpNet>,
    /// Address of the peer in plain WireGuard; has no effect here.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives of plain WireGuard; has no effect here. None when 0 or `off`.
    pub persistent_keepalive: Option<u16>,
    /// The line of the `[Peer]` header.
    pub line: usize,
    /// The line with a prefix length of 0 in `AllowedIPs`, 0 when there is none.
    pub default_route_line: usize,
}

impl Peer {
    /// What to call the peer in output: its name, else the start of its key.
    pub fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.public_key.short())
    }
}
