//! The one way in which keys are derived (PROTOCOL.md, section 2.2).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The version of the wire; the first byte of envelopes and a part of every derivation.
pub const VERSION: u8 = 1;

/// Begins every derivation and the Noise prologue, so that no other protocol on the same
/// WireGuard keys computes the same values.
pub(crate) const NAME: &[u8; 5] = b"qanah";

/// HKDF-SHA256 (RFC 5869) with `info = "qanah" || version || length of purpose || purpose || context`.
///
/// The length before the purpose keeps a longer purpose from being read as a shorter one and the
/// start of a context.
pub(crate) fn derive<const N: usize>(
    salt: &[u8],
    secret: &[u8],
    purpose: &str,
    context: &[&[u8]],
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF-SHA256 gives no more than this") };
    let length = [VERSION, u8::try_from(purpose.len()).unwrap_or(u8::MAX)];
    let mut info: Vec<&[u8]> = vec![NAME, &length, purpose.as_bytes()];
    info.extend(context);
    let mut key = Zeroizing::new([0; N]);
    #[allow(clippy::expect_used)] // The assertion above is the only condition of `expand`.
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand_multi_info(&info, key.as_mut_slice())
        .expect("N was checked at compile time");
    key
}
