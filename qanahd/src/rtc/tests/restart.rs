//! ICE restarts and dead paths.

use super::*;

#[test]
fn ice_restarts_from_either_side_and_again() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        let mut before = lab.sides[0].pair;
        for (round, from) in [(1, 0), (2, 1), (3, 1), (4, 0)] {
            restart(&mut lab, from).await;
            lab.until_reconnected(round + 1).await;
            assert_ne!(lab.sides[0].pair, before, "no new sockets");
            before = lab.sides[0].pair;
            lab.exchange(5000).await;
            assert_eq!(lab.sides[0].connection().generation(), round);
            assert_eq!(lab.sides[1].connection().generation(), round);
        }
        assert!(lab.sides.iter().all(|side| side.closed.is_none()));
        lab.close().await;
    });
}

#[test]
fn ice_restarts_that_both_begin_at_once() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        for round in 1..=3 {
            let (one, mine) = lab.sides[0].connection().restart_ice().await.unwrap();
            let (two, theirs) = lab.sides[1].connection().restart_ice().await.unwrap();
            assert_eq!((one, two), (round, round));
            let [a, b] = &lab.sides;
            let first = a.connection().remote_restart(two, &theirs).await.unwrap();
            let second = b.connection().remote_restart(one, &mine).await.unwrap();
            assert_eq!((first, second), (Restart::Complete, Restart::Complete));
            for side in &mut lab.sides {
                release(side).await;
            }
            lab.until_reconnected(round + 1).await;
            lab.exchange(5000).await;
        }
        lab.close().await;
    });
}

/// Our restart got lost on the way, and the other side is two further.
#[test]
fn ice_restart_that_is_overtaken() {
    in_namespace(|| async {
        let mut lab = Lab::open(&settings(&[A4]), &settings(&[B4])).await;
        lab.sides[0].connection().restart_ice().await.unwrap();
        lab.sides[1].connection().restart_ice().await.unwrap();
        restart(&mut lab, 1).await;
        lab.until_reconnected(2).await;
        lab.exchange(100).await;
        let stale = lab.sides[0].connection().restart_ice().await.unwrap();
        let old = lab.sides[1].connection().remote_restart(1, &stale.1).await;
        assert!(matches!(old, Err(RtcError::Generation(1))));
        lab.close().await;
    });
}

#[test]
fn a_dead_path_is_seen_in_time_and_another_found() {
    in_namespace(|| async {
        // The limits hold for a patient side too.
        let patient = Settings { patience: Duration::from_secs(3600), ..settings(&[B4]) };
        let mut lab = Lab::open(&settings(&[A4]), &patient).await;
        lab.exchange(100).await;
        let begin = Instant::now();
        remove_address(B4).await;
        for side in &mut lab.sides {
            side.channel().sender.try_send(BytesMut::from(&b"on the way"[..])).unwrap();
        }
        lab.until("disconnected", Duration::from_secs(9), |sides| {
            sides.iter().all(|side| side.disconnected)
        })
        .await;
        println!("disconnected after {:?}", begin.elapsed());
        lab.until("failed", Duration::from_secs(15), |sides| sides.iter().all(|side| side.failed))
            .await;
        println!("failed after {:?}", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(15));
        // The machine got another address instead.
        lab.sides[1].connection().set_local_addresses(&[ip(B6)]);
        lab.sides[0].connection().set_local_addresses(&[ip(A4), ip(A6)]);
        restart(&mut lab, 1).await;
        lab.until_reconnected(2).await;
        // What was on the way arrives too: the channel is reliable.
        let begin = Instant::now();
        for side in &mut lab.sides {
            let late = side.channel().receiver.recv();
            let late = tokio::time::timeout(Duration::from_secs(10), late).await;
            assert_eq!(late.expect("lost for good").unwrap(), b"on the way"[..]);
        }
        println!("frames flow again {:?} after the path", begin.elapsed());
        lab.exchange(5000).await;
        assert_eq!(lab.sides[0].pair.unwrap().1.address.ip(), ip(B6));
        lab.close().await;
    });
}

/// A fixed port is free again when an ICE restart binds it anew.
#[test]
fn keeps_its_port_over_an_ice_restart() {
    in_namespace(|| async {
        let offerer = Settings { port: Some(Port::new(4500)), ..settings(&[A4, A6]) };
        let mut lab = Lab::open(&offerer, &settings(&[B4, B6])).await;
        restart(&mut lab, 0).await;
        lab.until_reconnected(2).await;
        lab.exchange(1400).await;
        assert!(lab.sides[0].candidates.len() >= 4);
        assert!(lab.sides[0].candidates.iter().all(|one| one.address.port() == 4500));
        lab.close().await;
    });
}
