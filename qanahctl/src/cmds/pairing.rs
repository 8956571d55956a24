//! What `offer`, `answer` and `accept` have in common: the texts, and the conversation around them.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Stdin, Write};
use std::path::Path;
use std::time::Duration;

use qanah_proto::exit::Exit;
use qanah_proto::v1::AcceptRequest;

use crate::client::{NoAnswer, PATIENCE, Trouble, ask};
use crate::find::Found;
use crate::output::{Outcome, prompt};
use crate::paste;
use crate::text::escape_lines;
use crate::wait::{self, Waited};

/// How long an accepted answer may take to become a connection before the person is left alone.
const CONNECT: Duration = Duration::from_secs(30);

/// Candidates are gathered for up to 3 s, on a machine that may be busy.
pub(crate) const GATHERING: Duration = Duration::from_secs(20);

/// Printed with every question.
const LEAVE: &str = "Ctrl-C leaves";

/// What stands around a text on a terminal.
const FROM: &str = "\n----- from here -----\n";
const TO: &str = "----- to here -----\n\n";

/// Where a text comes from.
#[derive(Debug)]
pub(crate) enum Input {
    /// Somebody pastes it.
    Terminal(BufReader<Stdin>),
    /// It is in a file or comes through a pipe.
    Whole(String),
}

impl Input {
    /// Reads what is there; a terminal is left for later. No file, and `-`, mean standard input.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, Trouble> {
        let failed = |place: String, error: io::Error| {
            Trouble::new(Exit::Failed, format!("cannot read {place}: {error}"))
        };
        match file.filter(|file| *file != "-") {
            Some(path) => File::open(path)
                .and_then(paste::whole)
                .map_err(|error| failed(path.display().to_string(), error))
                .map(Self::Whole),
            None if io::stdin().is_terminal() => Ok(Self::terminal()),
            None => paste::whole(io::stdin().lock())
                .map_err(|error| failed("standard input".into(), error))
                .map(Self::Whole),
        }
    }

    /// The terminal.
    pub(crate) fn terminal() -> Self {
        Self::Terminal(BufReader::new(io::stdin()))
    }

    /// Whether somebody is there who can try again.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next text, after asking for it; none when nothing was pasted.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(crate) fn next(&mut self, question: &str) -> Result<Option<String>, Trouble> {
        match self {
            Self::Whole(text) => Ok(Some(std::mem::take(text))),
            Self::Terminal(input) => {
                prompt(&format!("{question} ({LEAVE}):"));
                let text = paste::pasted(input).map_err(|error| {
                    Trouble::new(Exit::Failed, format!("cannot read the terminal: {error}"))
                })?;
                Ok((!text.is_empty()).then_some(text))
            }
        }
    }
}

/// Prints a text to carry: between marks on a terminal, as it is into a file or a pipe. What it is,
/// to whom it goes and how long it is, goes to standard error.
///
/// Whoever copies a mark with the text does no harm: a reader skips lines of dashes.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn print(text: &str, about: &str) -> Result<(), Trouble> {
    let text = escape_lines(text);
    let length = text.chars().filter(|c| *c != '\n').count();
    prompt(&format!("{about} ({length} characters)"));
    let mut stdout = io::stdout().lock();
    let (from, to) = if stdout.is_terminal() { (FROM, TO) } else { ("", "") };
    write!(stdout, "{from}{text}\n{to}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot write: {error}")))
}

/// Gives an answer to the daemon; the peer who made it.
///
/// # Errors
/// Why it does not take it.
pub(crate) async fn accept(found: &Found, text: &str) -> Result<String, NoAnswer> {
    let request = AcceptRequest { tunnel: found.tunnel.name.clone(), text: text.to_owned() };
    let answer = ask(&found.socket, PATIENCE, |mut daemon| {
        let request = request.clone();
        async move { daemon.accept(request).await.map(tonic::Response::into_inner) }
    });
    answer.await.map(|answer| answer.peer)
}

/// Waits for the connection that was agreed on with a peer, so that the person hears how it ends.
pub(crate) async fn follow(found: &Found, peer: &str) -> Outcome {
    let name = &found.tunnel.name;
    match wait::connected(&found.socket, name, Some(peer), CONNECT).await {
        Ok(Waited::Connected(peer)) => {
            prompt(&format!("{peer} is connected"));
            Outcome::default()
        }
        Ok(Waited::NoPeers) => Outcome::default(),
        Ok(Waited::TimedOut(why)) => {
            let message = format!("{peer} is not connected after {} s", CONNECT.as_secs());
            let hint = format!("{}\nsee how it goes on: qanahctl watch {name}", why.join("\n"));
            Trouble::new(Exit::NotAllConnected, message).hint(hint).into()
        }
        Err(trouble) => trouble.into(),
    }
}

/// The last word about a text that was not taken, or nothing if the person may paste another one.
pub(crate) fn again(input: &Input, failed: NoAnswer) -> Result<(), Trouble> {
    let bad_text = failed.status.as_ref().and_then(qanah_proto::error_detail);
    let bad_text = bad_text.is_some_and(|d| d.reason() == qanah_proto::v1::Reason::BadText);
    if !(bad_text && input.is_terminal()) {
        return Err(failed.trouble);
    }
    crate::output::error(&failed.trouble.message, failed.trouble.hint.as_deref());
    Ok(())
}
