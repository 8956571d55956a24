//! Brokers that mean harm, over TCP and over WebSocket.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::super::*;
use super::harness::*;

#[tokio::test]
async fn a_hostile_broker_is_survived() {
    let _one = ONE_AT_A_TIME.lock().await;
    let packets = vec![
        (0x30, publish5(b"inbox/\xff\xfe", b"not UTF-8")),
        (0x30, publish5(b"inbox/\0a", b"NUL")),
        (0x30, publish5(b"", b"no topic")),
        (0x30, publish5(b"inbox/other", b"never asked for")),
        (0x31, publish5(b"inbox/a", b"retained")),
        (0x30, publish5(b"inbox/a", &vec![9; 300_000])),
        (0x30, publish5(b"inbox/a", b"fine")),
    ];
    let broker = FakeBroker { level: 5, short: 1, packets, topics: 2 };
    let (port, connects) = broker.start();
    let mut address = local(port);
    address.user = Some("someone".into());
    address.password = Some("secret words".to_owned().into());
    assert!(!format!("{address} {address:?}").contains("some"));
    let mut a = Peer::start(vec![address], &["inbox/a", "inbox/b"]);
    // The answer to the subscriptions and the messages race; both must come.
    let mut events = [a.next().await, a.next().await];
    events.sort_by_key(|event| matches!(event, Event::Message { .. }));
    let fine = Event::Message { topic: "inbox/a".into(), payload: b"fine".to_vec() };
    assert_eq!(events, [Event::Connected { broker: 0 }, fine]);
    assert_eq!(a.signaling.counters().ignored, 6);
    let connect = connects.recv_timeout(SOON).unwrap();
    let connect = String::from_utf8_lossy(&connect);
    assert!(connect.ends_with("\0\u{7}someone\0\u{c}secret words"), "{connect:?}");
    a.signaling.stop().await;
}

/// How a broker speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tongue {
    Bare,
    WebSocket,
}

const TONGUES: [Tongue; 2] = [Tongue::Bare, Tongue::WebSocket];

/// What it does to each client that connects, after CONNACK.
type Attack = fn(&mut TcpStream, Tongue) -> Option<()>;

/// The head of a WebSocket frame from a server (RFC 6455, section 5.2).
fn head(first: u8, length: u64) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(length @ ..126) => vec![first, length],
        _ => [&[first, 127][..], &length.to_be_bytes()].concat(),
    }
}

/// Says it as that tongue does.
fn say(stream: &mut TcpStream, tongue: Tongue, bytes: &[u8]) -> Option<()> {
    if tongue == Tongue::WebSocket {
        stream.write_all(&head(0x82, u64::try_from(bytes.len()).ok()?)).ok()?;
    }
    stream.write_all(bytes).ok()
}

/// Answers the request for WebSocket (RFC 6455, section 4.2.2).
fn upgrade(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).ok()?;
    assert!(request.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{request}");
    let key = request.split("Sec-WebSocket-Key: ").nth(1)?.lines().next()?;
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()
}

/// Serves clients until the test ends, each with this.
fn broker(tongue: Tongue, attack: Attack) -> BrokerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut serve = || {
                if tongue == Tongue::WebSocket {
                    upgrade(&mut stream)?;
                }
                // CONNECT comes in one piece.
                if stream.read(&mut [0; 1000]).ok()? == 0 {
                    return None;
                }
                say(&mut stream, tongue, &[0x20, 3, 0, 0, 0])?;
                attack(&mut stream, tongue)
            };
            serve();
            // Until the other side has had enough.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let scheme = if tongue == Tongue::Bare { Scheme::Mqtt } else { Scheme::Ws };
    let mut address = address(scheme, "127.0.0.1", port);
    address.path = "/mqtt".to_owned();
    address
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Why the connection ended, and that it cost no memory.
async fn end_of(tongue: Tongue, attack: Attack) -> String {
    let before = resident();
    let a = Peer::start(vec![broker(tongue, attack)], &["inbox/a"]);
    let mut most = 0;
    until("the connection ends", || {
        most = most.max(resident().saturating_sub(before));
        a.signaling.status()[0].last_error.is_some()
    })
    .await;
    let error = a.signaling.status().remove(0).last_error.unwrap();
    a.signaling.stop().await;
    assert!(most < 32 << 20, "{most} bytes more for {error}");
    error
}

fn qos_2(stream: &mut TcpStream, tongue: Tongue) -> Option<()> {
    let body = [&[0, 7][..], b"inbox/a", &[0, 0, 0], &[0x55; 4000]].concat();
    for id in 1..u16::MAX {
        let mut body = body.clone();
        body[9..11].copy_from_slice(&id.to_be_bytes());
        say(stream, tongue, &packet(0x34, &body))?;
    }
    Some(())
}

/// The longest packet that MQTT has.
fn huge(kind: u8, stream: &mut TcpStream, tongue: Tongue) -> Option<()> {
    say(stream, tongue, &[kind, 0xff, 0xff, 0xff, 0x7f])?;
    for _ in 0..100 * 32 {
        say(stream, tongue, &[0x55; 32 * 1024])?;
    }
    Some(())
}

#[tokio::test]
async fn messages_of_qos_2_and_packets_without_end_fill_no_memory() {
    let _one = ONE_AT_A_TIME.lock().await;
    for tongue in TONGUES {
        let flood = end_of(tongue, qos_2).await;
        assert_eq!(flood, "the broker sends a message with QoS 2, for which nobody asked");
        let answer = end_of(tongue, |stream, tongue| huge(0x90, stream, tongue)).await;
        assert!(answer.contains("a packet of 268435455 bytes"), "{answer}");
        // This one is read to its end, which never comes.
        let message = end_of(tongue, |stream, tongue| huge(0x30, stream, tongue)).await;
        assert_eq!(message, "connection lost");
        let length =
            end_of(tongue, |stream, tongue| say(stream, tongue, &[0x30, 0xff, 0xff, 0xff, 0xff]));
        assert!(length.await.contains("a length that never ends"));
    }
}

/// The library would read past the end of such packets.
#[tokio::test]
async fn packets_that_are_wrong_about_what_is_in_them_are_the_end() {
    let _one = ONE_AT_A_TIME.lock().await;
    let packets: [Attack; 4] = [
        |stream, tongue| say(stream, tongue, &[0x30, 6, 0, 1, b'a', 5, 2, 0]),
        |stream, tongue| say(stream, tongue, &[0x30, 8, 0, 1, b'a', 0xff, 0xff, 0xff, 0x7f, 1]),
        |stream, tongue| say(stream, tongue, &[0x30, 2, 0xff, 0xff]),
        |stream, tongue| say(stream, tongue, &[0x90, 3, 0, 1, 0]),
    ];
    for attack in packets {
        let end = end_of(Tongue::Bare, attack).await;
        assert!(end.contains("that is not whole or not in order"), "{end}");
    }
}

/// Of a connection that ends within a packet nothing is left for the next one.
#[tokio::test]
async fn half_a_message_and_a_close_are_the_end() {
    let _one = ONE_AT_A_TIME.lock().await;
    for tongue in TONGUES {
        let end = end_of(tongue, |stream, tongue| {
            say(stream, tongue, &[0x30, 0x20])?;
            if tongue == Tongue::WebSocket {
                stream.write_all(&head(0x88, 0)).ok()?;
            }
            Some(())
        });
        assert_eq!(end.await, "connection lost");
    }
}

#[tokio::test]
async fn frames_of_websocket_that_never_end_or_hold_no_mqtt_are_the_end() {
    let _one = ONE_AT_A_TIME.lock().await;
    let too_long = "the broker sends a WebSocket message of more than 1048576 bytes";
    let frame: [(Attack, &str); 5] = [
        // A message in a thousand pieces.
        (
            |stream, _| {
                stream.write_all(&head(0x02, 5000)).ok()?;
                stream.write_all(&[0xd0; 5000]).ok()?;
                for _ in 0..100_000 {
                    stream.write_all(&head(0x00, 5000)).ok()?;
                    stream.write_all(&[0x55; 5000]).ok()?;
                }
                Some(())
            },
            too_long,
        ),
        (|stream, _| stream.write_all(&head(0x82, (1 << 62) - 1)).ok(), too_long),
        (|stream, _| stream.write_all(&head(0x82, 1 << 21)).ok(), too_long),
        (
            |stream, _| stream.write_all(&[&head(0x81, 2)[..], b"hi"].concat()).ok(),
            "the broker sends text where MQTT should be",
        ),
        (|stream, _| stream.write_all(&[0xff; 200]).ok(), "WebSocket: "),
    ];
    for (attack, reason) in frame {
        let end = end_of(Tongue::WebSocket, attack).await;
        assert!(end.starts_with(reason), "{end}");
    }
}

#[tokio::test]
async fn a_server_that_is_none_of_websocket_says_so() {
    let _one = ONE_AT_A_TIME.lock().await;
    for (answer, reason) in [
        (
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..],
            "the broker refuses WebSocket (404",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "WebSocket: "),
        (b"", "WebSocket: "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut broker = address(Scheme::Ws, "127.0.0.1", listener.local_addr().unwrap().port());
        broker.path = "/mqtt".to_owned();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 1000]);
                let _ = stream.write_all(answer);
            }
        });
        let a = Peer::start(vec![broker], &["a"]);
        until("the attempt fails", || a.signaling.status()[0].last_error.is_some()).await;
        let error = a.signaling.status().remove(0).last_error.unwrap();
        assert!(error.starts_with(reason), "{error}");
        a.signaling.stop().await;
    }
}
