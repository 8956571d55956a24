//! Word that a channel may have room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Word of all connections of a tunnel, for one who waits. Cheap to clone.
///
/// A channel does not say when it has let something go. But that happens only when something has arrived, and then
/// the driver of the connection comes back to its socket: often, so it speaks only when it was asked to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_wanted: AtomicBool,
    notify: Notify,
}

impl Progress {
    /// Asks for word of the next progress.
    pub(crate) fn want(&self) {
        self.0.is_wanted.store(true, Ordering::Relaxed);
    }

    /// Returns when there was progress after [`Progress::want`]. May be cancelled.
    pub(crate) async fn made(&self) {
        self.0.notify.notified().await;
    }

    /// A driver has done something.
    pub(super) fn happened(&self) {
        if self.0.is_wanted.swap(false, Ordering::Relaxed) {
            self.0.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn word_comes_when_it_is_wanted_and_once() {
        let progress = Progress::default();
        progress.happened();
        assert!(progress.made().now_or_never().is_none());
        progress.want();
        assert!(progress.made().now_or_never().is_none());
        progress.clone().happened();
        progress.happened();
        assert!(progress.made().now_or_never().is_some());
        assert!(progress.made().now_or_never().is_none());
    }
}
