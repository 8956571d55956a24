//! The control API of Qanah: its messages, the client, socket paths and exit codes.
//!
//! The API itself is described in `qanah/control/v1/control.proto`.

pub mod client;
pub mod error;
pub mod exit;
pub mod socket;

pub use client::{ConnectError, Connection, connect};
pub use error::{ERROR_DETAIL_KEY, error_detail, status_with_detail};

/// The generated messages, client and server of `qanah.control.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("qanah.control.v1");
}

/// The encoded `FileDescriptorSet` of the API, for reflection and for tests of completeness.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.fds"));

/// The full name of the control service, as it appears in method paths.
pub const SERVICE: &str = "qanah.control.v1.Control";

/// The largest answer that a daemon sends and a client takes, in bytes.
///
/// A status line of a peer is below 1 KiB, so this is enough for thousands of peers.
pub const MAX_RESPONSE: usize = 4 * 1024 * 1024;
