//! Finds out what a NAT does, by the tests of RFC 5780 (sections 4.3 and 4.4) in a protocol of our own.
//!
//! A request holds a number and the index of the socket that is to answer; the answer holds the number
//! and the address from which the request came. UDP loses packets and a test waits for what must not
//! come, so every question is asked several times before "no" is believed.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Site;
use crate::ns::{Place, join};
use crate::secure::TURN4;
use crate::servers::STUN_PORT;

/// How often a question is asked, and how long for each answer.
const TRIES: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(150);
/// How long a TCP connection may take that nothing is in the way of: SYN is sent again after a second.
const TCP_PATIENCE: Duration = Duration::from_millis(2500);
/// The ports of the server, at each of its two addresses.
const PORTS: [u16; 2] = [4001, 4002];

/// What a mapping or a filter depends on (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// It does not depend on the other end.
    Independent,
    /// It depends on the other end's address.
    Address,
    /// It depends on the other end's address and port.
    AddressAndPort,
}

impl Dependence {
    const fn word(self) -> &'static str {
        match self {
            Self::Independent => "endpoint-independent",
            Self::Address => "address-dependent",
            Self::AddressAndPort => "address-and-port-dependent",
        }
    }
}

/// What happens to UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// The world sees another address than the node's.
    pub translated: bool,
    /// What the mapped port depends on.
    pub mapping: Dependence,
    /// What may come in.
    pub filtering: Dependence,
}

/// What a site lets out and in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// Absent where no UDP comes through.
    pub udp: Option<Udp>,
    /// TCP to port 443.
    pub tcp_443: bool,
    /// TCP to another port.
    pub tcp_other: bool,
}

impl std::fmt::Display for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tcp = match (self.tcp_443, self.tcp_other) {
            (true, true) => "any",
            (true, false) => "only port 443",
            (false, true) => "not port 443",
            (false, false) => "none",
        };
        match self.udp {
            None => write!(f, "no UDP; TCP: {tcp}"),
            Some(udp) => write!(
                f,
                "{}, {} mapping, {} filtering; TCP: {tcp}",
                if udp.translated { "NAT" } else { "no NAT" },
                udp.mapping.word(),
                udp.filtering.word()
            ),
        }
    }
}

/// Answers questions at four sockets: two addresses with two ports each.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts it at two addresses of that place.
    ///
    /// # Errors
    /// When an address is not there or a port is taken.
    pub fn start(place: Place, addresses: [&str; 2]) -> Result<Self> {
        let mut wanted = Vec::new();
        for address in addresses {
            let ip: Ipv4Addr = address.parse()?;
            wanted.extend(PORTS.map(|port| SocketAddr::from(SocketAddrV4::new(ip, port))));
        }
        let list = wanted.clone();
        let sockets: Vec<UdpSocket> = join(place.thread(move || {
            let bound = list.iter().map(UdpSocket::bind);
            bound.collect::<Result<_, _>>().context("the probe's ports")
        }))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for socket in &sockets {
            socket.set_read_timeout(Some(PATIENCE))?;
            let own = socket.try_clone()?;
            let all: Vec<UdpSocket> =
                sockets.iter().map(UdpSocket::try_clone).collect::<Result<_, _>>()?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || answer(&own, &all, &stop)));
        }
        Ok(Self { sockets, addresses: wanted, stop, threads })
    }

    /// Finds out what that site does.
    ///
    /// # Errors
    /// When nothing at all can be found out.
    pub fn examine(&self, site: &Site) -> Result<Behaviour> {
        let addresses = self.addresses.clone();
        let inside: Ipv4Addr = site.inside.parse()?;
        let udp = join(site.place().thread(move || examine_udp(&addresses, inside)))?;
        let host = TURN4.parse()?;
        let (tcp_443, tcp_other) = join(site.place().thread(move || {
            let open = |port| {
                TcpStream::connect_timeout(&SocketAddr::new(host, port), TCP_PATIENCE).is_ok()
            };
            Ok((open(443), open(STUN_PORT)))
        }))?;
        Ok(Behaviour { udp, tcp_443, tcp_other })
    }

    /// Whether a packet that comes before the site has sent anything there leaves the mapping as it is: the
    /// punch comes after it. Only for sites whose router maps a port onto itself.
    ///
    /// # Errors
    /// When the site does not get through at all.
    pub fn survives_unsolicited(&self, site: &Site) -> Result<bool> {
        let socket = join(site.place().thread(|| Ok(UdpSocket::bind("0.0.0.0:0")?)))?;
        let (first, other) = (self.address(0)?, self.address(3)?);
        let before = ask(&socket, first, 0)?.ok_or_else(|| anyhow!("no answer"))?;
        let far = self.sockets.get(3).ok_or_else(|| anyhow!("no socket"))?;
        let target = SocketAddr::new(site.outside().parse()?, before.port());
        for _ in 0..3 {
            far.send_to(b"nobody asked for this", target)?;
        }
        let after = ask(&socket, other, 3)?;
        Ok(after == Some(before))
    }

    fn address(&self, index: usize) -> Result<SocketAddr> {
        self.addresses.get(index).copied().ok_or_else(|| anyhow!("no socket {index}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer(own: &UdpSocket, all: &[UdpSocket], stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = own.recv_from(&mut buffer) else {
            continue;
        };
        let Some((number, [by])) = buffer.get(..length).and_then(|all| all.split_at_checked(8))
        else {
            continue;
        };
        let reply = [number, from.to_string().as_bytes()].concat();
        if let Some(socket) = all.get(usize::from(*by)) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// Asks `to`, to be answered by the socket `by`: how we look from there, if an answer comes.
fn ask(socket: &UdpSocket, to: SocketAddr, by: u8) -> Result<Option<SocketAddr>> {
    let number = rand_core::RngCore::next_u64(&mut rand_core::OsRng).to_be_bytes();
    let request = [&number[..], &[by]].concat();
    for _ in 0..TRIES {
        // A router may refuse it with a word, which comes back as an error of the next call.
        let _ = socket.send_to(&request, to);
        let end = Instant::now() + PATIENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|t| !t.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut buffer = [0; 64];
            let Ok((length, _)) = socket.recv_from(&mut buffer) else {
                break;
            };
            let found = buffer.get(..length).and_then(|all| all.strip_prefix(&number));
            if let Some(text) = found {
                return Ok(Some(std::str::from_utf8(text)?.parse()?));
            }
        }
    }
    Ok(None)
}

fn examine_udp(servers: &[SocketAddr], inside: Ipv4Addr) -> Result<Option<Udp>> {
    let &[same, other_port, other_address, other_both] = servers else {
        anyhow::bail!("four sockets are needed");
    };
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let Some(mapped) = ask(&socket, same, 0)? else {
        return Ok(None);
    };
    let by_address = ask(&socket, other_address, 2)?;
    let by_port = ask(&socket, other_port, 1)?;
    ensure!(by_address.is_some() && by_port.is_some(), "answers came and then none");
    let mapping = match (by_address == Some(mapped), by_port == Some(mapped)) {
        (true, true) => Dependence::Independent,
        (false, true) => Dependence::Address,
        (_, false) => Dependence::AddressAndPort,
    };
    // A new socket, that has sent nothing to the others.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    ensure!(other_both != same, "the same socket twice");
    let filtering = if ask(&socket, same, 3)?.is_some() {
        Dependence::Independent
    } else if ask(&socket, same, 1)?.is_some() {
        Dependence::Address
    } else {
        Dependence::AddressAndPort
    };
    let translated = mapped.ip() != inside;
    Ok(Some(Udp { translated, mapping, filtering }))
}
