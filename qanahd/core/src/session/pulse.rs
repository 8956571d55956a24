//! Signs of life of a live session, and when to ask for more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::limits::{
    DEAD_GRACE, PATH_DEAD, PING_AGAIN, PING_INTERVAL, RTT_INTERVAL, SILENT_AFTER, SUSPECT_AFTER,
};

/// Pings whose answers are waited for at the most. On a path that lives there is one.
const MAX_AWAITED: usize = 8;

/// Signs of life of a live session.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Since when the session is live.
    pub(super) since: Instant,
    /// When a frame was opened last.
    pub(super) last_opened: Instant,
    /// When a packet was sent last.
    pub(super) last_sent: Option<Instant>,
    /// When all this was last looked at.
    pub(super) looked_at: Instant,
    last_ping: Option<Instant>,
    /// Pings that were not answered yet, the oldest first: what they hold, and when they went out.
    awaited: VecDeque<(u64, Instant)>,
    /// Smoothed round-trip time.
    pub(super) rtt: Option<Duration>,
    rtt_at: Option<Instant>,
    /// Since when the path is dead.
    pub(super) dead_since: Option<Instant>,
    /// The pings are larger than what the path takes, it seems.
    pub(super) narrowed: bool,
    /// The next try to have the session replaced.
    pub(super) next_renewal: Instant,
    /// The frame that fills a packet of the session, in bytes, where pings have to show that those pass.
    padding: Option<u16>,
}

impl Pulse {
    pub(super) const fn new(now: Instant, next_renewal: Instant) -> Self {
        Self {
            since: now,
            last_opened: now,
            last_sent: None,
            looked_at: now,
            last_ping: None,
            awaited: VecDeque::new(),
            rtt: None,
            rtt_at: None,
            dead_since: None,
            narrowed: false,
            next_renewal,
            padding: None,
        }
    }

    /// Pings are frames of this size while packets flow.
    pub(super) fn padded(self, padding: Option<u16>) -> Self {
        Self { padding, ..self }
    }

    /// How large the frame of a ping is now, where that is not its least. On an idle path nothing large is to pass.
    pub(super) fn padding(&self, now: Instant) -> Option<u16> {
        let flowing = self.last_sent.is_some_and(|sent| now < sent + RTT_INTERVAL);
        self.padding.filter(|_| flowing)
    }

    /// A ping goes out.
    pub(super) fn pinged(&mut self, now: Instant, value: u64) {
        if self.awaited.len() == MAX_AWAITED {
            // The oldest tells since when nobody answers, the latest are the likeliest to be answered.
            self.awaited.remove(1);
        }
        self.awaited.push_back((value, now));
        self.last_ping = Some(now);
    }

    /// A pong came.
    pub(super) fn ponged(&mut self, now: Instant, value: u64) {
        let Some(at) = self.awaited.iter().position(|(awaited, _)| *awaited == value) else {
            return;
        };
        if let Some((_, sent)) = self.awaited.drain(..=at).next_back() {
            let sample = now.saturating_duration_since(sent);
            // Smoothed as TCP does it (RFC 6298, section 2).
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
            self.rtt_at = Some(now);
            self.narrowed = false;
        }
    }

    /// The path is another one: what was sent by the old one may be lost, and took another time.
    pub(super) fn forget_pings(&mut self) {
        self.awaited.clear();
        self.rtt = None;
        self.rtt_at = None;
        self.last_ping = None;
    }

    /// Whether pings go unanswered: at once what comes from the peer is no proof that it hears us.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_from().is_some_and(|at| at <= now)
    }

    /// Whether a ping now would tell more than those that are out.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        self.awaited.is_empty() && self.last_ping.is_none_or(|at| now >= at + PING_AGAIN)
    }

    fn silent_from(&self) -> Option<Instant> {
        self.awaited.front().map(|(_, sent)| *sent + SILENT_AFTER)
    }

    /// When the next ping is due.
    pub(super) fn next_ping(&self) -> Instant {
        let quiet = self.last_opened + PING_INTERVAL;
        let expecting = self.last_sent.is_some_and(|sent| sent > self.last_opened);
        let suspect = if expecting { self.last_opened + SUSPECT_AFTER } else { quiet };
        let measure = self.rtt_at.map_or(quiet, |at| at + RTT_INTERVAL);
        let asking = !self.awaited.is_empty() && self.dead_since.is_none();
        let Some(last) = self.last_ping else {
            return quiet.min(suspect);
        };
        if asking {
            last + PING_AGAIN
        } else {
            let pace = if self.dead_since.is_some() { PING_INTERVAL } else { PING_AGAIN };
            quiet.min(suspect).min(measure).max(last + pace)
        }
    }

    /// When something is to be done if nothing is heard until then. Where the peer does not hear us a dead path is
    /// waited for until the keys end.
    pub(super) fn deadline(&self, heard: bool) -> Instant {
        let death = match self.dead_since {
            Some(since) => heard.then_some(since + DEAD_GRACE),
            None => Some(self.last_opened + PATH_DEAD),
        };
        let silence = self.silent_from().filter(|at| *at > self.looked_at);
        // While packets go out the data path is looked at more often.
        let busy = self.last_sent.is_some_and(|sent| sent + SUSPECT_AFTER > self.looked_at);
        let look = busy.then_some(self.looked_at + SUSPECT_AFTER);
        let first = self.next_ping().min(self.next_renewal);
        [death, silence, look].into_iter().flatten().fold(first, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn who_sends_packets_asks_sooner() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start + Duration::from_secs(100));
        assert_eq!(pulse.next_ping(), start + PING_INTERVAL);
        pulse.last_sent = Some(start + ms(10));
        assert_eq!(pulse.next_ping(), start + SUSPECT_AFTER);
        pulse.last_opened = start + ms(20);
        assert_eq!(pulse.next_ping(), start + ms(20) + PING_INTERVAL);
    }

    #[test]
    fn unanswered_pings_are_repeated_and_show_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start + Duration::from_secs(100));
        let mut now = start;
        for value in 0..20 {
            pulse.pinged(now, value);
            assert_eq!(pulse.next_ping(), now + PING_AGAIN);
            assert!(pulse.awaited.len() <= MAX_AWAITED);
            assert_eq!(pulse.is_silent(now), now >= start + SILENT_AFTER);
            now += PING_AGAIN;
        }
        // Whatever is opened: only an answer shows that the peer hears us.
        pulse.last_opened = now;
        assert!(pulse.is_silent(now));
        pulse.ponged(now, 999);
        assert!(pulse.is_silent(now));
        pulse.ponged(now, 19);
        assert!(!pulse.is_silent(now) && pulse.awaited.is_empty());
        assert_eq!(pulse.rtt, Some(PING_AGAIN));
    }

    #[test]
    fn a_late_answer_leaves_younger_pings_open() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start + Duration::from_secs(100));
        pulse.pinged(start, 1);
        pulse.pinged(start + ms(500), 2);
        pulse.ponged(start + ms(600), 1);
        assert_eq!(pulse.rtt, Some(ms(600)));
        assert!(!pulse.is_silent(start + ms(500) + SILENT_AFTER - ms(1)));
        assert!(pulse.is_silent(start + ms(500) + SILENT_AFTER));
        // An answer that comes twice is one answer.
        pulse.ponged(start + ms(700), 1);
        assert_eq!(pulse.rtt, Some(ms(600)));
    }

    #[test]
    fn the_deadline_is_never_in_the_past_of_a_look() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start + Duration::from_secs(100));
        pulse.pinged(start, 1);
        pulse.looked_at = start + SILENT_AFTER;
        pulse.last_opened = pulse.looked_at;
        pulse.pinged(pulse.looked_at, 2);
        assert!(pulse.deadline(true) > pulse.looked_at, "known silence is no reason to wake up");
    }
}
