//! The Qanah command line. A library so that the manual pages are made from what the program parses.

mod client;
mod cmds;
mod find;
mod options;
mod output;
mod paste;
mod source;
mod table;
mod text;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use qanah_proto::exit::Exit;

use client::Sockets;
use output::Outcome;

/// Shows and steers the tunnels of qanahd.
///
/// Exit codes: 0 well, 1 failed, 2 wrong command line, 3 up but not all peers connected, 4 down or
/// no daemon, 5 permission denied, 6 the configuration cannot be used. Of several the highest.
#[derive(Debug, Parser)]
#[command(name = "qanahctl", version)]
struct Cli {
    /// The control socket of one daemon [default: all in /run/qanah]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a tunnel up
    Up(Box<cmds::up::Args>),
    /// Take a tunnel down
    Down(cmds::down::Args),
    /// Apply a changed configuration file; connections of unchanged peers live on
    Reload(cmds::reload::Args),
    /// Show tunnels and their peers
    Status(cmds::status::Args),
    /// Show tunnels and their peers again after each change
    Watch(cmds::watch::Args),
    /// Pairing by hand: make an offer for a peer
    Offer(cmds::offer::Args),
    /// Pairing by hand: answer an offer
    Answer(cmds::answer::Args),
    /// Pairing by hand: take the answer to an offer
    Accept(cmds::accept::Args),
    /// Say what a configuration means, without doing anything
    Check(cmds::check::Args),
    /// Print a new private key
    Genkey,
    /// Read a private key, print its public key
    Pubkey,
    /// Print a new preshared key
    Genpsk,
    /// Show the versions of this program and of the daemons
    Version,
    /// Print the completions for a shell
    Completions(cmds::completions::Args),
}

/// The command line, as clap has it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let (Command::Up(args), Some((_, matches))) = (&mut cli.command, matches.subcommand()) {
        args.settle(matches);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("cannot start: {error}"), None);
            return Exit::Failed.into();
        }
    };
    let sockets = cli.socket.map_or_else(Sockets::standard, Sockets::One);
    output::show(runtime.block_on(run(cli.command, &sockets))).into()
}

async fn run(command: Command, sockets: &Sockets) -> Outcome {
    match command {
        Command::Up(args) => cmds::up::run(*args, sockets).await,
        Command::Down(args) => cmds::down::run(&args, sockets).await,
        Command::Reload(args) => cmds::reload::run(&args, sockets).await,
        Command::Status(args) => cmds::status::run(&args, sockets, output::style()).await,
        Command::Watch(args) => cmds::watch::run(&args, sockets, output::style()).await,
        Command::Offer(args) => cmds::offer::run(args, sockets).await,
        Command::Answer(args) => cmds::answer::run(args, sockets).await,
        Command::Accept(args) => cmds::accept::run(args, sockets).await,
        Command::Check(args) => cmds::check::run(&args, sockets).await,
        Command::Genkey => cmds::keys::genkey(),
        Command::Pubkey => cmds::keys::pubkey(),
        Command::Genpsk => cmds::keys::genpsk(),
        Command::Version => cmds::version::run(sockets).await,
        Command::Completions(args) => cmds::completions::run(&args, Cli::command()),
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
        let error = Cli::try_parse_from(["qanahctl", "statsu"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Exit::Usage));
    }
}
