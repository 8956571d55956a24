//! Making the control socket so that at no moment the wrong people can open it.
//!
//! The order is: lock, look, remove what is stale, bind with mode 0600, give it to the group, set
//! mode 0660, listen. Only then can anybody connect. The lock is a file beside the socket under
//! flock(2), held until the daemon ends: of two daemons that start at once only one gets past it,
//! so removing a stale socket cannot hit the fresh one of the other.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UnixListener;

/// Connections that wait to be accepted. More are refused by the kernel.
const BACKLOG: i32 = 128;

/// Why there is no control socket.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// Another daemon serves it.
    #[error("another qanahd{} already serves {}", with_pid(.pid), .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The other daemon's process id, when it could be learnt.
        pid: Option<i32>,
    },
    /// Something else is at its place, and it is not ours to remove.
    #[error("{} exists and is not a socket; it is left alone", .0.display())]
    NotASocket(PathBuf),
    /// Others could replace the socket in this directory.
    #[error(
        "the directory {} must belong to root (or to the user of the daemon) and must not be \
         writable by group or others, for a control socket to be safe in it", .0.display()
    )]
    UnsafeDirectory(PathBuf),
    /// A system call failed.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The gRPC server ended with an error.
    #[error("the control server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

fn with_pid(pid: &Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Names the operation and the file of an I/O error.
fn io_at<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> ControlError {
    move |source| ControlError::Io { what, path: path.to_owned(), source: source.into() }
}

/// The group whose members may open the socket; `None`, with a warning, where it does not exist.
pub(crate) fn control_group() -> Option<Gid> {
    let name = qanah_proto::socket::GROUP;
    match Group::from_name(name) {
        Ok(Some(group)) => return Some(group.gid),
        Ok(None) => {
            tracing::warn!("there is no group {name}: only root can use the control socket")
        }
        Err(error) => tracing::warn!(
            "the group {name} cannot be looked up ({error}): only root can use the control socket"
        ),
    }
    None
}

/// A bound control socket with the right to its name.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    /// Takes the connections.
    pub(crate) listener: UnixListener,
    /// Removes the socket when dropped. Keep it as long as the daemon runs.
    pub(crate) guard: SocketGuard,
}

/// The socket's file and the right to its name. Dropping it removes the file if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketGuard {
    path: PathBuf,
    identity: (u64, u64),
    // Dropped after the socket is gone, so that the next daemon finds nothing stale.
    _lock: NameLock,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // Whoever replaced the socket by hand keeps the new one.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The lock beside a socket. Its file is removed while it is still locked; `take_lock` copes
/// with those who have it open then.
#[derive(Debug)]
struct NameLock {
    path: PathBuf,
    identity: (u64, u64),
    file: Flock<File>,
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another one of the same name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

/// Makes the control socket at `path`, for root and, if given, the members of `group`.
///
/// Must be called within a tokio runtime. The directory is created when it is missing.
///
/// # Errors
///
/// See [`ControlError`]; a second daemon on the same socket is refused with the pid of the first.
pub(crate) fn bind(path: &Path, group: Option<Gid>) -> Result<ControlSocket, ControlError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    prepare_directory(dir, group)?;
    let lock = take_lock(dir, path)?;
    clear_stale(path)?;

    let address = SockAddr::unix(path).map_err(io_at("use as the path of a socket", path))?;
    let socket =
        Socket::new(Domain::UNIX, Type::STREAM, None).map_err(io_at("make a socket for", path))?;
    // Linux creates the file with the mode of the socket itself, so there is no moment at which it
    // has another one, and no need to touch the umask of the whole process.
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(io_at("set the mode of", path))?;
    socket.bind(&address).map_err(io_at("bind the control socket", path))?;
    // From here on the guard cleans up, whatever fails.
    let identity = identity(path).map_err(io_at("look at", path))?;
    let guard = SocketGuard { path: path.to_owned(), identity, _lock: lock };

    if let Some(group) = group {
        // By path, which is safe: nobody else can write to the directory. Where the directory hands
        // its group on (mode 2750, as packages make it) there is nothing to give: a service that may
        // not change owners lives by that.
        let found = fs::symlink_metadata(path).map_err(io_at("look at", path))?;
        if found.gid() != group.as_raw() {
            lchown(path, None, Some(group.as_raw())).map_err(io_at("give to the group", path))?;
        }
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(io_at("set the mode of", path))?;
    }
    socket.listen(BACKLOG).map_err(io_at("listen on", path))?;
    socket.set_nonblocking(true).map_err(io_at("set up", path))?;
    let listener = UnixListener::from_std(socket.into()).map_err(io_at("set up", path))?;
    Ok(ControlSocket { listener, guard })
}

/// Makes the directory (0750 root:group, or 0700 without a group), or checks the one there is.
fn prepare_directory(dir: &Path, group: Option<Gid>) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some(group) = group {
                lchown(dir, None, Some(group.as_raw())).map_err(io_at("give to the group", dir))?;
                fs::set_permissions(dir, Permissions::from_mode(0o750))
                    .map_err(io_at("set the mode of", dir))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_at("create the directory", dir)(error)),
    }
    let found = fs::metadata(dir).map_err(io_at("look at the directory", dir))?;
    let ours = found.uid() == 0 || found.uid() == geteuid().as_raw();
    if !found.is_dir() || !ours || found.mode() & 0o022 != 0 {
        return Err(ControlError::UnsafeDirectory(dir.to_owned()));
    }
    Ok(())
}

/// Takes the lock that belongs to the socket `path`, and writes our pid into it.
fn take_lock(dir: &Path, socket: &Path) -> Result<NameLock, ControlError> {
    let name = socket.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let path = dir.join(format!(".{name}.lock"));
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(io_at("open the lock", &path))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = listener_pid(socket).or_else(|| written_pid(&path));
                return Err(ControlError::InUse { path: socket.to_owned(), pid });
            }
            Err((_, errno)) => return Err(io_at("lock", &path)(errno)),
        };
        let held = file.metadata().map_err(io_at("look at", &path))?;
        let held = (held.dev(), held.ino());
        // The one who held it before may have removed the file between our open and our lock:
        // then this lock protects nothing, and the next try makes a new file.
        if !identity(&path).is_ok_and(|found| found == held) {
            continue;
        }
        let mut lock = NameLock { path, identity: held, file };
        // Only informative: for a daemon that starts before we listen.
        let _ = lock.file.set_len(0);
        let _ = writeln!(*lock.file, "{}", std::process::id());
        return Ok(lock);
    }
}

/// Removes a socket that nobody listens on. Refuses to touch anything else.
fn clear_stale(path: &Path) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_at("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match probe(path) {
        // Nobody there: its daemon died without removing it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_at("remove the stale socket", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue means that somebody listens, too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ControlError::InUse { path: path.to_owned(), pid: None })
        }
        Err(error) => Err(io_at("connect to the socket that is there,", path)(error)),
        Ok(socket) => Err(ControlError::InUse { path: path.to_owned(), pid: peer_pid(&socket) }),
    }
}

/// Connects without waiting, to see who listens.
fn probe(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn peer_pid(socket: &Socket) -> Option<i32> {
    getsockopt(socket, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
}

fn listener_pid(path: &Path) -> Option<i32> {
    probe(path).ok().as_ref().and_then(peer_pid)
}

fn written_pid(lock_path: &Path) -> Option<i32> {
    fs::read_to_string(lock_path).ok()?.trim().parse().ok()
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
