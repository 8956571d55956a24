//! One peer connection.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use qanah_core::signal::{Candidate, IceCredentials, RtcDescription};
use tokio::sync::Mutex;
use webrtc::data_channel::RTCDataChannelInit;
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder};
use webrtc_core::peer_connection::configuration::RTCOfferOptions;

use super::admission::Admission;
use super::handler::{Handler, Shared};
use super::names::Names;
use super::runtime::DriverRuntime;
use super::sdp::Remote;
use super::told::Told;
use super::turn::streams::Streams;
use super::{
    CHANNEL_LABEL, EventSink, RtcError, RtcEvent, SCTP_PORT, Settings, TurnServer, candidate,
    options, sdp,
};
use crate::dial::Dialer;

/// `webrtc` waits up to 100 ms for its driver; more than this means that it hangs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last words to TURN servers over streams are waited for after that.
const STREAMS_TIMEOUT: Duration = Duration::from_millis(500);

/// Addresses to bind, read anew by `webrtc` whenever it binds: at the start and at an ICE restart.
#[derive(Clone)]
struct BindAddresses(Arc<StdMutex<Vec<SocketAddr>>>);

impl BindAddresses {
    fn set(&self, addresses: &[IpAddr]) {
        // An unspecified address would make `webrtc` bind every interface, our own TUNs too.
        let wanted = addresses.iter().filter(|address| !address.is_unspecified());
        let list = wanted.map(|ip| SocketAddr::new(*ip, 0)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl ToSocketAddrs for BindAddresses {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(list.clone().into_iter())
    }
}

/// Where the connection stands in signaling.
#[derive(Default)]
struct State {
    /// The other side's description without its ICE credentials.
    remote: Option<Remote>,
    /// We began an ICE restart and wait for the other side's credentials.
    is_restarting: bool,
}

/// How an ICE restart of the other side was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// It was theirs to begin: send them our new credentials, for the same generation.
    Answer(IceCredentials),
    /// It completes the restart that we had begun; nothing to send.
    Complete,
}

/// A peer connection with one data channel.
///
/// Dropping it ends it at once; [`close`](Self::close) does so politely.
pub(crate) struct Connection {
    peer: Arc<dyn PeerConnection>,
    shared: Arc<Shared>,
    runtime: Arc<DriverRuntime>,
    streams: Streams,
    told: Told,
    names: Names,
    addresses: BindAddresses,
    settings: Settings,
    state: Mutex<State>,
}

impl Connection {
    /// What is below, to be a peer that does what ours never does.
    #[cfg(test)]
    pub(super) fn peer(&self) -> &dyn PeerConnection {
        self.peer.as_ref()
    }

    /// Begins a connection and opens its data channel. Returns at once, with a description that has no
    /// candidates; gathering goes on by itself.
    ///
    /// # Errors
    /// [`RtcError::NoAddresses`], or a server URL that `webrtc` does not understand.
    pub(crate) async fn offer(
        settings: &Settings,
        events: EventSink,
    ) -> Result<(Self, RtcDescription), RtcError> {
        let connection = Self::build(settings, events, true).await?;
        let init = RTCDataChannelInit {
            ordered: false,
            max_retransmits: settings.max_retransmits,
            ..RTCDataChannelInit::default()
        };
        let channel = connection.peer.create_data_channel(CHANNEL_LABEL, Some(init)).await?;
        connection.shared.own_channel(channel);
        let offer = connection.peer.create_offer(None).await?;
        let local = describe(&offer.sdp, settings)?;
        connection.names.add_ufrag(&local.ice.ufrag);
        connection.peer.set_local_description(offer).await?;
        Ok((connection, local))
    }

    /// Answers an offer. The candidates in it are added too.
    ///
    /// # Errors
    /// As [`offer`](Self::offer), and when the description asks for what is not supported.
    pub(crate) async fn answer(
        settings: &Settings,
        remote: &RtcDescription,
        events: EventSink,
    ) -> Result<(Self, RtcDescription), RtcError> {
        let fixed = fixed_part(remote)?;
        let offer = sdp::offer(&remote.ice, &fixed)?;
        let connection = Self::build(settings, events, false).await?;
        connection.peer.set_remote_description(offer).await?;
        let answer = connection.peer.create_answer(None).await?;
        let local = describe(&answer.sdp, settings)?;
        connection.names.add_ufrag(&local.ice.ufrag);
        connection.peer.set_local_description(answer).await?;
        connection.state.lock().await.remote = Some(fixed);
        connection.add_remote(&remote.candidates).await;
        Ok((connection, local))
    }

    async fn build(
        settings: &Settings,
        events: EventSink,
        is_offerer: bool,
    ) -> Result<Self, RtcError> {
        let addresses = BindAddresses(Arc::default());
        addresses.set(&settings.local_addresses);
        if addresses.is_empty() {
            return Err(RtcError::NoAddresses);
        }
        let names = Names::default();
        let admission = Admission::new(Told::new(settings.foreign.clone()), names.clone());
        let told = admission.told().clone();
        let shared = Arc::new(Shared::new(events, is_offerer, admission.clone(), names.clone()));
        let on_exit = {
            let shared = Arc::clone(&shared);
            Arc::new(move || shared.closed("the driver of the connection ended"))
        };
        let dialer = Dialer {
            resolver: settings.resolver.clone(),
            fw_mark: settings.fw_mark,
            ..settings.dialer.clone()
        };
        let streams = Streams::new(settings.turn.clone(), dialer, settings.health.clone());
        let runtime =
            Arc::new(DriverRuntime::new(settings, streams.clone(), admission, &names, on_exit));
        shared.set_runtime(&runtime);
        let peer = PeerConnectionBuilder::new()
            .with_configuration(options::configuration(settings))
            .with_setting_engine(options::setting_engine(settings))
            .with_runtime(runtime.clone())
            .with_handler(Arc::new(Handler(Arc::clone(&shared))))
            .with_data_channel_send_buffer_limit(settings.send_buffer)
            .with_udp_addrs(vec![addresses.clone()])
            .build()
            .await;
        let peer: Arc<dyn PeerConnection> = match peer {
            Ok(peer) => Arc::new(peer),
            Err(error) => {
                shared.silence();
                runtime.abort_all();
                return Err(error.into());
            }
        };
        shared.set_connection(&peer);
        Ok(Self {
            peer,
            shared,
            runtime,
            streams,
            told,
            names,
            addresses,
            settings: settings.clone(),
            state: Mutex::default(),
        })
    }

    /// Takes the answer to our offer, with the candidates in it.
    ///
    /// # Errors
    /// When there was an answer before, or this one asks for what is not supported.
    pub(crate) async fn accept_answer(&self, remote: &RtcDescription) -> Result<(), RtcError> {
        let fixed = fixed_part(remote)?;
        let answer = sdp::answer(&remote.ice, &fixed)?;
        let mut state = self.state.lock().await;
        if state.remote.is_some() {
            return Err(RtcError::Unsupported("a second answer"));
        }
        self.peer.set_remote_description(answer).await?;
        state.remote = Some(fixed);
        drop(state);
        self.add_remote(&remote.candidates).await;
        Ok(())
    }

    /// Adds candidates of the other side. Before its description is known they must be held back.
    ///
    /// # Errors
    /// [`RtcError::Generation`] when `generation` is not the current one: drop them when it is over,
    /// hold them back when it has not begun.
    pub(crate) async fn add_candidates(
        &self,
        generation: u32,
        candidates: &[Candidate],
    ) -> Result<(), RtcError> {
        if generation != self.generation() || self.state.lock().await.remote.is_none() {
            return Err(RtcError::Generation(generation));
        }
        self.add_remote(candidates).await;
        Ok(())
    }

    async fn add_remote(&self, candidates: &[Candidate]) {
        for candidate in candidates {
            let Some(init) = candidate::to_remote(candidate) else {
                continue;
            };
            if !self.told.add(candidate) {
                tracing::debug!(address = %candidate.address, "candidate refused: another overlay");
                continue;
            }
            tracing::debug!(address = %candidate.address, "candidate of the peer");
            if let Err(error) = self.peer.add_ice_candidate(init).await {
                tracing::debug!(%error, address = %candidate.address, "candidate not taken");
            }
            self.shared.told(candidate).await;
        }
    }

    /// The current ICE generation: 0, and one more for each restart.
    #[must_use]
    pub(crate) fn generation(&self) -> u32 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Addresses to bind from the next ICE restart on, for when those of the machine have changed.
    pub(crate) fn set_local_addresses(&self, addresses: &[IpAddr]) {
        self.addresses.set(addresses);
    }

    /// Begins an ICE restart: new sockets, new candidates. Returns the new generation and our credentials
    /// for it, to be sent until the other side's arrive at [`remote_restart`](Self::remote_restart).
    /// The old path is given up at once, so this is for a path that is dead already.
    ///
    /// # Errors
    /// Before the first description of the other side is known, or when there is no address left.
    pub(crate) async fn restart_ice(&self) -> Result<(u32, IceCredentials), RtcError> {
        let mut state = self.state.lock().await;
        if state.remote.is_none() {
            return Err(RtcError::Unsupported("an ICE restart before the answer"));
        }
        if self.addresses.is_empty() {
            return Err(RtcError::NoAddresses);
        }
        self.renew_passwords().await?;
        let generation = self.generation().saturating_add(1);
        // Not `restart_ice()` of `webrtc`: that gathers once before the restart, for nothing.
        let options = RTCOfferOptions { ice_restart: true };
        let offer = self.peer.create_offer(Some(options)).await?;
        let credentials = sdp::credentials(&offer.sdp)?;
        self.names.add_ufrag(&credentials.ufrag);
        self.shared.generation.store(generation, Ordering::Release);
        self.shared.restarting();
        self.peer.set_local_description(offer).await?;
        state.is_restarting = true;
        Ok((generation, credentials))
    }

    /// Takes the other side's credentials of an ICE restart: an answer to ours or a restart of its own.
    ///
    /// When both begin one at the same time they name the same generation, and each takes the other's
    /// credentials as the answer to its own: there is nothing to decide. The ICE roles
    /// stay as they were (the first offerer controls).
    ///
    /// # Errors
    /// [`RtcError::Generation`] for a generation that is known already; the connection is not touched.
    pub(crate) async fn remote_restart(
        &self,
        generation: u32,
        remote: &IceCredentials,
    ) -> Result<Restart, RtcError> {
        let mut state = self.state.lock().await;
        let Some(fixed) = state.remote else {
            return Err(RtcError::Generation(generation));
        };
        let current = self.generation();
        if generation == current && state.is_restarting {
            let answer = sdp::answer(remote, &fixed)?;
            self.peer.set_remote_description(answer).await?;
            state.is_restarting = false;
            return Ok(Restart::Complete);
        }
        if generation <= current {
            return Err(RtcError::Generation(generation));
        }
        let offer = sdp::offer(remote, &fixed)?;
        if state.is_restarting {
            // The other side is ahead: ours is void.
            self.peer.set_local_description(sdp::rollback()).await?;
            state.is_restarting = false;
        }
        self.renew_passwords().await?;
        self.shared.generation.store(generation, Ordering::Release);
        self.shared.restarting();
        self.peer.set_remote_description(offer).await?;
        let answer = self.peer.create_answer(None).await?;
        let credentials = sdp::credentials(&answer.sdp)?;
        self.names.add_ufrag(&credentials.ufrag);
        self.peer.set_local_description(answer).await?;
        Ok(Restart::Answer(credentials))
    }

    /// New passwords for the allocations that a restart makes, where they are made from a secret: those
    /// of the beginning may have ended.
    async fn renew_passwords(&self) -> Result<(), RtcError> {
        if self.settings.turn.iter().any(TurnServer::has_secret) {
            self.peer.set_configuration(options::configuration(&self.settings)).await?;
        }
        Ok(())
    }

    /// The path in use: our end and the other; `None` while there is none.
    #[cfg(test)]
    pub(crate) async fn selected_pair(
        &self,
    ) -> Option<(super::SelectedCandidate, super::SelectedCandidate)> {
        self.shared.selected_pair().await
    }

    /// Ends the connection: tells the other side, gives TURN allocations back, ends all tasks and
    /// sockets. Takes 1.5 s at the very most. No event comes any more.
    pub(crate) async fn close(self) {
        self.shared.silence();
        // The wait for the driver in there shall be one.
        self.runtime.set_eager(false);
        match tokio::time::timeout(CLOSE_TIMEOUT, self.peer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "closing a connection"),
            Err(_) => tracing::warn!("a connection did not close in time"),
        }
        self.runtime.abort_all();
        self.streams.finish(STREAMS_TIMEOUT).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.silence();
        self.runtime.abort_all();
    }
}

fn describe(sdp: &str, settings: &Settings) -> Result<RtcDescription, RtcError> {
    Ok(RtcDescription {
        ice: sdp::credentials(sdp)?,
        fingerprint: sdp::fingerprint(sdp)?,
        role: sdp::role(sdp)?,
        sctp_port: SCTP_PORT,
        max_message_size: settings.max_message_size,
        packet_size: None,
        candidates: Vec::new(),
    })
}

fn fixed_part(remote: &RtcDescription) -> Result<Remote, RtcError> {
    if remote.sctp_port != SCTP_PORT {
        return Err(RtcError::Unsupported("SCTP port"));
    }
    Ok(Remote {
        fingerprint: remote.fingerprint,
        role: remote.role,
        max_message_size: remote.max_message_size,
    })
}

/// So that `RtcEvent` can be sent between threads, which `webrtc`'s callbacks need.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<RtcEvent>();
};
