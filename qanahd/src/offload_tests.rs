//! Packets that stand for many, with a real TUN device whose kernel makes them and cuts them up.

use std::net::IpAddr;

use nix::sys::socket::{setsockopt, sockopt};
use qanah_core::frame::{FrameBuf, FrameType, SegmentKind, Segments, SegmentsHeader, packets};
use qanah_core::packet::Packet;
use qanah_core::seal::Sealer;
use qanah_core::session::SessionKind;
use qanah_core::signal::Capabilities;
use tokio::net::UdpSocket;

use crate::datapath_tests::{
    Bench, PEER, SESSION, bench, opener, outgoing, sealer, start_downlink, start_uplink, udp,
};
use crate::platform::testing::{in_namespace, until};
use crate::rtc::Channel;

const SEGMENT: usize = 1000;
const COUNT: usize = 20;

/// A payload of which no two segments are the same.
fn payload() -> Vec<u8> {
    (0..COUNT * SEGMENT).map(|at| u8::try_from(at / SEGMENT * 7 + at % 5).unwrap()).collect()
}

/// What the kernel makes of one call, as the peer gets it: the types of the frames and their plaintexts.
async fn sent_to(receiver: Capabilities, frames: usize) -> Vec<(FrameType, Vec<u8>)> {
    let Bench { applied, router, stats, mut far, near } = bench(64).await;
    let bench = Bench { applied, router, stats, far: Channel::pipe(1).0, near };
    let senders = start_uplink(&bench);
    let new = outgoing(&bench.near.sender);
    let new = crate::senders::NewSession { capabilities: receiver, ..new };
    senders.borrow_mut().install((PEER, SESSION), new);
    senders.borrow_mut().set_live(SessionKind::Direct, PEER, Some(SESSION));
    senders.borrow_mut().choose(PEER, Some(SESSION));
    let socket = UdpSocket::bind("10.9.0.1:0").await.unwrap();
    socket.connect("10.9.0.2:9").await.unwrap();
    setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(SEGMENT).unwrap()).unwrap();
    socket.send(&payload()).await.unwrap();
    let (mut found, mut opener) = (Vec::new(), opener());
    for _ in 0..frames {
        let mut frame = far.receiver.recv().await.unwrap();
        let opened = opener.open(&mut frame).unwrap();
        found.push((opened.kind.unwrap(), opened.plaintext.to_vec()));
    }
    assert_eq!(bench.stats.sent.packets.get(), COUNT as u64);
    assert_eq!(bench.stats.sent.bytes.get() % 10, 8, "with headers: {:?}", bench.stats.sent);
    bench.applied.undo().await.unwrap();
    found
}

/// The payload of a UDP packet whose checksum is right.
fn checked(bytes: &[u8]) -> &[u8] {
    let packet = Packet::parse(bytes).unwrap();
    let words = |bytes: &[u8]| -> u64 {
        bytes
            .chunks(2)
            .map(|two| u64::from(two[0]) << 8 | two.get(1).map_or(0, |b| u64::from(*b)))
            .sum()
    };
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("IPv4 only"),
    };
    let datagram = &bytes[20..];
    let pseudo = words(&octets(packet.src())) + words(&octets(packet.dst())) + 17;
    let mut sum = pseudo + datagram.len() as u64 + words(datagram);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    assert_eq!(sum, 0xffff, "checksum");
    &datagram[8..]
}

#[test]
fn what_stands_for_many_travels_whole_to_who_takes_it() {
    in_namespace(|| async {
        let receiver =
            Capabilities { udp_segments: true, max_frame: 1 << 17, ..Capabilities::default() };
        let found = sent_to(receiver, 1).await;
        let (kind, plaintext) = &found[0];
        assert_eq!(*kind, FrameType::Segments);
        let view = Segments::parse(plaintext).unwrap();
        assert_eq!((view.count(), view.kind()), (COUNT, SegmentKind::Udp));
        assert_eq!(view.packet().as_bytes()[28..], payload());
    });
}

#[test]
fn who_takes_no_segments_gets_packets() {
    for (receiver, frames) in [
        // A plain peer: one packet a frame.
        (Capabilities::default(), COUNT),
        // Several at once, but no segments.
        (Capabilities { max_frame: 1 << 17, max_packets: 128, ..Capabilities::default() }, 1),
        (Capabilities { max_frame: 1 << 17, max_packets: 8, ..Capabilities::default() }, 3),
        // Segments, but not that large.
        (
            Capabilities {
                udp_segments: true,
                max_frame: 8192,
                max_packets: 128,
                ..Capabilities::default()
            },
            3,
        ),
    ] {
        in_namespace(move || async move {
            let found = sent_to(receiver, frames).await;
            assert!(found.iter().all(|(kind, _)| *kind == FrameType::Packets));
            let whole: Vec<Vec<u8>> = found
                .iter()
                .flat_map(|(_, plaintext)| packets(plaintext).map(|it| it.unwrap()))
                .map(|packet| checked(packet.as_bytes()).to_vec())
                .collect();
            assert_eq!(whole.len(), COUNT);
            assert_eq!(whole.concat(), payload());
        });
    }
}

fn segments(sealer: &mut Sealer, header: SegmentsHeader, packet: &[u8]) -> bytes::BytesMut {
    let mut frame = FrameBuf::with_capacity(70_000);
    frame.push(&header.to_bytes()).unwrap();
    frame.push(packet).unwrap();
    sealer.seal(FrameType::Segments, frame).unwrap()
}

fn are_cut_up(by_kernel: bool) {
    in_namespace(move || async move {
        let Bench { applied, router, stats, far, near } = bench(64).await;
        if !by_kernel {
            applied.device().forget_offloads();
        }
        let bench = Bench { applied, router, stats, far, near: Channel::pipe(1).0 };
        let _heard = start_downlink(&bench, near, 64);
        let socket = UdpSocket::bind("10.9.0.1:7000").await.unwrap();
        let mut sealer = sealer();
        let header =
            SegmentsHeader { kind: SegmentKind::Udp, gso_size: SEGMENT.try_into().unwrap() };
        let good = udp("10.9.0.2", "10.9.0.1", 7000, &payload());
        let mut with_checksum = good.clone();
        with_checksum[26] = 1;
        let mut longer = good.clone();
        longer.push(0);
        let crafted = [
            // In the name of another peer, with a checksum, with more than the header says, as TCP, as a flood.
            (header, udp("10.9.0.3", "10.9.0.1", 7000, &payload())),
            (header, with_checksum),
            (header, longer),
            (SegmentsHeader { kind: SegmentKind::Tcp, ..header }, good.clone()),
            (SegmentsHeader { gso_size: 1, ..header }, good.clone()),
            (SegmentsHeader { gso_size: 0, ..header }, good.clone()),
        ];
        for (header, packet) in &crafted {
            let frame = segments(&mut sealer, *header, packet);
            bench.far.sender.try_send(frame).unwrap();
        }
        // One segment alone: only its checksum is missing.
        let one = udp("10.9.0.2", "10.9.0.1", 7000, b"one");
        for packet in [&good, &one] {
            let frame = segments(&mut sealer, header, packet);
            bench.far.sender.try_send(frame).unwrap();
        }
        let mut buffer = [0; 3000];
        for expected in payload().chunks(SEGMENT).chain([&b"one"[..]]) {
            let len = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], expected);
        }
        let dropped = async || {
            bench.stats.drops.report() == [("bad_packet", 5), ("spoofed_source", 1)].into()
        };
        until("the crafted ones are counted", dropped).await;
        assert_eq!(bench.stats.received.packets.get(), COUNT as u64 + 1);
        bench.applied.undo().await.unwrap();
    });
}

#[test]
fn the_kernel_cuts_up_what_was_checked() {
    are_cut_up(true);
}

#[test]
fn where_the_kernel_cannot_they_are_cut_up_here() {
    are_cut_up(false);
}
