//! Offers and answers as text that people carry (PROTOCOL.md, section 5.7).
//!
//! A text is `qanah-offer-1.` or `qanah-answer-1.`, base64url, and a full stop. Mail, chat and
//! terminals may break its lines, indent and quote it, or add something before and after. What is
//! wrong with a text is told apart as far as it can be, since a person has to find out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::envelope::{Carrier, MAX_ENVELOPE, NONCE, OpenError, SealError};
use super::keys::{Direction, PairKeys};
use super::message::Message;

/// The longest text that is looked at, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// The most parts in a text: as many peers can be offered to at once.
pub const MAX_PARTS: usize = 64;
/// Lines are no longer than this, in characters: a terminal takes 4095 in one (N_TTY_BUF_SIZE).
const LINE: usize = 1000;

const VERSION: &str = "1";
const MARK: &str = "qanah-";
const END: char = '.';
const CHECK: usize = 4;
const LABEL: usize = 4;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// The first half of a handshake.
    Offer,
    /// The second half.
    Answer,
}

impl TextKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
        }
    }

    fn head(self) -> String {
        format!("{MARK}{}-{VERSION}.", self.word())
    }

    const fn other(self) -> Self {
        match self {
            Self::Offer => Self::Answer,
            Self::Answer => Self::Offer,
        }
    }
}

impl std::fmt::Display for TextKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a text cannot be read, or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// There is nothing of ours in it.
    #[error("this is not a text of Qanah: it has no part that begins with qanah-{0}-")]
    Foreign(TextKind),
    /// An answer where an offer belongs, or the other way round.
    #[error("this is an {found}, but an {wanted} is needed here")]
    Kind {
        /// What it is.
        found: TextKind,
        /// What was asked for.
        wanted: TextKind,
    },
    /// Of a version that is not spoken here.
    #[error("this text is of version {0}, which is not spoken here; one side needs an update")]
    Version(String),
    /// The full stop at the end is missing.
    #[error("the text is cut off: its last character, a full stop, is missing")]
    Truncated,
    /// Something in it was changed or lost on its way.
    #[error("the text was changed on its way, or something in it is missing; copy it again")]
    Garbled,
    /// Longer than any text of ours.
    #[error("the text is too long to be one of Qanah")]
    TooLong,
    /// Parts for more peers than a text holds.
    #[error("one text cannot hold an offer to so many peers; name one of them")]
    TooMany,
}

/// An envelope for one peer, and the label by which that peer finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    label: [u8; LABEL],
    envelope: Vec<u8>,
}

/// Whose a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The peer made it for us.
    Peer,
    /// We made it for the peer.
    Own,
    /// Of another pair.
    Others,
}

impl Direction {
    /// Four bytes by which only the two peers find a part: it changes with the nonce, so nobody
    /// else can tell whether two texts are of the same pair.
    fn label(&self, envelope: &[u8]) -> [u8; LABEL] {
        let nonce = envelope.get(1..=NONCE).unwrap_or_default();
        #[allow(clippy::expect_used)] // HMAC takes keys of every length (RFC 2104, section 2).
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.hand).expect("any length is a key");
        mac.update(nonce);
        let full = mac.finalize().into_bytes();
        let mut label = [0; LABEL];
        label.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        label
    }

    fn owns(&self, part: &Part) -> bool {
        self.label(&part.envelope).ct_eq(&part.label).into()
    }
}

impl PairKeys {
    /// Seals an offer or an answer for people to carry.
    ///
    /// # Errors
    /// A message that does not go this way.
    pub fn seal_by_hand(
        &self,
        message: &Message,
        rng: &mut impl CryptoRngCore,
    ) -> Result<Part, SealError> {
        let envelope = self.seal(message, Carrier::Manual, rng)?;
        Ok(Part { label: self.outgoing.label(&envelope), envelope })
    }

    /// Whose this part is. It does not depend on the PresharedKey: with a wrong one a part is
    /// found, and fails to open.
    pub fn owner(&self, part: &Part) -> Owner {
        if self.incoming.owns(part) {
            Owner::Peer
        } else if self.outgoing.owns(part) {
            Owner::Own
        } else {
            Owner::Others
        }
    }

    /// Opens a part of the peer.
    ///
    /// # Errors
    /// As for every envelope.
    pub fn open_by_hand(&self, part: &Part) -> Result<Message, OpenError> {
        self.open(&part.envelope, Carrier::Manual)
    }
}

fn check(head: &str, body: &[u8]) -> [u8; CHECK] {
    let digest = Sha256::new().chain_update(head).chain_update(body).finalize();
    let mut short = [0; CHECK];
    short.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    short
}

/// Writes a text; lines are broken only when it is long.
///
/// # Errors
/// [`TextError::TooMany`], when the reader would refuse it.
pub fn write(kind: TextKind, parts: &[Part]) -> Result<String, TextError> {
    let head = kind.head();
    let mut body = Vec::new();
    for part in parts {
        let length = LABEL + part.envelope.len();
        body.extend(u16::try_from(length).map_err(|_| TextError::TooMany)?.to_be_bytes());
        body.extend(part.label);
        body.extend(&part.envelope);
    }
    body.extend(check(&head, &body));
    let plain = format!("{head}{}{END}", URL_SAFE_NO_PAD.encode(&body));
    let lines: Vec<&[u8]> = plain.as_bytes().chunks(LINE).collect();
    let text = String::from_utf8(lines.join(&b'\n')).map_err(|_| TextError::TooMany)?;
    if text.len() > MAX_TEXT || !(1..=MAX_PARTS).contains(&parts.len()) {
        return Err(TextError::TooMany);
    }
    Ok(text)
}

/// Reads a text of this kind and returns its parts: at least one, at most [`MAX_PARTS`].
///
/// # Errors
/// Says what is wrong with the text. Nothing in it is authenticated yet.
pub fn read(kind: TextKind, text: &str) -> Result<Vec<Part>, TextError> {
    if text.len() > MAX_TEXT {
        return Err(TextError::TooLong);
    }
    let text = tidy(text);
    let head = kind.head();
    let Some(at) = text.find(&head) else {
        return Err(explain(kind, &text));
    };
    let rest = text.get(at + head.len()..).unwrap_or_default();
    let (body, _) = rest.split_once(END).ok_or(TextError::Truncated)?;
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TextError::Garbled)?;
    let (body, sum) = body.split_last_chunk::<CHECK>().ok_or(TextError::Garbled)?;
    if *sum != check(&head, body) {
        return Err(TextError::Garbled);
    }
    split(body).ok_or(TextError::Garbled)
}

/// Without what mail programs, terminals and people add: white space, quote marks, soft line
/// breaks (`=` at the end of a line, RFC 2045), invisible characters, and lines of dashes around
/// the text. None of these is a character of base64url.
fn tidy(text: &str) -> String {
    let kept = text.lines().filter(|line| {
        let line = line.trim_matches(|c: char| c == '>' || is_filling(c));
        !(line.starts_with("-----") && line.ends_with("-----"))
    });
    kept.flat_map(str::chars).filter(|c| *c != '>' && !is_filling(*c)).collect()
}

fn is_filling(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '=' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Why there is no text of this kind.
fn explain(wanted: TextKind, text: &str) -> TextError {
    let found = wanted.other();
    if text.contains(&found.head()) {
        return TextError::Kind { found, wanted };
    }
    for kind in [wanted, found] {
        let mark = format!("{MARK}{}-", kind.word());
        let rest = text.split_once(&mark).map(|(_, rest)| rest);
        if let Some(rest) = rest {
            let version: String = rest.chars().take_while(char::is_ascii_digit).take(9).collect();
            return match version.as_str() {
                "" | VERSION => TextError::Truncated,
                _ => TextError::Version(version),
            };
        }
    }
    TextError::Foreign(wanted)
}

fn split(mut body: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk::<2>() {
        let (part, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (label, envelope) = part.split_first_chunk::<LABEL>()?;
        if envelope.len() > MAX_ENVELOPE || parts.len() == MAX_PARTS {
            return None;
        }
        parts.push(Part { label: *label, envelope: envelope.to_vec() });
        body = rest;
    }
    (body.is_empty() && !parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests;
