//! `qanahctl genkey`, `pubkey` and `genpsk`: what wg(8) does under these names, byte for byte.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qanah_core::key::{KEY_LEN, SecretKey};
use qanah_proto::exit::Exit;
use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use crate::client::Trouble;
use crate::output::{Outcome, note};

/// The text form of a key has this many characters.
const TEXT_LEN: usize = 44;

/// More than a key with all the white space that anybody would put around it.
const MAX_INPUT: usize = 4096;

/// A new private key.
pub(crate) fn genkey() -> Outcome {
    warn_if_exposed();
    line(&Zeroizing::new(*SecretKey::generate(&mut OsRng).expose()))
}

/// A new preshared key.
pub(crate) fn genpsk() -> Outcome {
    warn_if_exposed();
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    OsRng.fill_bytes(bytes.as_mut_slice());
    line(&bytes)
}

/// The public key of the private key on standard input.
pub(crate) fn pubkey() -> Outcome {
    public_of(io::stdin().lock()).map_or_else(Outcome::from, Outcome::text)
}

fn public_of(input: impl Read) -> Result<String, Trouble> {
    // Room from the start: a text that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT));
    input
        .take(MAX_INPUT as u64)
        .read_to_end(&mut text)
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot read the key: {error}")))?;
    let text = text.trim_ascii_end();
    let key = std::str::from_utf8(text).ok().filter(|text| text.len() == TEXT_LEN);
    let key = key.and_then(|text| text.parse::<SecretKey>().ok());
    key.map(|key| format!("{}\n", key.public_key())).ok_or_else(|| {
        let hint = "give it on standard input: qanahctl pubkey < FILE";
        Trouble::new(Exit::Failed, "standard input is no private key: 44 characters of base64")
            .hint(hint)
    })
}

fn line(bytes: &[u8; KEY_LEN]) -> Outcome {
    Outcome::text(format!("{}\n", STANDARD.encode(bytes)))
}

/// Says when the key goes into a file that others can read, as wg(8) does.
fn warn_if_exposed() {
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else {
        return;
    };
    let exposed =
        |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o077 != 0;
    if output.metadata().is_ok_and(exposed) {
        note("others can read this file: set the umask to 077 and do it again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_clamped_and_in_the_text_form_of_wg() {
        let (one, two) = (genkey().text, genkey().text);
        assert!(one != two && one.len() == TEXT_LEN + 1 && one.ends_with("=\n"));
        let raw = STANDARD.decode(one.trim()).unwrap();
        assert_eq!((raw[0] & 7, raw[31] & 0xc0), (0, 0x40));
        assert_eq!(STANDARD.decode(genpsk().text.trim()).unwrap().len(), KEY_LEN);
    }

    /// The pair of RFC 7748, section 6.1, in base64.
    #[test]
    fn public_keys_are_those_of_wg() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n";
        for around in [private.to_owned(), format!("{private}\n"), format!("{private} \r\n\n")] {
            assert_eq!(public_of(around.as_bytes()).unwrap(), public);
        }
        for bad in ["", "\n", "dwdtCnMYpX0=", &private[1..], &format!("{private}x"), "ä"] {
            let trouble = public_of(bad.as_bytes()).unwrap_err();
            assert_eq!(trouble.exit, Exit::Failed);
            assert!(!trouble.message.contains("dwdt"));
        }
    }
}
