//! Uplink and downlink with a real TUN device, a pretended channel and a peer that may lie.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use qanah_core::frame::{Control, FrameBuf, FrameType};
use qanah_core::offload::Joiner;
use qanah_core::packet::Packet;
use qanah_core::plan::plan;
use qanah_core::router::{PeerId, Router};
use qanah_core::seal::{CarrierKey, Opener, Openers, Sealer};
use qanah_core::session::SessionKind;
use qanah_core::signal::{Capabilities, SessionId};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::books::Books;
use crate::downlink::{Downlink, Heard, Inbound};
use crate::held::Held;
use crate::pace::Pace;
use crate::platform::netlink::{Applied, bring_up};
use crate::platform::testing::{in_namespace, until};
use crate::rtc::{Channel, ChannelSender, Progress};
use crate::senders::{NewSession, Outlet, Senders};
use crate::stats::{PeerStats, SessionStats};
use crate::tunnel::{Address, Happening};
use crate::uplink::{Uplink, Wanted};

pub(crate) const PEER: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);
pub(crate) const SESSION: SessionId = SessionId([1; 16]);
const KEY: [u8; 32] = [7; 32];
const INDEX: u32 = 42;

/// A tunnel 10.9.0.1/24 with peers 2 and 3, and our end of a channel to peer 2.
pub(crate) struct Bench {
    pub(crate) applied: Applied,
    pub(crate) router: watch::Sender<Arc<Router>>,
    pub(crate) stats: Rc<PeerStats>,
    pub(crate) far: Channel,
    pub(crate) near: Channel,
}

pub(crate) async fn bench(room: usize) -> Bench {
    let allowed = ["10.9.0.2/32".parse().unwrap(), "10.9.0.3/32".parse().unwrap()];
    let own = ["10.9.0.1/24".parse().unwrap()];
    let applied = bring_up(&plan("bench", &own, 1400, allowed).unwrap()).await.unwrap();
    let router = Router::new([(PEER, allowed[0]), (OTHER, allowed[1])]);
    let (near, far) = Channel::pipe(room);
    let (router, _) = watch::channel(Arc::new(router));
    Bench { applied, router, stats: Rc::default(), far, near }
}

/// A UDP packet over IPv4 with a zero (absent) UDP checksum.
pub(crate) fn udp(from: &str, to: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let octets = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("IPv4 only"),
    };
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header.extend(octets(from).iter().chain(&octets(to)));
    let sum: u32 = header.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = header;
    packet.extend(9_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

fn packets_frame(sealer: &mut Sealer, packets: &[Vec<u8>]) -> BytesMut {
    let mut frame = FrameBuf::with_capacity(16 * 1024);
    packets.iter().for_each(|packet| frame.push(packet).unwrap());
    sealer.seal(FrameType::Packets, frame).unwrap()
}

pub(crate) type Reports = mpsc::Receiver<(PeerId, SessionId, Happening)>;

pub(crate) fn start_downlink(bench: &Bench, near: Channel, queue: usize) -> Reports {
    let (reports, heard) = mpsc::channel(queue);
    let inbound = Inbound {
        address: Address { peer: PEER, session: SESSION, reports },
        openers: Rc::new(RefCell::new(Openers::new(opener()))),
        router: bench.router.subscribe(),
        tun: Arc::clone(bench.applied.device()),
        stats: Rc::clone(&bench.stats),
        session: Rc::<SessionStats>::default(),
        confirmed: None,
        relay: None,
        relays: Pace::new(1000),
        control: Pace::new(100),
        signaling: Pace::new(100),
        desk: None,
        joiner: Joiner::default(),
    };
    let downlink = Downlink { inbound, channel: near.receiver };
    tokio::task::spawn_local(downlink.run());
    heard
}

pub(crate) fn opener() -> Opener {
    Opener::new(CarrierKey::from_bytes(KEY), INDEX)
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(CarrierKey::from_bytes(KEY), INDEX)
}

#[test]
fn a_replayed_forged_or_spoofed_frame_never_reaches_the_kernel() {
    in_namespace(|| async {
        let Bench { applied, router, stats, far, near } = bench(64).await;
        let bench = Bench { applied, router, stats, far, near: Channel::pipe(1).0 };
        let _heard = start_downlink(&bench, near, 64);
        let socket = UdpSocket::bind("10.9.0.1:7000").await.unwrap();
        let good = |text: &str| udp("10.9.0.2", "10.9.0.1", 7000, text.as_bytes());
        let mut sealer = sealer();
        let first = packets_frame(&mut sealer, &[good("first")]);
        let mut forged = packets_frame(&mut sealer, &[good("forged")]);
        *forged.last_mut().unwrap() ^= 1;
        let mut misdirected = packets_frame(&mut sealer, &[good("misdirected")]);
        misdirected[7] ^= 1;
        // Between two good packets, one in the name of the other peer and one of nobody.
        let spoofed = udp("10.9.0.3", "10.9.0.1", 7000, b"spoofed");
        let stray = udp("192.0.2.1", "10.9.0.1", 7000, b"stray");
        let mixed = packets_frame(&mut sealer, &[good("before"), spoofed, stray, good("after")]);
        let torn = packets_frame(&mut sealer, &[good("whole"), good("torn")[..20].to_vec()]);
        let frames = [first.clone(), first, forged, misdirected, mixed.clone(), mixed, torn];
        for frame in frames {
            bench.far.sender.try_send(frame).unwrap();
        }
        bench.far.sender.try_send(BytesMut::from(&b"short"[..])).unwrap();
        bench.far.sender.try_send(packets_frame(&mut sealer, &[good("last")])).unwrap();
        for expected in ["first", "before", "after", "whole", "last"] {
            let mut buffer = [0; 100];
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(expected));
            assert_eq!(from, SocketAddr::from(([10, 9, 0, 2], 9)));
        }
        let drops = bench.stats.drops.report();
        let expected = [
            ("bad_frame", 2),
            ("bad_packet", 1),
            ("forged", 1),
            ("replayed", 2),
            ("spoofed_source", 2),
        ];
        assert_eq!(drops, expected.into());
        assert_eq!(bench.stats.received.packets.get(), 5);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn a_flood_of_control_messages_is_bounded_and_the_first_frame_is_always_told() {
    in_namespace(|| async {
        let Bench { applied, router, stats, far, near } = bench(4096).await;
        let bench = Bench { applied, router, stats, far, near: Channel::pipe(1).0 };
        // A queue that is full from the first message on.
        let mut heard = start_downlink(&bench, near, 1);
        let mut sealer = sealer();
        for number in 0..1000 {
            let frame = Control::Ping(number).to_frame_buf().unwrap();
            let frame = sealer.seal(FrameType::Control, frame).unwrap();
            bench.far.sender.try_send(frame).unwrap();
        }
        let busy = async || bench.stats.drops.report().get("busy") == Some(&1000);
        until("all but the first message are dropped", busy).await;
        let (peer, session, what) = heard.recv().await.unwrap();
        assert_eq!((peer, session), (PEER, SESSION));
        assert!(matches!(what, Happening::Heard(Heard::Opened(INDEX))));
        drop(bench.far);
        let ended = heard.recv().await.unwrap().2;
        assert!(matches!(ended, Happening::Heard(Heard::Ended)));
        bench.applied.undo().await.unwrap();
    });
}

pub(crate) fn start_uplink(bench: &Bench) -> Rc<RefCell<Senders>> {
    let books = Rc::<Books>::default();
    books.peers.borrow_mut().insert(PEER, Rc::clone(&bench.stats));
    let senders = Rc::new(RefCell::new(Senders::new(Rc::clone(&books))));
    let uplink = Uplink {
        reads: Rc::default(),
        tun: Arc::clone(bench.applied.device()),
        router: bench.router.subscribe(),
        senders: Rc::clone(&senders),
        books,
        progress: Progress::default(),
        icmp: Pace::new(10),
        desk: None,
        held: Rc::new(RefCell::new(Held::new(false))),
        wanted: Wanted::new(mpsc::channel(1).0),
    };
    tokio::task::spawn_local(uplink.run());
    senders
}

pub(crate) fn outgoing(channel: &ChannelSender) -> NewSession {
    NewSession {
        sealer: sealer(),
        outlet: Outlet::Channel(channel.clone()),
        capabilities: Capabilities::default(),
        stats: Rc::default(),
        address: Address { peer: PEER, session: SESSION, reports: mpsc::channel(1).0 },
    }
}

#[test]
fn packets_are_sealed_for_their_peer_and_a_stuck_peer_costs_only_its_own() {
    in_namespace(|| async {
        let Bench { applied, router, stats, mut far, near } = bench(2).await;
        let bench = Bench { applied, router, stats, far: Channel::pipe(1).0, near };
        let senders = start_uplink(&bench);
        senders.borrow_mut().install((PEER, SESSION), outgoing(&bench.near.sender));
        senders.borrow_mut().set_live(SessionKind::Direct, PEER, Some(SESSION));
        let socket = UdpSocket::bind("10.9.0.1:0").await.unwrap();
        socket.connect("10.9.0.2:9").await.unwrap();
        // Without it the kernel keeps "host unreachable" to itself: it may pass (RFC 1122, 4.2.3.9).
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();

        // Installed but not confirmed: nothing goes out, and the sender is told.
        socket.send(b"too early").await.unwrap();
        let refused = socket.recv(&mut [0; 1]).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EHOSTUNREACH));
        assert_eq!(bench.stats.drops.report(), [("not_connected", 1)].into());

        senders.borrow_mut().choose(PEER, Some(SESSION));
        for text in ["one", "two", "three", "four"] {
            socket.send(text.as_bytes()).await.unwrap();
        }
        let full = async || bench.stats.drops.report().get("queue_full") == Some(&2);
        until("what the channel cannot take is dropped", full).await;
        let mut opener = opener();
        for expected in ["one", "two"] {
            let mut frame = far.receiver.recv().await.unwrap();
            let opened = opener.open(&mut frame).unwrap();
            assert_eq!(opened.kind, Ok(FrameType::Packets));
            let packet = Packet::parse(opened.plaintext).unwrap();
            assert_eq!(packet.dst(), "10.9.0.2".parse::<IpAddr>().unwrap());
            assert!(packet.as_bytes().ends_with(expected.as_bytes()));
        }
        assert_eq!(bench.stats.sent.packets.get(), 2);

        senders.borrow_mut().remove((PEER, SESSION));
        socket.send(b"too late").await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(5), far.receiver.recv());
        drop(bench.near);
        assert!(gone.await.unwrap().is_none(), "a frame after the session was removed");
        bench.applied.undo().await.unwrap();
    });
}
