//! The methods: check, ask the daemon once, convert.

use std::sync::Arc;
use std::time::Duration;

use qanah_core::policy::{Caller, Denial, Privilege, permit};
use qanah_proto::v1;
use qanah_proto::v1::control_server::Control;
use tonic::{Request, Response, Status};

use super::auth::DenialLog;
use super::connection::{Limits, Peer};
use super::places::{Places, Room};
use super::request::{Options, Source, UpCall, known_name, source, tunnel_name};
use super::{Backend, ControlFailure, VERSION, watch};

/// How long an offer is open when the request does not say.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The longest that an offer may be open.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest name of a peer, in bytes: a name from a configuration, a key or an address.
const MAX_PEER: usize = 256;

/// The gRPC service over a daemon.
#[derive(Debug)]
pub(crate) struct Service<B> {
    backend: B,
    limits: Limits,
    watchers: Arc<Places>,
    log: DenialLog,
}

impl<B: Backend> Service<B> {
    pub(super) fn new(backend: B, limits: Limits, log: DenialLog) -> Self {
        let watchers = Places::new(Room {
            all: limits.watchers,
            reserved_for_root: limits.watchers_per_user.min(limits.watchers / 4),
            per_user: limits.watchers_per_user,
        });
        Self { backend, limits, watchers, log }
    }

    /// Whether whoever makes a request may have this of it. A denial is logged.
    fn permit<T>(
        &self,
        request: &Request<T>,
        method: &str,
        privilege: Privilege,
    ) -> Result<(), ControlFailure> {
        let peer = request.extensions().get::<Peer>();
        permit(caller(peer), privilege).map_err(|denial| {
            self.log.note(peer, method, denial);
            denial.into()
        })
    }

    /// A configuration of a request, if whoever makes the request may give it.
    fn source<T>(
        &self,
        request: &Request<T>,
        method: &str,
        config: Option<v1::ConfigSource>,
    ) -> Result<Source, ControlFailure> {
        let source = source(config)?;
        if matches!(source, Source::Text { .. }) {
            self.permit(request, method, Privilege::ConfigText)?;
        }
        Ok(source)
    }
}

fn caller(peer: Option<&Peer>) -> Option<Caller> {
    peer.map(|peer| Caller { uid: peer.uid })
}

/// Whether whoever makes the request may see what a configuration says.
fn quotes<T>(request: &Request<T>) -> bool {
    permit(caller(request.extensions().get::<Peer>()), Privilege::ConfigQuotes).is_ok()
}

/// Waits for an answer as long as it may take.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ControlFailure>>,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(limit, answer).await;
    Ok(answer.unwrap_or(Err(ControlFailure::TimedOut(limit)))?)
}

#[tonic::async_trait]
impl<B: Backend> Control for Service<B> {
    type WatchStream = watch::Changes;

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let name = request.into_inner().tunnel;
        let name = name.as_deref().map(known_name).transpose()?;
        let report = within(self.limits.call, self.backend.status(name)).await?;
        Ok(Response::new(report.into()))
    }

    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse { version: VERSION.to_owned() }))
    }

    async fn up(
        &self,
        mut request: Request<v1::UpRequest>,
    ) -> Result<Response<v1::UpResponse>, Status> {
        let v1::UpRequest { config, options } = std::mem::take(request.get_mut());
        let source = self.source(&request, "Up", config)?;
        let options = Options::of(options);
        if options.is_some() {
            self.permit(&request, "Up", Privilege::UpWithOptions)?;
        }
        let call = UpCall { source, options, quotes: quotes(&request) };
        let done = within(self.limits.hooks, self.backend.up(call)).await?;
        Ok(Response::new(done.into()))
    }

    async fn down(
        &self,
        request: Request<v1::DownRequest>,
    ) -> Result<Response<v1::DownResponse>, Status> {
        let name = tunnel_name(&request.into_inner().tunnel)?;
        let notes = within(self.limits.hooks, self.backend.down(name)).await?;
        Ok(Response::new(v1::DownResponse { notes }))
    }

    async fn reload(
        &self,
        request: Request<v1::ReloadRequest>,
    ) -> Result<Response<v1::ReloadResponse>, Status> {
        let quotes = quotes(&request);
        let name = tunnel_name(&request.into_inner().tunnel)?;
        let done = within(self.limits.hooks, self.backend.reload(name, quotes)).await?;
        Ok(Response::new(done.into()))
    }

    async fn check(
        &self,
        mut request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let v1::CheckRequest { config } = std::mem::take(request.get_mut());
        let source = self.source(&request, "Check", config)?;
        let checked = self.backend.check(source, quotes(&request));
        let done = within(self.limits.call, checked).await?;
        Ok(Response::new(done.into()))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<watch::Changes>, Status> {
        let peer = request.extensions().get::<Peer>().ok_or(Denial::NoIdentity);
        let uid = peer.map_err(ControlFailure::from)?.uid;
        let name = request.into_inner().tunnel;
        let name = name.as_deref().map(known_name).transpose()?;
        let place = self.watchers.take(uid).ok_or_else(|| {
            ControlFailure::TooMuch("too many clients watch already; end one of them".to_owned())
        })?;
        // In this order, so that no change falls between the two.
        let states = self.backend.watch();
        let first = within(self.limits.call, self.backend.status(name.clone())).await?;
        Ok(Response::new(watch::stream(first, states, name, place)))
    }

    async fn offer(
        &self,
        request: Request<v1::OfferRequest>,
    ) -> Result<Response<v1::OfferResponse>, Status> {
        let v1::OfferRequest { tunnel, peer, lifetime_seconds } = request.into_inner();
        let tunnel = known_name(&tunnel)?;
        if peer.as_ref().is_some_and(|peer| peer.len() > MAX_PEER) {
            let text = format!("the name of a peer has at most {MAX_PEER} bytes");
            return Err(ControlFailure::BadOption(text).into());
        }
        let lifetime = lifetime_seconds.map_or(LIFETIME, |s| Duration::from_secs(s.into()));
        if lifetime.is_zero() || lifetime > LONGEST_LIFETIME {
            let text = "an offer can be open for 1 second to 1 day".to_owned();
            return Err(ControlFailure::BadOption(text).into());
        }
        let made = self.backend.offer(tunnel, peer, lifetime);
        Ok(Response::new(within(self.limits.pairing, made).await?.into()))
    }

    async fn answer(
        &self,
        request: Request<v1::AnswerRequest>,
    ) -> Result<Response<v1::AnswerResponse>, Status> {
        let v1::AnswerRequest { tunnel, text } = request.into_inner();
        let made = self.backend.answer(known_name(&tunnel)?, text);
        Ok(Response::new(within(self.limits.pairing, made).await?.into()))
    }

    async fn accept(
        &self,
        request: Request<v1::AcceptRequest>,
    ) -> Result<Response<v1::AcceptResponse>, Status> {
        let v1::AcceptRequest { tunnel, text } = request.into_inner();
        let taken = self.backend.accept(known_name(&tunnel)?, text);
        let peer = within(self.limits.pairing, taken).await?;
        Ok(Response::new(v1::AcceptResponse { peer }))
    }
}
