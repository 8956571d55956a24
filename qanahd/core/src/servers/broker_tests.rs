//! Addresses of brokers, good and bad.

use super::*;

fn parse(text: &str) -> BrokerUrl {
    text.parse().unwrap()
}

#[test]
fn addresses_get_their_defaults() {
    for (text, uri) in [
        (DEFAULT_BROKER, "mqtt://broker.emqx.io:1883"),
        ("mqtt.example.com", "mqtt://mqtt.example.com:1883"),
        ("[2001:db8::1]:1884", "mqtt://[2001:db8::1]:1884"),
        ("192.0.2.1:5", "mqtt://192.0.2.1:5"),
        ("mqtt://Example.com/", "mqtt://example.com:1883"),
        ("MQTTS://example.com", "mqtts://example.com:8883"),
        ("mqtts://[::1]:1", "mqtts://[::1]:1"),
        ("ws://example.com", "ws://example.com:80/mqtt"),
        ("ws://example.com:80/", "ws://example.com:80/"),
        ("wss://example.com", "wss://example.com:443/mqtt"),
        ("wss://example.com:8084/a/b", "wss://example.com:8084/a/b"),
        ("wss://example.com/a?token=t", "wss://example.com:443/a?(hidden)"),
    ] {
        let broker = parse(text);
        assert_eq!(broker.to_string(), uri, "{text}");
        assert_eq!((broker.username(), broker.password()), (None, None));
    }
}

#[test]
fn credentials_are_decoded_and_the_password_is_never_shown() {
    for (text, user, password, shown) in [
        ("mqtt://u:hunter2@h", "u", Some("hunter2"), "mqtt://u:(hidden)@h:1883"),
        ("wss://u@h:1", "u", None, "wss://u@h:1/mqtt"),
        ("mqtts://a%40b:%2Fp%25%3a@h", "a@b", Some("/p%:"), "mqtts://a@b:(hidden)@h:8883"),
        ("mqtt://%C3%BC:a:b@h", "ü", Some("a:b"), "mqtt://ü:(hidden)@h:1883"),
        ("ws://u:p@h/x?k=secret", "u", Some("p"), "ws://u:(hidden)@h:80/x?(hidden)"),
    ] {
        let broker = parse(text);
        let login = (broker.username(), broker.password().map(|password| password.as_str()));
        assert_eq!(login, (Some(user), password), "{text}");
        assert_eq!(broker.to_string(), shown);
        assert_eq!(format!("{broker:?}"), format!("BrokerUrl({shown})"));
    }
    let broker = parse("ws://h/x?k=secret");
    assert_eq!((broker.path(), broker.query().map(|it| it.as_str())), ("/x", Some("k=secret")));
}

#[test]
fn wrong_addresses_say_what_was_expected_without_the_password() {
    for (text, what) in [
        ("", "empty"),
        ("u:hunter2@h:1883", "no `mqtt://`"),
        ("h:1883/hunter2", "no `mqtt://`"),
        ("h:x", "port"),
        ("2001:db8::1", "brackets"),
        ("http://u:hunter2@h", "before `://`"),
        ("mqtt://", "host"),
        ("mqtt://u:hunter2@", "host"),
        ("mqtt://u:hunter2@h:99999", "port"),
        ("mqtt://u:hunter2@h:0", "port"),
        ("mqtt://:hunter2@h", "password without a user"),
        ("mqtt://u:hunter2%zz@h", "the password is not percent-encoded"),
        ("mqtt://u%ff:hunter2@h", "the user is not percent-encoded"),
        ("mqtt://u:hunter2%00@h", "the password is not"),
        ("mqtt://u:hunter2@h/path", "have a path"),
        ("mqtt://u:hunter2@h?a", "have a path"),
        ("wss://u:hunter2@h/a#b", "`#`"),
        ("wss://u:hunter2@h\\a", "backslash"),
        ("wss://u:hunter2@h a", "white space"),
        ("wss://u:hunter2@a%2fb", "domain name"),
        (" h", "white space"),
    ] {
        let message = text.parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(message.contains(what) && message.contains("such as"), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(format!("ws://{}", "a".repeat(4000)).parse::<BrokerUrl>().is_err());
}

#[test]
fn none_turns_signaling_off() {
    assert_eq!("none".parse(), Ok(SignalServer::None));
    assert_eq!("None".parse(), Ok(SignalServer::None));
    let broker: SignalServer = "none:1883".parse().unwrap();
    assert_eq!(broker.to_string(), "mqtt://none:1883");
}
