//! TCP by iperf3, which everybody knows.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::ns::Place;
use crate::process::Proc;
use crate::wait::{eventually, secs};

const PORT: u16 = 5201;
/// How long after its end a transfer is given up.
const PATIENCE: Duration = secs(15);

/// One transfer.
#[derive(Debug, Clone)]
pub struct Run {
    /// Streams side by side.
    pub streams: u32,
    /// From the server to the client.
    pub back: bool,
    /// Seconds that count.
    pub seconds: u32,
    /// Seconds before that which do not: slow start on a long path.
    pub omit: u32,
    /// Congestion control of the kernel.
    pub congestion: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// Megabits of payload a second, at the receiver.
    pub mbit: f64,
    /// Bytes of payload at the receiver.
    pub bytes: f64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Megabits a second, second by second, of the sender.
    pub course: Vec<f64>,
}

/// Reads what `iperf3 --json` printed.
///
/// # Errors
/// When it reports one, or nothing.
pub fn parse(text: &str) -> Result<Transfer> {
    let all: Value = serde_json::from_str(text).with_context(|| format!("iperf3 said {text:?}"))?;
    if let Some(error) = all.get("error").and_then(Value::as_str) {
        bail!("iperf3: {error}");
    }
    let number = |path: &str| all.pointer(path).and_then(Value::as_f64);
    let intervals = all.get("intervals").and_then(Value::as_array).map(Vec::as_slice);
    let counted = |interval: &&Value| interval.pointer("/sum/omitted") != Some(&Value::Bool(true));
    let rate = |interval: &Value| interval.pointer("/sum/bits_per_second").and_then(Value::as_f64);
    let course = intervals.unwrap_or_default().iter().filter(counted).filter_map(rate);
    let missing = |what: &str| anyhow!("iperf3 said nothing of {what}");
    Ok(Transfer {
        mbit: number("/end/sum_received/bits_per_second").ok_or_else(|| missing("a rate"))? / 1e6,
        bytes: number("/end/sum_received/bytes").ok_or_else(|| missing("bytes"))?,
        retransmits: all.pointer("/end/sum_sent/retransmits").and_then(Value::as_u64).unwrap_or(0),
        course: course.map(|rate| (rate / 1e4).round() / 100.0).collect(),
    })
}

/// Transfers from one place (the client) to an address of another, or back.
///
/// # Errors
/// When it stalls, or iperf3 cannot be run.
pub fn run(from: Place, to: Place, address: &str, run: &Run) -> Result<Transfer> {
    let dir = tempfile::tempdir()?;
    let mut command = to.command("iperf3");
    command.args(["--server", "--one-off", "--bind", address, "--port", &PORT.to_string()]);
    let mut server = Proc::spawn("the iperf3 server", command, &dir.path().join("server"))?;
    eventually("iperf3 listens", secs(10), || {
        server.ensure_running()?;
        let sockets = to.run(&format!("ss -Hltn sport = :{PORT}"))?;
        ensure!(!sockets.is_empty(), "it does not listen");
        Ok(())
    })?;
    let mut command = from.command("iperf3");
    command.args(["--json", "--client", address, "--port", &PORT.to_string()]);
    command.args(["--connect-timeout", "8000", "--congestion", &run.congestion]);
    command.args(["--time", &run.seconds.to_string(), "--omit", &run.omit.to_string()]);
    command.args(["--parallel", &run.streams.to_string()]);
    command.args(if run.back { &["--reverse"][..] } else { &[] });
    // No program around it that would keep the kernel from ending it with us.
    let mut client = Proc::spawn("iperf3", command, &dir.path().join("client"))?;
    client.wait(secs(u64::from(run.seconds + run.omit)) + PATIENCE)?;
    parse(&client.log())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors_are_read() {
        let text = r#"{"intervals":[
            {"sum":{"bits_per_second":9e6,"omitted":true}},
            {"sum":{"bits_per_second":123456789,"omitted":false}}],
            "end":{"sum_sent":{"bytes":20,"bits_per_second":1,"retransmits":3},
                   "sum_received":{"bytes":1250000,"bits_per_second":1e8}}}"#;
        let expected =
            Transfer { mbit: 100.0, bytes: 1_250_000.0, retransmits: 3, course: vec![123.46] };
        assert_eq!(parse(text).unwrap(), expected);
        let error = parse(r#"{"error":"unable to connect"}"#).unwrap_err().to_string();
        assert!(error.contains("unable to connect"), "{error}");
        assert!(parse("").is_err() && parse(r#"{"end":{}}"#).is_err());
    }
}
