//! What the service manager is told: how it goes, and that it goes on.
//!
//! Without a service manager (no `NOTIFY_SOCKET`) all of it is nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::Command;
use crate::control::report::{PeerState, StatusReport};
use crate::tunnel::Changes;

/// Signs of life in the time that the service manager waits for one.
const FEEDS: u32 = 4;
/// The shortest time between two lines of status.
const PACE: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("the service manager could not be told: {error}");
    }
}

/// Says that configurations are being read again, and when that began.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // A manager that needs the time would not take it without.
        Err(error) => warn!("there is no monotonic clock: {error}"),
    }
}

/// Feeds the watchdog for as long as everything moves: the control loop has to take a command, and
/// with it every tunnel that is up has to say that packets are read from its device.
///
/// It gives up on an answer while there is time to say so before the service manager ends the process.
pub(super) async fn feed_watchdog(
    commands: mpsc::WeakSender<Command>,
    limit: Duration,
    feed: impl Fn(),
) {
    let mut stuck_before = false;
    loop {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            commands.upgrade()?.send(Command::Pulse(reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(limit / 2, ask).await {
            Ok(Some(stuck)) if stuck.is_empty() => {
                stuck_before = false;
                feed();
            }
            Ok(Some(stuck)) => {
                // Once is no sign: a packet may have come just before the look.
                if std::mem::replace(&mut stuck_before, true) {
                    error!("no progress in {}", stuck.join(", "));
                }
            }
            // The daemon ends.
            Ok(None) => return,
            Err(_) => error!("no progress in the control loop or in a tunnel"),
        }
        sleep(limit / FEEDS).await;
    }
}

/// Keeps the line of status that `systemctl status` shows.
pub(super) async fn keep_status(changes: Changes, commands: mpsc::WeakSender<Command>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut changes = changes.listen();
    changes.mark_changed();
    let mut told = String::new();
    while changes.changed().await.is_ok() {
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
                let line = status_line(&report);
                if line != told {
                    tell(&[NotifyState::Status(&line)]);
                    told = line;
                }
            }
            // A tunnel that has just ended, or is busy: the next look will tell.
            Ok(Err(_)) => changes.mark_changed(),
            Err(_) => return,
        }
        sleep(PACE).await;
    }
}

fn status_line(report: &StatusReport) -> String {
    let peers = || report.tunnels.iter().flat_map(|tunnel| &tunnel.peers);
    let connected = peers().filter(|peer| peer.state == PeerState::Connected).count();
    let all = peers().count();
    let whose = match report.tunnels.as_slice() {
        [] => return "no tunnel is up".to_owned(),
        [one] => one.name.clone(),
        several => format!("{} tunnels", several.len()),
    };
    let cut_off = report.tunnels.iter().filter(|tunnel| {
        !tunnel.brokers.is_empty() && !tunnel.brokers.iter().any(|broker| broker.connected)
    });
    let signaling = if cut_off.count() > 0 { "; no broker is connected" } else { "" };
    format!("{whose}: {connected} of {all} peers connected{signaling}")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use qanah_core::key::PublicKey;

    use super::*;
    use crate::control::report::{BrokerReport, PeerReport, Traffic, TunnelReport};

    fn peer(state: PeerState) -> PeerReport {
        PeerReport {
            name: None,
            public_key: PublicKey::from_bytes([1; 32]),
            allowed_ips: Vec::new(),
            state,
            reason: String::new(),
            next_try: None,
            path: None,
            rtt: None,
            last_handshake: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            drops: Default::default(),
        }
    }

    fn tunnel(name: &str, peers: &[PeerState], brokers: &[bool]) -> TunnelReport {
        let broker = |connected: &bool| BrokerReport {
            label: "broker".into(),
            connected: *connected,
            error: None,
            since: Duration::ZERO,
        };
        TunnelReport {
            name: name.into(),
            public_key: PublicKey::from_bytes([2; 32]),
            addresses: Vec::new(),
            mtu: 1400,
            uptime: Duration::ZERO,
            brokers: brokers.iter().map(broker).collect(),
            servers: Vec::new(),
            nat: qanah_core::diagnosis::Nat::Unknown,
            listen_port: None,
            peers: peers.iter().copied().map(peer).collect(),
            drops: Default::default(),
            relaying: None,
        }
    }

    #[test]
    fn the_line_counts_peers_over_all_tunnels() {
        use PeerState::{Connected, Idle, Recovering};
        let line = |tunnels: Vec<TunnelReport>| status_line(&StatusReport { tunnels });
        assert_eq!(line(vec![]), "no tunnel is up");
        let one = || tunnel("home", &[Connected, Recovering], &[false, true]);
        assert_eq!(line(vec![one()]), "home: 1 of 2 peers connected");
        let cut_off = tunnel("b", &[Connected, Idle, Connected], &[false]);
        let expected = "2 tunnels: 3 of 5 peers connected; no broker is connected";
        assert_eq!(line(vec![one(), cut_off]), expected);
        assert_eq!(line(vec![tunnel("by-hand", &[], &[])]), "by-hand: 0 of 0 peers connected");
    }

    /// How often the watchdog is fed by a control loop that answers so; `None` is no answer.
    async fn fed(answers: Vec<Option<&[&str]>>) -> usize {
        let fed = Rc::new(Cell::new(0));
        let counter = Rc::clone(&fed);
        let (commands, mut queue) = mpsc::channel(1);
        let limit = Duration::from_millis(100);
        let feeding =
            feed_watchdog(commands.downgrade(), limit, move || counter.set(counter.get() + 1));
        let looping = async {
            let mut held = Vec::new();
            for answer in answers {
                let Some(Command::Pulse(reply)) = queue.recv().await else {
                    panic!("no pulse");
                };
                match answer {
                    Some(stuck) => {
                        drop(reply.send(stuck.iter().map(|name| (*name).to_owned()).collect()));
                    }
                    None => held.push(reply),
                }
            }
            // The next one comes after the last was dealt with.
            assert!(matches!(queue.recv().await, Some(Command::Pulse(_))));
            drop(commands);
        };
        tokio::join!(feeding, looping);
        fed.get()
    }

    #[tokio::test]
    async fn only_progress_of_everything_feeds_the_watchdog() {
        assert_eq!(fed(vec![Some(&[]), Some(&[])]).await, 2);
        assert_eq!(fed(vec![Some(&["home"]), Some(&[])]).await, 1);
        assert_eq!(fed(vec![None, None, Some(&["home"])]).await, 0);
    }
}
