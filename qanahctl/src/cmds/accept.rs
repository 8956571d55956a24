//! `qanahctl accept`: takes the answer to an offer of ours.

use std::path::PathBuf;

use super::pairing::{self, Input};
use crate::client::{Sockets, Trouble};
use crate::find::{self, Found};
use crate::output::{Outcome, prompt};

/// The arguments of `accept`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tunnel; needed when there are several
    #[arg(short, long, value_name = "NAME")]
    tunnel: Option<String>,

    /// The file with the answer [default: standard input]
    file: Option<PathBuf>,
}

/// Takes the answer; on a terminal, asks for it first and waits for the connection.
pub(crate) async fn run(args: Args, sockets: &Sockets) -> Outcome {
    match accept(args, sockets).await {
        Ok(outcome) => outcome,
        Err(troubles) => troubles.into(),
    }
}

async fn accept(args: Args, sockets: &Sockets) -> Result<Outcome, Vec<Trouble>> {
    let found = find::tunnel(sockets, args.tunnel.as_deref()).await?;
    let input = Input::open(args.file.as_deref()).map_err(|trouble| vec![trouble])?;
    converse(&found, input).await.map_err(|trouble| vec![trouble])
}

async fn converse(found: &Found, mut input: Input) -> Result<Outcome, Trouble> {
    loop {
        let Some(text) = input.next("Paste the answer here")? else {
            return Ok(Outcome::default());
        };
        match pairing::accept(found, &text).await {
            Ok(peer) => {
                prompt(&format!("The answer of {peer} is good; connecting"));
                if input.is_terminal() {
                    return Ok(pairing::follow(found, &peer).await);
                }
                return Ok(Outcome::default());
            }
            Err(failed) => pairing::again(&input, failed)?,
        }
    }
}
