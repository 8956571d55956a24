//! Whose certificates are accepted.

use std::ffi::CString;
use std::process::Command;

use tempfile::tempdir;

use super::super::*;
use super::harness::*;

/// mosquitto with TLS on one port and WebSocket over TLS on the other.
fn secure_broker(dir: &std::path::Path, name: &str) -> (Mosquitto, u16, u16) {
    certificates(dir, name);
    let file = |name: &str| dir.join(name).display().to_string();
    let keys = format!("certfile {}\nkeyfile {}\n", file("server.pem"), file("server.key"));
    let (tls, wss) = (free_port(), free_port());
    let lines = format!(
        "listener {tls} 127.0.0.1\n{keys}listener {wss} 127.0.0.1\nprotocol websockets\n{keys}"
    );
    (Mosquitto::start(dir, &lines), tls, wss)
}

#[tokio::test]
async fn a_certificate_of_a_given_ca_is_accepted() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let (mosquitto, tls, wss) = secure_broker(dir.path(), "DNS:localhost");
    let trust = Trust::new(Some(&dir.path().join("ca.pem"))).unwrap();
    for (scheme, port) in [(Scheme::Mqtts, tls), (Scheme::Wss, wss)] {
        let mut broker = address(scheme, "localhost", port);
        broker.path = String::from("/mqtt");
        let mut a = Peer::start_with(vec![broker], &trust, &["a"], Version::V5);
        a.connected(0).await;
        a.signaling.publish("a", b"sealed".to_vec());
        assert_eq!(a.message().await.1, b"sealed");
        a.signaling.stop().await;
    }
    assert!(mosquitto.into_log().contains("New client"));
}

/// Why a broker with this certificate is refused.
async fn refusal(broker: BrokerAddress, trust: &Trust) -> String {
    let mut a = Peer::start_with(vec![broker], trust, &["a"], Version::V5);
    until("an attempt fails", || a.signaling.status()[0].last_error.is_some()).await;
    assert!(a.events.try_recv().is_err());
    let status = a.signaling.status().remove(0);
    assert!(!status.connected);
    a.signaling.stop().await;
    status.last_error.unwrap()
}

#[tokio::test]
async fn an_unknown_ca_and_a_wrong_name_are_refused() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    let (mosquitto, tls, wss) = secure_broker(dir.path(), "DNS:broker.example");
    let trust = Trust::new(Some(&dir.path().join("ca.pem"))).unwrap();
    for (scheme, port) in [(Scheme::Mqtts, tls), (Scheme::Wss, wss)] {
        let broker = address(scheme, "localhost", port);
        let unknown = refusal(broker.clone(), &Trust::default()).await;
        assert!(unknown.contains("certificate verify failed"), "{unknown}");
        let wrong_name = refusal(broker, &trust).await;
        assert!(wrong_name.contains("not for localhost"), "{wrong_name}");
    }
    // It was told nothing: the user name and the password travel in the packet that this line is about.
    let log = mosquitto.into_log();
    assert!(log.contains("New connection") && !log.contains("New client"), "{log}");
}

#[tokio::test]
async fn a_ca_file_is_trusted_beside_the_system_and_not_instead() {
    let _one = ONE_AT_A_TIME.lock().await;
    let (ours, system) = (tempdir().unwrap(), tempdir().unwrap());
    let (_one_broker, one, _) = secure_broker(ours.path(), "DNS:localhost");
    let (_other_broker, other, _) = secure_broker(system.path(), "DNS:localhost");
    // A directory in the form of /etc/ssl/certs, which knows the CA of the other broker.
    let hashed = Command::new("openssl").arg("rehash").arg(system.path()).output().unwrap();
    assert!(hashed.status.success(), "{hashed:?}");
    let mut trust = Trust::new(Some(&ours.path().join("ca.pem"))).unwrap();
    let directories = trust.ca_path.unwrap().into_string().unwrap();
    assert!(directories.split(':').any(|directory| directory == "/etc/ssl/certs"));
    let directories = format!("/nonexistent:{}", system.path().display());
    trust.ca_path = Some(CString::new(directories).unwrap());
    for port in [one, other] {
        let broker = address(Scheme::Mqtts, "localhost", port);
        let mut a = Peer::start_with(vec![broker], &trust, &["a"], Version::V5);
        a.connected(0).await;
        a.signaling.stop().await;
    }
}
