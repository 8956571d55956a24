//! Pairing by hand: makes and takes the texts that people carry.
//!
//! What is open lives in the session machines, so it outlives the client that asked. Here is only
//! who waits for a text that is being made.

use std::time::Duration;

use qanah_core::key::PublicKey;
use qanah_core::router::{PeerId, Router};
use qanah_core::session::{EndedOffer, HandError};
use qanah_core::signal::text::{self, MAX_PARTS, Owner, Part, TextError, TextKind};
use qanah_core::signal::{Message, OpenError, SessionId};
use tokio::sync::oneshot;
use tracing::info;

use super::peer::Peer;
use crate::clock;

/// Texts that may be in the making at once. Each takes some seconds.
const MAX_CALLS: usize = 16;
/// The least part of a public key that names a peer, in characters.
const MIN_PREFIX: usize = 4;

/// Why pairing by hand does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairingError {
    /// The tunnel has no such peer.
    #[error("there is no peer {what}{}", list(known))]
    UnknownPeer {
        /// What was asked for.
        what: String,
        /// The peers that there are.
        known: Vec<String>,
    },
    /// Several peers fit.
    #[error("{what} fits several peers: {}", known.join(", "))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// Those that fit.
        known: Vec<String>,
    },
    /// The text cannot be used.
    #[error(transparent)]
    BadText(#[from] BadText),
    /// The machine cannot be reached at the moment, or WebRTC does not work.
    #[error("the text could not be made: {0}")]
    NotReady(String),
    /// Too many texts are being made.
    #[error("too many offers and answers are being made at the moment")]
    Busy,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadText {
    /// Not a text, cut off, garbled, of another kind or version.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Of another version inside.
    #[error("this text is of version {0}, which is not spoken here; one side needs an update")]
    Version(u8),
    /// No part of it is for a peer of this tunnel.
    #[error("this {0} is for somebody else: no part of it is for this tunnel and one of its peers")]
    ForOthers(TextKind),
    /// It was made here.
    #[error("this {0} was made by this very tunnel; it is for {1} to read")]
    Own(TextKind, String),
    /// It does not authenticate.
    #[error("this {0} does not authenticate: the PresharedKey of {1} differs, or it is forged")]
    Forged(TextKind, String),
    /// The peer made it, but it breaks the protocol.
    #[error("this {0} of {1} cannot be used: {2}; one side may need an update")]
    Malformed(TextKind, String, String),
    /// The offer was answered before.
    #[error(
        "this offer of {0} was used already: it was answered, and serves once; ask for a new one"
    )]
    Used(String),
    /// An answer to an offer that got its answer.
    #[error("this answer of {0} was used already: it, or another to the same offer, was accepted")]
    Accepted(String),
    /// The offer's time is over.
    #[error("the offer that {0} answers has expired; make a new one")]
    Expired(String),
    /// There is a newer offer.
    #[error(
        "the offer that {0} answers was replaced by a newer one; answer that one, or make another"
    )]
    Replaced(String),
    /// The offer's connection failed.
    #[error("the offer that {0} answers has failed; make a new one")]
    Failed(String),
    /// No such offer.
    #[error(
        "the offer that {0} answers is not known here: the tunnel was restarted since, or it is too long ago; make a new one"
    )]
    Unknown(String),
}

fn list(known: &[String]) -> String {
    if known.is_empty() {
        " (the tunnel has no peers)".to_owned()
    } else {
        format!("; there are {}", known.join(", "))
    }
}

/// An offer that is open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfferMade {
    /// For people to carry.
    pub(crate) text: String,
    /// How long it is open.
    pub(crate) lifetime: Duration,
    /// Who can answer it.
    pub(crate) peers: Vec<String>,
}

/// An answer that waits to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerMade {
    /// For people to carry back.
    pub(crate) text: String,
    /// Who made the offer.
    pub(crate) peer: String,
}

/// Who waits for a text.
enum Client {
    Offer(Duration, oneshot::Sender<Result<OfferMade, PairingError>>),
    Answer(oneshot::Sender<Result<AnswerMade, PairingError>>),
}

/// A text in the making.
struct Call {
    client: Client,
    waiting: Vec<SessionId>,
    parts: Vec<Part>,
    peers: Vec<String>,
    failure: String,
}

/// A part that was made, or the reason why not.
pub(super) type Made = (SessionId, Result<Part, String>);

/// The texts in the making.
#[derive(Default)]
pub(super) struct Pairing {
    calls: Vec<Call>,
}

impl Pairing {
    /// Begins an offer to one peer, or to all.
    pub(super) fn offer(
        &mut self,
        peers: &mut [&mut Peer],
        router: &Router,
        wanted: Option<&str>,
        lifetime: Duration,
        reply: oneshot::Sender<Result<OfferMade, PairingError>>,
    ) {
        let now = clock::now();
        let chosen = match self.choose(peers, router, wanted) {
            Ok(chosen) => chosen,
            // Whoever asked may have gone, here and below.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let begun = peers.iter_mut().enumerate().filter(|(at, _)| chosen.contains(at));
        let waiting =
            begun.map(|(_, peer)| peer.paths.direct_mut().offer_by_hand(now, lifetime)).collect();
        self.calls.push(Call::new(Client::Offer(lifetime, reply), waiting));
    }

    fn choose(
        &self,
        peers: &[&mut Peer],
        router: &Router,
        wanted: Option<&str>,
    ) -> Result<Vec<usize>, PairingError> {
        if self.calls.len() >= MAX_CALLS {
            return Err(PairingError::Busy);
        }
        let names: Vec<_> =
            peers.iter().map(|peer| (peer.label.as_str(), peer.public_key, peer.id)).collect();
        match wanted {
            Some(what) => select(&names, router, what).map(|at| vec![at]),
            None if peers.is_empty() => {
                Err(PairingError::UnknownPeer { what: "to offer to".into(), known: Vec::new() })
            }
            None if peers.len() > MAX_PARTS => Err(BadText::from(TextError::TooMany).into()),
            None => Ok((0..peers.len()).collect()),
        }
    }

    /// Begins to answer an offer.
    pub(super) fn answer(
        &mut self,
        peers: &mut [&mut Peer],
        text: &str,
        reply: oneshot::Sender<Result<AnswerMade, PairingError>>,
    ) {
        if self.calls.len() >= MAX_CALLS {
            return drop(reply.send(Err(PairingError::Busy)));
        }
        let begun = open(peers, TextKind::Offer, text).and_then(|(peer, message)| match message {
            Message::Offer(offer) => match peer.paths.answer_by_hand(clock::now(), &offer) {
                Ok(()) => Ok(offer.session),
                Err(error) => Err(explain(TextKind::Offer, &peer.label, error)),
            },
            _ => Err(mislabelled(TextKind::Offer, peer)),
        });
        match begun {
            Ok(session) => self.calls.push(Call::new(Client::Answer(reply), vec![session])),
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Something came of the offers and answers that were begun.
    pub(super) fn collect(&mut self, peers: &mut [&mut Peer]) {
        for peer in peers {
            for (session, made) in std::mem::take(&mut peer.made) {
                let call = self.calls.iter_mut().find(|call| call.waiting.contains(&session));
                // Without one, the client's text was lost to an error: the peer lets it expire.
                if let Some(call) = call {
                    call.take(session, made, &peer.label);
                }
            }
        }
        let (done, open) = std::mem::take(&mut self.calls)
            .into_iter()
            .partition(|call: &Call| call.waiting.is_empty());
        self.calls = open;
        let done: Vec<Call> = done;
        done.into_iter().for_each(Call::finish);
    }
}

/// Takes an answer: the connection is made now.
pub(super) fn accept(peers: &mut [&mut Peer], text: &str) -> Result<String, PairingError> {
    let (peer, message) = open(peers, TextKind::Answer, text)?;
    let Message::Answer(answer) = message else {
        return Err(mislabelled(TextKind::Answer, peer).into());
    };
    let taken = peer.paths.direct_mut().accept_by_hand(clock::now(), &answer);
    taken.map_err(|error| explain(TextKind::Answer, &peer.label, error))?;
    info!(PEER = %peer.label, "the answer of {} was accepted", peer.label);
    Ok(peer.label.clone())
}

impl Call {
    const fn new(client: Client, waiting: Vec<SessionId>) -> Self {
        Self { client, waiting, parts: Vec::new(), peers: Vec::new(), failure: String::new() }
    }

    fn take(&mut self, session: SessionId, made: Result<Part, String>, peer: &str) {
        self.waiting.retain(|waiting| *waiting != session);
        match made {
            Ok(part) => {
                self.parts.push(part);
                self.peers.push(peer.to_owned());
            }
            Err(reason) => self.failure = reason,
        }
    }

    fn finish(self) {
        let kind = match self.client {
            Client::Offer(..) => TextKind::Offer,
            Client::Answer(_) => TextKind::Answer,
        };
        let text = if self.parts.is_empty() {
            Err(PairingError::NotReady(self.failure))
        } else {
            text::write(kind, &self.parts).map_err(|error| BadText::from(error).into())
        };
        let who = self.peers.join(", ");
        match (self.client, text) {
            (Client::Offer(lifetime, reply), Ok(text)) => {
                info!("an offer by hand to {who} is open for {} s", lifetime.as_secs());
                drop(reply.send(Ok(OfferMade { text, lifetime, peers: self.peers })));
            }
            (Client::Answer(reply), Ok(text)) => {
                info!("the offer by hand of {who} is answered");
                drop(reply.send(Ok(AnswerMade { text, peer: who })));
            }
            (Client::Offer(_, reply), Err(error)) => drop(reply.send(Err(error))),
            (Client::Answer(reply), Err(error)) => drop(reply.send(Err(error))),
        }
    }
}

/// Finds the part of a text that a peer made for us, and opens it.
fn open<'a>(
    peers: &'a mut [&mut Peer],
    kind: TextKind,
    text: &str,
) -> Result<(&'a mut Peer, Message), BadText> {
    let parts = text::read(kind, text)?;
    let mut own = None;
    for (at, peer) in peers.iter().enumerate() {
        for part in &parts {
            match peer.keys.owner(part) {
                Owner::Peer => {
                    let message = peer.keys.open_by_hand(part);
                    let message = message.map_err(|error| unopened(kind, &peer.label, error))?;
                    let peer = peers.get_mut(at).ok_or(BadText::ForOthers(kind))?;
                    return Ok((peer, message));
                }
                Owner::Own => own = Some(peer.label.clone()),
                Owner::Others => {}
            }
        }
    }
    Err(own.map_or(BadText::ForOthers(kind), |peer| BadText::Own(kind, peer)))
}

fn unopened(kind: TextKind, peer: &str, error: OpenError) -> BadText {
    match error {
        OpenError::Version(version) => BadText::Version(version),
        OpenError::Forged => BadText::Forged(kind, peer.to_owned()),
        other => BadText::Malformed(kind, peer.to_owned(), other.to_string()),
    }
}

/// The peer itself has sealed an answer in an offer's text, or the other way round.
fn mislabelled(kind: TextKind, peer: &Peer) -> BadText {
    BadText::Malformed(kind, peer.label.clone(), "it holds something else".to_owned())
}

fn explain(kind: TextKind, peer: &str, error: HandError) -> BadText {
    let peer = peer.to_owned();
    match error {
        HandError::Used => BadText::Used(peer),
        HandError::Ended(EndedOffer::Answered) => BadText::Accepted(peer),
        HandError::Ended(EndedOffer::Expired) => BadText::Expired(peer),
        HandError::Ended(EndedOffer::Replaced) => BadText::Replaced(peer),
        HandError::Ended(EndedOffer::Failed) => BadText::Failed(peer),
        HandError::Unknown => BadText::Unknown(peer),
        HandError::Forged => BadText::Forged(kind, peer),
        HandError::Malformed(_) | HandError::Broken => {
            BadText::Malformed(kind, peer, error.to_string())
        }
    }
}

/// The one peer that is meant by its name, the beginning of its public key, or an address that it
/// owns in the tunnel.
fn select(
    peers: &[(&str, PublicKey, PeerId)],
    router: &Router,
    what: &str,
) -> Result<usize, PairingError> {
    let label = |at: &usize| peers.get(*at).map(|(label, ..)| (*label).to_owned());
    let fitting = |fits: &dyn Fn(&(&str, PublicKey, PeerId)) -> bool| -> Vec<usize> {
        peers.iter().enumerate().filter(|(_, peer)| fits(peer)).map(|(at, _)| at).collect()
    };
    let prefix = what.trim_end_matches('…');
    let mut found = fitting(&|(label, ..)| *label == what);
    if found.is_empty() && prefix.len() >= MIN_PREFIX {
        found = fitting(&|(_, key, _)| key.to_string().starts_with(prefix));
    }
    if found.is_empty()
        && let Ok(address) = what.parse()
        && let Some(owner) = router.route(address)
    {
        found = fitting(&|(.., id)| *id == owner);
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(PairingError::UnknownPeer {
            what: what.to_owned(),
            known: peers.iter().map(|(label, ..)| (*label).to_owned()).collect(),
        }),
        several => Err(PairingError::Ambiguous {
            what: what.to_owned(),
            known: several.iter().filter_map(label).collect(),
        }),
    }
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
