//! The user and the password in a URL.

use zeroize::Zeroizing;

use super::ServerError;

/// Undoes the percent-encoding of a user or password; empty is none.
///
/// # Errors
/// What is not percent-encoded UTF-8, or holds control characters: `what` names it, and its text is
/// not quoted.
pub(super) fn credential(
    encoded: &str,
    what: &str,
    expected: &'static str,
) -> Result<Option<Zeroizing<String>>, ServerError> {
    if encoded.is_empty() {
        return Ok(None);
    }
    let bad = || {
        let text = format!("{what} is not percent-encoded UTF-8 (write %25 for a percent sign)");
        ServerError::new(text, expected)
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| bad())?);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
    // MQTT 3.1.1, section 1.5.3: a string holds no NUL and should hold no control characters.
    if text.chars().any(char::is_control) {
        return Err(bad());
    }
    Ok(Some(Zeroizing::new(text.to_owned())))
}
