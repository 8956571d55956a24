//! The session handshake: Noise `KKpsk0_25519_ChaChaPoly_SHA256` inside offer and answer, and the
//! keys that come of it (PROTOCOL.md, sections 6 and 7).
//!
//! Why no (key, nonce) pair is ever used twice, over any number of restarts: every session key is
//! derived from the Diffie-Hellman of two fresh ephemeral keys, one of each side, and each side
//! draws its own when it makes its message. Whoever restarts has forgotten its ephemeral key and
//! draws another, so the keys are new whatever the other side, a replayer or a clock does, and
//! counters that start from zero start under a key that never existed before. Within one session
//! the key halves are handed out once, as values that cannot be copied by accident.

mod rekey;
mod schedule;

use snow::{Builder, HandshakeState};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::{PresharedKey, PublicKey, SecretKey};
use crate::signal::codec::{self, MAX_NOISE, MIN_NOISE, Malformed};
use crate::signal::kdf::{NAME, VERSION};
use crate::signal::{Description, DtlsRole, KeyAgreementError, SessionId, agree};

pub use rekey::{RekeyAnswer, RekeyId, RekeyInitiator};
pub use schedule::{DirectionKeys, MacPurpose, SessionKeys};

/// The Noise protocol of every handshake.
pub const NOISE: &str = "Noise_KKpsk0_25519_ChaChaPoly_SHA256";

/// How a session's signaling travels. It is a part of the Noise prologue, so a message made for
/// one mode fails in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Through inboxes: a direct session.
    Broker,
    /// By hand: a direct session.
    Manual,
    /// A session whose frames a relay passes on.
    Relay,
    /// Inside a session: new keys for it.
    Rekey,
}

impl Mode {
    fn byte(self) -> u8 {
        match self {
            Self::Broker => 1,
            Self::Manual => 2,
            Self::Relay => 3,
            Self::Rekey => 4,
        }
    }
}

/// Who we are to whom.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Our private key.
    pub me: &'a SecretKey,
    /// The peer's public key.
    pub peer: &'a PublicKey,
    /// All zeros where there is none.
    pub psk: &'a PresharedKey,
}

/// Why a handshake, or one message of it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The two keys do not agree on a secret.
    #[error(transparent)]
    Key(#[from] KeyAgreementError),
    /// A length that no message of the handshake has.
    #[error("the handshake message has an impossible length")]
    Length,
    /// Not made by this peer for this session and mode, or altered.
    #[error("the handshake message does not authenticate")]
    Forged,
    /// The message authenticates, but its description breaks a rule; or ours does.
    #[error("the description cannot be used: {0}")]
    Description(&'static str),
    /// This handshake has already got its answer.
    #[error("the handshake is already finished")]
    Finished,
    /// Keys were asked for before both messages were through.
    #[error("the handshake is not finished yet")]
    Unfinished,
    /// The Noise library refused, for instance since the system gave no random bytes.
    #[error("the handshake could not be computed: {0}")]
    Noise(String),
}

impl From<Malformed> for HandshakeError {
    fn from(error: Malformed) -> Self {
        Self::Description(error.0)
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        Self::Noise(error.to_string())
    }
}

/// `"qanah" || version || mode || session id || initiator's key || responder's key`.
fn prologue(
    mode: Mode,
    session: SessionId,
    initiator: &PublicKey,
    responder: &PublicKey,
) -> Vec<u8> {
    let mut bytes = NAME.to_vec();
    bytes.extend([VERSION, mode.byte()]);
    bytes.extend(session.0);
    bytes.extend(initiator.as_bytes());
    bytes.extend(responder.as_bytes());
    bytes
}

fn builder<'b>(identity: &Identity<'b>, prologue: &'b [u8]) -> Result<Builder<'b>, HandshakeError> {
    // snow takes any key; the same rules as for signaling hold here.
    agree(identity.me, identity.peer)?;
    let params = NOISE.parse().map_err(HandshakeError::from)?;
    Ok(Builder::new(params)
        .local_private_key(identity.me.expose())?
        .remote_public_key(identity.peer.as_bytes())?
        .psk(0, identity.psk.expose())?
        .prologue(prologue)?)
}

fn write(
    noise: &mut HandshakeState,
    mode: Mode,
    description: &Description,
) -> Result<Vec<u8>, HandshakeError> {
    check_mode(mode, description)?;
    let payload = Zeroizing::new(codec::encode_description(description)?);
    let mut message = vec![0; MIN_NOISE + payload.len()];
    let length = noise.write_message(&payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

/// An error leaves `noise` as it was: snow restores its chaining key and hash, sets every cipher
/// key anew from them, and reads the ephemeral key again.
fn read(
    noise: &mut HandshakeState,
    mode: Mode,
    message: &[u8],
) -> Result<Description, HandshakeError> {
    if !(MIN_NOISE..=MAX_NOISE).contains(&message.len()) {
        return Err(HandshakeError::Length);
    }
    let mut payload = Zeroizing::new(vec![0; message.len()]);
    let length = noise.read_message(message, &mut payload).map_err(|error| match error {
        snow::Error::Decrypt | snow::Error::Input | snow::Error::Dh => HandshakeError::Forged,
        other => other.into(),
    })?;
    let payload = payload.get(..length).ok_or(HandshakeError::Length)?;
    let description = codec::decode_description(payload)?;
    check_mode(mode, &description)?;
    Ok(description)
}

/// A data channel is described where one is made, and only there.
fn check_mode(mode: Mode, description: &Description) -> Result<(), HandshakeError> {
    match (mode, &description.rtc) {
        (Mode::Relay | Mode::Rekey, Some(_)) => {
            Err(HandshakeError::Description("a data channel is described where none is made"))
        }
        (Mode::Broker | Mode::Manual, None) => {
            Err(HandshakeError::Description("no data channel is described"))
        }
        _ => Ok(()),
    }
}

/// The offerer's side of a handshake.
pub struct Initiator {
    noise: HandshakeState,
    mode: Mode,
}

impl Initiator {
    /// Begins a handshake: the state, and Noise message 1 for the offer.
    ///
    /// An offer that is sent again must be these same bytes: there is one ephemeral key a state.
    ///
    /// # Errors
    /// Keys that agree on nothing, and a description that the peer would refuse.
    pub fn start(
        identity: Identity<'_>,
        mode: Mode,
        session: SessionId,
        description: &Description,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let prologue = prologue(mode, session, &identity.me.public_key(), identity.peer);
        Self::begin(builder(&identity, &prologue)?, mode, description)
    }

    fn begin(
        builder: Builder<'_>,
        mode: Mode,
        description: &Description,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut noise = builder.build_initiator()?;
        let message = write(&mut noise, mode, description)?;
        Ok((Self { noise, mode }, message))
    }

    /// Reads Noise message 2 from the answer.
    ///
    /// # Errors
    /// After [`HandshakeError::Forged`] or [`HandshakeError::Length`] the true answer still works.
    /// After [`HandshakeError::Description`] the peer itself answered with nonsense, and after a
    /// success the keys are out: then nothing works any more.
    pub fn finish(&mut self, noise2: &[u8]) -> Result<(SessionKeys, Description), HandshakeError> {
        if self.noise.is_handshake_finished() {
            return Err(HandshakeError::Finished);
        }
        let description = read(&mut self.noise, self.mode, noise2)?;
        check_answer(&description)?;
        Ok((SessionKeys::split(&mut self.noise)?, description))
    }
}

/// The answerer's side of a handshake.
pub struct Responder {
    noise: HandshakeState,
    mode: Mode,
}

impl Responder {
    /// Reads Noise message 1 from an offer.
    ///
    /// # Errors
    /// Says whether the offer does not authenticate or describes nonsense.
    pub fn read(
        identity: Identity<'_>,
        mode: Mode,
        session: SessionId,
        noise1: &[u8],
    ) -> Result<(Self, Description), HandshakeError> {
        let prologue = prologue(mode, session, identity.peer, &identity.me.public_key());
        Self::begin(builder(&identity, &prologue)?, mode, noise1)
    }

    fn begin(
        builder: Builder<'_>,
        mode: Mode,
        noise1: &[u8],
    ) -> Result<(Self, Description), HandshakeError> {
        let mut noise = builder.build_responder()?;
        let description = read(&mut noise, mode, noise1)?;
        Ok((Self { noise, mode }, description))
    }

    /// The keys, and Noise message 2 for the answer.
    ///
    /// # Errors
    /// A description that the peer would refuse.
    pub fn finish(
        mut self,
        description: &Description,
    ) -> Result<(SessionKeys, Vec<u8>), HandshakeError> {
        check_answer(description)?;
        let message = write(&mut self.noise, self.mode, description)?;
        Ok((SessionKeys::split(&mut self.noise)?, message))
    }
}

/// An answer decides who begins DTLS (RFC 8842, section 5.3).
fn check_answer(description: &Description) -> Result<(), HandshakeError> {
    if description.rtc.as_ref().is_some_and(|rtc| rtc.role == DtlsRole::ActPass) {
        return Err(HandshakeError::Description("the answer does not say who begins DTLS"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
