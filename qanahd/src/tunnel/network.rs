//! Word of changes of the machine's addresses, without those of the tunnel itself.

use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::connector::Connecting;
use crate::platform::{PlatformError, watch};

/// The addresses that the machine has after each change that matters. Ends with the receiver.
///
/// # Errors
/// Where there is no netlink socket to be had.
pub(super) fn watch(
    connecting: &Rc<Connecting>,
) -> Result<mpsc::Receiver<Vec<IpAddr>>, PlatformError> {
    let mut changes = watch::watch()?;
    let connecting = Rc::clone(connecting);
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        let mut known = connecting.addresses().await.unwrap_or_default();
        known.sort_unstable();
        while changes.recv().await.is_some() {
            let Some(mut found) = connecting.addresses().await else {
                continue;
            };
            // The order tells which is likelier to work, not what there is.
            found.sort_unstable();
            if found != known {
                known.clone_from(&found);
                if sender.send(found).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}
