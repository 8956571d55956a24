//! `qanahctl version`: what runs here, and what runs behind each socket.

use qanah_proto::v1::VersionRequest;

use crate::client::{Sockets, ask_all};
use crate::output::Outcome;
use crate::text::escape;

/// Asks all daemons for their version.
pub(crate) async fn run(sockets: &Sockets) -> Outcome {
    let text = format!("qanahctl {}\n", env!("CARGO_PKG_VERSION"));
    let mut outcome = Outcome { text, ..Outcome::default() };
    let paths = match sockets.find() {
        Ok(paths) => paths,
        Err(trouble) => {
            outcome.troubles.push(trouble);
            return outcome;
        }
    };
    let answers = ask_all(&paths, |mut daemon| async move {
        daemon.version(VersionRequest {}).await.map(tonic::Response::into_inner)
    });
    for (path, answer) in answers.await {
        match answer {
            Ok(answer) => {
                let place = path.display().to_string();
                let line = format!("qanahd   {}  {}\n", escape(&answer.version), escape(&place));
                outcome.text.push_str(&line);
            }
            Err(failed) => outcome.troubles.push(failed.trouble),
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use qanah_proto::exit::Exit;

    use super::*;
    use crate::testing::{FakeDaemon, tunnel};

    #[tokio::test]
    async fn client_and_daemons_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
        let outcome = run(&Sockets::All(dir.path().into())).await;
        let here = env!("CARGO_PKG_VERSION");
        let socket = daemon.path.display();
        assert_eq!(outcome.text, format!("qanahctl {here}\nqanahd   9.8.7  {socket}\n"));
        assert_eq!(outcome.exit(), Exit::Well);
    }

    #[tokio::test]
    async fn the_client_is_named_without_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let outcome = run(&Sockets::All(dir.path().into())).await;
        assert!(outcome.text.starts_with("qanahctl "));
        assert_eq!(outcome.exit(), Exit::Down);
    }
}
