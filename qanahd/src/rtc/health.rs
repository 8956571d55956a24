//! What is known of the STUN and TURN servers: whether they answer, and why they do not.
//!
//! `webrtc` tells none of it. But our sockets see every request to a server and every answer, and the
//! streams know why they break.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qanah_core::diagnosis::{Nat, OwnSide};
use qanah_core::servers::Host;
use qanah_core::turn::{ALLOCATE, BINDING, ERROR, SUCCESS, StunHeader, TransactionId};
use webrtc_core::stun::attributes::ATTR_USERNAME;
use webrtc_core::stun::error_code::ErrorCodeAttribute;
use webrtc_core::stun::message::{Getter as _, Message};

use super::sightings::Sightings;
use super::turn::{Carrier, TurnServer};

/// A server has not answered when so long after the first request nothing has come. `webrtc` asks again
/// for about 8 s.
const NO_ANSWER: Duration = Duration::from_secs(8);
/// Requests whose answers are waited for, of one server: several sockets ask, for several connections.
const MAX_OPEN: usize = 128;
/// Addresses of one server.
const MAX_ADDRESSES: usize = 8;

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Tells us how we look from outside.
    Stun,
    /// Relays.
    Turn,
}

/// How a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// It was not asked yet, or has still time to answer.
    Unknown,
    /// It gave what it was asked for.
    Works,
    /// It did not, and this is why.
    Trouble(String),
}

/// A server as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerReport {
    /// Its URL, without any secret.
    pub(crate) url: String,
    /// What it is for.
    pub(crate) kind: ServerKind,
    /// How it does.
    pub(crate) state: ServerState,
    /// How long it has been so.
    pub(crate) since: Duration,
}

/// What is known of the servers of a tunnel. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Vec<Entry>>>, Arc<Mutex<Sightings>>);

struct Entry {
    url: String,
    kind: ServerKind,
    /// `HOST:PORT` by which `webrtc` looks it up; nothing where that is not how it is reached.
    authority: Option<String>,
    by_secret: bool,
    /// `webrtc` has it looked up.
    is_named: bool,
    addresses: Vec<SocketAddr>,
    state: ServerState,
    since: Instant,
    /// When it was first asked for what it has not given since.
    asked: Option<Instant>,
    /// Streams to it that live.
    streams: usize,
    /// Requests without an answer, and whether they bore credentials.
    open: VecDeque<(TransactionId, bool)>,
}

impl Entry {
    fn new(url: String, kind: ServerKind, now: Instant) -> Self {
        Self {
            url,
            kind,
            authority: None,
            by_secret: false,
            is_named: false,
            addresses: Vec::new(),
            state: ServerState::Unknown,
            since: now,
            asked: None,
            streams: 0,
            open: VecDeque::new(),
        }
    }

    /// Whether messages of this type are its.
    const fn is_about(&self, kind: u16) -> bool {
        let method = match self.kind {
            ServerKind::Stun => BINDING,
            ServerKind::Turn => ALLOCATE,
        };
        kind & !ERROR == method
    }

    fn set(&mut self, state: ServerState, now: Instant) {
        self.asked = None;
        if self.state == state {
            return;
        }
        match &state {
            ServerState::Trouble(text) => tracing::warn!(server = %self.url, "{text}"),
            ServerState::Works => tracing::info!(server = %self.url, "the server answers"),
            ServerState::Unknown => {}
        }
        self.state = state;
        self.since = now;
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.asked.is_some_and(|at| now.saturating_duration_since(at) >= NO_ANSWER)
    }

    fn no_answer(&self) -> ServerState {
        // A name that is not found leaves no other trace: `resolve` goes on looking for it.
        let text = if self.is_named { "no answer, or its name is not found" } else { "no answer" };
        ServerState::Trouble(text.to_owned())
    }

    fn asks(&mut self, id: TransactionId, with_login: bool, now: Instant) {
        // Said again: by a socket from which it cannot be reached, perhaps, while another has its answer.
        if self.open.iter().any(|(open, _)| *open == id) {
            return;
        }
        if self.is_overdue(now) {
            self.set(self.no_answer(), now);
        }
        self.asked.get_or_insert(now);
        if self.open.len() >= MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back((id, with_login));
    }

    /// False when nobody asked.
    fn answers(&mut self, header: StunHeader, datagram: &[u8], now: Instant) -> bool {
        let place = self.open.iter().position(|(id, _)| *id == header.id);
        let Some((_, with_login)) = place.and_then(|place| self.open.remove(place)) else {
            return false;
        };
        if header.kind & ERROR == SUCCESS {
            self.set(ServerState::Works, now);
            return true;
        }
        let code = decoded(datagram).and_then(|message| {
            let mut code = ErrorCodeAttribute::default();
            code.get_from(&message).ok().map(|()| code.code.0)
        });
        // The first answer to every client: it says what to log in for (RFC 8489, section 9.2.4).
        if code != Some(401) || with_login {
            self.set(ServerState::Trouble(self.explain(code)), now);
        }
        true
    }

    /// The words of the server itself are not shown: it is a stranger.
    fn explain(&self, code: Option<u16>) -> String {
        let text = match code {
            Some(401 | 441) if self.by_secret => {
                "the secret is not that of the server, or the clock of one of the two is wrong"
            }
            Some(401 | 441) => "the user name or the password is wrong",
            Some(300) => "it sends us to another server, which is not supported",
            Some(403) => "it forbids it",
            Some(437) => "it has another allocation for us",
            Some(438) => "its nonce is stale",
            Some(440) => "it does not relay this address family",
            Some(442) => "it does not relay UDP",
            Some(486) => "the quota of this user is used up",
            Some(508) => "it has no room for us",
            _ => "it refuses",
        };
        match code {
            Some(code) => format!("{text} (error {code})"),
            None => text.to_owned(),
        }
    }

    fn report(&self, now: Instant) -> ServerReport {
        let (state, since) = match (&self.state, self.asked) {
            (ServerState::Works | ServerState::Unknown, Some(asked)) if self.is_overdue(now) => {
                (self.no_answer(), asked)
            }
            (state, _) => (state.clone(), self.since),
        };
        let since = now.saturating_duration_since(since);
        ServerReport { url: self.url.clone(), kind: self.kind, state, since }
    }
}

pub(super) fn decoded(datagram: &[u8]) -> Option<Message> {
    let mut message = Message::new();
    message.raw = datagram.to_vec();
    message.decode().ok().map(|()| message)
}

impl Health {
    /// Of these servers: STUN as `stun:HOST:PORT`, and TURN.
    pub(crate) fn new(stun: &[String], turn: &[TurnServer]) -> Self {
        let now = Instant::now();
        let stun = stun.iter().map(|url| {
            let authority = url.strip_prefix("stun:").map(str::to_owned);
            let is_named =
                authority.as_deref().is_some_and(|text| text.parse::<SocketAddr>().is_err());
            Entry { authority, is_named, ..Entry::new(url.clone(), ServerKind::Stun, now) }
        });
        let turn = turn.iter().zip(0..).map(|(server, index)| {
            let authority = match server.carrier {
                Carrier::Udp => format!("{}:{}", server.host, server.port),
                _ => super::turn::placeholder::authority(index),
            };
            let by_secret = server.has_secret();
            let entry = Entry::new(server.url(), ServerKind::Turn, now);
            let is_named = !server.is_stream() && matches!(server.host, Host::Domain(_));
            Entry { authority: Some(authority), by_secret, is_named, ..entry }
        });
        Self(Arc::new(Mutex::new(stun.chain(turn).collect())), Arc::default())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How all of them do, in the order of the settings.
    pub(crate) fn report(&self, now: Instant) -> Vec<ServerReport> {
        self.entries().iter().map(|entry| entry.report(now)).collect()
    }

    fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of our NAT and the servers, to tell why there is no path.
    pub(crate) fn own_side(&self, now: Instant) -> OwnSide {
        let reports = self.report(now);
        let of = |kind| reports.iter().filter(move |server| server.kind == kind);
        let failed = |server: &ServerReport| matches!(server.state, ServerState::Trouble(_));
        let no_stun = of(ServerKind::Stun).all(failed) && of(ServerKind::Stun).next().is_some();
        let nat = match self.sightings().nat() {
            _ if no_stun => Nat::NoUdp,
            nat => nat,
        };
        OwnSide {
            nat,
            has_turn: of(ServerKind::Turn).next().is_some(),
            turn_works: of(ServerKind::Turn).any(|server| server.state == ServerState::Works),
        }
    }

    /// The network of this machine is another one.
    pub(crate) fn network_changed(&self) {
        self.sightings().forget();
    }

    /// `webrtc` will send to these addresses (or placeholders) when it means `HOST:PORT`.
    pub(super) fn learn(&self, host_port: &str, addresses: &[SocketAddr]) {
        let plain = |text: &str| text.replace(['[', ']'], "");
        for entry in self.entries().iter_mut() {
            if entry.authority.as_deref().is_none_or(|own| plain(own) != plain(host_port)) {
                continue;
            }
            for address in addresses {
                if !entry.addresses.contains(address) {
                    // Names change their addresses; the oldest are of no interest any more.
                    entry.addresses.truncate(MAX_ADDRESSES - 1);
                    entry.addresses.insert(0, *address);
                }
            }
        }
    }

    /// A datagram goes to this address.
    pub(super) fn sent(&self, to: SocketAddr, datagram: &[u8]) {
        if let Some(header) = binding_or_allocate(datagram).filter(|header| header.is_request()) {
            self.sent_at(to, header, datagram, Instant::now());
        }
    }

    fn sent_at(&self, to: SocketAddr, header: StunHeader, datagram: &[u8], now: Instant) {
        for entry in self.entries().iter_mut() {
            if entry.is_about(header.kind) && entry.addresses.contains(&to) {
                let with_login =
                    decoded(datagram).is_some_and(|message| message.contains(ATTR_USERNAME));
                // A peer may have named this address, and then it is ICE that asks.
                if entry.kind == ServerKind::Turn || !with_login {
                    entry.asks(header.id, with_login, now);
                }
            }
        }
    }

    /// A datagram came from this address to the socket with that one, unless it came by a stream.
    pub(super) fn received(&self, local: Option<SocketAddr>, from: SocketAddr, datagram: &[u8]) {
        if let Some(header) = binding_or_allocate(datagram).filter(|header| !header.is_request()) {
            let was_told_by_stun = self.received_at(from, header, datagram, Instant::now());
            if let Some(local) = local.filter(|_| was_told_by_stun) {
                self.sightings().note(local, from, datagram);
            }
        }
    }

    /// True when it is a STUN server's answer to a request of ours, with what that asked for.
    fn received_at(
        &self,
        from: SocketAddr,
        header: StunHeader,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let mut was_told = false;
        for entry in self.entries().iter_mut() {
            if entry.is_about(header.kind) && entry.addresses.contains(&from) {
                let was_open = entry.answers(header, datagram, now);
                was_told |= was_open && entry.kind == ServerKind::Stun;
            }
        }
        was_told && header.kind & ERROR == SUCCESS
    }

    /// A stream to the server of this URL is there, as long as what is returned.
    pub(super) fn stream(&self, url: &str) -> LiveStream {
        let live = LiveStream { health: self.clone(), url: url.to_owned() };
        live.each(|streams| *streams += 1);
        live
    }

    /// A stream to the server of this URL could not be made, or broke. While others live, the server is not to blame.
    pub(super) fn failed(&self, url: &str, reason: &str, now: Instant) {
        let mut entries = self.entries();
        for entry in entries.iter_mut().filter(|entry| entry.url == url && entry.streams == 0) {
            entry.set(ServerState::Trouble(reason.to_owned()), now);
        }
    }
}

/// A stream that lives.
pub(super) struct LiveStream {
    health: Health,
    url: String,
}

impl LiveStream {
    fn each(&self, change: impl Fn(&mut usize)) {
        for entry in self.health.entries().iter_mut().filter(|entry| entry.url == self.url) {
            change(&mut entry.streams);
        }
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.each(|streams| *streams = streams.saturating_sub(1));
    }
}

/// The header of a Binding or Allocate message. Nearly all datagrams are none, and this is all that is
/// done with them.
fn binding_or_allocate(datagram: &[u8]) -> Option<StunHeader> {
    match datagram.first_chunk::<2>()? {
        [0 | 1, 0x01 | 0x11 | 0x03 | 0x13] => StunHeader::read(datagram),
        _ => None,
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
