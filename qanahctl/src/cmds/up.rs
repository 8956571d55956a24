//! `qanahctl up NAME|FILE`: brings a tunnel up.

use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use nix::unistd::geteuid;
use qanah_proto::exit::Exit;
use qanah_proto::v1::config_source::Source as Which;
use qanah_proto::v1::{ConfigSource, ConfigText, Tunnel, UpRequest};

use crate::client::{LONG_PATIENCE, Sockets, Trouble, ask};
use crate::find::daemon_of_many;
use crate::options::OptionArgs;
use crate::output::{Outcome, note};
use crate::source::Source;
use crate::text::escape;
use crate::wait::{self, Waited};

/// How long `--wait` waits unless told otherwise, in seconds.
const WAIT: u64 = 60;

/// The arguments of `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The name of a file in /etc/qanah without its .conf; or, for root, any configuration file:
    /// a path with a `/` in it or `.conf` at its end
    #[arg(value_name = "NAME|FILE")]
    config: String,

    /// Also wait until a peer is connected
    #[arg(long)]
    wait: bool,

    /// How long --wait waits [default: 60]
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u32>,

    #[command(flatten)]
    options: OptionArgs,
}

impl Args {
    /// Settles the options by where they came from.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) {
        let ignored = self.options.settle(matches, geteuid().is_root());
        if !ignored.is_empty() {
            let names = ignored.join(", ");
            note(&format!("{names}: not used, only root may give options of a tunnel"));
        }
    }
}

/// Brings the tunnel up and says what was done.
pub(crate) async fn run(args: Args, sockets: &Sockets) -> Outcome {
    let source = match Source::read(&args.config) {
        Ok(source) => source,
        Err(trouble) => return trouble.into(),
    };
    let (name, which) = match source {
        Source::Name(name) => (name.clone(), Which::Name(name)),
        Source::File { name, text, .. } => {
            let name = name.to_string();
            (name.clone(), Which::Text(ConfigText { name, text: text.to_vec() }))
        }
    };
    let socket = match daemon_of_many(sockets, &name).await {
        Ok(socket) => socket,
        Err(troubles) => return troubles.into(),
    };
    let config = Some(ConfigSource { source: Some(which) });
    let request = UpRequest { config, options: args.options.message() };
    let answer = ask(&socket, LONG_PATIENCE, |mut daemon| {
        let request = request.clone();
        async move { daemon.up(request).await.map(tonic::Response::into_inner) }
    });
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(failed) => return failed.trouble.into(),
    };
    let tunnel = answer.tunnel.unwrap_or_else(|| Tunnel { name, ..Tunnel::default() });
    let outcome = Outcome::text(line(&tunnel)).noting(answer.notes);
    if !args.wait {
        return outcome;
    }
    let limit = Duration::from_secs(args.timeout.map_or(WAIT, u64::from));
    wait_for_a_peer(outcome, &socket, &tunnel.name, limit).await
}

/// "peer1 is up: 10.0.0.1/24, MTU 1400, 2 peers".
fn line(tunnel: &Tunnel) -> String {
    let mut facts: Vec<_> = tunnel.addresses.iter().map(|address| escape(address)).collect();
    facts.push(format!("MTU {}", tunnel.mtu));
    facts.push(match tunnel.peers.len() {
        0 => "no peers".to_owned(),
        1 => "1 peer".to_owned(),
        count => format!("{count} peers"),
    });
    format!("{} is up: {}\n", escape(&tunnel.name), facts.join(", "))
}

async fn wait_for_a_peer(
    mut outcome: Outcome,
    socket: &Path,
    name: &str,
    limit: Duration,
) -> Outcome {
    match wait::connected(socket, name, None, limit).await {
        Ok(Waited::Connected(peer)) => outcome.text.push_str(&format!("{peer} is connected\n")),
        Ok(Waited::NoPeers) => outcome = outcome.noting(["there is no peer to wait for".into()]),
        Ok(Waited::TimedOut(why)) => {
            let message = format!("no peer is connected after {} s", limit.as_secs());
            let trouble = Trouble::new(Exit::NotAllConnected, message);
            outcome.troubles.push(trouble.hint(why.join("\n")));
        }
        Err(trouble) => outcome.troubles.push(trouble),
    }
    outcome
}

#[cfg(test)]
#[path = "up_tests.rs"]
mod tests;
