use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::process;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A group that is surely not the one that files get by default, when we may choose.
fn some_group() -> Gid {
    if geteuid().is_root() { Gid::from_raw(12345) } else { nix::unistd::getegid() }
}

#[tokio::test]
async fn modes_and_group_of_a_new_directory_and_socket() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let path = run.join("peer1.sock");
    let socket = bind(&path, Some(some_group())).unwrap();
    assert_eq!((mode(&run), mode(&path)), (0o750, 0o660));
    for made in [&run, &path] {
        assert_eq!(fs::metadata(made).unwrap().gid(), some_group().as_raw());
    }
    drop(socket);
    let left = fs::read_dir(&run).unwrap().count();
    assert_eq!(left, 0, "socket and lock are removed");
}

#[tokio::test]
async fn without_a_group_it_is_roots_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/peer1.sock");
    let _socket = bind(&path, None).unwrap();
    assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
}

#[tokio::test]
async fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    let first = bind(&path, None).unwrap();
    let error = bind(&path, None).unwrap_err();
    let ours = i32::try_from(process::id()).unwrap();
    assert!(matches!(error, ControlError::InUse { pid: Some(pid), .. } if pid == ours), "{error}");
    assert!(error.to_string().contains(&ours.to_string()));
    // The first one still answers, and the name is free again after it.
    StdStream::connect(&path).unwrap();
    drop(first);
    bind(&path, None).unwrap();
}

#[tokio::test]
async fn a_listener_without_a_lock_is_respected_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    let _other = StdListener::bind(&path).unwrap();
    let error = bind(&path, None).unwrap_err();
    assert!(matches!(error, ControlError::InUse { pid: Some(_), .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_daemon_that_starts_at_this_moment_is_told_by_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    let lock = take_lock(dir.path(), &path).unwrap();
    assert_eq!(mode(&lock.path), 0o600);
    let error = bind(&path, None).unwrap_err();
    assert!(matches!(error, ControlError::InUse { pid: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(StdStream::connect(&path).is_err());
    let _socket = bind(&path, None).unwrap();
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn links_and_files_at_the_place_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target.sock");
    drop(StdListener::bind(&target).unwrap());
    let link = dir.path().join("link.sock");
    symlink(&target, &link).unwrap();
    let dangling = dir.path().join("dangling.sock");
    symlink(dir.path().join("nothing"), &dangling).unwrap();
    let file = dir.path().join("file.sock");
    fs::write(&file, "precious").unwrap();
    for path in [&link, &dangling, &file] {
        let error = bind(path, None).unwrap_err();
        assert!(matches!(error, ControlError::NotASocket(_)), "{error}");
        assert!(fs::symlink_metadata(path).is_ok());
    }
    assert!(target.exists() && !dir.path().join("nothing").exists());
}

#[tokio::test]
async fn a_linked_lock_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.path().join(".peer1.sock.lock")).unwrap();
    assert!(bind(&dir.path().join("peer1.sock"), None).is_err());
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bits in [0o770, 0o707, 0o1777] {
        fs::set_permissions(dir.path(), Permissions::from_mode(bits)).unwrap();
        let error = bind(&dir.path().join("x.sock"), None).unwrap_err();
        assert!(matches!(error, ControlError::UnsafeDirectory(_)), "{error}");
    }
}

#[tokio::test]
async fn a_socket_that_is_no_longer_ours_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    let socket = bind(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = StdListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_is_an_error_that_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let error = bind(&dir.path().join("x".repeat(120)), None).unwrap_err();
    assert!(error.to_string().contains("path of a socket"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Twenty daemons at once, over a stale socket: exactly one gets it, and it works.
#[tokio::test]
async fn of_many_that_start_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer1.sock");
    for _ in 0..20 {
        drop(StdListener::bind(&path).unwrap());
        let runtime = tokio::runtime::Handle::current();
        let barrier = std::sync::Barrier::new(20);
        let results: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                let _entered = runtime.enter();
                barrier.wait();
                bind(&path, None)
            };
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 19));
        assert!(lost.iter().all(|r| matches!(r, Err(ControlError::InUse { .. }))));
        StdStream::connect(&path).unwrap();
    }
}
