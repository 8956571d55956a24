//! `qanahctl watch [NAME]`: the state, again after each change.
//!
//! On a terminal the screen is redrawn in place, with ages that go on between the changes. Into a
//! pipe or a file, and with `--json`, each change is one line: the object of `status --json`, not
//! indented, with the state of all tunnels that are watched. `errors` names daemons that went away.
//!
//! Ends with exit code 0 at SIGINT and SIGTERM and when nobody reads any more, and with 4 when the
//! last daemon has gone away.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qanah_proto::connect;
use qanah_proto::exit::Exit;
use qanah_proto::v1::{StatusResponse, WatchRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Code, Status};

use super::watch_view::{Lines, Screen, View};
use crate::client::{PATIENCE, Sockets, Trouble, refused, unconnected};
use crate::find::{self, Found};
use crate::output::{Outcome, Style, error};

/// How often the ages on a screen are counted up, and it is seen whether somebody still reads.
const TICK: Duration = Duration::from_secs(1);

/// The arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this tunnel
    name: Option<String>,

    /// For programs: one JSON object a line for each change, also on a terminal
    #[arg(long)]
    json: bool,
}

/// What one daemon has told, and when.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// The tunnels; none until it has spoken.
    pub(crate) tunnels: Vec<Found>,
    /// When it told this.
    pub(crate) at: Instant,
    /// Why it tells nothing any more.
    pub(crate) gone: Option<Trouble>,
}

/// Something that a daemon did: it told its state, or it is gone.
type Event = (usize, Result<StatusResponse, Trouble>);

/// Watches until there is nothing to watch, or nobody who does.
pub(crate) async fn run(args: &Args, sockets: &Sockets, style: Style) -> Outcome {
    let paths = match &args.name {
        Some(name) => find::tunnel(sockets, Some(name)).await.map(|found| vec![found.socket]),
        None => sockets.find().map_err(|trouble| vec![trouble]),
    };
    let paths = match paths {
        Ok(paths) => paths,
        Err(troubles) => return troubles.into(),
    };
    let view: Box<dyn View> = if io::stdout().is_terminal() && !args.json {
        Box::new(Screen::open(style))
    } else {
        Box::new(Lines)
    };
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => {
            follow(paths, args.name.as_deref(), view, [interrupt, terminate]).await
        }
        (Err(error), _) | (_, Err(error)) => {
            Trouble::new(Exit::Failed, format!("cannot wait for signals: {error}")).into()
        }
    }
}

async fn follow(
    paths: Vec<PathBuf>,
    name: Option<&str>,
    mut view: Box<dyn View>,
    [mut interrupt, mut terminate]: [Signal; 2],
) -> Outcome {
    let (sender, mut events) = mpsc::channel(paths.len());
    let mut told = Vec::new();
    for (index, socket) in paths.into_iter().enumerate() {
        tokio::spawn(listen(index, socket.clone(), name.map(str::to_owned), sender.clone()));
        told.push(Told { socket, tunnels: Vec::new(), at: Instant::now(), gone: None });
    }
    drop(sender);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcome = Outcome::default();
    loop {
        let shown = tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    take(&mut told, event, &mut outcome, view.is_lines());
                    view.change(&told)
                }
                None => break,
            },
            _ = ticks.tick() => view.tick(&told),
            _ = interrupt.recv() => return Outcome::default(),
            _ = terminate.recv() => return Outcome::default(),
        };
        match shown {
            Ok(()) => {}
            // Who closed the pipe has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Outcome::default(),
            Err(error) => {
                let message = format!("cannot write: {error}");
                outcome.troubles.push(Trouble::new(Exit::Failed, message));
                break;
            }
        }
    }
    drop(view);
    outcome
}

/// Notes what a daemon did. Between lines, that one is gone is said at once, for others may go on.
fn take(told: &mut [Told], (index, event): Event, outcome: &mut Outcome, lines: bool) {
    let Some(daemon) = told.get_mut(index) else {
        return;
    };
    daemon.at = Instant::now();
    match event {
        Ok(StatusResponse { version, tunnels }) => {
            let socket = &daemon.socket;
            let found = |tunnel| Found { socket: socket.clone(), version: version.clone(), tunnel };
            daemon.tunnels = tunnels.into_iter().map(found).collect();
        }
        Err(trouble) => {
            daemon.tunnels.clear();
            daemon.gone = Some(trouble.clone());
            if lines {
                outcome.exit = outcome.exit.worst(trouble.exit);
                error(&trouble.message, trouble.hint.as_deref());
            } else {
                outcome.troubles.push(trouble);
            }
        }
    }
}

/// Passes on what one daemon tells, until it is gone.
async fn listen(index: usize, socket: PathBuf, name: Option<String>, sender: mpsc::Sender<Event>) {
    let ended = stream(index, &socket, name, &sender).await;
    // Without a receiver the command is ending.
    let _ = sender.send((index, Err(ended))).await;
}

/// Gives why it has ended.
async fn stream(
    index: usize,
    socket: &Path,
    tunnel: Option<String>,
    sender: &mpsc::Sender<Event>,
) -> Trouble {
    let begin = async {
        let mut daemon = connect(socket).await.map_err(|error| unconnected(&error))?;
        daemon.watch(WatchRequest { tunnel }).await.map_err(|status| refused(socket, &status))
    };
    let mut changes = match timeout(PATIENCE, begin).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(trouble)) => return trouble,
        Err(_) => return crate::client::silent(socket, PATIENCE),
    };
    loop {
        match changes.message().await {
            Ok(Some(change)) => {
                let status = change.status.unwrap_or_default();
                if sender.send((index, Ok(status))).await.is_err() {
                    return gone(socket);
                }
            }
            Ok(None) => return gone(socket),
            Err(status) => return ended(socket, &status),
        }
    }
}

/// A stream that breaks means that the daemon is gone; what it says itself is passed on.
fn ended(socket: &Path, status: &Status) -> Trouble {
    use std::error::Error as _;
    if status.source().is_some() || status.code() == Code::Unavailable {
        return gone(socket);
    }
    refused(socket, status)
}

fn gone(socket: &Path) -> Trouble {
    Trouble::new(Exit::Down, format!("the daemon behind {} has gone away", socket.display()))
        .hint("why: journalctl -t qanahd")
}
