//! On what, and with what, it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::output;

/// The machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of the distribution.
    pub system: String,
    /// Kinds of TCP congestion control that the kernel has.
    pub congestion: Vec<String>,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What follows the key in a file of `key: value` or `key="value"` lines.
fn field(text: &str, key: &str, mark: char) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(mark)?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    });
    value.filter(|value| !value.is_empty())
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let unknown = || "unknown".to_owned();
        let words = read("/proc/sys/net/ipv4/tcp_available_congestion_control");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_else(unknown),
            congestion: words.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// For the raw figures.
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "kernel": self.kernel,
            "system": self.system,
            "congestion_control": self.congestion,
        })
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!("{}, {} cores, Linux {}, {}", self.cpu, self.cores, self.kernel, self.system)
    }
}

/// The version that a program tells, or that of the package that it is from.
pub fn version(program: &Path) -> String {
    let mut asked = Command::new(program);
    asked.arg("--version");
    let said = output(asked).unwrap_or_default();
    let told = said.lines().next().unwrap_or_default();
    let told = told.split_whitespace().find(|word| word.contains(|c: char| c.is_ascii_digit()));
    // wireguard-go prints a warning in a box where the kernel could do it.
    match told.filter(|word| word.contains('.')) {
        Some(word) => word.trim_start_matches('v').to_owned(),
        None => packaged(program).unwrap_or_else(|_| "unknown".to_owned()),
    }
}

fn packaged(program: &Path) -> Result<String> {
    let name = program.file_name().context("no name")?;
    let mut query = Command::new("dpkg-query");
    query.args(["--showformat=${Version}", "--show"]).arg(name);
    output(query)
}

/// Time that all processors have spent on anything so far, in ticks: all but idle and waiting
/// (proc(5), `/proc/stat`).
///
/// # Errors
/// When the file is not as expected.
pub fn busy_ticks() -> Result<u64> {
    busy(&fs::read_to_string("/proc/stat")?)
}

fn busy(text: &str) -> Result<u64> {
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu")?;
    let fields = line.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    // user nice system idle iowait irq softirq; steal is not ours, guests are counted in user.
    Ok(fields.iter().enumerate().filter(|(n, _)| matches!(n, 0..=2 | 5 | 6)).map(|(_, t)| t).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_a_kernel() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.kernel.contains('.'), "{machine:?}");
        assert!(machine.congestion.iter().any(|name| name == "cubic" || name == "reno"));
        assert!(busy_ticks().unwrap() > 0);
    }

    #[test]
    fn fields_and_ticks_are_found() {
        assert_eq!(field("a\t: b c\nd: e", "a", ':').unwrap(), "b c");
        assert_eq!(field("A=\"x y\"\n", "A", '=').unwrap(), "x y");
        assert_eq!(field("a:\n", "a", ':'), None);
        assert_eq!(busy("cpu  1 2 3 100 200 4 5 300 7 8\ncpu0 1").unwrap(), 15);
        assert!(busy("cpu0 1 2").is_err());
    }
}
