//! The benchmark. `tests/bench` installs what it needs, builds it and runs it.

use std::process::ExitCode;

use clap::Parser;
use qanah_tests::bench::{args::Args, run};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
