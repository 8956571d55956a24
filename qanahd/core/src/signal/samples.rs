//! Values that tests share.

use proptest::prelude::*;

use super::{
    Answer, Bye, Candidate, CandidateKind, Candidates, Capabilities, Challenge, Description,
    DtlsRole, Hello, IceCredentials, Message, Offer, RtcDescription, SessionId,
};

/// A description as a machine on a LAN behind a NAT would make it.
pub(crate) fn description() -> Description {
    Description {
        index: 0x0102_0304,
        capabilities: Capabilities {
            max_frame: 65_535,
            max_packets: 64,
            tcp_segments: true,
            ..Capabilities::default()
        },
        rtc: Some(rtc()),
    }
}

/// The part of it that WebRTC is interested in.
pub(crate) fn rtc() -> RtcDescription {
    let candidate = |kind, priority, address: &str| Candidate {
        kind,
        priority,
        address: address.parse().unwrap(),
    };
    RtcDescription {
        ice: IceCredentials { ufrag: "xJ4n+Q2a".into(), pwd: "bT7/kQmZ0aWcE5xVhL9uR3yD".into() },
        fingerprint: [0xa5; 32],
        role: DtlsRole::ActPass,
        sctp_port: 5000,
        max_message_size: 262_144,
        packet_size: None,
        candidates: vec![
            candidate(CandidateKind::Host, 2_130_706_431, "192.0.2.10:49152"),
            candidate(CandidateKind::Host, 2_130_706_175, "[2001:db8::10]:49153"),
            candidate(CandidateKind::ServerReflexive, 1_694_498_815, "198.51.100.7:61000"),
        ],
    }
}

fn ice() -> impl Strategy<Value = IceCredentials> {
    ("[a-zA-Z0-9+/]{4,32}", "[a-zA-Z0-9+/]{22,64}")
        .prop_map(|(ufrag, pwd)| IceCredentials { ufrag, pwd })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
    ];
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::ServerReflexive),
        Just(CandidateKind::PeerReflexive),
        Just(CandidateKind::Relayed),
    ];
    (kind, any::<u32>(), address, any::<u16>())
        .prop_map(|(kind, priority, ip, port)| Candidate {
            kind,
            priority,
            address: (ip, port).into(),
        })
        .prop_filter("usable", Candidate::is_usable)
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    (any::<u32>(), any::<u16>(), any::<[bool; 8]>()).prop_map(|(max_frame, max_packets, flags)| {
        let [tcp_segments, udp_segments, datagrams, relay, rekey, mesh_signaling, lazy, path_mtu] =
            flags;
        Capabilities {
            max_frame,
            max_packets,
            tcp_segments,
            udp_segments,
            datagrams,
            relay,
            rekey,
            mesh_signaling,
            lazy,
            path_mtu,
        }
    })
}

/// Any description that may be sent.
pub(crate) fn any_description() -> impl Strategy<Value = Description> {
    (any::<u32>(), capabilities(), prop::option::of(any_rtc()))
        .prop_map(|(index, capabilities, rtc)| Description { index, capabilities, rtc })
}

fn any_rtc() -> impl Strategy<Value = RtcDescription> {
    let role =
        prop_oneof![Just(DtlsRole::ActPass), Just(DtlsRole::Active), Just(DtlsRole::Passive)];
    (
        ice(),
        any::<[u8; 32]>(),
        role,
        1..=u16::MAX,
        1312..=u32::MAX,
        prop::option::of(1..=u16::MAX),
        prop::collection::vec(candidate(), 0..=32),
    )
        .prop_map(
            |(ice, fingerprint, role, sctp_port, max_message_size, packet_size, candidates)| {
                RtcDescription {
                    ice,
                    fingerprint,
                    role,
                    sctp_port,
                    max_message_size,
                    packet_size,
                    candidates,
                }
            },
        )
}

fn challenge() -> impl Strategy<Value = Challenge> {
    any::<[u8; 16]>().prop_map(Challenge)
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

fn batch() -> impl Strategy<Value = Candidates> {
    let restart = prop::option::of((1..=u32::MAX, ice(), any::<[u8; 16]>()));
    let list = prop::collection::vec(candidate(), 0..=32);
    (session(), restart, list, any::<bool>()).prop_map(|(session, restart, candidates, end)| {
        let (generation, credentials, mac) = match restart {
            Some((generation, ice, mac)) => (generation, Some(ice), Some(mac)),
            None => (0, None, None),
        };
        Candidates { session, generation, credentials, candidates, end, mac }
    })
}

/// Any message that may be sent to an inbox.
pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    let relayed = any_direct_message()
        .prop_filter("of a session by a relay", |it| !matches!(it, Message::Candidates(_)))
        .prop_map(|inner| Message::Relayed(Box::new(inner)));
    prop_oneof![3 => any_direct_message(), 1 => relayed]
}

fn any_direct_message() -> impl Strategy<Value = Message> {
    let noise = || prop::collection::vec(any::<u8>(), 48..=2048);
    let hello = (challenge(), prop::option::of(challenge()), prop::option::of(session()));
    prop_oneof![
        hello.prop_map(|(challenge, echo, session)| Message::Hello(Hello {
            challenge,
            echo,
            session
        })),
        (session(), challenge(), noise()).prop_map(|(session, echo, noise)| {
            Message::Offer(Offer { session, echo: Some(echo), lifetime: None, noise })
        }),
        (session(), noise())
            .prop_map(|(session, noise)| Message::Answer(Answer { session, noise })),
        batch().prop_map(Message::Candidates),
        (session(), any::<[u8; 16]>())
            .prop_map(|(session, mac)| Message::Bye(Bye { session, mac })),
    ]
}
