//! The command line of the daemon, and the environment variables that stand in for options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use qanah_core::config::TunnelName;

use crate::credentials;

/// Runs WireGuard configurations as peer-to-peer tunnels over WebRTC data channels.
///
/// Exit codes: 0 well, 1 failed, 2 wrong command line, 6 the configuration cannot be used.
#[derive(Debug, Parser)]
#[command(name = "qanahd", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Serve only the tunnel with this configuration, as for wg-quick(8). The interface is named
    /// after the file. Without it many tunnels are served, none at first
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Serve only the tunnel of /etc/qanah/NAME.conf, a file that belongs to root and is closed to
    /// others. NAME may be the instance of a systemd unit (%i)
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "config",
        value_parser = |text: &str| TunnelName::from_instance(text)
    )]
    pub(crate) tunnel: Option<TunnelName>,

    /// Bring up the tunnel of /etc/qanah/NAME.conf at the start (repeatable). The variable QANAH_UP
    /// may hold more names; to a daemon of one tunnel it means nothing
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "tunnel"])]
    pub(crate) up: Vec<TunnelName>,

    /// Only read the configuration, say what was understood, and exit with 0 or 6
    #[arg(long)]
    pub(crate) check: bool,

    /// How peers are found and reached.
    #[command(flatten)]
    pub(crate) servers: ServerArgs,

    /// The control socket [default: /run/qanah/qanahd.sock, with --config /run/qanah/NAME.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// How much of its own doings the daemon logs. RUST_LOG, when set, replaces this
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,

    /// Commands of an older tool that others know.
    #[command(subcommand)]
    moved: Option<Moved>,
}

/// The options of a tunnel that name servers. The values are as given, not yet checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct ServerArgs {
    /// A STUN server, such as stun:stun.example.com:3478 (repeatable)
    #[arg(long, value_name = "URL", env = "QANAH_STUN", hide_env_values = true)]
    pub(crate) stun: Vec<String>,

    /// A TURN server: turn:HOST:PORT over UDP, turn:HOST:PORT?transport=tcp over TCP or
    /// turns:HOST:PORT over TLS (repeatable)
    #[arg(long, value_name = "URL", env = "QANAH_TURN_URL", hide_env_values = true)]
    pub(crate) turn_url: Vec<String>,

    /// The user name for the TURN servers
    #[arg(long, value_name = "NAME", env = "QANAH_TURN_USERNAME", hide_env_values = true)]
    pub(crate) turn_username: Option<String>,

    /// The password for the TURN servers. Other users can read command lines: better give it by
    /// the environment
    #[arg(long, value_name = "PASSWORD", env = "QANAH_TURN_CREDENTIAL", hide_env_values = true)]
    pub(crate) turn_credential: Option<String>,

    /// A secret that the TURN servers have too (use-auth-secret of coturn), in place of a password.
    /// Other users can read command lines: better give it by the environment
    #[arg(long, value_name = "SECRET", env = "QANAH_TURN_SECRET", hide_env_values = true)]
    pub(crate) turn_secret: Option<String>,

    /// A file of CA certificates (PEM) to trust for TURN servers, besides those of the system
    #[arg(
        long,
        value_name = "FILE",
        env = "QANAH_TURN_CA",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) turn_ca: Option<PathBuf>,

    /// A broker for signaling: HOST:PORT or a URL with mqtt, mqtts, ws or wss (repeatable)
    #[arg(long, value_name = "BROKER", env = "QANAH_SIGNAL_SERVER", hide_env_values = true)]
    pub(crate) signal_server: Vec<String>,

    /// A file of CA certificates (PEM) to trust for brokers, besides those of the system
    #[arg(
        long,
        value_name = "FILE",
        env = "QANAH_SIGNAL_CA",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) signal_ca: Option<PathBuf>,

    /// A file with our certificate (PEM, with those that lead to its CA) for brokers that want one
    #[arg(
        long,
        value_name = "FILE",
        env = "QANAH_SIGNAL_CERT",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) signal_cert: Option<PathBuf>,

    /// The file with the private key of that certificate (PEM, without a password), which only its
    /// owner may read
    #[arg(
        long,
        value_name = "FILE",
        env = "QANAH_SIGNAL_KEY",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) signal_key: Option<PathBuf>,

    /// An HTTP proxy for brokers and for TURN servers over TCP and TLS: http://HOST:PORT or
    /// http://USER:PASSWORD@HOST:PORT, or `none`. Without it HTTPS_PROXY, ALL_PROXY and NO_PROXY
    /// count. Other users can read command lines: better give a password by the environment
    #[arg(long, value_name = "URL", env = "QANAH_PROXY", hide_env_values = true)]
    pub(crate) proxy: Option<String>,

    /// What the variables that all programs share say of proxies.
    #[arg(skip)]
    pub(crate) environment: ProxyEnvironment,

    /// Reach peers only through interfaces of this name; * and ? stand for other characters
    /// (repeatable). An overlay such as tailscale0 is used only when it is named here
    #[arg(long, value_name = "NAME", env = "QANAH_INTERFACE", hide_env_values = true)]
    pub(crate) interface: Vec<String>,

    /// Never reach peers through interfaces of this name, as for --interface (repeatable)
    #[arg(long, value_name = "NAME", env = "QANAH_EXCLUDE_INTERFACE", hide_env_values = true)]
    pub(crate) exclude_interface: Vec<String>,

    /// Give up a frame that was lost after so many more tries (for measurements, at both ends: tests/bench)
    #[arg(long, value_name = "TIMES", hide = true)]
    pub(crate) retransmits: Option<u16>,

    /// Neither relay for other peers nor be reached through them
    #[arg(
        long,
        env = "QANAH_NO_RELAY",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) no_relay: bool,

    /// Connect a peer only when there is traffic for it, and let it go when there was none for a
    /// while, if it does the same
    #[arg(
        long,
        env = "QANAH_LAZY",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) lazy: bool,

    /// With --lazy: how long a connection without traffic is kept [default: 300]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "QANAH_IDLE_TIMEOUT",
        hide_env_values = true,
        value_parser = clap::value_parser!(u32).range(1..=86400)
    )]
    pub(crate) idle_timeout: Option<u32>,
}

/// The variables of the environment that say which proxy programs use, as curl reads them for `https:`.
///
/// Every connection here goes through a proxy by CONNECT, as those of `https:` do, so `HTTP_PROXY` does not
/// count.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyEnvironment {
    /// The name and the value of the variable that names a proxy.
    pub(crate) proxy: Option<(&'static str, String)>,
    /// Where it is not used.
    pub(crate) no_proxy: String,
}

impl std::fmt::Debug for ProxyEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.proxy.as_ref().map(|(name, _)| name);
        f.debug_struct("ProxyEnvironment").field("proxy", &name).finish_non_exhaustive()
    }
}

impl ProxyEnvironment {
    /// Reads it by a function that gives the value of a variable. An empty value is none.
    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let values = names.iter().map(|name| (*name, variable(name).unwrap_or_default()));
            values.into_iter().find(|(_, value)| !value.is_empty())
        };
        Self {
            proxy: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            no_proxy: first(&["no_proxy", "NO_PROXY"]).map(|(_, value)| value).unwrap_or_default(),
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Only what stops the daemon or a tunnel.
    Error,
    /// And what needs attention.
    Warn,
    /// And what happens: connections made and lost.
    Info,
    /// And why.
    Debug,
    /// And every message.
    Trace,
}

impl LogLevel {
    /// Its name in filters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What `qanahctl` does now.
#[derive(Debug, Subcommand)]
enum Moved {
    #[command(hide = true, disable_help_flag = true)]
    Offer(Rest),
    #[command(hide = true, disable_help_flag = true)]
    Answer(Rest),
}

/// Anything that may follow, so that the answer is where to go and not which option is wrong.
#[derive(Debug, clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

impl Args {
    /// Reads the arguments of the process; ends it for `--help`, `--version` and errors (code 2).
    pub(crate) fn from_process() -> Self {
        Self::parse_checked(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads arguments, the first of which is the name of the program.
    ///
    /// # Errors
    ///
    /// A usage error that says what to do, or the text of `--help` or `--version`.
    fn parse_checked<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let command =
            credentials::stand_in(Self::command(), std::env::var_os(credentials::VARIABLE));
        let matches = command.try_get_matches_from(args)?;
        let mut args = Self::from_arg_matches(&matches)?;
        args.servers.settle_environment(&matches);
        // What is not UTF-8 is no address.
        args.servers.environment = ProxyEnvironment::read(|name| std::env::var(name).ok());
        args.add_names(std::env::var("QANAH_UP").ok().as_deref())?;
        args.check_together()?;
        Ok(args)
    }

    /// Whether there may be several tunnels.
    pub(crate) const fn is_of_many(&self) -> bool {
        self.config.is_none() && self.tunnel.is_none()
    }

    /// Adds the tunnels that the environment names.
    fn add_names(&mut self, names: Option<&str>) -> Result<(), clap::Error> {
        if !self.is_of_many() {
            return Ok(());
        }
        for name in names.into_iter().flat_map(split) {
            let name = name.parse::<TunnelName>().map_err(|error| {
                Self::command().error(ErrorKind::ValueValidation, format!("QANAH_UP: {error}"))
            })?;
            self.up.push(name);
        }
        Ok(())
    }

    fn check_together(&self) -> Result<(), clap::Error> {
        let fail = |kind, text: &str| Err(Self::command().error(kind, text));
        if let Some(moved) = &self.moved {
            let name = match moved {
                Moved::Offer(_) => "offer",
                Moved::Answer(_) => "answer",
            };
            let text = format!("`qanahd {name}` is now `qanahctl {name}`");
            return fail(ErrorKind::InvalidSubcommand, &text);
        }
        if self.check && self.config.is_none() && self.tunnel.is_none() {
            let text =
                "give the configuration that is to be checked: --config FILE or --tunnel NAME";
            return fail(ErrorKind::MissingRequiredArgument, text);
        }
        let turn = &self.servers;
        let by_secret = turn.turn_secret.is_some();
        let given = [
            !turn.turn_url.is_empty(),
            turn.turn_username.is_some() || by_secret,
            turn.turn_credential.is_some() || by_secret,
        ];
        if given.contains(&true) && given.contains(&false) {
            let text = "--turn-url, --turn-username and --turn-credential belong together: give all \
                        three (or QANAH_TURN_URL, QANAH_TURN_USERNAME, QANAH_TURN_CREDENTIAL), or \
                        --turn-url with --turn-secret";
            return fail(ErrorKind::MissingRequiredArgument, text);
        }
        if turn.signal_cert.is_some() != turn.signal_key.is_some() {
            let text = "--signal-cert and --signal-key belong together: give both";
            return fail(ErrorKind::MissingRequiredArgument, text);
        }
        if by_secret && turn.turn_credential.is_some() {
            let text = "--turn-secret takes the place of --turn-credential: give one of them";
            return fail(ErrorKind::ArgumentConflict, text);
        }
        Ok(())
    }
}

impl ServerArgs {
    /// Splits lists from the environment or a credential, where one value stands for all, and drops
    /// empty values: a variable that is set to nothing is as good as none.
    fn settle_environment(&mut self, matches: &ArgMatches) {
        let from_environment =
            |id| matches.value_source(id).is_some_and(|source| source != ValueSource::CommandLine);
        let lists = [
            ("stun", &mut self.stun),
            ("turn_url", &mut self.turn_url),
            ("signal_server", &mut self.signal_server),
            ("interface", &mut self.interface),
            ("exclude_interface", &mut self.exclude_interface),
        ];
        for (id, list) in lists {
            if from_environment(id) {
                *list = list.iter().flat_map(|value| split(value)).collect();
            }
        }
        let texts = [
            ("turn_username", &mut self.turn_username),
            ("turn_credential", &mut self.turn_credential),
            ("turn_secret", &mut self.turn_secret),
            ("proxy", &mut self.proxy),
        ];
        for (id, text) in texts {
            text.take_if(|text| text.is_empty() && from_environment(id));
        }
        let files = [
            ("signal_ca", &mut self.signal_ca),
            ("signal_cert", &mut self.signal_cert),
            ("signal_key", &mut self.signal_key),
            ("turn_ca", &mut self.turn_ca),
        ];
        for (id, file) in files {
            file.take_if(|file| file.as_os_str().is_empty() && from_environment(id));
        }
    }
}

fn split(value: &str) -> impl Iterator<Item = String> {
    value
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
