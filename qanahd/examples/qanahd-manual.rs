//! Writes qanahd(8): what `--help` says, then what is in `packaging/man/qanahd.8.in`, where the lines
//! `@EVENTS@` and `@VARIABLES@` stand for the events of the journal and the variables of options.
//!
//!     cargo run -p qanahd --example qanahd-manual -- DIRECTORY

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;

#[allow(dead_code, reason = "only the command is of interest here")]
#[path = "../src/args.rs"]
mod args;
#[allow(dead_code, reason = "only the command is of interest here")]
#[path = "../src/credentials.rs"]
mod credentials;
#[allow(dead_code, reason = "only the list is of interest here")]
#[path = "../src/events.rs"]
mod events;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let man = clap_mangen::Man::new(args::Args::command())
        .title("qanahd")
        .section("8")
        .manual("Qanah")
        .date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut synopsis = Vec::new();
    man.render_synopsis_section(&mut synopsis)?;
    // The only ones are hidden: they say where they have gone.
    page.write_all(String::from_utf8(synopsis)?.replace(" [\\fIsubcommands\\fR]", "").as_bytes())?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let events: String = events::ALL
        .iter()
        .map(|event| format!(".TP\n.B {}\n{}\n.br\n{}\n", event.name, event.when, event.id))
        .collect();
    let command = args::Args::command();
    let variables: String = command
        .get_arguments()
        .filter_map(|arg| {
            let (variable, option) = (arg.get_env()?.to_str()?, arg.get_long()?);
            Some(format!(".TP\n.B {variable}\nFor \\-\\-{}.\n", option.replace('-', "\\-")))
        })
        .collect();
    let rest = include_str!("../../packaging/man/qanahd.8.in")
        .replace("@EVENTS@\n", &events)
        .replace("@VARIABLES@\n", &variables);
    page.write_all(rest.as_bytes())?;
    std::fs::write(directory.join("qanahd.8"), page)?;
    Ok(())
}
