//! The state of tunnels, gathered from their threads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Command, Daemon, Reply};
use crate::control::ControlFailure;
use crate::control::report::{BrokerReport, Drops, ServerReport, StatusReport, TunnelReport};
use crate::tunnel::{Changes, Command as TunnelCommand};

/// How long a tunnel may take to say how it is.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time between two states that are told to those who watch.
const PACE: Duration = Duration::from_millis(250);

/// What the daemon adds to a tunnel's state: its brokers and what was dropped there, its servers.
pub(super) type Shared = (Vec<BrokerReport>, Drops, Vec<ServerReport>);

impl Daemon {
    pub(super) fn status(&self, name: Option<String>, reply: Reply<StatusReport>) {
        let named = |tunnel: &str| name.as_deref().is_none_or(|name| name == tunnel);
        let mut asked: Vec<_> = self
            .tunnels
            .iter()
            .filter(|(tunnel, _)| named(tunnel.as_str()))
            .filter_map(|(_, entry)| {
                let (number, commands) = entry.when_up()?;
                Some((number, commands.clone(), entry.shared(&self.brokers)))
            })
            .collect();
        if let Some(name) = name.filter(|_| asked.is_empty()) {
            let _ = reply.send(Err(self.unknown(&name)));
            return;
        }
        asked.sort_by_key(|(number, ..)| *number);
        tokio::spawn(async move {
            let asked = asked.into_iter().map(|(_, commands, shared)| of_one(commands, shared));
            let tunnels: Result<Vec<_>, _> = join_all(asked).await.into_iter().collect();
            let _ = reply.send(tunnels.map(|tunnels| StatusReport { tunnels }));
        });
    }
}

/// Asks a tunnel for its state.
pub(super) async fn of_one(
    commands: mpsc::Sender<TunnelCommand>,
    (brokers, drops, servers): Shared,
) -> Result<TunnelReport, ControlFailure> {
    let ask = async {
        let (reply, answer) = oneshot::channel();
        commands.send(TunnelCommand::Status(reply)).await.ok()?;
        answer.await.ok()
    };
    let answer = tokio::time::timeout(TIMEOUT, ask).await.map_err(|_| ControlFailure::Busy)?;
    let mut tunnel = answer.ok_or(ControlFailure::Stopping)?;
    tunnel.brokers = brokers;
    tunnel.servers = servers;
    tunnel.drops.extend(drops);
    Ok(tunnel)
}

/// The state of all tunnels after each change, for all who watch at once: however many they are, the
/// tunnels are asked four times a second at most, and not at all when nobody watches.
pub(super) async fn publish(
    changes: Changes,
    commands: mpsc::WeakSender<Command>,
    watchers: Arc<watch::Sender<Arc<StatusReport>>>,
) {
    let mut changes = changes.listen();
    while changes.changed().await.is_ok() {
        if watchers.receiver_count() > 0 {
            let (reply, answer) = oneshot::channel();
            let Some(commands) = commands.upgrade() else {
                return;
            };
            if commands.send(Command::Status { name: None, reply }).await.is_err() {
                return;
            }
            drop(commands);
            match answer.await {
                Ok(Ok(report)) => {
                    watchers.send_replace(Arc::new(report));
                }
                // A tunnel that has just ended, or is busy: the next look will tell.
                Ok(Err(_)) => changes.mark_changed(),
                Err(_) => return,
            }
        }
        tokio::time::sleep(PACE).await;
    }
}
