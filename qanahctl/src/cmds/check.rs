//! `qanahctl check FILE|NAME`: says what a configuration means, without doing anything.
//!
//! A file is read and parsed here, and no daemon is needed. A name is one of /etc/qanah, which only
//! the daemon may read.

use qanah_core::config::{Config, TunnelName, describe};
use qanah_proto::exit::Exit;
use qanah_proto::v1::config_source::Source as Which;
use qanah_proto::v1::{CheckRequest, ConfigSource};

use crate::client::{PATIENCE, Sockets, Trouble, ask};
use crate::find::any_daemon;
use crate::output::Outcome;
use crate::source::Source;
use crate::text::escape_lines;

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A configuration file (a path with a `/` in it or `.conf` at its end), or the name of one in
    /// /etc/qanah
    #[arg(value_name = "FILE|NAME")]
    config: String,
}

/// Says what the configuration means.
pub(crate) async fn run(args: &Args, sockets: &Sockets) -> Outcome {
    match Source::read(&args.config) {
        Ok(Source::File { path, name, text }) => file(&path, &name, &text),
        Ok(Source::Name(name)) => named(&name, sockets).await,
        Err(trouble) => trouble.into(),
    }
}

fn file(path: &str, name: &TunnelName, text: &[u8]) -> Outcome {
    let parsed = match Config::parse(path, text) {
        Ok(parsed) => parsed,
        Err(error) => return Trouble::new(Exit::BadConfig, error.to_string()).into(),
    };
    let refusals = parsed.config.refusals();
    told(&describe(name, &parsed), refusals.iter().map(|refusal| refusal.in_file(path)).collect())
}

async fn named(name: &str, sockets: &Sockets) -> Outcome {
    let socket = match any_daemon(sockets, name) {
        Ok(socket) => socket,
        Err(trouble) => return trouble.into(),
    };
    let source = Some(Which::Name(name.to_owned()));
    let request = CheckRequest { config: Some(ConfigSource { source }) };
    let answer = ask(&socket, PATIENCE, move |mut daemon| {
        let request = request.clone();
        async move { daemon.check(request).await.map(tonic::Response::into_inner) }
    });
    match answer.await {
        Ok(answer) => told(&answer.description, answer.refusals),
        Err(failed) => failed.trouble.into(),
    }
}

/// The description, and what keeps a tunnel with it from starting.
fn told(description: &str, refusals: Vec<String>) -> Outcome {
    let troubles = refusals.into_iter().map(|refusal| Trouble::new(Exit::BadConfig, refusal));
    let text = format!("{}\n", escape_lines(description));
    Outcome { text, troubles: troubles.collect(), ..Outcome::default() }
}
