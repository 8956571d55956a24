//! From the events of `webrtc` to ours.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use qanah_core::signal::{Candidate, CandidateKind};
use webrtc::data_channel::DataChannel;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState,
};

use super::admission::Admission;
use super::channel::{self, Channel};
use super::names::Names;
use super::options::{DISCONNECTED_AFTER, FAILED_AFTER};
use super::runtime::DriverRuntime;
use super::{CHANNEL_LABEL, EventSink, RtcEvent, SelectedCandidate, candidate};

/// A peer that opens more channels of its own than this, or sends as many texts, is broken or worse: what
/// arrives on them is kept by `webrtc`, so it must not go on.
const MAX_STRAYS: u64 = 16;

/// How long DTLS, SCTP and the channel may take once ICE has a path. `webrtc` reports no failure of a
/// handshake, a wrong fingerprint included, so silence must do.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the driver's callbacks and the connection share.
pub(super) struct Shared {
    sink: EventSink,
    admission: Admission,
    names: Names,
    is_offerer: bool,
    is_closed: AtomicBool,
    has_channel: AtomicBool,
    is_open: AtomicBool,
    is_relayed: AtomicBool,
    is_timed: AtomicBool,
    /// Counts the changes of ICE's state.
    ice_epoch: AtomicU32,
    has_failed: AtomicBool,
    strays: AtomicU64,
    /// The other end as it was reported last.
    reported: Mutex<Option<SelectedCandidate>>,
    pub(super) generation: AtomicU32,
    /// Weak, because the connection holds its handler.
    connection: OnceLock<Weak<dyn PeerConnection>>,
    runtime: OnceLock<Weak<DriverRuntime>>,
}

impl Shared {
    pub(super) fn new(
        sink: EventSink,
        is_offerer: bool,
        admission: Admission,
        names: Names,
    ) -> Self {
        Self {
            sink,
            admission,
            names,
            is_offerer,
            is_closed: AtomicBool::new(false),
            has_channel: AtomicBool::new(is_offerer),
            is_open: AtomicBool::new(false),
            is_relayed: AtomicBool::new(false),
            is_timed: AtomicBool::new(false),
            ice_epoch: AtomicU32::new(0),
            has_failed: AtomicBool::new(false),
            strays: AtomicU64::new(0),
            reported: Mutex::default(),
            generation: AtomicU32::new(0),
            connection: OnceLock::new(),
            runtime: OnceLock::new(),
        }
    }

    pub(super) fn set_runtime(&self, runtime: &Arc<DriverRuntime>) {
        let _ = self.runtime.set(Arc::downgrade(runtime));
    }

    pub(super) fn set_connection(&self, connection: &Arc<dyn PeerConnection>) {
        let _ = self.connection.set(Arc::downgrade(connection));
    }

    fn emit(&self, event: RtcEvent) {
        if !self.is_closed.load(Ordering::Acquire) {
            (self.sink)(event);
        }
    }

    /// Reports the end, once. Nothing is reported after it.
    pub(super) fn closed(&self, reason: &str) {
        if !self.is_closed.swap(true, Ordering::AcqRel) {
            (self.sink)(RtcEvent::Closed { reason: reason.to_owned() });
        }
    }

    /// From now on nothing is reported: the owner ends the connection.
    pub(super) fn silence(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Reports that the channel is open.
    pub(super) fn opened(self: &Arc<Self>, channel: Arc<dyn DataChannel>) {
        self.is_open.store(true, Ordering::Release);
        // It opens when data has come, and that comes after the handshake, of both sides.
        self.admission.opened();
        self.set_eager(false);
        self.emit(RtcEvent::ChannelOpen(Channel::new(channel, Arc::clone(self))));
    }

    /// Counts what a well-behaved peer does not send.
    pub(super) fn count_stray(&self) {
        if self.strays.fetch_add(1, Ordering::Relaxed) + 1 == MAX_STRAYS {
            self.closed("the peer opens channels or sends texts that nobody asked for");
            if let Some(runtime) = self.runtime.get().and_then(Weak::upgrade) {
                runtime.abort_all();
            }
        }
    }

    fn set_eager(&self, is_needed: bool) {
        let is_relayed = self.is_relayed.load(Ordering::Relaxed);
        if let Some(runtime) = self.runtime.get().and_then(Weak::upgrade) {
            runtime.set_eager(is_needed || is_relayed);
        }
    }

    /// ICE is at work again.
    pub(super) fn restarting(self: &Arc<Self>) {
        self.ice_epoch.fetch_add(1, Ordering::AcqRel);
        self.has_failed.store(false, Ordering::Release);
        self.set_eager(true);
        self.limit_silence(DISCONNECTED_AFTER + FAILED_AFTER);
    }

    /// Nothing is heard. That is a failure when it lasts, also where ICE itself is told to be more patient.
    fn disconnected(self: &Arc<Self>) {
        self.emit(RtcEvent::IceDisconnected);
        self.limit_silence(FAILED_AFTER);
    }

    fn limit_silence(self: &Arc<Self>, limit: Duration) {
        let epoch = self.ice_epoch.load(Ordering::Acquire);
        let shared = Arc::clone(self);
        if let Some(runtime) = self.runtime.get().and_then(Weak::upgrade) {
            runtime.adopt(async move {
                tokio::time::sleep(limit).await;
                if shared.ice_epoch.load(Ordering::Acquire) == epoch {
                    shared.failed();
                }
            });
        }
    }

    /// Reports a failure once.
    fn failed(&self) {
        if !self.has_failed.swap(true, Ordering::AcqRel) {
            self.emit(RtcEvent::IceFailed);
        }
    }

    /// ICE has a path.
    fn connected(self: &Arc<Self>, local: SelectedCandidate, remote: SelectedCandidate) {
        self.has_failed.store(false, Ordering::Release);
        let is_relayed = local.kind == CandidateKind::Relayed;
        self.is_relayed.store(is_relayed, Ordering::Relaxed);
        self.set_eager(!self.is_open.load(Ordering::Acquire));
        self.limit_opening();
        *self.reported() = Some(remote);
        self.emit(RtcEvent::IceConnected { local, remote });
    }

    fn reported(&self) -> MutexGuard<'_, Option<SelectedCandidate>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A candidate was told. When it is the other end of the path, and that was taken for what it is not, the path
    /// is reported again: whether it goes through a TURN server is what others decide by.
    pub(super) async fn told(self: &Arc<Self>, candidate: &Candidate) {
        let is_relayed = |kind| kind == CandidateKind::Relayed;
        let was_wrong = self.reported().is_some_and(|remote| {
            remote.address == candidate.address
                && is_relayed(remote.kind) != is_relayed(candidate.kind)
        });
        if was_wrong && let Some((local, remote)) = self.selected_pair().await {
            self.connected(local, remote);
        }
    }

    /// The pair of candidates that ICE uses now.
    pub(super) async fn selected_pair(&self) -> Option<(SelectedCandidate, SelectedCandidate)> {
        let connection = self.connection.get()?.upgrade()?;
        let ice = connection.sctp().await?.transport().ice_transport();
        let pair = ice.get_selected_candidate_pair().await.ok()??;
        let mut remote = candidate::selected(pair.remote())?;
        // ICE keeps calling what it met before it was told by its first name.
        if let Some(kind) = self.admission.told().kind(remote.address) {
            remote.kind = kind;
        }
        let mut local = candidate::selected(pair.local())?;
        local.address = self.names.translate(local.address);
        Some((local, remote))
    }

    /// From the first path on, the channel has a while to open.
    fn limit_opening(self: &Arc<Self>) {
        if self.is_timed.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        if let Some(runtime) = self.runtime.get().and_then(Weak::upgrade) {
            runtime.adopt(async move {
                tokio::time::sleep(OPEN_TIMEOUT).await;
                if !shared.is_open.load(Ordering::Acquire) {
                    shared.closed("the channel did not open: DTLS or SCTP failed");
                }
            });
        }
    }

    fn wait_for_open(self: &Arc<Self>, channel: Arc<dyn DataChannel>) {
        if let Some(runtime) = self.runtime.get().and_then(Weak::upgrade) {
            runtime.adopt(channel::open(channel, Arc::clone(self)));
        }
    }

    /// Begins to wait for our own channel to open.
    pub(super) fn own_channel(self: &Arc<Self>, channel: Arc<dyn DataChannel>) {
        self.wait_for_open(channel);
    }

    /// Takes the one channel that the offerer opens, refuses every other.
    async fn remote_channel(self: &Arc<Self>, channel: Arc<dyn DataChannel>) {
        let is_ours = !self.is_offerer
            && channel.label().await.is_ok_and(|label| label == CHANNEL_LABEL)
            && !self.has_channel.swap(true, Ordering::AcqRel);
        if is_ours {
            self.wait_for_open(channel);
        } else {
            let _ = channel.close().await;
            self.count_stray();
        }
    }
}

/// The handler that `webrtc` calls. It must not wait: the driver does nothing else meanwhile.
pub(super) struct Handler(pub(super) Arc<Shared>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Some(mut candidate) = candidate::from_local(&event.candidate) {
            candidate.address = self.0.names.translate(candidate.address);
            let generation = self.0.generation.load(Ordering::Acquire);
            self.0.emit(RtcEvent::LocalCandidate { generation, candidate });
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let generation = self.0.generation.load(Ordering::Acquire);
            self.0.emit(RtcEvent::GatheringDone { generation });
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        match state {
            RTCIceConnectionState::Connected | RTCIceConnectionState::Completed => {
                self.0.ice_epoch.fetch_add(1, Ordering::AcqRel);
                if let Some((local, remote)) = self.0.selected_pair().await {
                    self.0.connected(local, remote);
                }
            }
            RTCIceConnectionState::Disconnected => self.0.disconnected(),
            RTCIceConnectionState::Failed => self.0.failed(),
            _ => {}
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        // "Failed" is ICE's own and reported there: a restart may mend it. DTLS never gets there (see
        // `OPEN_TIMEOUT`).
        if state == RTCPeerConnectionState::Closed {
            self.0.closed("closed by the peer");
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        self.0.remote_channel(channel).await;
    }
}
