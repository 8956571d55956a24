use super::*;

#[test]
fn no_daemon_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [dir.path().to_owned(), dir.path().join("missing")] {
        let trouble = Sockets::All(dir).find().unwrap_err();
        assert_eq!(trouble.exit, Exit::Down);
        assert!(trouble.hint.unwrap().contains("systemctl start qanahd@NAME"));
    }
}

#[test]
fn every_way_of_not_connecting_has_its_exit_code_and_a_hint() {
    let path = || PathBuf::from("/run/qanah/peer1.sock");
    let other = ConnectError::Other { path: path(), source: io::ErrorKind::Other.into() };
    let cases = [
        (ConnectError::NoSocket(path()), Exit::Down, "systemctl start"),
        (ConnectError::Stale(path()), Exit::Down, "systemctl start qanahd@peer1"),
        (ConnectError::Denied(path()), Exit::Denied, "group qanah"),
        (ConnectError::Busy(path()), Exit::Failed, "journalctl"),
        (other, Exit::Failed, "journalctl"),
    ];
    for (error, exit, hint) in cases {
        let trouble = unconnected(&error);
        assert_eq!(trouble.exit, exit);
        assert!(trouble.hint.unwrap().contains(hint), "{error}");
        assert!(trouble.message.contains("/run/qanah/peer1.sock"));
    }
}

#[test]
fn every_status_has_its_exit_code() {
    let path = Path::new("x.sock");
    let cases = [
        (Code::NotFound, Exit::Down),
        (Code::InvalidArgument, Exit::Usage),
        (Code::PermissionDenied, Exit::Denied),
        (Code::Unimplemented, Exit::Failed),
        (Code::Cancelled, Exit::Failed),
        (Code::Unknown, Exit::Failed),
        (Code::Internal, Exit::Failed),
    ];
    for (code, exit) in cases {
        let trouble = refused(path, &Status::new(code, "why"));
        assert_eq!(trouble.exit, exit, "{code:?}");
        assert!(trouble.message.contains("why"), "{trouble:?}");
    }
}

/// A broken connection has many codes, among them those that a daemon may send.
#[test]
fn a_broken_connection_is_told_as_such_whatever_its_code() {
    let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
    let cancelled = Status::from_error(Box::new(tonic::TimeoutExpired(())));
    assert_eq!((broken.code(), cancelled.code()), (Code::Unknown, Code::Cancelled));
    for status in [broken, cancelled] {
        let trouble = refused(Path::new("x.sock"), &status);
        assert_eq!(trouble.message, "the daemon behind x.sock closed the connection");
    }
}
