//! Where the control sockets are.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The directory of all control sockets.
pub const RUN_DIR: &str = "/run/qanah";

/// The group whose members may open the control sockets.
pub const GROUP: &str = "qanah";

/// The file name of the socket of the daemon that serves many tunnels.
pub const DAEMON_SOCKET: &str = "qanahd.sock";

/// The socket of the daemon that serves many tunnels.
pub fn default_socket() -> PathBuf {
    Path::new(RUN_DIR).join(DAEMON_SOCKET)
}

/// The socket of the daemon that serves only the tunnel `name`.
///
/// `name` must be a checked name of a tunnel: one without a slash.
pub fn tunnel_socket(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(format!("{name}.sock"))
}

/// Every control socket in `dir`: the daemon of many tunnels first, the others by name.
///
/// A directory that does not exist holds none.
///
/// # Errors
///
/// When the directory cannot be read, notably for want of permission.
pub fn list_sockets(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let named = path.extension().is_some_and(|ext| ext == "sock");
        // An entry may vanish between the listing and this look: then it is no socket.
        if named && entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            found.push(path);
        }
    }
    found.sort_by_key(|path| (path.file_name().is_none_or(|n| n != DAEMON_SOCKET), path.clone()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_are_listed_and_the_daemon_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _held = ["peer1.sock", "a.sock", "qanahd.sock", "other"]
            .map(|name| UnixListener::bind(path(name)).unwrap());
        fs::write(path("file.sock"), "").unwrap();
        std::os::unix::fs::symlink(path("a.sock"), path("link.sock")).unwrap();
        let expected = ["qanahd.sock", "a.sock", "peer1.sock"].map(path);
        assert_eq!(list_sockets(dir.path()).unwrap(), expected);
    }

    #[test]
    fn no_directory_means_no_sockets() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list_sockets(&dir.path().join("none")).unwrap(), Vec::<PathBuf>::new());
    }
}
