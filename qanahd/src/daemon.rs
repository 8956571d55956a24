//! The control-plane actor: commands in, tunnels owned, nothing else.
//!
//! It never waits for a tunnel: what takes time is handed to a task that tells it the outcome. Two
//! commands for one tunnel are settled by what the tunnel is doing when they come (see
//! [`tunnels`]).

mod brokers;
mod failure;
mod handle;
mod keeper;
mod manager;
mod pulse;
mod reload;
mod status;
#[cfg(test)]
mod tests;
mod tunnels;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use qanah_core::config::TunnelName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use self::brokers::{Brokers, SetId};
use self::handle::Handle;
use self::keeper::{Given, Report};
use self::tunnels::Entry;
use self::wanted::Wanted;
use crate::args::ServerArgs;
use crate::config_file::ConfigFile;
use crate::control::{self, ControlFailure, Limits, Source, report::StatusReport};
use crate::exit::Failure;
use crate::mqtt;
use crate::platform::config_dir::ConfigDir;
use crate::platform::privileges::Needs;
use crate::tunnel::{Changes, Command as TunnelCommand};

/// Commands and events that may wait for the daemon.
const QUEUE: usize = 512;

/// What a daemon is to do.
pub(crate) struct Settings {
    /// The only tunnel, of which the daemon lives and dies with; without it there may be many.
    pub(crate) only: Option<ConfigFile>,
    /// Tunnels to bring up at start.
    pub(crate) up: Vec<TunnelName>,
    /// The servers of a tunnel that is not given others.
    pub(crate) servers: ServerArgs,
    /// The control socket, if not the usual one.
    pub(crate) socket: Option<PathBuf>,
    /// Where configurations are.
    pub(crate) directory: ConfigDir,
    /// Where to remember what clients brought up, if anywhere.
    pub(crate) memory: Option<PathBuf>,
    /// Privileges to keep when the control socket is there; `None` keeps all.
    pub(crate) needs: Option<Needs>,
}

/// An answer that somebody waits for, perhaps no longer.
type Reply<T> = oneshot::Sender<Result<T, ControlFailure>>;

/// What the control socket asks of the daemon.
enum Command {
    Status {
        name: Option<String>,
        reply: Reply<StatusReport>,
    },
    Up {
        call: control::UpCall,
        reply: Reply<control::UpDone>,
    },
    Down {
        name: TunnelName,
        reply: Reply<Vec<String>>,
    },
    Reload {
        name: TunnelName,
        quotes: bool,
        reply: Reply<control::ReloadDone>,
    },
    /// The way to a tunnel that is up.
    Find {
        name: String,
        reply: Reply<mpsc::Sender<TunnelCommand>>,
    },
    /// The service manager asks for all tunnels that have a file.
    ReloadAll,
    /// Does everything move? The names of tunnels that do not.
    Pulse(oneshot::Sender<Vec<String>>),
}

/// Owns the tunnels and the connections to brokers.
pub(crate) struct Daemon {
    tunnels: BTreeMap<TunnelName, Entry>,
    brokers: Brokers,
    servers: ServerArgs,
    directory: ConfigDir,
    /// The only tunnel, if there may be one only.
    only: Option<TunnelName>,
    /// Tunnels that are to be up, or have failed, before the daemon says that it is ready.
    awaited: BTreeSet<TunnelName>,
    /// It has said so.
    said_ready: bool,
    /// The daemon ends; nothing new is begun.
    stopping: bool,
    /// Tunnels that are taking on another configuration.
    reloads_running: usize,
    /// What clients brought up.
    wanted: Wanted,
    /// Why the daemon ends by itself.
    failed: Option<Failure>,
    /// Numbers tunnels in the order in which they were asked for.
    next: u64,
    changes: Changes,
    reports: mpsc::Sender<(TunnelName, u64, Report)>,
    reloads: mpsc::Sender<reload::Reloading>,
}

/// What comes in beside the reports of keepers.
struct Inputs {
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<(SetId, mqtt::Event)>,
    reports: mpsc::Receiver<(TunnelName, u64, Report)>,
    reloads: mpsc::Receiver<reload::Reloading>,
}

/// An input that is not a tunnel's.
enum Outside {
    Broker((SetId, mqtt::Event)),
    Client(Command),
}

impl Daemon {
    /// Serves tunnels and the control socket until a signal ends it.
    ///
    /// # Errors
    /// What kept it from starting, or made its only tunnel end. Everything is undone by then.
    pub(crate) async fn run(settings: Settings) -> Result<(), Failure> {
        // Before anything else: a signal during the start must find somebody who listens.
        let mut quit = Quit::new()?;
        let only = settings.only.as_ref().map(|file| file.name.clone());
        let path = settings.socket.unwrap_or_else(|| match &only {
            Some(name) => qanah_proto::socket::tunnel_socket(name.as_str()),
            None => qanah_proto::socket::default_socket(),
        });
        let socket = control::bind(&path, control::control_group())?;
        if let Some(needs) = settings.needs {
            needs.keep();
        }
        let (events, event_inputs) = mpsc::channel(QUEUE);
        let (commands, command_inputs) = mpsc::channel(QUEUE);
        let (reports, report_inputs) = mpsc::channel(QUEUE);
        let (reloads, reload_inputs) = mpsc::channel(QUEUE);
        let mut daemon = Self {
            tunnels: BTreeMap::new(),
            brokers: Brokers::new(events),
            servers: settings.servers,
            directory: settings.directory.clone(),
            only,
            awaited: BTreeSet::new(),
            said_ready: false,
            stopping: false,
            reloads_running: 0,
            wanted: Wanted::read(settings.memory.as_deref()),
            failed: None,
            next: 0,
            changes: Changes::default(),
            reports,
            reloads,
        };
        let mut inputs = Inputs {
            commands: command_inputs,
            events: event_inputs,
            reports: report_inputs,
            reloads: reload_inputs,
        };
        let mut names = settings.up;
        names.extend(daemon.wanted.names());
        daemon.start_first(settings.only, names)?;
        daemon.start_helpers(&commands)?;
        let handle = Handle::new(commands, settings.directory, &daemon.changes);
        daemon.serve(socket, handle, &mut inputs, &mut quit).await
    }

    /// Begins to bring up what is to be up from the start.
    fn start_first(
        &mut self,
        only: Option<ConfigFile>,
        names: Vec<TunnelName>,
    ) -> Result<(), Failure> {
        if let Some(file) = only {
            let name = file.name.clone();
            self.awaited.insert(name.clone());
            let servers = self.servers.clone();
            self.start(name, Given::File(Box::new(file)), &servers, true, None)?;
        }
        for name in names {
            if self.tunnels.contains_key(&name) {
                continue;
            }
            self.awaited.insert(name.clone());
            let servers = self.servers.clone();
            let given = Given::Source(Source::Name(name.clone()));
            self.start(name, given, &servers, true, None)?;
        }
        Ok(())
    }

    /// Starts the tasks that speak with the service manager.
    fn start_helpers(&self, commands: &mpsc::Sender<Command>) -> std::io::Result<()> {
        if let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) {
            let feed = || manager::tell(&[sd_notify::NotifyState::Watchdog]);
            tokio::spawn(manager::feed_watchdog(commands.downgrade(), limit, feed));
        }
        tokio::spawn(manager::keep_status(self.changes.clone(), commands.downgrade()));
        let mut hangup = signal(SignalKind::hangup())?;
        let commands = commands.downgrade();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let Some(commands) = commands.upgrade() else {
                    return;
                };
                if commands.send(Command::ReloadAll).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    async fn serve(
        mut self,
        socket: control::ControlSocket,
        handle: Handle,
        inputs: &mut Inputs,
        quit: &mut Quit,
    ) -> Result<(), Failure> {
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async {
            let shutdown = async {
                // An error means that the daemon is gone: a reason to stop as well.
                let _ = stopped.await;
            };
            if let Err(error) = control::serve(socket, handle, Limits::default(), shutdown).await {
                error!("the control socket is not served any more: {error}");
            }
        });
        let outcome = tokio::select! {
            () = quit.wait() => Ok(()),
            failed = self.work(inputs) => Err(failed),
        };
        manager::tell(&[sd_notify::NotifyState::Stopping]);
        drop(stop);
        let taken_down = self.stop(inputs).await;
        if serving.await.is_err() {
            error!("the control server ended unexpectedly");
        }
        outcome.and(taken_down)
    }

    /// Serves brokers, clients and tunnels until the only tunnel ends.
    async fn work(&mut self, inputs: &mut Inputs) -> Failure {
        loop {
            if let Some(failure) = self.failed.take() {
                return failure;
            }
            if self.awaited.is_empty() && !self.said_ready {
                self.said_ready = true;
                manager::tell(&[sd_notify::NotifyState::Ready]);
            }
            self.input(inputs).await;
        }
    }

    /// Takes one input. What has happened to tunnels comes before what somebody wants of them;
    /// brokers and clients take turns, so that neither can keep the other out.
    async fn input(&mut self, inputs: &mut Inputs) {
        let Inputs { commands, events, reports, reloads } = inputs;
        let outside = async {
            tokio::select! {
                Some(event) = events.recv() => Outside::Broker(event),
                Some(command) = commands.recv() => Outside::Client(command),
            }
        };
        tokio::select! {
            biased;
            Some((name, number, report)) = reports.recv() => self.report(&name, number, report),
            Some(reloading) = reloads.recv() => self.reloading(reloading),
            outside = outside => match outside {
                Outside::Broker((set, event)) => self.broker_event(set, event),
                Outside::Client(command) => self.command(command),
            },
        }
    }

    /// Takes all tunnels down at once, and waits for them.
    async fn stop(mut self, inputs: &mut Inputs) -> Result<(), Failure> {
        // A daemon that was told to stop has not failed by what it stops.
        self.only = None;
        self.stopping = true;
        inputs.commands.close();
        for entry in self.tunnels.values_mut() {
            entry.stop();
        }
        while !self.tunnels.is_empty() {
            self.input(inputs).await;
        }
        self.brokers.stop().await;
        self.failed.map_or(Ok(()), Err)
    }

    fn broker_event(&mut self, set: SetId, event: mqtt::Event) {
        match event {
            mqtt::Event::Connected { .. } => {
                self.tell_users(set, || TunnelCommand::BrokersChanged);
                self.changes.tell();
            }
            mqtt::Event::Lost { .. } => {
                if !self.brokers.is_connected(set) {
                    self.tell_users(set, || TunnelCommand::BrokersChanged);
                }
                self.changes.tell();
            }
            mqtt::Event::Message { topic, payload } => {
                for (name, peer) in self.brokers.owners(set, &topic) {
                    if let Some(tunnel) = self.tunnels.get(&name).and_then(Entry::commands) {
                        // One with a full queue is flooded; what matters is said again.
                        let _ = tunnel.try_send(TunnelCommand::Envelope(peer, payload.clone()));
                    }
                }
            }
        }
    }

    fn tell_users(&self, set: SetId, command: impl Fn() -> TunnelCommand) {
        let users = self.tunnels.values().filter(|entry| entry.set == set);
        for commands in users.filter_map(Entry::commands) {
            tell(commands, command());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Status { name, reply } => self.status(name, reply),
            Command::Up { call, reply } => self.up(call, reply),
            Command::Down { name, reply } => self.down(&name, reply),
            Command::Reload { name, quotes, reply } => self.reload(&name, quotes, reply),
            Command::Find { name, reply } => {
                let _ = reply.send(self.find(&name));
            }
            Command::ReloadAll => self.reload_all(),
            Command::Pulse(reply) => self.pulse(reply),
        }
    }
}

/// Tells a tunnel what is not said again, so that it waits for room.
fn tell(commands: &mpsc::Sender<TunnelCommand>, command: TunnelCommand) {
    if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(command) {
        let commands = commands.clone();
        tokio::spawn(async move { commands.send(command).await });
    }
}

/// The signals that end the daemon.
struct Quit {
    terminate: Signal,
    interrupt: Signal,
}

impl Quit {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("told to stop (SIGTERM)"),
            _ = self.interrupt.recv() => info!("told to stop (SIGINT)"),
        }
    }
}
