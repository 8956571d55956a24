//! Timers and limits of a mesh. PROTOCOL.md lists those that others meet.

use std::time::Duration;

/// How long a peer that has no session yet is tried directly before a relay is asked to help: longer than a direct
/// session mostly takes.
pub const DIRECT_FIRST: Duration = Duration::from_millis(1500);
/// How long a session by a relay stays after the direct one works (again), unused.
pub const RELAY_LINGER: Duration = Duration::from_secs(30);
/// The longest pause between two hellos to a peer that somebody reaches: it is there, so it is worth trying.
pub const HELLO_WHEN_REACHED: Duration = Duration::from_secs(15);

/// How soon a question is asked again for the first time; the pause doubles.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause between two questions while there is a relay in use, or one would be.
pub const ASK_WHEN_RELAYED: Duration = Duration::from_secs(10);
/// The longest pause between two questions about peers that nobody reaches.
pub const ASK_SELDOM: Duration = Duration::from_secs(60);
/// Least time between two questions to one peer.
pub const ASK_PACE: Duration = Duration::from_millis(250);
/// How long an answer is waited for before the next question goes out.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long "I reach it" is believed without being said again.
pub const BELIEVED: Duration = Duration::from_secs(150);

/// What a way of unknown length is taken for.
pub const UNKNOWN_RTT: Duration = Duration::from_millis(100);
/// Another relay is clearly better when its way is shorter by a fifth and at least by this much ...
pub const BETTER_BY: Duration = Duration::from_millis(5);
/// ... for so long.
pub const BETTER_FOR: Duration = Duration::from_secs(10);
/// How long a relay by which nothing came back is not chosen again while there are others. Each further time it is
/// twice as long ...
pub const SHUNNED_FOR: Duration = Duration::from_secs(30);
/// ... and no longer than this. As long again after that, it counts as the first time.
pub const SHUNNED_MAX: Duration = Duration::from_secs(600);
/// How long a measured round-trip time by a relay counts more than what the relay says.
pub const MEASURED_COUNTS: Duration = Duration::from_secs(600);
/// Peers that carry each message of signaling, at the most.
pub const SIGNAL_CARRIERS: usize = 2;
