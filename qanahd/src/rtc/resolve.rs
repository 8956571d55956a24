//! Names of STUN and TURN servers, without waiting for DNS.
//!
//! `webrtc` resolves the names one after another in its driver and does nothing else meanwhile: no
//! candidate leaves, no packet is read. So it is never made to wait. A name that is not known yet is
//! answered with a placeholder, an address that no packet can go to; the socket puts the real one in
//! its place as soon as it is known, and until then the request is lost like any datagram and sent
//! again by the STUN or TURN client (for about 8 s).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long an answer is used before it is asked for again. The old one serves meanwhile.
const FRESH: Duration = Duration::from_secs(300);
/// How soon a name that was not found is asked for again.
const RETRY: Duration = Duration::from_secs(10);
/// Most names; they come from the configuration, so this only stops a mistake.
const MAX_NAMES: usize = 256;

/// Looks up names in threads of its own and remembers the answers. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Resolver(Arc<Known>);

#[derive(Default)]
struct Known {
    entries: Mutex<Vec<Entry>>,
    /// A lookup has ended.
    ended: Notify,
}

struct Entry {
    host: String,
    port: u16,
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    /// When the last lookup ended.
    asked: Option<Instant>,
    in_flight: bool,
}

impl Entry {
    fn real(&self, v4: bool) -> Option<SocketAddr> {
        if v4 { self.v4 } else { self.v6 }
    }

    fn is_due(&self, now: Instant) -> bool {
        let found = self.v4.is_some() || self.v6.is_some();
        let age = self.asked.map(|asked| now.saturating_duration_since(asked));
        !self.in_flight && age.is_none_or(|age| age > if found { FRESH } else { RETRY })
    }
}

/// 240.0.0.0/16 is reserved for ever (RFC 1112), 100::/64 is the discard prefix (RFC 6666).
fn placeholder(index: u16, port: u16, v4: bool) -> SocketAddr {
    let [high, low] = index.to_be_bytes();
    let ip = if v4 {
        IpAddr::V4(Ipv4Addr::new(240, 0, high, low))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, index))
    };
    SocketAddr::new(ip, port)
}

fn placeholder_index(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [240, 0, high, low] => Some(u16::from_be_bytes([high, low]).into()),
            _ => None,
        },
        IpAddr::V6(ip) => match ip.segments() {
            [0x100, 0, 0, 0, 0, 0, 0, index] => Some(index.into()),
            _ => None,
        },
    }
}

/// Where a datagram really goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// There, as it says.
    Direct,
    /// To a server whose name is known by now.
    Named(SocketAddr),
    /// To a server whose name is not known (yet).
    Unknown,
}

impl Resolver {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to look up the names in URLs like `stun:HOST:PORT`, so that they are known when the first
    /// connection is made. Returns at once.
    pub(crate) fn prefetch<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        for url in urls {
            let rest = url.split_once(':').map_or("", |(_, rest)| rest);
            let authority = rest.split('?').next().unwrap_or_default();
            let authority = if authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            {
                authority.to_owned()
            } else {
                format!("{authority}:3478")
            };
            // A malformed URL is refused where it is used.
            let _ = self.addresses(&authority);
        }
    }

    /// The addresses of `HOST:PORT`, at once: real ones where known, placeholders else.
    ///
    /// # Errors
    /// When that is not a host and a port, or there are far too many names.
    pub(super) fn addresses(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT");
        let (host, port) = host_port.rsplit_once(':').ok_or_else(invalid)?;
        let port: u16 = port.parse().map_err(|_| invalid())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }

        let mut entries = self.entries();
        let known = entries.iter().position(|entry| entry.host == host && entry.port == port);
        let index = match known {
            Some(index) => index,
            None if entries.len() < MAX_NAMES => {
                entries.push(Entry {
                    host: host.to_owned(),
                    port,
                    v4: None,
                    v6: None,
                    asked: None,
                    in_flight: false,
                });
                entries.len() - 1
            }
            None => return Err(io::Error::other("too many names")),
        };
        let number = u16::try_from(index).map_err(io::Error::other)?;
        let Some(entry) = entries.get_mut(index) else {
            return Err(invalid());
        };
        if entry.is_due(Instant::now()) {
            entry.in_flight = self.look_up(index, host.to_owned(), port);
        }
        if entry.v4.is_some() || entry.v6.is_some() {
            return Ok(entry.v4.into_iter().chain(entry.v6).collect());
        }
        Ok([true, false].map(|v4| placeholder(number, port, v4)).to_vec())
    }

    /// Asks in a thread of its own: the C library's resolver can hang for minutes, and tokio waits for its
    /// own blocking threads when a runtime ends. One thread a name at most.
    fn look_up(&self, index: usize, host: String, port: u16) -> bool {
        let resolver = self.clone();
        let work = move || {
            let found: Vec<SocketAddr> =
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            if let Some(entry) = resolver.entries().get_mut(index) {
                entry.in_flight = false;
                entry.asked = Some(Instant::now());
                let of = |v4: bool| found.iter().copied().find(|a| a.is_ipv4() == v4);
                // What was found before is kept when DNS fails now.
                if !found.is_empty() {
                    entry.v4 = of(true);
                    entry.v6 = of(false);
                }
            }
            resolver.0.ended.notify_waiters();
        };
        std::thread::Builder::new().name("qanah-dns".to_owned()).spawn(work).is_ok()
    }

    /// The real addresses of `HOST:PORT`, when they are known: for who can wait. The limit of time is the
    /// caller's.
    ///
    /// # Errors
    /// When there is no such name, or nobody to ask, and those of [`addresses`](Self::addresses).
    pub(crate) async fn wait_for(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        loop {
            let mut ended = pin!(self.0.ended.notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            let addresses = self.addresses(host_port)?;
            let index = addresses.iter().find_map(|address| placeholder_index(*address));
            let Some(index) = index else {
                return Ok(addresses);
            };
            if !self.entries().get(index).is_some_and(|entry| entry.in_flight) {
                return Err(io::ErrorKind::NotFound.into());
            }
            ended.await;
        }
    }

    /// This name leads to that address now. Returns its placeholder.
    #[cfg(test)]
    pub(super) fn place(&self, host: &str, address: SocketAddr) -> SocketAddr {
        let mut entries = self.entries();
        let index = entries.iter().position(|entry| entry.host == host).unwrap_or(entries.len());
        entries.truncate(index);
        entries.push(Entry {
            host: host.to_owned(),
            port: address.port(),
            v4: Some(address),
            v6: None,
            asked: Some(Instant::now()),
            in_flight: false,
        });
        placeholder(index.try_into().unwrap(), address.port(), true)
    }

    /// Where a datagram to `destination` really goes.
    pub(super) fn route(&self, destination: SocketAddr) -> Route {
        let Some(index) = placeholder_index(destination) else {
            return Route::Direct;
        };
        let entries = self.entries();
        match entries.get(index).and_then(|entry| entry.real(destination.is_ipv4())) {
            Some(real) => Route::Named(real),
            None => Route::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_literal_addresses_through() {
        let resolver = Resolver::default();
        for (text, address) in [
            ("192.0.2.1:3478", "192.0.2.1:3478"),
            ("[2001:db8::1]:3478", "[2001:db8::1]:3478"),
            ("2001:db8::1:3478", "[2001:db8::1]:3478"),
        ] {
            let expected: SocketAddr = address.parse().unwrap();
            assert_eq!(resolver.addresses(text).unwrap(), [expected]);
        }
        for bad in ["", "host", "host:", "host:70000", ":3478"] {
            assert!(resolver.addresses(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_an_unknown_name_at_once_and_knows_it_later() {
        let resolver = Resolver::default();
        let begin = Instant::now();
        let addresses = resolver.addresses("localhost:7").unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let known = resolver.addresses("localhost:7").unwrap();
            if known.iter().all(|address| address.ip().is_loopback()) {
                break;
            }
            assert!(Instant::now() < deadline, "localhost was never found");
            std::thread::yield_now();
        }
        // A placeholder that was given out before leads to the real address now.
        let v4 = addresses.iter().copied().find(SocketAddr::is_ipv4).unwrap();
        if placeholder_index(v4).is_some() {
            assert_eq!(resolver.route(v4), Route::Named("127.0.0.1:7".parse().unwrap()));
        }
    }

    #[test]
    fn sends_nothing_to_a_name_that_does_not_exist() {
        let resolver = Resolver::default();
        for address in resolver.addresses("does-not-exist.invalid:3478").unwrap() {
            assert_eq!(resolver.route(address), Route::Unknown);
        }
        assert_eq!(resolver.route("192.0.2.1:1".parse().unwrap()), Route::Direct);
    }
}
