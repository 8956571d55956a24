//! Which daemon has a tunnel.

use std::path::PathBuf;

use qanah_proto::exit::Exit;
use qanah_proto::socket::DAEMON_SOCKET;
use qanah_proto::v1::{StatusRequest, StatusResponse, Tunnel};
use qanah_proto::{ConnectError, error_detail};

use crate::client::{NoAnswer, Sockets, Trouble, ask_all, unconnected};

/// A tunnel and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The socket of its daemon.
    pub(crate) socket: PathBuf,
    /// The version of its daemon.
    pub(crate) version: String,
    /// Its state.
    pub(crate) tunnel: Tunnel,
}

/// Asks all sockets. With a name, the daemon that has it answers and the others do not matter.
pub(crate) async fn gather(paths: &[PathBuf], name: Option<&str>) -> (Vec<Found>, Vec<Trouble>) {
    let request = StatusRequest { tunnel: name.map(str::to_owned) };
    let answers = ask_all(paths, move |mut daemon| {
        let request = request.clone();
        async move { daemon.status(request).await.map(tonic::Response::into_inner) }
    });
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (path, answer) in answers.await {
        match answer {
            Ok(StatusResponse { version, tunnels }) => {
                found.extend(tunnels.into_iter().map(|tunnel| Found {
                    socket: path.clone(),
                    version: version.clone(),
                    tunnel,
                }));
            }
            Err(error) => failed.push(error),
        }
    }
    let troubles = match name {
        None => failed.into_iter().map(|failed| failed.trouble).collect(),
        Some(_) if !found.is_empty() => Vec::new(),
        Some(name) => not_found(name, failed),
    };
    (found, troubles)
}

/// Why no daemon has the tunnel: one trouble for all that say so, and those of the others.
fn not_found(name: &str, failed: Vec<NoAnswer>) -> Vec<Trouble> {
    let (mut known, mut others, mut asked) = (Vec::new(), Vec::new(), false);
    for failed in failed {
        let detail = failed.status.as_ref().and_then(error_detail);
        match detail.filter(|_| failed.trouble.exit == Exit::Down) {
            Some(detail) => {
                asked = true;
                known.extend(detail.known_tunnels);
            }
            None if others.contains(&failed.trouble) => {}
            None => others.push(failed.trouble),
        }
    }
    if asked {
        known.sort();
        known.dedup();
        let known = match known.as_slice() {
            [] => "no tunnel is up".to_owned(),
            [one] => format!("there is {one}"),
            all => format!("there are {}", all.join(", ")),
        };
        others.insert(0, Trouble::new(Exit::Down, format!("there is no tunnel {name}; {known}")));
    }
    others
}

/// The tunnel of that name, or the only one that there is.
///
/// # Errors
/// What to tell the user: never an empty list.
pub(crate) async fn tunnel(sockets: &Sockets, name: Option<&str>) -> Result<Found, Vec<Trouble>> {
    let paths = sockets.find().map_err(|trouble| vec![trouble])?;
    let (mut found, troubles) = gather(&paths, name).await;
    match (found.pop(), found.is_empty(), troubles.is_empty()) {
        (Some(only), true, _) => Ok(only),
        (Some(last), false, _) => {
            found.push(last);
            Err(vec![several(&found, name)])
        }
        (None, _, false) => Err(troubles),
        (None, _, true) => Err(vec![Trouble::new(Exit::Down, "no tunnel is up")]),
    }
}

fn several(found: &[Found], name: Option<&str>) -> Trouble {
    let list =
        |text: &dyn Fn(&Found) -> String| found.iter().map(text).collect::<Vec<_>>().join(", ");
    match name {
        None => {
            let names = list(&|found| found.tunnel.name.clone());
            Trouble::new(Exit::Usage, format!("there are several tunnels: {names}"))
                .hint("say which one: --tunnel NAME")
        }
        Some(name) => {
            let sockets = list(&|found| found.socket.display().to_string());
            Trouble::new(Exit::Usage, format!("several daemons have a tunnel {name}: {sockets}"))
                .hint("say which one: --socket PATH")
        }
    }
}

/// The daemon that serves many tunnels, for one that is not up yet.
///
/// # Errors
/// When it does not run: then what does, and what to do.
pub(crate) async fn daemon_of_many(sockets: &Sockets, name: &str) -> Result<PathBuf, Vec<Trouble>> {
    let paths = match sockets {
        Sockets::One(path) => return Ok(path.clone()),
        Sockets::All(_) => sockets.find().map_err(|trouble| vec![starting(trouble)])?,
    };
    if let [first, ..] = paths.as_slice()
        && first.file_name().is_some_and(|file| file == DAEMON_SOCKET)
    {
        return Ok(first.clone());
    }
    let (found, _) = gather(&paths, None).await;
    let mut names: Vec<_> = found.into_iter().map(|found| found.tunnel.name).collect();
    names.sort();
    if names.iter().any(|up| up == name) {
        let trouble = Trouble::new(Exit::Failed, format!("the tunnel {name} is up already"))
            .hint(format!("it has a daemon of its own: systemctl restart qanahd@{name}"));
        return Err(vec![trouble]);
    }
    let only = match names.as_slice() {
        [] => String::new(),
        names => format!(", only daemons of one tunnel each: {}", names.join(", ")),
    };
    let message = format!("no daemon that serves several tunnels is running{only}");
    Err(vec![Trouble::new(Exit::Down, message).hint(start_hint(name))])
}

/// The advice for a tunnel that has no daemon, with its name in it.
fn start_hint(name: &str) -> String {
    format!(
        "start one:                   systemctl start qanahd\n\
         or one for this tunnel only: systemctl start qanahd@{name}"
    )
}

/// Advises the daemon that `up` needs rather than any.
fn starting(trouble: Trouble) -> Trouble {
    if trouble.exit == Exit::Down {
        let hint = "start it: systemctl start qanahd";
        return trouble.hint(hint);
    }
    trouble
}

/// A daemon to ask about a file of /etc/qanah: whichever there is.
///
/// # Errors
/// When none runs.
pub(crate) fn any_daemon(sockets: &Sockets, name: &str) -> Result<PathBuf, Trouble> {
    let paths = sockets.find()?;
    let own = paths.iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
    let many = paths.first().filter(|path| path.file_name().is_some_and(|f| f == DAEMON_SOCKET));
    many.or(own)
        .or(paths.first())
        .cloned()
        .ok_or_else(|| unconnected(&ConnectError::NoSocket(qanah_proto::socket::default_socket())))
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
