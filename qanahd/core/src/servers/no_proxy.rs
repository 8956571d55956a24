//! Where a proxy is not used: what the environment variable `NO_PROXY` says.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

use super::host_and_port;

/// Servers that are reached straight. The variable has no standard; this takes the forms that curl
/// and Go take alike: `*`, a domain (with its subdomains, with or without a dot or `*.` before it), an
/// address, a prefix, each with a port where there can be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    what: What,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Everything,
    Domain(String),
    Prefix(IpNet),
}

impl NoProxy {
    /// Reads a list that is separated by commas or white space. What is none of the forms matches
    /// nothing, as everywhere: the variable may have been written for another program.
    pub fn parse(text: &str) -> Self {
        let items = text.split(|c: char| c == ',' || c.is_whitespace());
        Self(items.filter_map(Exception::parse).collect())
    }

    /// Whether this server is to be reached straight.
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        self.0.iter().any(|exception| {
            exception.port.is_none_or(|own| own == port) && exception.what.covers(host)
        })
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let any_port = |what| Some(Self { what, port: None });
        if text == "*" {
            return any_port(What::Everything);
        }
        if let Ok(prefix) = text.parse::<IpNet>() {
            return any_port(What::Prefix(prefix));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return any_port(What::Prefix(ip.into()));
        }
        let name = text.strip_prefix('*').unwrap_or(text);
        let (host, port) = host_and_port(name.strip_prefix('.').unwrap_or(name)).ok()?;
        let what = match host {
            Host::Domain(name) => What::Domain(normal(&name)),
            Host::Ipv4(ip) => What::Prefix(IpAddr::from(ip).into()),
            Host::Ipv6(ip) => What::Prefix(IpAddr::from(ip).into()),
        };
        Some(Self { what, port })
    }
}

impl What {
    fn covers(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Domain(domain), Host::Domain(name)) => {
                let name = normal(name);
                let rest = name.strip_suffix(domain.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Prefix(prefix), Host::Ipv4(ip)) => prefix.contains(&IpAddr::from(*ip)),
            (Self::Prefix(prefix), Host::Ipv6(ip)) => prefix.contains(&IpAddr::from(*ip)),
            _ => false,
        }
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_other_programs() {
        let list = NoProxy::parse(
            "example.com, .dot.example *.star.example,ported.example:8883  192.0.2.7,10.0.0.0/8,\
             2001:db8::/32 [2001:db9::1]:443, ,http://x,bad:port",
        );
        let covers = |host: &str, port| list.covers(&Host::parse(host).unwrap(), port);
        for (host, port) in [
            ("example.com", 1),
            ("EXAMPLE.com.", 1),
            ("a.b.example.com", 1),
            ("dot.example", 1),
            ("a.dot.example", 1),
            ("a.star.example", 1),
            ("ported.example", 8883),
            ("192.0.2.7", 1),
            ("10.1.2.3", 1),
            ("[2001:db8::9]", 1),
            ("[2001:db9::1]", 443),
        ] {
            assert!(covers(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("notexample.com", 1),
            ("example.com.evil.example", 1),
            ("ported.example", 443),
            ("192.0.2.8", 1),
            ("[2001:db9::1]", 80),
            ("x", 1),
        ] {
            assert!(!covers(host, port), "{host}:{port}");
        }
        assert!(NoProxy::parse("*").covers(&Host::parse("anything").unwrap(), 1));
        assert!(!NoProxy::parse("").covers(&Host::parse("anything").unwrap(), 1));
    }
}
