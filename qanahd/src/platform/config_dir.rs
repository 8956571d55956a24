//! The directory of configurations, from which anybody in the group may start a tunnel by name.
//!
//! The daemon is root and the name comes from somebody else. So the file is opened beneath the
//! directory without following links and without waiting, and all that is asked of the file is asked
//! of the open descriptor, from which it is then read: what happens to the name meanwhile
//! does not matter. Nobody but root can have written what is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, fstat, fstatat};
use qanah_core::config::{MAX_FILE_LEN, TunnelName};
use zeroize::Zeroizing;

/// Where configurations are.
const DIRECTORY: &str = "/etc/qanah";
/// Root.
const OWNER: u32 = 0;
/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;
/// Permission to write of others than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Why a configuration cannot be had by its name. None of it tells what is in the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigDirError {
    /// There is no such directory.
    #[error("there is no directory {0}: make it, and put the configuration into it")]
    NoDirectory(PathBuf),
    /// Others could put files into the directory.
    #[error(
        "{0} must be a directory of root's that nobody else can write to: chown root {0}; \
             chmod go-w {0}"
    )]
    UnsafeDirectory(PathBuf),
    /// There is no such file.
    #[error("there is no {0}")]
    Missing(PathBuf),
    /// A symbolic link.
    #[error("{0} is a symbolic link, which is not followed here: put the file itself there")]
    Link(PathBuf),
    /// Something else than a file.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// Not root's, or open to others.
    #[error("{0} must belong to root and be closed to all others: chown root {0}; chmod 600 {0}")]
    Open(PathBuf),
    /// The file can be reached by another name, too.
    #[error("{0} has another name (a hard link): copy it, so that it has this one only")]
    OtherNames(PathBuf),
    /// A system call failed.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory of configurations.
#[derive(Debug, Clone)]
pub(crate) struct ConfigDir {
    path: PathBuf,
}

impl Default for ConfigDir {
    fn default() -> Self {
        Self::at(DIRECTORY)
    }
}

impl ConfigDir {
    /// Another directory than `/etc/qanah`, of which the same is asked.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of a tunnel's configuration, for messages.
    pub(crate) fn file(&self, name: &TunnelName) -> PathBuf {
        self.path.join(format!("{name}.conf"))
    }

    /// The path of the file with options of the service of this name.
    pub(crate) fn environment(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.env"))
    }

    /// Reads the configuration of a tunnel: one byte more than it may have, so that the
    /// parser sees one that is too long.
    ///
    /// # Errors
    /// See [`ConfigDirError`].
    pub(crate) fn read(&self, name: &TunnelName) -> Result<Zeroizing<Vec<u8>>, ConfigDirError> {
        let path = self.file(name);
        let directory = self.open_directory()?;
        let file = open_beneath(&directory, &format!("{name}.conf")).map_err(|errno| {
            let path = path.clone();
            match errno {
                Errno::ENOENT => ConfigDirError::Missing(path),
                Errno::ELOOP => ConfigDirError::Link(path),
                // A socket, or a device without its driver.
                Errno::ENXIO | Errno::ENODEV => ConfigDirError::NotRegular(path),
                // Root without the capability that opens everything cannot read what others closed.
                Errno::EACCES if is_of_others(&directory, name) => ConfigDirError::Open(path),
                _ => ConfigDirError::Read { file: path, source: errno.into() },
            }
        })?;
        let mut text = Zeroizing::new(Vec::new());
        let read = checked(File::from(file), &path, &mut text);
        read.map(|()| text)
    }

    fn open_directory(&self) -> Result<OwnedFd, ConfigDirError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT => ConfigDirError::NoDirectory(self.path.clone()),
            // Both are said of a link, by the version of the kernel.
            Errno::ENOTDIR | Errno::ELOOP => ConfigDirError::UnsafeDirectory(self.path.clone()),
            _ => ConfigDirError::Read { file: self.path.clone(), source: errno.into() },
        })?;
        let found = fstat(directory.as_fd()).map_err(|errno| ConfigDirError::Read {
            file: self.path.clone(),
            source: errno.into(),
        })?;
        if found.st_uid != OWNER || found.st_mode & OTHERS_WRITE != 0 {
            return Err(ConfigDirError::UnsafeDirectory(self.path.clone()));
        }
        Ok(directory)
    }
}

/// Whether a file that cannot be opened belongs to somebody else.
fn is_of_others(directory: &OwnedFd, name: &TunnelName) -> bool {
    let name = format!("{name}.conf");
    let found = fstatat(directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| found.st_uid != OWNER)
}

/// Checks an open file and reads it. The buffer has its room from the start: one that grows leaves
/// copies of keys behind.
fn checked(file: File, path: &Path, text: &mut Zeroizing<Vec<u8>>) -> Result<(), ConfigDirError> {
    let failed = |source| ConfigDirError::Read { file: path.to_owned(), source };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(ConfigDirError::NotRegular(path.to_owned()));
    }
    if found.uid() != OWNER || found.mode() & OTHERS != 0 {
        return Err(ConfigDirError::Open(path.to_owned()));
    }
    // None is well: the file was replaced after it was opened, and is still root's.
    if found.nlink() > 1 {
        return Err(ConfigDirError::OtherNames(path.to_owned()));
    }
    text.reserve_exact(MAX_FILE_LEN + 1);
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(text).map_err(failed)?;
    Ok(())
}

/// Opens a file in a directory: never outside of it, never by a link, never waiting (for the
/// writer of a FIFO).
fn open_beneath(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_NONBLOCK
        | OFlag::O_NOFOLLOW
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(directory, name, OpenHow::new().flags(flags).resolve(resolve)) {
        // Older than Linux 5.6; EPERM is what old container runtimes make of a call that they do
        // not know. The name has no slash, so this is as good.
        Err(Errno::ENOSYS | Errno::EPERM) => openat(directory, name, flags, Mode::empty()),
        result => result,
    }
}

#[cfg(test)]
#[path = "config_dir_tests.rs"]
mod tests;
