//! The Qanah daemon: WireGuard configurations over WebRTC data channels.

mod args;
mod books;
mod clock;
mod config_file;
mod control;
mod credentials;
mod daemon;
#[cfg(test)]
mod datapath_tests;
mod dial;
mod downlink;
mod egress;
mod events;
mod exit;
mod held;
mod logging;
mod mqtt;
#[cfg(test)]
mod offload_tests;
mod pace;
mod platform;
mod relay;
#[cfg(test)]
mod relay_tests;
mod rtc;
mod senders;
mod servers;
mod stats;
mod transit;
mod tunnel;
mod uplink;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use qanah_core::config::describe;

use self::args::Args;
use self::config_file::ConfigFile;
use self::daemon::Daemon;
use self::exit::{Exit, ExitWith, Failure};
use self::platform::config_dir::ConfigDir;
use self::platform::privileges::{self, Needs};
use self::servers::Servers;

fn main() -> ExitCode {
    privileges::close_memory();
    let args = Args::from_process();
    let outcome = if args.check { check(&args) } else { run(&args) };
    match outcome {
        Ok(()) => Exit::Well.into(),
        Err(failure) => {
            logging::last_words(&failure.to_string());
            failure.exit.into()
        }
    }
}

/// Says what a configuration means, or what is wrong with it.
fn check(args: &Args) -> Result<(), Failure> {
    logging::start(args.log_level)?;
    let file = match only(args)? {
        Some(file) => file,
        None => ConfigFile::read(None).exit_with(Exit::BadConfig)?,
    };
    file.warn();
    let text = describe(&file.name, &file.parsed);
    // Who closed the pipe has read enough.
    std::io::stdout().write_all(text.as_bytes()).or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })?;
    file.refuse().exit_with(Exit::BadConfig)?;
    // Some public keys are found out only by computing with them.
    tunnel::Prepared::new(
        file.name.clone(),
        file.parsed.config.clone(),
        tunnel::Behaviour::default(),
    )
    .with_context(|| file.label().to_owned())
    .exit_with(Exit::BadConfig)?;
    Ok(())
}

/// The configuration of the only tunnel, if there is to be one only.
fn only(args: &Args) -> Result<Option<ConfigFile>, Failure> {
    let file = match (&args.config, &args.tunnel) {
        (Some(path), _) => ConfigFile::read(Some(path)),
        (None, Some(name)) => ConfigFile::by_name(&ConfigDir::default(), name.clone()),
        (None, None) => return Ok(None),
    };
    file.map(Some).exit_with(Exit::BadConfig)
}

/// Serves tunnels until it is told to stop.
fn run(args: &Args) -> Result<(), Failure> {
    logging::start(args.log_level)?;
    // Each tunnel gets its own; a mistake in them is better told now than with the first one.
    let servers = Servers::parse(&args.servers).exit_with(Exit::Usage)?;
    servers.mqtt.check().exit_with(Exit::Usage)?;
    let only = only(args)?;
    if let Some(file) = &only {
        file.warn();
        file.refuse().exit_with(Exit::BadConfig)?;
    }
    privileges::check().exit_with(Exit::Denied)?;
    config_file::warn_of_exposed_environment(&ConfigDir::default(), args.tunnel.as_ref());
    // A tunnel that comes later may have hooks.
    let needs = match &only {
        Some(file) if !file.has_hooks() => Needs::NoHooks,
        _ => Needs::Hooks,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(Daemon::run(daemon::Settings {
        only,
        up: args.up.clone(),
        servers: args.servers.clone(),
        socket: args.socket.clone(),
        directory: ConfigDir::default(),
        memory: std::env::var_os("RUNTIME_DIRECTORY")
            .filter(|_| args.is_of_many())
            .map(PathBuf::from),
        needs: Some(needs),
    }));
    // A name lookup that hangs must not hold up the end.
    runtime.shutdown_background();
    outcome
}
