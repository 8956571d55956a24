//! A whole daemon in a network namespace, asked over its socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::Instant;

use qanah_proto::{Connection, connect, error_detail, v1};
use tonic::Code;

use super::*;
use crate::platform::testing::{in_namespace, until};

const KEY: &str = "YAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=";
const OTHER_KEY: &str = "iEe5Bv7SHnBRbtpNNxzVt2WJ9fDMoXbEXXhtzsYjvXA=";
const PEERS: [&str; 2] = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
];

struct World {
    dir: tempfile::TempDir,
    client: Connection,
    daemon: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl World {
    /// A daemon of many tunnels, or of one whose configuration ends in these lines.
    async fn start(only: Option<(&str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run").join("x.sock");
        let only = only.map(|(name, more)| {
            write(&dir, name, more);
            ConfigFile::read(Some(&dir.path().join(format!("{name}.conf")))).unwrap()
        });
        let servers = ServerArgs {
            signal_server: vec!["none".into()],
            stun: vec!["stun:192.0.2.1:3478".into()],
            ..ServerArgs::default()
        };
        let daemon = tokio::task::spawn_local(Daemon::run(Settings {
            only,
            up: Vec::new(),
            servers,
            socket: Some(socket.clone()),
            directory: ConfigDir::at(dir.path()),
            memory: Some(dir.path().to_owned()),
            needs: None,
        }));
        until("the daemon listens", async || connect(&socket).await.is_ok()).await;
        let client = connect(&socket).await.unwrap();
        Self { dir, client, daemon }
    }

    fn write(&self, name: &str, more: &str) {
        write(&self.dir, name, more);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What hooks have noted, line by line.
    fn noted(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("noted")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A hook that notes a word, and what there is of the interface.
    fn note(&self, word: &str) -> String {
        let file = self.path("noted").display().to_string();
        format!(
            "echo {word} $(ip -o link show %i 2>/dev/null | wc -l) \
                 $(ip -o addr show %i 2>/dev/null | wc -l) >> {file}"
        )
    }

    async fn up(&self, name: &str) -> Result<v1::UpResponse, tonic::Status> {
        let source = v1::config_source::Source::Name(name.into());
        up(&self.client, source).await
    }

    async fn down(&self, name: &str) -> Result<Vec<String>, tonic::Status> {
        let request = v1::DownRequest { tunnel: name.into() };
        Ok(self.client.clone().down(request).await?.into_inner().notes)
    }

    async fn reload(&self, name: &str) -> Result<v1::ReloadResponse, tonic::Status> {
        let request = v1::ReloadRequest { tunnel: name.into() };
        Ok(self.client.clone().reload(request).await?.into_inner())
    }

    async fn tunnels(&self) -> Vec<v1::Tunnel> {
        let request = v1::StatusRequest { tunnel: None };
        self.client.clone().status(request).await.unwrap().into_inner().tunnels
    }
}

async fn up(
    client: &Connection,
    source: v1::config_source::Source,
) -> Result<v1::UpResponse, tonic::Status> {
    let config = Some(v1::ConfigSource { source: Some(source) });
    let request = v1::UpRequest { config, options: None };
    Ok(client.clone().up(request).await?.into_inner())
}

fn text(more: &str) -> String {
    format!("[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.1/24\n{more}\n")
}

fn write(dir: &tempfile::TempDir, name: &str, more: &str) {
    let path = dir.path().join(format!("{name}.conf"));
    fs::write(&path, text(more)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn reason(status: &tonic::Status) -> v1::Reason {
    error_detail(status).unwrap().reason()
}

/// The output of a command, in this namespace.
fn said(command: &str) -> String {
    let output = Process::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn exists(interface: &str) -> bool {
    !said(&format!("ip -o link show {interface} 2>/dev/null")).is_empty()
}

#[test]
fn tunnels_come_and_go_by_name_with_their_hooks() {
    in_namespace(|| async {
        let world = World::start(None).await;
        assert!(world.tunnels().await.is_empty());
        let hooks = ["PreUp", "PostUp", "PreDown", "PostDown"].map(|kind| {
            format!("{kind} = {}\n{kind} = {}", world.note(&format!("{kind}1")), world.note("then"))
        });
        world.write("first", &hooks.join("\n"));
        fs::write(world.path("second.conf"), text("").replace("10.9.0.1", "10.8.0.1")).unwrap();
        fs::set_permissions(world.path("second.conf"), Permissions::from_mode(0o600)).unwrap();

        let response = world.up("first").await.unwrap();
        let tunnel = response.tunnel.unwrap();
        assert_eq!((tunnel.name.as_str(), tunnel.mtu), ("first", 1400));
        assert_eq!(tunnel.addresses, ["10.9.0.1/24"]);
        // The interface is there before PreUp, but has nothing.
        assert_eq!(world.noted(), ["PreUp1 1 0", "then 1 0", "PostUp1 1 1", "then 1 1"]);
        let again = world.up("first").await.unwrap_err();
        assert_eq!((again.code(), reason(&again)), (Code::AlreadyExists, v1::Reason::AlreadyUp));

        world.up("second").await.unwrap();
        let names: Vec<_> = world.tunnels().await.into_iter().map(|tunnel| tunnel.name).collect();
        assert_eq!(names, ["first", "second"]);
        assert!(exists("first") && exists("second"));

        // The hooks are those that were read when it came up.
        world.write("first", "PostDown = echo changed >> /dev/null");
        assert_eq!(world.down("first").await.unwrap(), [""; 0]);
        assert_eq!(world.noted()[4..], ["PreDown1 1 1", "then 1 1", "PostDown1 0 0", "then 0 0"]);
        assert!(!exists("first") && exists("second"));
        let unknown = world.down("first").await.unwrap_err();
        assert_eq!(error_detail(&unknown).unwrap().known_tunnels, ["second"]);
        let missing = world.up("third").await.unwrap_err();
        assert_eq!(reason(&missing), v1::Reason::ConfigFile);
        assert!(!world.daemon.is_finished());
    });
}

#[test]
fn a_hook_that_fails_undoes_the_start() {
    in_namespace(|| async {
        let world = World::start(None).await;
        for kind in ["PreUp", "PostUp"] {
            let down = format!("PreDown = {0}\nPostDown = {0}", world.note("down"));
            world.write("t", &format!("{kind} = echo secret; exit 3\n{down}"));
            let status = world.up("t").await.unwrap_err();
            assert_eq!(reason(&status), v1::Reason::HookFailed);
            assert!(
                status.message().starts_with(&format!("{kind} command 1 failed with exit code 3"))
            );
            assert!(!status.message().contains("secret"));
            assert!(!exists("t") && world.tunnels().await.is_empty());
            // As wg-quick: what did not come up is not taken down.
            assert!(world.noted().is_empty());
        }
        // On the way down the rest is done.
        world.write(
            "t",
            &format!("PreDown = exit 4\nPostDown = exit 5\nPostDown = {}", world.note("end")),
        );
        world.up("t").await.unwrap();
        let notes = world.down("t").await.unwrap();
        assert!(notes[0].starts_with("PreDown command 1 failed with exit code 4"), "{notes:?}");
        assert!(notes[1].starts_with("PostDown command 1 failed with exit code 5"), "{notes:?}");
        assert_eq!(world.noted(), ["end 0 0"]);
    });
}

#[test]
fn a_start_that_hangs_is_broken_off_by_down() {
    in_namespace(|| async {
        let world = World::start(None).await;
        world.write("t", "PostUp = trap '' TERM; sleep 60");
        let (client, begin) = (world.client.clone(), Instant::now());
        let first = tokio::task::spawn_local(async move {
            up(&client, v1::config_source::Source::Name("t".into())).await
        });
        until("the interface is there", async || exists("t")).await;
        // The others are served meanwhile; a tunnel that is not up is not in the status.
        assert!(world.tunnels().await.is_empty());
        let second = world.up("t").await.unwrap_err();
        assert_eq!(reason(&second), v1::Reason::AlreadyUp);
        assert!(second.message().contains("coming up"), "{second}");
        let busy = world.reload("t").await.unwrap_err();
        assert_eq!(reason(&busy), v1::Reason::Busy);
        let (one, two) = tokio::join!(world.down("t"), world.down("t"));
        one.unwrap();
        two.unwrap();
        let broken_off = first.await.unwrap().unwrap_err();
        assert_eq!(reason(&broken_off), v1::Reason::StartFailed);
        assert!(broken_off.message().contains("taken down before it was up"), "{broken_off}");
        assert!(!exists("t"));
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
        world.write("t", "");
        world.up("t").await.unwrap();
    });
}

#[test]
fn texts_are_for_root_and_bring_no_hooks() {
    in_namespace(|| async {
        let world = World::start(None).await;
        let source = |more: &str| {
            let text = text(more).into_bytes();
            v1::config_source::Source::Text(v1::ConfigText { name: "t".into(), text })
        };
        let refused = up(&world.client, source("PostUp = true")).await.unwrap_err();
        assert_eq!(reason(&refused), v1::Reason::BadConfig);
        assert!(refused.message().contains("PostUp: hooks are not run from"), "{refused}");
        let mistake = up(&world.client, source("MTU = many")).await.unwrap_err();
        assert!(mistake.message().contains("`many`"), "root may see it: {mistake}");
        // Larger than what members may send.
        let large = format!("MTU = 1300\n{}", "# comment\n".repeat(50_000));
        up(&world.client, source(&large)).await.unwrap();
        let status = world.reload("t").await.unwrap_err();
        assert_eq!(reason(&status), v1::Reason::ConfigFile);
        world.down("t").await.unwrap();
    });
}

#[test]
fn a_reload_applies_the_differences() {
    in_namespace(|| async {
        let world = World::start(None).await;
        let peer = |key: &str, more: &str| format!("[Peer]\nPublicKey = {key}\n{more}\n");
        let first = peer(PEERS[0], "AllowedIPs = 10.9.0.2, 10.77.0.0/16");
        world.write("t", &first);
        world.up("t").await.unwrap();
        let index = said("ip -o link show t | cut -d: -f1");
        assert_eq!(world.reload("t").await.unwrap().changes, [""; 0]);

        let second = peer(PEERS[1], "AllowedIPs = 10.9.0.3, 10.78.0.0/16");
        let changed = peer(PEERS[0], "AllowedIPs = 10.9.0.2");
        world.write("t", &format!("MTU = 1300\nPostUp = true\n{second}{changed}"));
        let done = world.reload("t").await.unwrap();
        for expected in [
            "done: add the route to 10.78.0.0/16",
            "done: remove the route to 10.77.0.0/16",
            "done: set the MTU to 1300",
            "peer TrMvSoP4jY… added",
            "peer xTIBA5rboU… has other AllowedIPs",
        ] {
            assert!(done.changes.iter().any(|change| change == expected), "{done:?}");
        }
        assert!(done.notes.iter().any(|note| note.contains("hooks have changed")), "{done:?}");
        let tunnel = world.tunnels().await.remove(0);
        assert_eq!(tunnel.mtu, 1300);
        let peers: Vec<_> = tunnel.peers.iter().map(|peer| peer.public_key.as_str()).collect();
        assert_eq!(peers, [PEERS[1], PEERS[0]], "in the order of the file");
        assert_eq!(said("ip -o link show t | cut -d: -f1"), index, "the same interface");
        assert!(said("ip route").contains("10.78.0.0/16"));

        // What cannot be taken on leaves everything as it is.
        let before = said("ip -o addr show t; ip route");
        world.write("t", &peer(PEERS[0], "AllowedIPs = 10.9.0.2, 10.79.0.0/16"));
        let path = world.path("t.conf");
        let other = fs::read_to_string(&path).unwrap().replace(KEY, OTHER_KEY);
        fs::write(&path, other).unwrap();
        let refused = world.reload("t").await.unwrap_err();
        assert_eq!(reason(&refused), v1::Reason::BadConfig);
        assert!(refused.message().contains("PrivateKey has changed"), "{refused}");
        world.write("t", "MTU = many");
        assert_eq!(reason(&world.reload("t").await.unwrap_err()), v1::Reason::BadConfig);
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(reason(&world.reload("t").await.unwrap_err()), v1::Reason::ConfigFile);
        assert_eq!(said("ip -o addr show t; ip route"), before);

        world.write(
            "t",
            &peer(PEERS[1], "PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="),
        );
        let done = world.reload("t").await.unwrap();
        assert!(done.changes.iter().any(|c| c.contains("has another PresharedKey")), "{done:?}");
        assert!(done.changes.iter().any(|c| c.ends_with("removed")), "{done:?}");
        world.down("t").await.unwrap();
    });
}

#[test]
fn the_daemon_of_one_tunnel_begins_and_ends_with_it() {
    in_namespace(|| async {
        let world = World::start(Some(("only", "PostUp = true"))).await;
        until("the tunnel is up", async || world.tunnels().await.len() == 1).await;
        world.write("other", "");
        let refused = world.up("other").await.unwrap_err();
        assert_eq!(reason(&refused), v1::Reason::OneTunnel);
        assert_eq!(world.up("only").await.unwrap_err().code(), Code::AlreadyExists);
        let refused = world.down("only").await.unwrap_err();
        assert!(refused.message().contains("systemctl stop qanahd@only"), "{refused}");
        world.write("only", "MTU = 1300");
        assert_eq!(world.reload("only").await.unwrap().changes, ["done: set the MTU to 1300"]);
        said("ip link delete dev only");
        let failure = world.daemon.await.unwrap().unwrap_err();
        assert!(failure.to_string().contains("the interface is gone"), "{failure}");
    });
}

#[test]
fn the_daemon_of_many_outlives_each_and_tells_who_watches() {
    in_namespace(|| async {
        let world = World::start(None).await;
        let request = v1::WatchRequest { tunnel: None };
        let mut changes = world.client.clone().watch(request).await.unwrap().into_inner();
        let mut names = async || -> Vec<String> {
            let state = changes.message().await.unwrap().unwrap().status.unwrap();
            state.tunnels.into_iter().map(|tunnel| tunnel.name).collect()
        };
        assert!(names().await.is_empty());
        world.write("t", &format!("PostDown = {}", world.note("end")));
        world.up("t").await.unwrap();
        until("the tunnel is told", async || names().await == ["t"]).await;
        said("ip link delete dev t");
        until("its end is told", async || names().await.is_empty()).await;
        assert_eq!(world.noted(), ["end 0 0"]);
        world.up("t").await.unwrap();
        until("it is told again", async || names().await == ["t"]).await;
    });
}
