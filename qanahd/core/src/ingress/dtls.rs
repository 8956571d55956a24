//! Which DTLS records make sense where a connection stands.

/// Length of a record's header in bytes (RFC 6347, section 4.1).
const HEADER: usize = 13;
/// Length of the header of a fragment of a handshake message in bytes (RFC 6347, section 4.2.2).
const FRAGMENT_HEADER: usize = 12;
/// Kinds of records.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// The kind of handshake message that only a client sends.
const CLIENT_HELLO: u8 = 1;

/// Messages of one side's handshake: a client of DTLS 1.2 sends 6, a server 7.
const MAX_MESSAGES: u16 = 16;
/// Length of a handshake message in bytes. The longest has a certificate, of one key that signed itself.
const MAX_MESSAGE: usize = 8 * 1024;
/// Sequence numbers of records before there are keys: the greatest one moves the window for all.
const MAX_SEQUENCE: u64 = 4096;
/// What the whole handshake may take, with all that is sent again.
const MAX_FRAGMENTS: u32 = 256;
const MAX_FRAGMENT_BYTES: usize = 256 * 1024;
/// Changes of keys.
const MAX_CHANGES: u32 = 64;
/// Finished messages. They are sealed, so their length must tell that they are nothing else.
const MAX_FINISHED: u32 = 64;
const MAX_FINISHED_LEN: usize = 128;
/// Records that wait for the end of our handshake: the other side may have come to it before.
const MAX_WAITING: u32 = 128;
const MAX_WAITING_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// We make keys.
    #[default]
    Handshake,
    /// We have keys. Whether the other side has, we do not know: it may send its last flight again.
    Keyed,
    /// So has the other side: there is nothing more to be said without keys.
    Open,
}

/// Looks at the records of one connection, in both directions. About 40 bytes.
#[derive(Debug, Default)]
pub struct Screen {
    phase: Phase,
    is_client: bool,
    fragments: u32,
    fragment_bytes: usize,
    changes: u32,
    finished: u32,
    waiting: u32,
    waiting_bytes: usize,
}

/// One record.
struct Record<'a> {
    kind: u8,
    epoch: u16,
    sequence: u64,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of a datagram, and what comes after it.
    fn read(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = datagram.split_first_chunk::<HEADER>()?;
        let [kind, major, minor, e1, e2, s1, s2, s3, s4, s5, s6, l1, l2] = *head;
        // DTLS 1.0, in the first message of some, and 1.2.
        if (major, minor) != (254, 255) && (major, minor) != (254, 253) {
            return None;
        }
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l2])))?;
        let record = Self {
            kind,
            epoch: u16::from_be_bytes([e1, e2]),
            sequence: u64::from_be_bytes([0, 0, s1, s2, s3, s4, s5, s6]),
            body,
        };
        Some((record, rest))
    }
}

/// Counts something, as long as there is room for it.
fn takes(count: &mut u32, most: u32) -> bool {
    let has_room = *count < most;
    *count += u32::from(has_room);
    has_room
}

/// As [`takes`], for bytes.
fn takes_bytes(count: &mut usize, bytes: usize, most: usize) -> bool {
    let has_room = count.saturating_add(bytes) <= most;
    if has_room {
        *count += bytes;
    }
    has_room
}

impl Screen {
    /// Whether [`sent`](Self::sent) is of any interest still.
    pub fn watches(&self) -> bool {
        self.phase == Phase::Handshake
    }

    /// A datagram of ours goes out. It tells when our handshake is over: a server's Finished is its last word, and
    /// data is sent by nobody before.
    pub fn sent(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((record, next)) = Record::read(rest) {
            rest = next;
            match (record.kind, record.epoch) {
                (HANDSHAKE, 0) => self.is_client |= record.body.first() == Some(&CLIENT_HELLO),
                (HANDSHAKE, _) if !self.is_client => self.keyed(),
                (APPLICATION_DATA, 1..) => self.keyed(),
                _ => {}
            }
        }
    }

    fn keyed(&mut self) {
        if self.phase == Phase::Handshake {
            self.phase = Phase::Keyed;
        }
    }

    /// Data of the other side was opened: it has finished its handshake, and so have we.
    pub fn opened(&mut self) {
        self.phase = Phase::Open;
    }

    /// Whether a datagram is to be taken: every record in it makes sense.
    pub fn admits(&mut self, datagram: &[u8]) -> bool {
        let mut rest = datagram;
        loop {
            let Some((record, next)) = Record::read(rest) else {
                return false;
            };
            if !self.admits_record(&record) {
                return false;
            }
            if next.is_empty() {
                return true;
            }
            rest = next;
        }
    }

    fn admits_record(&mut self, record: &Record<'_>) -> bool {
        // An empty one is an error of the whole datagram to the stack below.
        if record.body.is_empty() {
            return false;
        }
        let is_open = self.phase == Phase::Open;
        match (record.kind, record.epoch) {
            (APPLICATION_DATA | ALERT, 1) => {
                self.phase != Phase::Handshake || self.has_room(record)
            }
            (HANDSHAKE, 1) => {
                !is_open
                    && record.body.len() <= MAX_FINISHED_LEN
                    && takes(&mut self.finished, MAX_FINISHED)
            }
            (_, 0) if is_open || record.sequence >= MAX_SEQUENCE => false,
            (HANDSHAKE, 0) => self.admits_fragments(record.body),
            (CHANGE_CIPHER_SPEC, 0) => record.body == [1] && takes(&mut self.changes, MAX_CHANGES),
            // Anybody could have said so, but only those who answered us come so far, and the other side has no
            // other way to say that it gave up.
            (ALERT, 0) => self.phase == Phase::Handshake && record.body.len() == 2,
            _ => false,
        }
    }

    /// Room for a record that has to wait until there are keys.
    fn has_room(&mut self, record: &Record<'_>) -> bool {
        takes(&mut self.waiting, MAX_WAITING)
            && takes_bytes(&mut self.waiting_bytes, record.body.len(), MAX_WAITING_BYTES)
    }

    /// The fragments in a record, each whole and where it says, of a message that may be.
    fn admits_fragments(&mut self, body: &[u8]) -> bool {
        let mut rest = body;
        while !rest.is_empty() {
            let Some((head, after)) = rest.split_first_chunk::<FRAGMENT_HEADER>() else {
                return false;
            };
            let [_, l1, l2, l3, m1, m2, o1, o2, o3, f1, f2, f3] = *head;
            let number = |bytes: [u8; 3]| {
                bytes.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte))
            };
            let (length, offset) = (number([l1, l2, l3]), number([o1, o2, o3]));
            let fragment = number([f1, f2, f3]);
            let Some(next) = after.get(fragment..) else {
                return false;
            };
            // The stack below takes what follows a part of a message for more of that part.
            let is_whole = fragment == length;
            let is_sound = u16::from_be_bytes([m1, m2]) < MAX_MESSAGES
                && length <= MAX_MESSAGE
                && offset + fragment <= length
                && (is_whole || (fragment > 0 && next.is_empty()));
            let has_room = is_sound
                && takes(&mut self.fragments, MAX_FRAGMENTS)
                && takes_bytes(&mut self.fragment_bytes, fragment, MAX_FRAGMENT_BYTES);
            if !has_room {
                return false;
            }
            rest = next;
        }
        true
    }
}
