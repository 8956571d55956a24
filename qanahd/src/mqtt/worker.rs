//! One broker's worker thread: connects, subscribes, publishes, and starts again when it must, for ever.
//!
//! A thread, because the calls of the library can block for as long as a name lookup takes.

use std::collections::HashSet;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::client::{Client, Code, Connect, Version};
use super::gate::{Gate, Outcome, Told, Way};
use super::inbox::Inbox;
use super::mailbox::{Mailbox, Notice, Refuser, Work};
use super::trust::Trust;
use super::{BrokerAddress, BrokerStatus, Event, client_id};
use crate::dial::Dialer;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A connection that lived this long was a good one: the next delay is the first again.
const GOOD: Duration = Duration::from_secs(30);

/// The gate and the library end an attempt by themselves (8 s, and 8 s looked at every 3 s); this is for when they
/// do not.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Time for a broker to answer all subscriptions.
const SUBSCRIBE: Duration = Duration::from_secs(15);

/// Addresses of one name that are tried in one attempt.
const ADDRESSES: usize = 8;

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
    /// How connections are made, and where that is done.
    pub(super) way: (Handle, Dialer),
    /// The broker is reached through a proxy.
    pub(super) proxied: bool,
    /// Held as long as there is anything to say.
    pub(super) alive: mpsc::Sender<()>,
    /// Attempts so far.
    pub(super) attempts: usize,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) status: Arc<Mutex<BrokerStatus>>,
    pub(super) version: Version,
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

    /// One round: the way there, the library's welcome, and then the life of that connection.
    fn attempt(&mut self, client: &mut Option<Client>) -> End {
        let reached = match self.reach() {
            Ok(reached) => reached,
            Err(end) => return end,
        };
        match self.connect(client, &reached) {
            Ok(client) => self.serve(client, &reached),
            Err(end) => {
                // Before the gate closes its port: whoever takes that then shall not be told a password.
                *client = None;
                end
            }
        }
    }

    /// Where the broker is. A name is resolved here, on the thread of this broker alone, anew for each attempt.
    /// Behind a proxy nobody here looks for it.
    fn find(&mut self) -> Result<Vec<SocketAddr>, String> {
        if self.proxied {
            return Ok(Vec::new());
        }
        let Self { address, attempts, .. } = self;
        let found = (address.host.as_str(), address.port)
            .to_socket_addrs()
            .map_err(|error| format!("cannot resolve {}: {error}", address.host))?;
        let mut found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(format!("cannot resolve {}: it has no address", address.host));
        }
        order(&mut found, *attempts);
        *attempts = attempts.wrapping_add(1);
        Ok(found)
    }

    /// Makes the connection, up to where MQTT begins.
    fn reach(&mut self) -> Result<Reached, End> {
        let found = self.find().map_err(End::Failed)?;
        let starts: Vec<_> = found.iter().map(|there| (*there, source_towards(*there))).collect();
        let is_tls = self.address.scheme.is_tls();
        let tls = is_tls.then(|| self.trust.config()).transpose().map_err(End::failed)?;
        let word = client_id().map_err(End::failed)?;
        let client_id = CString::new(word.as_str()).map_err(End::failed)?;
        let (runtime, dialer) = &self.way;
        let way = Way { dialer: dialer.clone(), address: self.address.clone(), found, tls };
        let told = Told {
            mailbox: Arc::clone(&self.mailbox),
            inbox: Arc::clone(&self.inbox),
            version: self.version,
            alive: self.alive.clone(),
        };
        self.mailbox.reset();
        let gate = Gate::open(runtime, way, word, told);
        let deadline = Instant::now() + ATTEMPT;
        loop {
            match gate.outcome() {
                Outcome::Open => {}
                Outcome::Reached { ends: (there, here), port } => {
                    return Ok(Reached { gate, client_id, port, way: (there, here) });
                }
                Outcome::Failed(reason) => return Err(End::Failed(reason)),
            }
            match self.mailbox.next(Some(deadline)) {
                Work::Stop => return Err(End::Stopped),
                Work::Deadline => return Err(End::failed("no connection")),
                Work::Network if starts.iter().all(|(to, from)| source_towards(*to) == *from) => {}
                Work::Network => return Err(End::Moved),
                Work::Notice(_) | Work::Topics | Work::Publish(_) => {}
            }
        }
    }

    /// Up to CONNACK.
    fn connect<'a>(
        &mut self,
        slot: &'a mut Option<Client>,
        reached: &Reached,
    ) -> Result<&'a Client, End> {
        let uri =
            CString::new(format!("mqtt://127.0.0.1:{}", reached.port)).map_err(End::failed)?;
        let next = Client::new(
            &uri,
            &reached.client_id,
            self.version,
            Arc::clone(&self.mailbox),
            Arc::clone(&self.inbox),
        )
        .map_err(End::failed)?;
        *slot = None;
        self.mailbox.reset();
        let client = slot.insert(next);
        let user = optional_c_string(self.address.user.as_deref())?;
        let password = self.address.password.as_ref().map(|password| password.as_bytes());
        let how = Connect { user: user.as_deref(), password };
        client.connect(&how).map_err(End::failed)?;
        let deadline = Instant::now() + ATTEMPT;
        loop {
            match self.mailbox.next(Some(deadline)) {
                Work::Stop => return Err(End::Stopped),
                Work::Deadline => return Err(End::failed("no answer")),
                Work::Network if reached.is_same() => {}
                Work::Network => return Err(End::Moved),
                Work::Notice(Notice::Connected) => return Ok(client),
                Work::Notice(Notice::Refused { by, reason }) => {
                    if by == Refuser::Version && self.version == Version::V5 {
                        self.version = Version::V311;
                    }
                    return Err(match by {
                        Refuser::Version | Refuser::Broker => End::Failed(reason),
                        Refuser::Library => reached.lost(reason),
                    });
                }
                Work::Notice(_) | Work::Topics | Work::Publish(_) => {}
            }
        }
    }

    /// A connection's life after CONNACK.
    fn serve(&self, client: &Client, reached: &Reached) -> End {
        let end = self.serve_until_it_ends(client, reached);
        self.mailbox.set_open(false);
        end
    }

    fn serve_until_it_ends(&self, client: &Client, reached: &Reached) -> End {
        let mut subscribed = HashSet::new();
        let mut open_requests = match self.update_topics(client, &mut subscribed) {
            Ok(requests) => requests,
            Err(reason) => return reached.lost(reason),
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
                Work::Network if reached.is_same() => {}
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
                    return dismissed.map_or_else(|| reached.lost("connection lost"), End::Failed);
                }
                Work::Notice(Notice::Connected | Notice::Refused { .. } | Notice::Gate) => {}
                Work::Topics => {
                    if let Err(reason) = self.update_topics(client, &mut subscribed) {
                        return reached.lost(reason);
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
    ) -> Result<usize, Code> {
        let wanted: HashSet<Arc<str>> = self.inbox.wanted().into_iter().collect();
        let added = c_strings(wanted.difference(subscribed));
        let removed = c_strings(subscribed.difference(&wanted));
        let mut requests = 0;
        for topics in added.chunks(client.topics_per_request()) {
            client.subscribe(topics)?;
            requests += 1;
        }
        for topics in removed.chunks(client.topics_per_request()) {
            client.unsubscribe(topics)?;
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

/// A connection that is there and waits for the library.
struct Reached {
    gate: Gate,
    /// By which the gate knows the library.
    client_id: CString,
    /// Where it waits.
    port: u16,
    /// The broker's end, or the proxy's, and ours.
    way: (SocketAddr, IpAddr),
}

impl Reached {
    /// Whether a connection to there would still begin at that address.
    fn is_same(&self) -> bool {
        let (there, here) = self.way;
        source_towards(there) == Some(here)
    }

    /// The end of the connection. The library only sees that it has ended; the gate may know more.
    fn lost(&self, reason: impl ToString) -> End {
        self.gate.reason().map_or_else(|| End::failed(reason), End::Failed)
    }
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

/// The addresses of a broker as they are tried, IPv6 first. The first that answers is taken, and may be of no use all
/// the same: in the next attempt another is first.
fn order(found: &mut Vec<SocketAddr>, attempt: usize) {
    found.sort_by_key(SocketAddr::is_ipv4);
    let first = attempt.checked_rem(found.len()).unwrap_or_default();
    found.rotate_left(first);
    found.truncate(ADDRESSES);
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
    fn each_address_is_first_in_its_turn_whatever_its_family() {
        let [v4, v6]: [SocketAddr; 2] =
            ["192.0.2.1:1883", "[2001:db8::1]:1883"].map(|address| address.parse().unwrap());
        for (attempt, expected) in [(0, [v6, v4]), (1, [v4, v6]), (2, [v6, v4])] {
            let mut found = vec![v4, v6];
            order(&mut found, attempt);
            assert_eq!(found, expected);
        }
        order(&mut Vec::new(), 3);
    }

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
