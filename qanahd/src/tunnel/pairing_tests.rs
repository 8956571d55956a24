use qanah_core::config::{Config, TunnelName};
use qanah_core::key::SecretKey;
use qanah_core::router::PeerId;
use qanah_core::session::{Output, RtcCommand};
use std::time::Instant;

use qanah_core::signal::{Candidate, CandidateKind, DtlsRole, IceCredentials, RtcDescription};
use rand_core::OsRng;

use super::super::{Behaviour, Prepared};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const KEYS: [&str; 3] = [
    "YAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=",
    "aAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=",
    "cAnz5TF+lXXJte14tji3zlMNftft3siVGnSSLyG6NWE=",
];
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// A tunnel whose machines run and whose WebRTC is pretended.
struct Tunnel {
    peers: Vec<Peer>,
    router: Router,
    pairing: Pairing,
    works: bool,
}

fn key(at: usize) -> PublicKey {
    KEYS[at].parse::<SecretKey>().expect("a key").public_key()
}

/// The tunnel of one of the three, with the other two as peers.
fn tunnel(me: usize, psk: Option<&str>) -> Tunnel {
    let mut text = format!("[Interface]\nPrivateKey = {}\nAddress = 10.0.0.{me}/24\n", KEYS[me]);
    for at in (0..3).filter(|at| *at != me) {
        let psk = psk.map(|psk| format!("PresharedKey = {psk}\n")).unwrap_or_default();
        text += &format!(
            "[Peer]\n# Name = {}\nPublicKey = {}\nAllowedIPs = 10.0.0.{at}/32\n{psk}",
            NAMES[at],
            key(at)
        );
    }
    let config = Config::parse("test", text.as_bytes()).expect("a configuration").config;
    let prefixes: Vec<_> = (0..)
        .zip(&config.peers)
        .flat_map(|(id, peer)| peer.allowed_ips.iter().map(move |net| (PeerId(id), *net)))
        .collect();
    let name: TunnelName = "test".parse().expect("a name");
    let peers = Prepared::new(name, config, Behaviour::default()).expect("keys").peers;
    let peers = peers.into_iter().map(Peer::new).collect();
    let router = Router::new(prefixes);
    Tunnel { peers, router, pairing: Pairing::default(), works: true }
}

fn description(role: DtlsRole) -> RtcDescription {
    RtcDescription {
        ice: IceCredentials { ufrag: "abcd".into(), pwd: "abcdefghijklmnopqrstuv".into() },
        fingerprint: [7; 32],
        role,
        sctp_port: 5000,
        max_message_size: 65_536,
        packet_size: None,
        candidates: Vec::new(),
    }
}

impl Tunnel {
    fn settle(&mut self) {
        let now = Instant::now();
        let candidate = Candidate {
            kind: CandidateKind::Host,
            priority: 1,
            address: ([192, 0, 2, 1], 40_000).into(),
        };
        for peer in &mut self.peers {
            while let Some(output) = peer.paths.direct_mut().poll_output() {
                match output {
                    Output::Rtc(id, RtcCommand::Offer { .. } | RtcCommand::Answer { .. })
                        if !self.works =>
                    {
                        peer.paths.direct_mut().closed(now, id, "no local address to connect from");
                    }
                    Output::Rtc(id, RtcCommand::Offer { .. }) => {
                        peer.paths.direct_mut().described(now, id, description(DtlsRole::ActPass));
                        peer.paths.direct_mut().found_candidate(now, id, 0, candidate);
                        peer.paths.direct_mut().gathered(now, id, 0);
                    }
                    Output::Rtc(id, RtcCommand::Answer { .. }) => {
                        peer.paths.direct_mut().described(now, id, description(DtlsRole::Active));
                        peer.paths.direct_mut().found_candidate(now, id, 0, candidate);
                        peer.paths.direct_mut().gathered(now, id, 0);
                    }
                    Output::ByHand(id, message) => {
                        let part = peer.keys.seal_by_hand(&message, &mut OsRng);
                        peer.made.push((id, part.map_err(|error| error.to_string())));
                    }
                    Output::HandFailed(id, reason) => peer.made.push((id, Err(reason))),
                    _ => {}
                }
            }
        }
        self.pairing.collect(&mut self.peers.iter_mut().collect::<Vec<_>>());
    }

    fn offer(&mut self, peer: Option<&str>) -> Result<OfferMade, PairingError> {
        let (reply, mut answer) = oneshot::channel();
        let mut peers: Vec<_> = self.peers.iter_mut().collect();
        self.pairing.offer(&mut peers, &self.router, peer, HOUR, reply);
        self.settle();
        answer.try_recv().expect("a reply")
    }

    fn answer(&mut self, text: &str) -> Result<AnswerMade, PairingError> {
        let (reply, mut answer) = oneshot::channel();
        self.pairing.answer(&mut self.peers.iter_mut().collect::<Vec<_>>(), text, reply);
        self.settle();
        answer.try_recv().expect("a reply")
    }

    fn bad_answer(&mut self, text: &str) -> BadText {
        match self.answer(text) {
            Err(PairingError::BadText(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn accept(&mut self, text: &str) -> Result<String, PairingError> {
        accept(&mut self.peers.iter_mut().collect::<Vec<_>>(), text)
    }
}

#[test]
fn two_tunnels_pair_whoever_offers() {
    for (a, b) in [(0, 1), (1, 0)] {
        let (mut offerer, mut answerer) = (tunnel(a, None), tunnel(b, None));
        let offer = offerer.offer(Some(NAMES[b])).expect("an offer");
        assert_eq!((offer.lifetime, offer.peers.as_slice()), (HOUR, [NAMES[b].into()].as_slice()));
        let answer = answerer.answer(&offer.text).expect("an answer");
        assert_eq!(answer.peer, NAMES[a]);
        assert_eq!(offerer.accept(&answer.text), Ok(NAMES[b].to_owned()));
    }
}

#[test]
fn one_text_for_all_peers_gets_an_answer_from_each() {
    let mut offerer = tunnel(0, None);
    let offer = offerer.offer(None).expect("an offer");
    assert_eq!(offer.peers, ["bob", "carol"]);
    for at in [2, 1] {
        let answer = tunnel(at, None).answer(&offer.text).expect("an answer");
        assert_eq!(answer.peer, "alice");
        assert_eq!(offerer.accept(&answer.text), Ok(NAMES[at].to_owned()));
    }
}

#[test]
fn a_peer_is_named_by_name_key_or_address() {
    let mut offerer = tunnel(0, None);
    let full = key(1).to_string();
    for what in ["bob", "10.0.0.1", &full, &full[..4], &key(1).short()] {
        assert_eq!(offerer.offer(Some(what)).expect(what).peers, ["bob"], "{what}");
    }
    for what in ["dave", "10.0.0.7", "fd00::1", &full[..3], "", "…"] {
        let error = offerer.offer(Some(what)).expect_err(what);
        let known = vec!["bob".to_owned(), "carol".to_owned()];
        assert_eq!(error, PairingError::UnknownPeer { what: what.into(), known }, "{what}");
    }
    let names = [("twin", key(1), PeerId(0)), ("twin", key(2), PeerId(1))];
    let error = select(&names, &Router::default(), "twin").expect_err("two of them");
    assert_eq!(error.to_string(), "twin fits several peers: twin, twin");
}

#[test]
fn what_is_wrong_is_told_apart() {
    let (mut alice, mut bob, mut carol) = (tunnel(0, None), tunnel(1, None), tunnel(2, None));
    let offer = alice.offer(Some("bob")).expect("an offer").text;
    assert_eq!(carol.bad_answer(&offer), BadText::ForOthers(TextKind::Offer));
    assert_eq!(alice.bad_answer(&offer), BadText::Own(TextKind::Offer, "bob".into()));
    assert!(matches!(bob.bad_answer("hello"), BadText::Text(TextError::Foreign(_))));
    assert!(matches!(bob.bad_answer(&offer[..99]), BadText::Text(TextError::Truncated)));
    let psk = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";
    let mut other = tunnel(1, Some(psk));
    assert_eq!(other.bad_answer(&offer), BadText::Forged(TextKind::Offer, "alice".into()));

    let answer = bob.answer(&offer).expect("an answer").text;
    assert_eq!(bob.bad_answer(&offer), BadText::Used("alice".into()));
    assert!(matches!(bob.bad_answer(&answer), BadText::Text(TextError::Kind { .. })));
    let refused = |outcome: Result<String, PairingError>| match outcome {
        Err(PairingError::BadText(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(alice.accept(&offer)), BadText::Text(TextError::Kind { .. })));
    assert_eq!(refused(bob.accept(&answer)), BadText::Own(TextKind::Answer, "alice".into()));
    assert_eq!(refused(tunnel(0, None).accept(&answer)), BadText::Unknown("bob".into()));
    alice.accept(&answer).expect("accepted");
    assert_eq!(refused(alice.accept(&answer)), BadText::Accepted("bob".into()));
}

#[test]
fn an_expired_and_a_replaced_offer_are_told_apart() {
    let (mut alice, mut bob) = (tunnel(0, None), tunnel(1, None));
    let first = alice.offer(Some("bob")).expect("an offer").text;
    let answer = bob.answer(&first).expect("an answer").text;
    let second = alice.offer(Some("bob")).expect("a newer one").text;
    assert_eq!(alice.accept(&answer), Err(BadText::Replaced("bob".into()).into()));
    let answer = bob.answer(&second).expect("an answer").text;
    alice.peers[0].paths.direct_mut().timeout(Instant::now() + HOUR + Duration::from_secs(1));
    assert_eq!(alice.accept(&answer), Err(BadText::Expired("bob".into()).into()));
}

#[test]
fn a_machine_without_addresses_says_so() {
    let mut alice = tunnel(0, None);
    alice.works = false;
    let error = alice.offer(None).expect_err("no addresses");
    assert_eq!(error, PairingError::NotReady("no local address to connect from".into()));
    assert!(alice.pairing.calls.is_empty());
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let mut alice = tunnel(0, None);
    for _ in 0..MAX_CALLS {
        let (reply, _) = oneshot::channel();
        let mut peers: Vec<_> = alice.peers.iter_mut().collect();
        alice.pairing.offer(&mut peers, &alice.router, Some("bob"), HOUR, reply);
    }
    assert_eq!(alice.offer(Some("bob")), Err(PairingError::Busy));
    assert!(alice.pairing.calls.is_empty());
    alice.offer(Some("bob")).expect("room again");
}
