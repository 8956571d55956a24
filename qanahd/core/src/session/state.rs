//! What the machine keeps of a session, and how it looks from outside.

use std::time::{Duration, Instant};

use super::better::PathClass;
use super::limits::{BASE_PACKET, KEY_LIFETIME, MAX_CANDIDATES, OFFER_REPEATS};
use super::path_mtu::Proof;
use super::pending::Pending;
use super::pulse::Pulse;
use super::rekey::Rekey;
use super::trickle::Trickle;
use crate::handshake::{Initiator, Mode, Responder, SessionKeys};
use crate::signal::{
    Answer, Candidate, Capabilities, Challenge, Description, IceCredentials, Offer, SessionId,
};

/// How the offer and the answer of a session travel, and what kind of session it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the inboxes, for a data channel.
    Broker,
    /// By the inboxes, for a session whose frames a relay passes on.
    Relay,
    /// People carry them. The offer is open for so long.
    Hand { lifetime: Duration },
}

impl Way {
    pub(super) const fn mode(self) -> Mode {
        match self {
            Self::Broker => Mode::Broker,
            Self::Relay => Mode::Relay,
            Self::Hand { .. } => Mode::Manual,
        }
    }

    pub(super) const fn is_by_hand(self) -> bool {
        matches!(self, Self::Hand { .. })
    }

    /// How long the first checks of ICE must go on, where that is longer than usual.
    pub(super) const fn patience(self) -> Option<Duration> {
        match self {
            Self::Broker | Self::Relay => None,
            Self::Hand { lifetime } => Some(lifetime),
        }
    }
}

/// One attempt to connect and the session that it becomes.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) way: Way,
    /// When it was begun, and with it its sockets.
    pub(super) began: Instant,
    /// The session that was live when this attempt began: the one it is to replace.
    pub(super) replaces: Option<SessionId>,
    /// When another session took over from this one.
    pub(super) retired: Option<Instant>,
    /// We made the offer.
    pub(super) offerer: bool,
    pub(super) stage: Stage,
    /// When the present stage has taken too long; for a live session, the end of its keys.
    pub(super) deadline: Instant,
    /// The receiver index in frames of the peer.
    pub(super) index: u32,
    pub(super) trickle: Trickle,
    /// The peer's candidates that came before its description.
    pub(super) early: Vec<Candidate>,
    /// The peer's candidates in this generation: each is taken once, and so many at most.
    pub(super) taken: Vec<Candidate>,
    pub(super) ice: IceGeneration,
    pub(super) rekey: Rekey,
    /// How good its path is, once it has one.
    pub(super) path: Option<PathClass>,
    /// Largest SCTP packet that we send, in bytes.
    pub(super) packet_size: u16,
    /// That its packets pass, where that must be proved.
    pub(super) proof: Option<Proof>,
    /// The largest that the path takes at its beginning, where it may be more.
    pub(super) room: Option<u16>,
}

/// Which ICE generation each side is in. Equal when no restart is under way.
#[derive(Debug, Default)]
pub(super) struct IceGeneration {
    pub(super) local: u32,
    pub(super) remote: u32,
    /// Ours in a generation above 0, as soon as the WebRTC stack has made them.
    pub(super) credentials: Option<IceCredentials>,
}

/// How far a session is.
pub(super) enum Stage {
    /// Offerer: the WebRTC stack makes a description.
    DescribingOffer { echo: Option<Challenge> },
    /// Offerer: candidates may still join the description.
    GatheringOffer { echo: Option<Challenge>, local: Box<Description>, until: Instant },
    /// Offerer: the offer is out.
    Offered { initiator: Box<Initiator>, offer: Offer, repeats: Repeats },
    /// Answerer: the WebRTC stack makes a description.
    DescribingAnswer { responder: Box<Responder>, remote: Peer },
    /// Answerer: candidates may still join the description.
    GatheringAnswer {
        responder: Box<Responder>,
        remote: Peer,
        local: Box<Description>,
        until: Instant,
    },
    /// Both: keys are there, the channel is not.
    Connecting { link: Link },
    /// Both: the channel is open, no frame was opened yet.
    Confirming { link: Link, next_confirm: Option<Instant> },
    /// Both: a frame was opened.
    Live { link: Link, pulse: Pulse },
    /// Taken out to be changed; never seen from outside.
    Changing,
}

/// When an open offer is sent again.
#[derive(Debug)]
pub(super) struct Repeats {
    pub(super) first: Instant,
    pub(super) done: usize,
}

impl Repeats {
    pub(super) const fn from(first: Instant) -> Self {
        Self { first, done: 0 }
    }

    /// People carry the offer: it is not sent again.
    pub(super) const fn none(first: Instant) -> Self {
        Self { first, done: OFFER_REPEATS.len() }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        OFFER_REPEATS.get(self.done).map(|after| self.first + *after)
    }
}

/// What the peer said of itself in its description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) index: u32,
    pub(super) capabilities: Capabilities,
}

impl From<&Description> for Peer {
    fn from(description: &Description) -> Self {
        Self { index: description.index, capabilities: description.capabilities }
    }
}

/// A finished handshake.
pub(super) struct Link {
    pub(super) keys: SessionKeys,
    pub(super) peer: Peer,
    /// When the handshake ended; the age of the keys.
    pub(super) born: Instant,
}

impl Link {
    pub(super) fn expiry(&self) -> Instant {
        self.born + KEY_LIFETIME
    }
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        way: Way,
        stage: Stage,
        began: Instant,
        deadline: Instant,
        index: u32,
    ) -> Self {
        let offerer = matches!(stage, Stage::DescribingOffer { .. });
        Self {
            id,
            way,
            began,
            replaces: None,
            retired: None,
            offerer,
            stage,
            deadline,
            index,
            trickle: Trickle::default(),
            early: Vec::new(),
            taken: Vec::new(),
            ice: IceGeneration::default(),
            rekey: Rekey::default(),
            path: None,
            packet_size: BASE_PACKET,
            proof: None,
            room: None,
        }
    }

    /// Takes the stage out to change it; the caller puts another one in.
    pub(super) const fn take_stage(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Changing)
    }

    pub(super) const fn link(&self) -> Option<&Link> {
        match &self.stage {
            Stage::Connecting { link }
            | Stage::Confirming { link, .. }
            | Stage::Live { link, .. } => Some(link),
            _ => None,
        }
    }

    pub(super) const fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.stage {
            Stage::Connecting { link }
            | Stage::Confirming { link, .. }
            | Stage::Live { link, .. } => Some(link),
            _ => None,
        }
    }

    pub(super) const fn pulse(&self) -> Option<&Pulse> {
        match &self.stage {
            Stage::Live { pulse, .. } => Some(pulse),
            _ => None,
        }
    }

    pub(super) const fn pulse_mut(&mut self) -> Option<&mut Pulse> {
        match &mut self.stage {
            Stage::Live { pulse, .. } => Some(pulse),
            _ => None,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.pulse().is_some_and(|pulse| pulse.dead_since.is_some())
    }

    /// Whether nothing shows that another session should take its place.
    pub(super) fn is_worth_keeping(&self) -> bool {
        !self.is_dead() && !self.pulse().is_some_and(|pulse| pulse.narrowed)
    }

    /// Takes those of the peer's candidates that are new, as long as there are not too many.
    pub(super) fn take_candidates(&mut self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let room = MAX_CANDIDATES.saturating_sub(self.taken.len());
        let mut fresh = candidates;
        fresh.retain(|candidate| !self.taken.contains(candidate));
        fresh.truncate(room);
        self.taken.extend_from_slice(&fresh);
        fresh
    }

    /// People have to do something before it goes on.
    const fn waits_for_people(&self) -> bool {
        match (self.way, &self.stage) {
            (Way::Hand { .. }, Stage::Offered { .. }) => true,
            (Way::Hand { .. }, Stage::Connecting { .. }) => !self.offerer,
            _ => false,
        }
    }

    /// The peer was told the description (after a restart: the credentials), so candidates may
    /// follow. By hand all that there are stand in the description.
    pub(super) fn described(&self) -> bool {
        if self.way.is_by_hand() && self.pulse().is_none() {
            return false;
        }
        if self.ice.local > 0 && self.ice.credentials.is_none() {
            return false;
        }
        matches!(
            self.stage,
            Stage::Offered { .. }
                | Stage::Connecting { .. }
                | Stage::Confirming { .. }
                | Stage::Live { .. }
        )
    }

    const fn phase(&self) -> &'static str {
        if self.waits_for_people() {
            return if self.offerer {
                "an offer by hand is open"
            } else {
                "an answer by hand is to be accepted"
            };
        }
        match self.stage {
            Stage::DescribingOffer { .. } | Stage::GatheringOffer { .. } => "making an offer",
            Stage::Offered { .. } => "waiting for the answer",
            Stage::DescribingAnswer { .. } | Stage::GatheringAnswer { .. } => "making an answer",
            Stage::Connecting { .. } => "looking for a path (ICE)",
            Stage::Confirming { .. } => "confirming the keys",
            Stage::Live { .. } | Stage::Changing => "connected",
        }
    }
}

/// The answer that a repeated offer gets.
pub(super) struct Answered {
    pub(super) offer: Offer,
    /// None while the description is being made.
    pub(super) answer: Option<Answer>,
}

/// What a peer's state is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No way to reach the peer's ear: no broker is connected.
    NoSignaling,
    /// Hellos go out; the peer has not answered.
    Waiting,
    /// An attempt is under way.
    Connecting,
    /// Frames flow.
    Connected,
    /// Connected, but nothing came for a while.
    Recovering,
}

/// A peer's state as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// In one word.
    pub phase: Phase,
    /// What is under way, or why the last thing failed.
    pub detail: Option<String>,
    /// When the next hello goes out.
    pub next_try: Option<Instant>,
    /// The session that takes packets.
    pub session: Option<SessionId>,
    /// Since when it does.
    pub connected_since: Option<Instant>,
    /// When its handshake ended.
    pub handshake_at: Option<Instant>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Largest SCTP packet that the session sends, in bytes.
    pub packet_size: Option<u16>,
}

impl View {
    pub(super) fn of(
        live: Option<&Session>,
        pending: &Pending,
        signaling: bool,
        next_hello: Option<Instant>,
        failure: Option<&str>,
    ) -> Self {
        let pulse = live.and_then(Session::pulse);
        let connecting = pending.iter().find(|session| !session.waits_for_people());
        let by_hand = pending.iter().find(|session| session.waits_for_people());
        let phase = match (pulse, connecting) {
            (Some(pulse), _) if pulse.dead_since.is_some() => Phase::Recovering,
            (Some(_), _) => Phase::Connected,
            (None, Some(_)) => Phase::Connecting,
            (None, None) if signaling => Phase::Waiting,
            (None, None) => Phase::NoSignaling,
        };
        let detail = match phase {
            Phase::Connected => None,
            Phase::Recovering => Some("nothing heard, looking for another path".to_owned()),
            Phase::Connecting => connecting.map(|session| session.phase().to_owned()),
            Phase::Waiting | Phase::NoSignaling => {
                by_hand.map(Session::phase).or(failure).map(str::to_owned)
            }
        };
        Self {
            phase,
            detail,
            next_try: next_hello.filter(|_| matches!(phase, Phase::Waiting)),
            session: live.map(|session| session.id),
            connected_since: pulse.map(|pulse| pulse.since),
            handshake_at: live.and_then(Session::link).map(|link| link.born),
            rtt: pulse.and_then(|pulse| pulse.rtt),
            packet_size: live.map(|session| session.packet_size),
        }
    }
}
