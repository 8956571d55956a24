//! Round-trip times by `ping`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::bench::stats::percentile;
use crate::ns::Place;

/// How often a peer is asked for its first answer.
const FIRST: Duration = Duration::from_millis(20);

/// Round-trip times of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Requests sent.
    pub sent: usize,
    /// Milliseconds of each answer, in the order of arrival.
    pub ms: Vec<f64>,
}

impl Times {
    /// The median and the 99th percentile, in milliseconds.
    ///
    /// # Errors
    /// When fewer than half of the requests were answered.
    pub fn p50_p99(&self) -> Result<(f64, f64)> {
        let answered = self.ms.len();
        ensure!(2 * answered >= self.sent.max(1), "{answered} answers to {} pings", self.sent);
        let of = |percent| percentile(&self.ms, percent).context("no answer");
        Ok((of(50)?, of(99)?))
    }
}

fn parse(text: &str) -> Result<Times> {
    let time = |line: &str| line.split_once(" time=")?.1.split(' ').next()?.parse::<f64>().ok();
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    let ms = answers.filter(|line| !line.contains("(DUP!)")).filter_map(time).collect();
    let sent = text.lines().find_map(|line| line.split_once(" packets transmitted"));
    let sent = sent.and_then(|(number, _)| number.trim().parse().ok());
    let sent = sent.ok_or_else(|| anyhow!("ping printed no statistics: {text}"))?;
    Ok(Times { sent, ms })
}

/// Pings `count` times, one every `gap`.
///
/// # Errors
/// When ping cannot be run.
pub fn series(from: Place, to: &str, count: u32, gap: Duration) -> Result<Times> {
    let mut command = from.command("ping");
    let gap = format!("{:.3}", gap.as_secs_f64());
    command.args(["-n", "-W", "2", "-c", &count.to_string(), "-i", &gap, to]);
    // Its exit code is 1 when nothing came back, which its output says as well.
    let ran = command.stdin(Stdio::null()).output().context("cannot start ping")?;
    parse(&String::from_utf8_lossy(&ran.stdout))
}

/// Kills a child however this is left.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pings until the first answer, though there may be no interface and no route yet.
///
/// # Errors
/// When there is none within `limit`.
pub fn first_answer(from: Place, to: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = limit.checked_sub(start.elapsed()) {
        let seconds = left.as_secs().max(1).to_string();
        let mut command: Command = from.command("ping");
        command.args(["-n", "-i", &FIRST.as_secs_f64().to_string(), "-w", &seconds, to]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Ends(command.spawn().context("cannot start ping")?);
        let stdout = child.0.stdout.take().context("no pipe")?;
        if BufReader::new(stdout).lines().map_while(Result::ok).any(|l| l.contains("bytes from")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{to} did not answer within {} s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;
    use crate::wait::secs;

    #[test]
    fn times_are_read() {
        let text = "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n\
            64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.044 ms\n\
            64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.050 ms (DUP!)\n\
            From 10.0.0.1 icmp_seq=2 Destination Host Unreachable\n\
            64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=12 ms\n\n\
            3 packets transmitted, 2 received, +1 duplicates, 33% packet loss, time 4ms\n";
        let times = parse(text).unwrap();
        assert_eq!(times, Times { sent: 3, ms: vec![0.044, 12.0] });
        assert_eq!(times.p50_p99().unwrap(), (0.044, 12.0));
        assert!(Times { sent: 5, ..times }.p50_p99().is_err());
        assert!(parse("ping: connect: Network is unreachable").is_err());
    }

    #[test]
    fn the_first_answer_is_waited_for() -> Result<()> {
        in_lab(2, |lab| {
            let (one, two) = (lab.node(1)?, lab.node(2)?);
            two.link_down()?;
            ensure!(first_answer(two.place(), &one.outer4(), secs(1)).is_err(), "by which way?");
            let place = two.place();
            let to = one.outer4();
            let waits = std::thread::spawn(move || first_answer(place, &to, secs(20)));
            two.link_up(lab.underlay())?;
            waits.join().map_err(|_| anyhow!("it panicked"))??;
            let times = series(one.place(), &two.outer4(), 10, Duration::from_millis(10))?;
            ensure!(times.sent == 10 && times.ms.len() == 10, "{times:?}");
            Ok(())
        })
    }
}
