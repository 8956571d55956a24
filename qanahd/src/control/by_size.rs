//! The service twice: one takes requests as large as a configuration, for root; one does not.
//!
//! A request is read into memory before anything can be asked of it. Members of the group have no
//! use for large ones, so theirs are not read.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use qanah_proto::MAX_RESPONSE;
use qanah_proto::v1::control_server::ControlServer;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use super::connection::Peer;
use super::service::Service as Control;
use super::{Backend, MAX_REQUEST, MAX_ROOT_REQUEST};

/// Picks by who asks.
pub(super) struct BySize<B> {
    small: ControlServer<Control<B>>,
    large: ControlServer<Control<B>>,
}

impl<B: Backend> BySize<B> {
    pub(super) fn new(service: Control<B>) -> Self {
        let service = Arc::new(service);
        let sized = |most| {
            ControlServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(most)
                .max_encoding_message_size(MAX_RESPONSE)
        };
        Self { small: sized(MAX_REQUEST), large: sized(MAX_ROOT_REQUEST) }
    }
}

impl<B> Clone for BySize<B> {
    fn clone(&self) -> Self {
        Self { small: self.small.clone(), large: self.large.clone() }
    }
}

impl<B: Backend> NamedService for BySize<B> {
    const NAME: &'static str = <ControlServer<Control<B>> as NamedService>::NAME;
}

impl<B: Backend> Service<Request<Body>> for BySize<B> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <ControlServer<Control<B>> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_root = request.extensions().get::<Peer>().is_some_and(|peer| peer.uid == 0);
        if is_root { self.large.call(request) } else { self.small.call(request) }
    }
}
