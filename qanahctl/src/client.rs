//! Finding daemons, asking them, and saying in words what went wrong.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qanah_proto::exit::Exit;
use qanah_proto::socket::{GROUP, RUN_DIR, list_sockets};
use qanah_proto::v1::Reason;
use qanah_proto::{ConnectError, Connection, connect, error_detail};
use tonic::{Code, Status};

/// How long a daemon may take for an answer that only needs looking.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a daemon may take to bring a tunnel up or down: hooks may be slow, and the daemon has
/// limits of its own for them. This one only keeps a script from hanging for ever.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(600);

pub(crate) const START_HINT: &str = "start one:        systemctl start qanahd@NAME   (for /etc/qanah/NAME.conf)\n\
                          or in a terminal: sudo qanahd --config FILE";
const LOG_HINT: &str = "its log may say more: journalctl -t qanahd";

/// Which daemons are asked.
#[derive(Debug, Clone)]
pub(crate) enum Sockets {
    /// The one behind this socket.
    One(PathBuf),
    /// All that have a socket in this directory.
    All(PathBuf),
}

/// Something that went wrong: what, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The exit code that belongs to it.
    pub(crate) exit: Exit,
    /// What failed and why. May contain text from elsewhere: escape before printing.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Trouble {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// With this advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Sockets {
    /// Where daemons are unless somebody says otherwise.
    pub(crate) fn standard() -> Self {
        Self::All(RUN_DIR.into())
    }

    /// The sockets to ask; never an empty list.
    pub(crate) fn find(&self) -> Result<Vec<PathBuf>, Trouble> {
        let dir = match self {
            Self::One(path) => return Ok(vec![path.clone()]),
            Self::All(dir) => dir,
        };
        match list_sockets(dir) {
            Ok(sockets) if sockets.is_empty() => {
                let message = format!(
                    "no daemon is running: there is no control socket in {}",
                    dir.display()
                );
                Err(Trouble::new(Exit::Down, message).hint(START_HINT))
            }
            Ok(sockets) => Ok(sockets),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(denied(dir)),
            Err(error) => {
                let message = format!("cannot look for daemons in {}: {error}", dir.display());
                Err(Trouble::new(Exit::Failed, message))
            }
        }
    }
}

pub(crate) fn denied(path: &Path) -> Trouble {
    let hint = format!(
        "members of the group {GROUP} may do this: sudo usermod -aG {GROUP} USER, then log in again\n\
         or do it as root, with sudo"
    );
    Trouble::new(Exit::Denied, format!("permission denied for {}", path.display())).hint(hint)
}

/// The tunnel's name that a socket `NAME.sock` belongs to.
fn tunnel_of(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str().filter(|stem| *stem != "qanahd")
}

pub(crate) fn unconnected(error: &ConnectError) -> Trouble {
    let message = error.to_string();
    match error {
        ConnectError::Denied(path) => denied(path),
        ConnectError::NoSocket(_) => Trouble::new(Exit::Down, message).hint(START_HINT),
        ConnectError::Stale(path) => {
            let unit = tunnel_of(path).map_or("qanahd".into(), |name| format!("qanahd@{name}"));
            let hint = format!("why: journalctl -u {unit}\nstart it again: systemctl start {unit}");
            Trouble::new(Exit::Down, message).hint(hint)
        }
        ConnectError::Busy(_) | ConnectError::Other { .. } => {
            Trouble::new(Exit::Failed, message).hint(LOG_HINT)
        }
    }
}

/// What a typed reason says beyond the code: the exit code and the advice.
fn by_reason(reason: Reason) -> Option<(Exit, Option<&'static str>)> {
    let known = match reason {
        Reason::AlreadyUp => (
            Exit::Failed,
            Some(
                "to apply a changed file: qanahctl reload NAME\nto start it anew:        qanahctl down NAME, then up",
            ),
        ),
        Reason::BadConfig | Reason::ConfigFile => (Exit::BadConfig, None),
        Reason::HookFailed => {
            (Exit::Failed, Some("what it printed is in the log: journalctl -t qanahd"))
        }
        Reason::StartFailed => (Exit::Failed, Some(LOG_HINT)),
        Reason::UnknownPeer | Reason::BadOption | Reason::InvalidName => (Exit::Usage, None),
        Reason::BadText | Reason::OneTunnel => (Exit::Failed, None),
        Reason::RootOnly => (Exit::Denied, Some("do it as root, with sudo")),
        Reason::Busy => (Exit::Failed, None),
        Reason::Stopping => (Exit::Down, None),
        _ => return None,
    };
    Some(known)
}

/// Says what the failed answer of the daemon behind `path` means.
pub(crate) fn refused(path: &Path, status: &Status) -> Trouble {
    let place = path.display();
    let reason = error_detail(status).map(|detail| detail.reason());
    if let Some((exit, hint)) = reason.and_then(by_reason) {
        let trouble = Trouble::new(exit, status.message());
        return hint.map_or(trouble.clone(), |hint| trouble.hint(hint));
    }
    // Only a status that was made on this side has a source: the connection broke. Its code depends
    // on the moment at which it did (Cancelled, Unknown, Internal ...) and says nothing more.
    if status.source().is_some() {
        let message = format!("the daemon behind {place} closed the connection");
        return Trouble::new(Exit::Failed, message)
            .hint(format!("it may be stopping, or have too many clients; {LOG_HINT}"));
    }
    let said = status.message();
    match status.code() {
        Code::NotFound => Trouble::new(Exit::Down, said),
        Code::InvalidArgument => Trouble::new(Exit::Usage, said),
        Code::PermissionDenied => {
            let message = format!("{said} (says the daemon behind {place})");
            Trouble::new(Exit::Denied, message).hint("do it as root, with sudo")
        }
        Code::Unimplemented => {
            let message = format!("the daemon behind {place} does not know this command: {said}");
            Trouble::new(Exit::Failed, message).hint("it may be older: see qanahctl version")
        }
        // How the daemon's own time limit shows.
        Code::Cancelled | Code::DeadlineExceeded => {
            let message = format!("the daemon behind {place} did not finish in time: {said}");
            Trouble::new(Exit::Failed, message).hint(LOG_HINT)
        }
        _ => Trouble::new(Exit::Failed, format!("the daemon behind {place} says: {said}"))
            .hint(LOG_HINT),
    }
}

pub(crate) fn silent(path: &Path, patience: Duration) -> Trouble {
    let limit = patience.as_secs();
    let message = format!("the daemon behind {} does not answer within {limit} s", path.display());
    Trouble::new(Exit::Failed, message).hint(LOG_HINT)
}

/// An answer that did not come, with the gRPC status if the daemon sent one.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// For the user.
    pub(crate) trouble: Trouble,
    /// For decisions.
    pub(crate) status: Option<Status>,
}

/// Asks the daemons behind all `sockets` at the same time; the answers in the order of the sockets.
///
/// `call` makes one request of a connection.
pub(crate) async fn ask_all<T, F, Fut>(
    sockets: &[PathBuf],
    call: F,
) -> Vec<(PathBuf, Result<T, NoAnswer>)>
where
    T: Send + 'static,
    F: Fn(Connection) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Status>> + Send + 'static,
{
    let tasks: Vec<_> = sockets
        .iter()
        .map(|path| {
            let (path, call) = (path.clone(), call.clone());
            (path.clone(), tokio::spawn(async move { ask(&path, PATIENCE, call).await }))
        })
        .collect();
    let mut answers = Vec::new();
    for (path, task) in tasks {
        let answer = task.await.unwrap_or_else(|error| {
            let trouble = Trouble::new(Exit::Failed, format!("internal fault: {error}"));
            Err(NoAnswer { trouble, status: None })
        });
        answers.push((path, answer));
    }
    answers
}

/// Asks the daemon behind one socket, for at most `patience`.
pub(crate) async fn ask<T, F, Fut>(path: &Path, patience: Duration, call: F) -> Result<T, NoAnswer>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let answer = async {
        let connection = connect(path)
            .await
            .map_err(|error| NoAnswer { trouble: unconnected(&error), status: None })?;
        call(connection)
            .await
            .map_err(|status| NoAnswer { trouble: refused(path, &status), status: Some(status) })
    };
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or_else(|_| Err(NoAnswer { trouble: silent(path, patience), status: None }))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
