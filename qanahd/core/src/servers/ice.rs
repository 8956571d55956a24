//! STUN and TURN servers: `stun:` (RFC 7064) and `turn:` (RFC 7065) URIs.

use std::fmt;
use std::str::FromStr;

use url::Host;

use super::host::{HostPortError, host_and_port};
use super::{ServerError, Unsupported, check_text};

/// STUN servers that are asked when the user names none.
pub const DEFAULT_STUN: [&str; 2] =
    ["stun:stun.l.google.com:19302", "stun:stun1.l.google.com:19302"];

/// Port of `stun:` and `turn:` (RFC 8489 and RFC 8656).
const PORT: u16 = 3478;
/// Port of `turns:`.
const TLS_PORT: u16 = 5349;

const STUN_FORM: &str = "stun:HOST[:PORT] such as stun:stun.example.com:3478";
const TURN_FORM: &str = "turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT] such as \
                         turn:turn.example.com:3478";

/// A STUN server, asked over UDP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StunUrl {
    host: Host,
    port: u16,
}

impl StunUrl {
    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The servers of [`DEFAULT_STUN`].
    pub fn defaults() -> Vec<Self> {
        DEFAULT_STUN.into_iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl FromStr for StunUrl {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let fail = |what: String| ServerError::new(what, STUN_FORM);
        check_text(text, STUN_FORM)?;
        let (scheme, rest) = split_scheme(text, STUN_FORM)?;
        match scheme.as_str() {
            "stun" => {}
            "stuns" => {
                let why = "stuns: (STUN over TLS) cannot find a UDP path, which is what STUN is \
                           for here";
                return Err(fail(why.to_owned()));
            }
            "turn" | "turns" => return Err(fail("this is a TURN server (--turn-url)".to_owned())),
            _ => return Err(fail(format!("`{scheme}:` is not a STUN address"))),
        }
        if rest.contains('?') {
            return Err(fail("a stun: address has no `?` part (RFC 7064)".to_owned()));
        }
        let (host, port) = host_and_port(rest).map_err(|e: HostPortError| fail(e.to_string()))?;
        Ok(Self { host, port: port.unwrap_or(PORT) })
    }
}

impl fmt::Display for StunUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stun:{}:{}", self.host, self.port)
    }
}

/// Whether a TURN server is spoken to in the clear or under TLS (DTLS with UDP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnScheme {
    /// `turn:`
    Turn,
    /// `turns:`
    Turns,
}

/// What carries the messages to a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnTransport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
}

/// A TURN server. User name and credential are given apart, as in WebRTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TurnUrl {
    scheme: TurnScheme,
    host: Host,
    port: u16,
    transport: TurnTransport,
}

impl TurnUrl {
    /// In the clear or under TLS.
    pub fn scheme(&self) -> TurnScheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The transport; without one in the text UDP for `turn:` and TCP for `turns:`.
    pub fn transport(&self) -> TurnTransport {
        self.transport
    }

    /// Whether the daemon can use this server.
    ///
    /// # Errors
    /// For TURN over DTLS (`turns:` with UDP), which nothing here speaks. To skip such a server would
    /// leave the user without the relay that they count on.
    pub fn supported(&self) -> Result<(), Unsupported> {
        match (self.scheme, self.transport) {
            (TurnScheme::Turns, TurnTransport::Udp) => Err(Unsupported {
                server: self.to_string(),
                why: "there is no TURN over DTLS here; turns: goes over TLS (transport=tcp)",
            }),
            _ => Ok(()),
        }
    }
}

impl FromStr for TurnUrl {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let fail = |what: String| ServerError::new(what, TURN_FORM);
        check_text(text, TURN_FORM)?;
        // A credential in the text must not come back in an error, so this goes first.
        if text.contains('@') {
            let what = "a TURN address holds no user (use --turn-username, --turn-credential)";
            return Err(fail(what.to_owned()));
        }
        let (scheme, rest) = split_scheme(text, TURN_FORM)?;
        let scheme = match scheme.as_str() {
            "turn" => TurnScheme::Turn,
            "turns" => TurnScheme::Turns,
            "stun" | "stuns" => return Err(fail("this is a STUN server (--stun)".to_owned())),
            _ => return Err(fail(format!("`{scheme}:` is not a TURN address"))),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_ascii_lowercase())),
            None => (rest, None),
        };
        let transport = match (query.as_deref(), scheme) {
            (None, TurnScheme::Turn) | (Some("transport=udp"), _) => TurnTransport::Udp,
            (None, TurnScheme::Turns) | (Some("transport=tcp"), _) => TurnTransport::Tcp,
            _ => {
                let what = "after `?` only transport=udp or transport=tcp is known (RFC 7065)";
                return Err(fail(what.to_owned()));
            }
        };
        let (host, port) = host_and_port(rest).map_err(|e: HostPortError| fail(e.to_string()))?;
        let default = if scheme == TurnScheme::Turns { TLS_PORT } else { PORT };
        Ok(Self { scheme, host, port: port.unwrap_or(default), transport })
    }
}

impl fmt::Display for TurnUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            TurnScheme::Turn => "turn",
            TurnScheme::Turns => "turns",
        };
        let transport = match self.transport {
            TurnTransport::Udp => "udp",
            TurnTransport::Tcp => "tcp",
        };
        write!(f, "{scheme}:{}:{}?transport={transport}", self.host, self.port)
    }
}

/// Splits `SCHEME:REST`, the scheme in lower case (RFC 3986, section 3.1), and refuses the `//`
/// that these two schemes do not have.
fn split_scheme<'a>(
    text: &'a str,
    expected: &'static str,
) -> Result<(String, &'a str), ServerError> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.len() <= 16
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = text
        .split_once(':')
        .filter(|(scheme, _)| is_scheme(scheme))
        .ok_or_else(|| ServerError::new("there is no `stun:` or `turn:` before it", expected))?;
    if rest.starts_with("//") {
        return Err(ServerError::new("there are no slashes after the colon", expected));
    }
    Ok((scheme.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_addresses_of_rfc_7064() {
        for (text, shown) in [
            ("stun:example.org", "stun:example.org:3478"),
            ("STUN:example.org:8000", "stun:example.org:8000"),
            ("stun:[2001:db8::1]:1", "stun:[2001:db8::1]:1"),
            ("stun:192.0.2.1", "stun:192.0.2.1:3478"),
        ] {
            assert_eq!(text.parse::<StunUrl>().unwrap().to_string(), shown);
        }
        let defaults: Vec<String> = StunUrl::defaults().iter().map(ToString::to_string).collect();
        assert_eq!(defaults, DEFAULT_STUN);
    }

    #[test]
    fn wrong_stun_addresses_say_what_was_expected() {
        for (text, what) in [
            ("", "empty"),
            ("example.org", "no `stun:`"),
            ("example.org:3478", "`example.org:` is not a STUN"),
            ("stuns:example.org", "STUN over TLS"),
            ("stun://example.org", "no slashes"),
            ("turn:example.org", "--turn-url"),
            ("stun:example.org?transport=udp", "no `?` part"),
            ("stun:2001:db8::1", "brackets"),
            ("stun:example.org:0", "port"),
            ("stun:", "host"),
            ("stun:a b", "white space"),
        ] {
            let message = text.parse::<StunUrl>().unwrap_err().to_string();
            assert!(message.contains(what) && message.contains("such as stun:"), "{message}");
        }
    }

    #[test]
    fn turn_addresses_of_rfc_7065() {
        for (text, shown, supported) in [
            ("turn:example.org", "turn:example.org:3478?transport=udp", true),
            ("turn:example.org:8000?transport=UDP", "turn:example.org:8000?transport=udp", true),
            ("turn:[::1]?transport=tcp", "turn:[::1]:3478?transport=tcp", true),
            ("turns:example.org", "turns:example.org:5349?transport=tcp", true),
            ("turns:example.org:443?transport=tcp", "turns:example.org:443?transport=tcp", true),
            ("turns:example.org:443?transport=udp", "turns:example.org:443?transport=udp", false),
        ] {
            let url: TurnUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<TurnUrl>().unwrap(), url);
            assert_eq!(url.supported().is_ok(), supported);
        }
        let dtls: TurnUrl = "turns:example.org?transport=udp".parse().unwrap();
        assert_eq!(
            dtls.supported().unwrap_err().to_string(),
            "turns:example.org:5349?transport=udp cannot be used: there is no TURN over DTLS here; \
             turns: goes over TLS (transport=tcp)"
        );
    }

    #[test]
    fn wrong_turn_addresses_say_what_was_expected() {
        for (text, what) in [
            ("turn:u:hunter2@example.org", "--turn-credential"),
            ("hunter2@example.org", "--turn-credential"),
            ("stun:example.org", "--stun"),
            ("turn:example.org?transport=sctp", "transport=udp"),
            ("turn:example.org?x=1", "transport=udp"),
            ("turn://example.org", "no slashes"),
            ("turn:example.org:99999", "port"),
            ("http:example.org", "`http:`"),
        ] {
            let message = text.parse::<TurnUrl>().unwrap_err().to_string();
            assert!(message.contains(what) && message.contains("such as turn:"), "{message}");
            assert!(!message.contains("hunter2"));
        }
    }
}
