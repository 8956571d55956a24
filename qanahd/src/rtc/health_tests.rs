//! What is concluded from requests and answers.

use webrtc_core::stun::error_code::{ErrorCode, ErrorCodeAttribute};
use webrtc_core::stun::message::{MessageType, Setter as _};
use webrtc_core::stun::textattrs::TextAttribute;

use super::*;
use crate::rtc::Login;
use crate::rtc::turn::placeholder;

const STUN: &str = "192.0.2.1:3478";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn turn(carrier: Carrier, login: Login) -> TurnServer {
    let host = qanah_core::servers::Host::parse("turn.example").unwrap();
    TurnServer { host, port: 3478, carrier, login }
}

fn password() -> Login {
    Login::Password { username: "u".to_owned(), credential: "p".to_owned().into() }
}

/// A message of this type, with a user name or an error in it.
fn message(kind: u16, id: u8, user: Option<&str>, error: Option<u16>) -> Vec<u8> {
    let mut message = Message::new();
    let mut typ = MessageType::default();
    typ.read_value(kind);
    message.set_type(typ);
    message.transaction_id.0 = [id; 12];
    message.write_header();
    if let Some(user) = user {
        let user = TextAttribute::new(ATTR_USERNAME, user.to_owned());
        user.add_to(&mut message).unwrap();
    }
    if let Some(code) = error {
        let reason = b"\x1b[2Jlies".to_vec();
        let error = ErrorCodeAttribute { code: ErrorCode(code), reason };
        error.add_to(&mut message).unwrap();
    }
    message.raw
}

struct World {
    health: Health,
    now: Instant,
}

impl World {
    fn new(turn: &[TurnServer]) -> Self {
        let health = Health::new(&[format!("stun:{STUN}")], turn);
        health.learn(STUN, &[at(STUN)]);
        health.learn("turn.example:3478", &[at("192.0.2.9:3478"), at("[2001:db8::9]:3478")]);
        Self { health, now: Instant::now() }
    }

    fn sent(&self, to: &str, datagram: &[u8]) {
        let header = binding_or_allocate(datagram).unwrap();
        self.health.sent_at(at(to), header, datagram, self.now);
    }

    fn received(&self, from: &str, datagram: &[u8]) {
        let header = binding_or_allocate(datagram).unwrap();
        self.health.received_at(at(from), header, datagram, self.now);
    }

    fn state(&self, index: usize) -> ServerState {
        self.health.report(self.now).remove(index).state
    }

    fn trouble(&self, index: usize) -> String {
        match self.state(index) {
            ServerState::Trouble(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stun_server_works_or_does_not_answer() {
    let mut world = World::new(&[]);
    assert_eq!(world.state(0), ServerState::Unknown);
    world.sent(STUN, &message(BINDING, 1, None, None));
    world.now += Duration::from_secs(7);
    world.sent(STUN, &message(BINDING, 1, None, None));
    assert_eq!(world.state(0), ServerState::Unknown);
    world.now += Duration::from_secs(1);
    assert_eq!(world.trouble(0), "no answer");
    assert_eq!(world.health.report(world.now)[0].since, Duration::from_secs(8));
    // An answer that is late is one, and it is enough that one of two sockets has it.
    world.sent(STUN, &message(BINDING, 2, None, None));
    world.received(STUN, &message(BINDING + SUCCESS, 1, None, None));
    for _ in 0..10 {
        world.now += Duration::from_secs(1);
        world.sent(STUN, &message(BINDING, 2, None, None));
    }
    assert_eq!(world.state(0), ServerState::Works);
    // Another one gets none, and then the next does.
    world.sent(STUN, &message(BINDING, 3, None, None));
    world.now += Duration::from_secs(60);
    assert_eq!(world.trouble(0), "no answer");
    world.sent(STUN, &message(BINDING, 4, None, None));
    assert_eq!(world.trouble(0), "no answer");
    world.received(STUN, &message(BINDING + SUCCESS, 4, None, None));
    assert_eq!(world.state(0), ServerState::Works);
}

#[test]
fn addresses_that_change_are_followed() {
    let mut world = World::new(&[]);
    for last in 0..100 {
        let address = format!("198.51.100.{last}:3478");
        world.health.learn(STUN, &[at(&address)]);
        world.sent(&address, &message(BINDING, last, None, None));
        world.received(&address, &message(BINDING + SUCCESS, last, None, None));
        assert_eq!(world.health.entries()[0].open.len(), 0, "{address}");
        world.now += Duration::from_secs(1);
    }
    assert_eq!(world.health.entries()[0].addresses.len(), MAX_ADDRESSES);
}

#[test]
fn strangers_cannot_say_anything_of_a_server() {
    let world = World::new(&[]);
    world.sent(STUN, &message(BINDING, 1, None, None));
    // Another address, another transaction, a request, the check of a peer.
    world.received("192.0.2.2:3478", &message(BINDING + ERROR, 1, None, Some(500)));
    world.received(STUN, &message(BINDING + ERROR, 9, None, Some(500)));
    world.health.received(None, at(STUN), &message(BINDING, 1, None, None));
    world.health.received(None, at(STUN), b"\x01\x01 something else");
    world.health.received(None, at(STUN), b"");
    world.sent("192.0.2.2:3478", &message(BINDING, 2, None, None));
    // A check of ICE, because a peer says that it is there.
    world.sent(STUN, &message(BINDING, 2, Some("a:b"), None));
    world.received(STUN, &message(BINDING + ERROR, 2, None, Some(400)));
    assert_eq!(world.state(0), ServerState::Unknown);
}

#[test]
fn the_first_401_is_no_refusal_and_the_second_is() {
    let server = [turn(Carrier::Udp, password())];
    let world = World::new(&server);
    let to = "[2001:db8::9]:3478";
    let log_in = |id: u8, code: Option<u16>| {
        world.sent(to, &message(ALLOCATE, id, None, None));
        world.received(to, &message(ALLOCATE + ERROR, id, None, Some(401)));
        world.sent(to, &message(ALLOCATE, id + 1, Some("u"), None));
        let kind = if code.is_some() { ALLOCATE + ERROR } else { ALLOCATE + SUCCESS };
        world.received(to, &message(kind, id + 1, None, code));
    };
    world.sent(to, &message(ALLOCATE, 1, None, None));
    world.received(to, &message(ALLOCATE + ERROR, 1, None, Some(401)));
    assert_eq!(world.state(1), ServerState::Unknown);
    for (id, code, text) in [
        (10, 401, "the user name or the password is wrong (error 401)"),
        (20, 441, "the user name or the password is wrong (error 441)"),
        (30, 486, "the quota of this user is used up (error 486)"),
        (40, 508, "it has no room for us (error 508)"),
        (50, 599, "it refuses (error 599)"),
    ] {
        log_in(id, Some(code));
        assert_eq!(world.trouble(1), text);
    }
    log_in(60, None);
    assert_eq!(world.state(1), ServerState::Works);
    let report = world.health.report(world.now);
    assert_eq!(report[1].url, "turn:turn.example:3478?transport=udp");
    assert_eq!((report[0].kind, report[1].kind), (ServerKind::Stun, ServerKind::Turn));
    assert_eq!(report[0].state, ServerState::Unknown, "nobody has asked that one");
}

#[test]
fn streams_have_addresses_of_their_own_and_break() {
    let secret = Login::Secret { name: None, secret: "s".to_owned().into() };
    let server = [turn(Carrier::Udp, password()), turn(Carrier::Tcp, secret)];
    let world = World::new(&server);
    let host_port = placeholder::authority(1);
    world.health.learn(&host_port, &placeholder::addresses(&host_port).unwrap());
    let to = "240.1.0.1:3478";
    world.health.failed("turn:turn.example:3478?transport=tcp", "it is gone", world.now);
    assert_eq!(world.trouble(2), "it is gone");
    assert_eq!(world.state(1), ServerState::Unknown, "the same server over UDP is another");
    world.sent(to, &message(ALLOCATE, 1, Some("u"), None));
    world.received(to, &message(ALLOCATE + ERROR, 1, None, Some(401)));
    assert!(world.trouble(2).contains("clock"), "{}", world.trouble(2));
    world.sent(to, &message(ALLOCATE, 2, Some("u"), None));
    world.received(to, &message(ALLOCATE + SUCCESS, 2, None, None));
    assert_eq!(world.state(2), ServerState::Works);
}

/// A connection's stream breaks while others use the server.
#[test]
fn a_server_is_in_trouble_when_no_stream_to_it_lives() {
    let server = [turn(Carrier::Tcp, password()), turn(Carrier::Udp, password())];
    let world = World::new(&server);
    let url = "turn:turn.example:3478?transport=tcp";
    let (first, second) = (world.health.stream(url), world.health.stream(url));
    drop(first);
    world.health.failed(url, "it is gone", world.now);
    assert_eq!(world.state(1), ServerState::Unknown);
    drop(second);
    world.health.failed(url, "it is gone", world.now);
    assert_eq!(world.trouble(1), "it is gone");
}

#[test]
fn what_is_remembered_of_requests_has_a_limit() {
    let world = World::new(&[]);
    for id in 0..=255 {
        world.sent(STUN, &message(BINDING, id, None, None));
    }
    assert_eq!(world.health.entries()[0].open.len(), MAX_OPEN);
}
