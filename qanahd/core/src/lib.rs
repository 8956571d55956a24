//! The decisions of Qanah, without any I/O.
//!
//! Everything here takes `now` and inputs and returns outputs. No runtime, no sockets, no clock
//! and no files: what the daemon does with the outputs is its own business.

pub mod config;
pub mod diagnosis;
pub mod frame;
pub mod handshake;
pub mod ingress;
pub mod key;
pub mod mesh;
pub mod mqtt_frame;
pub mod offload;
pub mod packet;
pub mod plan;
pub mod policy;
pub mod queue;
pub mod replay;
pub mod router;
pub mod seal;
pub mod servers;
pub mod session;
pub mod signal;
pub mod turn;
pub mod window;
