//! Keys as types: redacted in output, wiped on drop, compared in constant time.
//!
//! The text form is that of wg(8): 32 bytes in standard base64 with padding, 44 characters.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand_core::CryptoRngCore;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of every WireGuard key, in bytes.
pub const KEY_LEN: usize = 32;

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not standard base64.
    #[error("is not valid base64 (expected 44 characters as `wg genkey` prints them)")]
    Base64,
    /// Base64 of another number of bytes.
    #[error("holds {0} bytes (expected 32, written as 44 base64 characters)")]
    Length(usize),
}

fn decode(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut raw = STANDARD.decode(text.trim()).map_err(|_| KeyError::Base64)?;
    let key = <[u8; KEY_LEN]>::try_from(raw.as_slice()).map_err(|_| KeyError::Length(raw.len()));
    raw.zeroize();
    key
}

/// The public key of a peer: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Takes the raw bytes of a public key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The first ten characters and an ellipsis: enough to tell peers apart in output.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text.push('…');
        text
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A private key. Never printed, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_LEN]);

impl SecretKey {
    /// Takes the raw bytes of a private key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Makes a new private key, clamped as `wg genkey` does (RFC 7748, section 5).
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut bytes = [0; KEY_LEN];
        rng.fill_bytes(&mut bytes);
        Self(bytes).clamped()
    }

    fn clamped(mut self) -> Self {
        let [first, .., last] = &mut self.0;
        *first &= 248;
        *last = (*last & 127) | 64;
        self
    }

    /// The raw bytes, for the few places that compute with them.
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// A preshared key. Never printed, wiped on drop. All zeros mean "none", as in WireGuard.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// Takes the raw bytes of a preshared key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, for the few places that compute with them.
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PresharedKey {}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "YAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=";

    #[test]
    fn text_forms_round_trip_and_errors_say_what_is_wrong() {
        let key: PublicKey = SECRET.parse().unwrap();
        assert_eq!(key.to_string(), SECRET);
        assert_eq!("AAAA".parse::<PublicKey>(), Err(KeyError::Length(3)));
        assert_eq!("no key!".parse::<PublicKey>(), Err(KeyError::Base64));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret: SecretKey = SECRET.parse().unwrap();
        let preshared: PresharedKey = SECRET.parse().unwrap();
        let shown = format!("{secret:?} {preshared:?}");
        assert!(!shown.contains("YAnz") && !shown.contains("96, 9"));
    }

    #[test]
    fn public_key_matches_rfc_7748_section_6_1() {
        let secret = SecretKey::from_bytes([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        let public = secret.public_key();
        assert_eq!(public.as_bytes()[..4], [0x85, 0x20, 0xf0, 0x09]);
    }
}
