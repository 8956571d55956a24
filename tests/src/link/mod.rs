//! A link emulator: delay, jitter, loss, rate, a bounded queue, a small MTU or nothing at all
//! between a node of the lab and the bridge.
//!
//! `netem` is not in every kernel, so this is a userspace forwarder. [`Link::attach`] takes the port
//! of a node off the bridge and joins it, by another bridge, to a TAP device; a second TAP device is
//! the port in its place, and a thread carries Ethernet frames between the two. The node keeps its
//! `eth0` and sees no change of it. The thread belongs to the test process and ends with it, and the
//! devices end with the thread.
//!
//! # Offloads
//! The TAP devices take what a network card takes: packets of up to 64 KiB that stand for many
//! (TSO, USO) and checksums that are not filled in. Such a packet is carried as it is, but all that
//! the emulator decides, it decides for each packet that would be on the wire: one that is
//! lost is cut out, and what is before and behind it goes on as two smaller ones; where there is a
//! rate, a packet leaves in pieces of at most [`PIECE`] of link time. So loss is per wire packet,
//! the rate holds between them, and what stays together saves time as with a card that coalesces
//! what it receives (GRO). Packets that were sent one by one are never joined.
//!
//! # What it costs, and its limits
//! Prototypes that only forward, with both ends on the same two cores at 2.6 GHz, decided the way:
//!
//! | forwarder | TCP, Mbit/s | processor |
//! |---|---|---|
//! | AF_PACKET, offloads switched off | 2,800 | 96 % |
//! | AF_PACKET, large packets | 9,000 | 71 % |
//! | TAP, offloads switched off | 2,300 | 92 % |
//! | TAP, large packets | 15,900 | 74 % |
//!
//! `cargo test -p qanah-tests --release --test link -- --ignored --nocapture` prints what this one
//! carries. There: 4.1 Gbit/s of TCP at 48 % of a core (checking all bytes was the limit), and of
//! datagrams that are sent one by one, which cost the most, 110,000 of 1200 bytes a second at 73 %,
//! none of them lost. The time includes what the kernel does to hand the packets over.
//!
//! - Waking for each packet is what costs. So where a direction has a delay, the thread rests for up
//!   to [`REST`] after it had something to do, and sends what is due within the next [`EARLY`]. Times
//!   are good to about 0.1 ms on a machine that has a processor to spare; the thread runs with
//!   real-time priority where it may, so that it gets one.
//! - Each direction holds at most [`HELD`] bytes, and the devices [`RING`] packets. What finds that
//!   full is lost by the emulator and not by the link: [`Link::overruns`] counts it, and a
//!   measurement with overruns says nothing about the link.
//! - A rate counts Ethernet frames without preamble and checksum (14 bytes of header each).
//! - ARP and neighbour discovery are delayed but neither lost nor queued: a path through the Internet
//!   has none of its own. A link that is blocked blocks them, too.
//! - Packets above the MTU are dropped, also IPv4 packets that a router would have cut into
//!   fragments.

mod emulator;
mod frame;
mod icmp;
mod line;
mod tap;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lab::{Lab, Node};
use crate::measure::cpu_time_of_thread;
use crate::ns::{Place, join};
use crate::wait::{eventually, secs};

pub use emulator::{EARLY, REST};
pub use line::{HELD, PIECE};

/// How many packets a device holds until the emulator comes by.
pub const RING: usize = 4000;

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with this probability, whatever became of the others.
    Random(f64),
    /// This share of all, in bursts of this mean length (a Gilbert model: geometric lengths).
    Bursts {
        /// Share of all packets, 0 to 1.
        share: f64,
        /// Mean length of a burst, in packets, at least 1.
        length: f64,
    },
}

/// How much may wait where there is a rate. What does not fit is dropped at the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Bytes of frames.
    Bytes(u64),
    /// As long as a frame may have to wait for its turn.
    Time(Duration),
}

/// What one direction of a link does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// Each packet takes so long, besides the queue.
    pub delay: Duration,
    /// Up to this much more or less (uniform), never less than nothing.
    pub jitter: Duration,
    /// Jitter may change the order. Otherwise a packet waits for the one before.
    pub reorder: bool,
    /// Which packets are lost.
    pub loss: Loss,
    /// Bits a second; `None` is as fast as the machine.
    pub rate: Option<u64>,
    /// How much may wait for the rate.
    pub queue: Queue,
    /// The largest IP packet in bytes; `None` is whatever the devices take (1500).
    pub mtu: Option<usize>,
    /// Whether the sender of a larger one is told, by ICMP (RFC 792, RFC 1191) or ICMPv6 (RFC 4443).
    pub tell_mtu: bool,
    /// Nothing passes.
    pub blocked: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: Loss::None,
            rate: None,
            queue: Queue::Time(Duration::from_millis(50)),
            mtu: None,
            tell_mtu: true,
            blocked: false,
        }
    }
}

impl Way {
    /// With this delay one way, half of the round-trip time.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// With this probability of loss for each packet.
    #[must_use]
    pub fn lossy(self, probability: f64) -> Self {
        Self { loss: Loss::Random(probability), ..self }
    }

    /// With this rate, in bits a second, and this queue before it.
    #[must_use]
    pub fn rated(self, rate: u64, queue: Queue) -> Self {
        Self { rate: Some(rate), queue, ..self }
    }
}

/// What became of the packets of one direction, counted as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets that came to the link.
    pub arrived: u64,
    /// Packets that were handed over at the far end.
    pub delivered: u64,
    /// Bytes of the frames of those.
    pub delivered_bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Dropped because they are larger than the MTU.
    pub too_big: u64,
    /// Dropped because the link was blocked.
    pub blocked: u64,
    /// Dropped because the far end's device was down.
    pub down: u64,
    /// Dropped because the emulator holds [`HELD`] bytes, or because the far end's device took no
    /// more.
    pub overrun: u64,
}

/// What the test and the thread share.
#[derive(Debug, Default)]
struct Shared {
    /// From the node, to the node.
    ways: [Way; 2],
    counts: [Counts; 2],
    /// What the emulator could not do.
    failure: Option<String>,
    stop: bool,
}

/// A mutex whose holders do not panic half-way: what it holds is whole.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The link of one node. Dropped, it puts the node back on the bridge as it was.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Mutex<Shared>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    task: i32,
    hub: Place,
    /// The node's port, and the TAP devices.
    port: String,
    taps: [String; 2],
}

impl Link {
    /// Puts an emulator between a node and the bridge, at first one that does nothing. The same seed
    /// loses the same packets of the same sequence.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn attach(lab: &Lab, node: &Node, seed: u64) -> Result<Self> {
        Self::attach_port(lab, &format!("n{}", node.number()), seed)
    }

    /// The same for a port of the bridge by its name, such as that of a [`Site`](crate::nat::Site).
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn attach_port(lab: &Lab, port: &str, seed: u64) -> Result<Self> {
        let (hub, port) = (lab.hub(), port.to_owned());
        let taps = [format!("near{port}"), format!("far{port}")];
        let [near, far] = [open(hub, &taps[0])?, open(hub, &taps[1])?];
        let shared = Arc::new(Mutex::new(Shared::default()));
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (tell, told) = std::sync::mpsc::channel();
        let emulator = emulator::Emulator::new([near, far], seed, shared.clone(), wake.clone());
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(move || {
            let _ = tell.send(nix::unistd::gettid().as_raw());
            emulator.run();
        })?;
        let task = told.recv().context("the emulator did not start")?;
        prefer(task);
        let link = Self { shared, wake, thread: Some(thread), task, hub, port, taps };
        link.join()?;
        Ok(link)
    }

    /// Node, bridge of its own, near TAP; far TAP, bridge of the hub.
    fn join(&self) -> Result<()> {
        let (port, [near, far]) = (&self.port, &self.taps);
        // The bridge of its own is nobody: the hub must not answer there for its addresses.
        self.hub.shell(&format!(
            "ip link add own{port} type bridge mcast_snooping 0
             echo 1 > /proc/sys/net/ipv6/conf/own{port}/disable_ipv6
             echo 8 > /proc/sys/net/ipv4/conf/own{port}/arp_ignore
             for tap in {near} {far}; do
                 echo 1 > /proc/sys/net/ipv6/conf/$tap/disable_ipv6
                 ip link set $tap txqueuelen {RING}
             done
             ip link set {far} master br0 up
             ip link set {near} master own{port} up
             ip link set {port} master own{port}
             ip link set own{port} up"
        ))?;
        eventually("the link is up", secs(10), || {
            for tap in &self.taps {
                // As bridge(8) says of a port: it forwards once it is up.
                let state = self.hub.run(&format!("bridge link show dev {tap}"))?;
                ensure!(state.contains("state forwarding"), "{state}");
            }
            Ok(())
        })
    }

    /// Changes both directions from now on. What is on its way arrives as it was promised.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn set(&self, both: Way) -> Result<()> {
        self.set_each(both, both)
    }

    /// Changes each direction from now on: from the node, and to the node.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn set_each(&self, from: Way, to: Way) -> Result<()> {
        let failure = {
            let mut shared = lock(&self.shared);
            shared.ways = [from, to];
            shared.failure.clone()
        };
        self.wake.write(1)?;
        failure.map_or(Ok(()), |text| Err(anyhow!("the emulator has ended: {text}")))
    }

    /// What became of the packets from the node, and of those to the node.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn counts(&self) -> Result<[Counts; 2]> {
        let shared = lock(&self.shared);
        match &shared.failure {
            Some(text) => Err(anyhow!("the emulator has ended: {text}")),
            None => Ok(shared.counts),
        }
    }

    /// How many packets were lost because the emulator could not keep up, in both directions.
    ///
    /// # Errors
    /// When it has ended.
    pub fn overruns(&self) -> Result<u64> {
        let own: u64 = self.counts()?.iter().map(|counts| counts.overrun).sum();
        let mut dropped = 0;
        for tap in &self.taps {
            // Of a TAP, what is dropped on the way out found the ring full.
            dropped += statistics(self.hub, tap)?.get("dropped").copied().unwrap_or(0);
        }
        Ok(own + dropped)
    }

    /// Time that the emulator has spent on a processor so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time_of_thread(self.task)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock(&self.shared).stop = true;
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let port = &self.port;
        // Where the lab is gone already, there is nothing to put back.
        let back = format!("ip link set {port} master br0; ip link del own{port}");
        let _ = self.hub.shell(&back);
    }
}

fn open(hub: Place, name: &str) -> Result<tap::Tap> {
    let wanted = name.to_owned();
    join(hub.thread(move || tap::Tap::open(&wanted)))
        .with_context(|| format!("cannot make the TAP device {name}"))
}

/// A link does not wait for a processor: real-time priority, or at least a good one.
fn prefer(task: i32) {
    let tries = [format!("chrt --rr --pid 1 {task}"), format!("renice --priority -20 {task}")];
    let granted = tries.iter().any(|line| {
        let mut words = line.split(' ');
        let mut command = std::process::Command::new(words.next().unwrap_or("true"));
        crate::process::output({
            command.args(words);
            command
        })
        .is_ok()
    });
    if !granted {
        println!("the link emulator got no priority: its times are worse");
    }
}

/// The counters of what a device was to send, by the names that `ip -s -s -j` gives them.
fn statistics(place: Place, name: &str) -> Result<BTreeMap<String, u64>> {
    let text = place.run(&format!("ip -s -j link show {name}"))?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let sent = all.pointer("/0/stats64/tx").and_then(serde_json::Value::as_object);
    let sent = sent.with_context(|| format!("no statistics in {text}"))?;
    Ok(sent.iter().filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_built_from_parts() {
        let way = Way::delayed(Duration::from_millis(5)).lossy(0.01).rated(1000, Queue::Bytes(9));
        assert_eq!(
            (way.loss, way.rate, way.queue),
            (Loss::Random(0.01), Some(1000), Queue::Bytes(9))
        );
        assert!(!way.blocked && way.tell_mtu);
    }
}
