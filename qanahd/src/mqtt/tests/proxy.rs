//! Brokers behind a proxy that we made, which knows what it was asked. A real one is in the end-to-end tests.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use qanah_core::servers::{NoProxy, ProxyChoice};
use tempfile::tempdir;

use super::super::*;
use super::harness::*;

/// A proxy that answers with this and, when that is a yes, leads to a port of this machine, whatever was
/// asked for. Gives its port and the heads of the requests.
fn proxy(answer: &'static str, to: u16) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heads) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if client.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let _ = tell.send(String::from_utf8(head).unwrap());
                client.write_all(answer.as_bytes()).unwrap();
                if !answer.contains(" 200 ") {
                    return;
                }
                let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut c, mut s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut c, &mut s);
                    let _ = s.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (port, heads)
}

fn through(port: u16, except: &str) -> Dialer {
    let proxies = ProxyChoice {
        proxy: Some(format!("http://joe:hunter2@127.0.0.1:{port}").parse().unwrap()),
        except: NoProxy::parse(except),
    };
    Dialer { proxies, ..Dialer::default() }
}

const YES: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// Each way of speaking to a broker, none of whose names can be looked up here.
#[tokio::test]
async fn every_kind_of_broker_is_reached_by_its_name_alone() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    certificates(dir.path(), "DNS:broker.invalid");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let keys = format!("certfile {}\nkeyfile {}\n", file("server.pem"), file("server.key"));
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let [plain, tls, ws, wss] = ports;
    let lines = format!(
        "listener {plain} 127.0.0.1\nlistener {tls} 127.0.0.1\n{keys}\
         listener {ws} 127.0.0.1\nprotocol websockets\n\
         listener {wss} 127.0.0.1\nprotocol websockets\n{keys}"
    );
    let _mosquitto = Mosquitto::start(dir.path(), &lines);
    let trust = Trust::new(Some(&dir.path().join("ca.pem"))).unwrap();
    let schemes = [Scheme::Mqtt, Scheme::Mqtts, Scheme::Ws, Scheme::Wss];
    for (scheme, to) in schemes.into_iter().zip(ports) {
        let (port, heads) = proxy(YES, to);
        let mut broker = address(scheme, "broker.invalid", 4711);
        broker.path = String::from("/mqtt");
        let dialer = through(port, "");
        let mut a = Peer::start_through(vec![broker], &trust, &dialer, &["a"], Version::V5);
        a.connected(0).await;
        a.signaling.publish("a", b"sealed".to_vec());
        assert_eq!(a.message().await.1, b"sealed");
        assert_eq!(
            heads.recv_timeout(SOON).unwrap(),
            "CONNECT broker.invalid:4711 HTTP/1.1\r\nHost: broker.invalid:4711\r\n\
             Proxy-Authorization: Basic am9lOmh1bnRlcjI=\r\n\r\n"
        );
        a.signaling.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_is_told_as_the_proxys_and_the_next_try_may_work() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    certificates(dir.path(), "DNS:broker.invalid");
    let trust = Trust::new(Some(&dir.path().join("ca.pem"))).unwrap();
    for (answer, reason) in [
        ("HTTP/1.1 407 no\r\n\r\n", "it does not accept the user and the password (407)"),
        ("HTTP/1.1 403 no\r\n\r\n", "it does not let us connect to broker.invalid:4711 (403)"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "it is not HTTP"),
    ] {
        let (port, _heads) = proxy(answer, 1);
        for scheme in [Scheme::Mqtt, Scheme::Mqtts] {
            let broker = address(scheme, "broker.invalid", 4711);
            let dialer = through(port, "");
            let a = Peer::start_through(vec![broker], &trust, &dialer, &["a"], Version::V5);
            let error = || a.signaling.status()[0].last_error.clone();
            until("an attempt fails", || error().is_some()).await;
            let error = error().unwrap();
            let start = format!("the proxy http://(hidden)@127.0.0.1:{port}: ");
            assert!(error.starts_with(&start) && error.contains(reason), "{error}");
            a.signaling.stop().await;
        }
    }
}

#[tokio::test]
async fn exceptions_and_the_machine_itself_are_reached_straight() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let port = free_port();
    let _mosquitto = Mosquitto::plain(dir.path(), port);
    // There is no proxy at that port.
    let dialer = through(1, "");
    let brokers = vec![local(port)];
    let mut a = Peer::start_through(brokers, &Trust::default(), &dialer, &["a"], Version::V5);
    a.connected(0).await;
    a.signaling.stop().await;
}
