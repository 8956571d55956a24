//! `qanahctl reload NAME`: applies a changed configuration file.

use qanah_core::config::{TunnelName, TunnelNameError};
use qanah_proto::v1::{ReloadRequest, ReloadResponse};

use crate::client::{LONG_PATIENCE, Sockets, ask};
use crate::find;
use crate::output::Outcome;
use crate::text::escape;

/// The arguments of `reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tunnel; may be the instance of a systemd unit (%i)
    #[arg(value_parser = name)]
    name: String,
}

/// A name with a backslash is none, so it can only be that of a unit. Others are the daemon's to judge.
fn name(text: &str) -> Result<String, TunnelNameError> {
    match text.contains('\\') {
        true => TunnelName::from_instance(text).map(|name| name.to_string()),
        false => Ok(text.to_owned()),
    }
}

/// Has the daemon read the file again, and says what it changed.
pub(crate) async fn run(args: &Args, sockets: &Sockets) -> Outcome {
    let found = match find::tunnel(sockets, Some(&args.name)).await {
        Ok(found) => found,
        Err(troubles) => return troubles.into(),
    };
    let tunnel = args.name.clone();
    let answer = ask(&found.socket, LONG_PATIENCE, move |mut daemon| {
        let request = ReloadRequest { tunnel: tunnel.clone() };
        async move { daemon.reload(request).await.map(tonic::Response::into_inner) }
    });
    match answer.await {
        Ok(ReloadResponse { changes, notes }) => {
            Outcome::text(text(&args.name, &changes)).noting(notes)
        }
        Err(failed) => failed.trouble.into(),
    }
}

fn text(name: &str, changes: &[String]) -> String {
    let name = escape(name);
    if changes.is_empty() {
        return format!("{name}: nothing has changed\n");
    }
    let lines: String = changes.iter().map(|change| format!("  {}\n", escape(change))).collect();
    format!("{name} is reloaded:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_units_are_understood() {
        assert_eq!(name("home-lab").unwrap(), "home-lab");
        assert_eq!(name("a\\x2bb").unwrap(), "a+b");
        assert!(name("\\x2e\\x2e").is_err());
    }
}
