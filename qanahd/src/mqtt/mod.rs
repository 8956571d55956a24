//! Signaling through MQTT brokers: the only place that knows the Paho library.
//!
//! All configured brokers are used at once, with one client each, and any one that works is enough: a
//! message is published to every broker that is connected, and whoever receives it twice must not mind
//! (the signaling envelopes are made for that).
//!
//! Choices:
//! - QoS 0. TCP already delivers in order while a connection lives, and signaling retries by itself with
//!   fresh content. QoS 1 would add queues of stale messages on both sides, which is the opposite of what
//!   is wanted: what cannot be sent now is dropped and counted.
//! - Never retained, and retained messages are ignored: the last word of yesterday is of no use.
//! - MQTT 5 first, because there the broker itself keeps packets that are too large and retained messages
//!   away; MQTT 3.1.1 for brokers that refuse 5.
//! - A clean session with everything subscribed again after each connect.

mod client;
mod gate;
mod identity;
mod inbox;
mod mailbox;
mod settings;
#[cfg(test)]
mod tests;
mod trust;
mod worker;

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::client::Version;
pub(crate) use self::identity::IdentityError;
pub(crate) use self::inbox::Counters;
use self::inbox::Inbox;
use self::mailbox::{Mailbox, Publication};
pub(crate) use self::settings::{BrokerAddress, Scheme, Settings};
#[cfg(test)]
pub(crate) use self::tests::certificates;
use self::trust::Trust;
use self::worker::Worker;
use crate::dial::Dialer;

/// The largest payload in bytes that is published or accepted.
pub(crate) const MAX_PAYLOAD: usize = 4096;

/// Time that [`Signaling::stop`] may take.
const STOP: Duration = Duration::from_millis(950);

/// Name lookups of the C library are what needs the most.
const STACK: usize = 512 * 1024;

/// What happens at the brokers. `broker` is the place in [`Settings::brokers`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A broker is connected and has answered all subscriptions.
    Connected {
        /// Which one.
        broker: usize,
    },
    /// A broker that was connected is not any more. It is tried again by itself.
    Lost {
        /// Which one.
        broker: usize,
        /// Why, as far as known.
        reason: String,
    },
    /// A message on a subscribed topic; at most [`MAX_PAYLOAD`] bytes, from whomever.
    Message {
        /// The topic, equal to the one that was subscribed.
        topic: Arc<str>,
        /// The payload as it came.
        payload: Vec<u8>,
    },
}

/// Why signaling cannot start. A broker that cannot be reached is no error, see [`BrokerStatus`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum MqttError {
    /// The CA file cannot be read.
    #[error("cannot read the CA file {}: {source}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA file is something else.
    #[error("the CA file {} holds no PEM certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// There is nobody to trust.
    #[error(
        "the system has no CA certificates; install them (Debian: ca-certificates), or give those of \
         the broker (--signal-ca)"
    )]
    Nobody,
    /// TLS itself.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate for brokers cannot be used.
    #[error("the certificate for brokers: {0}")]
    Identity(#[from] IdentityError),
    /// A thread cannot be started.
    #[error("cannot start a thread for a broker: {0}")]
    Thread(std::io::Error),
}

/// The state of one broker.
#[derive(Clone, Debug)]
pub(crate) struct BrokerStatus {
    /// Its URL without user and password.
    pub(crate) broker: String,
    /// Whether it is connected and subscribed.
    pub(crate) connected: bool,
    /// Since when it is connected, or not connected.
    pub(crate) since: Instant,
    /// Why the last attempt failed or the connection ended, or what is wrong with the present one.
    pub(crate) last_error: Option<String>,
    /// When it is tried again; none while connected or trying.
    pub(crate) next_try: Option<Instant>,
}

/// The handle to all brokers. Clones are the same; when the last is gone, everything stops.
#[derive(Clone, Debug)]
pub(crate) struct Signaling {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: Arc<Inbox>,
    brokers: Vec<(Arc<Mailbox>, Arc<Mutex<BrokerStatus>>)>,
    /// Ends when the last worker, and the last gate of one, has dropped its sender.
    running: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for (mailbox, _) in &self.brokers {
            mailbox.stop();
        }
    }
}

impl Signaling {
    /// Starts to connect to all brokers and returns at once. `events` should hold a few hundred: what
    /// comes while it is full is dropped and counted.
    ///
    /// # Errors
    /// When a file of [`Settings`] cannot be used or a thread cannot be started.
    pub(crate) fn start(
        settings: Settings,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, MqttError> {
        let trust = settings.trust()?;
        let dialer = Dialer { proxies: settings.proxies, ..Dialer::default() };
        Self::start_with(settings.brokers, &trust, &dialer, events, Version::V5)
    }

    fn start_with(
        brokers: Vec<BrokerAddress>,
        trust: &Trust,
        dialer: &Dialer,
        events: mpsc::Sender<Event>,
        version: Version,
    ) -> Result<Self, MqttError> {
        let inbox = Arc::new(Inbox::new(events));
        let (alive, running) = mpsc::channel(1);
        let mut shared = Shared {
            inbox: Arc::clone(&inbox),
            brokers: Vec::new(),
            running: tokio::sync::Mutex::new(running),
        };
        for (index, address) in brokers.into_iter().enumerate() {
            if address.password.is_some() && !address.scheme.is_tls() {
                tracing::warn!(broker = %address, "the password for this broker travels unencrypted");
            }
            let proxied = dialer.is_proxied(&address.parsed_host(), address.port);
            // Whoever starts this is in a runtime: the connections are made there.
            let runtime = Handle::try_current()
                .map_err(|error| MqttError::Thread(std::io::Error::other(error)))?;
            let way = (runtime, dialer.clone());
            let mailbox = Arc::new(Mailbox::default());
            let status = Arc::new(Mutex::new(BrokerStatus {
                broker: address.to_string(),
                connected: false,
                since: Instant::now(),
                last_error: None,
                next_try: None,
            }));
            let worker = Worker {
                index,
                address,
                trust: trust.clone(),
                way,
                proxied,
                alive: alive.clone(),
                attempts: 0,
                mailbox: Arc::clone(&mailbox),
                inbox: Arc::clone(&inbox),
                status: Arc::clone(&status),
                version,
            };
            std::thread::Builder::new()
                .name(format!("mqtt-{index}"))
                .stack_size(STACK)
                .spawn(move || worker.run())
                .map_err(MqttError::Thread)?;
            // If a later one fails, dropping `shared` stops those that run.
            shared.brokers.push((mailbox, status));
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Asks every broker for these topics, now and after each reconnect. Exact names only: a topic with
    /// a wildcard or NUL is left out.
    pub(crate) fn subscribe(&self, topics: impl IntoIterator<Item = String>) {
        self.shared.inbox.add(topics.into_iter().filter(|topic| is_plain(topic)));
        self.topics_changed();
    }

    /// Gives these topics up; what still comes on them is ignored from now on.
    pub(crate) fn unsubscribe(&self, topics: impl IntoIterator<Item = String>) {
        self.shared.inbox.remove(topics);
        self.topics_changed();
    }

    fn topics_changed(&self) {
        for (mailbox, _) in &self.shared.brokers {
            mailbox.topics_changed();
        }
    }

    /// Sends a message through every connected broker. Never waits; what no broker can take now, or is
    /// larger than [`MAX_PAYLOAD`], is dropped and counted.
    pub(crate) fn publish(&self, topic: &str, payload: Vec<u8>) {
        let name =
            Some(topic).filter(|name| is_plain(name)).and_then(|name| CString::new(name).ok());
        let taken = match name {
            Some(topic) if payload.len() <= MAX_PAYLOAD => {
                let publication = Arc::new(Publication { topic, payload });
                // All of them, not the first that takes it.
                let mailboxes = self.shared.brokers.iter().map(|(mailbox, _)| mailbox);
                mailboxes.filter(|mailbox| mailbox.publish(&publication)).count() > 0
            }
            _ => false,
        };
        // Without any broker, messages go by other ways.
        if !taken && !self.shared.brokers.is_empty() {
            self.shared.inbox.count_unsent();
        }
    }

    /// The machine's addresses have changed: connections that begin at one that is no more are made anew at
    /// once, and those that wait for their next try do not wait.
    pub(crate) fn network_changed(&self) {
        for (mailbox, _) in &self.shared.brokers {
            mailbox.network_changed();
        }
    }

    /// The state of every broker, in the order of [`Settings::brokers`].
    pub(crate) fn status(&self) -> Vec<BrokerStatus> {
        let brokers = self.shared.brokers.iter();
        brokers
            .map(|(_, status)| status.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }

    /// What was received and what was dropped since the start.
    pub(crate) fn counters(&self) -> Counters {
        self.shared.inbox.counters()
    }

    /// Disconnects and ends the threads. Returns within one second; a worker that hangs in a name
    /// lookup ends when that does.
    pub(crate) async fn stop(self) {
        for (mailbox, _) in &self.shared.brokers {
            mailbox.stop();
        }
        let ended = async { while self.shared.running.lock().await.recv().await.is_some() {} };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            tracing::debug!("the broker connections end in the background");
        }
    }
}

/// Neither empty, nor more than a topic may hold, nor a pattern.
fn is_plain(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 512 && !topic.contains(['\0', '#', '+'])
}

/// Random, so that it tells nothing about the host or the keys, and new for each connection, because the gate
/// knows the library by it. MQTT 3.1.1, section 3.1.3.1: every broker must take 1 to 23 letters and digits.
fn client_id() -> Result<String, rand_core::Error> {
    let mut bytes = [0; 11];
    OsRng.try_fill_bytes(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("q{text}"))
}
