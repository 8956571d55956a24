//! What the sockets of a connection let in: [`Ingress`] decides, with what is known of candidates and names.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qanah_core::ingress::Ingress;
use qanah_core::turn::{StunHeader, receiver};

use super::names::Names;
use super::told::Told;

/// Shared by a connection and its sockets.
#[derive(Clone, Default)]
pub(super) struct Admission {
    ingress: Arc<Mutex<Ingress>>,
    told: Told,
    names: Names,
}

impl Admission {
    pub(super) fn new(told: Told, names: Names) -> Self {
        Self { ingress: Arc::default(), told, names }
    }

    fn ingress(&self) -> MutexGuard<'_, Ingress> {
        self.ingress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Datagrams of this size go to an address that `webrtc` calls `known_as`.
    pub(super) fn sent(&self, to: SocketAddr, known_as: SocketAddr, size: usize, datagrams: &[u8]) {
        let now = Instant::now();
        let mut ingress = self.ingress();
        for datagram in datagrams.chunks(size.max(1)) {
            ingress.sent(to, known_as, datagram, now);
        }
    }

    /// Leaves of what came from one address only what is to be taken. Returns its length in bytes, and the address
    /// by which `webrtc` knows the sender. All but the last datagram have `stride` bytes, before and after.
    pub(super) fn sift(
        &self,
        from: SocketAddr,
        stride: usize,
        received: &mut [u8],
    ) -> (usize, SocketAddr) {
        let mut ingress = self.ingress();
        let (mut kept, mut known_as) = (0, None);
        let (total, stride) = (received.len(), stride.max(1));
        for start in (0..total).step_by(stride) {
            let end = start.saturating_add(stride).min(total);
            let datagram = received.get(start..end).unwrap_or_default();
            let name = ingress.admits(from, datagram, |peer, check| self.may_check(peer, check));
            // Of two names for one address in one batch the second one has to ask again.
            if name.is_some_and(|name| *known_as.get_or_insert(name) == name) {
                if kept != start {
                    received.copy_within(start..end, kept);
                }
                kept += end - start;
            }
        }
        (kept, known_as.unwrap_or(from))
    }

    /// A check that is not for us is nobody's business here; `webrtc` would act on parts of it before it looks
    /// whom it is for.
    fn may_check(&self, peer: Option<SocketAddr>, check: &[u8]) -> bool {
        self.is_receiver(receiver(check))
            && peer.is_none_or(|peer| self.told.admits(peer, Instant::now()))
    }

    /// Whether this name is ours: that by which a check calls its receiver.
    pub(super) fn is_receiver(&self, ufrag: Option<&str>) -> bool {
        ufrag.is_some_and(|ufrag| self.names.has_ufrag(ufrag))
    }

    /// Whether somebody at this address has answered a check of ours.
    pub(super) fn is_peer(&self, address: SocketAddr) -> bool {
        self.ingress().is_peer(address)
    }

    /// Whether an answer from there is one to a request of ours.
    pub(super) fn awaits(&self, from: SocketAddr, header: StunHeader) -> bool {
        self.ingress().awaits(from, header)
    }

    /// The channel is open.
    pub(super) fn opened(&self) {
        self.ingress().opened();
    }
}
