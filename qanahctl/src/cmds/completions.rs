//! `qanahctl completions SHELL`: what a shell reads to complete command lines.

use clap::{Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::output::Outcome;

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Name,
}

/// The shells that the completions are tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// For /usr/share/bash-completion/completions/qanahctl
    Bash,
    /// For a directory of $fpath, as _qanahctl
    Zsh,
    /// For /usr/share/fish/vendor_completions.d/qanahctl.fish
    Fish,
}

/// The script of one shell.
pub(crate) fn run(args: &Args, mut command: Command) -> Outcome {
    let shell = match args.shell {
        Name::Bash => Shell::Bash,
        Name::Zsh => Shell::Zsh,
        Name::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    generate(shell, &mut command, name, &mut script);
    Outcome::text(String::from_utf8_lossy(&script))
}
