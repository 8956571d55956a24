//! The options of a tunnel, as `qanahd` has them, and the environment that stands in for them.

use clap::ArgMatches;
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use qanah_proto::v1::TunnelOptions;

/// The options of a tunnel. The daemon checks the values.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Options of the tunnel (for root; the daemon has its own)")]
pub(crate) struct OptionArgs {
    /// A STUN server, such as stun:stun.example.com:3478 (repeatable)
    #[arg(long, value_name = "URL", env = "QANAH_STUN", hide_env_values = true)]
    stun: Vec<String>,

    /// A TURN server: turn:HOST:PORT over UDP, turn:HOST:PORT?transport=tcp over TCP or
    /// turns:HOST:PORT over TLS (repeatable)
    #[arg(long, value_name = "URL", env = "QANAH_TURN_URL", hide_env_values = true)]
    turn_url: Vec<String>,

    /// The user name for the TURN servers
    #[arg(long, value_name = "NAME", env = "QANAH_TURN_USERNAME", hide_env_values = true)]
    turn_username: Option<String>,

    /// The password for the TURN servers. Other users can read command lines: better give it by
    /// the environment
    #[arg(long, value_name = "PASSWORD", env = "QANAH_TURN_CREDENTIAL", hide_env_values = true)]
    turn_credential: Option<String>,

    /// A secret that the TURN servers have too (use-auth-secret of coturn), in place of a password.
    /// Other users can read command lines: better give it by the environment
    #[arg(long, value_name = "SECRET", env = "QANAH_TURN_SECRET", hide_env_values = true)]
    turn_secret: Option<String>,

    /// An HTTP proxy for brokers and for TURN servers over TCP and TLS: http://HOST:PORT or
    /// http://USER:PASSWORD@HOST:PORT, or `none`. Other users can read command lines: better give
    /// a password by the environment
    #[arg(long, value_name = "URL", env = "QANAH_PROXY", hide_env_values = true)]
    proxy: Option<String>,

    /// A broker for signaling: HOST:PORT or a URL with mqtt, mqtts, ws or wss, or `none`
    /// (repeatable)
    #[arg(long, value_name = "BROKER", env = "QANAH_SIGNAL_SERVER", hide_env_values = true)]
    signal_server: Vec<String>,

    /// Reach peers only through interfaces of this name; * and ? stand for other characters
    /// (repeatable). An overlay such as tailscale0 is used only when it is named here
    #[arg(long, value_name = "NAME", env = "QANAH_INTERFACE", hide_env_values = true)]
    interface: Vec<String>,

    /// Never reach peers through interfaces of this name, as for --interface (repeatable)
    #[arg(long, value_name = "NAME", env = "QANAH_EXCLUDE_INTERFACE", hide_env_values = true)]
    exclude_interface: Vec<String>,

    /// Neither relay for other peers nor be reached through them
    #[arg(
        long,
        env = "QANAH_NO_RELAY",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    no_relay: bool,

    /// Connect a peer only when there is traffic for it, and let it go when there was none for a
    /// while, if it does the same
    #[arg(
        long,
        env = "QANAH_LAZY",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    lazy: bool,

    /// With --lazy: how long a connection without traffic is kept
    #[arg(
        long,
        value_name = "SECONDS",
        env = "QANAH_IDLE_TIMEOUT",
        hide_env_values = true,
        value_parser = clap::value_parser!(u32).range(1..=86400)
    )]
    idle_timeout: Option<u32>,
}

/// The identifiers of the options, to see where their values come from.
const IDS: [&str; 12] = [
    "stun",
    "turn_url",
    "turn_username",
    "turn_credential",
    "turn_secret",
    "proxy",
    "signal_server",
    "interface",
    "exclude_interface",
    "no_relay",
    "lazy",
    "idle_timeout",
];

impl OptionArgs {
    /// Settles what came from the environment and gives the variables that were left out.
    ///
    /// A value of the environment may be a list, and an empty one is none. Only root may give
    /// options. What others give on the command line is sent, so that the daemon refuses it; but a
    /// variable may be set for another purpose, so theirs are left out.
    pub(crate) fn settle(&mut self, matches: &ArgMatches, root: bool) -> Vec<String> {
        let from_environment = |id| matches.value_source(id) == Some(ValueSource::EnvVariable);
        let mut ignored = Vec::new();
        for id in IDS.into_iter().filter(|id| from_environment(id)) {
            let set = match id {
                "stun" => settle_list(&mut self.stun, root),
                "turn_url" => settle_list(&mut self.turn_url, root),
                "signal_server" => settle_list(&mut self.signal_server, root),
                "interface" => settle_list(&mut self.interface, root),
                "exclude_interface" => settle_list(&mut self.exclude_interface, root),
                "turn_username" => settle_text(&mut self.turn_username, root),
                "turn_credential" => settle_text(&mut self.turn_credential, root),
                "turn_secret" => settle_text(&mut self.turn_secret, root),
                "proxy" => settle_text(&mut self.proxy, root),
                "idle_timeout" => {
                    let set = self.idle_timeout.is_some();
                    self.idle_timeout.take_if(|_| !root);
                    set
                }
                "lazy" => settle_flag(&mut self.lazy, root),
                _ => settle_flag(&mut self.no_relay, root),
            };
            if set && !root {
                ignored.push(format!("QANAH_{}", id.to_uppercase()));
            }
        }
        ignored
    }

    /// As the API has them; absent when none is given.
    pub(crate) fn message(self) -> Option<TunnelOptions> {
        if self == Self::default() {
            return None;
        }
        Some(TunnelOptions {
            stun: self.stun,
            turn_url: self.turn_url,
            turn_username: self.turn_username.unwrap_or_default(),
            turn_credential: self.turn_credential.unwrap_or_default(),
            signal_server: self.signal_server,
            no_relay: self.no_relay.then_some(true),
            lazy: self.lazy.then_some(true),
            idle_timeout_seconds: self.idle_timeout,
            turn_secret: self.turn_secret.unwrap_or_default(),
            proxy: self.proxy.unwrap_or_default(),
            interface: self.interface,
            exclude_interface: self.exclude_interface,
        })
    }
}

fn settle_list(list: &mut Vec<String>, keep: bool) -> bool {
    let separator = |c: char| c == ',' || c.is_whitespace();
    let parts: Vec<String> = list
        .iter()
        .flat_map(|value| value.split(separator))
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let set = !parts.is_empty();
    *list = if keep { parts } else { Vec::new() };
    set
}

fn settle_flag(flag: &mut bool, keep: bool) -> bool {
    let set = *flag;
    *flag &= keep;
    set
}

fn settle_text(text: &mut Option<String>, keep: bool) -> bool {
    let set = text.as_ref().is_some_and(|text| !text.is_empty());
    text.take_if(|_| !set || !keep);
    set
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::{Args as _, FromArgMatches};

    use super::*;

    fn parse(line: &[&str], root: bool) -> (Option<TunnelOptions>, Vec<String>) {
        let command = OptionArgs::augment_args(clap::Command::new("up"));
        let matches = command.get_matches_from(["up"].iter().chain(line));
        let mut args = OptionArgs::from_arg_matches(&matches).unwrap();
        let ignored = args.settle(&matches, root);
        (args.message(), ignored)
    }

    #[test]
    fn no_option_is_no_message() {
        assert_eq!(parse(&[], true), (None, vec![]));
        let (message, _) = parse(&["--no-relay"], false);
        assert_eq!(message.unwrap().no_relay, Some(true));
    }

    /// The environment belongs to a process, so this runs itself in one with its own.
    #[test]
    fn the_environment_is_for_root_and_the_command_line_wins() {
        const CHILD: &str = "QANAH_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let (message, ignored) = parse(&["--signal-server", "none"], true);
            let message = message.unwrap();
            assert_eq!(message.stun, ["stun:a:1", "stun:b:2", "stun:c:3"]);
            assert_eq!(message.turn_credential, "se,cr et");
            assert_eq!(message.signal_server, ["none"]);
            assert_eq!((message.no_relay, message.turn_url.len()), (None, 0));
            assert_eq!(ignored, Vec::<String>::new());
            let (message, ignored) = parse(&["--turn-username", "me"], false);
            let expected = TunnelOptions { turn_username: "me".into(), ..Default::default() };
            assert_eq!(message, Some(expected));
            let expected = ["QANAH_STUN", "QANAH_TURN_CREDENTIAL", "QANAH_SIGNAL_SERVER"];
            assert_eq!(ignored, expected);
            return;
        }
        let name = "options::tests::the_environment_is_for_root_and_the_command_line_wins";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .env("QANAH_STUN", "stun:a:1, stun:b:2 stun:c:3")
            .env("QANAH_TURN_URL", "")
            .env("QANAH_TURN_CREDENTIAL", "se,cr et")
            .env("QANAH_SIGNAL_SERVER", "ignored:1")
            .env("QANAH_NO_RELAY", "false")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
