//! What happens to the sessions of a tunnel, and how their tasks tell it.

use std::sync::Arc;

use qanah_core::router::PeerId;
use qanah_core::signal::SessionId;
use tokio::sync::mpsc;
use tracing::debug;

use super::connector::Report;
use crate::downlink::Heard;
use crate::rtc::EventSink;

/// Something that happened to a session.
pub(crate) enum Happening {
    /// Its data path heard something.
    Heard(Heard),
    /// Its connection reports something.
    Report(Report),
}

/// The tunnel's queue of what happens. Bounded: see [`super::QUEUE`].
pub(crate) type Reports = mpsc::Sender<(PeerId, SessionId, Happening)>;

/// Which session, and where its reports go.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) peer: PeerId,
    pub(crate) session: SessionId,
    pub(crate) reports: Reports,
}

impl Address {
    /// Tells the tunnel, when it has time for it.
    pub(crate) async fn tell(&self, what: Happening) {
        // Nobody listens when the tunnel is gone; then the teller ends by itself.
        let _ = self.reports.send((self.peer, self.session, what)).await;
    }

    /// Tells the tunnel if its queue has room, and says whether it had.
    pub(crate) fn try_tell(&self, what: Happening) -> bool {
        self.reports.try_send((self.peer, self.session, what)).is_ok()
    }

    pub(crate) async fn report(&self, report: Report) {
        self.tell(Happening::Report(report)).await;
    }

    /// Where a connection tells its events. They are few; one that finds the queue full belongs to
    /// a tunnel that is stuck, and the machine's timers outlive its loss.
    pub(crate) fn sink(&self) -> EventSink {
        let address = self.clone();
        Arc::new(move |event| {
            if !address.try_tell(Happening::Report(Report::Rtc(event))) {
                debug!("an event of a connection was lost");
            }
        })
    }
}
