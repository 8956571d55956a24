use proptest::prelude::*;

use super::*;
use crate::signal::samples::{any_description, any_message, description, rtc};
use crate::signal::{
    Candidate, CandidateKind, Description, DtlsRole, IceCredentials, RtcDescription,
};

fn with(rtc: RtcDescription) -> Description {
    Description { rtc: Some(rtc), ..description() }
}

fn offer(noise: usize) -> Message {
    Message::Offer(Offer {
        lifetime: None,
        session: SessionId([1; 16]),
        echo: Some(Challenge([2; 16])),
        noise: vec![3; noise],
    })
}

fn restart() -> Candidates {
    Candidates {
        session: SessionId([1; 16]),
        generation: 1,
        credentials: Some(rtc().ice),
        candidates: rtc().candidates,
        end: false,
        mac: Some([4; 16]),
    }
}

#[test]
fn descriptions_are_short() {
    let bytes = encode_description(&description()).unwrap();
    println!("a description with three candidates: {} bytes", bytes.len());
    assert!(bytes.len() < 200, "{} bytes", bytes.len());
    let mut most = rtc();
    most.ice.ufrag = "x".repeat(32);
    most.ice.pwd = "x".repeat(64);
    most.candidates = vec![rtc().candidates[1]; MAX_CANDIDATES];
    let bytes = encode_description(&with(most)).unwrap();
    println!("the longest that is of use: {} bytes", bytes.len());
    assert!(bytes.len() <= MAX_DESCRIPTION);
}

#[test]
fn a_description_that_breaks_a_rule_is_refused_both_ways() {
    type Change = fn(&mut RtcDescription);
    let changes: [(Change, &str); 8] = [
        (|d| d.ice.ufrag = "abc".into(), "fragment"),
        (|d| d.ice.ufrag = "x".repeat(33), "fragment"),
        (|d| d.ice.ufrag = "abcd\r\na=x".into(), "fragment"),
        (|d| d.ice.pwd = "x".repeat(21), "password"),
        (|d| d.ice.pwd = "ü".repeat(11), "password"),
        (|d| d.sctp_port = 0, "port is 0"),
        (|d| d.max_message_size = 1311, "1312"),
        (|d| d.candidates = vec![d.candidates[0]; MAX_CANDIDATES + 1], "candidates"),
    ];
    for (change, what) in changes {
        let mut broken = rtc();
        change(&mut broken);
        let error = encode_description(&with(broken)).unwrap_err();
        assert!(error.0.contains(what), "{} is not about {what}", error.0);
    }
}

/// Field number and bytes, as protobuf writes a length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![(number << 3) | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend(bytes);
    out
}

/// A valid description with more fields after it; the last one of a kind counts in protobuf.
fn extended(more: &[u8]) -> Result<Description, Malformed> {
    let mut bytes = encode_description(&description()).unwrap();
    bytes.extend(more);
    decode_description(&bytes)
}

#[test]
fn what_a_peer_sends_is_checked_as_strictly() {
    let refused = |more: &[u8]| extended(more).unwrap_err().0;
    assert!(refused(&field(1, b"abc\n")).contains("fragment"));
    assert!(refused(&field(2, b"short")).contains("password"));
    assert!(refused(&field(1, &[0xff; 8])).contains("protobuf"));
    assert!(refused(&field(3, &[0; 31])).contains("fingerprint"));
    assert!(refused(&[4 << 3, 3]).contains("role"));
    assert!(refused(&[5 << 3, 0]).contains("port is 0"));
    assert!(refused(&[5 << 3, 0x80, 0x80, 0x04]).contains("65535"));
    assert!(refused(&[6 << 3, 0x80, 0x0a]).contains("1312"));
    assert!(refused(&field(9, &[1, 0, 0, 0, 0, 10, 0, 0, 1, 2])).contains("length"));
    assert!(refused(&field(9, &[])).contains("length"));
    let flood = field(9, &[9]).repeat(MAX_CANDIDATES);
    assert!(refused(&flood).contains("candidates"));
    assert!(refused(&vec![0; MAX_DESCRIPTION]).contains("too long"));
}

#[test]
fn what_is_not_known_yet_is_passed_over() {
    let known = description();
    assert_eq!(extended(&field(15, b"later")), Ok(known.clone()));
    // The largest size that can be said stands for all that are larger.
    let sized = |size| with(RtcDescription { packet_size: size, ..rtc() });
    assert_eq!(extended(&[10 << 3, 0xff, 0xff, 0xff, 0x0f]), Ok(sized(Some(u16::MAX))));
    assert_eq!(extended(&[10 << 3, 0]), Ok(sized(None)));
    // A candidate of a later kind, of whatever length.
    assert_eq!(extended(&field(9, b"\x09 of another kind")), Ok(known));
    let mut message = encode(&offer(48)).unwrap();
    message.extend(field(14, b"beside a known kind"));
    assert_eq!(decode(&message), Ok(offer(48)));
    for unknown in [&[][..], &field(14, b"alone")] {
        assert_eq!(decode(unknown), Err(Malformed("unknown kind")));
    }
}

#[test]
fn addresses_that_nobody_can_be_reached_at_are_left_out() {
    let refused = [
        "0.0.0.0:9",
        "0.1.2.3:9",
        "127.0.0.1:9",
        "127.255.0.1:9",
        "224.0.0.251:9",
        "255.255.255.255:9",
        "192.0.2.1:0",
        "[::]:9",
        "[::1]:9",
        "[::ffff:127.0.0.1]:9",
        "[::ffff:192.0.2.1]:9",
        "[::192.0.2.1]:9",
        "[ff02::fb]:9",
        "[2001:db8::1]:0",
    ];
    let taken = ["10.0.0.1:9", "169.254.0.1:9", "[fe80::1]:9", "[fd00::1]:9"];
    let list = |addresses: &[&str]| -> Vec<Candidate> {
        addresses
            .iter()
            .map(|address| Candidate {
                kind: CandidateKind::Host,
                priority: 1,
                address: address.parse().unwrap(),
            })
            .collect()
    };
    let candidates = [list(&refused), list(&taken)].concat();
    let sent = with(RtcDescription { candidates, ..rtc() });
    let received = decode_description(&encode_description(&sent).unwrap()).unwrap();
    assert_eq!(received.rtc.unwrap().candidates, list(&taken));
    // A peer that sends them all the same gains nothing.
    for candidate in list(&refused) {
        let mut bytes = vec![1, 0, 0, 0, 1];
        match candidate.address.ip() {
            std::net::IpAddr::V4(v4) => bytes.extend(v4.octets()),
            std::net::IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
        bytes.extend(candidate.address.port().to_be_bytes());
        assert_eq!(read_candidates(&[bytes]), Ok(vec![]), "{candidate:?}");
    }
}

#[test]
fn restarts_need_credentials_and_a_mac_and_only_they_have_them() {
    assert!(encode(&Message::Candidates(restart())).is_ok());
    let broken: [fn(&mut Candidates); 5] = [
        |batch| batch.generation = 0,
        |batch| batch.credentials = None,
        |batch| batch.mac = None,
        |batch| {
            batch.credentials =
                Some(IceCredentials { ufrag: "a b c d".into(), pwd: "x".repeat(22) });
        },
        |batch| batch.candidates = vec![batch.candidates[0]; MAX_CANDIDATES + 1],
    ];
    for change in broken {
        let mut batch = restart();
        change(&mut batch);
        assert!(encode(&Message::Candidates(batch.clone())).is_err(), "{batch:?}");
    }
}

#[test]
fn a_restart_mac_covers_every_part_and_its_bounds() {
    let input = restart().mac_input();
    let mut moved = restart();
    let ice = moved.credentials.as_mut().unwrap();
    let last = ice.ufrag.pop().unwrap();
    ice.pwd.insert(0, last);
    assert_ne!(moved.mac_input(), input);
    let mut next = restart();
    next.generation = 2;
    assert_ne!(next.mac_input(), input);
    let mut other = restart();
    other.session.0[15] ^= 1;
    assert_ne!(other.mac_input(), input);
}

#[test]
fn a_description_without_a_channel_is_all_or_nothing() {
    let bare = Description { rtc: None, ..description() };
    let bytes = encode_description(&bare).unwrap();
    assert_eq!(decode_description(&bytes), Ok(bare.clone()));
    for part in [field(1, b"abcd"), field(9, &[9]), vec![5 << 3, 1], vec![6 << 3, 0x80, 0x80, 4]] {
        let bytes = [bytes.clone(), part].concat();
        assert!(decode_description(&bytes).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn what_goes_by_a_relay_has_no_candidates_and_goes_by_no_second_one() {
    let relayed = |inner| Message::Relayed(Box::new(inner));
    let offered = relayed(offer(48));
    assert_eq!(decode(&encode(&offered).unwrap()), Ok(offered.clone()));
    for inner in [offered, Message::Candidates(restart()), offer(MIN_NOISE - 1)] {
        assert!(encode(&relayed(inner)).is_err());
    }
    // As a peer could write them: a known number with an unknown kind in it.
    let batch = encode(&Message::Candidates(restart())).unwrap();
    for inner in [batch, field(6, &[]), Vec::new()] {
        assert_eq!(decode(&field(6, &inner)), Err(Malformed("unknown kind")));
    }
}

#[test]
fn noise_messages_have_limits() {
    for length in [0, MIN_NOISE - 1, MAX_NOISE + 1] {
        assert!(encode(&offer(length)).is_err(), "{length}");
    }
    for length in [MIN_NOISE, MAX_NOISE] {
        assert_eq!(decode(&encode(&offer(length)).unwrap()), Ok(offer(length)));
    }
}

#[test]
fn ids_have_exactly_16_bytes() {
    for length in [0, 15, 17] {
        let hello = [field(1, &vec![1; length]), field(2, &[2; 16])].concat();
        assert!(decode(&field(1, &hello)).is_err(), "{length}");
        let bye = [field(1, &[1; 16]), field(2, &vec![2; length])].concat();
        assert!(decode(&field(5, &bye)).is_err(), "{length}");
    }
    let odd_echo = [field(1, &[1; 16]), field(2, &[2; 8])].concat();
    assert_eq!(decode(&field(1, &odd_echo)), Err(Malformed("the echo is not 16 bytes")));
}

#[test]
fn every_role_has_a_number() {
    for role in [DtlsRole::ActPass, DtlsRole::Active, DtlsRole::Passive] {
        let sent = with(RtcDescription { role, ..rtc() });
        assert_eq!(decode_description(&encode_description(&sent).unwrap()), Ok(sent));
    }
}

proptest! {
    #[test]
    fn every_message_survives_the_round_trip(message in any_message()) {
        prop_assert_eq!(decode(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn every_description_survives_the_round_trip(description in any_description()) {
        let bytes = encode_description(&description).unwrap();
        prop_assert_eq!(decode_description(&bytes), Ok(description));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        // What is taken must be sendable again: the rules are the same both ways.
        if let Ok(message) = decode(&bytes) {
            prop_assert!(encode(&message).is_ok());
        }
        if let Ok(description) = decode_description(&bytes) {
            prop_assert!(encode_description(&description).is_ok());
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        message in any_message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&message).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(message) = decode(&bytes) {
            prop_assert!(encode(&message).is_ok());
        }
    }
}
