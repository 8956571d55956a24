//! Whether everything moves: asked of every tunnel that is up.

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Daemon, TunnelCommand};

impl Daemon {
    /// Asks the tunnels that are up, and answers with the names of those that do not move. One that
    /// cannot even answer leaves whoever asks without an answer, too.
    pub(super) fn pulse(&self, reply: oneshot::Sender<Vec<String>>) {
        let asked = self.tunnels.iter().filter_map(|(name, entry)| {
            let (_, commands) = entry.when_up()?;
            Some((name.to_string(), commands.clone()))
        });
        let asked: Vec<_> = asked
            .map(|(name, commands)| async move {
                let (reply, answer) = oneshot::channel();
                // One that has ended meanwhile has not got stuck; its end is dealt with elsewhere.
                commands.send(TunnelCommand::Pulse(reply)).await.ok()?;
                let moves = answer.await.ok()?;
                (!moves).then_some(name)
            })
            .collect();
        tokio::spawn(async move {
            let stuck = join_all(asked).await.into_iter().flatten().collect();
            // Whoever asked may have waited long enough.
            let _ = reply.send(stuck);
        });
    }
}
