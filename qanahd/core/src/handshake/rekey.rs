//! A new handshake inside a session that works: new keys, the same connection (PROTOCOL.md,
//! section 10.7).

use snow::{Builder, HandshakeState};

use super::{HandshakeError, Identity, Mode, SessionKeys, builder, prologue};
use crate::signal::SessionId;

/// Length of both Noise messages: an ephemeral key, a sealed index.
const LENGTH: usize = 32 + 4 + 16;

/// Which rekey of which session this is. `number` counts them from 1.
#[derive(Clone, Copy, Debug)]
pub struct RekeyId {
    /// The session.
    pub session: SessionId,
    /// The rekeys of this session so far, this one included.
    pub number: u32,
}

impl RekeyId {
    fn prologue(self, identity: &Identity<'_>, initiates: bool) -> Vec<u8> {
        let (me, peer) = (identity.me.public_key(), identity.peer);
        let (first, second) = if initiates { (&me, peer) } else { (peer, &me) };
        let mut bytes = prologue(Mode::Rekey, self.session, first, second);
        bytes.extend(self.number.to_be_bytes());
        bytes
    }
}

fn write(noise: &mut HandshakeState, index: u32) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; LENGTH];
    let length = noise.write_message(&index.to_be_bytes(), &mut message)?;
    message.truncate(length);
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<u32, HandshakeError> {
    if message.len() != LENGTH {
        return Err(HandshakeError::Length);
    }
    let mut payload = [0; LENGTH];
    let length = noise.read_message(message, &mut payload).map_err(|error| match error {
        snow::Error::Decrypt | snow::Error::Input | snow::Error::Dh => HandshakeError::Forged,
        other => other.into(),
    })?;
    let index = payload.get(..length).and_then(|payload| payload.try_into().ok());
    index.map(u32::from_be_bytes).ok_or(HandshakeError::Length)
}

/// The side of the session's offerer, which begins.
pub struct RekeyInitiator(HandshakeState);

impl RekeyInitiator {
    /// Begins: the state, and the Noise message for *rekey init*. `index` is the receiver index
    /// for frames to us under the new keys.
    ///
    /// # Errors
    /// Keys that agree on nothing.
    pub fn start(
        identity: Identity<'_>,
        id: RekeyId,
        index: u32,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let prologue = id.prologue(&identity, true);
        Self::begin(builder(&identity, &prologue)?, index)
    }

    pub(super) fn begin(
        builder: Builder<'_>,
        index: u32,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut noise = builder.build_initiator()?;
        let message = write(&mut noise, index)?;
        Ok((Self(noise), message))
    }

    /// Reads the Noise message of *rekey response*: the keys, and the index for frames to the
    /// peer.
    ///
    /// # Errors
    /// After [`HandshakeError::Forged`] or [`HandshakeError::Length`] the true one still works.
    pub fn finish(&mut self, noise2: &[u8]) -> Result<(SessionKeys, u32), HandshakeError> {
        if self.0.is_handshake_finished() {
            return Err(HandshakeError::Finished);
        }
        let index = read(&mut self.0, noise2)?;
        Ok((SessionKeys::split(&mut self.0)?, index))
    }
}

/// What the session's answerer makes of *rekey init*.
#[derive(Debug)]
pub struct RekeyAnswer {
    /// The new keys.
    pub keys: SessionKeys,
    /// The receiver index for frames to the peer under them.
    pub remote_index: u32,
    /// The Noise message for *rekey response*.
    pub noise: Vec<u8>,
}

impl RekeyAnswer {
    /// Reads the Noise message of *rekey init* and answers it. `index` is for frames to us.
    ///
    /// # Errors
    /// A message that does not authenticate for this rekey of this session.
    pub fn new(
        identity: Identity<'_>,
        id: RekeyId,
        noise1: &[u8],
        index: u32,
    ) -> Result<Self, HandshakeError> {
        let prologue = id.prologue(&identity, false);
        Self::begin(builder(&identity, &prologue)?, noise1, index)
    }

    pub(super) fn begin(
        builder: Builder<'_>,
        noise1: &[u8],
        index: u32,
    ) -> Result<Self, HandshakeError> {
        let mut state = builder.build_responder()?;
        let remote_index = read(&mut state, noise1)?;
        let noise = write(&mut state, index)?;
        Ok(Self { keys: SessionKeys::split(&mut state)?, remote_index, noise })
    }
}

#[cfg(test)]
#[path = "rekey_tests.rs"]
mod tests;
