//! Connecting, sending and closing.

use super::*;

#[test]
fn connects_and_carries_frames_of_all_sizes_over_ipv4() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        for size in [1, 100, 1200, 1400, 16 * 1024, 64 * 1024, 256 * 1024] {
            lab.exchange(size).await;
        }
        let (local, remote) = lab.sides[0].connection().selected_pair().await.unwrap();
        assert_eq!(local.address.ip(), ip(A4));
        assert_eq!(remote.address.ip(), ip(B4));
        assert_eq!(local.kind, CandidateKind::Host);
        let oversize = BytesMut::zeroed(256 * 1024 + 1);
        assert_eq!(lab.sides[0].channel().sender.try_send(oversize), Err(SendError::TooLarge));
        lab.exchange(100).await;
        lab.close().await;
    });
}

#[test]
fn connects_over_ipv6() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A6]), &settings(&[B6])).await;
        lab.exchange(1200).await;
        let (local, remote) = lab.sides[1].pair.unwrap();
        assert_eq!((local.address.ip(), remote.address.ip()), (ip(B6), ip(A6)));
        lab.close().await;
    });
}

#[test]
fn many_frames_arrive_each_once() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        let sender = lab.sides[0].channel().sender.clone();
        let count: usize = 20_000;
        let sending = tokio::spawn(async move {
            let mut refused = 0_u32;
            for number in 0..count {
                let mut frame = BytesMut::zeroed(1300);
                frame[..8].copy_from_slice(&number.to_be_bytes());
                while let Err(error) = sender.try_send(frame.clone()) {
                    assert_eq!(error, SendError::Full);
                    refused += 1;
                    tokio::task::yield_now().await;
                }
            }
            refused
        });
        let mut seen = vec![false; count];
        for _ in 0..count {
            let frame = lab.sides[1].channel().receiver.recv().await.unwrap();
            let number = usize::from_be_bytes(frame[..8].try_into().unwrap());
            assert!(!std::mem::replace(&mut seen[number], true), "twice: {number}");
        }
        assert!(seen.iter().all(|seen| *seen));
        assert!(sending.await.unwrap() > 0, "the send buffer was never full");
        lab.close().await;
    });
}

#[test]
fn a_full_channel_refuses_at_once_and_keeps_little() {
    in_namespace(|| async {
        let limit = 64 * 1024;
        let settings_a = Settings { send_buffer: limit, ..settings(&[A4]) };
        let mut lab = Lab::open(&settings_a, &settings(&[B4])).await;
        let sender = lab.sides[0].channel().sender.clone();
        let mut taken = 0;
        while sender.try_send(BytesMut::zeroed(1000)).is_ok() {
            taken += 1000;
            assert!(taken <= limit, "no limit");
        }
        assert_eq!(sender.try_send(BytesMut::zeroed(1000)), Err(SendError::Full));
        assert!(sender.outstanding_bytes().unwrap() <= limit);
        // And all that was taken arrives.
        for _ in 0..taken / 1000 {
            assert!(lab.sides[1].channel().receiver.recv().await.is_some());
        }
        lab.close().await;
    });
}

#[test]
fn refuses_to_gather_from_no_address_or_from_all() {
    in_namespace(|| async {
        for addresses in [&[][..], &["0.0.0.0", "::"]] {
            let result = Connection::offer(&settings(addresses), Arc::new(|_| {})).await;
            assert!(matches!(result, Err(RtcError::NoAddresses)));
        }
    });
}

/// Neither the DTLS server (the offerer) nor the client talks to another certificate.
#[test]
fn another_fingerprint_does_not_connect() {
    in_namespace(|| async {
        for wrong in [0, 1] {
            let tamper = |side: usize, description: &mut RtcDescription| {
                description.fingerprint[7] ^= u8::from(side == wrong);
            };
            let mut lab = Lab::with(&settings(&[A4]), &settings(&[B4]), tamper).await;
            lab.until("given up", Duration::from_secs(20), |sides| {
                sides.iter().all(|side| side.closed.is_some())
            })
            .await;
            assert!(lab.sides.iter().all(|side| side.connected == 1));
            assert!(lab.sides.iter().all(|side| side.channel.is_none()));
            lab.close().await;
        }
    });
}

#[test]
fn the_other_side_learns_of_a_close_at_once() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        let mut channel = lab.sides[1].channel.take().unwrap();
        let begin = Instant::now();
        lab.sides[0].connection.take().unwrap().close().await;
        assert!(begin.elapsed() < Duration::from_secs(1));
        let end = tokio::time::timeout(Duration::from_secs(2), channel.receiver.recv()).await;
        assert!(end.expect("the close is not seen").is_none());
        lab.until("closed", Duration::from_secs(2), |sides| sides[1].closed.is_some()).await;
        assert_eq!(channel.sender.try_send(BytesMut::zeroed(1)), Err(SendError::Closed));
        println!("the other side: {:?}", lab.sides[1].closed);
        assert!(lab.sides[0].closed.is_none(), "we closed it, nobody need tell us");
        lab.sides[1].connection.take().unwrap().close().await;
    });
}

fn open_files() -> usize {
    // Of this thread's process; tests run side by side, so only UDP sockets in our own namespace count.
    let table = |name: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap().lines().count()
            - 1
    };
    table("udp") + table("udp6")
}

#[test]
fn a_hundred_connections_leave_no_sockets_and_no_tasks() {
    in_namespace(|| async {
        let both = |a, b| (settings(&[a, A6]), settings(&[b, B6]));
        let (a, b) = both(A4, B4);
        let metrics = tokio::runtime::Handle::current().metrics();
        let tasks = metrics.num_alive_tasks();
        for round in 0..50 {
            let mut lab = Lab::open(&a, &b).await;
            if round % 10 == 0 {
                assert_eq!(open_files(), 4);
                lab.exchange(100).await;
            }
            if round % 2 == 0 {
                lab.close().await;
            } else {
                drop(lab);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while metrics.num_alive_tasks() > tasks || open_files() > 0 {
            assert!(
                Instant::now() < deadline,
                "{} tasks of {tasks}, {} sockets",
                metrics.num_alive_tasks(),
                open_files()
            );
            tokio::task::yield_now().await;
        }
    });
}

/// Neither another label nor a second channel of the right one is taken, from either side; too many end it.
#[test]
fn channels_that_nobody_asked_for_are_refused_and_limited() {
    in_namespace(|| async {
        for from in [0, 1] {
            let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
            let mut opened = Vec::new();
            for label in ["other", CHANNEL_LABEL] {
                let peer = lab.sides[from].connection().peer();
                let channel = peer.create_data_channel(label, None).await.unwrap();
                // It opens, and the other side closes it.
                let end = tokio::time::timeout(Duration::from_secs(10), async {
                    while let Some(event) = channel.poll().await {
                        if matches!(event, webrtc::data_channel::DataChannelEvent::OnClose) {
                            break;
                        }
                    }
                });
                end.await.expect("a stray channel stays open");
                opened.push(channel);
            }
            lab.exchange(1000).await;
            let first = lab.sides[1 - from].channel.take();
            assert!(lab.sides.iter().all(|side| side.closed.is_none()));
            for _ in 0..20 {
                let peer = lab.sides[from].connection().peer();
                opened.push(peer.create_data_channel("flood", None).await.unwrap());
            }
            lab.until("thrown out", Duration::from_secs(10), |sides| {
                sides[1 - from].closed.is_some()
            })
            .await;
            assert!(lab.sides[1 - from].channel.is_none(), "a second channel was reported");
            drop(first);
            lab.close().await;
        }
    });
}

/// As with an answer that is carried by hand.
#[test]
fn a_patient_answerer_waits_for_its_answer_to_arrive() {
    in_namespace(|| async {
        let (sender, mut events) = mpsc::unbounded_channel();
        let sink = |side: usize| -> EventSink {
            let sender = sender.clone();
            Arc::new(move |event| {
                let _ = sender.send((side, event));
            })
        };
        let patient = Settings { patience: Duration::from_secs(3600), ..settings(&[B4]) };
        let (a, offer) = Connection::offer(&settings(&[A4]), sink(0)).await.unwrap();
        let (b, answer) = Connection::answer(&patient, &offer, sink(1)).await.unwrap();
        let mut candidates = Vec::new();
        let wait = tokio::time::sleep(Duration::from_secs(14));
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                event = events.recv() => match event.unwrap() {
                    (side, RtcEvent::LocalCandidate { candidate, .. }) => candidates.push((side, candidate)),
                    (_, RtcEvent::GatheringDone { .. }) => {}
                    _ => panic!("nothing else may happen yet"),
                }
            }
        }
        let of = |side| candidates.iter().filter(move |one| one.0 == side).map(|one| one.1);
        b.add_candidates(0, &of(0).collect::<Vec<_>>()).await.unwrap();
        let mut answer = answer;
        answer.candidates = of(1).collect();
        a.accept_answer(&answer).await.unwrap();
        let mut open = 0;
        while open < 2 {
            let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
            if let (_, RtcEvent::ChannelOpen(_)) = event.expect("it does not open").unwrap() {
                open += 1;
            }
        }
    });
}

/// ICE took the address of a TURN server for that of the peer. Its word comes late, but it comes.
#[test]
fn a_path_is_judged_again_when_its_candidate_is_told() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        let address = lab.sides[0].pair.unwrap().1.address;
        assert_eq!(lab.sides[0].connected, 1);
        for (kind, times) in [(CandidateKind::ServerReflexive, 1), (CandidateKind::Relayed, 2)] {
            let told = Candidate { kind, priority: 1, address };
            lab.sides[0].connection().add_candidates(0, &[told]).await.unwrap();
            lab.until("the path is reported", Duration::from_secs(5), |sides| {
                sides[0].connected == times
            })
            .await;
        }
        assert_eq!(lab.sides[0].pair.unwrap().1.kind, CandidateKind::Relayed);
        lab.exchange(100).await;
        lab.close().await;
    });
}
