//! The task that keeps one tunnel: reads its configuration, starts it, waits for its end.
//!
//! It tells the daemon what happens and is told by it when to stop. So the daemon never waits.

use qanah_core::config::TunnelName;
use tokio::sync::{mpsc, oneshot};

use crate::config_file::{ConfigFile, ConfigFileError, Origin};
use crate::control::Source;
use crate::exit::Exit;
use crate::platform::config_dir::ConfigDir;
use crate::tunnel::{Behaviour, Command, Ended, Outline, Prepared, Setup, Tunnel, TunnelError};

/// Where a tunnel's configuration comes from.
pub(super) enum Given {
    /// Read by `main`.
    File(Box<ConfigFile>),
    /// Asked for by a client.
    Source(Source),
}

/// Why a tunnel did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error("it was taken down before it was up")]
    Cancelled,
    #[error("the task that read the configuration ended unexpectedly; please report this as a bug")]
    Panicked,
}

impl StartError {
    /// How the daemon ends that lives for this tunnel.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::File(_) | Self::Tunnel(TunnelError::Key { .. } | TunnelError::Plan(_)) => {
                Exit::BadConfig
            }
            _ => Exit::Failed,
        }
    }
}

/// What the keeper tells the daemon.
pub(super) enum Report {
    /// The tunnel has a thread and takes commands.
    Started(Started),
    /// Its interface can be used.
    Up,
    /// It is no more.
    Ended(End),
}

/// A tunnel that takes commands.
pub(super) struct Started {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) outline: Outline,
    pub(super) origin: Origin,
    /// What the author of its configuration should know.
    pub(super) notes: Vec<String>,
}

/// How it came to its end.
pub(super) enum End {
    /// It never was up.
    NotStarted(StartError),
    /// It was told to.
    Stopped(Ended),
    /// By itself, which it does only in trouble.
    ByItself(Ended),
}

/// What a keeper begins with.
pub(super) struct Job {
    pub(super) name: TunnelName,
    pub(super) given: Given,
    pub(super) directory: ConfigDir,
    pub(super) setup: Setup,
    pub(super) behaviour: Behaviour,
    /// Ends the tunnel; so does dropping its other end.
    pub(super) stop: oneshot::Receiver<()>,
    /// The way to the daemon.
    pub(super) reports: Reports,
}

/// Reports of one tunnel. The number tells it from another one of the same name.
#[derive(Clone)]
pub(super) struct Reports {
    pub(super) name: TunnelName,
    pub(super) number: u64,
    pub(super) sender: mpsc::Sender<(TunnelName, u64, Report)>,
}

impl Reports {
    pub(super) async fn tell(&self, report: Report) {
        // Without a daemon there is nobody to tell.
        let _ = self.sender.send((self.name.clone(), self.number, report)).await;
    }
}

/// Keeps a tunnel from its start to its end.
pub(super) fn keep(job: Job) {
    let reports = job.reports.clone();
    let kept = tokio::spawn(run(job));
    tokio::spawn(async move {
        let end = kept.await.unwrap_or(End::NotStarted(StartError::Panicked));
        reports.tell(Report::Ended(end)).await;
    });
}

async fn run(job: Job) -> End {
    let Job { name, given, directory, setup, behaviour, mut stop, reports } = job;
    // Files may be slow, and keys take time to derive.
    let read = tokio::task::spawn_blocking(move || read(given, name, &directory, behaviour));
    let read = read.await;
    let (prepared, origin, notes) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return End::NotStarted(error),
        Err(_) => return End::NotStarted(StartError::Panicked),
    };
    if !matches!(stop.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        return End::NotStarted(StartError::Cancelled);
    }
    let outline = prepared.outline();
    let mut tunnel = match Tunnel::start(prepared, setup) {
        Ok(tunnel) => tunnel,
        Err(error) => return End::NotStarted(error.into()),
    };
    let commands = tunnel.commands();
    reports.tell(Report::Started(Started { commands, outline, origin, notes })).await;
    let ready = tokio::select! {
        ready = tunnel.ready() => Some(ready),
        _ = &mut stop => None,
    };
    match ready {
        Some(Ok(())) => reports.tell(Report::Up).await,
        Some(Err(ended)) => {
            let error = ended.outcome.err().unwrap_or(TunnelError::Panicked);
            return End::NotStarted(error.into());
        }
        None => {
            tunnel.stop().await;
            return End::NotStarted(StartError::Cancelled);
        }
    }
    let ended = tokio::select! {
        ended = tunnel.ended() => Some(ended),
        _ = &mut stop => None,
    };
    match ended {
        Some(ended) => End::ByItself(ended),
        None => End::Stopped(tunnel.stop().await),
    }
}

type Read = (Prepared, Origin, Vec<String>);

fn read(
    given: Given,
    name: TunnelName,
    directory: &ConfigDir,
    behaviour: Behaviour,
) -> Result<Read, StartError> {
    let file = match given {
        Given::File(file) => *file,
        Given::Source(source) => {
            let file = open(source, directory)?;
            file.warn();
            file
        }
    };
    file.refuse()?;
    let notes = file.notes();
    let prepared = Prepared::new(name, file.parsed.config, behaviour)?;
    Ok((prepared, file.origin, notes))
}

/// Reads what a client asked for.
///
/// # Errors
/// See [`ConfigFileError`].
pub(super) fn open(source: Source, directory: &ConfigDir) -> Result<ConfigFile, ConfigFileError> {
    match source {
        Source::Name(name) => ConfigFile::by_name(directory, name),
        Source::Text { name, text } => ConfigFile::from_text(name, &text),
    }
}
