//! Three kinds of users, and a daemon that all of them can ask.
//!
//! They exist only in the mount namespace of a node: its `/etc` is an overlay of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::conf::Conf;
use crate::daemon::{LIMIT, Options, Said, plain_environment, program, said};
use crate::lab::{Lab, Node};
use crate::ns::Place;
use crate::process::Proc;
use crate::status::Status;
use crate::wait::eventually;

/// Id of the group `qanah` in a lab.
pub const GROUP: u32 = 4100;

/// Where people find programs: the build directory may be closed to them.
const BIN: &str = "/run/lab/bin";

/// Somebody with a shell on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// As in `/etc/passwd`.
    pub name: &'static str,
    /// User id, also that of the group of the same name.
    pub uid: u32,
    /// Whether in the group `qanah`.
    pub member: bool,
}

/// The administrator.
pub const ROOT: Person = Person { name: "root", uid: 0, member: false };
/// A member of the group `qanah`.
pub const ANN: Person = Person { name: "ann", uid: 4001, member: true };
/// Another one.
pub const BOB: Person = Person { name: "bob", uid: 4002, member: true };
/// Somebody who is not in the group.
pub const MALLORY: Person = Person { name: "mallory", uid: 4003, member: false };

impl Person {
    /// A command of theirs, which is killed after a minute.
    pub fn command(&self, place: Place, program: &str) -> Command {
        let mut command = place.command("setpriv");
        let groups =
            if self.member { format!("{},{GROUP}", self.uid) } else { self.uid.to_string() };
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.uid));
        command.arg(format!("--groups={groups}")).args(["--", "timeout", "--signal=KILL", "60"]);
        command.arg(program);
        command
    }

    /// Their `qanahctl`.
    pub fn client(&self, place: Place) -> Command {
        self.command(place, &format!("{BIN}/qanahctl"))
    }

    /// Runs `qanahctl` with these arguments (split at blanks) to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn qanahctl(&self, place: Place, line: &str) -> Result<Said> {
        let mut command = self.client(place);
        command.args(line.split_whitespace()).current_dir("/");
        said(command)
    }

    /// Runs `qanahctl` and wants that exit code; what it said.
    ///
    /// # Errors
    /// When it ends with another one.
    pub fn expect(&self, place: Place, line: &str, code: i32) -> Result<Said> {
        let said = self.qanahctl(place, line)?;
        let who = self.name;
        ensure!(said.code == code, "{who}: {line}: {} and not {code}: {said:?}", said.code);
        Ok(said)
    }
}

/// Makes the users and the group on a node, and puts `qanahctl` where they find it.
///
/// # Errors
/// When the node is strange.
pub fn settle(place: Place) -> Result<()> {
    let everybody = [ANN, BOB, MALLORY];
    let mut script = format!("mkdir -p {BIN}; sed -i '/^qanah:/d' /etc/group\n");
    for Person { name, uid, .. } in everybody {
        script += &format!("sed -i '/^{name}:/d' /etc/group /etc/passwd\n");
        script += &format!("echo '{name}:x:{uid}:' >> /etc/group\n");
        script += &format!("echo '{name}:x:{uid}:{uid}::/:/bin/sh' >> /etc/passwd\n");
    }
    let members: Vec<_> = everybody.iter().filter(|p| p.member).map(|p| p.name).collect();
    script += &format!("echo 'qanah:x:{GROUP}:{}' >> /etc/group\n", members.join(","));
    place.shell(&script)?;
    lend(place, "qanahctl", &program("qanahctl")?)
}

/// Puts a copy of a program where everybody can run it.
///
/// # Errors
/// When it cannot be copied.
pub fn lend(place: Place, name: &str, program: &std::path::Path) -> Result<()> {
    // Copied by another process: a descriptor of ours that can write to the copy would be inherited
    // by whatever other tests start at this moment, and a file open for writing cannot be run.
    let to = place.path(&format!("{BIN}/{name}"));
    ensure!(Command::new("cp").arg(program).arg(&to).status()?.success(), "cannot copy {name}");
    fs::set_permissions(place.path(BIN), fs::Permissions::from_mode(0o755))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}

/// A `qanahd` that serves many tunnels, none at first.
#[derive(Debug)]
pub struct Many {
    proc: Proc,
    place: Place,
}

impl Many {
    /// Makes the users of the node, starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// When it does not, with its log.
    pub fn start(lab: &Lab, node: &Node, options: &Options) -> Result<Self> {
        settle(node.place())?;
        let mut many = Self::launch(lab, node, options)?;
        many.ready()?;
        Ok(many)
    }

    /// Starts the daemon and does not wait.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(lab: &Lab, node: &Node, options: &Options) -> Result<Self> {
        let mut command = node.place().command(program("qanahd")?);
        command.args(options.arguments());
        plain_environment(&mut command).env("RUST_BACKTRACE", "1");
        let log = lab.dir().join(format!("{}-qanahd.log", node.number()));
        let proc = Proc::spawn("qanahd of many", command, &log)?;
        Ok(Self { proc, place: node.place() })
    }

    fn ready(&mut self) -> Result<()> {
        let (proc, place) = (&mut self.proc, self.place);
        eventually("the daemon of many answers", LIMIT, || {
            proc.ensure_running()?;
            ROOT.expect(place, "version", 0).map(drop)
        })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.proc.log()
    }

    /// The state of one of its tunnels.
    ///
    /// # Errors
    /// When there is none.
    pub fn status(&self, name: &str) -> Result<Status> {
        Status::at(self.place, "qanahd", name)
    }

    /// Waits until these peers of a tunnel are connected.
    ///
    /// # Errors
    /// When one of them is not within `limit`.
    pub fn connected(&self, name: &str, peers: &[&str], limit: std::time::Duration) -> Result<()> {
        eventually(&format!("{name} is connected to {peers:?}"), limit, || {
            let status = self.status(name)?;
            peers.iter().try_for_each(|peer| {
                ensure!(status.peer(peer)?.connected()?, "{peer} is not: {status}");
                Ok(())
            })
        })
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.proc.ensure_running()
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Errors
    /// When it still runs after the usual limit.
    pub fn wait(&mut self) -> Result<i32> {
        self.proc.wait(LIMIT).map(crate::process::code)
    }

    /// Ends it with this signal.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        self.proc.ensure_running()?;
        self.proc.end(signal, LIMIT).map(drop)
    }
}

/// Puts a configuration where the daemon finds it by its name, readable for root alone.
///
/// # Errors
/// When it cannot be written.
pub fn install(place: Place, conf: &Conf) -> Result<()> {
    install_text(place, &conf.name, &conf.to_string())
}

/// As [`install`], with any text.
///
/// # Errors
/// When it cannot be written.
pub fn install_text(place: Place, name: &str, text: &str) -> Result<()> {
    let path = place.path(&format!("/etc/qanah/{name}.conf"));
    fs::write(&path, text)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;

    #[test]
    fn people_are_who_they_are_and_only_in_the_lab() -> Result<()> {
        in_lab(1, |lab| {
            let place = lab.node(1)?.place();
            settle(place)?;
            for person in [ROOT, ANN, MALLORY] {
                let mut command = person.command(place, "id");
                let said = said({
                    command.arg("-Gn");
                    command
                })?;
                assert_eq!(said.out.contains("qanah"), person.member, "{said:?}");
                let mut command = person.command(place, "id");
                command.arg("-un");
                assert_eq!(crate::process::output(command)?.trim(), person.name);
            }
            assert!(!fs::read_to_string("/etc/passwd")?.contains("mallory"));
            MALLORY.expect(place, "--version", 0).map(drop)
        })
    }
}
