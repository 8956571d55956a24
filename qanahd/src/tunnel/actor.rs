//! The actor on a tunnel's thread: runs the session machines of all peers.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qanah_core::mesh::Reach;
use qanah_core::plan::Step;
use qanah_core::router::{PeerId, Router};
use qanah_core::signal::SessionId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::address::Happening;
use super::changes::Changes;
use super::connector::Connecting;
use super::members::{Member, Members};
use super::network;
use super::pairing::{self, Pairing};
use super::peer::Peer;
use super::report::Identity;
use super::shared::Shared;
use super::{Behaviour, Command, Prepared, QUEUE, TunnelError};
use crate::books::Books;
use crate::clock;
use crate::downlink::Heard;
use crate::held::Held;
use crate::mqtt::Signaling;
use crate::pace::Pace;
use crate::platform::interfaces::Interfaces;
use crate::platform::netlink::Applied;
use crate::relay::RelayDesk;
use crate::rtc;
use crate::senders::Senders;
use crate::stats::Drop;
use crate::uplink::{ICMP_PER_SECOND, Uplink, Wanted};

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(1500);

/// What a tunnel's thread begins with.
pub(super) struct Start {
    pub(super) prepared: Prepared,
    pub(super) steps: Vec<Step>,
    pub(super) rtc: rtc::Settings,
    pub(super) signaling: Signaling,
    pub(super) queue: mpsc::Receiver<Command>,
    pub(super) changes: Changes,
    pub(super) behaviour: Behaviour,
    pub(super) interfaces: Interfaces,
}

/// Peers whose packets had no session to go by, until the actor has time for them.
const WANTED: usize = 64;

pub(super) struct Actor {
    pub(super) identity: Identity,
    pub(super) members: Members,
    pub(super) shared: Shared,
    pub(super) applied: Applied,
    /// A broker is connected.
    pub(super) signaling: bool,
    /// The way to the data path, for a reload.
    pub(super) routes: watch::Sender<Arc<Router>>,
    pub(super) books: Rc<Books>,
    pairing: Pairing,
    commands: mpsc::Receiver<Command>,
    happenings: mpsc::Receiver<(PeerId, SessionId, Happening)>,
    wanted: mpsc::Receiver<PeerId>,
    uplink: JoinHandle<io::Error>,
    /// What the uplink has read from the device, and how much of that was seen at the last look.
    reads: Rc<Cell<u64>>,
    reads_seen: u64,
    /// Ends when the last connection has.
    running: mpsc::Receiver<()>,
    changes: Changes,
}

impl Actor {
    pub(super) fn new(start: Start, applied: Applied) -> Self {
        let Prepared { name, config, public_key, peers, .. } = start.prepared;
        let members = peers.into_iter().map(Peer::new).zip(&config.peers);
        let members =
            Members::new(members.map(|(peer, config)| Member::new(peer, config)).collect());
        let (routes, router) = watch::channel(Arc::new(members.router()));
        let (reports, happenings) = mpsc::channel(QUEUE);
        let (is_running, running) = mpsc::channel(1);
        let books = Rc::<Books>::default();
        books.peers.replace(members.stats());
        applied.device().note_mtu(config.interface.mtu);
        let senders = Rc::new(RefCell::new(Senders::new(Rc::clone(&books))));
        let Behaviour { relay, lazy } = start.behaviour;
        let desk = relay.then(|| Rc::new(RelayDesk::new(Rc::clone(&senders), Rc::clone(&books))));
        let held = Rc::new(RefCell::new(Held::new(lazy.is_some())));
        let (wanting, wanted) = mpsc::channel(WANTED);
        let reads = Rc::<Cell<u64>>::default();
        let uplink = Uplink {
            tun: Arc::clone(applied.device()),
            reads: Rc::clone(&reads),
            router: router.clone(),
            senders: Rc::clone(&senders),
            books: Rc::clone(&books),
            progress: start.rtc.progress.clone(),
            icmp: Pace::new(ICMP_PER_SECOND),
            desk: desk.clone(),
            held: Rc::clone(&held),
            wanted: Wanted::new(wanting),
        };
        start.rtc.prefetch();
        let port = config.interface.listen_port.map(rtc::Port::new);
        let connecting = Rc::new(Connecting {
            rtc: rtc::Settings { port, ..start.rtc },
            interface: name.as_str().to_owned(),
            interfaces: start.interfaces,
            prefixes: RefCell::new(config.interface.addresses.clone()),
        });
        let addresses = config.interface.addresses.clone();
        let mut actor = Self {
            identity: Identity::new(&name, public_key, &config),
            members,
            shared: Shared {
                tun: Arc::clone(applied.device()),
                router,
                senders,
                held,
                reach: RefCell::new(Reach::default()),
                desk,
                signaling: start.signaling,
                reports,
                running: is_running,
                connecting,
            },
            applied,
            signaling: false,
            routes,
            books,
            pairing: Pairing::default(),
            commands: start.queue,
            happenings,
            wanted,
            uplink: tokio::task::spawn_local(uplink.run()),
            reads,
            reads_seen: 0,
            running,
            changes: start.changes,
        };
        actor.name_peers(addresses);
        actor
    }

    /// Serves until the interface is gone, or whoever gives commands.
    pub(super) async fn serve(&mut self) -> TunnelError {
        let mut network = match network::watch(&self.shared.connecting) {
            Ok(network) => network,
            Err(error) => return error.into(),
        };
        loop {
            self.pairing.collect(&mut self.members.peers_mut());
            let deadline = self.deadline();
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(clock::timer(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    // The stop follows.
                    None => std::future::pending().await,
                },
                Some((peer, session, what)) = self.happenings.recv() => {
                    self.happened(peer, session, what);
                }
                Some(peer) = self.wanted.recv() => {
                    self.with_peer(peer, |peer, now| peer.paths.want(now));
                }
                Some(network) = network.recv() => {
                    // The brokers first: what is said next should find them.
                    self.shared.signaling.network_changed();
                    self.shared.connecting.rtc.health.network_changed();
                    let now = clock::now();
                    self.with_all(|peer| peer.network_changed(now, &network));
                }
                () = timer => self.timeout(),
                ended = &mut self.uplink => {
                    let error = ended.unwrap_or_else(|panic| io::Error::other(panic.to_string()));
                    return TunnelError::Interface(error);
                }
            }
        }
    }

    /// When something is to be done although nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let peers = self.members.iter().filter_map(|member| member.peer.paths.poll_timeout());
        let reach = self.shared.reach.borrow().poll_timeout();
        peers.chain(reach).chain(self.shared.held.borrow().next_expiry()).min()
    }

    fn happened(&mut self, peer: PeerId, session: SessionId, what: Happening) {
        match what {
            Happening::Heard(Heard::Mesh(message)) => self.mesh(peer, message),
            Happening::Heard(Heard::By(relay)) => self.heard_by(peer, relay),
            other => self.with_peer(peer, |peer, now| peer.happened(now, session, other)),
        }
    }

    async fn command(&mut self, command: Command) {
        clock::look();
        let now = clock::now();
        match command {
            Command::Envelope(peer, envelope) => {
                self.with_peer(peer, |peer, now| peer.envelope(now, &envelope));
            }
            Command::BrokersChanged => self.brokers_changed(now),
            Command::Status(reply) => {
                self.with_all(|peer| peer.refresh(now));
                let by_hand = self.shared.signaling.status().is_empty();
                // Whoever asked may have gone.
                let report = self.report(by_hand, now);
                let _ = reply.send(report);
            }
            Command::Pulse(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.packets_move());
            }
            Command::Offer { .. } | Command::Answer { .. } | Command::Accept { .. } => {
                self.pair_by_hand(command);
            }
            Command::Reload(reload, reply) => {
                let outcome = self.reload(*reload).await;
                self.changes.tell();
                let _ = reply.send(outcome);
            }
        }
    }

    /// Whether the uplink has read a packet since the last look, or none waits for it. A packet that
    /// has come just now may wait without anything being wrong; but not at one look after another.
    fn packets_move(&mut self) -> bool {
        let reads = self.reads.get();
        let has_read = reads != std::mem::replace(&mut self.reads_seen, reads);
        has_read || !self.applied.device().has_packet()
    }

    /// How it is now counts, not what the command was about: two may overtake each other.
    fn brokers_changed(&mut self, now: Instant) {
        self.signaling = self.shared.signaling.status().iter().any(|broker| broker.connected);
        if self.signaling {
            self.with_all(|peer| peer.paths.set_broker(now, true));
        } else {
            self.with_all(|peer| peer.paths.set_broker(now, false));
        }
    }

    fn timeout(&mut self) {
        clock::look();
        let now = clock::now();
        let due = |member: &Member| member.peer.paths.poll_timeout().is_some_and(|at| at <= now);
        let due: Vec<PeerId> =
            self.members.iter().filter(|it| due(it)).map(|member| member.peer.id).collect();
        for peer in due {
            self.with_peer(peer, |peer, now| peer.timeout(now));
        }
        self.shared.reach.get_mut().timeout(now);
        self.follow_reach();
        for (peer, _) in self.shared.held.borrow_mut().expire(now) {
            if let Some(member) = self.members.get(peer) {
                member.peer.stats.drops.count(Drop::NotConnected);
            }
        }
    }

    /// Offer, answer, accept.
    fn pair_by_hand(&mut self, command: Command) {
        let router = Arc::clone(&self.shared.router.borrow());
        let mut peers = self.members.peers_mut();
        match command {
            Command::Offer { peer, lifetime, reply } => {
                self.pairing.offer(&mut peers, &router, peer.as_deref(), lifetime, reply);
            }
            Command::Answer { text, reply } => self.pairing.answer(&mut peers, &text, reply),
            // Whoever asked may have gone.
            Command::Accept { text, reply } => {
                drop(reply.send(pairing::accept(&mut peers, &text)));
            }
            _ => {}
        }
        // The machines want something now.
        self.with_all(|_| {});
    }

    pub(super) fn with_peer(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, Instant)) {
        self.touch(id, act);
        self.follow_reach();
    }

    /// As [`Actor::with_peer`], without what follows for others.
    pub(super) fn touch(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, Instant)) {
        if let Some(member) = self.members.get_mut(id) {
            act(&mut member.peer, clock::now());
            member.peer.settle(&self.shared);
            if member.looks_new() {
                self.changes.tell();
            }
            self.observe(id);
        }
    }

    pub(super) fn with_all(&mut self, act: impl Fn(&mut Peer)) {
        let mut changed = false;
        for member in self.members.iter_mut() {
            act(&mut member.peer);
            member.peer.settle(&self.shared);
            changed |= member.looks_new();
        }
        if changed {
            self.changes.tell();
        }
        for id in self.members.names().into_iter().map(|(id, _)| id) {
            self.observe(id);
        }
        self.follow_reach();
    }

    /// Tells the peers, waits a little until their connections are closed, and gives back what is
    /// to be taken back.
    pub(super) async fn goodbye(mut self) -> Applied {
        self.uplink.abort();
        // What goes by relays first: it needs the sessions with them.
        self.with_all(|peer| peer.paths.stop_relayed());
        self.with_all(|peer| peer.paths.stop());
        drop(self.shared.running);
        // Connections report while they close; nobody needs it any more, but they may wait for room.
        self.happenings.close();
        let closed = tokio::time::timeout(GOODBYE, self.running.recv()).await;
        if closed.is_err() {
            warn!("some connections did not close in time");
        }
        self.applied
    }
}
