//! One broker's worker thread: connects, subscribes, publishes, and starts again when it must, for ever.
//!
//! A thread, because the calls of the library can block for as long as a name lookup takes.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::client::{Client, Connect, Tls, Version};
use super::gate::Gate;
use super::inbox::Inbox;
use super::mailbox::{Mailbox, Notice, Work};
use super::settings::Trust;
use super::{BrokerAddress, BrokerStatus, Event, Scheme};
use crate::dial::Dialer;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A connection that lived this long was a good one: the next delay is the first again.
const GOOD: Duration = Duration::from_secs(30);

/// The library ends an attempt by itself (8 s, looked at every 3 s); this is for when it does not.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Time for a broker to answer all subscriptions.
const SUBSCRIBE: Duration = Duration::from_secs(15);

/// Addresses of one name that are tried in one attempt.
const ADDRESSES: usize = 4;

/// How a connection, or the attempt to get one, ended.
enum End {
    Stopped,
    Failed(String),
    /// The machine's network has changed, and this connection belongs to the former one.
    Moved,
}

impl End {
    fn failed(reason: impl ToString) -> Self {
        Self::Failed(reason.to_string())
    }
}

/// The state of one worker; lives on its thread.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) address: BrokerAddress,
    pub(super) trust: Trust,
    /// How connections are made that the library does not make itself, and where that is done.
    pub(super) way: (Handle, Dialer),
    /// The broker is reached through a proxy.
    pub(super) proxied: bool,
    /// The present attempt does not leave the connection to the library.
    pub(super) by_gate: bool,
    /// The present attempt's way there.
    pub(super) gate: Option<Gate>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) status: Arc<Mutex<BrokerStatus>>,
    pub(super) version: Version,
    pub(super) client_id: CString,
}

impl Worker {
    /// Works until the mailbox says stop.
    pub(super) fn run(mut self) {
        // The client of the last attempt. The next one is made before it goes, so that the library does
        // not end its threads between two attempts.
        let mut client = None;
        let mut delay = FIRST_DELAY;
        loop {
            let started = Instant::now();
            let reason = match self.attempt(&mut client) {
                End::Stopped => break,
                End::Failed(reason) => reason,
                End::Moved => {
                    delay = FIRST_DELAY;
                    self.failed("the network of this machine has changed", Instant::now());
                    continue;
                }
            };
            if started.elapsed() >= GOOD {
                delay = FIRST_DELAY;
            }
            let wait = jittered(delay);
            delay = (delay * 2).min(LONGEST_DELAY);
            self.failed(&reason, Instant::now() + wait);
            if self.pause(Instant::now() + wait) {
                break;
            }
        }
        self.mailbox.set_open(false);
    }

    /// Waits until `until`, or until the network changes; true when told to stop.
    fn pause(&self, until: Instant) -> bool {
        loop {
            match self.mailbox.next(Some(until)) {
                Work::Stop => return true,
                Work::Deadline | Work::Network => return false,
                // Late words of a client that failed.
                Work::Notice(_) | Work::Topics | Work::Publish(_) => {}
            }
        }
    }

    /// One round: every address of the broker until one works, and then the life of that connection.
    fn attempt(&mut self, client: &mut Option<Client>) -> End {
        let uris = match self.uris() {
            Ok(uris) => uris,
            Err(reason) => return End::Failed(reason),
        };
        let mut end = End::failed("the name has no address");
        for (target, uri) in uris {
            let way = target.and_then(|target| Some((target, source_towards(target)?)));
            end = match self.connect(client, &uri, || is_same(way)) {
                Ok(client) => {
                    // Behind a proxy it is the way to that which may change.
                    let way = way.or_else(|| self.gate.as_ref().and_then(Gate::ends));
                    return self.serve(client, || is_same(way));
                }
                Err(End::Failed(reason)) => End::Failed(reason),
                Err(end) => return end,
            };
        }
        end
    }

    /// What to give to the library. It resolves names while it holds the lock that all its clients share,
    /// without a time limit; so the name is resolved here first, on the thread of this broker alone.
    /// Where only an address is needed it gets the address. With TLS and WebSocket it needs the name (for
    /// the certificate and the Host header) and asks again, a resolver that has just answered. Behind a proxy
    /// nobody here looks for the broker's name. Of a name with addresses of both families the library takes an IPv4
    /// one, whether it can be reached or not, so such connections are made here too.
    fn uris(&mut self) -> Result<Vec<(Option<SocketAddr>, CString)>, String> {
        let address = &self.address;
        self.by_gate = self.proxied;
        if self.proxied {
            let uri = CString::new(address.uri().as_bytes()).map_err(|error| error.to_string())?;
            return Ok(vec![(None, uri)]);
        }
        let found = (address.host.as_str(), address.port)
            .to_socket_addrs()
            .map_err(|error| format!("cannot resolve {}: {error}", address.host))?;
        let (most, by_name) = match address.scheme {
            Scheme::Mqtt => (ADDRESSES, false),
            Scheme::Mqtts | Scheme::Ws | Scheme::Wss => (1, true),
        };
        let found: Vec<SocketAddr> = found.collect();
        let is_mixed =
            found.iter().any(SocketAddr::is_ipv4) && found.iter().any(SocketAddr::is_ipv6);
        if by_name && is_mixed {
            self.by_gate = true;
            let uri = CString::new(address.uri().as_bytes()).map_err(|error| error.to_string())?;
            return Ok(vec![(None, uri)]);
        }
        let uris = found.into_iter().take(most).map(|ip| {
            let text = if by_name { address.uri() } else { Zeroizing::new(format!("mqtt://{ip}")) };
            Ok((Some(ip), CString::new(text.as_bytes()).map_err(|error| error.to_string())?))
        });
        uris.collect()
    }

    /// Up to CONNACK.
    fn connect<'a>(
        &mut self,
        slot: &'a mut Option<Client>,
        uri: &CStr,
        fits_network: impl Fn() -> bool,
    ) -> Result<&'a Client, End> {
        let next = Client::new(
            uri,
            &self.client_id,
            self.version,
            Arc::clone(&self.mailbox),
            Arc::clone(&self.inbox),
        )
        .map_err(End::failed)?;
        *slot = None;
        self.mailbox.reset();
        let client = slot.insert(next);
        self.gate = self.open_gate()?;
        let identity = self.trust.identity.as_ref();
        let tls = Tls {
            ca_file: self.trust.ca_file.as_deref(),
            ca_path: self.trust.ca_path.as_deref(),
            cert_file: identity.map(|identity| identity.cert_file.as_c_str()),
            key_file: identity.map(|identity| identity.key_file.as_c_str()),
        };
        let tls = self.address.scheme.is_tls().then_some(tls);
        let user = optional_c_string(self.address.user.as_deref())?;
        let password = self.address.password.as_ref().map(|password| password.as_bytes());
        let proxy = self.gate.as_ref().map(Gate::url);
        let how = Connect { user: user.as_deref(), password, tls, proxy };
        client.connect(&how).map_err(End::failed)?;
        let deadline = Instant::now() + ATTEMPT;
        loop {
            match self.mailbox.next(Some(deadline)) {
                Work::Stop => return Err(End::Stopped),
                Work::Deadline => return Err(End::failed("no answer")),
                Work::Network if fits_network() => {}
                Work::Network => return Err(End::Moved),
                Work::Notice(Notice::Connected) => return Ok(client),
                Work::Notice(Notice::Refused { version, reason }) => {
                    if version && self.version == Version::V5 {
                        self.version = Version::V311;
                    }
                    return Err(End::Failed(self.explain(client, reason)));
                }
                Work::Notice(_) | Work::Topics | Work::Publish(_) => {}
            }
        }
    }

    fn open_gate(&self) -> Result<Option<Gate>, End> {
        if !self.by_gate {
            return Ok(None);
        }
        let (runtime, dialer) = &self.way;
        let address = &self.address;
        let gate = Gate::open(runtime, dialer.clone(), address.parsed_host(), address.port);
        gate.map(Some).map_err(End::failed)
    }

    /// Adds what OpenSSL knows. A host name that does not match leaves no trace there. When it is the
    /// proxy's doing, the library has no idea.
    fn explain(&self, client: &Client, reason: String) -> String {
        if let Some(reason) = self.gate.as_ref().and_then(Gate::reason) {
            return reason;
        }
        if !self.address.scheme.is_tls() {
            return reason;
        }
        match client.tls_error() {
            Some(tls) => format!("{reason}: {tls}"),
            None if reason.contains("TLS") => {
                format!(
                    "{reason} (not reachable, or the certificate is not for {})",
                    self.address.host
                )
            }
            None => reason,
        }
    }

    /// A connection's life after CONNACK.
    fn serve(&self, client: &Client, fits_network: impl Fn() -> bool) -> End {
        let end = self.serve_until_it_ends(client, fits_network);
        self.mailbox.set_open(false);
        end
    }

    fn serve_until_it_ends(&self, client: &Client, fits_network: impl Fn() -> bool) -> End {
        let mut subscribed = HashSet::new();
        let mut open_requests = match self.update_topics(client, &mut subscribed) {
            Ok(requests) => requests,
            Err(end) => return end,
        };
        let asked = subscribed.len();
        let mut refused_topics = 0;
        let mut deadline = Some(Instant::now() + SUBSCRIBE);
        let mut dismissed = None;
        loop {
            if deadline.is_some() && open_requests == 0 {
                // Only now is it of use: whoever answers a hello is heard.
                if asked > 0 && refused_topics == asked {
                    return End::failed("the broker refused every subscription");
                }
                self.connected(refused_topics);
                deadline = None;
            }
            match self.mailbox.next(deadline) {
                Work::Stop => return End::Stopped,
                Work::Deadline => return End::failed("the broker does not answer subscriptions"),
                Work::Network if fits_network() => {}
                Work::Network => return End::Moved,
                Work::Notice(Notice::Subscribed { answers, refused }) => {
                    open_requests = open_requests.saturating_sub(answers);
                    refused_topics += refused;
                    if refused > 0 {
                        tracing::warn!(broker = %self.address, refused, "the broker refused subscriptions");
                    }
                }
                Work::Notice(Notice::Dismissed(reason)) => dismissed = Some(reason),
                Work::Notice(Notice::Lost) => {
                    return End::Failed(
                        dismissed.unwrap_or_else(|| String::from("connection lost")),
                    );
                }
                Work::Notice(Notice::Connected | Notice::Refused { .. }) => {}
                Work::Topics => {
                    if let Err(end) = self.update_topics(client, &mut subscribed) {
                        return end;
                    }
                }
                Work::Publish(publication) => {
                    // A full socket: the message is worth nothing later, so it goes.
                    if client.publish(&publication.topic, &publication.payload).is_err() {
                        self.inbox.count_unsent();
                    }
                }
            }
        }
    }

    /// Brings the broker's subscriptions in line with what is wanted now; returns the number of answers
    /// to wait for.
    fn update_topics(
        &self,
        client: &Client,
        subscribed: &mut HashSet<Arc<str>>,
    ) -> Result<usize, End> {
        let wanted: HashSet<Arc<str>> = self.inbox.wanted().into_iter().collect();
        let added = c_strings(wanted.difference(subscribed));
        let removed = c_strings(subscribed.difference(&wanted));
        let mut requests = 0;
        for topics in added.chunks(client.topics_per_request()) {
            client.subscribe(topics).map_err(End::failed)?;
            requests += 1;
        }
        for topics in removed.chunks(client.topics_per_request()) {
            client.unsubscribe(topics).map_err(End::failed)?;
        }
        *subscribed = wanted;
        Ok(requests)
    }

    fn connected(&self, refused: usize) {
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.connected = true;
            status.since = Instant::now();
            status.next_try = None;
            status.last_error =
                (refused > 0).then(|| format!("the broker refused {refused} subscriptions"));
        }
        tracing::info!(broker = %self.address, "connected to the broker");
        self.mailbox.set_open(true);
        self.inbox.report(Event::Connected { broker: self.index });
    }

    fn failed(&self, reason: &str, next_try: Instant) {
        let (was_connected, repeated) = {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            let repeated = status.last_error.as_deref() == Some(reason);
            let was_connected = std::mem::replace(&mut status.connected, false);
            if was_connected {
                status.since = Instant::now();
            }
            status.last_error = Some(reason.to_owned());
            status.next_try = Some(next_try);
            (was_connected, repeated)
        };
        if was_connected {
            tracing::warn!(broker = %self.address, reason, "lost the broker");
            self.inbox.report(Event::Lost { broker: self.index, reason: reason.to_owned() });
        } else if repeated {
            tracing::debug!(broker = %self.address, reason, "cannot connect to the broker");
        } else {
            // Once for each reason: a broker that is away for days does not fill the log.
            tracing::warn!(broker = %self.address, reason, "cannot connect to the broker");
        }
    }
}

/// Whether a connection to there would still begin at that address.
fn is_same(way: Option<(SocketAddr, IpAddr)>) -> bool {
    way.is_none_or(|(target, source)| source_towards(target) == Some(source))
}

/// The address that a connection to there would begin at now; `None` where there is no way. Nothing is sent: the
/// kernel only looks at its routes.
fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A quarter more or less, so that the clients of a broker that comes back do not come all at once.
fn jittered(delay: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, and no harm.
    let _ = OsRng.try_fill_bytes(&mut bytes);
    let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    delay.mul_f64(0.75 + part / 2.0).clamp(FIRST_DELAY, LONGEST_DELAY)
}

fn optional_c_string(text: Option<&str>) -> Result<Option<CString>, End> {
    text.map(CString::new).transpose().map_err(|_| End::failed("the user name contains NUL"))
}

/// Topics with a NUL never get into the list, see [`super::Signaling::subscribe`].
fn c_strings<'a>(topics: impl Iterator<Item = &'a Arc<str>>) -> Vec<CString> {
    topics.filter_map(|topic| CString::new(topic.as_bytes()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_between_one_and_thirty_seconds() {
        for _ in 0..1000 {
            assert!(jittered(FIRST_DELAY) >= Duration::from_secs(1));
            assert!(jittered(FIRST_DELAY) <= Duration::from_millis(1250));
            assert!(jittered(LONGEST_DELAY) >= Duration::from_millis(22_500));
            assert!(jittered(LONGEST_DELAY) <= Duration::from_secs(30));
        }
    }
}
