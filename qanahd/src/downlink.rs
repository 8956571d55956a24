//! From a peer to the kernel: channel -> open -> source check -> TUN.
//!
//! One task a session. It opens with the session's openers; the tunnel's actor adds newer keys and
//! takes old ones away between frames, on the same thread: a cell, not a lock.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use qanah_core::frame::{Control, FrameType, packets};
use qanah_core::router::Router;
use qanah_core::seal::{OpenError, Openers};
use qanah_core::session::RekeyMessage;
use tokio::sync::watch;

use crate::pace::Pace;
use crate::platform::tun::TunDevice;
use crate::rtc::ChannelReceiver;
use crate::stats::{Drop, PeerStats, SessionStats};
use crate::tunnel::{Address, Happening};

/// What a session tells the tunnel beside packets.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The first frame was opened under the keys with this index: they are confirmed.
    Opened(u32),
    /// A control message that changes the session's keys.
    Rekey(RekeyMessage),
    /// A control message for the session machine.
    Control(Control<'static>),
    /// The channel has ended.
    Ended,
}

/// All that one session needs to receive.
pub(crate) struct Downlink {
    /// Which session this is, and whom to tell.
    pub(crate) address: Address,
    pub(crate) openers: Rc<RefCell<Openers>>,
    pub(crate) channel: ChannelReceiver,
    /// Replaced as a whole when the configuration changes.
    pub(crate) router: watch::Receiver<Arc<Router>>,
    pub(crate) tun: Arc<TunDevice>,
    pub(crate) stats: Rc<PeerStats>,
    pub(crate) session: Rc<SessionStats>,
    /// The newest keys of which the tunnel knows that a frame was opened under them.
    pub(crate) confirmed: Option<u32>,
    /// Bounds control messages; see [`CONTROL_PER_SECOND`].
    pub(crate) control: Pace,
}

/// Frames that are received before others on this thread have their turn.
const TURN: u32 = 64;

/// Most control messages a second that a session hands on. An honest peer sends a few.
pub(crate) const CONTROL_PER_SECOND: u32 = 10;

impl Downlink {
    /// Receives until the channel ends.
    pub(crate) async fn run(mut self) {
        let mut in_turn = 0_u32;
        while let Some(mut frame) = self.channel.recv().await {
            self.receive(&mut frame);
            in_turn += 1;
            if in_turn == TURN {
                in_turn = 0;
                tokio::task::yield_now().await;
            }
        }
        self.address.tell(Happening::Heard(Heard::Ended)).await;
    }

    fn receive(&mut self, frame: &mut [u8]) {
        let mut openers = self.openers.borrow_mut();
        let (opened, index) = match openers.open(frame) {
            Ok(opened) => opened,
            Err(error) => return self.stats.drops.count(cause(&error)),
        };
        let is_newest = openers.newest() == Some(index);
        drop(openers);
        self.session.last_opened.set(Some(Instant::now()));
        // Told again with the next frame if there was no room for it.
        if is_newest
            && self.confirmed != Some(index)
            && self.address.try_tell(Happening::Heard(Heard::Opened(index)))
        {
            self.confirmed = Some(index);
        }
        let (kind, plaintext) = (opened.kind, opened.plaintext);
        match kind {
            Ok(FrameType::Packets) => self.deliver(plaintext),
            Ok(FrameType::Control) => self.control(plaintext),
            _ => self.stats.drops.count(Drop::UnknownType),
        }
    }

    /// Checks every packet of a frame against the peer's allowed IPs and gives it to the kernel.
    fn deliver(&self, plaintext: &[u8]) {
        let router = self.router.borrow();
        for packet in packets(plaintext) {
            let Ok(packet) = packet else {
                return self.stats.drops.count(Drop::BadPacket);
            };
            if !router.owns(self.address.peer, packet.src()) {
                self.stats.drops.count(Drop::SpoofedSource);
            } else if self.tun.try_send(packet.as_bytes()).is_err() {
                self.stats.drops.count(Drop::Interface);
            } else {
                self.stats.received.count(packet.as_bytes().len());
            }
        }
    }

    fn control(&mut self, plaintext: &[u8]) {
        let heard = match Control::parse(plaintext) {
            Ok(Control::Confirm) => Heard::Control(Control::Confirm),
            Ok(Control::Ping(value)) => Heard::Control(Control::Ping(value)),
            Ok(Control::Pong(value)) => Heard::Control(Control::Pong(value)),
            Ok(Control::PathProbe { size }) => Heard::Control(Control::PathProbe { size }),
            Ok(Control::Close) => Heard::Control(Control::Close),
            Ok(other) => match RekeyMessage::from_control(&other) {
                Some(message) => Heard::Rekey(message),
                None => return self.stats.drops.count(Drop::UnknownType),
            },
            Err(_) => return self.stats.drops.count(Drop::UnknownType),
        };
        let heard = Happening::Heard(heard);
        if !self.control.allows(Instant::now()) || !self.address.try_tell(heard) {
            self.stats.drops.count(Drop::Busy);
        }
    }
}

const fn cause(error: &OpenError) -> Drop {
    match error {
        OpenError::Replay(_) => Drop::Replayed,
        OpenError::Forged => Drop::Forged,
        _ => Drop::BadFrame,
    }
}
