//! One tunnel: runs the plan, owns the data-plane thread, stops it.
//!
//! Each tunnel has one thread with a runtime of its own. On it live the uplink, a downlink for
//! each session, the WebRTC connections, and the actor that runs the session machines. The daemon
//! talks to it by a bounded queue of commands.

mod actor;
mod address;
mod changes;
mod connector;
mod life;
mod members;
mod mesh;
mod network;
pub(crate) mod pairing;
mod peer;
mod reload;
mod report;
mod seen;
mod session;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use qanah_core::config::{Config, TunnelName};
use qanah_core::frame::{MAX_PACKETS, OVERHEAD, RELAY_OVERHEAD, SEGMENTS_HEADER_LEN};
use qanah_core::key::{PublicKey, SecretKey};
use qanah_core::mesh::{PathSettings, Paths};
use qanah_core::plan::{PlanError, Step, plan};
use qanah_core::router::PeerId;
use qanah_core::session::limits::REKEY_AFTER_FRAMES;
use qanah_core::session::{Machine, SessionKind, Settings};
use qanah_core::signal::{Capabilities, KeyAgreementError, PairKeys};
use rand_core::OsRng;
use tokio::sync::{mpsc, oneshot, watch};

use self::pairing::{AnswerMade, OfferMade, PairingError};
use self::peer::Seed;
use crate::clock;
use crate::control::report::TunnelReport;
use crate::mqtt::Signaling;
use crate::platform::PlatformError;
use crate::platform::hooks::{self, HookError};
use crate::platform::interfaces::Interfaces;
use crate::rtc;

pub(crate) use self::address::{Address, Happening};
pub(crate) use self::changes::Changes;
pub(crate) use self::reload::{Outline, Reload};

/// Room in the queues of a tunnel. A message that finds no room is dropped and counted; everything
/// that matters is said again.
const QUEUE: usize = 512;
/// How long a tunnel without hooks may take to stop before it is left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a tunnel did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The keys of a peer cannot be used.
    #[error("line {line}: [Peer] PublicKey: {error}")]
    Key {
        /// The line of the peer's section.
        line: usize,
        /// What is wrong with the key.
        error: KeyAgreementError,
    },
    /// The configuration cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The machine does not allow it.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// No thread, no runtime.
    #[error("cannot start the tunnel's thread: {0}")]
    Thread(std::io::Error),
    /// A hook failed, or was broken off.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A reload with another identity.
    #[error("the PrivateKey has changed; take the tunnel down and bring it up again")]
    OtherKey,
    /// The interface was deleted, or the kernel refuses to give packets.
    #[error("the interface is gone: {0}")]
    Interface(std::io::Error),
    /// A bug: the thread has panicked.
    #[error("the tunnel's thread ended unexpectedly; please report this as a bug")]
    Panicked,
}

/// What the daemon tells a tunnel.
pub(crate) enum Command {
    /// An envelope in the inbox that this peer writes to.
    Envelope(PeerId, Vec<u8>),
    /// A broker came, or the last one went: look how it is now.
    BrokersChanged,
    /// How do you do?
    Status(oneshot::Sender<TunnelReport>),
    /// Are packets that wait in the device read?
    Pulse(oneshot::Sender<bool>),
    /// Take on this configuration and say what was changed.
    Reload(Box<Reload>, oneshot::Sender<Result<Vec<String>, TunnelError>>),
    /// Make an offer that people carry.
    Offer {
        /// A peer's name, the beginning of its key, or one of its addresses; all peers without it.
        peer: Option<String>,
        /// How long the offer is open.
        lifetime: Duration,
        /// Gets the text when candidates were gathered.
        reply: oneshot::Sender<Result<OfferMade, PairingError>>,
    },
    /// Answer an offer that people have carried.
    Answer {
        /// The offer.
        text: String,
        /// Gets the text when candidates were gathered.
        reply: oneshot::Sender<Result<AnswerMade, PairingError>>,
    },
    /// Take the answer to an offer of ours.
    Accept {
        /// The answer.
        text: String,
        /// Gets the peer's name at once.
        reply: oneshot::Sender<Result<String, PairingError>>,
    },
}

/// A tunnel that is configured but not up: keys are derived, nothing on the machine is changed.
pub(crate) struct Prepared {
    name: TunnelName,
    config: Config,
    public_key: PublicKey,
    peers: Vec<Seed>,
    behaviour: Behaviour,
}

/// What a tunnel does beside connecting everybody to everybody. It stays for as long as the tunnel is up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// It passes on for others what they cannot send directly, and uses others for that.
    pub(crate) relay: bool,
    /// Peers are connected when there is traffic for them, and let go when there was none for so long.
    pub(crate) lazy: Option<Duration>,
}

impl Prepared {
    /// Derives the keys that the tunnel shares with each peer.
    ///
    /// # Errors
    /// [`TunnelError::Key`], for a public key that no private key belongs to.
    pub(crate) fn new(
        name: TunnelName,
        config: Config,
        behaviour: Behaviour,
    ) -> Result<Self, TunnelError> {
        let me = Arc::new(config.interface.private_key.clone());
        let peers = config.peers.iter().zip(0..);
        let peers = peers.map(|(peer, id)| prepare_peer(&me, PeerId(id), peer, behaviour));
        let peers = peers.collect::<Result<_, _>>()?;
        Ok(Self { name, public_key: me.public_key(), config, peers, behaviour })
    }

    /// What to compare the next configuration with.
    pub(crate) fn outline(&self) -> Outline {
        Outline::new(self.public_key, &self.config, &self.peers, self.behaviour)
    }
}

/// The steps that make a tunnel with this configuration.
fn steps(name: &TunnelName, config: &Config) -> Result<Vec<Step>, PlanError> {
    let interface = &config.interface;
    let allowed = config.peers.iter().flat_map(|peer| peer.allowed_ips.clone());
    let mtu = u16::try_from(interface.mtu).unwrap_or(u16::MAX);
    plan(name.as_str(), &interface.addresses, mtu, allowed)
}

fn prepare_peer(
    me: &Arc<SecretKey>,
    id: PeerId,
    config: &qanah_core::config::Peer,
    behaviour: Behaviour,
) -> Result<Seed, TunnelError> {
    let psk = config.preshared_key.clone().unwrap_or_default();
    let keys = PairKeys::derive(me, &config.public_key, &psk)
        .map_err(|error| TunnelError::Key { line: config.line, error })?;
    let machine = |kind| {
        let settings = Settings {
            kind,
            me: Arc::clone(me),
            peer: config.public_key,
            psk: psk.clone(),
            capabilities: capabilities(kind, behaviour),
            rekey_after_frames: REKEY_AFTER_FRAMES,
        };
        Machine::new(settings, OsRng)
    };
    let paths = Paths::new(
        machine(SessionKind::Direct),
        machine(SessionKind::Relayed),
        PathSettings { relay: behaviour.relay, lazy: behaviour.lazy },
        clock::now(),
    );
    Ok(Seed { id, public_key: config.public_key, label: config.display_name(), keys, paths })
}

/// What this version opens: as many packets in a frame as there are, in a frame as large as the largest
/// packet, and by a direct session also such a frame in a relay's cover.
fn capabilities(kind: SessionKind, behaviour: Behaviour) -> Capabilities {
    let cover = match kind {
        SessionKind::Direct => RELAY_OVERHEAD,
        SessionKind::Relayed => 0,
    };
    let max_frame = SEGMENTS_HEADER_LEN + usize::from(u16::MAX) + OVERHEAD + cover;
    Capabilities {
        max_frame: u32::try_from(max_frame).unwrap_or(u32::MAX),
        max_packets: u16::try_from(MAX_PACKETS).unwrap_or(u16::MAX),
        tcp_segments: true,
        udp_segments: true,
        datagrams: false,
        // No relay passes on for another relay.
        relay: behaviour.relay && kind == SessionKind::Direct,
        rekey: true,
        mesh_signaling: behaviour.relay && kind == SessionKind::Direct,
        lazy: behaviour.lazy.is_some(),
        path_mtu: kind == SessionKind::Direct,
    }
}

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// An error when it did not start, or ended by itself.
    pub(crate) outcome: Result<(), TunnelError>,
    /// What went wrong while it was taken down, a line each.
    pub(crate) notes: Vec<String>,
}

impl Ended {
    fn failed(error: TunnelError) -> Self {
        Self { outcome: Err(error), notes: Vec::new() }
    }
}

/// What a tunnel is given by the daemon.
pub(crate) struct Setup {
    /// How connections are made.
    pub(crate) rtc: rtc::Settings,
    /// Which interfaces of the machine are used.
    pub(crate) interfaces: Interfaces,
    /// The way to the brokers.
    pub(crate) signaling: Signaling,
    /// Who is told of changes.
    pub(crate) changes: Changes,
    /// How long hooks may take.
    pub(crate) limits: hooks::Limits,
}

/// A tunnel that starts, is up, or ends. Dropping it ends it.
pub(crate) struct Tunnel {
    commands: mpsc::Sender<Command>,
    stop: watch::Sender<bool>,
    ready: oneshot::Receiver<()>,
    ended: oneshot::Receiver<Ended>,
    stop_timeout: Duration,
}

impl Tunnel {
    /// Begins to bring a tunnel up, on a thread of its own.
    ///
    /// # Errors
    /// When there is no plan or no thread. Everything else is told by [`Tunnel::ready`].
    pub(crate) fn start(prepared: Prepared, setup: Setup) -> Result<Self, TunnelError> {
        let steps = steps(&prepared.name, &prepared.config)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let hooks = prepared.config.interface.hooks.clone();
        let hooks_timeout =
            if hooks.is_empty() { Duration::ZERO } else { setup.limits.longest() * 2 };
        let course = life::Course {
            name: prepared.name.as_str().to_owned(),
            hooks,
            limits: setup.limits,
            stop: stopped,
            ready,
        };
        let Setup { rtc, interfaces, signaling, changes, .. } = setup;
        let behaviour = prepared.behaviour;
        let start =
            actor::Start { prepared, steps, rtc, signaling, queue, changes, behaviour, interfaces };
        std::thread::Builder::new()
            .name("tunnel".to_owned())
            .spawn(move || {
                // The daemon no longer waits when it is gone itself.
                let _ = end.send(life::run(start, course));
            })
            .map_err(TunnelError::Thread)?;
        let stop_timeout = STOP_TIMEOUT + hooks_timeout;
        Ok(Self { commands, stop, ready: is_ready, ended, stop_timeout })
    }

    /// Returns when the interface can be used, or with the end of a tunnel that did not come so far.
    pub(crate) async fn ready(&mut self) -> Result<(), Ended> {
        if (&mut self.ready).await.is_ok() { Ok(()) } else { Err(self.ended().await) }
    }

    /// The queue of commands.
    pub(crate) fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Returns when the tunnel has ended. To be called once it has returned no more.
    pub(crate) async fn ended(&mut self) -> Ended {
        let ended = (&mut self.ended).await;
        ended.unwrap_or_else(|_| Ended::failed(TunnelError::Panicked))
    }

    /// Takes the tunnel down: hooks, goodbye to the peers, everything undone.
    pub(crate) async fn stop(mut self) -> Ended {
        self.stop.send_replace(true);
        match tokio::time::timeout(self.stop_timeout, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                let note = "the tunnel did not stop in time; its interface goes with the daemon";
                tracing::warn!("{note}");
                Ended { outcome: Ok(()), notes: vec![note.to_owned()] }
            }
        }
    }
}
