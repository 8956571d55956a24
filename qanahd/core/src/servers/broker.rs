//! MQTT brokers.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};
use zeroize::Zeroizing;

use super::host::{HostPortError, host_and_port, parse_host};
use super::userinfo::credential;
use super::{ServerError, check_text};

/// The broker that is used when the user names none.
pub const DEFAULT_BROKER: &str = "broker.emqx.io:1883";

/// Path of MQTT over WebSocket when the address has none. The standard leaves it open
/// (MQTT 3.1.1, section 6); this is what brokers listen on unless told otherwise.
const DEFAULT_PATH: &str = "/mqtt";

const FORM: &str = "HOST:PORT such as mqtt.example.com:1883, or a URL with mqtt://, mqtts://, \
                    ws:// or wss:// such as mqtts://user:password@mqtt.example.com:8883";

/// How to speak to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokerScheme {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
}

impl BrokerScheme {
    /// The scheme as it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port when the address has none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Whether the connection is under TLS.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether MQTT travels in a WebSocket.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Mqtt, Self::Mqtts, Self::Ws, Self::Wss]
            .into_iter()
            .find(|scheme| scheme.as_str() == text)
    }
}

/// Where signaling happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalServer {
    /// Nowhere: offers and answers are carried by hand.
    None,
    /// At a broker.
    Broker(BrokerUrl),
}

impl FromStr for SignalServer {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        text.parse().map(Self::Broker)
    }
}

impl fmt::Display for SignalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Broker(broker) => broker.fmt(f),
        }
    }
}

/// The address of a broker, with credentials if any. Neither `Display` nor `Debug` shows the
/// password or the query of the path.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: BrokerScheme,
    host: Host,
    port: u16,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    path: String,
    query: Option<Zeroizing<String>>,
}

impl BrokerUrl {
    /// How to speak to the broker.
    pub fn scheme(&self) -> BrokerScheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user to log in as.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password of that user. Never without a user: MQTT 3.1.1 has no such thing.
    pub fn password(&self) -> Option<&Zeroizing<String>> {
        self.password.as_ref()
    }

    /// The path for a WebSocket, without its query; empty without one.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query of that path, which may hold a secret.
    pub fn query(&self) -> Option<&Zeroizing<String>> {
        self.query.as_ref()
    }

    fn from_host_port(text: &str) -> Result<Self, ServerError> {
        let fail = |what: String| ServerError::new(what, FORM);
        // A user stands in a URL only. This comes first, for it keeps a password out of errors.
        if text.contains(['@', '/', '?', '#']) {
            return Err(fail("there is no `mqtt://` or the like before it".to_owned()));
        }
        let (host, port) = host_and_port(text).map_err(|e: HostPortError| fail(e.to_string()))?;
        let scheme = BrokerScheme::Mqtt;
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
            username: None,
            password: None,
            path: String::new(),
            query: None,
        })
    }

    fn from_url(scheme: &str, after_scheme: &str, text: &str) -> Result<Self, ServerError> {
        let fail = |what: &str| ServerError::new(what, FORM);
        let scheme = BrokerScheme::from_text(&scheme.to_ascii_lowercase())
            .ok_or_else(|| fail("the part before `://` is unknown"))?;
        let url = Url::parse(text).map_err(|e| ServerError::new(e.to_string(), FORM))?;
        let host = url.host_str().ok_or_else(|| fail("there is no host"))?;
        let host = parse_host(host).map_err(|e| ServerError::new(e.to_string(), FORM))?;
        if url.port() == Some(0) {
            return Err(fail("the port is not a number from 1 to 65535"));
        }
        let username = credential(url.username(), "the user", FORM)?;
        let password = credential(url.password().unwrap_or_default(), "the password", FORM)?;
        if password.is_some() && username.is_none() {
            return Err(fail("there is a password without a user"));
        }
        if url.fragment().is_some() {
            return Err(fail("it contains `#` (write %23 if it belongs to the password)"));
        }
        let (path, query) = if scheme.is_websocket() {
            // `Url` gives the path "/" also to an address without any.
            let path = if after_scheme.contains('/') { url.path() } else { DEFAULT_PATH };
            (path.to_owned(), url.query().map(|query| Zeroizing::new(query.to_owned())))
        } else if matches!(url.path(), "" | "/") && url.query().is_none() {
            (String::new(), None)
        } else {
            return Err(fail("only ws:// and wss:// addresses have a path"));
        };
        Ok(Self {
            scheme,
            host,
            port: url.port().unwrap_or(scheme.default_port()),
            username: username.map(|name| name.to_string()),
            password,
            path,
            query,
        })
    }
}

impl FromStr for BrokerUrl {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        check_text(text, FORM)?;
        match text.split_once("://") {
            Some((scheme, rest)) => Self::from_url(scheme, rest, text),
            None => Self::from_host_port(text),
        }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Some(username) = &self.username {
            let hidden = if self.password.is_some() { ":(hidden)" } else { "" };
            write!(f, "{}{hidden}@", username.escape_debug())?;
        }
        let hidden = if self.query.is_some() { "?(hidden)" } else { "" };
        write!(f, "{}:{}{}{hidden}", self.host, self.port, self.path)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}
