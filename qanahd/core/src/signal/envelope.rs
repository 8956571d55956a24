//! The sealed form of a message (PROTOCOL.md, section 3).
//!
//! Nothing is parsed before it authenticates, and nothing is authenticated before its size and its
//! version were looked at.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use rand_core::CryptoRngCore;
use thiserror::Error;
use zeroize::Zeroizing;

use super::codec;
use super::kdf::VERSION;
use super::keys::{Direction, PairKeys};
use super::message::Message;

/// The largest envelope that is looked at, in bytes.
pub const MAX_ENVELOPE: usize = 4096;

pub(super) const NONCE: usize = 24;
const TAG: usize = 16;
const OVERHEAD: usize = 1 + NONCE + TAG;

/// How an envelope travels. It is authenticated, so an offer made for one way is worthless on the
/// other: by hand there is no challenge, and a broker must not be able to use that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Left in the receiver's inbox: by a broker, later also through the mesh.
    Inbox,
    /// Carried by people.
    Manual,
}

/// Why a message was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The receiver would refuse it.
    #[error("the message cannot be sent: {0}")]
    Unsendable(&'static str),
    /// Larger than [`MAX_ENVELOPE`].
    #[error("the message is too large for an envelope")]
    TooLarge,
}

/// Why an envelope was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Larger than [`MAX_ENVELOPE`].
    #[error("larger than {MAX_ENVELOPE} bytes")]
    TooLarge,
    /// Shorter than an envelope can be.
    #[error("too short")]
    TooShort,
    /// Of a version that is not spoken here.
    #[error("of version {0}, which is not spoken here")]
    Version(u8),
    /// Not sealed by this peer with this PresharedKey for this direction and carrier.
    #[error("PresharedKey differs, or forged")]
    Forged,
    /// The peer sealed it, but it is not as the protocol says.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Offers on a broker answer a challenge; by hand there is none, and nothing but offers and answers.
fn check_carrier(message: &Message, carrier: Carrier) -> Result<(), &'static str> {
    match (carrier, message) {
        (Carrier::Inbox, Message::Offer(offer)) if offer.echo.is_none() => {
            Err("an offer that echoes no challenge")
        }
        (Carrier::Manual, Message::Offer(offer)) if offer.echo.is_some() => {
            Err("an offer by hand that echoes a challenge")
        }
        (Carrier::Inbox, Message::Relayed(inner)) => check_carrier(inner, carrier),
        (Carrier::Inbox, _) | (Carrier::Manual, Message::Offer(_) | Message::Answer(_)) => Ok(()),
        (Carrier::Manual, _) => Err("neither offer nor answer, but by hand"),
    }
}

impl Direction {
    /// Version, direction, and the inbox or the word: the lengths differ, so it reads in one way.
    fn associated_data(&self, carrier: Carrier) -> Vec<u8> {
        let mut data = vec![VERSION, self.flag];
        match carrier {
            Carrier::Inbox => data.extend(self.inbox.0),
            Carrier::Manual => data.extend(b"manual"),
        }
        data
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

impl PairKeys {
    /// Seals a message to the peer.
    ///
    /// Nonces are random: 24 bytes of them never repeat by chance, and there is no counter that a
    /// restart could lose.
    ///
    /// # Errors
    /// A message that the receiver would refuse is not sealed.
    pub fn seal(
        &self,
        message: &Message,
        carrier: Carrier,
        rng: &mut impl CryptoRngCore,
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        self.seal_with_nonce(message, carrier, nonce)
    }

    fn seal_with_nonce(
        &self,
        message: &Message,
        carrier: Carrier,
        nonce: [u8; NONCE],
    ) -> Result<Vec<u8>, SealError> {
        check_carrier(message, carrier).map_err(SealError::Unsendable)?;
        let text = codec::encode(message).map_err(|error| SealError::Unsendable(error.0))?;
        if text.len() + OVERHEAD > MAX_ENVELOPE {
            return Err(SealError::TooLarge);
        }
        let aad = self.outgoing.associated_data(carrier);
        let payload = Payload { msg: &text, aad: &aad };
        let sealed = self
            .outgoing
            .cipher()
            .encrypt(&nonce.into(), payload)
            .map_err(|_| SealError::TooLarge)?;
        let mut envelope = Vec::with_capacity(1 + NONCE + sealed.len());
        envelope.push(VERSION);
        envelope.extend(nonce);
        envelope.extend(sealed);
        Ok(envelope)
    }

    /// Opens an envelope from the peer.
    ///
    /// # Errors
    /// Says what is wrong with it; only [`OpenError::Malformed`] is the peer's own doing.
    pub fn open(&self, envelope: &[u8], carrier: Carrier) -> Result<Message, OpenError> {
        if envelope.len() > MAX_ENVELOPE {
            return Err(OpenError::TooLarge);
        }
        let (version, rest) = envelope.split_first().ok_or(OpenError::TooShort)?;
        if *version != VERSION {
            return Err(OpenError::Version(*version));
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(OpenError::TooShort)?;
        if sealed.len() < TAG {
            return Err(OpenError::TooShort);
        }
        let aad = self.incoming.associated_data(carrier);
        let payload = Payload { msg: sealed, aad: &aad };
        let text = self
            .incoming
            .cipher()
            .decrypt(nonce.into(), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Forged)?;
        let message = codec::decode(&text).map_err(|error| OpenError::Malformed(error.0))?;
        check_carrier(&message, carrier).map_err(OpenError::Malformed)?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
