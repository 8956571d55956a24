//! Two peers and a relay between them, with a real TUN device, pretended channels and a relay that may lie.
//!
//! We are 10.9.0.1. Peer 2 is connected directly and relays; peer 3 is reached by it. Of peer 4 we know nothing but its
//! key.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;
use qanah_core::frame::{Control, FrameBuf, FrameType, Hop, RelayHeader};
use qanah_core::key::PublicKey;
use qanah_core::offload::Joiner;
use qanah_core::packet::Packet;
use qanah_core::plan::plan;
use qanah_core::router::{PeerId, Router};
use qanah_core::seal::{CarrierKey, Opener, Openers, Sealer};
use qanah_core::session::SessionKind;
use qanah_core::signal::{Capabilities, PeerName, SessionId};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::books::Books;
use crate::datapath_tests::udp;
use crate::downlink::{Downlink, Heard, Inbound, MeshMessage, SIGNALING_PER_SECOND};
use crate::pace::Pace;
use crate::platform::netlink::{Applied, bring_up};
use crate::platform::testing::{in_namespace, until};
use crate::relay::RelayDesk;
use crate::rtc::Channel;
use crate::senders::{NewSession, Outlet, Senders};
use crate::stats::{PeerStats, SessionStats};
use crate::transit::OwnAddresses;
use crate::tunnel::{Address, Happening};

const RELAY: PeerId = PeerId(2);
const FAR: PeerId = PeerId(3);
const SILENT: PeerId = PeerId(4);
const PEERS: [PeerId; 3] = [RELAY, FAR, SILENT];
const INDEX: u32 = 42;

fn name(peer: PeerId) -> PeerName {
    PeerName::of(&PublicKey::from_bytes([u8::try_from(peer.0).unwrap(); 32]))
}

fn session(peer: PeerId) -> SessionId {
    SessionId([u8::try_from(peer.0).unwrap(); 16])
}

/// The key of what this peer sends to us; what we send to it has another.
fn key(peer: PeerId, ours: bool) -> CarrierKey {
    CarrierKey::from_bytes([u8::try_from(peer.0).unwrap() + u8::from(ours) * 100; 32])
}

struct Bench {
    applied: Applied,
    desk: Rc<RelayDesk>,
    stats: HashMap<PeerId, Rc<PeerStats>>,
    /// The other ends of the channels to those that are connected directly.
    far: HashMap<PeerId, Channel>,
    /// What those peers seal for us with.
    sealers: HashMap<PeerId, Sealer>,
    heard: mpsc::Receiver<(PeerId, SessionId, Happening)>,
    _router: watch::Sender<Arc<Router>>,
}

impl Bench {
    /// Peers in `direct` are connected directly; peer 3, if it is not among them, by the relay.
    async fn new(direct: &[PeerId], relays: bool) -> Self {
        let allowed: Vec<(PeerId, IpNet)> =
            PEERS.iter().map(|id| (*id, format!("10.9.0.{}/32", id.0).parse().unwrap())).collect();
        let own: IpNet = "10.9.0.1/24".parse().unwrap();
        let prefixes = allowed.iter().map(|(_, net)| *net);
        let applied = bring_up(&plan("bench", &[own], 1400, prefixes).unwrap()).await.unwrap();
        let (router_sender, router) = watch::channel(Arc::new(Router::new(allowed)));
        let books = Rc::<Books>::default();
        let senders = Rc::new(RefCell::new(Senders::new(Rc::clone(&books))));
        let names = PEERS.iter().map(|id| (*id, name(*id)));
        senders.borrow_mut().set_names(names.clone().collect());
        let desk = Rc::new(RelayDesk::new(Rc::clone(&senders), Rc::clone(&books)));
        desk.peers.replace(names.map(|(id, name)| (name, id)).collect());
        desk.own.replace(OwnAddresses::new(vec![own]));
        books.peers.replace(PEERS.iter().map(|id| (*id, Rc::default())).collect());
        let (reports, heard) = mpsc::channel(1024);
        let mut bench = Self {
            applied,
            desk,
            stats: books.peers.borrow().clone(),
            far: HashMap::new(),
            sealers: PEERS.iter().map(|id| (*id, Sealer::new(key(*id, false), INDEX))).collect(),
            heard,
            _router: router_sender,
        };
        for peer in PEERS {
            let is_direct = direct.contains(&peer);
            let inbound = Inbound {
                address: Address { peer, session: session(peer), reports: reports.clone() },
                openers: Rc::new(RefCell::new(Openers::new(Opener::new(key(peer, false), INDEX)))),
                router: router.clone(),
                tun: Arc::clone(bench.applied.device()),
                stats: Rc::clone(&bench.stats[&peer]),
                session: Rc::<SessionStats>::default(),
                confirmed: None,
                relay: None,
                relays: Pace::new(1000),
                control: Pace::new(1000),
                signaling: Pace::new(SIGNALING_PER_SECOND),
                desk: (is_direct && relays).then(|| Rc::clone(&bench.desk)),
                joiner: Joiner::default(),
            };
            let mut new = NewSession {
                sealer: Sealer::new(key(peer, true), INDEX),
                outlet: Outlet::Relay,
                capabilities: Capabilities { relay: true, ..Capabilities::default() },
                stats: Rc::default(),
                address: Address { peer, session: session(peer), reports: reports.clone() },
            };
            if is_direct {
                let (near, far) = Channel::pipe(64);
                new.outlet = Outlet::Channel(near.sender);
                bench.far.insert(peer, far);
                let downlink = Downlink { inbound, channel: near.receiver };
                tokio::task::spawn_local(downlink.run());
            } else if peer == FAR {
                bench.desk.expect((peer, session(peer)), inbound);
                senders.borrow_mut().set_via(peer, Some(RELAY));
            } else {
                continue;
            }
            let mut senders = senders.borrow_mut();
            senders.install((peer, session(peer)), new);
            if is_direct {
                senders.set_live(SessionKind::Direct, peer, Some(session(peer)));
            }
            senders.choose(peer, Some(session(peer)));
        }
        bench
    }

    /// A frame of `peer` for us.
    fn seal(&mut self, peer: PeerId, kind: FrameType, plaintext: &[u8]) -> BytesMut {
        let mut buf = FrameBuf::with_capacity(plaintext.len());
        buf.push(plaintext).unwrap();
        self.sealers.get_mut(&peer).unwrap().seal(kind, buf).unwrap()
    }

    /// Has the relay send us something that it says is from (or for) `peer`.
    fn relay_sends(&mut self, hop: Hop, peer: PeerName, inner: &[u8]) {
        let plaintext = RelayHeader { hop, name: peer }.wrap(inner).unwrap();
        let frame = self.seal(RELAY, FrameType::Relay, plaintext.plaintext());
        self.far[&RELAY].sender.try_send(frame).unwrap();
    }

    /// Waits until the drops of a peer are these.
    async fn drops(&self, peer: PeerId, expected: &[(&'static str, u64)]) {
        let wanted = expected.iter().copied().collect();
        let report = || self.stats[&peer].drops.report();
        until("the drops are counted", async || report() == wanted).await;
    }

    /// What came to the far end of the channel to this peer, opened.
    async fn received(&mut self, peer: PeerId) -> (FrameType, Vec<u8>) {
        let mut frame = self.far.get_mut(&peer).unwrap().receiver.recv().await.unwrap();
        // Each frame is opened alone, so there is a new window for each.
        let mut opener = Opener::new(key(peer, true), INDEX);
        let opened = opener.open(&mut frame).unwrap();
        (opened.kind.unwrap(), opened.plaintext.to_vec())
    }
}

fn good(text: &str) -> Vec<u8> {
    udp("10.9.0.3", "10.9.0.1", 7000, text.as_bytes())
}

async fn expect(socket: &UdpSocket, text: &str) {
    let mut buffer = [0; 100];
    let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(text));
}

#[test]
fn a_relay_that_alters_replays_reflects_or_invents_gets_nothing_through() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY], true).await;
        let socket = UdpSocket::bind("10.9.0.1:7000").await.unwrap();
        let far = name(FAR);
        let first = bench.seal(FAR, FrameType::Packets, &good("first"));
        // As it is, and again.
        bench.relay_sends(Hop::FromRelay, far, &first);
        bench.relay_sends(Hop::FromRelay, far, &first);
        expect(&socket, "first").await;
        // Every part of it altered: type, reserved, index, counter, ciphertext, tag.
        let second = bench.seal(FAR, FrameType::Packets, &good("second"));
        for at in [0, 1, 4, 15, 16, second.len() - 1] {
            let mut altered = second.clone();
            altered[at] ^= 1;
            bench.relay_sends(Hop::FromRelay, far, &altered);
        }
        // The altered counter is one that was seen.
        bench.drops(FAR, &[("forged", 3), ("replayed", 2)]).await;
        bench.drops(RELAY, &[("bad_frame", 2)]).await;
        // The true one still works.
        bench.relay_sends(Hop::FromRelay, far, &second);
        expect(&socket, "second").await;
        // Our own frame to the far end, sent back to us.
        let mut ours = Sealer::new(key(FAR, true), INDEX);
        let mut reflected = BytesMut::new();
        for _ in 0..30 {
            let mut buf = FrameBuf::with_capacity(100);
            buf.push(&good("reflected")).unwrap();
            reflected = ours.seal(FrameType::Packets, buf).unwrap();
        }
        bench.relay_sends(Hop::FromRelay, far, &reflected);
        // One that the relay seals itself, in the name of the far end; and a true one in another's.
        let invented = bench.seal(RELAY, FrameType::Packets, &good("invented"));
        bench.relay_sends(Hop::FromRelay, far, &invented);
        let third = bench.seal(FAR, FrameType::Packets, &good("third"));
        bench.relay_sends(Hop::FromRelay, name(SILENT), &third);
        bench.relay_sends(Hop::FromRelay, name(RELAY), &third);
        bench.relay_sends(Hop::FromRelay, PeerName([9; 16]), &third);
        // The far end itself: another's source, a relay in the relay, what is to be routed.
        let spoofed = udp("10.9.0.2", "10.9.0.1", 7000, b"spoofed");
        let spoofed = bench.seal(FAR, FrameType::Packets, &spoofed);
        bench.relay_sends(Hop::FromRelay, far, &spoofed);
        for kind in [FrameType::Relay, FrameType::Transit, FrameType::Routed] {
            let inner = bench.seal(FAR, kind, &good("nested"));
            bench.relay_sends(Hop::FromRelay, far, &inner);
        }
        let query = Control::ReachQuery { id: 1, names: &name(RELAY).0 };
        let query = query.to_frame_buf().unwrap().plaintext().to_vec();
        let query = bench.seal(FAR, FrameType::Control, &query);
        bench.relay_sends(Hop::FromRelay, far, &query);
        let last = bench.seal(FAR, FrameType::Packets, &good("last"));
        bench.relay_sends(Hop::FromRelay, far, &last);
        expect(&socket, "last").await;
        let far_drops =
            [("forged", 5), ("relay_refused", 4), ("replayed", 2), ("spoofed_source", 1)];
        bench.drops(FAR, &far_drops).await;
        bench.drops(RELAY, &[("bad_frame", 4), ("relay_refused", 1)]).await;
        assert_eq!(bench.stats[&FAR].received.packets.get(), 3, "counted for the far end");
        assert_eq!(bench.stats[&RELAY].received.packets.get(), 0);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn the_tunnel_is_told_by_which_relay_frames_come() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY], true).await;
        for _ in 0..3 {
            let frame = bench.seal(FAR, FrameType::Packets, &good("x"));
            bench.relay_sends(Hop::FromRelay, name(FAR), &frame);
        }
        until("all came", async || bench.stats[&FAR].received.packets.get() == 3).await;
        let mut told = Vec::new();
        while let Ok((peer, _, Happening::Heard(heard))) = bench.heard.try_recv() {
            told.push(format!("{} {heard:?}", peer.0));
        }
        assert_eq!(told, ["2 Opened(42)", "3 Opened(42)", "3 By(PeerId(2))"]);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn what_is_for_another_is_passed_on_once_and_only_there() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY, FAR], true).await;
        let inner = vec![7; 100];
        bench.relay_sends(Hop::ToRelay, name(FAR), &inner);
        let (kind, plaintext) = bench.received(FAR).await;
        assert_eq!(kind, FrameType::Relay);
        let header = RelayHeader { hop: Hop::FromRelay, name: name(RELAY) };
        assert_eq!(plaintext, header.wrap(&inner).unwrap().plaintext(), "only hop and name");
        // Back to whom it came from, to one who is not connected, to nobody, too short to be a frame.
        bench.relay_sends(Hop::ToRelay, name(RELAY), &inner);
        bench.relay_sends(Hop::ToRelay, name(SILENT), &inner);
        bench.relay_sends(Hop::ToRelay, PeerName([9; 16]), &inner);
        bench.relay_sends(Hop::ToRelay, name(FAR), &[7; 31]);
        let drops = [("bad_frame", 1), ("not_connected", 1), ("relay_refused", 2)];
        bench.drops(RELAY, &drops).await;
        let carried = bench.desk.books.carried();
        let pairs: Vec<_> =
            carried.iter().map(|(pair, it)| (*pair, it.frames.get(), it.dropped.get())).collect();
        assert_eq!(pairs, [((RELAY, FAR), 1, 0), ((RELAY, SILENT), 0, 1)]);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn where_relaying_is_off_nothing_of_it_is_taken() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY, FAR], false).await;
        let inner = vec![7; 100];
        bench.relay_sends(Hop::ToRelay, name(FAR), &inner);
        bench.relay_sends(Hop::FromRelay, name(FAR), &inner);
        for kind in [FrameType::Transit, FrameType::Routed] {
            let frame = bench.seal(RELAY, kind, &udp("10.9.0.2", "10.9.0.1", 7000, b"x"));
            bench.far[&RELAY].sender.try_send(frame).unwrap();
        }
        bench.drops(RELAY, &[("relay_refused", 4)]).await;
        assert!(bench.desk.books.carried().is_empty());
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn packets_to_be_routed_go_to_their_owner_or_to_us_and_never_back() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY, FAR], true).await;
        let socket = UdpSocket::bind("10.9.0.1:7000").await.unwrap();
        let transit = |bench: &mut Bench, from: &str, to: &str| {
            let frame = bench.seal(RELAY, FrameType::Transit, &udp(from, to, 7000, b"routed"));
            bench.far[&RELAY].sender.try_send(frame).unwrap();
        };
        transit(&mut bench, "10.9.0.2", "10.9.0.3");
        let (kind, plaintext) = bench.received(FAR).await;
        assert_eq!(kind, FrameType::Routed);
        let mut expected = udp("10.9.0.2", "10.9.0.3", 7000, b"routed");
        assert!(qanah_core::packet::take_hop(&mut expected, qanah_core::packet::Version::V4));
        assert_eq!(plaintext, expected, "one hop less");
        transit(&mut bench, "10.9.0.2", "10.9.0.1");
        expect(&socket, "routed").await;
        // In another's name, back to its sender, to one who is not connected.
        transit(&mut bench, "10.9.0.3", "10.9.0.1");
        transit(&mut bench, "10.9.0.2", "10.9.0.2");
        transit(&mut bench, "10.9.0.2", "10.9.0.4");
        let drops = [("not_connected", 1), ("relay_refused", 1), ("spoofed_source", 1)];
        bench.drops(RELAY, &drops).await;
        // The sender is told, by us, as by a router.
        let (kind, plaintext) = bench.received(RELAY).await;
        let packet = Packet::parse(&plaintext).unwrap();
        assert_eq!((kind, packet.src().to_string()), (FrameType::Packets, "10.9.0.1".to_owned()));
        assert_eq!(plaintext[20..22], [3, 1], "host unreachable");
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn routed_packets_are_taken_from_strangers_to_us_alone() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY], true).await;
        let socket = UdpSocket::bind("10.9.0.1:7000").await.unwrap();
        let routed = |bench: &mut Bench, from: &str, to: &str| {
            let frame = bench.seal(RELAY, FrameType::Routed, &udp(from, to, 7000, b"routed"));
            bench.far[&RELAY].sender.try_send(frame).unwrap();
        };
        let refused = [
            // Configured peers, the relay included, ourselves.
            ("10.9.0.3", "10.9.0.1"),
            ("10.9.0.4", "10.9.0.1"),
            ("10.9.0.2", "10.9.0.1"),
            ("10.9.0.1", "10.9.0.1"),
            // Not of our network, or no single host.
            ("192.0.2.1", "10.9.0.1"),
            ("10.9.0.255", "10.9.0.1"),
            ("10.9.0.0", "10.9.0.1"),
            ("224.0.0.1", "10.9.0.1"),
            ("0.0.0.0", "10.9.0.1"),
            // Not for us.
            ("10.9.0.77", "10.9.0.3"),
            ("10.9.0.77", "10.9.0.255"),
            ("10.9.0.77", "192.0.2.1"),
        ];
        for (from, to) in refused {
            routed(&mut bench, from, to);
        }
        routed(&mut bench, "10.9.0.77", "10.9.0.1");
        expect(&socket, "routed").await;
        bench.drops(RELAY, &[("spoofed_source", refused.len() as u64)]).await;
        assert_eq!(bench.stats[&RELAY].received.packets.get(), 1);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn a_flood_of_signaling_for_others_is_bounded() {
    in_namespace(|| async {
        let mut bench = Bench::new(&[RELAY], true).await;
        let message =
            Control::Signaling { hop: Hop::ToRelay, name: name(FAR), envelope: b"sealed" };
        let plaintext = message.to_frame_buf().unwrap().plaintext().to_vec();
        for _ in 0..200 {
            let frame = bench.seal(RELAY, FrameType::Control, &plaintext);
            // The pipe is full now and then.
            until("room", async || bench.far[&RELAY].sender.try_send(frame.clone()).is_ok()).await;
        }
        let busy = || bench.stats[&RELAY].drops.report().get("busy").copied().unwrap_or(0);
        until("most are dropped", async || busy() >= 100).await;
        let mut passed = 0_u64;
        while let Ok((_, _, Happening::Heard(heard))) = bench.heard.try_recv() {
            passed += u64::from(matches!(heard, Heard::Mesh(MeshMessage::Signaling { .. })));
        }
        let most = u64::from(SIGNALING_PER_SECOND) * 2;
        assert!((1..=most).contains(&passed), "{passed} passed");
        bench.applied.undo().await.unwrap();
    });
}
