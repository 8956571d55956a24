//! Values of single keys.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::error::ErrorKind;
use super::keys::squeeze;
use super::{MAX_MTU, MAX_PEER_NAME_LEN, MIN_MTU, Table};
use crate::key::KeyError;
use crate::servers::host_and_port;

/// Longest name of a routing table, in bytes. Nobody sets a limit; some limit there must be.
const MAX_TABLE_NAME: usize = 32;

const PREFIX: &str = "an address with an optional prefix length, such as 10.0.0.2/32 or \
                      fd00::2/128 (IPv4 up to /32, IPv6 up to /128)";
const PORT: &str = "a port from 0 to 65535 such as 51820";
const MTU: &str = "a number of bytes from 576 to 65535 such as 1400";
const MARK: &str = "`off`, or a number up to 0xffffffff such as 51820 or 0xca6c";
const TABLE: &str = "`auto`, `off`, or a routing table by number (1 to 4294967295) or name";
const KEEPALIVE: &str = "`off`, or a number of seconds from 0 to 65535 such as 25";
const DOMAIN: &str = "the address of a name server such as 10.0.0.53, or a search domain such as \
                      example.com";
const ENDPOINT: &str = "a host and a port such as 192.0.2.1:51820, [2001:db8::1]:51820 or \
                        vpn.example.com:51820";

/// Reads a key. wg(8) drops white space anywhere, so this does too.
pub(super) fn key<K: FromStr<Err = KeyError>>(
    value: &str,
    expected: &'static str,
) -> Result<K, ErrorKind> {
    let text = Zeroizing::new(squeeze(value));
    if text.is_empty() {
        return Err(ErrorKind::Empty(expected));
    }
    text.parse().map_err(ErrorKind::Key)
}

/// Splits where wg-quick(8) does: at commas and white space, without regard to empty pieces.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// Reads an address with an optional prefix length; without one it is a single host.
pub(super) fn prefix(text: &str) -> Result<IpNet, ErrorKind> {
    let bad = || ErrorKind::value(text, PREFIX);
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let Some(length) = length else {
        return Ok(IpNet::from(address));
    };
    let length = number(length).and_then(|n| u8::try_from(n).ok()).ok_or_else(bad)?;
    IpNet::new(address, length).map_err(|_| bad())
}

/// Reads one `AllowedIPs` line into prefixes as written, host bits included.
///
/// Newer releases of wg(8) read `+` and `-` before an entry, for `wg set` to change a list
/// step by step. A file states the whole list: there `+` means what no sign means, and is
/// accepted, while `-` would take away from a list that does not exist, and is an error.
pub(super) fn allowed_ips(value: &str) -> Result<Vec<IpNet>, ErrorKind> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value
        .split(',')
        .map(|entry| {
            let entry = entry.trim();
            if entry.starts_with('-') {
                return Err(ErrorKind::Subtraction(
                    super::error::quote(entry).unwrap_or_else(|| "an entry".to_owned()),
                ));
            }
            let entry = entry.strip_prefix('+').unwrap_or(entry);
            if entry.is_empty() {
                return Err(ErrorKind::Empty("an address between the commas"));
            }
            if entry.contains(char::is_whitespace) && words(entry).all(|w| prefix(w).is_ok()) {
                return Err(ErrorKind::value(entry, "commas between the addresses"));
            }
            prefix(&squeeze(entry))
        })
        .collect()
}

/// Reads a decimal number without sign; `None` also when it does not fit.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads a decimal number, or a hexadecimal one with `0x`.
fn number_or_hex(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => number(text),
    }
}

fn port_number(text: &str) -> Option<u16> {
    number(text).and_then(|n| u16::try_from(n).ok())
}

/// Reads `ListenPort`; 0 is "any port", as when the key is not there.
pub(super) fn listen_port(value: &str) -> Result<Option<u16>, ErrorKind> {
    let port = port_number(&squeeze(value)).ok_or_else(|| ErrorKind::value(value, PORT))?;
    Ok((port != 0).then_some(port))
}

/// Reads `MTU`; an empty one is the default, as for wg-quick(8).
pub(super) fn mtu(value: &str) -> Result<u32, ErrorKind> {
    if value.is_empty() {
        return Ok(super::DEFAULT_MTU);
    }
    let mtu = number(value).ok_or_else(|| ErrorKind::value(value, MTU))?;
    if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
        return Err(ErrorKind::MtuRange);
    }
    Ok(mtu)
}

/// Reads `FwMark`; 0 and `off` are none.
pub(super) fn fw_mark(value: &str) -> Result<Option<u32>, ErrorKind> {
    let text = squeeze(value);
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let mark = number_or_hex(&text).ok_or_else(|| ErrorKind::value(value, MARK))?;
    Ok((mark != 0).then_some(mark))
}

/// Reads `Table`; an empty one is `auto`, as for wg-quick(8). The names that the kernel itself
/// defines (RT_TABLE_* in rtnetlink(7)) become numbers.
pub(super) fn table(value: &str) -> Result<Table, ErrorKind> {
    let lower = value.to_ascii_lowercase();
    let named = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    match lower.as_str() {
        "" | "auto" => Ok(Table::Auto),
        "off" => Ok(Table::Off),
        "default" => Ok(Table::Id(253)),
        "main" => Ok(Table::Id(254)),
        "local" => Ok(Table::Id(255)),
        text if text.starts_with(|c: char| c.is_ascii_digit()) => match number_or_hex(text) {
            Some(id) if id != 0 => Ok(Table::Id(id)),
            _ => Err(ErrorKind::value(value, TABLE)),
        },
        text if text.len() <= MAX_TABLE_NAME
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && value.chars().all(named) =>
        {
            Ok(Table::Name(value.to_owned()))
        }
        _ => Err(ErrorKind::value(value, TABLE)),
    }
}

/// Reads `SaveConfig`.
pub(super) fn boolean(value: &str) -> Result<bool, ErrorKind> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err(ErrorKind::value(value, "`true` or `false`"))
    }
}

/// Reads `PersistentKeepalive`; 0 and `off` are none.
pub(super) fn keepalive(value: &str) -> Result<Option<u16>, ErrorKind> {
    let text = squeeze(value);
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let seconds = port_number(&text).ok_or_else(|| ErrorKind::value(value, KEEPALIVE))?;
    Ok((seconds != 0).then_some(seconds))
}

/// One word of a `DNS` line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DnsWord {
    Server(IpAddr),
    Search(String),
}

/// Reads one word of a `DNS` line. Like wg-quick(8), digits and dots alone or any colon mean an
/// address. Domains are limited to what is safe to write into a resolver's configuration.
pub(super) fn dns_word(word: &str) -> Result<DnsWord, ErrorKind> {
    let bad = || ErrorKind::value(word, DOMAIN);
    if word.contains(':') || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return word.parse().map(DnsWord::Server).map_err(|_| bad());
    }
    let domain = word.strip_prefix('~').unwrap_or(word);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let root_only = word == "~.";
    let labels_ok = domain.strip_suffix('.').unwrap_or(domain).split('.').all(label_ok);
    if root_only || (domain.len() <= 253 && labels_ok) {
        return Ok(DnsWord::Search(word.to_owned()));
    }
    Err(bad())
}

/// Where plain WireGuard would find a peer. Kept for output only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name or an address; IPv6 without brackets.
    pub host: String,
    /// UDP port, not 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `Endpoint`. IPv6 addresses may have a zone (`fe80::1%eth0`), as getaddrinfo(3) takes
/// it, and may come without brackets: wg(8) splits at the last colon then.
pub(super) fn endpoint(value: &str) -> Result<Endpoint, ErrorKind> {
    let text = squeeze(value);
    let bad = || ErrorKind::value(value, ENDPOINT);
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let (address, zone) = inner.split_once('%').unwrap_or((inner, "-"));
    if address.parse::<Ipv6Addr>().is_ok() {
        let zone_ok = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic());
        let port = port_number(port).filter(|&port| port != 0 && zone_ok).ok_or_else(bad)?;
        return Ok(Endpoint { host: inner.to_owned(), port });
    }
    match host_and_port(&text) {
        Ok((host, Some(port))) => Ok(Endpoint { host: host.to_string(), port }),
        _ => Err(bad()),
    }
}

/// The name in a comment such as `Name = bob`; `None` when the comment is about something else,
/// an error with the reason when the name cannot be used.
pub(super) fn peer_name(comment: &str) -> Option<Result<String, &'static str>> {
    let (key, name) = comment.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("name") {
        return None;
    }
    let name = name.trim();
    // Invisible characters and those that turn the direction of text make one name look like
    // another one, or the rest of a line like something else.
    let invisible = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    Some(if name.is_empty() {
        Err("is empty")
    } else if name.chars().count() > MAX_PEER_NAME_LEN {
        Err("is longer than 64 characters")
    } else if name.chars().any(|c| c.is_control() || invisible(c)) {
        Err("contains a character that cannot be shown")
    } else {
        Ok(name.to_owned())
    })
}
