//! What is done with tunnels, and what becomes of two wishes for the same one.
//!
//! | asked | no tunnel | coming up | up | going down |
//! |---|---|---|---|---|
//! | up | it comes up | refused | refused | refused: try again |
//! | down | unknown | the start is broken off and undone | it goes down | waits with the first |
//! | reload | unknown | refused: try again | one at a time | refused: try again |
//!
//! A client that goes away changes nothing of what it has asked for.

use std::sync::Arc;
use std::time::Instant;

use qanah_core::config::TunnelName;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::brokers::{Brokers, SetId};
use super::failure::failure;
use super::keeper::{self, End, Given, Job, Report, Reports, StartError, Started};
use super::{Daemon, Reply, status, tell};
use crate::args::ServerArgs;
use crate::config_file::Origin;
use crate::control::{ControlFailure, Source, UpCall, UpDone};
use crate::exit::Failure;
use crate::platform::hooks;
use crate::rtc::Health;
use crate::servers::Servers;
use crate::tunnel::{Command as TunnelCommand, Outline, Setup, TunnelError};

/// Tunnels of one daemon. Each has a thread and a network interface.
const MAX_TUNNELS: usize = 256;
/// Clients that may wait for the same tunnel to go down.
const MAX_WAITING: usize = 32;

/// One tunnel, as the daemon knows it.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) set: SetId,
    /// What is known of its STUN and TURN servers.
    health: Health,
    pub(super) phase: Phase,
    /// Dropped or used: the tunnel is to end.
    stop: Option<oneshot::Sender<()>>,
    /// From the start of its thread on.
    pub(super) running: Option<Running>,
    /// Who waits for it to come up, and whether they may see what its configuration says.
    up: Option<(Reply<UpDone>, bool)>,
    /// Who waits for it to go down.
    down: Vec<Reply<Vec<String>>>,
    /// Brought up again by a daemon that is restarted.
    lasting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    ComingUp,
    Up,
    GoingDown,
}

pub(super) struct Running {
    pub(super) commands: mpsc::Sender<TunnelCommand>,
    pub(super) outline: Arc<Outline>,
    pub(super) origin: Origin,
    notes: Vec<String>,
    pub(super) reloading: bool,
}

impl Entry {
    /// The tunnel's queue of commands, from the moment when there is one.
    pub(super) fn commands(&self) -> Option<&mpsc::Sender<TunnelCommand>> {
        self.running.as_ref().map(|running| &running.commands)
    }

    /// The same for a tunnel that is up, with its place in the order of tunnels.
    pub(super) fn when_up(&self) -> Option<(u64, &mpsc::Sender<TunnelCommand>)> {
        self.commands().filter(|_| self.phase == Phase::Up).map(|commands| (self.number, commands))
    }

    /// What the daemon knows of the tunnel's brokers and servers.
    pub(super) fn shared(&self, brokers: &Brokers) -> status::Shared {
        let (brokers, drops) = brokers.report(self.set);
        (brokers, drops, self.health.report(Instant::now()))
    }

    /// Has the tunnel end.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::GoingDown;
        self.stop = None;
    }
}

impl Daemon {
    /// Begins to bring a tunnel up.
    ///
    /// # Errors
    /// What is wrong with the servers, or keeps the daemon from connecting to brokers.
    pub(super) fn start(
        &mut self,
        name: TunnelName,
        given: Given,
        servers: &ServerArgs,
        lasting: bool,
        up: Option<(Reply<UpDone>, bool)>,
    ) -> Result<(), ControlFailure> {
        let answer = |up: Option<(Reply<UpDone>, bool)>, failure: ControlFailure| {
            if let Some((reply, _)) = up {
                let _ = reply.send(Err(failure.clone()));
            }
            Err(failure)
        };
        let servers = match Servers::parse(servers) {
            Ok(servers) => servers,
            Err(error) => return answer(up, ControlFailure::BadOption(error.to_string())),
        };
        if servers.mqtt.brokers.is_empty() {
            info!("no broker is used by {name}: its peers are paired by hand");
        }
        let (set, signaling) = match self.brokers.acquire(&servers.mqtt, lasting) {
            Ok(acquired) => acquired,
            Err(error) => return answer(up, ControlFailure::StartFailed(error.to_string())),
        };
        let named = matches!(given, Given::Source(Source::Name(_)));
        let number = self.next;
        self.next += 1;
        let (stop, stopped) = oneshot::channel();
        let reports = Reports { name: name.clone(), number, sender: self.reports.clone() };
        let rtc = servers.rtc();
        let health = rtc.health.clone();
        let setup = Setup {
            rtc,
            interfaces: servers.interfaces,
            signaling,
            changes: self.changes.clone(),
            limits: hooks::Limits::DEFAULT,
        };
        keeper::keep(Job {
            name: name.clone(),
            given,
            directory: self.directory.clone(),
            setup,
            behaviour: servers.behaviour,
            stop: stopped,
            reports,
        });
        let entry = Entry {
            number,
            set,
            health,
            phase: Phase::ComingUp,
            stop: Some(stop),
            running: None,
            up,
            down: Vec::new(),
            lasting: lasting && named,
        };
        self.tunnels.insert(name, entry);
        Ok(())
    }

    pub(super) fn up(&mut self, call: UpCall, reply: Reply<UpDone>) {
        let name = call.source.name().clone();
        if let Err(failure) = self.may_come_up(&name) {
            let _ = reply.send(Err(failure));
            return;
        }
        let lasting = call.options.is_none();
        let servers = match call.options {
            None => self.servers.clone(),
            Some(options) => options.over(&self.servers),
        };
        // Its error was sent to whoever asked.
        let _ = self.start(
            name,
            Given::Source(call.source),
            &servers,
            lasting,
            Some((reply, call.quotes)),
        );
    }

    fn may_come_up(&self, name: &TunnelName) -> Result<(), ControlFailure> {
        if self.stopping {
            return Err(ControlFailure::Stopping);
        }
        if let Some(only) = &self.only
            && only != name
        {
            return Err(ControlFailure::OneTunnel(format!(
                "this daemon was started for the tunnel {only} only; ask the one that serves many \
                 (systemctl start qanahd)"
            )));
        }
        let text = name.to_string();
        match self.tunnels.get(name).map(|entry| entry.phase) {
            Some(Phase::Up) => Err(ControlFailure::AlreadyUp { name: text, coming: false }),
            Some(Phase::ComingUp) => Err(ControlFailure::AlreadyUp { name: text, coming: true }),
            Some(Phase::GoingDown) => Err(going_down(name)),
            None if self.tunnels.len() >= MAX_TUNNELS => Err(ControlFailure::TooMuch(format!(
                "{MAX_TUNNELS} tunnels are as many as there can be"
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn down(&mut self, name: &TunnelName, reply: Reply<Vec<String>>) {
        let refused = match (&self.only, self.tunnels.get_mut(name)) {
            (_, None) => self.unknown(name.as_str()),
            (Some(_), Some(_)) => ControlFailure::OneTunnel(format!(
                "{name} is the tunnel of a service of its own, which ends with it: \
                 systemctl stop qanahd@{name}"
            )),
            (None, Some(entry)) if entry.down.len() >= MAX_WAITING => ControlFailure::Busy,
            (None, Some(entry)) => {
                entry.down.push(reply);
                entry.stop();
                return self.wanted.remove(name);
            }
        };
        let _ = reply.send(Err(refused));
    }

    pub(super) fn find(&self, name: &str) -> Result<mpsc::Sender<TunnelCommand>, ControlFailure> {
        let found = self.tunnels.iter().find(|(tunnel, _)| tunnel.as_str() == name);
        let up = found.and_then(|(_, entry)| entry.when_up());
        up.map(|(_, commands)| commands.clone()).ok_or_else(|| self.unknown(name))
    }

    pub(super) fn unknown(&self, name: &str) -> ControlFailure {
        let known = self.tunnels.keys().map(|name| name.as_str().to_owned()).collect();
        ControlFailure::UnknownTunnel { name: name.to_owned(), known }
    }

    /// A keeper reports.
    pub(super) fn report(&mut self, name: &TunnelName, number: u64, report: Report) {
        // Of another tunnel that had this name.
        let Some(entry) = self.tunnels.get_mut(name).filter(|entry| entry.number == number) else {
            return;
        };
        match report {
            Report::Started(Started { commands, outline, origin, notes }) => {
                let outline = Arc::new(outline);
                self.brokers.assign(entry.set, name, outline.topics());
                if self.brokers.is_connected(entry.set) {
                    tell(&commands, TunnelCommand::BrokersChanged);
                }
                entry.running =
                    Some(Running { commands, outline, origin, notes, reloading: false });
            }
            Report::Up => {
                if entry.phase == Phase::ComingUp {
                    entry.phase = Phase::Up;
                }
                let notes = entry.running.as_ref().map(|running| running.notes.clone());
                let (up, commands) = (entry.up.take(), entry.commands().cloned());
                let shared = entry.shared(&self.brokers);
                if entry.lasting && entry.phase == Phase::Up {
                    self.wanted.add(name);
                }
                self.awaited.remove(name);
                self.changes.tell();
                if let (Some((reply, _)), Some(commands)) = (up, commands) {
                    let notes = notes.unwrap_or_default();
                    tokio::spawn(async move {
                        let tunnel = status::of_one(commands, shared).await;
                        let _ = reply.send(tunnel.map(|tunnel| UpDone { tunnel, notes }));
                    });
                }
            }
            Report::Ended(end) => self.ended(name, end),
        }
    }

    fn ended(&mut self, name: &TunnelName, end: End) {
        let Some(entry) = self.tunnels.remove(name) else {
            return;
        };
        self.brokers.release(entry.set, name);
        self.awaited.remove(name);
        self.changes.tell();
        let notes = match end {
            End::NotStarted(error) => {
                if !matches!(error, StartError::Cancelled) {
                    error!("the tunnel {name} did not come up: {error}");
                }
                if let Some((reply, quotes)) = entry.up {
                    let _ = reply.send(Err(failure(&error, quotes)));
                }
                let exit = error.exit();
                self.only_ended(name, Failure { exit, error: error.into() });
                Vec::new()
            }
            End::ByItself(ended) => {
                let error = ended.outcome.err().unwrap_or(TunnelError::Panicked);
                error!("the tunnel {name} has ended: {error}");
                self.only_ended(name, Failure::from(error));
                ended.notes
            }
            End::Stopped(ended) => {
                let problem = ended.outcome.err().map(|error| error.to_string());
                let notes: Vec<String> = problem.into_iter().chain(ended.notes).collect();
                for note in &notes {
                    warn!("the tunnel {name} was not taken down cleanly: {note}");
                }
                notes
            }
        };
        for reply in entry.down {
            let _ = reply.send(Ok(notes.clone()));
        }
    }

    /// The daemon of one tunnel ends with it.
    fn only_ended(&mut self, name: &TunnelName, failure: Failure) {
        if self.only.as_ref() == Some(name) {
            self.failed = Some(failure);
        }
    }
}

pub(super) fn going_down(name: &TunnelName) -> ControlFailure {
    ControlFailure::TooMuch(format!("{name} is being taken down; try again"))
}
