//! The command line of the benchmark.

use std::path::PathBuf;

use clap::Parser;

/// Measures Qanah beside other tunnels, in network namespaces of this machine.
///
/// All contenders are measured in one run, in turns: round 1 of each, then round 2 of each. Figures
/// are medians of the rounds, with the least and the greatest.
#[derive(Debug, Clone, Parser)]
#[command(name = "tests/bench", version)]
pub struct Args {
    /// One round with short measurements and few paths: under four minutes.
    #[arg(long)]
    pub quick: bool,
    /// All combinations of delay and loss, both kinds of congestion control, ten minutes of load.
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Writes all figures of all rounds to a file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a plot to a file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Puts the table between the marks of README.md, and the plot beside it.
    #[arg(long)]
    pub readme: bool,
    /// Puts the table between the marks of another file, without a plot.
    #[arg(long, value_name = "FILE", hide = true)]
    pub readme_file: Option<PathBuf>,
    /// Other tunnels to measure beside: none, or some of wireguard-go, boringtun, gotatun.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "wireguard-go,boringtun,gotatun"
    )]
    pub peers: Vec<String>,
    /// One more userspace WireGuard, a program that takes `-f INTERFACE` as wireguard-go does; repeatable.
    #[arg(long, value_name = "NAME=PROGRAM")]
    pub also: Vec<String>,
    /// Measures Qanah also with channels that send a frame that was lost again only so many times.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub retransmits: Vec<u16>,
    /// How many rounds. 3 by default, with --quick 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Only measurements whose names begin so (`--list` shows the names).
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Lists the names of the measurements and ends.
    #[arg(long)]
    pub list: bool,
    /// Length of one TCP transfer in seconds. 4 by default, with --quick 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: Option<u32>,
    /// Congestion control of TCP inside the tunnel: cubic, bbr, or both; the first one is that of the goals.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub congestion: Vec<String>,
    /// Minutes of load under which Qanah's memory is watched. With --full 10, else 0.
    #[arg(long, value_name = "N")]
    pub soak: Option<u32>,
    /// A program that the script has installed.
    #[arg(long, value_name = "NAME=PROGRAM", hide = true)]
    pub have: Vec<String>,
    /// Why the script could not install a program.
    #[arg(long, value_name = "NAME=REASON", hide = true)]
    pub lack: Vec<String>,
    /// Where the repository is.
    #[arg(long, value_name = "DIR", hide = true, default_value = ".")]
    pub root: PathBuf,
    /// What was built.
    #[arg(long, value_name = "TEXT", hide = true, default_value = "unknown")]
    pub commit: String,
}

impl Args {
    /// How many rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Seconds of a TCP transfer.
    pub fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 4 })
    }

    /// Minutes of load at the end.
    pub fn soak(&self) -> u32 {
        self.soak.unwrap_or(if self.full { 10 } else { 0 })
    }

    /// The other tunnels.
    pub fn peers(&self) -> Vec<&str> {
        self.peers.iter().map(String::as_str).filter(|name| *name != "none").collect()
    }

    /// Kinds of congestion control, of those that the kernel has.
    pub fn congestion(&self, available: &[String]) -> Vec<String> {
        let wanted = match self.congestion.as_slice() {
            [] if self.full => vec!["cubic".to_owned(), "bbr".to_owned()],
            [] => vec!["cubic".to_owned()],
            list => list.to_vec(),
        };
        wanted.into_iter().filter(|name| available.contains(name)).collect()
    }

    /// Whether a measurement of that name, or one of that group of names, is wanted.
    pub fn wants(&self, id: &str) -> bool {
        let fits = |start: &String| id.starts_with(start) || start.starts_with(id);
        self.only.is_empty() || self.only.iter().any(fits)
    }
}

/// Splits `NAME=VALUE`.
pub fn pair(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn defaults_depend_on_the_kind_of_run() {
        Args::command().debug_assert();
        let all = args("bench");
        assert_eq!((all.rounds(), all.seconds(), all.soak()), (3, 4, 0));
        assert_eq!(all.peers(), ["wireguard-go", "boringtun", "gotatun"]);
        let quick = args("bench --quick --peers none --rounds 2 --only tcp,rtt.idle --readme");
        assert_eq!((quick.rounds(), quick.seconds()), (2, 2));
        assert!(quick.peers().is_empty());
        assert!(quick.wants("tcp.1.out") && quick.wants("rtt.idle.p50"));
        assert!(!quick.wants("rtt.load.p50") && quick.wants("rtt"));
        assert!(quick.readme && quick.readme_file.is_none());
        assert!(Args::try_parse_from(["bench", "--quick", "--full"]).is_err());
        assert!(Args::try_parse_from(["bench", "--rounds", "0"]).is_err());
    }

    #[test]
    fn only_kinds_of_congestion_control_that_are_there() {
        let (both, one) = (["cubic".to_owned(), "bbr".to_owned()], ["cubic".to_owned()]);
        assert_eq!(args("bench").congestion(&both), one);
        assert_eq!(args("bench --full").congestion(&both), both);
        assert_eq!(args("bench --full").congestion(&one), one);
        assert_eq!(args("bench --congestion bbr").congestion(&both), ["bbr"]);
        assert!(args("bench --congestion bbr").congestion(&one).is_empty());
    }

    #[test]
    fn pairs_have_two_parts() {
        assert_eq!(pair("a=b=c"), Some(("a", "b=c")));
        assert_eq!((pair("a"), pair("=b"), pair("a=")), (None, None, None));
    }
}
