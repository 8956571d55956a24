//! Word that something looks other than before, for those who watch.

use tokio::sync::watch;

/// Tells that something has changed, not what. Clones tell the same listeners. Costs nothing where
/// nobody listens, and never waits.
#[derive(Debug, Clone)]
pub(crate) struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Changes {
    /// Something has changed.
    pub(crate) fn tell(&self) {
        self.0.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Hears of every change from now on; of several that it did not wait for, once.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
