//! A TCP transfer whose far end proves that it received what was sent.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::ns::{Place, join};

/// No single read or write may take longer: a stalled transfer is a failure and not a hang.
const STALL: Duration = Duration::from_secs(20);

/// A cheap stream of bytes that does not repeat within a transfer (xorshift64*).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            for (byte, noise) in chunk.iter_mut().zip(word) {
                *byte = noise;
            }
        }
    }
}

fn send(stream: &mut TcpStream, total: usize) -> Result<u64> {
    stream.set_write_timeout(Some(STALL))?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut left = total;
    while left > 0 {
        let part = buffer.get_mut(..left.min(64 * 1024)).unwrap_or_default();
        noise.fill(part);
        hasher.write(part);
        stream.write_all(part).with_context(|| format!("{left} bytes were left to send"))?;
        left -= part.len();
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(hasher.finish())
}

fn receive(stream: &mut TcpStream) -> Result<(usize, u64)> {
    stream.set_read_timeout(Some(STALL))?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let n = stream.read(&mut buffer).with_context(|| format!("after {total} bytes"))?;
        let Some(part) = buffer.get(..n).filter(|part| !part.is_empty()) else {
            return Ok((total, hasher.finish()));
        };
        // Hashed in pieces of any size: SipHash is a function of the bytes alone.
        hasher.write(part);
        total += n;
    }
}

/// Sends `total` bytes from one place to an address of another, which answers with what it got.
/// Gives the rate in megabits a second.
///
/// # Errors
/// When the bytes did not arrive, all and unchanged, or the transfer stalled for 20 seconds.
pub fn transfer(from: Place, to: Place, address: &str, total: usize) -> Result<f64> {
    let ip: IpAddr = address.parse()?;
    let listener = join(to.thread(move || Ok(TcpListener::bind(SocketAddr::new(ip, 0))?)))?;
    let target = listener.local_addr()?;
    let server = to.thread(move || {
        let (mut stream, _) = listener.accept()?;
        let (count, hash) = receive(&mut stream)?;
        stream.write_all(&u64::try_from(count)?.to_be_bytes())?;
        stream.write_all(&hash.to_be_bytes())?;
        Ok(())
    });
    let start = Instant::now();
    let client = from.thread(move || {
        let mut stream = TcpStream::connect_timeout(&target, STALL).context("connecting")?;
        let sent = send(&mut stream, total)?;
        stream.set_read_timeout(Some(STALL))?;
        let (mut count, mut hash) = ([0; 8], [0; 8]);
        stream.read_exact(&mut count).context("the far end's count")?;
        stream.read_exact(&mut hash)?;
        Ok((sent, u64::from_be_bytes(count), u64::from_be_bytes(hash)))
    });
    let (sent, count, hash) = join(client)?;
    let seconds = start.elapsed().as_secs_f64();
    join(server)?;
    ensure!(count == u64::try_from(total)?, "{total} bytes sent, {count} received");
    ensure!(sent == hash, "the bytes that arrived are not those that were sent");
    let bits = u32::try_from(total).map(f64::from).map_err(|_| anyhow!("too much"))? * 8.0;
    Ok(bits / seconds / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;

    #[test]
    fn a_transfer_arrives_whole_on_the_bare_path() -> Result<()> {
        in_lab(2, |lab| {
            let (one, two) = (lab.node(1)?, lab.node(2)?);
            let rate = transfer(one.place(), two.place(), &two.outer4(), 3_000_001)?;
            transfer(two.place(), one.place(), &one.outer6(), 10_000)?;
            println!("bare path: {rate:.0} Mbit/s");
            Ok(())
        })
    }
}
