//! The servers that a tunnel uses, from the command line to what the parts that use them want.

use std::sync::Arc;
use std::time::Duration;

use qanah_core::servers::{
    BrokerScheme, BrokerUrl, DEFAULT_BROKER, DEFAULT_STUN, Host, NoProxy, ProxyChoice, ProxyUrl,
    ServerError, SignalServer, StunUrl, TurnScheme, TurnTransport, TurnUrl, Unsupported,
};

use crate::args::ServerArgs;
use crate::dial::Dialer;
use crate::mqtt::{BrokerAddress, Scheme};
use crate::platform::interfaces::{Interfaces, Pattern, PatternError};
use crate::rtc::{Carrier, Login};
use crate::tunnel::Behaviour;
use crate::{mqtt, rtc};

/// How long a lazy tunnel keeps connections that carry nothing.
const IDLE: Duration = Duration::from_secs(300);

/// Why an option that names a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServersError {
    /// The text is not what the option takes.
    #[error("--{option}{}: {error}", quoted(.value))]
    Text {
        /// The option, without its dashes.
        option: &'static str,
        /// What was given, where it cannot hold a password.
        value: Option<String>,
        /// What is wrong.
        error: ServerError,
    },
    /// The environment names a proxy that cannot be used. It is not passed over: whoever set it may count
    /// on it.
    #[error("{variable} in the environment: {error} (--proxy none connects without a proxy)")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What is wrong with its value.
        error: ServerError,
    },
    /// This version cannot use such a server.
    #[error("--turn-url: {0}")]
    Unsupported(#[from] Unsupported),
    /// TURN servers, and no way to log in, or two.
    #[error(
        "--turn-url: a TURN server needs --turn-username with --turn-credential, or --turn-secret"
    )]
    TurnLogin,
    /// TLS to TURN servers cannot be had.
    #[error("--turn-ca: {0}")]
    TurnTrust(#[from] rtc::TrustError),
    /// No interface can have such a name.
    #[error("--{option} {}: {error}", .value.escape_debug())]
    Interface {
        /// The option, without its dashes.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong.
        error: PatternError,
    },
    /// `none` beside a broker.
    #[error("--signal-server: `none` cannot stand beside a broker")]
    NoneAndSome,
}

fn quoted(value: &Option<String>) -> String {
    value.as_ref().map(|text| format!(" {}", text.escape_debug())).unwrap_or_default()
}

/// The servers of a tunnel, checked.
pub(crate) struct Servers {
    pub(crate) mqtt: mqtt::Settings,
    /// Whether to relay, and to wait for traffic.
    pub(crate) behaviour: Behaviour,
    /// Which interfaces of the machine are used.
    pub(crate) interfaces: Interfaces,
    proxies: ProxyChoice,
    stun: Vec<String>,
    turn: Vec<rtc::TurnServer>,
    retransmits: Option<u16>,
}

impl Servers {
    /// Checks what was given; what was not given gets its default.
    ///
    /// # Errors
    /// The first option that cannot be used. Nothing is skipped in silence.
    pub(crate) fn parse(args: &ServerArgs) -> Result<Self, ServersError> {
        let stun = or_default(&args.stun, &DEFAULT_STUN);
        let stun = stun.iter().map(|text| parse::<StunUrl>("stun", text));
        let stun: Vec<StunUrl> = stun.collect::<Result<_, _>>()?;
        let turn = turn(args)?;
        let proxies = proxies(args)?;
        Ok(Self {
            mqtt: mqtt::Settings {
                brokers: brokers(args)?,
                ca_file: args.signal_ca.clone(),
                cert_file: args.signal_cert.clone(),
                key_file: args.signal_key.clone(),
                proxies: proxies.clone(),
            },
            proxies,
            interfaces: Interfaces {
                only: patterns("interface", &args.interface)?,
                except: patterns("exclude-interface", &args.exclude_interface)?,
            },
            behaviour: Behaviour {
                relay: !args.no_relay,
                lazy: args
                    .lazy
                    .then(|| args.idle_timeout.map_or(IDLE, |it| Duration::from_secs(it.into()))),
            },
            stun: stun.iter().map(|url| format!("stun:{}:{}", url.host(), url.port())).collect(),
            turn,
            retransmits: args.retransmits,
        })
    }

    /// The settings of every WebRTC connection of one tunnel.
    pub(crate) fn rtc(&self) -> rtc::Settings {
        rtc::Settings {
            stun: self.stun.clone(),
            turn: self.turn.clone(),
            dialer: Dialer { proxies: self.proxies.clone(), ..Dialer::default() },
            health: rtc::Health::new(&self.stun, &self.turn),
            max_retransmits: self.retransmits,
            ..Default::default()
        }
    }
}

fn or_default<'a>(given: &'a [String], default: &'a [&str]) -> Vec<&'a str> {
    if given.is_empty() { default.to_vec() } else { given.iter().map(String::as_str).collect() }
}

fn parse<T: std::str::FromStr<Err = ServerError>>(
    option: &'static str,
    text: &str,
) -> Result<T, ServersError> {
    // The URL of a broker or a proxy may hold a password; and where none belongs, somebody may have written
    // one all the same, before an `@`.
    let may_hold_password = matches!(option, "signal-server" | "proxy") || text.contains('@');
    let value = (!may_hold_password).then(|| text.to_owned());
    text.parse().map_err(|error| ServersError::Text { option, value, error })
}

fn patterns(option: &'static str, given: &[String]) -> Result<Vec<Pattern>, ServersError> {
    let parse = |text: &String| {
        let value = text.clone();
        text.parse().map_err(|error| ServersError::Interface { option, value, error })
    };
    given.iter().map(parse).collect()
}

/// The TURN servers. The system's certificates are read only where one is spoken to over TLS.
fn turn(args: &ServerArgs) -> Result<Vec<rtc::TurnServer>, ServersError> {
    let urls = args.turn_url.iter().map(|text| parse::<TurnUrl>("turn-url", text));
    let urls: Vec<TurnUrl> = urls.collect::<Result<_, _>>()?;
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let login = turn_login(args)?;
    let mut tls = None;
    let mut servers = Vec::new();
    for url in urls {
        url.supported()?;
        let carrier = match (url.scheme(), url.transport()) {
            (TurnScheme::Turn, TurnTransport::Udp) => Carrier::Udp,
            (TurnScheme::Turn, TurnTransport::Tcp) => Carrier::Tcp,
            (TurnScheme::Turns, _) => {
                let config = match tls.take() {
                    Some(config) => config,
                    None => rtc::client_config(args.turn_ca.as_deref())?,
                };
                Carrier::Tls(Arc::clone(tls.insert(config)))
            }
        };
        let (host, port) = (url.host().clone(), url.port());
        servers.push(rtc::TurnServer { host, port, carrier, login: login.clone() });
    }
    Ok(servers)
}

fn turn_login(args: &ServerArgs) -> Result<Login, ServersError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let name = given(&args.turn_username);
    match (name, given(&args.turn_credential), given(&args.turn_secret)) {
        (name, None, Some(secret)) => Ok(Login::Secret { name, secret: secret.into() }),
        (Some(username), Some(credential), None) => {
            Ok(Login::Password { username, credential: credential.into() })
        }
        _ => Err(ServersError::TurnLogin),
    }
}

/// The proxy of the options, else that of the environment.
fn proxies(args: &ServerArgs) -> Result<ProxyChoice, ServersError> {
    let proxy = match (&args.proxy, &args.environment.proxy) {
        (Some(text), _) if text.eq_ignore_ascii_case("none") => None,
        (Some(text), _) => Some(parse::<ProxyUrl>("proxy", text)?),
        (None, Some((variable, text))) => {
            let proxy = text.parse();
            Some(proxy.map_err(|error| ServersError::Variable { variable, error })?)
        }
        (None, None) => None,
    };
    Ok(ProxyChoice { proxy, except: NoProxy::parse(&args.environment.no_proxy) })
}

fn brokers(args: &ServerArgs) -> Result<Vec<BrokerAddress>, ServersError> {
    let given = or_default(&args.signal_server, &[DEFAULT_BROKER]);
    let servers = given.iter().map(|text| parse::<SignalServer>("signal-server", text));
    let servers: Vec<SignalServer> = servers.collect::<Result<_, _>>()?;
    let brokers: Vec<BrokerAddress> = servers
        .iter()
        .filter_map(|server| match server {
            SignalServer::Broker(url) => Some(address(url)),
            SignalServer::None => None,
        })
        .collect();
    if !brokers.is_empty() && brokers.len() < servers.len() {
        return Err(ServersError::NoneAndSome);
    }
    Ok(brokers)
}

fn address(url: &BrokerUrl) -> BrokerAddress {
    let host = match url.host() {
        Host::Domain(name) => name.clone(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    BrokerAddress {
        scheme: match url.scheme() {
            BrokerScheme::Mqtt => Scheme::Mqtt,
            BrokerScheme::Mqtts => Scheme::Mqtts,
            BrokerScheme::Ws => Scheme::Ws,
            BrokerScheme::Wss => Scheme::Wss,
        },
        host,
        port: url.port(),
        path: url.path().to_owned(),
        query: url.query().cloned(),
        user: url.username().map(str::to_owned),
        password: url.password().cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_what_was_not_given() {
        let servers = Servers::parse(&ServerArgs::default()).unwrap();
        assert_eq!(servers.stun, DEFAULT_STUN);
        let broker = servers.mqtt.brokers.first().map(ToString::to_string);
        assert_eq!(broker.as_deref(), Some("mqtt://broker.emqx.io:1883"));
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_names_the_option() {
        let error = |args: ServerArgs| Servers::parse(&args).err().unwrap().to_string();
        let stun = error(ServerArgs { stun: vec!["nonsense".into()], ..Default::default() });
        assert!(stun.starts_with("--stun nonsense: "), "{stun}");
        let password =
            ServerArgs { stun: vec!["stun:u:hunter2@host".into()], ..Default::default() };
        assert!(!error(password).contains("hunter2"));
        let with_turn = |url: &str| ServerArgs {
            turn_url: vec![url.into()],
            turn_username: Some("u".into()),
            turn_credential: Some("p".into()),
            ..Default::default()
        };
        let dtls = error(with_turn("turns:example.com?transport=udp"));
        assert!(
            dtls.starts_with("--turn-url: turns:example.com") && dtls.contains("DTLS"),
            "{dtls}"
        );
        let password = error(with_turn("turn:u:hunter2@host"));
        assert!(
            password.starts_with("--turn-url: ") && !password.contains("hunter2"),
            "{password}"
        );
        let none = ServerArgs { turn_credential: Some(String::new()), ..with_turn("turn:a") };
        let both = ServerArgs { turn_secret: Some("s".into()), ..with_turn("turn:a") };
        for login in [none, both] {
            assert!(error(login).contains("or --turn-secret"));
        }
        let ca = ServerArgs { turn_ca: Some("/none.pem".into()), ..with_turn("turns:a") };
        assert!(error(ca).starts_with("--turn-ca: cannot read /none.pem: No such file"));
        let both = ServerArgs {
            signal_server: vec!["none".into(), "example.com".into()],
            ..Default::default()
        };
        assert!(error(both).contains("none"));
    }

    #[test]
    fn turn_servers_of_every_kind_are_used_in_their_order() {
        let args = ServerArgs {
            turn_url: ["turn:a", "turn:b:1?transport=tcp", "turns:[2001:db8::1]:443", "turns:c"]
                .map(str::to_owned)
                .to_vec(),
            turn_secret: Some("hunter2".into()),
            ..Default::default()
        };
        let settings = Servers::parse(&args).unwrap().rtc();
        let urls: Vec<_> = settings.turn.iter().map(rtc::TurnServer::url).collect();
        let expected = [
            "turn:a:3478?transport=udp",
            "turn:b:1?transport=tcp",
            "turns:[2001:db8::1]:443?transport=tcp",
            "turns:c:5349?transport=tcp",
        ];
        assert_eq!(urls, expected);
        let known = settings.health.report(std::time::Instant::now());
        let known: Vec<_> = known.into_iter().map(|server| server.url).collect();
        assert_eq!(known, [&DEFAULT_STUN[..], &expected].concat());
    }

    #[test]
    fn the_option_wins_over_the_environment_and_what_cannot_be_used_is_told() {
        let parse = |option: Option<&str>, variable: Option<&str>| {
            let args = ServerArgs {
                proxy: option.map(str::to_owned),
                environment: crate::args::ProxyEnvironment {
                    proxy: variable.map(|text| ("ALL_PROXY", text.to_owned())),
                    no_proxy: "b.example".into(),
                },
                ..Default::default()
            };
            Servers::parse(&args).map_err(|error| error.to_string())
        };
        let through = |option, variable| {
            let dialer = parse(option, variable).unwrap().rtc().dialer;
            ["a.example", "b.example"]
                .map(|name| dialer.is_proxied(&Host::parse(name).unwrap(), 443))
        };
        assert_eq!(through(None, None), [false, false]);
        assert_eq!(through(None, Some("http://p:1")), [true, false]);
        assert_eq!(through(Some("http://p:1"), Some("socks5://u:hunter2@p:1")), [true, false]);
        assert_eq!(through(Some("none"), Some("socks5://u:hunter2@p:1")), [false, false]);
        let environment = parse(None, Some("socks5://u:hunter2@p:1")).err().unwrap();
        assert!(environment.starts_with("ALL_PROXY in the environment: a SOCKS proxy"));
        assert!(environment.contains("--proxy none") && !environment.contains("hunter2"));
        let option = parse(Some("https://u:hunter2@p:1"), None).err().unwrap();
        assert!(option.starts_with("--proxy: ") && !option.contains("hunter2"), "{option}");
    }

    #[test]
    fn what_the_query_of_a_broker_says_is_kept_and_never_shown() {
        let args = ServerArgs {
            signal_server: vec!["wss://joe:hunter2@broker.example/mqtt?token=hunter3".into()],
            ..Default::default()
        };
        let servers = Servers::parse(&args).unwrap();
        let broker = servers.mqtt.brokers.first().unwrap();
        assert_eq!(broker.query.as_ref().map(|query| query.as_str()), Some("token=hunter3"));
        assert_eq!(broker.to_string(), "wss://broker.example:443/mqtt?(hidden)");
        let shown = format!("{broker} {broker:?} {:?}", servers.mqtt);
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn ipv6_hosts_keep_their_brackets_where_urls_want_them() {
        let args = ServerArgs {
            stun: vec!["stun:[2001:db8::1]:3478".into()],
            signal_server: vec!["[2001:db8::2]:1883".into()],
            ..Default::default()
        };
        let servers = Servers::parse(&args).unwrap();
        assert_eq!(servers.stun, ["stun:[2001:db8::1]:3478"]);
        let broker = servers.mqtt.brokers.first().map(|broker| broker.host.clone());
        assert_eq!(broker.as_deref(), Some("2001:db8::2"));
    }
}
