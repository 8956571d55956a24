//! Authorisation of every call, before anything of it is read but its path.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{Either, Ready, ready};
use qanah_core::policy::{Caller, Decision, Denial, decide};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::ControlFailure;
use super::connection::Peer;
use super::throttle::Throttle;
use crate::events::DENIED;

/// How much of a method's path goes into the log: a caller chooses it.
const LOGGED_PATH: usize = 100;

/// Denied calls that are logged one by one in each window of time. Of a flood only the number is:
/// the journal would drop the other messages of the daemon with it.
const LOGGED_CALLS: u32 = 100;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// Logs denied calls. Clones share its bounds.
#[derive(Debug, Clone)]
pub(super) struct DenialLog(Arc<Mutex<Throttle>>);

impl Default for DenialLog {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Throttle::new(LOGGED_CALLS, LOG_WINDOW))))
    }
}

impl DenialLog {
    /// Who wanted what, and why not.
    pub(super) fn note(&self, peer: Option<&Peer>, path: &str, denial: Denial) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(not_logged) = log.pass(Instant::now()) else {
            return;
        };
        let shown: String = path.chars().take(LOGGED_PATH).collect();
        tracing::warn!(
            EVENT = DENIED.name,
            MESSAGE_ID = DENIED.id,
            uid = peer.map(|peer| peer.uid),
            pid = peer.and_then(|peer| peer.pid),
            // Debug form: escapes what a caller may have put there.
            method = ?shown,
            not_logged,
            "control call denied: {denial}"
        );
    }
}

/// Puts [`Authorised`] before a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Authorise {
    log: DenialLog,
}

impl Authorise {
    pub(super) fn new(log: DenialLog) -> Self {
        Self { log }
    }
}

impl<S> Layer<S> for Authorise {
    type Service = Authorised<S>;

    fn layer(&self, inner: S) -> Authorised<S> {
        Authorised { inner, log: self.log.clone() }
    }
}

/// A service behind the table of who may call what.
#[derive(Debug, Clone)]
pub(super) struct Authorised<S> {
    inner: S,
    log: DenialLog,
}

impl<S, B> Service<Request<B>> for Authorised<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let path = request.uri().path();
        match decide(peer.map(|peer| Caller { uid: peer.uid }), path) {
            Decision::Allow(_) => Either::Left(self.inner.call(request)),
            Decision::Deny(denial) => {
                self.log.note(peer, path, denial);
                let status = Status::from(ControlFailure::from(denial));
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Calls `path` as `peer` through the layer; the code that comes back, or `None` when the call
    /// reached the service.
    async fn call(peer: Option<Peer>, path: &str) -> Option<i32> {
        let inner = tower::service_fn(|_: Request<()>| {
            ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let mut request = Request::builder().uri(path).body(()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let response = Authorise::default().layer(inner).call(request).await.unwrap();
        let code = response.headers().get("grpc-status")?;
        Some(code.to_str().unwrap().parse().unwrap())
    }

    #[tokio::test]
    async fn calls_pass_or_are_denied_by_the_table() {
        let member = Peer { uid: 1000, pid: Some(1) };
        let status = "/qanah.control.v1.Control/Status";
        assert_eq!(call(Some(member), status).await, None);
        assert_eq!(call(None, status).await, Some(tonic::Code::PermissionDenied as i32));
        let root = Peer { uid: 0, pid: None };
        let unknown = "/qanah.control.v1.Control/Nonsense";
        assert_eq!(call(Some(root), unknown).await, Some(tonic::Code::Unimplemented as i32));
    }

    #[tokio::test]
    async fn denied_calls_are_logged_with_who_and_what() {
        let name = "control::auth::tests::denied_calls_are_logged_with_who_and_what";
        if !crate::logging::testing::alone(name) {
            return;
        }
        let lines = crate::logging::testing::Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _set = tracing::subscriber::set_default(subscriber);
        let peer = Peer { uid: 1000, pid: Some(4711) };
        call(Some(peer), "/qanah.control.v1.Control/Version").await;
        call(Some(peer), &format!("/qanah.control.v1.Control/{}", "x".repeat(5000))).await;
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("uid=1000 pid=4711 method=\"/qanah.control.v1.Control/xxx"),
            "{text}"
        );
        assert!(text.len() < 400);
    }
}
