//! Writes qanahctl(1) and a page for each of its commands: what `--help` says, and in the first one
//! what is in `packaging/man/qanahctl.1.in`.
//!
//!     cargo run -p qanahctl --example qanahctl-manual -- DIRECTORY

use std::io::{self, Write};
use std::path::PathBuf;

use clap_mangen::Man;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let mut command = qanahctl::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = man(command.clone(), "qanahctl");
    begin(&man, &mut page)?;
    man.render_subcommands_section(&mut page)?;
    page.write_all(include_bytes!("../../packaging/man/qanahctl.1.in"))?;
    std::fs::write(directory.join("qanahctl.1"), page)?;
    for sub in command.get_subcommands() {
        let name = format!("qanahctl-{}", sub.get_name());
        let spoken = name.replacen('-', " ", 1);
        let sub = sub.clone().name(name.clone()).display_name(&name).bin_name(spoken);
        let mut page = Vec::new();
        begin(&self::man(sub, &name), &mut page)?;
        page.write_all(b".SH \"SEE ALSO\"\n.BR qanahctl (1)\n")?;
        std::fs::write(directory.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

fn man(command: clap::Command, name: &str) -> Man {
    Man::new(command).title(name).section("1").manual("Qanah").date("")
}

fn begin(man: &Man, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)
}
