//! Documents that tell what to type, done as they tell it.
//!
//! A line of an indented block that begins with `NAME$ ` is a command for the machine NAME, in a login shell of
//! somebody with sudo; the other lines are text or output.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::machine::Machine;
use crate::ns::Place;
use crate::wait::{eventually, secs};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// For which machine.
    pub machine: String,
    /// As it is written.
    pub command: String,
}

/// The commands of a document, in their order. One with `<<END` goes on to the line `END`.
pub fn commands(text: &str) -> Vec<Line> {
    let mut lines = text.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let split = line.strip_prefix("    ").and_then(|line| line.split_once("$ "));
        let Some((name, command)) = split.filter(|(name, _)| is_name(name)) else {
            continue;
        };
        let mut command = command.to_owned();
        if command.ends_with("<<END") {
            let rest = lines.by_ref().map(|line| line.strip_prefix("    ").unwrap_or(line));
            for line in rest {
                command = format!("{command}\n{line}");
                if line == "END" {
                    break;
                }
            }
        }
        found.push(Line { machine: name.to_owned(), command });
    }
    found
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Where commands are run.
#[derive(Debug)]
pub enum Stage {
    /// A machine, by its user.
    Machine(Machine),
    /// A host that has nothing but a network.
    Host(Place),
}

impl Stage {
    fn run(&self, command: &str) -> Result<String> {
        match self {
            Self::Machine(machine) => machine.as_user("ann", command),
            Self::Host(place) => place.shell(command),
        }
    }
}

/// Machines by the names that a document has for them.
pub type Cast = BTreeMap<String, Stage>;

/// Does all that a document says. What asks whether something is there already is asked again until it is,
/// as a reader would do; everything else has to work at once.
///
/// # Errors
/// With the first command that fails.
pub fn perform(cast: &Cast, text: &str) -> Result<()> {
    let lines = commands(text);
    ensure!(lines.len() > 1, "there is nothing to do");
    for Line { machine, command } in &lines {
        let Some(stage) = cast.get(machine) else {
            bail!("there is no machine {machine} for: {command}");
        };
        let asks = ["ping ", "qanahctl status"].iter().any(|begin| command.starts_with(begin));
        let what = format!("{machine}$ {command}");
        println!("{what}");
        if asks {
            eventually(&what, secs(60), || stage.run(command).map(drop))?;
        } else {
            stage.run(command).with_context(|| what)?;
        }
        carry_texts(cast, machine)?;
    }
    Ok(())
}

/// Texts that were written on one machine are mailed to the others.
fn carry_texts(cast: &Cast, from: &str) -> Result<()> {
    let Some(Stage::Machine(source)) = cast.get(from) else {
        return Ok(());
    };
    let found = source.as_user("ann", "ls *.txt 2>/dev/null || true")?;
    for name in found.split_whitespace() {
        let text = source.as_user("ann", &format!("cat {name}"))?;
        for stage in cast.values() {
            match stage {
                Stage::Machine(machine) if machine.name() != source.name() => {
                    machine.write_as("ann", &format!("/home/ann/{name}"), &text)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Gives a machine the package, the files of a directory, and its user the right to use `qanahctl`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn equip(machine: &Machine, deb: &Path, directory: &Path) -> Result<()> {
    machine.run(&format!("install -o ann -m 644 {} /home/ann/", deb.display()))?;
    // Before the package makes it, so that every shell counts.
    machine.run("groupadd --system qanah && usermod -aG qanah ann")?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?.to_string_lossy();
        if path.is_file() && name != "README.md" {
            let text = fs::read_to_string(&path)?;
            machine.write_as("ann", &format!("/home/ann/{name}"), &text)?;
            let executable = text.starts_with("#!");
            machine
                .run(&format!("chmod {} /home/ann/{name}", if executable { 755 } else { 600 }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_a_prompt_are_commands() {
        let text = "# Title\n\n    a-1$ do this && that | x\nb$ no\n    output of $ it\n    b$ ls $HOME$ x\n";
        let line = |machine: &str, command: &str| Line {
            machine: machine.to_owned(),
            command: command.to_owned(),
        };
        assert_eq!(commands(text), [line("a-1", "do this && that | x"), line("b", "ls $HOME$ x")]);
        let text = "    a$ cat <<END\n    x$ y\n\n    END\n    a$ ls\n";
        assert_eq!(commands(text), [line("a", "cat <<END\nx$ y\n\nEND"), line("a", "ls")]);
    }
}
