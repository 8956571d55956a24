//! How peers are named to those who pass something on between them.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::key::PublicKey;

/// What stands before the public key when it is hashed.
const PREFIX: &[u8] = b"qanah peer";

/// The name of a peer on the wire (PROTOCOL.md, section 2.4). Who has the public key knows the name; the name alone says
/// nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(pub [u8; Self::LEN]);

impl PeerName {
    /// Length, in bytes.
    pub const LEN: usize = 16;

    /// The name of the peer with this public key.
    pub fn of(key: &PublicKey) -> Self {
        let hash = Sha256::new().chain_update(PREFIX).chain_update(key.as_bytes()).finalize();
        let mut name = [0; Self::LEN];
        name.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(name)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerName({self})")
    }
}
