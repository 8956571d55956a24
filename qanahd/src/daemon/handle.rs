//! Answers the control socket by asking the daemon.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use qanah_core::config::{TunnelName, describe};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::failure::file_failure;
use super::{Command, Reply, keeper, status};
use crate::control::report::StatusReport;
use crate::control::{Backend, CheckDone, ControlFailure, ReloadDone, Source, UpCall, UpDone};
use crate::platform::config_dir::ConfigDir;
use crate::tunnel::pairing::{AnswerMade, OfferMade, PairingError};
use crate::tunnel::{Changes, Command as TunnelCommand};

/// Configurations that are checked at once.
const CHECKS: usize = 4;

/// Answers the control socket by asking the daemon.
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    directory: ConfigDir,
    watchers: Arc<watch::Sender<Arc<StatusReport>>>,
    checks: Arc<Semaphore>,
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        directory: ConfigDir,
        changes: &Changes,
    ) -> Self {
        let watchers = Arc::new(watch::Sender::new(Arc::default()));
        let publish = status::publish(changes.clone(), commands.downgrade(), Arc::clone(&watchers));
        tokio::spawn(publish);
        Self { commands, directory, watchers, checks: Arc::new(Semaphore::new(CHECKS)) }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ControlFailure> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlFailure::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlFailure::Stopping,
        })?;
        answer.await.map_err(|_| ControlFailure::Stopping)?
    }

    /// Asks a tunnel about pairing by hand.
    async fn ask_tunnel<T>(
        &self,
        name: String,
        command: impl FnOnce(oneshot::Sender<Result<T, PairingError>>) -> TunnelCommand,
    ) -> Result<T, ControlFailure> {
        let tunnel = self.ask(|reply| Command::Find { name, reply }).await?;
        let (reply, answer) = oneshot::channel();
        tunnel.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlFailure::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlFailure::Stopping,
        })?;
        Ok(answer.await.map_err(|_| ControlFailure::Stopping)??)
    }
}

#[async_trait]
impl Backend for Handle {
    async fn status(&self, name: Option<String>) -> Result<StatusReport, ControlFailure> {
        self.ask(|reply| Command::Status { name, reply }).await
    }

    async fn up(&self, call: UpCall) -> Result<UpDone, ControlFailure> {
        self.ask(|reply| Command::Up { call, reply }).await
    }

    async fn down(&self, name: TunnelName) -> Result<Vec<String>, ControlFailure> {
        self.ask(|reply| Command::Down { name, reply }).await
    }

    async fn reload(&self, name: TunnelName, quotes: bool) -> Result<ReloadDone, ControlFailure> {
        self.ask(|reply| Command::Reload { name, quotes, reply }).await
    }

    async fn check(&self, source: Source, quotes: bool) -> Result<CheckDone, ControlFailure> {
        let permit = Arc::clone(&self.checks).acquire_owned().await;
        let permit = permit.map_err(|_| ControlFailure::Stopping)?;
        let directory = self.directory.clone();
        let checked = tokio::task::spawn_blocking(move || {
            // Held until the work is done, whether or not the client still waits.
            let _permit = permit;
            let file = keeper::open(source, &directory)?;
            let description = describe(&file.name, &file.parsed);
            Ok(CheckDone { description, refusals: file.refusals() })
        });
        let checked = checked.await.map_err(|_| ControlFailure::Internal)?;
        checked.map_err(|error| file_failure(&error, quotes))
    }

    fn watch(&self) -> watch::Receiver<Arc<StatusReport>> {
        self.watchers.subscribe()
    }

    async fn offer(
        &self,
        tunnel: String,
        peer: Option<String>,
        lifetime: Duration,
    ) -> Result<OfferMade, ControlFailure> {
        self.ask_tunnel(tunnel, |reply| TunnelCommand::Offer { peer, lifetime, reply }).await
    }

    async fn answer(&self, tunnel: String, text: String) -> Result<AnswerMade, ControlFailure> {
        self.ask_tunnel(tunnel, |reply| TunnelCommand::Answer { text, reply }).await
    }

    async fn accept(&self, tunnel: String, text: String) -> Result<String, ControlFailure> {
        self.ask_tunnel(tunnel, |reply| TunnelCommand::Accept { text, reply }).await
    }
}
