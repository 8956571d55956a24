//! Two connections in one process, in a network namespace of their own.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::sched::{CloneFlags, unshare};
use qanah_core::signal::{DtlsRole, RtcDescription};
use tokio::sync::mpsc;

use super::*;

mod connect;
mod forged;
mod measure;
mod port;
mod restart;
mod servers;

const A4: &str = "192.0.2.1";
const B4: &str = "192.0.2.2";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8::2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a test in a thread with a network namespace of its own, where `lo` has all the addresses above.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // RUST_LOG=webrtc=debug,rtc_ice=trace shows what the parts of `webrtc` do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed for a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            loopback_up().await;
            for address in [A4, B4, A6, B6] {
                add_address(address).await;
            }
            tokio::time::timeout(Duration::from_secs(60), test()).await.expect("the test hangs");
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Does one thing by netlink. The socket lives as long as that takes.
async fn netlink<T>(act: impl AsyncFnOnce(rtnetlink::Handle) -> T) -> T {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let task = tokio::spawn(connection);
    let result = act(handle).await;
    task.abort();
    let _ = task.await;
    result
}

async fn loopback_up() {
    netlink(async |handle| {
        let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
        handle.link().set(up).execute().await.unwrap();
    })
    .await;
}

fn prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

async fn add_address(address: &str) {
    let address = ip(address);
    netlink(async |handle| {
        handle.address().add(1, address, prefix(address)).execute().await.unwrap();
    })
    .await;
    // IPv6 addresses can be used only when the kernel has looked for duplicates, even on `lo`.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = std::net::UdpSocket::bind((address, 0)) {
        assert!(Instant::now() < deadline, "{address}: {error}");
        tokio::task::yield_now().await;
    }
}

async fn remove_address(address: &str) {
    let address = ip(address);
    netlink(async |handle| {
        let message = handle.address().add(1, address, prefix(address)).message_mut().clone();
        handle.address().del(message).execute().await.unwrap();
    })
    .await;
}

fn settings(addresses: &[&str]) -> Settings {
    Settings {
        local_addresses: addresses.iter().map(|address| ip(address)).collect(),
        ..Settings::default()
    }
}

/// One side and what it has reported.
#[derive(Default)]
struct Side {
    connection: Option<Connection>,
    channel: Option<Channel>,
    pair: Option<(SelectedCandidate, SelectedCandidate)>,
    connected: u32,
    disconnected: bool,
    failed: bool,
    gathered: bool,
    closed: Option<String>,
    candidates: Vec<Candidate>,
    /// Candidates of the other side for a generation that has not begun here.
    held: Vec<(u32, Candidate)>,
}

impl Side {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap()
    }

    fn summary(&self) -> String {
        format!(
            "channel {}, connected {}, disconnected {}, failed {}, closed {:?}, candidates {:?}",
            self.channel.is_some(),
            self.connected,
            self.disconnected,
            self.failed,
            self.closed,
            self.candidates
        )
    }

    fn channel(&mut self) -> &mut Channel {
        self.channel.as_mut().unwrap()
    }
}

struct Lab {
    sides: [Side; 2],
    events: mpsc::UnboundedReceiver<(usize, RtcEvent)>,
}

impl Lab {
    /// Both have exchanged descriptions; nothing has been trickled yet.
    async fn new(offerer: &Settings, answerer: &Settings) -> Self {
        Self::with(offerer, answerer, |_, _| {}).await
    }

    async fn with(
        offerer: &Settings,
        answerer: &Settings,
        tamper: impl Fn(usize, &mut RtcDescription),
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let sink = |side: usize| -> EventSink {
            let sender = sender.clone();
            Arc::new(move |event| {
                let _ = sender.send((side, event));
            })
        };
        let (a, local) = Connection::offer(offerer, sink(0)).await.unwrap();
        assert_eq!(local.role, DtlsRole::ActPass);
        let mut offer = local.clone();
        tamper(0, &mut offer);
        let (b, answer) = Connection::answer(answerer, &offer, sink(1)).await.unwrap();
        assert_eq!(answer.role, DtlsRole::Active);
        let mut answer = answer;
        tamper(1, &mut answer);
        a.accept_answer(&answer).await.unwrap();
        let side = |connection| Side { connection: Some(connection), ..Side::default() };
        Self { sides: [side(a), side(b)], events }
    }

    /// Passes candidates on and notes events until `done`, or fails after `limit`.
    async fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&[Side; 2]) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        while !done(&self.sides) {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(event) = event else {
                panic!("not in time: {what}; {:#?}", self.sides.each_ref().map(Side::summary))
            };
            let (from, event) = event.unwrap();
            self.take(from, event).await;
        }
    }

    async fn take(&mut self, from: usize, event: RtcEvent) {
        let [a, b] = &mut self.sides;
        let (side, other) = if from == 0 { (a, b) } else { (b, a) };
        match event {
            RtcEvent::LocalCandidate { generation, candidate } => {
                side.candidates.push(candidate);
                other.held.push((generation, candidate));
                release(other).await;
            }
            RtcEvent::GatheringDone { .. } => side.gathered = true,
            RtcEvent::ChannelOpen(channel) => side.channel = Some(channel),
            RtcEvent::IceConnected { local, remote } => {
                side.pair = Some((local, remote));
                side.connected += 1;
            }
            RtcEvent::IceDisconnected => side.disconnected = true,
            RtcEvent::IceFailed => {
                assert!(!side.failed, "failed twice");
                side.failed = true;
            }
            RtcEvent::Closed { reason } => {
                assert!(side.closed.is_none(), "closed twice");
                side.closed = Some(reason);
            }
        }
    }

    async fn open(offerer: &Settings, answerer: &Settings) -> Self {
        let mut lab = Self::new(offerer, answerer).await;
        lab.until_open().await;
        lab
    }

    async fn until_open(&mut self) {
        self.until("both channels open", Duration::from_secs(10), |sides| {
            sides.iter().all(|side| side.channel.is_some() && side.pair.is_some())
        })
        .await;
    }

    /// A frame each way arrives unchanged.
    async fn exchange(&mut self, size: usize) {
        for (from, to) in [(0, 1), (1, 0)] {
            let frame: Vec<u8> =
                (0..size).map(|index| ((index * 7 + from) % 251).try_into().unwrap()).collect();
            self.sides[from].channel().sender.try_send(BytesMut::from(&frame[..])).unwrap();
            let received = tokio::time::timeout(
                Duration::from_secs(10),
                self.sides[to].channel().receiver.recv(),
            );
            let received = received.await.expect("the frame does not arrive");
            assert_eq!(received.unwrap(), frame);
        }
    }

    async fn until_reconnected(&mut self, times: u32) {
        self.until("both connected again", Duration::from_secs(10), |sides| {
            sides.iter().all(|side| side.connected == times)
        })
        .await;
    }

    async fn close(self) {
        for side in self.sides {
            side.connection.unwrap().close().await;
        }
    }
}

/// Adds what may be added by now.
async fn release(side: &mut Side) {
    let connection = side.connection.as_ref().unwrap();
    let mut held = Vec::new();
    for (generation, candidate) in side.held.drain(..) {
        if connection.add_candidates(generation, &[candidate]).await.is_err()
            && generation > connection.generation()
        {
            held.push((generation, candidate));
        }
    }
    side.held = held;
}

/// One side begins an ICE restart, the other answers.
async fn restart(lab: &mut Lab, from: usize) {
    let (generation, credentials) = lab.sides[from].connection().restart_ice().await.unwrap();
    let answer = lab.sides[1 - from].connection().remote_restart(generation, &credentials).await;
    let Ok(Restart::Answer(answer)) = answer else { panic!("{answer:?}") };
    let result = lab.sides[from].connection().remote_restart(generation, &answer).await.unwrap();
    assert_eq!(result, Restart::Complete);
    for side in &mut lab.sides {
        release(side).await;
    }
}
