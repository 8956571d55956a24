//! A UDP stream of a constant rate, counted at both ends.
//!
//! Not iperf3, which sends one datagram a system call and in bursts of a millisecond: on a machine
//! where everything shares two cores the generator would be what is measured. This one sends
//! and receives up to 64 datagrams a call, spaced to about 0.1 ms.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

use crate::ns::{Place, join};

/// Datagrams a system call.
const BATCH: usize = 64;
/// Every datagram holds the number of its stream and its own.
const HEADER: usize = 16;
/// How far the sender may fall behind its schedule before the schedule waits for it. More would be
/// caught up in a burst that no stream of this rate has.
const BEHIND: Duration = Duration::from_millis(2);
/// After the sender is done, no datagram for so long means that there are no more.
const SILENCE: Duration = Duration::from_millis(300);

/// A stream of datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Payload of each datagram in bytes, at least 16.
    pub payload: usize,
    /// Bits of payload a second.
    pub rate: f64,
    /// For how long.
    pub time: Duration,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams that came after one that was sent later.
    pub late: u64,
    /// Bits of payload a second that the sender really sent.
    pub offered: f64,
    /// Bits of payload a second between the first and the last arrival.
    pub arrived: f64,
}

impl Outcome {
    /// Share of the datagrams that did not arrive, 0 to 1.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

/// What the receiver counted.
#[derive(Debug, Default)]
struct Received {
    count: u64,
    late: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Received {
    fn add(&mut self, number: u64, highest: &mut Option<u64>) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.count += 1;
        if highest.is_some_and(|highest| number < highest) {
            self.late += 1;
        } else {
            *highest = Some(number);
        }
    }
}

/// Sends a stream from one place to an address of another.
///
/// # Errors
/// When the sockets cannot be had or nothing can be sent.
pub fn stream(from: Place, to: Place, address: &str, stream: Stream) -> Result<Outcome> {
    ensure!(stream.payload >= HEADER, "a datagram needs {HEADER} bytes of payload");
    let ip: IpAddr = address.parse()?;
    let socket = join(to.thread(move || Ok(UdpSocket::bind(SocketAddr::new(ip, 0))?)))?;
    let target = socket.local_addr()?;
    let id = u64::from(target.port()) << 32 | u64::from(std::process::id());
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    let receiver = std::thread::spawn(move || receive(&socket, stream.payload, id, &told));
    let sent = join(from.thread(move || send(target, stream, id)));
    done.store(true, Ordering::Release);
    let received = join(receiver);
    let ((sent, seconds), received) = (sent?, received?);
    let bits = stream.payload as f64 * 8.0;
    let span = received.first.zip(received.last).map_or(0.0, |(a, b)| (b - a).as_secs_f64());
    // Between n arrivals there are n - 1 gaps.
    let gaps = received.count.saturating_sub(1) as f64;
    Ok(Outcome {
        sent,
        received: received.count,
        late: received.late,
        offered: sent as f64 * bits / seconds,
        arrived: if span > 0.0 { gaps * bits / span } else { 0.0 },
    })
}

fn send(target: SocketAddr, stream: Stream, id: u64) -> Result<(u64, f64)> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(target).context("no way to the receiver")?;
    let mut buffers = vec![vec![0_u8; stream.payload]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let a_second = stream.rate / 8.0 / stream.payload as f64;
    let start = Instant::now();
    // A token bucket: what a sender that cannot follow has missed beyond it, is not sent.
    let most = (BEHIND.as_secs_f64() * a_second).max(1.0) + 1.0;
    let (mut sent, mut tokens, mut filled) = (0_u64, 0.0_f64, start);
    while start.elapsed() < stream.time {
        let now = Instant::now();
        tokens = (tokens + (now - filled).as_secs_f64() * a_second).min(most);
        filled = now;
        if tokens < 1.0 {
            let wait = ((1.0 - tokens) / a_second).clamp(0.0001, 0.01);
            std::thread::sleep(Duration::from_secs_f64(wait));
            continue;
        }
        let n = (1..=BATCH).take_while(|n| *n as f64 <= tokens).count();
        for (buffer, number) in buffers.iter_mut().zip(sent..) {
            if let Some(room) = buffer.get_mut(..HEADER) {
                room.copy_from_slice(&[id.to_be_bytes(), number.to_be_bytes()].concat());
            }
        }
        let taken = send_batch(&socket, &mut headers, buffers.get(..n).unwrap_or_default())?;
        sent += taken as u64;
        tokens -= taken as f64;
    }
    Ok((sent, start.elapsed().as_secs_f64()))
}

fn send_batch(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    buffers: &[Vec<u8>],
) -> Result<usize> {
    let slices: Vec<_> = buffers.iter().map(|buffer| [IoSlice::new(buffer)]).collect();
    let addresses = vec![None; slices.len()];
    match sendmmsg(socket.as_raw_fd(), headers, &slices, &addresses, [], MsgFlags::empty()) {
        Ok(results) => Ok(results.count()),
        // The far end's ICMP errors and full queues are losses, which the receiver sees.
        Err(
            Errno::ECONNREFUSED
            | Errno::ENOBUFS
            | Errno::EAGAIN
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EINTR,
        ) => Ok(1),
        Err(error) => Err(error).context("cannot send"),
    }
}

fn receive(socket: &UdpSocket, payload: usize, id: u64, done: &AtomicBool) -> Result<Received> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    // Root may: the receiver shall not be what loses datagrams.
    setsockopt(socket, sockopt::RcvBufForce, &(32 << 20))?;
    let mut buffers = vec![vec![0_u8; payload + 1]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let (mut got, mut highest) = (Received::default(), None);
    let mut quiet = Instant::now();
    loop {
        let lengths = {
            let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
                Ok(results) => results.map(|result| result.bytes).collect::<Vec<_>>(),
                Err(Errno::EAGAIN | Errno::EINTR) => Vec::new(),
                Err(error) => return Err(error).context("cannot receive"),
            }
        };
        for (buffer, length) in buffers.iter().zip(&lengths) {
            let (stream, number) = (number(buffer, 0), number(buffer, 8));
            if *length == payload && stream == id {
                got.add(number, &mut highest);
            }
        }
        if !lengths.is_empty() || !done.load(Ordering::Acquire) {
            quiet = Instant::now();
        }
        if quiet.elapsed() >= SILENCE {
            return Ok(got);
        }
    }
}

fn number(buffer: &[u8], at: usize) -> u64 {
    let bytes = buffer.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;

    #[test]
    fn a_slow_stream_arrives_whole_and_in_order() -> Result<()> {
        in_lab(2, |lab| {
            let (one, two) = (lab.node(1)?, lab.node(2)?);
            for address in [two.outer4(), two.outer6()] {
                let wanted =
                    Stream { payload: 1200, rate: 9.6e6, time: Duration::from_millis(500) };
                let outcome = stream(one.place(), two.place(), &address, wanted)?;
                // 1000 a second, for half a second; a busy machine may skip some.
                ensure!((300..=510).contains(&outcome.sent), "{outcome:?}");
                ensure!(outcome.received == outcome.sent && outcome.late == 0, "{outcome:?}");
            }
            Ok(())
        })
    }
}
