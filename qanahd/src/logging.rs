//! Logs: into the journal, with fields, when systemd listens; else lines on standard error.
//!
//! `--log-level` sets the level of Qanah's own crates; the libraries below log warnings only, as
//! they have much to say. `RUST_LOG`, when it is set and can be read, replaces all of that: who
//! sets it (for a moment, by `systemctl edit`) wants exactly what it says.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::LogLevel;

/// Our own crates.
const OWN: [&str; 3] = ["qanahd", "qanah_core", "qanah_proto"];

/// The WebRTC crates (`rtc` stands for all that begin with it) complain about whatever a stranger
/// sends to an open port: anybody could fill the log. What the STUN and TURN servers do is told by
/// `rtc::health`.
const WEBRTC: &str = "rtc=off,webrtc=off";

/// Crates that print ICE and TURN passwords below the level of information.
const TELLTALES: [&str; 3] = ["rtc_ice", "rtc_turn", "rtc_stun"];

/// Starts logging, for the whole process and once.
///
/// # Errors
///
/// When something else has set up logging already.
pub(crate) fn start(level: LogLevel) -> Result<(), TryInitError> {
    let (filter, warning) = filter(level, std::env::var_os("RUST_LOG").as_deref());
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(keeps_secrets));
    // Without a journal socket (a service in a container) there is still standard error.
    match under_systemd().then(tracing_journald::layer) {
        Some(Ok(journal)) => {
            let name = "qanahd".to_owned();
            // Fields keep their names: TUNNEL, PEER, EVENT, MESSAGE_ID (see `events`).
            let journal = journal.with_syslog_identifier(name).with_field_prefix(None);
            registry.with(journal).try_init()?;
        }
        _ => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = fmt::layer().fmt_fields(ForPeople).with_writer(io::stderr);
            registry.with(layer.with_ansi(colour)).try_init()?;
        }
    }
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Says why the process ends, as the last thing that it does.
///
/// The journal asks which unit a process belongs to when it reads the line, and gets no answer when the process
/// is gone by then. Standard error belongs to the unit from the start, so this line is never lost to
/// `journalctl -u` and `systemctl status`; `<3>` is its level, see sd-daemon(3).
pub(crate) fn last_words(text: &str) {
    if under_systemd() {
        // There is nobody left to tell of a failure.
        let _ = writeln!(io::stderr(), "{}", prefixed(text));
    } else {
        tracing::error!("{text}");
    }
}

/// Every line with its level: text of others may have several.
fn prefixed(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("<3>{line}")).collect();
    lines.join("\n")
}

/// Fields as usual, without the ids that only a journal has a use for.
struct ForPeople;

impl<'w> FormatFields<'w> for ForPeople {
    fn format_fields<R: RecordFields>(
        &self,
        writer: Writer<'w>,
        fields: R,
    ) -> std::result::Result<(), std::fmt::Error> {
        let mut visitor = WithoutIds(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct WithoutIds<'w>(DefaultVisitor<'w>);

impl Visit for WithoutIds<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "MESSAGE_ID" => {}
            // The library makes these harmless itself.
            "message" => self.0.record_debug(field, value),
            _ => self.0.record_debug(field, &Printable(value)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "MESSAGE_ID" {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }
}

/// Text of others, such as a peer's name, that cannot steer a terminal.
struct Printable<'a>(&'a dyn std::fmt::Debug);

impl std::fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:?}", self.0);
        for c in text.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Refuses what would print a password, whatever RUST_LOG asks for.
fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO
        || !TELLTALES.iter().any(|name| metadata.target().starts_with(name))
}

/// The filter, and what is wrong with `RUST_LOG` if something is.
fn filter(level: LogLevel, rust_log: Option<&OsStr>) -> (EnvFilter, Option<String>) {
    let mut warning = None;
    if let Some(value) = rust_log.filter(|value| !value.is_empty()) {
        match value.to_str().map(EnvFilter::try_new) {
            Some(Ok(filter)) => return (filter, None),
            Some(Err(error)) => warning = Some(format!("RUST_LOG is ignored: {error}")),
            None => warning = Some("RUST_LOG is ignored: it is not valid UTF-8".to_owned()),
        }
    }
    (EnvFilter::new(default_directives(level)), warning)
}

fn default_directives(level: LogLevel) -> String {
    // A local client can make h2 warn as often as it likes, and would fill the log.
    let others = if level == LogLevel::Error { "error" } else { "warn,h2=error" };
    let own = OWN.map(|name| format!(",{name}={}", level.name()));
    format!("{others},{WEBRTC}{}", own.concat())
}

/// Whether standard error is the journal's, as systemd tells by `JOURNAL_STREAM`.
fn under_systemd() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = fstat(io::stderr().as_fd()) else {
        return false;
    };
    is_stream(&stream, stat.st_dev, stat.st_ino)
}

/// Compares with "DEVICE:INODE" in decimal (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_stream(stream: &OsStr, device: u64, inode: u64) -> bool {
    let parts = stream.to_str().and_then(|text| text.split_once(':'));
    parts.is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

#[cfg(test)]
pub(crate) mod testing {
    use std::io;
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    /// Whether the test of this full name runs in a process of its own; if not, runs it in one.
    ///
    /// `tracing` remembers by place in the code whether anybody listens, for the whole process. A
    /// test that listens only in its own thread would race with others that pass the same place.
    pub(crate) fn alone(test: &str) -> bool {
        const CHILD: &str = "QANAH_TEST_ALONE";
        if std::env::var_os(CHILD).is_some() {
            return true;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        false
    }

    /// Collects log lines for tests to look at: `.with_writer(move || lines.clone())`.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// All that was logged so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::testing::Lines;
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(is_stream(OsStr::new("8:1234"), 8, 1234));
        for other in ["8:1235", "9:1234", "", ":", "8", "8:", "x:y", "8:1234:0"] {
            assert!(!is_stream(OsStr::new(other), 8, 1234), "{other}");
        }
    }

    /// For the reason that `testing::alone` tells: these tests share places in the code, too.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn logged(level: LogLevel, rust_log: Option<&str>) -> String {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = Lines::default();
        let writer = lines.clone();
        let (filter, _) = filter(level, rust_log.map(OsStr::new));
        let layer = fmt::layer().fmt_fields(ForPeople);
        let layer = layer.with_writer(move || writer.clone()).with_ansi(false);
        let subscriber =
            tracing_subscriber::registry().with(filter).with(filter_fn(keeps_secrets)).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "qanahd::tunnel", "own debug");
            tracing::info!(target: "qanah_core", "own info");
            tracing::info!(target: "webrtc::ice", "foreign info");
            tracing::warn!(target: "rtc_ice", "complaint about a stranger");
            tracing::warn!(target: "hyper", "foreign warning");
            tracing::debug!(target: "rtc_ice::agent", "a password");
            tracing::warn!(target: "h2::proto::streams::recv", "a client's doing");
            tracing::warn!(target: "qanahd", "name \x1b[31m\x07");
            let _span =
                tracing::error_span!(target: "qanahd", "tunnel", TUNNEL = %"home").entered();
            let (event, id) = (crate::events::UP.name, crate::events::UP.id);
            tracing::info!(target: "qanahd", PEER = %"lap\x1btop", EVENT = event, MESSAGE_ID = id, "up");
        });
        lines.text()
    }

    #[test]
    fn levels_are_for_our_own_crates() {
        let text = logged(LogLevel::Info, None);
        assert!(text.contains("own info") && text.contains("foreign warning"));
        assert!(!text.contains("own debug") && !text.contains("foreign info"));
        assert!(!text.contains("stranger") && !text.contains("client's doing"));
        let text = logged(LogLevel::Trace, None);
        assert!(text.contains("own debug") && !text.contains("foreign info"));
        assert_eq!(logged(LogLevel::Error, None), "");
    }

    #[test]
    fn rust_log_replaces_the_level() {
        let text = logged(LogLevel::Info, Some("webrtc=info"));
        assert!(text.contains("foreign info") && !text.contains("own info"));
        assert!(logged(LogLevel::Info, Some("")).contains("own info"));
        let (_, warning) = filter(LogLevel::Info, Some(OsStr::new("qanahd=loud")));
        assert!(warning.unwrap().contains("RUST_LOG"));
        assert!(logged(LogLevel::Info, Some("qanahd=loud")).contains("own info"));
    }

    #[test]
    fn nothing_makes_the_libraries_tell_passwords() {
        for everything in ["trace", "rtc_ice=trace", "rtc_ice::agent=debug"] {
            let text = logged(LogLevel::Trace, Some(everything));
            assert!(!text.contains("password"), "with RUST_LOG={everything}");
        }
        assert!(logged(LogLevel::Info, Some("trace")).contains("stranger"));
    }

    #[test]
    fn fields_are_shown_without_ids() {
        let text = logged(LogLevel::Info, None);
        assert!(text.contains("tunnel{TUNNEL=home}: qanahd: up PEER="), "{text}");
        assert!(text.contains("EVENT=\"up\"") && !text.contains("MESSAGE_ID"), "{text}");
        assert!(!text.contains(crate::events::UP.id));
    }

    #[test]
    fn last_words_are_errors_line_by_line() {
        assert_eq!(prefixed("a.conf:1: no\n<6>b"), "<3>a.conf:1: no\n<3><6>b");
    }

    #[test]
    fn text_of_others_cannot_steer_a_terminal() {
        assert!(!logged(LogLevel::Info, None).contains(['\x1b', '\x07']));
    }
}
