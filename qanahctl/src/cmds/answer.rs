//! `qanahctl answer`: answers an offer that was carried by hand.

use std::path::PathBuf;

use qanah_proto::v1::{AnswerRequest, AnswerResponse};

use super::pairing::{self, GATHERING, Input};
use crate::client::{NoAnswer, Sockets, Trouble, ask};
use crate::find::{self, Found};
use crate::output::Outcome;
use crate::text::escape;

/// The arguments of `answer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tunnel; needed when there are several
    #[arg(short, long, value_name = "NAME")]
    tunnel: Option<String>,

    /// The file with the offer [default: standard input]
    file: Option<PathBuf>,
}

/// Answers the offer; on a terminal, asks for it first.
pub(crate) async fn run(args: Args, sockets: &Sockets) -> Outcome {
    match answer(args, sockets).await {
        Ok(outcome) => outcome,
        Err(troubles) => troubles.into(),
    }
}

async fn answer(args: Args, sockets: &Sockets) -> Result<Outcome, Vec<Trouble>> {
    let found = find::tunnel(sockets, args.tunnel.as_deref()).await?;
    converse(&found, Input::open(args.file.as_deref()).map_err(one)?).await.map_err(one)
}

fn one(trouble: Trouble) -> Vec<Trouble> {
    vec![trouble]
}

async fn converse(found: &Found, mut input: Input) -> Result<Outcome, Trouble> {
    loop {
        let Some(text) = input.next("Paste the offer here")? else {
            return Ok(Outcome::default());
        };
        match ask_for(found, &text).await {
            Ok(AnswerResponse { text, peer }) => {
                pairing::print(&text, &format!("Answer: send it back to {peer} whole"))?;
                // The rest is up to the other side, and may take the person there a while.
                return Ok(Outcome::default());
            }
            Err(failed) => pairing::again(&input, failed)?,
        }
    }
}

async fn ask_for(found: &Found, text: &str) -> Result<AnswerResponse, NoAnswer> {
    let request = AnswerRequest { tunnel: found.tunnel.name.clone(), text: text.to_owned() };
    let answer = ask(&found.socket, GATHERING, |mut daemon| {
        let request = request.clone();
        async move { daemon.answer(request).await.map(tonic::Response::into_inner) }
    });
    answer.await.map(|answer| AnswerResponse { peer: escape(&answer.peer), ..answer })
}
