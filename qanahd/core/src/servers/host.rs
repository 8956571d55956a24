//! `HOST:PORT`.

use thiserror::Error;
use url::Host;

/// Longest host name in the DNS, in bytes as text (RFC 1035, section 2.3.4).
const MAX_HOST_LEN: usize = 253;

/// Why a text is not `HOST:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HostPortError {
    #[error("the host is not a name or an address")]
    Host,
    #[error("an IPv6 address needs brackets, as in [2001:db8::1]:3478")]
    Brackets,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
pub(crate) fn host_and_port(text: &str) -> Result<(Host, Option<u16>), HostPortError> {
    let host_len = match text.strip_prefix('[') {
        Some(_) => text.find(']').ok_or(HostPortError::Host)? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at_checked(host_len).ok_or(HostPortError::Host)?;
    if !text.starts_with('[') && text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(HostPortError::Brackets);
    }
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(parse_port(port)?),
        None if rest.is_empty() => None,
        None => return Err(HostPortError::Port),
    };
    Ok((parse_host(name)?, port))
}

/// Reads a host: a name, an IPv4 address or a bracketed IPv6 address.
pub(super) fn parse_host(text: &str) -> Result<Host, HostPortError> {
    // `Host::parse` decodes percent signs and maps Unicode; a name with either is hardly meant,
    // and one that maps to another name is a way to fool a reader.
    if text.is_empty() || text.len() > MAX_HOST_LEN || text.contains('%') {
        return Err(HostPortError::Host);
    }
    let host = Host::parse(text).map_err(|_| HostPortError::Host)?;
    let name_char = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match &host {
        Host::Domain(name) => {
            let labels = name.strip_suffix('.').unwrap_or(name).split('.');
            let labels_ok = labels.into_iter().all(|l| (1..=63).contains(&l.len()));
            // Letters outside ASCII are fine: they became `xn--` by now.
            if !labels_ok || !name.bytes().all(name_char) || name.starts_with('-') {
                return Err(HostPortError::Host);
            }
        }
        // `127.1` and `0x7f000001` are addresses for browsers only.
        Host::Ipv4(address) if address.to_string() != text => return Err(HostPortError::Host),
        Host::Ipv4(_) | Host::Ipv6(_) => {}
    }
    Ok(host)
}

/// Reads a port, 1 to 65535, in digits alone.
pub(super) fn parse_port(text: &str) -> Result<u16, HostPortError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostPortError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(HostPortError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("example.com.:1", "example.com.", Some(1)),
            ("EXAMPLE.com:65535", "example.com", Some(65535)),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("[::1]:3478", "[::1]", Some(3478)),
            ("bücher.example:1", "xn--bcher-kva.example", Some(1)),
            ("my_broker:1883", "my_broker", Some(1883)),
        ] {
            let (found, found_port) = host_and_port(text).unwrap();
            assert_eq!((found.to_string().as_str(), found_port), (host, port), "{text}");
        }
    }

    #[test]
    fn everything_else_is_an_error() {
        for (text, error) in [
            ("", HostPortError::Host),
            (":1", HostPortError::Host),
            ("a:", HostPortError::Port),
            ("a:0", HostPortError::Port),
            ("a:+1", HostPortError::Port),
            ("a:65536", HostPortError::Port),
            ("a:1:2", HostPortError::Port),
            ("[::1", HostPortError::Host),
            ("[::1]1", HostPortError::Port),
            ("[1.2.3.4]:1", HostPortError::Host),
            ("2001:db8::1", HostPortError::Brackets),
            ("a b", HostPortError::Host),
            ("a/b", HostPortError::Host),
            ("a..b", HostPortError::Host),
            ("-a", HostPortError::Host),
            ("127.1", HostPortError::Host),
            ("1.2.3.256", HostPortError::Host),
            ("%61", HostPortError::Host),
        ] {
            assert_eq!(host_and_port(text).unwrap_err(), error, "{text}");
        }
    }
}
