//! What a configuration asks for and would not get.

use std::fmt;

use ipnet::IpNet;

use super::keys::Key;
use super::{Config, Interface, Table};

/// Something that a configuration asks for and that has no effect yet, so that a tunnel must not
/// start as if it had.
///
/// Displays as `line LINE: KEY: why; what to do`; see [`Refusal::in_file`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The line, counted from 1.
    pub line: usize,
    /// The key.
    pub key: &'static str,
    /// Why the tunnel does not start.
    pub why: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Refusal {
    /// `FILE:LINE: KEY: why; what to do`, as errors are shown.
    pub fn in_file(&self, file: &str) -> String {
        format!("{file}:{}: {}: {}; {}", self.line, self.key, self.why, self.advice)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}; {}", self.line, self.key, self.why, self.advice)
    }
}

/// All refusals, in the order of the lines.
pub(super) fn refusals(config: &Config) -> Vec<Refusal> {
    let mut refusals = of_settings(&config.interface);
    refusals.extend(config.peers.iter().filter(|peer| has_default_route(&peer.allowed_ips)).map(
        |peer| Refusal {
            line: peer.default_route_line,
            key: Key::AllowedIps.name(),
            why: "a default route (0.0.0.0/0 or ::/0) through the tunnel cannot be set up yet",
            advice: "name the networks behind the peer instead, such as 10.0.0.0/24",
        },
    ));
    refusals.sort_by_key(|refusal| refusal.line);
    refusals
}

fn has_default_route(nets: &[IpNet]) -> bool {
    nets.iter().any(|net| net.prefix_len() == 0)
}

fn of_settings(interface: &Interface) -> Vec<Refusal> {
    let lines = &interface.lines;
    let settings = [
        (
            interface.table != Table::Auto,
            lines.table,
            Key::Table,
            "routes can only be put into the main table yet",
            "remove the line or write `Table = auto`",
        ),
        (
            interface.fw_mark.is_some(),
            lines.fw_mark,
            Key::FwMark,
            "outgoing packets are not marked yet",
            "remove the line or write `FwMark = off`",
        ),
        (
            interface.save_config,
            lines.save_config,
            Key::SaveConfig,
            "the file is never written back",
            "remove the line or write `SaveConfig = false`",
        ),
        (
            has_default_route(&interface.addresses),
            lines.default_route,
            Key::Address,
            "a prefix length of 0 would route everything into the tunnel",
            "write the length of the tunnel's network, such as 10.0.0.1/24",
        ),
    ];
    let asked = settings.into_iter().filter(|(asked, ..)| *asked);
    asked
        .map(|(_, line, key, why, advice)| Refusal { line, key: key.name(), why, advice })
        .collect()
}

/// One refusal for each kind of hook that there is, for the reason that is given.
pub(super) fn of_hooks(
    interface: &Interface,
    why: &'static str,
    advice: &'static str,
) -> Vec<Refusal> {
    let (lines, hooks) = (&interface.lines, &interface.hooks);
    let kinds = [
        (&hooks.pre_up, lines.pre_up, Key::PreUp),
        (&hooks.post_up, lines.post_up, Key::PostUp),
        (&hooks.pre_down, lines.pre_down, Key::PreDown),
        (&hooks.post_down, lines.post_down, Key::PostDown),
    ];
    let asked = kinds.into_iter().filter(|(commands, ..)| !commands.is_empty());
    let mut refusals: Vec<Refusal> =
        asked.map(|(_, line, key)| Refusal { line, key: key.name(), why, advice }).collect();
    refusals.sort_by_key(|refusal| refusal.line);
    refusals
}
