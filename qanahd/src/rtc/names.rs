//! How a connection is called.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// ICE generations of a connection whose checks are taken.
const MAX_UFRAGS: usize = 2;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a connection is called by its peer, for all its sockets.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<NamesInner>>);

#[derive(Default)]
struct NamesInner {
    ufrags: VecDeque<String>,
    /// The address that `webrtc` knows, and the one at the port.
    addresses: Vec<(SocketAddr, SocketAddr)>,
}

impl Names {
    /// A new generation begins; the one before still counts.
    pub(super) fn add_ufrag(&self, ufrag: &str) {
        let mut inner = lock(&self.0);
        inner.ufrags.push_back(ufrag.to_owned());
        if inner.ufrags.len() > MAX_UFRAGS {
            inner.ufrags.pop_front();
        }
    }

    /// `webrtc` takes this socket of its own for one that is at the port.
    pub(super) fn add_address(&self, known: SocketAddr, shared: SocketAddr) {
        let mut inner = lock(&self.0);
        inner.addresses.retain(|(_, other)| *other != shared);
        inner.addresses.push((known, shared));
    }

    /// The address that others see when they are on the same network.
    pub(super) fn translate(&self, address: SocketAddr) -> SocketAddr {
        let inner = lock(&self.0);
        let found = inner.addresses.iter().find(|(known, _)| *known == address);
        found.map_or(address, |(_, shared)| *shared)
    }

    /// Whether a check for this one is for us.
    pub(super) fn has_ufrag(&self, ufrag: &str) -> bool {
        lock(&self.0).ufrags.iter().any(|own| own == ufrag)
    }
}
