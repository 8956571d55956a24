//! Which datagrams reach a connection at all.
//!
//! The WebRTC stack below takes DTLS from any source once it has a path, and keeps what it cannot use yet:
//! fragments of handshakes after the handshake, records before it, without limit. So what comes in is
//! looked at before: it must be from somebody who answered us, and of a kind and number that makes sense
//! where the connection stands.

mod dtls;
mod exchanges;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Instant;

pub use dtls::Screen;
pub use exchanges::Exchanges;

use crate::turn::{
    BINDING, DATA_INDICATION, ERROR, SEND_INDICATION, SUCCESS, StunHeader, channel_data,
    handed_over,
};

/// What the first byte of a DTLS datagram may be (RFC 7983, section 7).
const DTLS: std::ops::RangeInclusive<u8> = 20..=63;

/// Decides what one connection takes from the network. Give it all that goes out by
/// [`sent`](Self::sent), too.
#[derive(Debug, Default)]
pub struct Ingress {
    exchanges: Exchanges,
    screen: Screen,
}

impl Ingress {
    /// A datagram goes to this address, which the stack below calls `known_as`.
    pub fn sent(&mut self, to: SocketAddr, known_as: SocketAddr, datagram: &[u8], now: Instant) {
        match StunHeader::read(datagram) {
            Some(header) if header.is_request() => {
                self.exchanges.sent(to, known_as, header, datagram, now);
            }
            Some(header) if header.kind == SEND_INDICATION && self.screen.watches() => {
                if let Some((_, contents)) = handed_over(datagram) {
                    self.screen.sent(contents);
                }
            }
            Some(_) => {}
            None if self.screen.watches() => {
                self.screen.sent(channel_data(datagram).unwrap_or(datagram));
            }
            None => {}
        }
    }

    /// By which address the stack below shall take a datagram for sent; `None` when it shall not see it.
    /// `may_check` says whether a check (the second argument) from an address is to be answered. From where a check
    /// in ChannelData comes is not known.
    pub fn admits(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        may_check: impl FnOnce(Option<SocketAddr>, &[u8]) -> bool,
    ) -> Option<SocketAddr> {
        if let Some(header) = StunHeader::read(datagram) {
            return match header.kind {
                BINDING => may_check(Some(from), datagram).then_some(from),
                DATA_INDICATION => {
                    let known_as = self.exchanges.server(from)?;
                    let (peer, contents) = handed_over(datagram)?;
                    self.admits_inside(contents, |check| may_check(Some(peer), check))
                        .then_some(known_as)
                }
                _ if header.is_answer() => self.exchanges.answered(from, header),
                _ => None,
            };
        }
        if datagram.first().is_some_and(|first| DTLS.contains(first)) {
            return (self.exchanges.is_peer(from) && self.screen.admits(datagram)).then_some(from);
        }
        let contents = channel_data(datagram)?;
        let known_as = self.exchanges.server(from)?;
        // Whose the channel is, its server does not say; channels are bound for those alone to whom we send.
        self.admits_inside(contents, |check| may_check(None, check)).then_some(known_as)
    }

    /// What a TURN server hands over for a peer. That it comes from somebody whom we sent to is the server's to
    /// see to (RFC 8656, section 9), by IP address.
    fn admits_inside(&mut self, contents: &[u8], may_check: impl FnOnce(&[u8]) -> bool) -> bool {
        match StunHeader::read(contents).map(|header| header.kind) {
            Some(BINDING) => may_check(contents),
            Some(kind) => kind == BINDING | SUCCESS || kind == BINDING | ERROR,
            None => self.screen.admits(contents),
        }
    }

    /// Whether somebody at this address has answered a check of ours.
    pub fn is_peer(&self, address: SocketAddr) -> bool {
        self.exchanges.is_peer(address)
    }

    /// Whether an answer from there is one to a request of ours.
    pub fn awaits(&self, from: SocketAddr, header: StunHeader) -> bool {
        self.exchanges.awaits(from, header)
    }

    /// Data of the other side has come: it has finished its handshake, and so have we.
    pub fn opened(&mut self) {
        self.screen.opened();
    }
}
