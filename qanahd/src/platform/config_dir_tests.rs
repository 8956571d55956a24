use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::stat::{SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use super::super::testing::require_root;
use super::*;

const GOOD: &[u8] = b"[Interface]\n# root wrote this\n";

/// A directory of root's, with a good file `t.conf`.
fn directory() -> (tempfile::TempDir, ConfigDir) {
    require_root();
    let temporary = tempfile::tempdir().unwrap();
    let directory = ConfigDir::at(temporary.path());
    write(&temporary.path().join("t.conf"), GOOD, 0o600);
    (temporary, directory)
}

fn write(path: &Path, text: &[u8], mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn read(directory: &ConfigDir) -> Result<Zeroizing<Vec<u8>>, ConfigDirError> {
    directory.read(&"t".parse().unwrap())
}

#[test]
fn a_file_of_roots_that_is_closed_to_others_is_read() {
    let (temporary, directory) = directory();
    assert_eq!(*read(&directory).unwrap(), GOOD);
    write(&temporary.path().join("t.conf"), GOOD, 0o400);
    assert_eq!(*read(&directory).unwrap(), GOOD);
    let missing = directory.read(&"x".parse().unwrap());
    assert!(matches!(missing, Err(ConfigDirError::Missing(_))));
}

#[test]
fn what_is_open_to_others_or_theirs_is_refused() {
    let (temporary, directory) = directory();
    let path = temporary.path().join("t.conf");
    for mode in [0o640, 0o620, 0o602, 0o604, 0o601, 0o610] {
        write(&path, GOOD, mode);
        assert!(matches!(read(&directory), Err(ConfigDirError::Open(_))), "{mode:o}");
    }
    write(&path, GOOD, 0o600);
    chown(&path, Some(65_534), None).unwrap();
    assert!(matches!(read(&directory), Err(ConfigDirError::Open(_))));
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let (temporary, directory) = directory();
    for mode in [0o720, 0o702, 0o1777] {
        fs::set_permissions(temporary.path(), Permissions::from_mode(mode)).unwrap();
        assert!(matches!(read(&directory), Err(ConfigDirError::UnsafeDirectory(_))), "{mode:o}");
    }
    fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(read(&directory).is_ok());
    chown(temporary.path(), Some(65_534), None).unwrap();
    assert!(matches!(read(&directory), Err(ConfigDirError::UnsafeDirectory(_))));

    let link = temporary.path().join("link");
    symlink("/etc", &link).unwrap();
    let linked = read(&ConfigDir::at(&link));
    assert!(matches!(linked, Err(ConfigDirError::UnsafeDirectory(_))), "{linked:?}");
    let none = read(&ConfigDir::at(temporary.path().join("none")));
    assert!(matches!(none, Err(ConfigDirError::NoDirectory(_))));
}

#[test]
fn links_are_not_followed() {
    let (temporary, directory) = directory();
    let path = temporary.path().join("t.conf");
    let elsewhere = temporary.path().join("elsewhere");
    write(&elsewhere, GOOD, 0o600);
    for target in [elsewhere.as_path(), Path::new("elsewhere"), Path::new("/proc/self/mem")] {
        fs::remove_file(&path).unwrap();
        symlink(target, &path).unwrap();
        assert!(matches!(read(&directory), Err(ConfigDirError::Link(_))), "{target:?}");
    }
    fs::remove_file(&path).unwrap();
    fs::hard_link(&elsewhere, &path).unwrap();
    assert!(matches!(read(&directory), Err(ConfigDirError::OtherNames(_))));
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let (temporary, directory) = directory();
    let path = temporary.path().join("t.conf");
    let begin = Instant::now();
    let refused = |what: &str| {
        let result = read(&directory);
        assert!(matches!(result, Err(ConfigDirError::NotRegular(_))), "{what}: {result:?}");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    };
    fs::remove_file(&path).unwrap();
    mkfifo(&path, Mode::S_IRUSR).unwrap();
    refused("a FIFO that nobody writes to");
    mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 5)).unwrap();
    refused("/dev/zero, which never ends");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused("a socket");
    drop(socket);
    fs::create_dir(&path).unwrap();
    refused("a directory");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_huge_file_is_read_as_far_as_its_limit() {
    let (temporary, directory) = directory();
    // Sparse, so that it costs nothing but would fill the memory.
    let file = File::options().write(true).open(temporary.path().join("t.conf")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(read(&directory).unwrap().len(), MAX_FILE_LEN + 1);
}

/// Somebody who could write to the directory swaps files under the daemon's hands: whatever it
/// reads was root's, closed to others and no link at the moment when it was checked.
#[test]
fn files_that_change_while_they_are_opened_never_pass_for_others() {
    let (temporary, directory) = directory();
    let at = |name: &str| temporary.path().join(name);
    let done = AtomicBool::new(false);
    let mut kinds = [0usize; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                write(&at("foreign"), b"evil", 0o600);
                chown(at("foreign"), Some(65_534), None).unwrap();
                fs::rename(at("foreign"), at("t.conf")).unwrap();
                write(&at("open"), b"evil", 0o666);
                fs::rename(at("open"), at("t.conf")).unwrap();
                symlink("/etc/shadow", at("link")).unwrap();
                fs::rename(at("link"), at("t.conf")).unwrap();
                fs::write(at("good"), GOOD).unwrap();
                fs::set_permissions(at("good"), Permissions::from_mode(0o600)).unwrap();
                fs::rename(at("good"), at("t.conf")).unwrap();
            }
        });
        let begin = Instant::now();
        // Until both were seen often, and for some time in any case.
        while kinds.iter().any(|seen| *seen < 200) && begin.elapsed() < Duration::from_secs(20) {
            match read(&directory) {
                Ok(text) => {
                    assert_eq!(*text, GOOD);
                    kinds[0] += 1;
                }
                Err(_) => kinds[1] += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(kinds.iter().all(|seen| *seen > 0), "{kinds:?}");
}
