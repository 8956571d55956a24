//! How long a client may take to send the whole of a request.
//!
//! A call has its time limit from the moment when its request is there, and for some calls that is
//! minutes (hooks). Half a request must not hold its place for as long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use tower::{Layer, Service};

/// Puts a time limit on the bodies of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWithin(pub(super) Duration);

impl<S> Layer<S> for ReceiveWithin {
    type Service = Receiving<S>;

    fn layer(&self, inner: S) -> Receiving<S> {
        Receiving { inner, limit: self.0 }
    }
}

/// A service whose requests come within their time.
#[derive(Debug, Clone)]
pub(super) struct Receiving<S> {
    inner: S,
    limit: Duration,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Receiving<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let limit = self.limit;
        let within = |body| Body::new(Within { body, timer: Box::pin(sleep(limit)) });
        self.inner.call(request.map(within))
    }
}

/// A body that ends in an error when it takes too long.
struct Within {
    body: Body,
    timer: Pin<Box<Sleep>>,
}

impl HttpBody for Within {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.timer.as_mut().poll(cx).map(|()| {
                Some(Err(Status::deadline_exceeded("the request did not come in as a whole")))
            }),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
