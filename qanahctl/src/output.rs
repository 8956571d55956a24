//! The last step of every command: its text to standard output, its troubles to standard error.

use std::io::{self, IsTerminal, Write};

use qanah_proto::exit::Exit;

use crate::client::Trouble;
use crate::text::{escape, escape_lines};

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// For standard output, with its line ends.
    pub(crate) text: String,
    /// What else is worth knowing, for standard error.
    pub(crate) notes: Vec<String>,
    /// For standard error.
    pub(crate) troubles: Vec<Trouble>,
    /// The exit code, that of the troubles not yet counted.
    pub(crate) exit: Exit,
}

impl Outcome {
    /// Only this text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// With these notes.
    #[must_use]
    pub(crate) fn noting(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The highest of all exit codes.
    pub(crate) fn exit(&self) -> Exit {
        self.troubles.iter().map(|trouble| trouble.exit).fold(self.exit, Exit::worst)
    }
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        vec![trouble].into()
    }
}

impl From<Vec<Trouble>> for Outcome {
    fn from(troubles: Vec<Trouble>) -> Self {
        Self { troubles, ..Self::default() }
    }
}

/// Whether output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Only text.
    Plain,
    /// With colour codes.
    Colour,
}

/// Colours only for a person at a terminal who wants them (<https://no-color.org>).
pub(crate) fn style() -> Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && !unwanted && !dumb { Style::Colour } else { Style::Plain }
}

/// Writes it all; the exit code.
pub(crate) fn show(outcome: Outcome) -> Exit {
    let exit = outcome.exit();
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(outcome.text.as_bytes()).and_then(|()| stdout.flush());
    for text in &outcome.notes {
        note(text);
    }
    for trouble in &outcome.troubles {
        error(&trouble.message, trouble.hint.as_deref());
    }
    match written {
        // Who closed the pipe (`head`, `less`) has read enough, and wants to hear no complaint.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(failure) => {
            error(&format!("cannot write: {failure}"), None);
            exit.worst(Exit::Failed)
        }
        Ok(()) => exit,
    }
}

/// Says on standard error what failed and why, and below it what to do.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    let mut text = prefixed("qanahctl", message);
    for line in hint.into_iter().flat_map(str::lines) {
        text.push_str(&format!("  {}\n", escape(line)));
    }
    to_stderr(&text);
}

/// Says on standard error what is no failure.
pub(crate) fn note(message: &str) {
    to_stderr(&prefixed("note", message));
}

/// Says something to the person at the terminal, aside from the output.
pub(crate) fn prompt(message: &str) {
    to_stderr(&format!("{}\n", escape_lines(message)));
}

/// Further lines of a message stand below its first one.
fn prefixed(prefix: &str, message: &str) -> String {
    format!("{prefix}: {}\n", escape_lines(message).replace('\n', "\n  "))
}

fn to_stderr(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines_stay_together_and_safe() {
        assert_eq!(prefixed("note", "a\nb \x1b[2J\n"), "note: a\n  b \\u{1b}[2J\n");
    }
}
