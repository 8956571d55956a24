//! The openers of a session: those of the keys in use, and for a while those before or after.

use super::{FrameHeader, OpenError, Opened, Opener};

/// Rekeys hold two keys at once. One more does no harm; a mistake shall not hold hundreds.
const MOST: usize = 3;

/// All keys under which frames of one session are opened, told apart by the receiver index.
#[derive(Debug)]
pub struct Openers(Vec<Opener>);

impl Openers {
    /// Begins with the keys of the handshake.
    pub fn new(opener: Opener) -> Self {
        Self(vec![opener])
    }

    /// Adds newer keys beside those there are. Beyond three the oldest go.
    pub fn add(&mut self, opener: Opener) {
        self.0.push(opener);
        if self.0.len() > MOST {
            self.0.remove(0);
        }
    }

    /// Forgets the keys with this index.
    pub fn remove(&mut self, index: u32) {
        self.0.retain(|opener| opener.index() != index);
    }

    /// Whether there are keys with this index.
    pub fn has(&self, index: u32) -> bool {
        self.0.iter().any(|opener| opener.index() == index)
    }

    /// The index of the newest keys.
    pub fn newest(&self) -> Option<u32> {
        self.0.last().map(Opener::index)
    }

    /// How many counters the peer has used under the keys with this index, at least.
    pub fn opened(&self, index: u32) -> u64 {
        let opener = self.0.iter().find(|opener| opener.index() == index);
        opener.map_or(0, |opener| opener.window.greatest())
    }

    /// Opens a frame under the keys that it names, and says which.
    ///
    /// # Errors
    /// As [`Opener::open`]; an index that no keys have is [`OpenError::Index`].
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<(Opened<'a>, u32), OpenError> {
        let index = FrameHeader::parse(frame)?.index;
        // The newest first: they open nearly everything.
        let opener = self.0.iter_mut().rev().find(|opener| opener.index() == index);
        let opened = opener.ok_or(OpenError::Index(index))?.open(frame)?;
        Ok((opened, index))
    }
}

#[cfg(test)]
mod tests {
    use crate::frame::{FrameBuf, FrameType};
    use crate::seal::{CarrierKey, OpenError, Opener, Sealer};

    use super::*;

    fn pair(n: u8) -> (Sealer, Opener) {
        let key = || CarrierKey::from_bytes([n; 32]);
        (Sealer::new(key(), n.into()), Opener::new(key(), n.into()))
    }

    fn frame(sealer: &mut Sealer) -> Vec<u8> {
        let mut buf = FrameBuf::with_capacity(4);
        buf.push(b"data").unwrap();
        sealer.seal(FrameType::Control, buf).unwrap().to_vec()
    }

    #[test]
    fn frames_are_opened_under_the_keys_that_they_name() {
        let ((mut one, first), (mut two, second)) = (pair(1), pair(2));
        let mut openers = Openers::new(first);
        let late = frame(&mut one);
        assert_eq!(openers.open(&mut frame(&mut two)), Err(OpenError::Index(2)));
        openers.add(second);
        assert_eq!(openers.newest(), Some(2));
        let mut again = frame(&mut two);
        let (opened, index) = openers.open(&mut again).unwrap();
        assert_eq!((&*opened.plaintext, index), (b"data".as_slice(), 2));
        assert_eq!(openers.open(&mut late.clone()).map(|(_, index)| index), Ok(1));
        assert!(matches!(openers.open(&mut late.clone()), Err(OpenError::Replay(_))));
        assert_eq!((openers.opened(1), openers.opened(2)), (0, 1));
        openers.remove(1);
        assert_eq!(openers.open(&mut frame(&mut one)), Err(OpenError::Index(1)));
    }

    #[test]
    fn an_index_does_not_make_other_keys_fit() {
        let ((mut one, first), (_, second)) = (pair(1), pair(2));
        let mut openers = Openers::new(first);
        openers.add(second);
        let mut forged = frame(&mut one);
        forged[7] = 2;
        assert_eq!(openers.open(&mut forged), Err(OpenError::Forged));
    }

    #[test]
    fn there_are_never_many() {
        let mut openers = Openers::new(pair(0).1);
        (1..100).for_each(|n| openers.add(pair(n).1));
        assert_eq!(openers.0.len(), MOST);
        assert_eq!(openers.newest(), Some(99));
    }
}
