//! Hand-made proxies, good and bad.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers one connection with these pieces, each in a packet of its own as far as that can be had,
/// then echoes. Gives what it was asked.
async fn proxy(answer: Vec<&'static [u8]>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 100];
            let length = stream.read(&mut piece).await.unwrap();
            asked.extend_from_slice(&piece[..length]);
        }
        for piece in answer {
            // It may have had enough.
            let _ = stream.write_all(piece).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        String::from_utf8(asked).unwrap()
    });
    (address, task)
}

fn dialer(proxy: &str) -> Dialer {
    let proxies = ProxyChoice { proxy: Some(proxy.parse().unwrap()), ..ProxyChoice::default() };
    Dialer { proxies, ..Dialer::default() }
}

fn target(host: &str) -> Host {
    Host::parse(host).unwrap()
}

async fn refusal(answer: Vec<&'static [u8]>, user: &str) -> String {
    let (address, _task) = proxy(answer).await;
    let dialer = dialer(&format!("http://{user}{address}"));
    let host = target("no.such.name.invalid");
    let dial = dialer.dial(&host, 443);
    let dialled = tokio::time::timeout(Duration::from_secs(10), dial).await.expect("it hangs");
    let error = dialled.err().unwrap().to_string();
    assert!(error.starts_with("the proxy http://") && !error.contains("hunter2"), "{error}");
    error
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_name_and_carries() {
    let (address, asked) =
        proxy(vec![b"HTTP/1.1 20", b"0 Connection established\r\nVia: x\r", b"\n\r\n"]).await;
    let dialer = dialer(&format!("http://joe:hunter2@{address}"));
    let mut stream = dialer.dial(&target("no.such.name.invalid"), 443).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    assert_eq!(
        asked.await.unwrap(),
        "CONNECT no.such.name.invalid:443 HTTP/1.1\r\nHost: no.such.name.invalid:443\r\n\
         Proxy-Authorization: Basic am9lOmh1bnRlcjI=\r\n\r\n"
    );
    let (address, asked) = proxy(vec![b"HTTP/1.0 200 OK\r\n\r\n"]).await;
    let dialer = self::dialer(&address.to_string());
    dialer.dial(&target("[2001:db8::1]"), 5349).await.unwrap();
    assert!(asked.await.unwrap().starts_with("CONNECT [2001:db8::1]:5349 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_refusal_says_why() {
    for (answer, user, reason) in [
        (&b"HTTP/1.1 407 x\r\n\r\n"[..], "", "it wants a user and a password (407)"),
        (
            b"HTTP/1.1 407 x\r\n\r\n<p>",
            "u:hunter2@",
            "it does not accept the user and the password (407)",
        ),
        (b"HTTP/1.1 403 x\r\n\r\n", "", "let us connect to no.such.name.invalid:443 (403)"),
        (b"HTTP/1.1 503 x\r\n\r\n", "", "cannot reach no.such.name.invalid:443 (503)"),
        (b"HTTP/1.1 302 x\r\nLocation: y\r\n\r\n", "", "(302)"),
        (b"SSH-2.0-x\r\n", "u:hunter2@", "not HTTP"),
        (b"HTTP/1.1 200 x\r\n\r\nmore", "", "more in it"),
    ] {
        let error = refusal(vec![answer], user).await;
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_talks_for_ever_or_not_at_all_is_left() {
    assert!(refusal(vec![&[b'x'; 1024]; 12], "").await.contains("not HTTP"));
    let endless = refusal(vec![b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 9000]], "").await;
    assert!(endless.contains("too long"), "{endless}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(&listener.local_addr().unwrap().to_string());
    let host = target("x.invalid");
    let dial = dialer.dial(&host, 1);
    let (dialled, accepted) = tokio::join!(dial, async { listener.accept().await.map(drop) });
    accepted.unwrap();
    let error = dialled.err().unwrap().to_string();
    assert!(error.contains("no answer"), "{error}");
}

#[tokio::test]
async fn without_a_proxy_it_goes_straight_and_bears_the_mark() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The proxy does not exist, and is not used for the machine itself.
    let mut dialer = dialer("http://127.0.0.1:1");
    dialer.fw_mark = Some(0x51);
    let stream = dialer.dial(&target("localhost"), port).await.unwrap();
    assert_eq!(socket2::SockRef::from(&stream).mark().unwrap(), 0x51);
    let error = dialer.dial(&target("x.invalid"), 1).await.err().unwrap().to_string();
    assert!(error.starts_with("the proxy http://127.0.0.1:1: cannot connect"), "{error}");
    let straight = Dialer::default();
    let error = straight.dial(&target("no.such.name.invalid"), 1).await.err().unwrap();
    assert_eq!(error.to_string(), "cannot find the address of no.such.name.invalid");
}
