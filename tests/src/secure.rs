//! Servers for strict networks: TURN over TCP and TLS, a broker with TLS and WebSocket, an HTTP proxy.
//!
//! Each has an address of its own, so that two of them can have port 443. The broker has a machine of its
//! own as well: with WebSocket it takes the port at all addresses, whatever it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::{Lab, Node};
use crate::ns::{Namespace, Place};
use crate::process::{Proc, output};
use crate::servers::{TURN_PASSWORD, TURN_USER};
use crate::wait::{eventually, secs};

/// Address of the TURN server.
pub const TURN4: &str = "172.31.9.253";
/// Its name.
pub const TURN_NAME: &str = "turn.lab";
/// Address of the broker.
pub const BROKER4: &str = "172.31.9.252";
/// Its IPv6 address, where it has port 8883 alone: mosquitto's WebSocket listener has only IPv4.
pub const BROKER6: &str = "fd31:9::fc";
/// Its name.
pub const BROKER_NAME: &str = "broker.lab";
/// Address of the proxy.
pub const PROXY4: &str = "172.31.9.251";
/// Port of the proxy.
pub const PROXY_PORT: u16 = 3128;
/// User of the proxy and of the broker.
pub const USER: &str = "lab-user";
/// Password of that user at the proxy.
pub const PROXY_PASSWORD: &str = "proxy-password";
/// Password of that user at the broker.
pub const BROKER_PASSWORD: &str = "broker-password";
/// The secret of a TURN server that has one.
pub const TURN_SECRET: &str = "a-lab-secret";
/// The name by which the broker knows the certificate of a client.
pub const CLIENT_NAME: &str = "client-of-the-lab";

/// Gives the hub the addresses of the TURN server and the proxy.
///
/// # Errors
/// When it has them already.
pub fn addresses(lab: &Lab) -> Result<()> {
    for address in [TURN4, PROXY4] {
        lab.hub().run(&format!("ip addr add {address}/24 dev br0"))?;
    }
    Ok(())
}

/// Tells a place the names of the servers. Nodes have no DNS.
///
/// # Errors
/// When its hosts file cannot be written.
pub fn names(place: Place) -> Result<()> {
    let lines = format!("{TURN4} {TURN_NAME}\\n{BROKER4} {BROKER_NAME}\\n");
    place.shell(&format!("printf '{lines}' >> /etc/hosts")).map(drop)
}

/// A CA, with a certificate for each server and one for a client.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one of this name, with keys beneath `dir`.
    ///
    /// # Errors
    /// Without the program openssl.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        let authority = Self { dir };
        let subject = format!("/CN=CA {name}");
        authority.openssl(&format!(
            "req -x509 -days 2 -keyout ca.key -out ca.pem -subj {}",
            subject.replace(' ', "-")
        ))?;
        Ok(authority)
    }

    /// The file of a certificate, or of the CA's own (`ca`).
    pub fn cert(&self, name: &str) -> String {
        self.dir.join(format!("{name}.pem")).display().to_string()
    }

    /// The file of its key.
    pub fn key(&self, name: &str) -> String {
        self.dir.join(format!("{name}.key")).display().to_string()
    }

    /// Signs a certificate for a server of this DNS name, in the files `name`.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn server(&self, name: &str) -> Result<()> {
        self.sign(name, &format!("subjectAltName=DNS:{name}"))
    }

    /// Signs a certificate for a client, in the files `name`.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn client(&self, name: &str) -> Result<()> {
        self.sign(name, "extendedKeyUsage=clientAuth")
    }

    fn sign(&self, name: &str, extension: &str) -> Result<()> {
        self.openssl(&format!(
            "req -subj /CN={name} -addext {extension} -keyout {name}.key -out {name}.csr"
        ))?;
        let mut command = Command::new("openssl");
        let line = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -copy_extensions copy -out {name}.pem"
        );
        command.args(line.split_whitespace()).current_dir(&self.dir);
        output(command)?;
        fs::set_permissions(self.key(name), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn openssl(&self, line: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command
            .args(line.split_whitespace())
            .args("-nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1".split(' '))
            .current_dir(&self.dir);
        output(command).map(drop)
    }
}

fn listens(place: Place, address: &str, port: u16) -> Result<()> {
    let sockets = place.run(&format!("ss -Hltn src {address} sport = :{port}"))?;
    ensure!(!sockets.is_empty(), "nobody listens at {address}:{port}");
    Ok(())
}

/// How a [`SecureTurn`] lets clients in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnLogin {
    /// By [`TURN_USER`] and [`TURN_PASSWORD`].
    Password,
    /// By passwords that are made from [`TURN_SECRET`].
    Secret,
}

/// A coturn with UDP and TCP at port 3478 and TLS at port 443.
#[derive(Debug)]
pub struct SecureTurn {
    proc: Proc,
}

impl SecureTurn {
    /// Starts it with the certificate of this name and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(lab: &Lab, authority: &Authority, name: &str, login: TurnLogin) -> Result<Self> {
        Self::start_at(lab, &[TURN4], authority, name, login)
    }

    /// The same at these addresses of the hub, the first of which is [`TURN4`].
    ///
    /// # Errors
    /// When it does not.
    pub fn start_at(
        lab: &Lab,
        addresses: &[&str],
        authority: &Authority,
        name: &str,
        login: TurnLogin,
    ) -> Result<Self> {
        let dir = lab.dir();
        let listen = |address| format!("listening-ip={address}\nrelay-ip={address}\n");
        let addresses: String = addresses.iter().map(listen).collect();
        let login = match login {
            TurnLogin::Password => format!("lt-cred-mech\nuser={TURN_USER}:{TURN_PASSWORD}"),
            TurnLogin::Secret => format!("use-auth-secret\nstatic-auth-secret={TURN_SECRET}"),
        };
        let text = format!(
            "{addresses}listening-port=3478\ntls-listening-port=443\n\
             cert={}\npkey={}\n{login}\nrealm=lab\nno-dtls\nno-cli\nlog-file=stdout\nsimple-log\n\
             verbose\npidfile={dir}/secure-turn.pid\nuserdb={dir}/secure-turn.db\n\
             min-port=51000\nmax-port=51999\n",
            authority.cert(name),
            authority.key(name),
            dir = dir.display()
        );
        let conf = dir.join("secure-turn.conf");
        fs::write(&conf, text)?;
        let mut command = lab.hub().command("turnserver");
        command.arg("-c").arg(&conf);
        let mut proc = Proc::spawn("turnserver", command, &dir.join("secure-turn.log"))?;
        eventually("the TURN server listens", secs(20), || {
            proc.ensure_running()?;
            listens(lab.hub(), TURN4, 3478)?;
            listens(lab.hub(), TURN4, 443)
        })?;
        Ok(Self { proc })
    }

    /// Kills it, without a word to its clients but what the kernel says.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(mut self) -> Result<()> {
        self.proc.end(Signal::SIGKILL, secs(10)).map(drop)
    }

    /// All that it has logged, with the runs before it.
    pub fn log(&self) -> String {
        self.proc.log()
    }

    /// How many allocations clients have made so far, with the runs before it.
    pub fn made(&self) -> usize {
        self.log().matches("ALLOCATE processed, success").count()
    }

    /// How many allocations clients have given back: refreshed for a lifetime of 0.
    pub fn given_back(&self) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains("refreshed") && line.contains("lifetime=0")).count()
    }
}

/// A mosquitto on a machine of its own at [`BROKER4`]: MQTT over TLS at port 8883 and over WebSocket over TLS at port 443, for who
/// has a password, and over TLS at port 8884 for who has a certificate.
#[derive(Debug)]
pub struct SecureBroker {
    proc: Proc,
    _machine: Namespace,
}

impl SecureBroker {
    /// Starts it with the certificate of [`BROKER_NAME`] and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(lab: &Lab, authority: &Authority) -> Result<Self> {
        let dir = lab.dir();
        let machine = Namespace::new()?;
        let place = machine.place();
        lab.hub().shell(&format!(
            "ip link add broker type veth peer name eth0 netns {}
             ip link set broker master br0 up",
            place.holder()
        ))?;
        place.shell(&format!(
            "ip addr add {BROKER4}/24 dev eth0; ip addr add {BROKER6}/64 dev eth0 nodad
             ip link set eth0 up"
        ))?;
        let users = dir.join("secure-mosquitto.users");
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-b", "-c"]).arg(&users).args([USER, BROKER_PASSWORD]);
        output(command)?;
        let keys = format!(
            "certfile {}\nkeyfile {}\n",
            authority.cert(BROKER_NAME),
            authority.key(BROKER_NAME)
        );
        let users = format!("allow_anonymous false\npassword_file {}\n", users.display());
        let text = format!(
            "user root\nlog_dest stderr\nper_listener_settings true\n\
             listener 8883 {BROKER4}\n{keys}{users}\
             listener 8883 {BROKER6}\n{keys}{users}\
             listener 443\nprotocol websockets\n{keys}{users}\
             listener 8884 {BROKER4}\n{keys}cafile {}\nrequire_certificate true\n\
             use_identity_as_username true\n",
            authority.cert("ca")
        );
        let conf = dir.join("secure-mosquitto.conf");
        fs::write(&conf, text)?;
        let mut command = place.command("mosquitto");
        command.arg("-c").arg(&conf);
        let mut proc = Proc::spawn("mosquitto", command, &dir.join("secure-mosquitto.log"))?;
        eventually("the broker listens", secs(20), || {
            proc.ensure_running()?;
            let ports = [("*", 443), (BROKER4, 8883), (BROKER4, 8884)];
            ports.iter().try_for_each(|(address, port)| listens(place, address, *port))
        })?;
        Ok(Self { proc, _machine: machine })
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.proc.log()
    }
}

/// A tinyproxy at [`PROXY4`] that leads to port 443 alone, for [`USER`].
#[derive(Debug)]
pub struct Proxy {
    proc: Proc,
}

impl Proxy {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.dir();
        let text = format!(
            "User root\nGroup root\nListen {PROXY4}\nPort {PROXY_PORT}\nTimeout 600\nLogLevel Connect\n\
             MaxClients 100\nBasicAuth {USER} {PROXY_PASSWORD}\nConnectPort 443\n"
        );
        let conf = dir.join("tinyproxy.conf");
        fs::write(&conf, text)?;
        let mut command = lab.hub().command("tinyproxy");
        command.arg("-d").arg("-c").arg(&conf);
        let mut proc = Proc::spawn("tinyproxy", command, &dir.join("tinyproxy.log"))?;
        eventually("the proxy listens", secs(20), || {
            proc.ensure_running()?;
            listens(lab.hub(), PROXY4, PROXY_PORT)
        })?;
        Ok(Self { proc })
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.proc.log()
    }

    /// Its URL, with this password.
    pub fn url(password: &str) -> String {
        format!("http://{USER}:{password}@{PROXY4}:{PROXY_PORT}")
    }
}

/// Lets nothing leave a node, and nothing come in, but what this rule of nft accepts (such as `tcp dport
/// 443`) and the answers to it. Inside its tunnels everything goes.
///
/// # Errors
/// When nft does not take it.
pub fn only(node: &Node, rule: &str) -> Result<()> {
    node.place()
        .shell(&format!(
            "nft add table inet only
             nft 'add chain inet only out {{ type filter hook output priority 0; }}'
             nft add rule inet only out oifname eth0 {rule} counter accept
             nft add rule inet only out oifname eth0 counter drop
             nft 'add chain inet only in {{ type filter hook input priority 0; }}'
             nft add rule inet only in iifname eth0 ct state established counter accept
             nft add rule inet only in iifname eth0 counter drop"
        ))
        .map(drop)
}
