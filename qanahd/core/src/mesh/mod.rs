//! More than pairs: which way packets to a peer take, and who carries what between two others.
//!
//! A peer may have a direct session and one by a relay. [`Paths`] runs the machines of both and says which of
//! them takes packets. [`Reach`] knows, for a whole tunnel, by which connected peers the others can be
//! reached, and chooses the relay of each. Both are machines without I/O, like those of [`crate::session`].
//! PROTOCOL.md, section 13, is their specification.

pub mod limits;
mod paths;
mod reach;
#[cfg(test)]
mod tests;

pub use paths::{PathSettings, Paths};
pub use reach::{ByRelay, Carrier, Reach, ReachOutput, Standing};
