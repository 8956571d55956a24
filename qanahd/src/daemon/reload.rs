//! A changed configuration for a tunnel that is up: read and compared by a task, applied by the tunnel.

use std::sync::Arc;

use qanah_core::config::TunnelName;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::failure::{failure, tunnel_failure};
use super::keeper::StartError;
use super::tunnels::{Entry, Phase, going_down};
use super::{Daemon, Reply, manager};
use crate::config_file::{ConfigFile, Origin};
use crate::control::{ControlFailure, ReloadDone};
use crate::platform::config_dir::ConfigDir;
use crate::tunnel::{Command as TunnelCommand, Outline, Reload};

/// A step of a reload, by the task that does it.
pub(super) struct Reloading {
    name: TunnelName,
    number: u64,
    step: ReloadStep,
}

enum ReloadStep {
    /// The file was read and compared.
    Compared { reload: Box<Reload>, next: Outline, notes: Vec<String>, reply: Reply<ReloadDone> },
    /// The tunnel has taken it on, with this outline; or nothing has changed.
    Done(Option<Outline>),
}

impl Daemon {
    pub(super) fn reload(&mut self, name: &TunnelName, quotes: bool, reply: Reply<ReloadDone>) {
        let refused = match self.tunnels.get_mut(name) {
            None => self.unknown(name.as_str()),
            Some(Entry { phase: Phase::GoingDown, .. }) => going_down(name),
            Some(Entry { phase: Phase::Up, number, running: Some(running), .. })
                if !running.reloading =>
            {
                running.reloading = true;
                let task = ReloadTask {
                    name: name.clone(),
                    number: *number,
                    origin: running.origin.clone(),
                    outline: Arc::clone(&running.outline),
                    quotes,
                    reloads: self.reloads.clone(),
                };
                let directory = self.directory.clone();
                tokio::spawn(task.run(directory, reply));
                self.reload_begins();
                return;
            }
            Some(_) => {
                ControlFailure::TooMuch(format!("{name} is coming up or reloading; try again"))
            }
        };
        let _ = reply.send(Err(refused));
    }

    /// Every tunnel that is up and has a file takes on what is in it now. What fails is logged.
    pub(super) fn reload_all(&mut self) {
        let has_file = |entry: &Entry| {
            let running = entry.running.as_ref().filter(|_| entry.phase == Phase::Up);
            running.is_some_and(|running| running.origin != Origin::Text)
        };
        let with_file = self.tunnels.iter().filter(|(_, entry)| has_file(entry));
        let names: Vec<TunnelName> = with_file.map(|(name, _)| name.clone()).collect();
        for name in names {
            // Nobody waits for the answer.
            self.reload(&name, false, oneshot::channel().0);
        }
    }

    /// The service manager is told once of reloads that overlap, and not before it was told that the
    /// daemon is ready: it would take the end of the reload for that.
    fn reload_begins(&mut self) {
        self.reloads_running += 1;
        if self.reloads_running == 1 && self.said_ready {
            manager::tell_reloading();
        }
    }

    fn reload_ends(&mut self) {
        self.reloads_running = self.reloads_running.saturating_sub(1);
        if self.reloads_running == 0 && self.said_ready {
            manager::tell(&[sd_notify::NotifyState::Ready]);
        }
    }

    pub(super) fn reloading(&mut self, reloading: Reloading) {
        let Reloading { name, number, step } = reloading;
        if matches!(step, ReloadStep::Done(_)) {
            self.reload_ends();
        }
        let entry = self.tunnels.get_mut(&name).filter(|entry| entry.number == number);
        let Some(Entry { set, running: Some(running), .. }) = entry else {
            if let ReloadStep::Compared { reply, .. } = step {
                let _ = reply.send(Err(gone()));
                self.reload_ends();
            }
            return;
        };
        match step {
            ReloadStep::Compared { reload, next, notes, reply } => {
                // Before the tunnel says hello to new peers, so that it hears their answers. Those of
                // peers that go stay until it has changed.
                let mut topics = running.outline.topics();
                topics.extend(next.topics());
                self.brokers.assign(*set, &name, topics);
                let (commands, reloads) = (running.commands.clone(), self.reloads.clone());
                tokio::spawn(async move {
                    let (answer, answered) = oneshot::channel();
                    let _ = commands.send(TunnelCommand::Reload(reload, answer)).await;
                    let outcome = answered.await;
                    let taken = matches!(outcome, Ok(Ok(_)));
                    let step = ReloadStep::Done(taken.then_some(next));
                    let _ = reloads.send(Reloading { name, number, step }).await;
                    let _ = reply.send(match outcome {
                        Ok(Ok(changes)) => Ok(ReloadDone { changes, notes }),
                        Ok(Err(error)) => Err(tunnel_failure(&error)),
                        Err(_) => Err(gone()),
                    });
                });
            }
            ReloadStep::Done(next) => {
                running.reloading = false;
                if let Some(next) = next {
                    running.outline = Arc::new(next);
                }
                self.brokers.assign(*set, &name, running.outline.topics());
            }
        }
    }
}

/// Reads a configuration again and compares it.
struct ReloadTask {
    name: TunnelName,
    number: u64,
    origin: Origin,
    outline: Arc<Outline>,
    quotes: bool,
    reloads: mpsc::Sender<Reloading>,
}

impl ReloadTask {
    async fn run(self, directory: ConfigDir, reply: Reply<ReloadDone>) {
        let Self { name, number, origin, outline, quotes, reloads } = self;
        let label = name.clone();
        let compared = tokio::task::spawn_blocking(move || {
            let file = ConfigFile::again(&directory, &origin)?;
            file.refuse()?;
            file.warn();
            let mut notes = file.notes();
            notes.extend(outline.later(&file.parsed.config));
            let (reload, next) = outline.compare(&label, file.parsed.config)?;
            Ok::<_, StartError>((Box::new(reload), next, notes))
        })
        .await
        .unwrap_or(Err(StartError::Panicked));
        let step = match compared {
            Ok((reload, next, notes)) => ReloadStep::Compared { reload, next, notes, reply },
            Err(error) => {
                error!("the tunnel {name} was not reloaded: {error}");
                let _ = reply.send(Err(failure(&error, quotes)));
                ReloadStep::Done(None)
            }
        };
        let _ = reloads.send(Reloading { name, number, step }).await;
    }
}

fn gone() -> ControlFailure {
    ControlFailure::StartFailed("the tunnel went down meanwhile".to_owned())
}
