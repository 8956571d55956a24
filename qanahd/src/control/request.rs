//! What clients ask for, checked, and what they get.

use qanah_core::config::TunnelName;
use qanah_core::policy::check_tunnel_name;
use qanah_proto::v1;
use zeroize::Zeroizing;

use super::ControlFailure;
use super::report::TunnelReport;
use crate::args::ServerArgs;

/// Where a configuration comes from.
pub(crate) enum Source {
    /// The directory of configurations.
    Name(TunnelName),
    /// Root.
    Text {
        /// The tunnel.
        name: TunnelName,
        /// The configuration.
        text: Zeroizing<Vec<u8>>,
    },
}

impl Source {
    /// The tunnel.
    pub(crate) const fn name(&self) -> &TunnelName {
        match self {
            Self::Name(name) | Self::Text { name, .. } => name,
        }
    }
}

/// A tunnel is to come up.
pub(crate) struct UpCall {
    /// Its configuration.
    pub(crate) source: Source,
    /// Other options than the daemon's.
    pub(crate) options: Option<Options>,
    /// Whoever asks may see what the configuration says.
    pub(crate) quotes: bool,
}

/// A tunnel has come up.
#[derive(Debug)]
pub(crate) struct UpDone {
    /// Its state.
    pub(crate) tunnel: TunnelReport,
    /// What its author should know.
    pub(crate) notes: Vec<String>,
}

/// A configuration is in force.
#[derive(Debug)]
pub(crate) struct ReloadDone {
    /// What was changed.
    pub(crate) changes: Vec<String>,
    /// What its author should know.
    pub(crate) notes: Vec<String>,
}

/// A configuration was read.
#[derive(Debug)]
pub(crate) struct CheckDone {
    /// What it means.
    pub(crate) description: String,
    /// Why a tunnel with it would not start.
    pub(crate) refusals: Vec<String>,
}

/// Options of a tunnel, not yet checked.
pub(crate) struct Options(Box<v1::TunnelOptions>);

impl Options {
    /// The options of a request. A message in which nothing is set asks for nothing.
    pub(crate) fn of(options: Option<v1::TunnelOptions>) -> Option<Self> {
        let set = options.filter(|options| *options != v1::TunnelOptions::default());
        set.map(|options| Self(Box::new(options)))
    }

    /// These options over those of the daemon.
    pub(crate) fn over(self, daemon: &ServerArgs) -> ServerArgs {
        let options = *self.0;
        let mut args = daemon.clone();
        if !options.stun.is_empty() {
            args.stun = options.stun;
        }
        if !options.signal_server.is_empty() {
            args.signal_server = options.signal_server;
        }
        // These belong together: another server does not get this one's password.
        if !options.turn_url.is_empty() {
            args.turn_url = options.turn_url;
            args.turn_username = Some(options.turn_username);
            args.turn_credential = Some(options.turn_credential);
            args.turn_secret = Some(options.turn_secret);
        }
        if !options.proxy.is_empty() {
            args.proxy = Some(options.proxy);
        }
        if !options.interface.is_empty() {
            args.interface = options.interface;
        }
        if !options.exclude_interface.is_empty() {
            args.exclude_interface = options.exclude_interface;
        }
        if let Some(no_relay) = options.no_relay {
            args.no_relay = no_relay;
        }
        if let Some(lazy) = options.lazy {
            args.lazy = lazy;
        }
        // The bounds of the command line hold for those who do without it.
        if let Some(seconds) = options.idle_timeout_seconds {
            args.idle_timeout = Some(seconds.clamp(1, 86400));
        }
        args
    }
}

/// The name of a tunnel that is to come up, or whose file is to be read.
pub(super) fn tunnel_name(text: &str) -> Result<TunnelName, ControlFailure> {
    known_name(text)?;
    text.parse().map_err(|error| ControlFailure::invalid_name(text, error))
}

/// A name that a tunnel may have.
pub(super) fn known_name(text: &str) -> Result<String, ControlFailure> {
    let name = check_tunnel_name(text);
    name.map(str::to_owned).map_err(|error| ControlFailure::invalid_name(text, error))
}

/// Where a configuration comes from, as the request says.
pub(super) fn source(config: Option<v1::ConfigSource>) -> Result<Source, ControlFailure> {
    match config.and_then(|config| config.source) {
        Some(v1::config_source::Source::Name(name)) => Ok(Source::Name(tunnel_name(&name)?)),
        Some(v1::config_source::Source::Text(given)) => {
            let text = Zeroizing::new(given.text);
            Ok(Source::Text { name: tunnel_name(&given.name)?, text })
        }
        None => Err(ControlFailure::BadOption("the request names no configuration".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_replace_those_of_the_daemon_one_by_one() {
        let daemon = ServerArgs {
            stun: vec!["stun:a".into()],
            turn_url: vec!["turn:a".into()],
            turn_username: Some("u".into()),
            turn_credential: Some("p".into()),
            turn_secret: Some("s".into()),
            signal_server: vec!["broker".into()],
            ..ServerArgs::default()
        };
        assert!(Options::of(None).is_none());
        assert!(Options::of(Some(v1::TunnelOptions::default())).is_none());
        let options = v1::TunnelOptions {
            turn_url: vec!["turn:b".into()],
            signal_server: vec!["none".into()],
            no_relay: Some(true),
            lazy: Some(true),
            idle_timeout_seconds: Some(7),
            ..Default::default()
        };
        let args = Options::of(Some(options)).unwrap().over(&daemon);
        assert_eq!(args.stun, ["stun:a"]);
        assert_eq!(args.signal_server, ["none"]);
        assert_eq!(args.turn_credential.as_deref(), Some(""), "another server, another password");
        assert!(args.no_relay && args.lazy);
        assert_eq!(args.idle_timeout, Some(7));
        assert_eq!(args.turn_secret.as_deref(), Some(""));
        assert_eq!(args.proxy, None);
        let options = v1::TunnelOptions {
            proxy: "none".into(),
            exclude_interface: vec!["docker*".into()],
            ..Default::default()
        };
        let args = Options::of(Some(options)).unwrap().over(&daemon);
        assert_eq!(args.exclude_interface, ["docker*"]);
        assert!(args.interface.is_empty());
        assert_eq!(args.proxy.as_deref(), Some("none"));
        assert_eq!(args.turn_secret.as_deref(), Some("s"));
    }

    #[test]
    fn tricks_in_names_are_refused() {
        let long = "x".repeat(16);
        let tricks = [
            "",
            ".",
            "..",
            "../shadow",
            "a/b",
            "/etc/shadow",
            "a\0",
            "-a",
            "a b",
            "%i",
            "$(id)",
            "ä",
            "qanahd",
            "all",
            "default",
            "a\n",
            long.as_str(),
        ];
        for trick in tricks {
            let name = v1::config_source::Source::Name(trick.to_owned());
            let refused = source(Some(v1::ConfigSource { source: Some(name) }));
            assert!(matches!(refused, Err(ControlFailure::InvalidName { .. })), "{trick:?}");
            let text = v1::ConfigText { name: trick.to_owned(), text: Vec::new() };
            let text = v1::config_source::Source::Text(text);
            let refused = source(Some(v1::ConfigSource { source: Some(text) }));
            assert!(matches!(refused, Err(ControlFailure::InvalidName { .. })), "{trick:?}");
        }
        assert!(matches!(source(None), Err(ControlFailure::BadOption(_))));
    }
}
