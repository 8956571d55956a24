//! The tunnels that clients brought up, so that a restarted daemon brings them up again.
//!
//! Their names are in a file of the directory that the service manager keeps for a service over
//! restarts and takes away with it when it is stopped (`RuntimeDirectoryPreserve=restart`). So a crash
//! or an upgrade costs nobody a tunnel, and a stopped service forgets. Without such a directory
//! nothing is remembered. A tunnel with options of its own is not in the file, because they may hold
//! passwords, and neither is one whose configuration was given as text.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use qanah_core::config::TunnelName;
use tracing::warn;

/// More names than a daemon has tunnels make no sense.
const MAX_LEN: u64 = 256 * 16;

/// The names, and where they are kept.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    file: Option<PathBuf>,
    names: BTreeSet<TunnelName>,
}

impl Wanted {
    /// What an earlier run left in the directory.
    pub(super) fn read(directory: Option<&Path>) -> Self {
        let Some(file) = directory.map(|directory| directory.join("up")) else {
            return Self::default();
        };
        let names = match read(&file) {
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                warn!("{} could not be read: {error}", file.display());
                BTreeSet::new()
            }
        };
        Self { file: Some(file), names }
    }

    /// The names, in their order.
    pub(super) fn names(&self) -> Vec<TunnelName> {
        self.names.iter().cloned().collect()
    }

    /// Somebody brought it up.
    pub(super) fn add(&mut self, name: &TunnelName) {
        if self.names.insert(name.clone()) {
            self.write();
        }
    }

    /// Somebody took it down.
    pub(super) fn remove(&mut self, name: &TunnelName) {
        if self.names.remove(name) {
            self.write();
        }
    }

    fn write(&self) {
        let Some(file) = &self.file else {
            return;
        };
        let text: String = self.names.iter().map(|name| format!("{name}\n")).collect();
        if let Err(error) = replace(file, &text) {
            warn!("{} could not be written: {error}", file.display());
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let open = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(file)?;
    io::read_to_string(io::Read::take(open, MAX_LEN))
}

/// Nobody sees a half of it, and a daemon that ends in between leaves the old one.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TunnelName {
        text.parse().unwrap()
    }

    #[test]
    fn names_outlive_the_daemon_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let read = || Wanted::read(Some(dir.path()));
        assert_eq!(read().names(), []);
        let mut wanted = read();
        wanted.add(&name("home"));
        wanted.add(&name("work"));
        wanted.add(&name("home"));
        wanted.remove(&name("work"));
        assert_eq!(read().names(), [name("home")]);
        fs::write(dir.path().join("up"), "../shadow\nhome\n\nqanahd\n-x\nlab\n").unwrap();
        assert_eq!(read().names(), [name("home"), name("lab")]);
    }

    #[test]
    fn strange_files_are_no_names_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let up = dir.path().join("up");
        std::os::unix::fs::symlink("/etc/passwd", &up).unwrap();
        assert_eq!(Wanted::read(Some(dir.path())).names(), []);
        fs::remove_file(&up).unwrap();
        fs::write(&up, "a\n".repeat(1 << 20)).unwrap();
        assert_eq!(Wanted::read(Some(dir.path())).names(), [name("a")]);
        fs::write(&up, [0xff, 0xfe]).unwrap();
        assert_eq!(Wanted::read(Some(dir.path())).names(), []);
        let mut nowhere = Wanted::read(None);
        nowhere.add(&name("home"));
        assert_eq!(Wanted::read(None).names(), []);
    }
}
