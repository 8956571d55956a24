//! What a process costs: resident memory and time on the processor, as `/proc` counts them.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::unistd::{SysconfVar, sysconf};

/// Resident memory (RSS) of a process, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that was resident since [`reset_peak`], or since the start, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// Starts the peak anew (proc(5), `clear_refs`).
///
/// # Errors
/// When the process is gone.
pub fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.with_context(|| format!("no {field}"))?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// User and system time of a process so far.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    ticks_of(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
}

/// User and system time of a thread of this process so far.
///
/// # Errors
/// When the thread is gone.
pub fn cpu_time_of_thread(id: i32) -> Result<Duration> {
    ticks_of(&fs::read_to_string(format!("/proc/self/task/{id}/stat"))?)
}

fn ticks_of(text: &str) -> Result<Duration> {
    // The name in parentheses may hold blanks; utime and stime are fields 14 and 15 of proc(5).
    let (_, rest) = text.rsplit_once(')').context("strange stat file")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut field = || fields.next().context("short stat file")?.parse::<u64>().context("stat");
    let ticks = field()? + field()?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_rate()?))
}

/// Ticks a second of the times in `/proc`.
///
/// # Errors
/// When the system does not tell.
pub fn clock_rate() -> Result<f64> {
    let rate = sysconf(SysconfVar::CLK_TCK)?.ok_or_else(|| anyhow!("no clock rate"))?;
    Ok(rate as f64)
}

/// Mean cost of a process over a time.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Per cent of one processor.
    pub cpu_percent: f64,
    /// Mean resident memory in MB (10^6 bytes).
    pub rss_mb: f64,
}

/// Watches some processes for `span`.
///
/// # Errors
/// When one of them goes.
pub fn costs(pids: &[u32], span: Duration) -> Result<Vec<Cost>> {
    let before = pids.iter().map(|pid| cpu_time(*pid)).collect::<Result<Vec<_>>>()?;
    let mut sums = vec![0_u64; pids.len()];
    let start = Instant::now();
    let mut samples = 0_u32;
    while start.elapsed() < span {
        for (sum, pid) in sums.iter_mut().zip(pids) {
            *sum += resident(*pid)?;
        }
        samples += 1;
        // The time itself is what is measured here, so this is not waiting for a condition.
        sleep(Duration::from_millis(500).min(span.saturating_sub(start.elapsed())));
    }
    let wall = start.elapsed().as_secs_f64();
    let cost = |((pid, before), sum): ((&u32, Duration), u64)| {
        let spent = cpu_time(*pid)?.saturating_sub(before).as_secs_f64();
        let rss_mb = sum as f64 / f64::from(samples.max(1)) / 1e6;
        Ok(Cost { cpu_percent: 100.0 * spent / wall, rss_mb })
    };
    pids.iter().zip(before).zip(sums).map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something_and_a_sleeper_nothing() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let busy = std::thread::spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(700) {
                std::hint::spin_loop();
            }
        });
        let costs = costs(&[std::process::id(), sleeper.id()], Duration::from_millis(600));
        busy.join().unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let costs = costs.unwrap();
        // Loaded machines give the spinning thread less than a whole core.
        assert!(costs[0].cpu_percent > 5.0 && costs[0].rss_mb > 0.5, "{costs:?}");
        assert!(costs[1].cpu_percent < 5.0 && costs[1].rss_mb < 10.0, "{costs:?}");
    }

    #[test]
    fn the_peak_is_seen_and_begins_anew() {
        let pid = std::process::id();
        reset_peak(pid).unwrap();
        let before = peak(pid).unwrap();
        let large = vec![1_u8; 64 << 20];
        assert_eq!(large.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64 << 20);
        drop(large);
        assert!(peak(pid).unwrap() > before + (48 << 20));
        assert!(resident(pid).unwrap() <= peak(pid).unwrap());
    }
}
