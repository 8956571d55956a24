//! Pairing by hand: no broker, people carry the offer and the answer.

use std::time::Duration;

use rand_core::RngCore;

use super::super::limits::{GATHER_BY_HAND, HAND_LIFETIME, TAKE_BACK};
use super::super::*;
use super::world::{Faults, World};
use crate::key::PresharedKey;
use crate::signal::{Answer, Offer};

/// The latest offer that a node has made.
fn offer(world: &World, at: usize) -> Offer {
    let texts = world.nodes[at].texts.iter().rev();
    let mut offers = texts.filter_map(|(_, message)| match message {
        Message::Offer(offer) => Some(offer.clone()),
        _ => None,
    });
    offers.next().expect("an offer was made")
}

fn answer(world: &World, at: usize) -> Answer {
    let texts = world.nodes[at].texts.iter().rev();
    let mut answers = texts.filter_map(|(_, message)| match message {
        Message::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    answers.next().expect("an answer was made")
}

fn make_offer(world: &mut World, at: usize) -> Offer {
    let now = world.now;
    world.nodes[at].machine.offer_by_hand(now, HAND_LIFETIME);
    world.settle(at);
    world.run(1);
    offer(world, at)
}

fn make_answer(world: &mut World, at: usize, offer: &Offer) -> Result<Answer, HandError> {
    let now = world.now;
    world.nodes[at].machine.answer_by_hand(now, offer)?;
    world.settle(at);
    world.run(1);
    Ok(answer(world, at))
}

fn accept(world: &mut World, at: usize, answer: &Answer) -> Result<(), HandError> {
    let now = world.now;
    let outcome = world.nodes[at].machine.accept_by_hand(now, answer);
    world.settle(at);
    outcome
}

pub(super) fn pair(world: &mut World, offerer: usize) {
    let offer = make_offer(world, offerer);
    let answer = make_answer(world, 1 - offerer, &offer).unwrap();
    accept(world, offerer, &answer).unwrap();
    world.run(2);
}

#[test]
fn either_key_may_offer_and_nothing_is_said_by_a_broker() {
    for offerer in 0..2 {
        let mut world = World::new(21, Faults::none());
        pair(&mut world, offerer);
        world.assert_one_session("by hand");
        assert_eq!(world.nodes[offerer].offers, 1);
        assert_eq!(world.nodes[1 - offerer].offers, 0);
        assert!(world.nodes.iter().all(|node| node.sent.is_empty()));
    }
}

#[test]
fn a_text_is_ready_in_three_seconds_when_a_server_hangs() {
    let mut world = World::new(22, Faults::none());
    world.gathers = false;
    let begun = world.now;
    world.nodes[1].machine.offer_by_hand(begun, HAND_LIFETIME);
    world.settle(1);
    world.run(10);
    let offer = offer(&world, 1);
    let (made, _) = world.nodes[1].texts[0];
    assert!(made - begun <= GATHER_BY_HAND + Duration::from_millis(10), "{:?}", made - begun);
    assert_eq!((offer.echo, offer.lifetime), (None, Some(3600)));
}

#[test]
fn people_may_take_their_time() {
    let mut world = World::new(23, Faults::none());
    let offer = make_offer(&mut world, 0);
    world.run(1000);
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    // Ten times as long as any key lives: keys age from their first use.
    world.run(1800);
    accept(&mut world, 0, &answer).unwrap();
    world.run(2);
    world.assert_one_session("after half an hour");
    world.run(100);
    world.assert_one_session("and it lasts");
}

#[test]
fn an_offer_expires_by_the_offerers_clock() {
    let mut world = World::new(24, Faults::none());
    let offer = make_offer(&mut world, 0);
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    world.run(HAND_LIFETIME.as_secs() + 1);
    let error = accept(&mut world, 0, &answer).unwrap_err();
    assert_eq!(error, HandError::Ended(EndedOffer::Expired));
    // The answerer gives up a little later and holds nothing any more.
    world.run(60);
    for node in &world.nodes {
        assert!(node.machine.poll_timeout().is_none(), "something is left");
        assert_eq!(node.machine.view().phase, Phase::NoSignaling);
    }
}

#[test]
fn an_offer_is_answered_once_and_an_answer_accepted_once() {
    let mut world = World::new(25, Faults::none());
    let offer = make_offer(&mut world, 0);
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    assert_eq!(make_answer(&mut world, 1, &offer).unwrap_err(), HandError::Used);
    accept(&mut world, 0, &answer).unwrap();
    let again = accept(&mut world, 0, &answer).unwrap_err();
    assert_eq!(again, HandError::Ended(EndedOffer::Answered));
    world.run(2);
    world.assert_one_session("once");
    let again = accept(&mut world, 0, &answer).unwrap_err();
    assert_eq!(again, HandError::Ended(EndedOffer::Answered));
    assert_eq!(make_answer(&mut world, 1, &offer).unwrap_err(), HandError::Used);
}

#[test]
fn a_newer_offer_replaces_an_older_one() {
    let mut world = World::new(26, Faults::none());
    let old = make_offer(&mut world, 0);
    let answered = make_answer(&mut world, 1, &old).unwrap();
    let new = make_offer(&mut world, 0);
    let error = accept(&mut world, 0, &answered).unwrap_err();
    assert_eq!(error, HandError::Ended(EndedOffer::Replaced));
    let answer = make_answer(&mut world, 1, &new).unwrap();
    accept(&mut world, 0, &answer).unwrap();
    world.run(2);
    world.assert_one_session("by the newer one");
}

#[test]
fn a_forged_answer_does_not_end_the_offer() {
    let mut world = World::new(27, Faults::none());
    let offer = make_offer(&mut world, 0);
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    for at in [0, 40, answer.noise.len() - 1] {
        let mut forged = answer.clone();
        forged.noise[at] ^= 0x80;
        assert_eq!(accept(&mut world, 0, &forged).unwrap_err(), HandError::Forged);
    }
    let mut forged = offer.clone();
    forged.session = SessionId([1; 16]);
    assert_eq!(make_answer(&mut world, 1, &forged).unwrap_err(), HandError::Forged);
    let other = Answer { session: SessionId([1; 16]), ..answer.clone() };
    assert_eq!(accept(&mut world, 0, &other).unwrap_err(), HandError::Unknown);
    accept(&mut world, 0, &answer).unwrap();
    world.run(2);
    world.assert_one_session("the true answer");
}

#[test]
fn another_preshared_key_does_not_open_an_offer() {
    let mut world = World::new(28, Faults::none());
    let offer = make_offer(&mut world, 0);
    world.set_psk(1, PresharedKey::from_bytes([1; 32]));
    assert_eq!(make_answer(&mut world, 1, &offer).unwrap_err(), HandError::Forged);
}

#[test]
fn offers_and_answers_do_not_change_their_way() {
    let mut world = World::new(29, Faults::none());
    let offer = make_offer(&mut world, 0);
    let now = world.now;
    // As if a broker could bring it: there is no challenge in it.
    world.nodes[1].machine.message(now, Message::Offer(offer.clone()));
    assert!(world.nodes[1].machine.poll_output().is_none());
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    world.nodes[0].machine.message(now, Message::Answer(answer.clone()));
    assert!(world.nodes[0].machine.poll_output().is_none());
    assert_eq!(world.nodes[0].machine.refused(), 1);
    accept(&mut world, 0, &answer).unwrap();
}

#[test]
fn a_restart_voids_what_is_open() {
    let mut world = World::new(30, Faults::none());
    let offer = make_offer(&mut world, 0);
    let answer = make_answer(&mut world, 1, &offer).unwrap();
    world.restart_silently(0);
    assert_eq!(accept(&mut world, 0, &answer).unwrap_err(), HandError::Unknown);
    pair(&mut world, 0);
    world.assert_one_session("a new offer");
}

#[test]
fn both_may_offer_and_answer_each_other() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::none());
        let offers = [make_offer(&mut world, 0), make_offer(&mut world, 1)];
        let answers = [
            make_answer(&mut world, 0, &offers[1]).unwrap(),
            make_answer(&mut world, 1, &offers[0]).unwrap(),
        ];
        accept(&mut world, 0, &answers[1]).unwrap();
        accept(&mut world, 1, &answers[0]).unwrap();
        world.run(5);
        world.assert_one_session(&format!("seed {seed}"));
        let lower = offers[0].session.min(offers[1].session);
        assert_eq!(world.nodes[0].active, Some(lower), "the lower id stays");
    }
}

fn assert_no_gap(world: &World, seed: u64) {
    for node in &world.nodes {
        let lost = |event: &Event| matches!(event, Event::Disconnected { .. });
        assert!(!node.events.iter().any(lost), "seed {seed}: {:?}", node.events);
    }
}

/// Attempts by hand and by the broker, begun at random times and confirmed in any order.
#[test]
fn crossing_attempts_end_in_one_session() {
    for seed in 0..super::seeds() {
        let mut world = World::new(seed, Faults { lose: 0, repeat: 0, delay_ms: 800, frames: 0 });
        let mut random = world.random();
        let offerer = (random.next_u32() % 2) as usize;
        let offer = make_offer(&mut world, offerer);
        let answer = make_answer(&mut world, 1 - offerer, &offer).unwrap();
        world.start();
        world.run_ms(u64::from(random.next_u32() % 4000));
        accept(&mut world, offerer, &answer).unwrap();
        world.run(TAKE_BACK.as_secs() + 5);
        world.assert_one_session(&format!("seed {seed}"));
        assert_no_gap(&world, seed);
        world.run(60);
        world.assert_one_session(&format!("seed {seed}, later"));
    }
}

#[test]
fn a_working_session_serves_until_the_new_one_is_confirmed() {
    let mut world = World::new(31, Faults::none());
    pair(&mut world, 0);
    let first = world.nodes[0].active;
    let offer = make_offer(&mut world, 1);
    let answer = make_answer(&mut world, 0, &offer).unwrap();
    assert_eq!(world.nodes[0].active, first);
    accept(&mut world, 1, &answer).unwrap();
    world.run(2);
    world.assert_one_session("replaced");
    assert_eq!(world.nodes[0].active, Some(offer.session));
    assert_no_gap(&world, 31);
}

#[test]
fn a_path_that_comes_back_is_used_again_without_any_broker() {
    let mut world = World::new(32, Faults::none());
    pair(&mut world, 0);
    let session = world.nodes[0].active;
    world.path = false;
    world.run(50);
    for node in &world.nodes {
        assert_eq!(node.machine.view().phase, Phase::Recovering);
        assert!(node.sent.is_empty(), "nobody could hear of an ICE restart");
    }
    world.path = true;
    world.run(10);
    world.assert_one_session("the path is back");
    assert_eq!(world.nodes[0].active, session);
}

#[test]
fn memory_of_offers_is_bounded() {
    let mut world = World::new(33, Faults::none());
    for _ in 0..super::super::limits::HAND_REMEMBERED + 20 {
        let now = world.now;
        world.nodes[0].machine.offer_by_hand(now, HAND_LIFETIME);
        world.settle(0);
    }
    world.run(5);
    assert_eq!(world.nodes[0].texts.len(), 1, "one open offer");
    assert!(world.nodes[0].failed_texts.len() > 200);
}
