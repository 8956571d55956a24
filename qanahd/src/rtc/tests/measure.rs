//! Figures, not tests.

use super::*;

/// What three idle connections cost: `cargo test --release -p qanahd idle_cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn idle_cost() {
    in_namespace(|| async {
        use nix::sys::resource::{UsageWho, getrusage};
        let mut labs = Vec::new();
        for _ in 0..3 {
            let mut lab = Lab::open(&settings(&[A4, A6]), &settings(&[B4, B6])).await;
            lab.exchange(64 * 1024).await;
            labs.push(lab);
        }
        let used = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            let sum = usage.user_time() + usage.system_time();
            Duration::from_micros(sum.tv_sec() as u64 * 1_000_000 + sum.tv_usec() as u64)
        };
        let before = used();
        let span = Duration::from_secs(20);
        tokio::time::sleep(span).await;
        let share = (used() - before).as_secs_f64() / span.as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        println!("six ends of three idle connections: {:.2} % of a core, {rss}", share * 100.0);
    });
}

/// Frames a second through two ends on one thread:
/// `cargo test --release -p qanahd bulk_rate -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn bulk_rate() {
    in_namespace(|| async {
        for (size, mtu) in [(1400, 1191), (16 * 1024, 1191), (16 * 1024, 1410), (64 * 1024, 1410)] {
            let with = |address| Settings { sctp_mtu: mtu, ..settings(&[address]) };
            let mut lab = Lab::open(&with(A4), &with(B4)).await;
            let sender = lab.sides[0].channel().sender.clone();
            let total = 64 * 1024 * 1024 / size;
            let task = tokio::spawn(async move {
                for _ in 0..total {
                    while sender.try_send(BytesMut::zeroed(size)).is_err() {
                        tokio::task::yield_now().await;
                    }
                }
            });
            let begin = Instant::now();
            for _ in 0..total {
                lab.sides[1].channel().receiver.recv().await.unwrap();
            }
            let rate = (total * size * 8) as f64 / begin.elapsed().as_secs_f64() / 1e6;
            println!("frames of {size} bytes, SCTP MTU {mtu}: {rate:.0} Mbit/s");
            task.await.unwrap();
            lab.close().await;
        }
    });
}
