//! Passwords for a TURN server that are made from a secret and end after a while.
//!
//! The scheme of draft-uberti-behave-turn-rest-00, which coturn calls `use-auth-secret`: the user name
//! is the time at which it ends, as Unix seconds, with a name of one's own after a colon if one
//! likes; the password is the HMAC-SHA1 of the user name under the secret, in base64.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

/// How long a password is good for. The draft recommends a day (section 2.2). It is checked when an
/// allocation is made; one that exists outlives it.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A user name and its password.
pub struct TimeLimited {
    /// The user name.
    pub username: String,
    /// The password.
    pub credential: Zeroizing<String>,
}

/// Makes a password that is good for [`LIFETIME`]. `now` is the time since the Unix epoch: where the
/// clock is wrong by more than the lifetime the server refuses it.
pub fn time_limited(secret: &str, name: Option<&str>, now: Duration) -> TimeLimited {
    let ends = now.saturating_add(LIFETIME).as_secs();
    let username = match name {
        Some(name) => format!("{ends}:{name}"),
        None => ends.to_string(),
    };
    let credential = Zeroizing::new(sign(secret, &username));
    TimeLimited { username, credential }
}

fn sign(secret: &str, username: &str) -> String {
    // An HMAC takes a key of any length.
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    STANDARD.encode(mac.chain_update(username).finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf %s USER | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn as_openssl_makes_them() {
        let now = Duration::from_secs(1_700_000_000);
        let alone = time_limited("north", None, now);
        assert_eq!(alone.username, "1700086400");
        assert_eq!(alone.credential.as_str(), "K+RlgFj3QLvB7WAVHfjfgMgyBeA=");
        let named = time_limited("north", Some("joe"), now);
        assert_eq!(named.username, "1700086400:joe");
        assert_eq!(named.credential.as_str(), "1rI+moJnj8WMK1+/comYQ2tp+ak=");
    }

    #[test]
    fn no_clock_is_too_wrong_to_be_used() {
        let end = time_limited("north", None, Duration::MAX);
        assert_eq!(end.username, u64::MAX.to_string());
    }
}
