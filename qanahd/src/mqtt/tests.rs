//! Against a real mosquitto, and against brokers and publishers that mean harm.

mod gate;
mod harness;
mod hostile;
mod proxy;
mod tls;

use std::net::TcpStream;
use std::time::Duration;

pub(crate) use harness::certificates;
use harness::*;
use tempfile::tempdir;

use super::inbox::Inbox;
use super::*;

#[tokio::test]
async fn two_peers_talk_and_stop_at_once() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    let mut a = Peer::start(vec![local(port)], &["inbox/a"]);
    let mut b = Peer::start(vec![local(port)], &["inbox/b"]);
    a.connected(0).await;
    b.connected(0).await;
    a.signaling.publish("inbox/b", b"hello".to_vec());
    assert_eq!(b.message().await, ("inbox/b".into(), b"hello".to_vec()));
    b.signaling.publish("inbox/a", vec![7; MAX_PAYLOAD]);
    assert_eq!(a.message().await, ("inbox/a".into(), vec![7; MAX_PAYLOAD]));
    let status = a.signaling.status();
    assert!(status[0].connected && status[0].last_error.is_none());

    let start = Instant::now();
    a.signaling.stop().await;
    b.signaling.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    until("the threads end", || !threads().iter().any(|name| name.to_lowercase().contains("mqtt")))
        .await;
}

/// The names of the threads of this process, without those of the test runner, which are called after
/// their tests.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| !name.contains("::")).collect()
}

#[tokio::test]
async fn dropping_every_handle_stops_the_threads() {
    let _one = ONE_AT_A_TIME.lock().await;
    let peer = Peer::start(vec![local(free_port())], &[]);
    until("a worker runs", || threads().iter().any(|name| name.starts_with("mqtt-"))).await;
    drop(peer);
    until("it ends", || !threads().iter().any(|name| name.starts_with("mqtt-"))).await;
}

#[tokio::test]
async fn topics_come_and_go_while_connected() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    let many: Vec<String> = (0..200).map(|peer| format!("inbox/{peer}")).collect();
    let mut a = Peer::start(vec![local(port)], &[]);
    a.connected(0).await;
    a.signaling.subscribe(many.clone());
    let mut stranger = Stranger::connect(port);
    for topic in [&many[0], &many[99], &many[199]] {
        // The broker confirms subscriptions to nobody but the worker, so ask until it answers.
        let deadline = Instant::now() + SOON;
        loop {
            stranger.publish(topic, b"late", false);
            stranger.flush();
            let wait = tokio::time::timeout(Duration::from_millis(200), a.events.recv());
            match wait.await {
                Ok(event) => break assert!(matches!(event, Some(Event::Message { .. }))),
                Err(_) => assert!(Instant::now() < deadline, "{topic} was never subscribed"),
            }
        }
    }
    while a.events.try_recv().is_ok() {}
    a.signaling.unsubscribe(many[1..].to_vec());
    stranger.publish(&many[99], b"unwanted", false);
    stranger.publish(&many[0], b"wanted", false);
    assert_eq!(a.message().await.1, b"wanted");
    a.signaling.stop().await;
}

#[tokio::test]
async fn a_broker_that_restarts_is_used_again() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let mut broker = Mosquitto::plain(dir.path(), port);
    let topics: Vec<String> = (0..200).map(|peer| format!("inbox/{peer}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut a = Peer::start(vec![local(port)], &names);
    a.connected(0).await;
    broker.kill();
    assert!(matches!(a.next().await, Event::Lost { broker: 0, .. }));
    assert!(!a.signaling.status()[0].connected);
    for _ in 0..1000 {
        a.signaling.publish("inbox/0", b"into the void".to_vec());
    }
    assert_eq!(a.signaling.counters().unsent, 1000);
    until("a next try", || a.signaling.status()[0].next_try.is_some()).await;
    broker.run();
    a.connected(0).await;
    let mut stranger = Stranger::connect(port);
    for topic in [&topics[0], &topics[77], &topics[199]] {
        stranger.publish(topic, b"again", false);
        assert_eq!(a.message().await, (topic.clone(), b"again".to_vec()));
    }
    a.signaling.stop().await;
}

#[tokio::test]
async fn retained_messages_are_ignored() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    let mut stranger = Stranger::connect(port);
    stranger.publish("inbox/a", b"yesterday", true);
    stranger.flush();
    for version in [Version::V5, Version::V311] {
        let trust = Trust::default();
        let mut a = Peer::start_with(vec![local(port)], &trust, &["inbox/a"], version);
        a.connected(0).await;
        stranger.publish("inbox/a", b"now", false);
        assert_eq!(a.message().await.1, b"now");
        // MQTT 5 lets us ask the broker not to send it in the first place.
        let ignored = u64::from(version == Version::V311);
        assert_eq!(a.signaling.counters(), Counters { received: 1, ignored, ..Default::default() });
        a.signaling.stop().await;
    }
}

#[tokio::test]
async fn oversize_messages_are_ignored() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    let mut a = Peer::start(vec![local(port)], &["inbox/a"]);
    a.connected(0).await;
    let mut stranger = Stranger::connect(port);
    stranger.publish("inbox/a", &[1; MAX_PAYLOAD + 1], false);
    // This one is not even sent to us: the broker knows our limit.
    stranger.publish("inbox/a", &vec![2; 1 << 20], false);
    stranger.publish("inbox/a", &[3; MAX_PAYLOAD], false);
    assert_eq!(a.message().await.1, [3; MAX_PAYLOAD]);
    assert_eq!(a.signaling.counters(), Counters { received: 1, ignored: 1, ..Default::default() });
    a.signaling.publish("inbox/a", vec![0; MAX_PAYLOAD + 1]);
    a.signaling.publish("inbox/#", vec![0]);
    assert_eq!(a.signaling.counters().unsent, 2);
    a.signaling.stop().await;
}

#[tokio::test]
async fn a_flooded_topic_does_not_drown_the_others() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    let mut a = Peer::start(vec![local(port)], &["inbox/flooded", "inbox/quiet"]);
    a.connected(0).await;
    let mut stranger = Stranger::connect(port);
    // Nobody reads events meanwhile: what is kept must fit into the channel.
    for batch in 0..20 {
        for _ in 0..50 {
            stranger.publish("inbox/flooded", &[batch; 100], false);
        }
        stranger.flush();
    }
    let seen = || {
        let counters = a.signaling.counters();
        counters.received + counters.throttled
    };
    until("the flood is over", || seen() == 1000).await;
    stranger.publish("inbox/quiet", b"heard", false);
    let mut flooded = 0;
    loop {
        match a.message().await {
            (topic, _) if topic == "inbox/flooded" => flooded += 1,
            (_, payload) => break assert_eq!(payload, b"heard"),
        }
    }
    assert!((64..200).contains(&flooded), "{flooded}");
    assert_eq!(a.signaling.counters().overflowed, 0);
    a.signaling.stop().await;
}

#[test]
fn a_full_channel_drops_messages_and_keeps_word_of_brokers() {
    let (tell, mut events) = mpsc::channel(2);
    let inbox = Arc::new(Inbox::new(tell));
    inbox.add([String::from("a")]);
    for byte in 0..3 {
        inbox.offer(b"a", &[byte], false);
    }
    let teller = Arc::clone(&inbox);
    let waiting = std::thread::spawn(move || teller.report(Event::Connected { broker: 0 }));
    inbox.offer(b"b", b"", false);
    inbox.offer(b"\xff", b"", false);
    inbox.offer(b"a", b"", true);
    let counters = Counters { received: 2, ignored: 3, overflowed: 1, ..Default::default() };
    assert_eq!(inbox.counters(), counters);
    for byte in 0..2 {
        let expected = Event::Message { topic: "a".into(), payload: vec![byte] };
        assert_eq!(events.try_recv().unwrap(), expected);
    }
    waiting.join().unwrap();
    assert_eq!(events.try_recv().unwrap(), Event::Connected { broker: 0 });
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn brokers_that_hang_cost_the_others_nothing() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _broker = Mosquitto::plain(dir.path(), port);
    // One takes connections and never says a word; the other does not even finish the TCP handshake,
    // because its queue of one is full.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let full_address = full.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&full_address, Duration::from_millis(300));
    let fillers: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).take(8).collect();
    assert!(fillers.len() < 8, "the queue never filled");
    let silent_port = silent.local_addr().unwrap().port();

    let start = Instant::now();
    let brokers =
        vec![local(silent_port), local(full_address.port()), local(port), local(free_port())];
    let mut a = Peer::start(brokers, &["inbox/a"]);
    // An attempt to connect takes 20 s.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    a.connected(2).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    a.signaling.publish("inbox/a", b"through".to_vec());
    assert_eq!(a.message().await.1, b"through");
    let status = a.signaling.status();
    assert_eq!(status.iter().map(|s| s.connected).collect::<Vec<_>>(), [false, false, true, false]);
    // The attempts are given up and made again.
    until("the hanging brokers fail", || {
        let status = a.signaling.status();
        [0, 1, 3].iter().all(|broker| status[*broker].last_error.is_some())
    })
    .await;
    let start = Instant::now();
    a.signaling.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_message_comes_through_every_broker_that_works() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let ports = [free_port(), free_port()];
    let mut first = Mosquitto::plain(dir.path(), ports[0]);
    let _second = Mosquitto::plain(dir.path(), ports[1]);
    let mut a = Peer::start(ports.map(local).to_vec(), &["inbox/a"]);
    let mut connected = [a.next().await, a.next().await];
    connected.sort_by_key(|event| matches!(event, Event::Connected { broker: 1 }));
    assert_eq!(connected, [0, 1].map(|broker| Event::Connected { broker }));
    a.signaling.publish("inbox/a", b"twice".to_vec());
    assert_eq!(a.message().await.1, b"twice");
    assert_eq!(a.message().await.1, b"twice");
    first.kill();
    assert!(matches!(a.next().await, Event::Lost { broker: 0, .. }));
    a.signaling.publish("inbox/a", b"once".to_vec());
    assert_eq!(a.message().await.1, b"once");
    assert_eq!(a.signaling.counters().unsent, 0);
    a.signaling.stop().await;
}

#[tokio::test]
async fn a_broker_without_mqtt_5_is_spoken_to_in_3_1_1() {
    let _one = ONE_AT_A_TIME.lock().await;
    let packets = vec![(0x30, [&[0, 7][..], b"inbox/a", b"old"].concat())];
    let (port, connects) = FakeBroker { level: 4, short: 0, packets, topics: 2 }.start();
    let mut a = Peer::start(vec![local(port)], &["inbox/a", "inbox/b"]);
    let mut events = [a.next().await, a.next().await];
    events.sort_by_key(|event| matches!(event, Event::Message { .. }));
    let old = Event::Message { topic: "inbox/a".into(), payload: b"old".to_vec() };
    assert_eq!(events, [Event::Connected { broker: 0 }, old]);
    let levels: Vec<u8> = connects.try_iter().map(|connect| connect[6]).collect();
    assert_eq!(levels, [5, 4]);
    a.signaling.stop().await;
}

#[tokio::test]
async fn websocket_without_tls_works() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    // mosquitto 2.0 does not start with a WebSocket listener alone.
    let plain = free_port();
    let lines =
        format!("listener {port} 127.0.0.1\nprotocol websockets\nlistener {plain} 127.0.0.1");
    let _broker = Mosquitto::start(dir.path(), &lines);
    let mut broker = address(Scheme::Ws, "127.0.0.1", port);
    broker.path = String::from("/mqtt");
    let mut a = Peer::start(vec![broker], &["a"]);
    a.connected(0).await;
    a.signaling.publish("a", b"framed".to_vec());
    assert_eq!(a.message().await.1, b"framed");
    a.signaling.stop().await;
}

#[tokio::test]
async fn a_bad_ca_file_is_named() {
    let dir = tempdir().unwrap();
    let missing = dir.path().join("missing.pem");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for (path, words) in [(missing, "cannot read"), (empty, "no PEM certificate")] {
        let (tell, _events) = mpsc::channel(1);
        let settings = Settings { ca_file: Some(path.clone()), ..Settings::default() };
        let error = Signaling::start(settings, tell).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn addresses_are_written_as_urls() {
    assert_eq!(address(Scheme::Mqtts, "::1", 8883).to_string(), "mqtts://[::1]:8883");
    let mut ws = address(Scheme::Wss, "broker.example", 443);
    ws.path = String::from("/mqtt");
    assert_eq!(ws.to_string(), "wss://broker.example:443/mqtt");
    ws.query = Some("token=hunter2".to_owned().into());
    assert_eq!(ws.to_string(), "wss://broker.example:443/mqtt?(hidden)");
    assert_eq!(ws.uri().as_str(), "wss://broker.example:443/mqtt?token=hunter2");
}

/// The token gets as far as the broker, and into no status.
#[tokio::test]
async fn a_secret_in_the_query_is_sent_and_not_shown() {
    let _one = ONE_AT_A_TIME.lock().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broker = address(Scheme::Ws, "127.0.0.1", listener.local_addr().unwrap().port());
    broker.path = String::from("/mqtt");
    broker.query = Some("token=hunter2".to_owned().into());
    let request = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 1000];
        let length = std::io::Read::read(&mut stream, &mut request).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let a = Peer::start(vec![broker], &["a"]);
    let request = request.await.unwrap();
    assert!(request.starts_with("GET /mqtt?token=hunter2 HTTP/1.1\r\n"), "{request}");
    until("the attempt fails", || a.signaling.status()[0].last_error.is_some()).await;
    let status = format!("{:?}", a.signaling.status());
    assert!(status.contains("/mqtt?(hidden)") && !status.contains("hunter2"), "{status}");
    a.signaling.stop().await;
}
