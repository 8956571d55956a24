//! How a client begins: the CONNECT packet (MQTT 5 and 3.1.1, section 3.1), as far as its client id.

use super::read::{At, Endless};

/// These bytes are no CONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CONNECT packet")]
pub struct NotConnect;

impl From<Endless> for NotConnect {
    fn from(_: Endless) -> Self {
        Self
    }
}

/// Most bytes of properties in a CONNECT that is read.
const MAX_PROPERTIES: usize = 256;

/// The client id in the CONNECT packet that begins here; `None` when that has not come yet.
///
/// # Errors
/// When it is something else.
pub fn client_id(bytes: &[u8]) -> Result<Option<&[u8]>, NotConnect> {
    let mut at = At(bytes);
    let start = at.take(1);
    if start.is_some_and(|start| start != [0x10]) {
        return Err(NotConnect);
    }
    if at.number()?.is_none() {
        return Ok(None);
    }
    let Some(head) = at.take(10) else {
        return Ok(None);
    };
    let level = match head {
        [0, 4, b'M', b'Q', b'T', b'T', level @ (4 | 5), ..] => *level,
        _ => return Err(NotConnect),
    };
    if level == 5 {
        match at.number()? {
            Some(length) if length > MAX_PROPERTIES => return Err(NotConnect),
            Some(length) if at.take(length).is_some() => {}
            _ => return Ok(None),
        }
    }
    Ok(at.string())
}
