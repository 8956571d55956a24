use super::*;
use crate::testing::{FakeDaemon, tunnel};

#[tokio::test]
async fn the_only_tunnel_needs_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = Sockets::All(dir.path().into());
    FakeDaemon::start(dir.path(), "qanahd", vec![]);
    let none = super::tunnel(&sockets, None).await.unwrap_err();
    assert_eq!((none[0].message.as_str(), none[0].exit), ("no tunnel is up", Exit::Down));
    let one = FakeDaemon::start(dir.path(), "peer1", vec![tunnel("peer1")]);
    // One that died is of no interest here.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("x.sock")).unwrap());
    let found = super::tunnel(&sockets, None).await.unwrap();
    assert_eq!((found.tunnel.name.as_str(), &found.socket), ("peer1", &one.path));
    FakeDaemon::start(dir.path(), "peer2", vec![tunnel("peer2")]);
    let several = super::tunnel(&sockets, None).await.unwrap_err();
    assert_eq!(several[0].message, "there are several tunnels: peer1, peer2");
    assert_eq!(several[0].exit, Exit::Usage);
    assert_eq!(super::tunnel(&sockets, Some("peer2")).await.unwrap().tunnel.name, "peer2");
    let unknown = super::tunnel(&sockets, Some("peer9")).await.unwrap_err();
    assert_eq!(unknown[0].exit, Exit::Down);
}

#[tokio::test]
async fn two_daemons_with_one_name_are_told_apart_by_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    FakeDaemon::start(dir.path(), "a", vec![tunnel("peer1")]);
    FakeDaemon::start(dir.path(), "b", vec![tunnel("peer1")]);
    let sockets = Sockets::All(dir.path().into());
    let trouble = super::tunnel(&sockets, Some("peer1")).await.unwrap_err();
    assert!(trouble[0].message.contains("a.sock") && trouble[0].message.contains("b.sock"));
    assert!(trouble[0].hint.clone().unwrap().contains("--socket"));
}

#[test]
fn any_daemon_can_read_files() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = Sockets::All(dir.path().into());
    assert_eq!(any_daemon(&sockets, "b").unwrap_err().exit, Exit::Down);
    let _held = ["a", "b", "qanahd"].map(|name| {
        let path = dir.path().join(format!("{name}.sock"));
        let wanted = if name == "a" { "a" } else { "b" };
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let found = any_daemon(&sockets, "b").unwrap();
        let wanted = if name == "qanahd" { "qanahd" } else { wanted };
        assert_eq!(found.file_stem().unwrap(), wanted);
        listener
    });
}
