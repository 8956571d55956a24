//! The parts of the packet path alone: routing, the frame codec, sealing and opening.
//!
//! `cargo bench -p qanah-core` runs all of it, `cargo bench -p qanah-core -- seal` a part.

// As in tests: what fails here is a mistake of the benchmark. The macros make undocumented functions.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use qanah_core::frame::{
    FrameBuf, FrameHeader, FrameType, OVERHEAD, SegmentKind, Segments, SegmentsHeader, packets,
};
use qanah_core::offload::{Cutter, Gso, Joined, Joiner, Taken, VirtioHeader, hand_back};
use qanah_core::packet::Packet;
use qanah_core::queue::{FairQueue, Item, Limits};
use qanah_core::router::{PeerId, Router};
use qanah_core::seal::{CarrierKey, Opener, Sealer};
use qanah_core::window::Window;

/// Plaintexts of frames: a small packet, one of a usual MTU, packets that share a frame, and a whole
/// segment of a TUN device with offloads.
const SIZES: [usize; 4] = [120, 1400, 16_384, 65_000];

/// Peers of a small network, a large one, and more than anybody has.
const PEERS: [u32; 3] = [2, 100, 10_000];

/// An IPv4 packet of this length: TCP without options, its checksum left to others.
fn tcp_packet(len: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend([0x14, 0x51, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]);
    packet.resize(len, 0);
    packet
}

fn plaintext(bytes: &[u8]) -> FrameBuf {
    let mut plaintext = FrameBuf::with_capacity(bytes.len());
    plaintext.push(bytes).unwrap();
    plaintext
}

/// Each peer has an address of either family, as in a mesh of single machines.
fn router(peers: u32) -> Router {
    let of = |peer: u32| {
        let v4 = IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 | peer)));
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::from(0xfd00 << 112 | u128::from(peer))));
        [(PeerId(peer), v4), (PeerId(peer), v6)]
    };
    Router::new((0..peers).flat_map(of))
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("router");
    for peers in PEERS {
        let router = router(peers);
        let v4 = IpAddr::from(Ipv4Addr::from(0x0a00_0000 | (peers / 2)));
        let v6 = IpAddr::from(Ipv6Addr::from(0xfd00 << 112 | u128::from(peers / 2)));
        for (family, address) in [("IPv4", v4), ("IPv6", v6)] {
            assert_eq!(router.route(address), Some(PeerId(peers / 2)));
            let id = BenchmarkId::new(family, peers);
            group.bench_function(id, |b| b.iter(|| router.route(black_box(address))));
        }
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let header = FrameHeader { kind: FrameType::Packets as u8, index: 7, counter: 9 };
    let frame = [&header.to_bytes()[..], &[0; 16]].concat();
    group.bench_function("header", |b| b.iter(|| FrameHeader::parse(black_box(&frame))));

    let segments = SegmentsHeader { kind: SegmentKind::Tcp, gso_size: 1400 };
    let segments = [&segments.to_bytes()[..], &tcp_packet(65_000)].concat();
    assert_eq!(Segments::parse(&segments).unwrap().count(), 47);
    group.bench_function("segments", |b| b.iter(|| Segments::parse(black_box(&segments))));

    // As many packets of 1400 bytes as share a frame of 16 KiB.
    let (packet, count) = (tcp_packet(1400), 11);
    let whole = packet.repeat(count);
    group.bench_function("11 packets out", |b| {
        b.iter(|| packets(black_box(&whole)).map(|p| p.unwrap().as_bytes().len()).sum::<usize>());
    });
    group.throughput(Throughput::Bytes(whole.len().try_into().unwrap()));
    group.bench_function("11 packets in", |b| {
        let packet = Packet::parse(&packet).unwrap();
        b.iter_batched(
            // A buffer of a pool: its memory was written before.
            || BytesMut::zeroed(whole.len() + OVERHEAD),
            |bytes| {
                let mut frame = FrameBuf::reuse(bytes, whole.len());
                for _ in 0..count {
                    frame.push_packet(black_box(&packet)).unwrap();
                }
                frame
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let key = || CarrierKey::from_bytes([7; 32]);
    let mut group = c.benchmark_group("seal");
    for size in SIZES {
        let bytes = tcp_packet(size);
        let mut sealer = Sealer::new(key(), 1);
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched(
                || plaintext(&bytes),
                |plaintext| sealer.seal(FrameType::Packets, plaintext).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    let mut group = c.benchmark_group("open");
    for size in SIZES {
        let bytes = tcp_packet(size);
        let (mut sealer, mut opener) = (Sealer::new(key(), 1), Opener::new(key(), 1));
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            // Each frame is opened once: the window takes none a second time.
            b.iter_batched(
                || sealer.seal(FrameType::Packets, plaintext(&bytes)).unwrap(),
                |mut frame| {
                    opener.open(&mut frame).unwrap();
                    frame
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A packet that stands for 47, as it comes from a kernel and goes to one; and the same without kernels that help.
fn offloads(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload");
    let large = tcp_packet(65_000);
    let header =
        VirtioHeader { checksum: Some((20, 16)), gso: Gso::TcpV4, headers_len: 40, gso_size: 1400 };
    let fresh = || large.clone();
    group.throughput(Throughput::Bytes(large.len().try_into().unwrap()));
    group.bench_function("taken from the kernel", |b| {
        let taken = |mut packet: Vec<u8>| Taken::from_kernel(header, &mut packet, 0).unwrap();
        b.iter_batched(fresh, taken, BatchSize::LargeInput);
    });
    let segments = SegmentsHeader { kind: SegmentKind::Tcp, gso_size: 1400 };
    let frame = [&segments.to_bytes()[..], &large].concat();
    group.bench_function("handed back", |b| {
        let back = |mut frame: Vec<u8>| hand_back(&mut frame).unwrap().0;
        b.iter_batched(|| frame.clone(), back, BatchSize::LargeInput);
    });
    let cutter = Cutter::new(segments, &large).unwrap();
    let cut = |packet: &[u8]| {
        let mut all = FrameBuf::with_capacity(70_000);
        (0..cutter.count()).for_each(|number| cutter.add(packet, number, &mut all).unwrap());
        all
    };
    group.bench_function("cut up", |b| b.iter(|| cut(black_box(&large))));
    // Never to be fragmented, so that they may be joined.
    let mut whole = large.clone();
    *whole.get_mut(6).unwrap() = 0x40;
    let parts = cut(&whole);
    group.bench_function("joined", |b| {
        let mut joiner = Joiner::default();
        b.iter(|| {
            let added = packets(black_box(parts.plaintext())).all(|p| joiner.add(&p.unwrap()));
            assert!(added);
            assert!(matches!(joiner.finish(), Joined::Many(_, 47)));
        });
    });
    group.finish();
}

struct Waiting(usize);

impl Item for Waiting {
    fn len(&self) -> usize {
        self.0
    }
}

/// One packet in and one out, while others wait.
fn queueing(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let limits = Limits {
        total: 4 << 20,
        per_class: 2 << 20,
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
        quantum: 1514,
        flows: 1024,
    };
    for flows in [1, 100] {
        let mut queue = FairQueue::new(limits);
        let now = Instant::now();
        (0..200_u64).for_each(|n| queue.push(now, 1, n % flows, Waiting(1400), &mut |_, _| ()));
        let mut flow = 0;
        group.bench_function(BenchmarkId::new("flows", flows), |b| {
            b.iter(|| {
                flow = (flow + 1) % flows;
                queue.push(now, 1, flow, Waiting(1400), &mut |_, _| ());
                queue.pop(now, &mut |_, _| ()).map(|(_, item)| item.0)
            });
        });
    }
    let mut window = Window::new(Instant::now());
    group.bench_function("window", |b| {
        let mut now = Instant::now();
        b.iter(|| {
            now += Duration::from_micros(10);
            window.sent(now, 1400, true);
            window.outstanding(now, 100_000);
            window.size()
        });
    });
    group.finish();
}

criterion_group!(packet_path, routing, codec, sealing, offloads, queueing);
criterion_main!(packet_path);
