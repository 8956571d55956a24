//! Who may ask for what, and streams of changes.

use std::sync::Arc;

use futures_util::StreamExt;
use qanah_proto::v1::control_server::Control;
use qanah_proto::{connect, error_detail, v1};
use tonic::{Code, Request, Status};

use super::auth::DenialLog;
use super::connection::Peer;
use super::report::StatusReport;
use super::service::Service;
use super::tests::{Fake, soon, start_with, tunnel};
use super::*;

const MEMBER: Peer = Peer { uid: 1000, pid: Some(4711) };
const ROOT: Peer = Peer { uid: 0, pid: Some(1) };

fn service() -> (Service<Fake>, Arc<std::sync::Mutex<Vec<String>>>) {
    let fake = Fake::default();
    let asked = Arc::clone(&fake.asked);
    (Service::new(fake, Limits::default(), DenialLog::default()), asked)
}

fn by<T>(peer: Peer, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(peer);
    request
}

fn named(name: &str) -> Option<v1::ConfigSource> {
    Some(v1::ConfigSource { source: Some(v1::config_source::Source::Name(name.into())) })
}

fn text(name: &str) -> Option<v1::ConfigSource> {
    let text = v1::ConfigText { name: name.into(), text: b"[Interface]".to_vec() };
    Some(v1::ConfigSource { source: Some(v1::config_source::Source::Text(text)) })
}

fn options() -> Option<v1::TunnelOptions> {
    Some(v1::TunnelOptions { stun: vec!["stun:x".into()], ..Default::default() })
}

fn is_denied<T>(result: Result<T, Status>) -> bool {
    let Err(status) = result else { return false };
    status.code() == Code::PermissionDenied
        && error_detail(&status).unwrap().reason() == v1::Reason::RootOnly
}

#[tokio::test]
async fn members_name_tunnels_and_root_may_do_more() {
    let (service, asked) = service();
    let up =
        async |peer, config, options| service.up(by(peer, v1::UpRequest { config, options })).await;
    up(MEMBER, named("a"), None).await.unwrap();
    // A message without any option set asks for nothing.
    up(MEMBER, named("b"), Some(v1::TunnelOptions::default())).await.unwrap();
    assert!(is_denied(up(MEMBER, named("c"), options()).await));
    assert!(is_denied(up(MEMBER, text("d"), None).await));
    up(ROOT, named("e"), options()).await.unwrap();
    up(ROOT, text("f"), options()).await.unwrap();
    let check =
        async |peer, config| service.check(by(peer, v1::CheckRequest { config })).await.map(|_| ());
    check(MEMBER, named("g")).await.unwrap();
    assert!(is_denied(check(MEMBER, text("h")).await));
    check(ROOT, text("i")).await.unwrap();
    for peer in [MEMBER, ROOT] {
        service.down(by(peer, v1::DownRequest { tunnel: "j".into() })).await.unwrap();
        service.reload(by(peer, v1::ReloadRequest { tunnel: "k".into() })).await.unwrap();
    }
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "up a text=false options=false quotes=false",
            "up b text=false options=false quotes=false",
            "up e text=false options=true quotes=true",
            "up f text=true options=true quotes=true",
            "check g quotes=false",
            "check i quotes=true",
            "down j",
            "reload k quotes=false",
            "down j",
            "reload k quotes=true",
        ]
    );
}

#[tokio::test]
async fn a_caller_without_an_identity_gets_nothing_special() {
    let (service, asked) = service();
    let request = v1::UpRequest { config: text("a"), options: None };
    let status = service.up(Request::new(request)).await.unwrap_err();
    assert_eq!(error_detail(&status).unwrap().reason(), v1::Reason::NoIdentity);
    let status =
        service.watch(Request::new(v1::WatchRequest { tunnel: None })).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn denied_wishes_are_logged_with_who_and_what() {
    let name = "control::call_tests::denied_wishes_are_logged_with_who_and_what";
    if !crate::logging::testing::alone(name) {
        return;
    }
    let lines = crate::logging::testing::Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _set = tracing::subscriber::set_default(subscriber);
    let (service, _) = service();
    let request = v1::UpRequest { config: named("a"), options: options() };
    assert!(is_denied(service.up(by(MEMBER, request)).await));
    let logged = lines.text();
    assert!(logged.contains("uid=1000 pid=4711 method=\"Up\""), "{logged}");
    assert!(logged.contains("only root may give options"), "{logged}");
}

#[tokio::test]
async fn offers_are_bounded() {
    let (service, asked) = service();
    let offer = async |peer: Option<String>, lifetime_seconds| {
        let request = v1::OfferRequest { tunnel: "t".into(), peer, lifetime_seconds };
        service.offer(by(MEMBER, request)).await.map(|response| response.into_inner())
    };
    assert_eq!(offer(None, None).await.unwrap().lifetime_seconds, 3600);
    offer(Some("bob".into()), Some(86_400)).await.unwrap();
    for (peer, lifetime) in [(None, Some(0)), (None, Some(86_401)), (Some("x".repeat(257)), None)] {
        let status = offer(peer, lifetime).await.unwrap_err();
        assert_eq!(error_detail(&status).unwrap().reason(), v1::Reason::BadOption);
    }
    assert_eq!(*asked.lock().unwrap(), ["offer t None 3600s", "offer t Some(\"bob\") 86400s"]);
    let request = v1::AcceptRequest { tunnel: "t".into(), text: "x".into() };
    let status = service.accept(by(MEMBER, request)).await.unwrap_err();
    assert_eq!(error_detail(&status).unwrap().reason(), v1::Reason::StartFailed);
}

#[tokio::test]
async fn a_call_that_takes_too_long_says_so() {
    let limits = Limits { hooks: Duration::from_millis(50), ..Limits::default() };
    let service = Service::new(Fake::default(), limits, DenialLog::default());
    let request = v1::UpRequest { config: named("slow"), options: None };
    let status = soon(service.up(by(MEMBER, request))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_thousand_streams_of_one_user_leave_room_for_others() {
    let (service, _) = service();
    let watch = async |peer| service.watch(by(peer, v1::WatchRequest { tunnel: None })).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..1000 {
        match watch(MEMBER).await {
            Ok(stream) => held.push(stream.into_inner()),
            Err(status) => {
                assert_eq!(error_detail(&status).unwrap().reason(), v1::Reason::Busy);
                refused += 1;
            }
        }
    }
    assert_eq!((held.len(), refused), (16, 984));
    assert!(watch(Peer { uid: 1001, pid: None }).await.is_ok());
    assert!(watch(ROOT).await.is_ok());
    held.pop();
    assert!(watch(MEMBER).await.is_ok(), "a place came free");
}

fn state(tunnels: &[&str]) -> Arc<StatusReport> {
    let tunnels =
        tunnels.iter().map(|name| report::TunnelReport { name: (*name).to_owned(), ..tunnel() });
    Arc::new(StatusReport { tunnels: tunnels.collect() })
}

#[tokio::test]
async fn a_stream_tells_the_state_and_then_each_change() {
    let fake = Fake::default();
    let states = Arc::clone(&fake.states);
    let service = Service::new(fake, Limits::default(), DenialLog::default());
    let watch = async |tunnel: Option<&str>| {
        let request = v1::WatchRequest { tunnel: tunnel.map(Into::into) };
        service.watch(by(MEMBER, request)).await.map(|response| response.into_inner())
    };
    let mut all = watch(None).await.unwrap();
    let mut one = watch(Some("peer1")).await.unwrap();
    let names = |item: Option<Result<v1::WatchResponse, Status>>| -> Vec<String> {
        let tunnels = item.unwrap().unwrap().status.unwrap().tunnels;
        tunnels.into_iter().map(|tunnel| tunnel.name).collect()
    };
    assert_eq!(names(all.next().await), ["peer1"]);
    assert_eq!(names(one.next().await), ["peer1"]);
    // Of two that come before it looks, the newer one.
    states.send_replace(state(&["peer1"]));
    states.send_replace(state(&["peer1", "peer2"]));
    assert_eq!(names(all.next().await), ["peer1", "peer2"]);
    assert_eq!(names(one.next().await), ["peer1"]);
    states.send_replace(state(&["peer2"]));
    assert_eq!(names(all.next().await), ["peer2"]);
    let gone = one.next().await.unwrap().unwrap_err();
    assert_eq!(error_detail(&gone).unwrap().known_tunnels, ["peer2"]);
    assert!(one.next().await.is_none());
    assert_eq!(watch(Some("peer9")).await.err().unwrap().code(), Code::NotFound);
    assert_eq!(watch(Some("../x")).await.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_slow_reader_loses_states_and_nobody_else_does() {
    let fake = Fake::default();
    let states = Arc::clone(&fake.states);
    let running = start_with(Limits::default(), fake);
    let mut client = connect(&running.path).await.unwrap();
    let mut slow = client.watch(v1::WatchRequest { tunnel: None }).await.unwrap().into_inner();
    let mut quick = connect(&running.path).await.unwrap();
    let mut quick = quick.watch(v1::WatchRequest { tunnel: None }).await.unwrap().into_inner();
    quick.message().await.unwrap();
    // Of some hundred kilobytes each: more than the windows of the connection hold.
    let names: Vec<String> = (0..800).map(|n| format!("peer{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for last in 0..200 {
        let mut state = StatusReport::clone(&state(&names));
        state.tunnels[0].mtu = last;
        states.send_replace(Arc::new(state));
        // The one who reads gets every one of them.
        let seen = soon(quick.message()).await.unwrap().unwrap().status.unwrap();
        assert_eq!(seen.tunnels[0].mtu, last);
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&199) {
        let state = soon(slow.message()).await.unwrap().unwrap().status.unwrap();
        seen.push(state.tunnels[0].mtu);
    }
    assert!(seen.len() < 100, "{} of 200 states were kept for it", seen.len());
}
