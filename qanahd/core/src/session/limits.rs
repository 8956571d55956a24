//! Timers and limits of a session. PROTOCOL.md lists the same figures for other implementations.

use std::time::Duration;

/// How long the offerer waits for an answer before the offer is void.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(10);
/// When an open offer is sent again, after the first time.
pub const OFFER_REPEATS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(7)];
/// How long the WebRTC stack may take to make a description.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long ICE, DTLS and SCTP may take after offer and answer were exchanged.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an open channel may stay without an opened frame.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two confirm frames of the offerer.
pub const CONFIRM_INTERVAL: Duration = Duration::from_millis(500);
/// How long a description waits for host candidates to travel in it. A lone candidate message
/// costs a broker round trip, so a few milliseconds here make connecting faster.
pub const DESCRIPTION_WINDOW: Duration = Duration::from_millis(30);
/// How long the description of an offer or answer by hand waits for candidates: none can follow it.
pub const GATHER_BY_HAND: Duration = Duration::from_secs(3);
/// How long an offer by hand is open when nobody says otherwise.
pub const HAND_LIFETIME: Duration = Duration::from_secs(3600);
/// The longest that an offer by hand may be open.
pub const HAND_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Ids of offers by hand that are remembered for each peer, so that one is answered once only.
pub const HAND_REMEMBERED: usize = 256;
/// How long further candidates wait for company.
pub const CANDIDATE_WINDOW: Duration = Duration::from_millis(20);
/// Most candidates of one side in one generation.
pub const MAX_CANDIDATES: usize = 32;

/// SCTP packet size, in bytes, that fits every path: IPv6's least MTU of 1280 bytes less the headers of
/// IPv6, UDP, TURN and DTLS (BASE_PLPMTU of RFC 8899, section 5.1.2).
pub const BASE_PACKET: u16 = 1191;
/// Larger packets are not tried before a path has been in use for so long.
pub const RAISE_AFTER: Duration = Duration::from_secs(5);
/// ... and only where packets were sent in the last so long: what is idle is not woken for it.
pub const RAISE_TRAFFIC: Duration = Duration::from_secs(5);
/// Pause between two tries to begin it, while nothing comes of them.
pub const RAISE_RETRY: Duration = Duration::from_secs(15);
/// A size that was proved to be too large is tried again after this (PMTU_RAISE_TIMER of RFC 8899, section 5.1.1).
pub const RAISE_AGAIN: Duration = Duration::from_secs(600);
/// The least gain that is worth a new session, in bytes.
pub const RAISE_GAIN: u16 = 64;
/// How long ICE, DTLS and SCTP may take for a session with larger packets: there is a path already.
pub const RAISE_CONNECT: Duration = Duration::from_secs(10);
/// How long probes may stay without an answer. SCTP sends a lost one again after 1 and 3 s: three times in all
/// (MAX_PROBES of RFC 8899, section 5.1.2).
pub const PROVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the largest probe is sent, until it is answered.
pub const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// ... and how long they must have been without one to show anything, where the peer ends the attempt first.
pub const PROVE_LEAST: Duration = Duration::from_secs(3);
/// How much longer the offerer waits for the answerer's proof than that takes at the most.
pub const PROVE_SLACK: Duration = Duration::from_secs(2);
/// Pause after larger packets stopped to pass; doubled with each time, up to [`RAISE_AGAIN`].
pub const FALL_PAUSE: Duration = Duration::from_secs(60);

/// First pause between two hellos of an unconnected peer; it doubles up to [`HELLO_MAX`].
pub const HELLO_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two hellos. Long, because whoever comes says hello itself: these are for hellos that got lost, and
/// a public broker carries them for every peer that is away for days.
pub const HELLO_MAX: Duration = Duration::from_secs(300);
/// Who has something to send says hello at most this often, whatever the pause is.
pub const NUDGE_PACE: Duration = Duration::from_secs(5);
/// Answers (hello to hello, offer or answer sent again) refill at this pace ...
pub const REPLY_INTERVAL: Duration = Duration::from_secs(1);
/// ... up to this many at once.
pub const REPLY_BURST: u32 = 3;

/// A session that has opened no frame for this long is asked with a ping.
pub const PING_INTERVAL: Duration = Duration::from_secs(4);
/// The same for a session that has sent packets since: an answer was to be expected.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// How soon a ping that was not answered is followed by the next.
pub const PING_AGAIN: Duration = Duration::from_millis(500);
/// A session whose pings are not answered for this long is silent: another way to the peer, if there is one, is
/// better. Nothing is given up yet.
pub const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// The round-trip time is measured at least this often.
pub const RTT_INTERVAL: Duration = Duration::from_secs(20);
/// A session that has opened no frame for this long has lost its path.
pub const PATH_DEAD: Duration = Duration::from_secs(8);
/// How long an ICE restart may take before a new session is sought as well.
pub const RESTART_GRACE: Duration = Duration::from_secs(6);
/// How long a session without a path is kept before it is closed.
pub const DEAD_GRACE: Duration = Duration::from_secs(30);
/// How long a replaced session comes back when its replacement is closed by the peer: the peer may
/// have kept the other one of two sessions that were confirmed at the same time.
pub const TAKE_BACK: Duration = Duration::from_secs(10);
/// How long a replaced session still receives.
pub const RETIRE_AFTER: Duration = Duration::from_secs(30);

/// The session's offerer begins a rekey when the keys are this old: long enough before they must
/// be replaced for many tries.
pub const REKEY_AFTER: Duration = Duration::from_secs(105);
/// ... or when so many frames were sealed or opened under them.
pub const REKEY_AFTER_FRAMES: u64 = 1 << 59;
/// How often the first message of a rekey is sent until the answer comes.
pub const REKEY_RESEND: Duration = Duration::from_secs(1);
/// Without rekey, or when it fails: the offerer begins a new session when the keys are this old (as WireGuard's
/// REKEY_AFTER_TIME).
pub const RENEW_AFTER: Duration = Duration::from_secs(120);
/// The answerer asks for one when the offerer did not.
pub const RENEW_ASK_AFTER: Duration = Duration::from_secs(150);
/// Pause between two attempts to renew.
pub const RENEW_RETRY: Duration = Duration::from_secs(5);
/// A session whose path goes through a TURN server is replaced by one that may have a direct path after about this
/// time ...
pub const BETTER_FIRST: Duration = Duration::from_secs(10);
/// ... then after twice as long, and so on up to this.
pub const BETTER_MAX: Duration = Duration::from_secs(300);
/// Sessions that are tried when IPv6 has come and the path is by IPv4, at the same times. An address may be there
/// a little before the way of its packets.
pub const IPV6_TRIES: u32 = 3;
/// How long we say so each time.
pub const BETTER_ASKING: Duration = Duration::from_secs(3);
/// No key works longer than this (as WireGuard's REJECT_AFTER_TIME).
pub const KEY_LIFETIME: Duration = Duration::from_secs(180);
