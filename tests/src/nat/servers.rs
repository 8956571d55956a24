//! The servers of the matrix: one broker and one TURN server, for all kinds of sites at once.

use anyhow::Result;

use crate::daemon::Options;
use crate::lab::{HUB4, Lab};
use crate::nat::probe;
use crate::ns::Place;
use crate::secure::{
    Authority, BROKER_NAME, BROKER_PASSWORD, BROKER4, BROKER6, SecureBroker, SecureTurn, TURN_NAME,
    TURN4, TurnLogin, USER, addresses,
};
use crate::servers::{TURN_PASSWORD, TURN_USER};

/// The IPv6 address of the TURN server.
/// The same over IPv6.
pub(super) const TURN6: &str = "fd31:9::fd";

/// A broker (WebSocket over TLS at port 443), a STUN and TURN server (UDP at 3478, TLS at 443) and the
/// server of the probe.
#[derive(Debug)]
pub struct Servers {
    authority: Authority,
    /// The TURN server, to be asked how much it did.
    pub turn: SecureTurn,
    _broker: SecureBroker,
    /// The server of the probe.
    pub probe: probe::Server,
}

impl Servers {
    /// Starts them all in the hub of a lab.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        addresses(lab)?;
        // What a server sends to nobody vanishes without an error, as on the Internet: coturn ends the stream
        // of a client that makes it meet one.
        lab.hub().shell(&format!(
            "ip addr add {TURN6}/64 dev br0 nodad
             ip link add void type veth peer name away
             ip link set void up; ip link set away up
             ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev void
             ip neigh add fe80::1 lladdr 02:00:00:00:00:01 dev void
             ip route add default via 198.51.100.1 dev void onlink
             ip -6 route add default via fe80::1 dev void onlink"
        ))?;
        let authority = Authority::new(lab.dir(), "authority")?;
        for name in [TURN_NAME, BROKER_NAME] {
            authority.server(name)?;
        }
        let login = TurnLogin::Password;
        let turn = SecureTurn::start_at(lab, &[TURN4, HUB4, TURN6], &authority, TURN_NAME, login)?;
        let broker = SecureBroker::start(lab, &authority)?;
        let probe = probe::Server::start(lab.hub(), [HUB4, TURN4])?;
        Ok(Self { authority, turn, _broker: broker, probe })
    }

    /// Tells a place their names.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn names(place: Place) -> Result<()> {
        let mut lines = String::new();
        for (address, name) in
            [(TURN4, TURN_NAME), (TURN6, TURN_NAME), (BROKER4, BROKER_NAME), (BROKER6, BROKER_NAME)]
        {
            lines.push_str(&format!("{address} {name}\\n"));
        }
        place
            .shell(&format!(
                "printf '{lines}' >> /etc/hosts; echo nameserver 203.0.113.53 > /etc/resolv.conf"
            ))
            .map(drop)
    }

    /// Options with the broker and the STUN server.
    pub fn options(&self) -> Options {
        let broker = format!("wss://{USER}:{BROKER_PASSWORD}@{BROKER_NAME}/mqtt");
        Options::bare()
            .and(&["--signal-ca", &self.authority.cert("ca")])
            .and(&["--stun", &format!("stun:{TURN_NAME}:3478")])
            .and(&["--stun", &format!("stun:{HUB4}:3478")])
            .env("QANAH_SIGNAL_SERVER", &broker)
    }

    /// The same with the broker at a port that it has with IPv6 too.
    pub fn over_ipv6(options: Options) -> Options {
        let broker = format!("mqtts://{USER}:{BROKER_PASSWORD}@{BROKER_NAME}:8883");
        options.env("QANAH_SIGNAL_SERVER", &broker)
    }

    /// And the TURN server, over UDP and over TLS.
    pub fn options_with_turn(&self) -> Options {
        self.options_with(&[&format!("turn:{TURN_NAME}:3478"), &format!("turns:{TURN_NAME}:443")])
    }

    /// And the TURN server by these of its URLs.
    pub fn options_with(&self, urls: &[&str]) -> Options {
        let login = self
            .options()
            .and(&["--turn-ca", &self.authority.cert("ca"), "--turn-username", TURN_USER])
            .env("QANAH_TURN_CREDENTIAL", TURN_PASSWORD);
        urls.iter().fold(login, |options, url| options.and(&["--turn-url", url]))
    }
}
