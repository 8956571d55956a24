//! Numbers and strings as MQTT writes them (MQTT 5, section 1.5).

/// A number of more than four bytes.
pub(super) struct Endless;

/// What has not been read yet.
pub(super) struct At<'a>(pub(super) &'a [u8]);

impl<'a> At<'a> {
    /// So many bytes, if there are as many.
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A variable byte integer; `None` when it is not whole.
    pub(super) fn number(&mut self) -> Result<Option<usize>, Endless> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let Some([digit]) = self.take(1) else {
                return Ok(None);
            };
            number |= usize::from(digit & 0x7f) << shift;
            if digit & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(Endless)
    }

    /// A string or binary data.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let [high, low] = self.take(2)? else {
            return None;
        };
        self.take(usize::from(u16::from_be_bytes([*high, *low])))
    }

    /// Properties with their length before them (MQTT 5, section 2.2.2), each of which is whole.
    pub(super) fn properties(&mut self) -> Option<()> {
        let length = self.number().ok()??;
        let mut all = At(self.take(length)?);
        while let Some([kind]) = all.take(1) {
            match kind {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => all.take(1).map(drop),
                19 | 33 | 34 | 35 => all.take(2).map(drop),
                2 | 17 | 24 | 39 => all.take(4).map(drop),
                11 => all.number().ok()?.map(drop),
                3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => all.string().map(drop),
                38 => all.string().and_then(|_| all.string()).map(drop),
                _ => None,
            }?;
        }
        Some(())
    }
}
