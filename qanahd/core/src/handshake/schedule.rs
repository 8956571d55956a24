//! From the split of a handshake to one key for each direction and purpose.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::HandshakeError;
use crate::key::KEY_LEN;
use crate::signal::kdf::derive;

/// Two keys for one purpose.
pub struct DirectionKeys {
    /// For what we send.
    pub send: Zeroizing<[u8; KEY_LEN]>,
    /// For what the peer sends.
    pub recv: Zeroizing<[u8; KEY_LEN]>,
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKeys(redacted)")
    }
}

/// What a MAC of a session proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacPurpose {
    /// The sender has closed the session.
    Bye,
    /// New ICE credentials for the session.
    Restart,
}

/// The keys of one session. Wiped on drop, never printed.
///
/// The frame keys can be taken once: two users of one key would mean two counters from zero.
pub struct SessionKeys {
    channel: Option<DirectionKeys>,
    datagram: Option<DirectionKeys>,
    bye: DirectionKeys,
    restart: DirectionKeys,
}

impl SessionKeys {
    /// Takes the keys out of a finished handshake.
    ///
    /// `dangerously_get_raw_split` gives the two outputs of Split() in the order of the Noise
    /// specification (section 5.2): first the initiator's sending key, whoever asks.
    ///
    /// # Errors
    /// A handshake that is not finished. snow itself would hand out keys of its middle, which do
    /// not depend on both ephemeral keys.
    pub(super) fn split(noise: &mut HandshakeState) -> Result<Self, HandshakeError> {
        if !noise.is_handshake_finished() {
            return Err(HandshakeError::Unfinished);
        }
        let (first, second) = noise.dangerously_get_raw_split();
        let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
        let (send, recv) = if noise.is_initiator() { (first, second) } else { (second, first) };
        // The hash as salt binds the keys to all that was said: mode, session id, descriptions.
        let hash = noise.get_handshake_hash();
        let keys = |purpose| DirectionKeys {
            send: derive(hash, send.as_slice(), purpose, &[]),
            recv: derive(hash, recv.as_slice(), purpose, &[]),
        };
        Ok(Self {
            channel: Some(keys("channel")),
            datagram: Some(keys("datagram")),
            bye: keys("bye"),
            restart: keys("restart"),
        })
    }

    /// The keys for frames in the data channel; `None` when they were taken before.
    pub fn take_channel(&mut self) -> Option<DirectionKeys> {
        self.channel.take()
    }

    /// The keys for frames in datagrams beside the data channel; `None` when they were taken
    /// before.
    pub fn take_datagram(&mut self) -> Option<DirectionKeys> {
        self.datagram.take()
    }

    pub(super) fn mac_keys(&self, purpose: MacPurpose) -> &DirectionKeys {
        match purpose {
            MacPurpose::Bye => &self.bye,
            MacPurpose::Restart => &self.restart,
        }
    }

    /// HMAC-SHA256 with the sending key, the first 16 bytes of it.
    pub fn mac(&self, purpose: MacPurpose, data: &[u8]) -> [u8; 16] {
        let full = hmac(&self.mac_keys(purpose).send, data).finalize().into_bytes();
        let mut short = [0; 16];
        short.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        short
    }

    /// Whether the peer made this MAC; takes the same time whatever differs.
    pub fn verify(&self, purpose: MacPurpose, data: &[u8], mac: &[u8; 16]) -> bool {
        hmac(&self.mac_keys(purpose).recv, data).verify_truncated_left(mac).is_ok()
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(redacted)")
    }
}

fn hmac(key: &[u8; KEY_LEN], data: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)] // HMAC takes keys of every length (RFC 2104, section 2).
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(data);
    mac
}
