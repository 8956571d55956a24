//! Which brokers, how to reach them and whom to trust.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use qanah_core::servers::{Host, ProxyChoice};
use zeroize::Zeroizing;

use super::MqttError;
use super::identity::Identity;
use super::trust::Trust;

/// How a broker is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
}

impl Scheme {
    /// Whether the connection is encrypted and the broker's certificate verified.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether MQTT travels in a WebSocket.
    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// Where a broker is. Shown without user and password and without what the query says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    /// How it is spoken to.
    pub(crate) scheme: Scheme,
    /// A name or an IP address; an IPv6 address without brackets.
    pub(crate) host: String,
    /// The TCP port.
    pub(crate) port: u16,
    /// With WebSocket: the path, with its leading slash, or nothing.
    pub(crate) path: String,
    /// With WebSocket: the query behind the path, without its `?`. It may hold a secret.
    pub(crate) query: Option<Zeroizing<String>>,
    /// The user name, if one is needed.
    pub(crate) user: Option<String>,
    /// The password, if one is needed.
    pub(crate) password: Option<Zeroizing<String>>,
}

impl BrokerAddress {
    /// The host as what it is: a name or an address.
    pub(super) fn parsed_host(&self) -> Host {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => Host::Ipv4(ip),
            Ok(IpAddr::V6(ip)) => Host::Ipv6(ip),
            Err(_) => Host::Domain(self.host.clone()),
        }
    }

    /// The whole URL but for user and password. Not to be shown: see [`BrokerAddress::query`].
    pub(super) fn uri(&self) -> Zeroizing<String> {
        Zeroizing::new(self.with_query(self.query.as_ref().map(|query| query.as_str())))
    }

    fn with_query(&self, query: Option<&str>) -> String {
        let Self { scheme, host, port, .. } = self;
        let (path, query) = match scheme {
            Scheme::Ws | Scheme::Wss => (self.path.as_str(), query),
            Scheme::Mqtt | Scheme::Mqtts => ("", None),
        };
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let scheme = scheme.name();
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}{path}{mark}{query}")
        } else {
            format!("{scheme}://{host}:{port}{path}{mark}{query}")
        }
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_query(self.query.as_ref().map(|_| "(hidden)")))
    }
}

impl fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerAddress({self})")
    }
}

/// Which brokers, how they are reached, and whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// All are used at once.
    pub(crate) brokers: Vec<BrokerAddress>,
    /// PEM certificates that are trusted beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), for brokers that want one; with its key.
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub(crate) key_file: Option<PathBuf>,
    /// Which of them are reached through a proxy.
    pub(crate) proxies: ProxyChoice,
}

impl Settings {
    /// Looks at the files.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(crate) fn check(&self) -> Result<(), MqttError> {
        self.trust().map(drop)
    }

    pub(super) fn trust(&self) -> Result<Trust, MqttError> {
        let mut trust = Trust::new(self.ca_file.as_deref())?;
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            trust.identity = Some(Identity::new(cert, key)?);
        }
        Ok(trust)
    }
}
