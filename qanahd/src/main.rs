//! The Qanah daemon: WireGuard configurations over WebRTC data channels.

mod args;
mod books;
mod clock;
mod config_file;
mod control;
mod daemon;
#[cfg(test)]
mod datapath_tests;
mod dial;
mod downlink;
mod egress;
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
use std::process::ExitCode;

use anyhow::Context;
use qanah_core::config::describe;
use tracing::{error, warn};

use self::args::Args;
use self::config_file::ConfigFile;
use self::daemon::Daemon;
use self::exit::{Exit, ExitWith, Failure};
use self::platform::config_dir::ConfigDir;
use self::servers::Servers;

fn main() -> ExitCode {
    let args = Args::from_process();
    let outcome = if args.check { check(&args) } else { run(&args) };
    match outcome {
        Ok(()) => Exit::Well.into(),
        Err(failure) => {
            error!("{failure}");
            failure.exit.into()
        }
    }
}

/// Says what a configuration means, or what is wrong with it.
fn check(args: &Args) -> Result<(), Failure> {
    logging::start(args.log_level)?;
    let file = ConfigFile::read(args.config.as_deref()).exit_with(Exit::BadConfig)?;
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

/// Serves tunnels until it is told to stop.
fn run(args: &Args) -> Result<(), Failure> {
    logging::start(args.log_level)?;
    // Each tunnel gets its own; a mistake in them is better told now than with the first one.
    let servers = Servers::parse(&args.servers).exit_with(Exit::Usage)?;
    servers.mqtt.check().exit_with(Exit::Usage)?;
    let only = match &args.config {
        Some(path) => Some(ConfigFile::read(Some(path)).exit_with(Exit::BadConfig)?),
        None => None,
    };
    if let Some(file) = &only {
        file.warn();
        file.refuse().exit_with(Exit::BadConfig)?;
    }
    platform::privileges::check().exit_with(Exit::Denied)?;
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
    }));
    // A name lookup that hangs must not hold up the end.
    runtime.shutdown_background();
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
        warn!("the service manager could not be told: {error}");
    }
    outcome
}
