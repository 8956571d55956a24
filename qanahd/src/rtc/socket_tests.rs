//! Batches, order and last words.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::*;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn pair() -> (BatchingSocket, tokio::net::UdpSocket) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let receiver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sender = BatchingSocket::new(socket, None, Links::default()).unwrap();
    (sender, receiver)
}

fn send(sender: &BatchingSocket, to: &tokio::net::UdpSocket, datagram: &[u8]) {
    let transmit = Transmit {
        destination: to.local_addr().unwrap(),
        ecn: None,
        contents: datagram,
        segment_size: None,
        src_ip: None,
    };
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(sender.poll_send(&mut cx, &transmit), Poll::Ready(Ok(_))));
}

/// Batches and bytes.
fn waiting(sender: &BatchingSocket) -> (usize, usize) {
    let queue = lock(&sender.queue);
    (queue.batches.len(), queue.bytes)
}

fn come_back_to_receive(sender: &BatchingSocket, waker: &Waker) {
    let mut buffer = [0; 2000];
    let mut meta = [RecvMeta::default()];
    let mut bufs = [IoSliceMut::new(&mut buffer)];
    let poll = sender.poll_recv(&mut Context::from_waker(waker), &mut bufs, &mut meta);
    assert!(poll.is_pending());
}

async fn receive(receiver: &tokio::net::UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let received = tokio::time::timeout(Duration::from_secs(2), receiver.recv(&mut buffer));
    let length = received.await.expect("a datagram is missing").unwrap();
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn bears_the_mark() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = BatchingSocket::new(socket, Some(0x51), Links::default()).unwrap();
    let mark = nix::sys::socket::getsockopt(socket.udp.socket(), sockopt::Mark).unwrap();
    assert_eq!(mark, 0x51);
}

#[tokio::test]
async fn keeps_order_and_boundaries() {
    let (sender, receiver) = pair().await;
    let sizes = [100, 100, 100, 60, 100, 1200, 1200, 1, 1, 7, 1300, 1200];
    let datagram = |index: usize, size: usize| vec![u8::try_from(index).unwrap(); size];
    for (index, size) in sizes.into_iter().enumerate() {
        send(&sender, &receiver, &datagram(index, size));
    }
    come_back_to_receive(&sender, Waker::noop());
    for (index, size) in sizes.into_iter().enumerate() {
        assert_eq!(receive(&receiver).await, datagram(index, size));
    }
}

#[tokio::test]
async fn wakes_the_receiver_once_a_batch_and_again_after_it() {
    let (sender, receiver) = pair().await;
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    come_back_to_receive(&sender, &waker);
    for round in 1..=5 {
        for number in 0..30 {
            send(&sender, &receiver, &[number; 1000]);
        }
        // One system call's worth, held back until the driver has been woken and comes back.
        assert_eq!(count.0.load(Ordering::Relaxed), round, "round {round}");
        assert_eq!(waiting(&sender), (1, 30_000));
        come_back_to_receive(&sender, &waker);
        assert_eq!(waiting(&sender), (0, 0));
        for number in 0..30 {
            assert_eq!(receive(&receiver).await, [number; 1000]);
        }
    }
}

#[tokio::test]
async fn a_full_batch_leaves_by_itself() {
    let (sender, receiver) = pair().await;
    for _ in 0..MAX_BATCH_SEGMENTS {
        send(&sender, &receiver, &[1; 100]);
    }
    assert_eq!(lock(&sender.queue).bytes, 0);
    for _ in 0..MAX_BATCH_SEGMENTS {
        assert_eq!(receive(&receiver).await.len(), 100);
    }
}

#[tokio::test]
async fn splits_the_runs_of_the_driver() {
    let (sender, receiver) = pair().await;
    let transmit = |segment_size, contents| Transmit {
        destination: receiver.local_addr().unwrap(),
        ecn: None,
        contents,
        segment_size,
        src_ip: None,
    };
    let contents: Vec<u8> = (0..10).flat_map(|number| [number; 500]).collect();
    for datagram in contents.chunks(500) {
        send(&sender, &receiver, datagram);
    }
    // As the driver does it, when it has a long run itself.
    let mut cx = Context::from_waker(Waker::noop());
    let run = transmit(Some(500), &contents);
    assert!(matches!(sender.poll_send(&mut cx, &run), Poll::Ready(Ok(5000))));
    come_back_to_receive(&sender, Waker::noop());
    for number in (0..10).chain(0..10) {
        assert_eq!(receive(&receiver).await, [number; 500]);
    }
}

#[tokio::test]
async fn last_words_leave_when_it_is_dropped() {
    let (sender, receiver) = pair().await;
    send(&sender, &receiver, b"bye");
    send(&sender, &receiver, b"for good");
    drop(sender);
    assert_eq!(receive(&receiver).await, b"bye");
    assert_eq!(receive(&receiver).await, b"for good");
}

/// What is to be read at the port wakes its reader alone.
#[tokio::test]
async fn one_that_only_sends_is_not_woken_by_what_arrives() {
    let shared = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    shared.set_nonblocking(true).unwrap();
    let receiver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sender = BatchingSocket::send_only(shared.try_clone().unwrap(), Links::default()).unwrap();
    let reader = tokio::net::UdpSocket::from_std(shared).unwrap();
    receiver.send_to(b"in", reader.local_addr().unwrap()).await.unwrap();
    reader.readable().await.unwrap();
    come_back_to_receive(&sender, Waker::noop());
    send(&sender, &receiver, b"out");
    assert!(sender.poll_flush(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(receive(&receiver).await, b"out");
}

/// A name leads elsewhere later, and an allocation stays where it was made.
#[tokio::test]
async fn a_server_stays_where_it_was_found() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = BatchingSocket::new(socket, None, Links::default()).unwrap();
    let resolver = &socket.links.resolver;
    let known_as = resolver.place("turn.example", "192.0.2.1:3478".parse().unwrap());
    assert_eq!(socket.real(known_as), Some("192.0.2.1:3478".parse().unwrap()));
    assert_eq!(resolver.place("turn.example", "192.0.2.2:3478".parse().unwrap()), known_as);
    assert_eq!(resolver.route(known_as), Route::Named("192.0.2.2:3478".parse().unwrap()));
    assert_eq!(socket.real(known_as), Some("192.0.2.1:3478".parse().unwrap()));
}
