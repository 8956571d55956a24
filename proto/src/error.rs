//! Typed reasons of failed calls: how they ride on a gRPC status.

use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::v1::ErrorDetail;

/// The binary trailer that holds the [`ErrorDetail`] of a failed call.
pub const ERROR_DETAIL_KEY: &str = "qanah-error-bin";

/// Makes a status that carries `detail`.
pub fn status_with_detail(code: Code, message: impl Into<String>, detail: &ErrorDetail) -> Status {
    let mut trailers = MetadataMap::new();
    let value = MetadataValue::from_bytes(&detail.encode_to_vec());
    trailers.insert_bin(ERROR_DETAIL_KEY, value);
    Status::with_metadata(code, message, trailers)
}

/// The detail that a status carries, if it carries one that can be read.
pub fn error_detail(status: &Status) -> Option<ErrorDetail> {
    let value = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    ErrorDetail::decode(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Reason;

    #[test]
    fn a_detail_survives_the_status() {
        let detail = ErrorDetail {
            reason: Reason::UnknownTunnel.into(),
            known_tunnels: vec!["peer1".into(), "peer2".into()],
        };
        let status = status_with_detail(Code::NotFound, "no tunnel", &detail);
        assert_eq!(error_detail(&status), Some(detail));
        assert_eq!(error_detail(&Status::not_found("plain")), None);
    }

    #[test]
    fn a_broken_detail_is_none() {
        let mut status = Status::not_found("x");
        let broken = MetadataValue::from_bytes(&[0xff; 9]);
        status.metadata_mut().insert_bin(ERROR_DETAIL_KEY, broken);
        assert_eq!(error_detail(&status), None);
    }
}
