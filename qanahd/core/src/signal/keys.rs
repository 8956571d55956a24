//! What two peers have in common before they ever talked: shared secret, topics, signaling keys.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{KEY_LEN, PresharedKey, PublicKey, SecretKey};

use super::kdf::derive;

/// 2^255 - 19, little-endian: the first number that is no canonical public key.
const FIELD_PRIME: [u8; KEY_LEN] = {
    let mut prime = [0xff; KEY_LEN];
    prime[0] = 0xed;
    prime[KEY_LEN - 1] = 0x7f;
    prime
};

/// Why two keys do not agree on a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyAgreementError {
    /// The peer's key is our own: X25519 would work, but directions could not be told apart.
    #[error("the peer's public key is our own")]
    OwnKey,
    /// Not below 2^255 - 19. X25519 would reduce it and take it for another peer's key (RFC 7748,
    /// section 5), so one peer could have several names.
    #[error("the peer's public key is not in canonical form")]
    NotCanonical,
    /// The shared secret is all zeros: a point of small order, so everybody knows the secret
    /// (RFC 7748, section 6.1).
    #[error("the peer's public key is a point of small order and protects nothing")]
    SmallOrder,
}

/// X25519 of the static keys, with every key refused that makes the result worthless.
pub(crate) fn agree(
    me: &SecretKey,
    peer: &PublicKey,
) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyAgreementError> {
    if peer.as_bytes().iter().rev().ge(FIELD_PRIME.iter().rev()) {
        return Err(KeyAgreementError::NotCanonical);
    }
    if *peer == me.public_key() {
        return Err(KeyAgreementError::OwnKey);
    }
    let secret = x25519_dalek::StaticSecret::from(*me.expose());
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(*peer.as_bytes()));
    if shared.was_contributory() {
        Ok(Zeroizing::new(shared.to_bytes()))
    } else {
        Err(KeyAgreementError::SmallOrder)
    }
}

/// Names where messages of one direction between two peers are left.
///
/// Whoever reads a broker sees it: it says nothing about the keys, but stays the same for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboxId(pub [u8; 16]);

impl InboxId {
    /// The MQTT topic of this inbox: `qanah/1/` and 32 lower-case hexadecimal digits.
    pub fn topic(&self) -> String {
        format!("qanah/1/{self}")
    }
}

impl fmt::Display for InboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InboxId({self})")
    }
}

/// The key of one direction and what its envelopes name.
pub(super) struct Direction {
    pub(super) inbox: InboxId,
    pub(super) key: Zeroizing<[u8; KEY_LEN]>,
    /// Labels the parts of texts that people carry.
    pub(super) hand: Zeroizing<[u8; KEY_LEN]>,
    /// 0: from the lesser public key to the greater; 1: the other way.
    pub(super) flag: u8,
}

impl Direction {
    fn derive(
        shared: &[u8; KEY_LEN],
        psk: &PresharedKey,
        sender: &PublicKey,
        receiver: &PublicKey,
    ) -> Self {
        let context: [&[u8]; 2] = [sender.as_bytes(), receiver.as_bytes()];
        Self {
            // Without the PresharedKey: with a wrong one the peers must still meet, to be able to
            // say what is wrong.
            inbox: InboxId(*derive(&[], shared, "inbox", &context)),
            key: derive(psk.expose(), shared, "signal", &context),
            hand: derive(&[], shared, "hand", &context),
            flag: u8::from(sender > receiver),
        }
    }
}

/// All keys for signaling with one peer. Wiped on drop, never printed.
pub struct PairKeys {
    pub(super) incoming: Direction,
    pub(super) outgoing: Direction,
}

impl PairKeys {
    /// Derives the keys that `me` and `peer` share; `psk` is all zeros where there is none.
    ///
    /// # Errors
    /// Refuses a peer key with which no secret can be agreed on: our own, one that is not in
    /// canonical form, one of small order.
    pub fn derive(
        me: &SecretKey,
        peer: &PublicKey,
        psk: &PresharedKey,
    ) -> Result<Self, KeyAgreementError> {
        let shared = agree(me, peer)?;
        let own = me.public_key();
        Ok(Self {
            incoming: Direction::derive(&shared, psk, peer, &own),
            outgoing: Direction::derive(&shared, psk, &own, peer),
        })
    }

    /// Where the peer leaves messages for us.
    pub fn inbox(&self) -> &InboxId {
        &self.incoming.inbox
    }

    /// Where we leave messages for the peer.
    pub fn outbox(&self) -> &InboxId {
        &self.outgoing.inbox
    }
}

impl fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKeys(inbox {}, redacted)", self.incoming.inbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; 32])
    }

    fn none() -> PresharedKey {
        PresharedKey::default()
    }

    #[test]
    fn both_sides_agree_and_directions_differ() {
        let (a, b) = (secret(1), secret(2));
        let at_a = PairKeys::derive(&a, &b.public_key(), &none()).unwrap();
        let at_b = PairKeys::derive(&b, &a.public_key(), &none()).unwrap();
        assert_eq!(at_a.inbox(), at_b.outbox());
        assert_eq!(at_a.outbox(), at_b.inbox());
        assert_ne!(at_a.inbox(), at_a.outbox());
        assert_eq!(*at_a.outgoing.key, *at_b.incoming.key);
        assert_ne!(*at_a.outgoing.key, *at_a.incoming.key);
        assert_ne!(at_a.outgoing.flag, at_a.incoming.flag);
        assert_eq!(at_a.outgoing.flag, at_b.incoming.flag);
    }

    #[test]
    fn the_preshared_key_changes_the_keys_but_not_the_inboxes() {
        let (a, b) = (secret(1), secret(2).public_key());
        let without = PairKeys::derive(&a, &b, &none()).unwrap();
        let with = PairKeys::derive(&a, &b, &PresharedKey::from_bytes([7; 32])).unwrap();
        assert_eq!(without.inbox(), with.inbox());
        assert_ne!(*without.outgoing.key, *with.outgoing.key);
    }

    #[test]
    fn keys_that_protect_nothing_are_refused() {
        let me = secret(1);
        let refused = |bytes| {
            PairKeys::derive(&me, &PublicKey::from_bytes(bytes), &none()).expect_err("refused")
        };
        assert_eq!(
            PairKeys::derive(&me, &me.public_key(), &none()).unwrap_err(),
            KeyAgreementError::OwnKey
        );
        // 0 and 1 are points of small order, and so is this one of order 8.
        let mut one = [0; 32];
        one[0] = 1;
        let order_8 = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ];
        for bytes in [[0; 32], one, order_8] {
            assert_eq!(refused(bytes), KeyAgreementError::SmallOrder);
        }
        let mut above = FIELD_PRIME;
        above[0] += 9; // The base point 9 in another form.
        let mut high_bit = secret(2).public_key().as_bytes().to_owned();
        high_bit[31] |= 0x80;
        for bytes in [FIELD_PRIME, above, high_bit, [0xff; 32]] {
            assert_eq!(refused(bytes), KeyAgreementError::NotCanonical);
        }
        let mut below = FIELD_PRIME;
        below[0] -= 2; // p - 2 is canonical and of large order.
        assert!(PairKeys::derive(&me, &PublicKey::from_bytes(below), &none()).is_ok());
    }

    #[test]
    fn debug_output_holds_no_key() {
        let keys = PairKeys::derive(&secret(1), &secret(2).public_key(), &none()).unwrap();
        assert_eq!(format!("{keys:?}"), format!("PairKeys(inbox {}, redacted)", keys.inbox()));
    }
}
