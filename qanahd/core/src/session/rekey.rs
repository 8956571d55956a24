//! New keys for a session that works, without a gap and without any signaling (PROTOCOL.md,
//! section 10.7).
//!
//! The session's offerer begins and sends its message again each second until it is answered. It
//! sends under the new keys at once when it has read the response; the answerer does when it has
//! opened a frame under them. The former keys open what is still on its way until they are too
//! old.

use std::time::Instant;

use rand_core::{CryptoRngCore, RngCore};

use super::limits::{REKEY_AFTER, REKEY_RESEND};
use super::machine::Machine;
use super::state::{Link, Peer, Session};
use super::{Event, Install, Output};
use crate::frame::Control;
use crate::handshake::{MacPurpose, RekeyAnswer, RekeyId, RekeyInitiator, SessionKeys};
use crate::signal::SessionId;

/// One of the two control messages of a rekey, with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyMessage {
    /// The answerer's, not the offerer's.
    pub is_response: bool,
    /// Counts the rekeys of a session from 1.
    pub number: u32,
    /// The Noise message.
    pub noise: Vec<u8>,
}

impl RekeyMessage {
    /// As a control message.
    pub fn control(&self) -> Control<'_> {
        let (id, noise) = (self.number, self.noise.as_slice());
        if self.is_response {
            Control::RekeyResponse { id, noise }
        } else {
            Control::RekeyInit { id, noise }
        }
    }

    /// From a control message, if it is one of the two.
    pub fn from_control(control: &Control<'_>) -> Option<Self> {
        let (is_response, number, noise) = match *control {
            Control::RekeyInit { id, noise } => (false, id, noise),
            Control::RekeyResponse { id, noise } => (true, id, noise),
            _ => return None,
        };
        Some(Self { is_response, number, noise: noise.to_vec() })
    }
}

/// Where a session stands with its keys beside those in use.
#[derive(Default)]
pub(super) struct Rekey {
    /// The number of the last rekey that was begun or answered.
    number: u32,
    /// The keys in use have sealed or opened so many frames that it is time.
    is_worn: bool,
    /// Offerer: the response is awaited.
    asking: Option<Asking>,
    /// Answerer: the response, for an init that comes again.
    answered: Option<RekeyMessage>,
    /// Answerer: the new keys, before a frame under them was opened.
    next: Option<(u32, Link)>,
    /// The keys before those in use.
    former: Option<Former>,
}

struct Asking {
    initiator: Box<RekeyInitiator>,
    message: RekeyMessage,
    index: u32,
    resend: Instant,
}

struct Former {
    keys: SessionKeys,
    index: u32,
    expiry: Instant,
}

impl Session {
    /// Whether the peer made this MAC: under the keys in use, those before or those after them.
    pub(super) fn verify(&self, purpose: MacPurpose, data: &[u8], mac: &[u8; 16]) -> bool {
        let former = self.rekey.former.as_ref().map(|former| &former.keys);
        let next = self.rekey.next.as_ref().map(|(_, link)| &link.keys);
        let keys = self.link().map(|link| &link.keys);
        keys.into_iter().chain(next).chain(former).any(|keys| keys.verify(purpose, data, mac))
    }

    /// Both ends can do it. The offerer begins.
    fn may_rekey(&self, capable: bool) -> bool {
        capable && self.link().is_some_and(|link| link.peer.capabilities.rekey)
    }

    /// When something is to be done about the keys; `capable` says that we can rekey.
    pub(super) fn rekey_deadline(&self, capable: bool) -> Option<Instant> {
        let begin = self.link().filter(|_| self.offerer && self.may_rekey(capable));
        let ask = match &self.rekey.asking {
            Some(asking) => Some(asking.resend),
            None => begin.map(|link| link.born + REKEY_AFTER),
        };
        let former = self.rekey.former.as_ref().map(|former| former.expiry);
        ask.into_iter().chain(former).min()
    }

    /// A receiver index that no other keys of this session have.
    fn fresh_index(&self, rng: &mut impl RngCore) -> u32 {
        let next = self.rekey.next.as_ref().map(|(index, _)| *index);
        let former = self.rekey.former.as_ref().map(|former| former.index);
        loop {
            let index = rng.next_u32();
            if index != self.index && Some(index) != next && Some(index) != former {
                return index;
            }
        }
    }

    /// Puts other keys in the place of those in use, which become the former ones.
    fn change_keys(&mut self, index: u32, link: Link) {
        let expiry = link.expiry();
        if let Some(current) = self.link_mut() {
            let old = std::mem::replace(current, link);
            let former = Former { expiry: old.expiry(), keys: old.keys, index: self.index };
            self.rekey.former = Some(former);
        }
        self.index = index;
        self.deadline = expiry;
        self.rekey.is_worn = false;
    }
}

impl<R: CryptoRngCore> Machine<R> {
    /// How many frames were sealed or opened under the keys that a session uses, whichever is
    /// more. Call it before [`Machine::timeout`].
    pub fn frames(&mut self, id: SessionId, count: u64) {
        let limit = self.settings.rekey_after_frames;
        if let Some(session) = self.live.as_mut().filter(|session| session.id == id) {
            session.rekey.is_worn = count >= limit;
        }
    }

    pub(super) fn drive_rekey(&mut self, now: Instant) {
        let capable = self.settings.capabilities.rekey;
        let Some(session) = &mut self.live else {
            return;
        };
        let id = session.id;
        let expired = session.rekey.former.take_if(|former| former.expiry <= now);
        let may = session.offerer && session.may_rekey(capable);
        let due = session.link().is_some_and(|link| now >= link.born + REKEY_AFTER);
        let due = due || session.rekey.is_worn;
        let resend = session.rekey.asking.as_mut().filter(|asking| asking.resend <= now);
        let again = resend.map(|asking| {
            asking.resend = now + REKEY_RESEND;
            asking.message.clone()
        });
        let begin = may && due && session.rekey.asking.is_none();
        if let Some(former) = expired {
            self.emit(Output::DropKeys(id, former.index));
        }
        if let Some(message) = again {
            self.emit(Output::SendRekey(id, message));
        }
        if begin {
            self.begin_rekey(now);
        }
    }

    fn begin_rekey(&mut self, now: Instant) {
        let Some(session) = &self.live else {
            return;
        };
        let index = session.fresh_index(&mut self.rng);
        let number = session.rekey.number.saturating_add(1);
        let id = RekeyId { session: session.id, number };
        // It fails only without random bytes; then the session ends by age, as without rekey.
        let Ok((initiator, noise)) = RekeyInitiator::start(self.identity(), id, index) else {
            return;
        };
        let message = RekeyMessage { is_response: false, number, noise };
        if let Some(session) = &mut self.live {
            session.rekey.number = number;
            session.rekey.asking = Some(Asking {
                initiator: Box::new(initiator),
                message: message.clone(),
                index,
                resend: now + REKEY_RESEND,
            });
        }
        self.emit(Output::SendRekey(id.session, message));
    }

    /// A control message of a rekey, opened.
    pub fn rekey(&mut self, now: Instant, id: SessionId, message: &RekeyMessage) {
        self.last_opened(id, now);
        let capable = self.settings.capabilities.rekey;
        let fits = self.live.as_ref().is_some_and(|session| {
            session.id == id && session.offerer == message.is_response && session.may_rekey(capable)
        });
        if !fits {
            self.refused += 1;
        } else if message.is_response {
            self.on_rekey_response(now, message);
        } else {
            self.on_rekey_init(now, message);
        }
    }

    fn on_rekey_init(&mut self, now: Instant, message: &RekeyMessage) {
        let Some(session) = &self.live else {
            return;
        };
        let (id, number) = (session.id, message.number);
        if number <= session.rekey.number {
            let answered = session.rekey.answered.clone().filter(|it| it.number == number);
            // Else it is from before: its keys are there already.
            if let Some(response) = answered {
                self.emit(Output::SendRekey(id, response));
            }
            return;
        }
        let index = session.fresh_index(&mut self.rng);
        let rekey_id = RekeyId { session: id, number };
        let Ok(answer) = RekeyAnswer::new(self.identity(), rekey_id, &message.noise, index) else {
            self.refused += 1;
            return;
        };
        let response = RekeyMessage { is_response: true, number, noise: answer.noise };
        self.make_room_for_keys();
        let Some(session) = &mut self.live else {
            return;
        };
        session.rekey.number = number;
        session.rekey.answered = Some(response.clone());
        let Some(mut link) = session.successor(now, answer.keys, answer.remote_index) else {
            return;
        };
        let install = link.install(index);
        session.rekey.next = Some((index, link));
        // Before the response goes out: the next frame may be under the new keys.
        if let Some(install) = install {
            self.emit(Output::InstallKeys(id, install));
        }
        self.emit(Output::SendRekey(id, response));
    }

    fn on_rekey_response(&mut self, now: Instant, message: &RekeyMessage) {
        let Some(session) = &mut self.live else {
            return;
        };
        let asking = session.rekey.asking.as_mut();
        // A response that was sent again, for an init that was sent again.
        let Some(asking) = asking.filter(|asking| asking.message.number == message.number) else {
            return;
        };
        let Ok((keys, remote_index)) = asking.initiator.finish(&message.noise) else {
            self.refused += 1;
            return;
        };
        let (id, index) = (session.id, asking.index);
        session.rekey.asking = None;
        let Some(mut link) = session.successor(now, keys, remote_index) else {
            return;
        };
        self.make_room_for_keys();
        if let Some(install) = link.install(index) {
            self.emit(Output::InstallKeys(id, install));
        }
        self.use_keys(index, link);
        // The first frame under the new keys: by it the answerer changes over.
        self.ping(now);
    }

    /// The data path has opened a frame of the live session under the keys with this index.
    pub(super) fn keys_opened(&mut self, id: SessionId, index: u32) {
        let session = self.live.as_mut().filter(|session| session.id == id);
        let next =
            session.and_then(|session| session.rekey.next.take_if(|(next, _)| *next == index));
        if let Some((index, link)) = next {
            self.use_keys(index, link);
        }
    }

    fn use_keys(&mut self, index: u32, link: Link) {
        let renewal = self.renewal_at(link.born);
        let Some(session) = &mut self.live else {
            return;
        };
        let id = session.id;
        session.change_keys(index, link);
        if let Some(pulse) = session.pulse_mut() {
            pulse.next_renewal = renewal;
        }
        self.emit(Output::ActivateKeys(id, index));
        self.emit(Output::Event(Event::Rekeyed));
    }

    /// Ends keys that nobody needs any more, so that there are never more than two at once.
    fn make_room_for_keys(&mut self) {
        if let Some(session) = &mut self.live {
            let id = session.id;
            let former = session.rekey.former.take().map(|former| former.index);
            let next = session.rekey.next.take().map(|(index, _)| index);
            for index in former.into_iter().chain(next) {
                self.emit(Output::DropKeys(id, index));
            }
        }
    }

    /// The former keys of a session that is not live any more.
    pub(super) fn drop_former_keys(&mut self, session: &mut Session) {
        if let Some(former) = session.rekey.former.take() {
            self.emit(Output::DropKeys(session.id, former.index));
        }
    }
}

impl Session {
    fn successor(&self, now: Instant, keys: SessionKeys, remote_index: u32) -> Option<Link> {
        let capabilities = self.link()?.peer.capabilities;
        Some(Link { keys, peer: Peer { index: remote_index, capabilities }, born: now })
    }
}

impl Link {
    /// What the data path needs; `None` when it was handed out before.
    pub(super) fn install(&mut self, local_index: u32) -> Option<Install> {
        let keys = self.keys.take_channel()?;
        Some(Install {
            send_key: keys.send,
            recv_key: keys.recv,
            remote_index: self.peer.index,
            local_index,
            capabilities: self.peer.capabilities,
        })
    }
}
