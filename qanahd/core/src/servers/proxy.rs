//! HTTP proxies that connections are made through, with CONNECT (RFC 9110, section 9.3.6).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::host::{host_and_port, parse_host};
use super::userinfo::credential;
use super::{NoProxy, ServerError, check_text};

const FORM: &str = "http://[USER:PASSWORD@]HOST:PORT such as http://proxy.example.com:3128";

/// Port of a proxy whose address has none: that of the scheme.
const PORT: u16 = 80;

/// The address of an HTTP proxy, with credentials if any. Neither `Display` nor `Debug` shows the
/// password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    host: Host,
    port: u16,
    user: Option<Zeroizing<String>>,
    password: Option<Zeroizing<String>>,
}

impl ProxyUrl {
    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the header `Proxy-Authorization` says (RFC 7617): the word `Basic` and the user with the
    /// password; nothing without a user.
    pub fn authorization(&self) -> Option<Zeroizing<String>> {
        let user = self.user.as_ref()?;
        let password = self.password.as_ref().map_or("", |password| password.as_str());
        let pair = Zeroizing::new(format!("{}:{password}", user.as_str()));
        Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }

    fn from_url(text: &str) -> Result<Self, ServerError> {
        let fail = |what: &str| ServerError::new(what, FORM);
        let url = Url::parse(text).map_err(|e| ServerError::new(e.to_string(), FORM))?;
        match url.scheme() {
            "http" => {}
            "https" => return Err(fail("a proxy that is spoken to over TLS is not supported")),
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(fail("a SOCKS proxy is not supported"));
            }
            _ => return Err(fail("the part before `://` is unknown")),
        }
        let host = url.host_str().ok_or_else(|| fail("there is no host"))?;
        let host = parse_host(host).map_err(|e| ServerError::new(e.to_string(), FORM))?;
        if url.port() == Some(0) {
            return Err(fail("the port is not a number from 1 to 65535"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(fail("there is something behind the port"));
        }
        let user = credential(url.username(), "the user", FORM)?;
        let password = credential(url.password().unwrap_or_default(), "the password", FORM)?;
        if password.is_some() && user.is_none() {
            return Err(fail("there is a password without a user"));
        }
        // RFC 7617, section 2: what is before the first colon is the user.
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(fail("the user holds a colon"));
        }
        Ok(Self { host, port: url.port().unwrap_or(PORT), user, password })
    }
}

impl FromStr for ProxyUrl {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        check_text(text, FORM)?;
        if text.contains("://") {
            return Self::from_url(text);
        }
        // A user stands in a URL only. This comes first, for it keeps a password out of errors.
        if text.contains(['@', '/', '?', '#']) {
            return Err(ServerError::new("there is no `http://` before it", FORM));
        }
        let (host, port) =
            host_and_port(text).map_err(|e| ServerError::new(e.to_string(), FORM))?;
        Ok(Self { host, port: port.unwrap_or(PORT), user: None, password: None })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://")?;
        if self.user.is_some() {
            f.write_str("(hidden)@")?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// Which connections go through which proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyChoice {
    /// The proxy, if there is one.
    pub proxy: Option<ProxyUrl>,
    /// Where it is not used.
    pub except: NoProxy,
}

impl ProxyChoice {
    /// The proxy to reach this server through; nothing means straight.
    ///
    /// The machine itself is never reached through a proxy: to that, `localhost` is another one.
    pub fn to(&self, host: &Host, port: u16) -> Option<&ProxyUrl> {
        let proxy = self.proxy.as_ref()?;
        let own = match host {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name.eq_ignore_ascii_case("localhost")
                    || name.to_ascii_lowercase().ends_with(".localhost")
            }
            Host::Ipv4(ip) => ip.is_loopback() || ip.is_unspecified(),
            Host::Ipv6(ip) => ip.is_loopback() || ip.is_unspecified(),
        };
        (!own && !self.except.covers(host, port)).then_some(proxy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ProxyUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_credentials() {
        for (text, shown, authorization) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128", None),
            ("http://proxy.example.com/", "http://proxy.example.com:80", None),
            ("proxy:8080", "http://proxy:8080", None),
            ("[2001:db8::1]:8080", "http://[2001:db8::1]:8080", None),
            // The example of RFC 7617, section 2.
            (
                "http://Aladdin:open%20sesame@p:1",
                "http://(hidden)@p:1",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
            ("http://u@p:1", "http://(hidden)@p:1", Some("Basic dTo=")),
        ] {
            let proxy = parse(text);
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("ProxyUrl({shown})"));
            assert_eq!(proxy.authorization().as_ref().map(|text| text.as_str()), authorization);
        }
    }

    #[test]
    fn what_cannot_be_used_says_why_without_the_password() {
        for (text, what) in [
            ("", "empty"),
            ("https://u:hunter2@p:1", "over TLS"),
            ("socks5://u:hunter2@p:1", "SOCKS"),
            ("ftp://u:hunter2@p", "before `://`"),
            ("u:hunter2@p:1", "no `http://`"),
            ("http://u:hunter2@", "host"),
            ("http://u:hunter2@p:0", "port"),
            ("http://:hunter2@p:1", "password without a user"),
            ("http://a%3ab:hunter2@p:1", "colon"),
            ("http://u:hunter2%0d%0aX@p:1", "the password is not"),
            ("http://u:hunter2@p:1/x", "behind the port"),
            ("http://u:hunter2@p:1?x", "behind the port"),
            ("http://p q:1", "white space"),
            ("p:x", "port"),
        ] {
            let message = text.parse::<ProxyUrl>().unwrap_err().to_string();
            assert!(message.contains(what) && message.contains("such as http://"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn the_machine_itself_and_exceptions_are_reached_straight() {
        let choice = ProxyChoice {
            proxy: Some(parse("p:1")),
            except: NoProxy::parse("example.com,192.0.2.0/24"),
        };
        let through = |text: &str| choice.to(&Host::parse(text).unwrap(), 443).is_some();
        for text in ["example.org", "localhost.example.org", "192.0.3.1", "[2001:db8::1]"] {
            assert!(through(text), "{text}");
        }
        for text in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "0.0.0.0",
            "a.example.com",
            "192.0.2.7",
        ] {
            assert!(!through(text), "{text}");
        }
        assert_eq!(ProxyChoice::default().to(&Host::parse("example.org").unwrap(), 1), None);
    }
}
