//! What a TUN device with offloads leaves to others: checksums that are not computed yet, and packets that stand for
//! many.
//!
//! The kernel puts a header before each packet that says what is missing ([`VirtioHeader`]). [`Taken`] is what is
//! made of a packet that comes from there: one that is whole, or one that travels as [`Segments`]. [`hand_back`]
//! is the other way round, for segments that came from a peer: nothing of the header comes from the wire, all of it is
//! made from the packet as it was checked. [`Cutter`] cuts such a packet up where nobody else does, and [`Joiner`]
//! makes one of packets that a kernel can take at once.
//!
//! [`Segments`]: crate::frame::Segments

mod cut;
mod join;
#[cfg(test)]
mod join_tests;
mod taken;
#[cfg(test)]
mod tests;
mod virtio;

pub use cut::Cutter;
pub use join::{Joined, Joiner};
pub use taken::{OffloadError, Taken, hand_back};
pub use virtio::{Gso, VIRTIO_HEADER_LEN, VirtioHeader};
