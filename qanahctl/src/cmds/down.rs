//! `qanahctl down NAME`: takes a tunnel down.

use qanah_proto::v1::DownRequest;

use crate::client::{LONG_PATIENCE, Sockets, ask};
use crate::find;
use crate::output::Outcome;
use crate::text::escape;

/// The arguments of `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tunnel
    name: String,
}

/// Takes the tunnel down and says what went wrong on the way.
pub(crate) async fn run(args: &Args, sockets: &Sockets) -> Outcome {
    let found = match find::tunnel(sockets, Some(&args.name)).await {
        Ok(found) => found,
        Err(troubles) => return troubles.into(),
    };
    let tunnel = args.name.clone();
    let answer = ask(&found.socket, LONG_PATIENCE, move |mut daemon| {
        let request = DownRequest { tunnel: tunnel.clone() };
        async move { daemon.down(request).await.map(tonic::Response::into_inner) }
    });
    match answer.await {
        Ok(answer) => {
            Outcome::text(format!("{} is down\n", escape(&args.name))).noting(answer.notes)
        }
        Err(failed) => failed.trouble.into(),
    }
}
