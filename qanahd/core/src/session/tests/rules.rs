//! The rules of PROTOCOL.md, one by one.

use std::time::Duration;

use super::super::limits::{PATH_DEAD, RENEW_AFTER, RETIRE_AFTER};
use super::super::*;
use super::world::{Faults, World};
use crate::signal::{Bye, Challenge, Hello};

fn connected() -> World {
    let mut world = World::new(7, Faults::none());
    world.start();
    world.run(2);
    world.assert_one_session("calm start");
    world
}

/// Two peers that cannot rekey.
fn connected_plain() -> World {
    let mut world = World::with(7, Faults::none(), None);
    world.start();
    world.run(2);
    world.assert_one_session("calm start");
    world
}

#[test]
fn the_greater_key_offers_and_one_offer_is_enough() {
    let world = connected();
    assert_eq!((world.nodes[0].offers, world.nodes[1].offers), (1, 0));
}

#[test]
fn a_late_second_start_connects_at_once() {
    for first in 0..2 {
        let mut world = World::new(11, Faults::none());
        let now = world.now;
        world.nodes[first].machine.signaling_up(now);
        // Nobody hears the first hellos: the other one does not run yet.
        while world.nodes[first].machine.poll_output().is_some() {}
        let now = world.now;
        world.nodes[1 - first].machine.signaling_up(now);
        world.settle(1 - first);
        world.run(1);
        world.assert_one_session("second start");
    }
}

#[test]
fn replayed_messages_change_nothing_and_cost_little() {
    let mut world = connected();
    let session = world.nodes[0].active;
    let recorded: [Vec<Message>; 2] = [0, 1].map(|at: usize| world.nodes[at].sent.clone());
    let before: Vec<usize> = world.nodes.iter().map(|node| node.sent.len()).collect();
    let offers = world.nodes[0].offers;
    let now = world.now;
    for _ in 0..100 {
        for at in 0..2 {
            for message in &recorded[1 - at] {
                world.nodes[at].machine.message(now, message.clone());
                world.settle(at);
            }
        }
    }
    world.run(1);
    assert_eq!(world.nodes[0].offers, offers, "a replay made an offer");
    assert_eq!(world.nodes[0].active, session, "a replay replaced the session");
    world.assert_one_session("after replays");
    for (at, count) in before.into_iter().enumerate() {
        let more = world.nodes[at].sent.len() - count;
        assert!(more <= 12, "node {at} sent {more} messages for hundreds of replays");
    }
}

#[test]
fn a_replay_costs_a_restarted_peer_one_hello() {
    let mut world = connected();
    let recorded = world.nodes[1].sent.clone();
    world.restart(0);
    let (now, before) = (world.now, world.nodes[0].sent.len());
    for message in recorded {
        world.nodes[0].machine.message(now, message);
    }
    let mut sent = 0;
    while let Some(output) = world.nodes[0].machine.poll_output() {
        assert!(!matches!(output, Output::Rtc(..)), "a replay made {output:?}");
        sent += usize::from(matches!(output, Output::Send(Message::Hello(_))));
    }
    assert!(sent <= 3, "{sent} hellos; {before} before");
}

#[test]
fn an_offer_that_echoes_an_old_challenge_is_refused() {
    let mut world = connected();
    let Some(mut offer) = world.nodes[0].sent.iter().find_map(|message| match message {
        Message::Offer(offer) => Some(offer.clone()),
        _ => None,
    }) else {
        panic!("no offer was sent")
    };
    offer.session = SessionId([9; 16]);
    offer.echo = Some(Challenge([9; 16]));
    let now = world.now;
    let refused = world.nodes[1].machine.refused();
    world.nodes[1].machine.message(now, Message::Offer(offer));
    assert!(world.nodes[1].machine.poll_output().is_none());
    assert_eq!(world.nodes[1].machine.refused(), refused + 1);
}

#[test]
fn a_bye_without_proof_ends_nothing_and_a_genuine_one_does() {
    let mut world = connected();
    let Some(session) = world.nodes[0].active else { panic!("not connected") };
    let now = world.now;
    let forged = Message::Bye(Bye { session, mac: [0; 16] });
    world.nodes[1].machine.message(now, forged);
    world.settle(1);
    world.assert_one_session("after a forged bye");
    world.nodes[0].machine.stop();
    world.settle(0);
    world.run(1);
    assert_eq!(world.nodes[1].active, None);
}

#[test]
fn a_restarted_peer_is_connected_again_and_the_old_session_serves_until_then() {
    let mut world = connected();
    let old = world.nodes[1].active;
    world.restart(0);
    assert_eq!(world.nodes[1].active, old, "make before break");
    world.run(2);
    world.assert_one_session("after a restart");
    assert_ne!(world.nodes[1].active, old);
}

#[test]
fn without_rekey_sessions_are_replaced_before_their_keys_are_too_old() {
    let mut world = connected_plain();
    let first = world.nodes[0].active;
    for at in 0..2 {
        world.nodes[at].events.clear();
    }
    for _ in 0..400 {
        world.run(1);
        assert!(world.nodes.iter().all(|node| node.active.is_some()), "a gap");
    }
    assert_ne!(world.nodes[0].active, first);
    let age = world.nodes[0].machine.view().handshake_at.map(|at| world.now - at);
    assert!(age.is_some_and(|age| age <= RENEW_AFTER + Duration::from_secs(10)));
    let gaps = world.nodes.iter().flat_map(|node| &node.events);
    assert!(gaps.clone().all(|event| matches!(event, Event::Connected { replaced: true, .. })));
    assert_eq!(gaps.count(), 6, "three renewals in 400 s, seen by both");
}

#[test]
fn no_key_outlives_its_time_when_signaling_is_gone() {
    let mut world = connected_plain();
    for node in &mut world.nodes {
        node.machine.signaling_down();
    }
    world.run(181);
    assert!(world.nodes.iter().all(|node| node.active.is_none()));
    let now = world.now;
    for at in 0..2 {
        world.nodes[at].machine.signaling_up(now);
        world.settle(at);
    }
    world.run(3);
    world.assert_one_session("the broker came back");
}

#[test]
fn a_dead_path_is_seen_restarted_and_replaced() {
    let mut world = connected();
    let old = world.nodes[0].active;
    world.path = false;
    world.run(PATH_DEAD.as_secs() + 3);
    for node in &world.nodes {
        assert_eq!(node.machine.view().phase, Phase::Recovering);
        assert!(node.events.contains(&Event::PathLost));
        assert_eq!(node.active, old, "the old session serves until a new one has opened a frame");
    }
    let restarts = world.nodes[0].sent.iter().filter(|message| {
        matches!(message, Message::Candidates(it) if it.generation == 1 && it.mac.is_some())
    });
    assert_eq!(restarts.count(), 1, "one ICE restart");
    world.path = true;
    world.run(10);
    world.assert_one_session("the path is back");
    world.run(RETIRE_AFTER.as_secs());
    world.assert_one_session("the old session is gone");
}

#[test]
fn an_ice_restart_that_the_peer_did_not_prove_is_refused() {
    let mut world = connected();
    let Some(session) = world.nodes[0].active else { panic!("not connected") };
    let forged = Message::Candidates(crate::signal::Candidates {
        session,
        generation: 1,
        credentials: Some(super::world::description().ice),
        candidates: Vec::new(),
        end: false,
        mac: Some([1; 16]),
    });
    let now = world.now;
    world.nodes[1].machine.message(now, forged);
    assert!(world.nodes[1].machine.poll_output().is_none());
}

#[test]
fn a_path_whose_address_is_gone_is_replaced_at_once() {
    let mut world = connected();
    let now = world.now;
    world.nodes[1].machine.network_changed(now, false);
    assert!(world.nodes[1].machine.poll_output().is_none(), "the path does not care");
    world.path = false;
    world.nodes[1].machine.network_changed(now, true);
    world.settle(1);
    world.run(1);
    let restarted =
        |message: &Message| matches!(message, Message::Candidates(it) if it.generation == 1);
    assert!(world.nodes[1].sent.iter().any(restarted), "without waiting for a timeout");
    world.path = true;
    world.run(20);
    world.assert_one_session("after the change");
}

#[test]
fn candidates_beyond_the_limit_are_ignored() {
    let mut world = connected();
    let Some(session) = world.nodes[0].active else { panic!("not connected") };
    let mut taken = 0;
    for round in 0..20_u8 {
        let candidates = (0..32_u8).map(|port| crate::signal::Candidate {
            kind: crate::signal::CandidateKind::Host,
            priority: 1,
            address: ([192, 0, 2, round], u16::from(port) + 1).into(),
        });
        let message = crate::signal::Candidates {
            session,
            generation: 0,
            credentials: None,
            candidates: candidates.collect(),
            end: false,
            mac: None,
        };
        let now = world.now;
        world.nodes[1].machine.message(now, Message::Candidates(message));
        while let Some(output) = world.nodes[1].machine.poll_output() {
            if let Output::Rtc(_, RtcCommand::AddCandidates { candidates, .. }) = output {
                taken += candidates.len();
            }
        }
    }
    assert_eq!(taken, 32);
}

#[test]
fn a_restart_that_failed_is_tried_again_and_an_endless_one_is_refused() {
    let mut world = connected();
    let Some(session) = world.nodes[0].active else { panic!("not connected") };
    let now = world.now;
    let begins = |world: &mut World| {
        world.nodes[0].machine.network_changed(now, true);
        let mut generations = Vec::new();
        while let Some(output) = world.nodes[0].machine.poll_output() {
            if let Output::Rtc(_, RtcCommand::BeginRestart { generation }) = output {
                generations.push(generation);
            }
        }
        generations
    };
    assert_eq!(begins(&mut world), [1]);
    world.nodes[0].machine.restart_failed(session, 1);
    world.nodes[0].machine.last_opened(session, now + Duration::from_secs(1));
    assert_eq!(begins(&mut world), [1], "the same generation once more");
}

#[test]
fn ice_that_has_failed_ends_an_attempt_at_once() {
    let mut world = World::new(5, Faults::none());
    world.path = false;
    world.start();
    world.run(1);
    let Some(session) = world.nodes[0].machine.pending.ids().first().copied() else {
        panic!("nothing is tried")
    };
    let now = world.now;
    world.nodes[0].machine.path_failed(now, session);
    assert!(world.nodes[0].machine.pending.ids().is_empty());
    world.settle(0);
    world.path = true;
    world.run(40);
    world.assert_one_session("the path is there");
}

#[test]
fn an_idle_pair_says_nothing_by_the_broker() {
    let mut world = connected();
    for node in &mut world.nodes {
        node.sent.clear();
    }
    world.run(100);
    assert!(world.nodes.iter().all(|node| node.sent.is_empty()));
}

#[test]
fn an_unknown_echo_gets_a_hello_that_echoes() {
    let mut world = World::new(3, Faults::none());
    let now = world.now;
    world.nodes[0].machine.signaling_up(now);
    while world.nodes[0].machine.poll_output().is_some() {}
    let challenge = Challenge([5; 16]);
    let hello = Hello { challenge, echo: Some(Challenge([6; 16])), session: None };
    world.nodes[0].machine.message(now, Message::Hello(hello));
    let Some(Output::Send(Message::Hello(reply))) = world.nodes[0].machine.poll_output() else {
        panic!("no hello came back")
    };
    assert_eq!(reply.echo, Some(challenge));
    assert!(world.nodes[0].machine.poll_output().is_none());
}
