//! Word of changes of the machine's addresses and links.
//!
//! A change means: look again. A laptop that wakes up, a cable that comes back, a new lease: ICE
//! and signaling would find out by timeouts, which is slow.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::PlatformError;

/// How long changes are gathered before they are told as one: an interface that comes up makes
/// several messages, and an address of IPv6 becomes usable a little after it appears.
const GATHER: Duration = Duration::from_millis(200);

/// How long until a connection to netlink that ended is made anew.
const RECONNECT: Duration = Duration::from_secs(1);

/// Addresses or links of the machine changed, at least once since the last `Change`. The
/// tunnel's own interface counts: compare what [`super::addresses::local_addresses`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change;

/// Watch addresses and links of the network namespace of the calling thread, from now on. The
/// channel holds one change, which stands for all that follow until it is taken. The watch ends
/// when the receiver is dropped. Must be called on a runtime.
///
/// # Errors
/// Where there is no netlink socket to be had.
pub(crate) fn watch() -> Result<Receiver<Change>, PlatformError> {
    let messages = subscribe()?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(run(messages, sender));
    Ok(receiver)
}

/// One item for each message about addresses and links; what it says is not looked at.
type Messages = Pin<Box<dyn Stream<Item = ()> + Send>>;

fn subscribe() -> Result<Messages, PlatformError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, messages) = new_multicast_connection(&groups)
        .map_err(|error| PlatformError::of("watch the addresses of this machine", error))?;
    tokio::spawn(connection);
    Ok(Box::pin(messages.map(move |_| {
        // The connection ends with its handle, so that goes with the stream.
        let _ = &handle;
    })))
}

async fn run(mut messages: Messages, sender: Sender<Change>) {
    loop {
        // The crate's queue of messages has no bound: take them at once, always.
        while gather(&mut messages, &sender).await {}
        if sender.is_closed() {
            return;
        }
        debug!("the watch of this machine's addresses ended; it is made anew");
        sleep(RECONNECT).await;
        if let Ok(again) = subscribe() {
            messages = again;
            // What changed in between went unseen.
            let _ = sender.try_send(Change);
        }
    }
}

/// Wait for one change and what follows shortly, and tell it. False at the end of either side.
async fn gather(messages: &mut Messages, sender: &Sender<Change>) -> bool {
    tokio::select! {
        message = messages.next() => if message.is_none() { return false },
        () = sender.closed() => return false,
    }
    let end = Instant::now() + GATHER;
    loop {
        tokio::select! {
            message = messages.next() => if message.is_none() { break },
            () = sleep_until(end) => break,
        }
    }
    // A full channel holds a change that nobody took yet; it stands for this one too.
    let _ = sender.try_send(Change);
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rtnetlink::LinkUnspec;
    use tokio::time::timeout;

    use super::super::query::{connect, find_link};
    use super::super::testing::{in_namespace, until};
    use super::*;

    #[test]
    fn changes_are_gathered_and_told() {
        in_namespace(|| async {
            let netlink = connect().unwrap();
            let lo = find_link(&netlink, "lo").await.unwrap().unwrap().header.index;
            let mut changes = watch().unwrap();
            // Many at once, and nobody listens: one change waits.
            for last in 1..=50 {
                let ip = std::net::Ipv4Addr::new(10, 9, 0, last).into();
                netlink.address().add(lo, ip, 32).execute().await.unwrap();
            }
            assert_eq!(changes.recv().await, Some(Change));
            // At most what came after the end of the gathering follows.
            while timeout(2 * GATHER, changes.recv()).await.is_ok() {}

            let up = LinkUnspec::new_with_index(lo).up().build();
            netlink.link().change(up).execute().await.unwrap();
            assert_eq!(changes.recv().await, Some(Change));
        });
    }

    #[test]
    fn a_flood_is_told_while_it_lasts() {
        in_namespace(|| async {
            let (tick, ticks) = futures_channel();
            let (sender, mut changes) = mpsc::channel(1);
            let watch = tokio::spawn(run(ticks, sender));
            let flood = tokio::spawn(async move {
                while tick.send(()).await.is_ok() {
                    sleep(Duration::from_millis(10)).await;
                }
            });
            assert_eq!(changes.recv().await, Some(Change));
            assert_eq!(changes.recv().await, Some(Change));
            // And the watch ends with its receiver.
            drop(changes);
            watch.await.unwrap();
            until("the flood ends", async || flood.is_finished()).await;
        });
    }

    /// Messages of the test's own.
    fn futures_channel() -> (Sender<()>, Messages) {
        let (sender, receiver) = mpsc::channel(1);
        let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
            let item: Option<()> = receiver.recv().await;
            item.map(|item| (item, receiver))
        });
        (sender, Box::pin(stream))
    }
}
