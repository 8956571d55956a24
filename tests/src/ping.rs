//! `ping`, once or for as long as something else goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::ns::Place;
use crate::process::Proc;
use crate::wait::{eventually_timed, secs};

/// What `ping` counted.
#[derive(Debug, Clone, PartialEq)]
pub struct PingStats {
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// Mean round-trip time in milliseconds, when there was an answer.
    pub mean_ms: Option<f64>,
    /// All that it printed.
    pub text: String,
}

impl PingStats {
    fn parse(text: &str) -> Result<Self> {
        let line = text
            .lines()
            .find(|line| line.contains(" packets transmitted, "))
            .ok_or_else(|| anyhow!("ping printed no statistics: {text}"))?;
        let mut counts = line.split(", ").map(|part| part.split(' ').next().unwrap_or_default());
        let mut count = || counts.next().unwrap_or_default().parse::<u32>();
        let sent = count().with_context(|| format!("strange line of ping: {line}"))?;
        let received = count().with_context(|| format!("strange line of ping: {line}"))?;
        let times = text.lines().find_map(|line| line.split_once("mdev = "));
        let mean_ms = times.and_then(|(_, times)| times.split('/').nth(1)?.parse().ok());
        Ok(Self { sent, received, mean_ms, text: text.to_owned() })
    }

    /// Fails unless every request was answered.
    ///
    /// # Errors
    /// With what ping printed.
    pub fn ensure_all(&self) -> Result<()> {
        ensure!(self.sent > 0 && self.received == self.sent, "lost pings: {}", self.text);
        Ok(())
    }

    /// Round-trip times of all answers, in milliseconds, the shortest first.
    pub fn times_ms(&self) -> Vec<f64> {
        let answers = self.text.lines().filter(|line| line.contains("bytes from"));
        let time = |line: &str| line.split_once(" time=")?.1.split(' ').next()?.parse().ok();
        let mut times: Vec<f64> = answers.filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// How many were not answered.
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }
}

/// Runs `ping` with these arguments (split at blanks) to its end.
///
/// It waits for the last answers no longer than two round trips or one interval (`-i`), so where
/// every answer counts the interval must be one that a busy machine keeps.
///
/// # Errors
/// When it prints no statistics, as for a bad argument or no route at all.
pub fn ping(from: Place, arguments: &str) -> Result<PingStats> {
    let output = from
        .command("ping")
        .arg("-n")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    PingStats::parse(&said)
        .with_context(|| format!("ping {arguments}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Pings until one is answered; how long that took.
///
/// # Errors
/// When none is answered within `limit`.
pub fn first_ping(from: Place, to: &str, limit: Duration) -> Result<Duration> {
    let once = format!("-c 1 -W 0.25 {to}");
    let (_, time) = eventually_timed(&format!("an answer of {to} to ping"), limit, || {
        ping(from, &once)?.ensure_all()
    })?;
    Ok(time)
}

/// How many requests a [`Pinger`] sends in a second.
const PER_SECOND: u32 = 10;

/// The greatest sequence number that was answered.
fn last_answered(text: &str) -> u32 {
    let numbers = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" icmp_seq=")?;
        rest.split(' ').next()?.parse::<u32>().ok().filter(|_| line.contains("bytes from"))
    });
    numbers.max().unwrap_or(0)
}

/// The longest time between two answers after `since`, or from the last one to `now`, in what `ping -D` has printed.
fn longest_gap(text: &str, since: SystemTime, now: SystemTime) -> Duration {
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    let times = answers.filter_map(|line| {
        let seconds: f64 = line.strip_prefix('[')?.split(']').next()?.parse().ok()?;
        Some(UNIX_EPOCH + Duration::try_from_secs_f64(seconds).ok()?)
    });
    let times: Vec<SystemTime> = times.chain([now]).collect();
    let gaps = times.windows(2).filter_map(|pair| match pair {
        [earlier, later] => later.duration_since(*earlier.max(&since)).ok(),
        _ => None,
    });
    gaps.max().unwrap_or(Duration::ZERO)
}

/// A `ping` that goes on until it is asked.
#[derive(Debug)]
pub struct Pinger {
    proc: Proc,
}

impl Pinger {
    /// Starts to ping ten times a second.
    ///
    /// # Errors
    /// When ping cannot be started.
    pub fn start(lab: &Lab, from: Place, to: &str) -> Result<Self> {
        Self::start_in(lab.dir(), from, to)
    }

    fn start_in(dir: &Path, from: Place, to: &str) -> Result<Self> {
        let mut command = from.command("ping");
        command.args(["-n", "-D", "-i", "0.1", "-W", "2", to]);
        // One log a pinger, or the statistics of two would be read as one's.
        let log = tempfile::Builder::new()
            .prefix("ping-")
            .suffix(".txt")
            .tempfile_in(dir)?
            .into_temp_path()
            .keep()?;
        Ok(Self { proc: Proc::spawn("ping", command, &log)? })
    }

    /// The longest time without an answer since the first one, with that since the last one.
    pub fn longest_gap(&self) -> Duration {
        longest_gap(&self.proc.log(), UNIX_EPOCH, SystemTime::now())
    }

    /// The same of what was after `since`: of a gap that began before, what is left of it.
    pub fn longest_gap_since(&self, since: SystemTime) -> Duration {
        longest_gap(&self.proc.log(), since, SystemTime::now())
    }

    /// How many answers came so far.
    pub fn answers(&self) -> usize {
        self.proc.log().matches("bytes from").count()
    }

    /// Ends it and counts. Requests of the last second are not counted when they are still without
    /// an answer: that may be on its way.
    ///
    /// # Errors
    /// When it had ended by itself or printed no statistics.
    pub fn finish(mut self) -> Result<PingStats> {
        self.proc.ensure_running()?;
        self.proc.end(Signal::SIGINT, secs(10))?;
        let mut stats = PingStats::parse(&self.proc.log())?;
        let last = last_answered(&stats.text);
        if stats.sent.saturating_sub(last) <= PER_SECOND {
            stats.sent = last;
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;
    use crate::wait::eventually;

    #[test]
    fn statistics_are_read_with_and_without_errors() {
        let text = "64 bytes from 10.0.0.2: icmp_seq=4 ttl=64 time=3.4 ms\n\
                    From 10.0.0.1 icmp_seq=5 Destination Host Unreachable\n\
                    5 packets transmitted, 3 received, 40% packet loss, time 4ms\n\
                    rtt min/avg/max/mdev = 0.1/2.5/9.9/0.2 ms\n";
        assert_eq!(last_answered(text), 4);
        let stats = PingStats::parse(text).unwrap();
        assert_eq!((stats.sent, stats.received, stats.lost()), (5, 3, 2));
        assert_eq!((stats.mean_ms, stats.times_ms()), (Some(2.5), vec![3.4]));
        assert!(stats.ensure_all().is_err());
        let text = "4 packets transmitted, 0 received, +4 errors, 100% packet loss, time 4ms";
        assert_eq!(PingStats::parse(text).unwrap().lost(), 4);
        assert!(PingStats::parse("ping: connect: Network is unreachable").is_err());
    }

    #[test]
    fn gaps_are_between_answers() {
        let text = "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n\
                    [100.5] 64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=3.4 ms\n\
                    [100.75] 64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=3.4 ms\n\
                    [101] From 10.0.0.1 icmp_seq=3 Destination Host Unreachable\n\
                    [102.75] 64 bytes from 10.0.0.2: icmp_seq=9 ttl=64 time=3.4 ms\n";
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let gap = |since, now| longest_gap(text, at(since), at(now));
        assert_eq!(gap(0, 102_800), secs(2));
        assert_eq!(gap(0, 105_750), secs(3), "that which goes on");
        assert_eq!(gap(102_000, 102_800), Duration::from_millis(750), "what is left of it");
        assert_eq!(longest_gap("", UNIX_EPOCH, at(5000)), Duration::ZERO, "no answer yet");
    }

    #[test]
    fn nodes_reach_each_other_and_the_hub_until_they_are_cut() -> Result<()> {
        in_lab(2, |lab| {
            let (one, two) = (lab.node(1)?, lab.node(2)?);
            first_ping(one.place(), &two.outer4(), secs(5))?;
            first_ping(one.place(), &two.outer6(), secs(5))?;
            first_ping(one.place(), crate::lab::HUB6, secs(5))?;
            let pinger = Pinger::start(lab, one.place(), crate::lab::HUB4)?;
            one.cut_from(two)?;
            assert_eq!(
                ping(one.place(), &format!("-c 2 -i 0.1 -W 0.3 {}", two.outer4()))?.received,
                0
            );
            assert_eq!(
                ping(two.place(), &format!("-c 2 -i 0.1 -W 0.3 {}", one.outer6()))?.received,
                0
            );
            one.heal()?;
            two.heal()?;
            first_ping(one.place(), &two.outer4(), secs(5))?;
            eventually("answers of the hub", secs(5), || {
                ensure!(pinger.answers() >= 3, "only {}", pinger.answers());
                Ok(())
            })?;
            pinger.finish()?.ensure_all()?;
            one.link_down()?;
            let hub = format!("-c 1 -W 0.3 {}", crate::lab::HUB4);
            assert!(ping(one.place(), &hub).map_or(true, |stats| stats.received == 0));
            one.link_up(lab.underlay())?;
            first_ping(one.place(), crate::lab::HUB6, secs(5))?;
            let hole = ping(one.place(), &format!("-c 1 -W 0.3 {}", crate::lab::BLACK_HOLE))?;
            assert!(hole.received == 0 && !hole.text.contains("nreachable"), "{}", hole.text);
            Ok(())
        })
    }
}
