//! Whose certificates are accepted.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::tempdir;

use super::super::*;
use super::harness::*;

/// mosquitto with TLS on one port and WebSocket over TLS on the other.
fn secure_broker(dir: &std::path::Path, name: &str) -> (Mosquitto, u16, u16) {
    certificates(dir, name);
    let (tls, wss) = (free_port(), free_port());
    (Mosquitto::start(dir, &listeners(dir, [tls, wss])), tls, wss)
}

fn listeners(dir: &std::path::Path, [tls, wss]: [u16; 2]) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    let keys = format!("certfile {}\nkeyfile {}\n", file("server.pem"), file("server.key"));
    format!("listener {tls} 127.0.0.1\n{keys}listener {wss} 127.0.0.1\nprotocol websockets\n{keys}")
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
        assert!(unknown.contains("certificate verify failed: it is not signed by"), "{unknown}");
        let wrong_name = refusal(broker, &trust).await;
        assert!(wrong_name.contains("not for localhost"), "{wrong_name}");
    }
    // It was told nothing: the user name and the password travel in the packet that this line is about.
    let log = mosquitto.into_log();
    assert!(log.contains("New connection") && !log.contains("New client"), "{log}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    certificates(dir.path(), "DNS:localhost");
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy \
                -days -1 -out server.pem";
    let mut sign_now = Command::new("openssl");
    let signed = sign_now.args(sign.split_whitespace()).current_dir(dir.path()).output().unwrap();
    let ports = [free_port(), free_port()];
    assert!(signed.status.success(), "{signed:?}");
    let _mosquitto = Mosquitto::start(dir.path(), &listeners(dir.path(), ports));
    let trust = Trust::new(Some(&dir.path().join("ca.pem"))).unwrap();
    for (scheme, port) in [Scheme::Mqtts, Scheme::Wss].into_iter().zip(ports) {
        let expired = refusal(address(scheme, "localhost", port), &trust).await;
        assert!(expired.contains("it has expired"), "{expired}");
    }
}

/// Certificates are renewed while the daemon runs.
#[tokio::test]
async fn a_ca_file_is_read_anew_for_each_connection() {
    let _one = ONE_AT_A_TIME.lock().await;
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let (_mosquitto, tls, _) = secure_broker(dir.path(), "DNS:localhost");
    certificates(other.path(), "DNS:localhost");
    let ca = other.path().join("ca.pem");
    let trust = Trust::new(Some(&ca)).unwrap();
    let broker = address(Scheme::Mqtts, "localhost", tls);
    let mut a = Peer::start_with(vec![broker], &trust, &["a"], Version::V5);
    until("an attempt fails", || a.signaling.status()[0].last_error.is_some()).await;
    std::fs::copy(dir.path().join("ca.pem"), &ca).unwrap();
    a.connected(0).await;
    a.signaling.stop().await;
}

#[tokio::test]
async fn a_ca_file_is_trusted_beside_the_system_and_not_instead() {
    let _one = ONE_AT_A_TIME.lock().await;
    let (ours, system) = (tempdir().unwrap(), tempdir().unwrap());
    let (_one_broker, one, _) = secure_broker(ours.path(), "DNS:localhost");
    let (_other_broker, other, _) = secure_broker(system.path(), "DNS:localhost");
    let mut trust = Trust::new(Some(&ours.path().join("ca.pem"))).unwrap();
    trust.system = Some(system.path().join("ca.pem"));
    for port in [one, other] {
        let broker = address(Scheme::Mqtts, "localhost", port);
        let mut a = Peer::start_with(vec![broker], &trust, &["a"], Version::V5);
        a.connected(0).await;
        a.signaling.stop().await;
    }
}

/// A certificate for a client of the same CA.
fn client_certificate(dir: &std::path::Path, name: &str) -> [std::path::PathBuf; 2] {
    let [key, request, cert] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
    let subject = format!("/CN={name}");
    let new = ["req", "-subj", &subject, "-keyout", &key, "-out", &request, "-nodes"];
    let purpose = "extendedKeyUsage=clientAuth";
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", purpose];
    let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"];
    let out = ["-CAcreateserial", "-copy_extensions", "copy", "-out", &cert];
    for arguments in [[&new[..], &curve].concat(), [&sign[..], &out].concat()] {
        let output = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    std::fs::set_permissions(dir.join(&key), PermissionsExt::from_mode(0o600)).unwrap();
    [dir.join(cert), dir.join(key)]
}

#[tokio::test]
async fn a_broker_that_wants_a_certificate_gets_ours() {
    let _one = ONE_AT_A_TIME.lock().await;
    let dir = tempdir().unwrap();
    certificates(dir.path(), "DNS:localhost");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let lines = format!(
        "certfile {}\nkeyfile {}\ncafile {}\nrequire_certificate true\n\
         use_identity_as_username true\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let (tls, wss) = (free_port(), free_port());
    let listeners = format!(
        "listener {tls} 127.0.0.1\n{lines}listener {wss} 127.0.0.1\nprotocol websockets\n{lines}"
    );
    let mosquitto = Mosquitto::start(dir.path(), &listeners);
    let [cert_file, key_file] = client_certificate(dir.path(), "peer-of-the-test").map(Some);
    let ca_file = Some(dir.path().join("ca.pem"));
    let settings = Settings { ca_file, cert_file, key_file, ..Settings::default() };
    let with = settings.trust().unwrap();
    let without = Trust { identity: None, ..with.clone() };
    for (scheme, port) in [(Scheme::Mqtts, tls), (Scheme::Wss, wss)] {
        let broker = address(scheme, "localhost", port);
        let mut a = Peer::start_with(vec![broker.clone()], &with, &["a"], Version::V5);
        a.connected(0).await;
        a.signaling.stop().await;
        let why = refusal(broker, &without).await;
        assert!(why.contains("CertificateRequired"), "{why}");
    }
    let log = mosquitto.into_log();
    assert_eq!(log.matches("u'peer-of-the-test'").count(), 2, "{log}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let dir = tempdir().unwrap();
    certificates(dir.path(), "DNS:localhost");
    let [cert, key] = client_certificate(dir.path(), "one");
    let [other, other_key] = client_certificate(dir.path(), "two");
    let why = |cert: &std::path::Path, key: &std::path::Path| {
        let (cert_file, key_file) = (Some(cert.to_owned()), Some(key.to_owned()));
        let settings = Settings { cert_file, key_file, ..Settings::default() };
        settings.check().err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(why(&cert, &key), "");
    let missing = why(&dir.path().join("none.pem"), &key);
    assert!(missing.contains("none.pem: No such file"), "{missing}");
    let mixed = why(&other, &key);
    assert!(mixed.contains("one.key: the key is not that of"), "{mixed}");
    let swapped = why(&key, &cert);
    assert!(swapped.contains("one.key: there is no PEM certificate"), "{swapped}");
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
    let no_key = why(&cert, &other);
    assert!(no_key.contains("two.pem: there is no PEM private key"), "{no_key}");
    let locked = dir.path().join("locked.key");
    let output = Command::new("openssl")
        .args(["pkey", "-aes256", "-passout", "pass:x", "-in"])
        .args([&other_key, &std::path::PathBuf::from("-out"), &locked])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let password = why(&other, &locked);
    assert!(password.contains("the key has a password"), "{password}");
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let open = why(&cert, &key);
        assert!(open.contains("one.key: others may read the key"), "{open}");
    }
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&key, Some(65_534), None).unwrap();
    let foreign = why(&cert, &key);
    assert!(foreign.contains("belongs to another user"), "{foreign}");
}
