//! Paths that get better or worse, ports that are open, and why there is none.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use qanah_tests::conf::{inner4, name};
use qanah_tests::daemon::qanahctl;
use qanah_tests::nat::ground::Ground;
use qanah_tests::nat::matrix::{Group, LIMIT, Member, all};
use qanah_tests::nat::theory::Path;
use qanah_tests::nat::{Family, Kind, Site};
use qanah_tests::ns::join;
use qanah_tests::talk::Talk;
use qanah_tests::wait::eventually;

fn path_is(group: &Group, expected: Path) -> Result<()> {
    eventually(&format!("the path is {expected}"), 2 * LIMIT, || {
        for (own, other) in [(1, 2), (2, 1)] {
            let (path, detail) = group.path(own, other)?;
            ensure!(path == expected, "at {own} it is {path}: {detail}");
        }
        Ok(())
    })
    .with_context(|| group.logs())
}

#[test]
fn a_session_by_turn_moves_to_a_direct_path_and_back() -> Result<()> {
    let ground = Ground::new()?;
    let sites = [ground.of_kind(Kind::Open)?, ground.of_kind(Kind::Open)?];
    sites[0].cut_from(&sites[1])?;
    sites[1].cut_from(&sites[0])?;
    let group = ground.start("moves", sites, ground.servers.options_with_turn())?;
    group.settles(Path::Turn)?;
    let mut talk = Talk::begin(group.site(1)?.place(), group.site(2)?.place(), &inner4(2))?;
    for _ in 0..2 {
        talk.goes_on()?;
        let (one, two) = (group.site(1)?, group.site(2)?);
        one.mend()?;
        two.mend()?;
        path_is(&group, Path::Direct)?;
        talk.goes_on()?;
        one.cut_from(two)?;
        two.cut_from(one)?;
        path_is(&group, Path::Turn)?;
    }
    talk.goes_on()?;
    ground.lab.passed();
    Ok(())
}

/// A router that lets one port in makes up for the symmetric NATs of all others, and all use the one port.
#[test]
fn an_open_listen_port_is_reached_from_behind_symmetric_nats() -> Result<()> {
    let ground = Ground::new()?;
    let options = ground.servers.options();
    let [open, one, two] =
        [Kind::PortRestricted, Kind::Symmetric, Kind::Symmetric].map(|kind| ground.of_kind(kind));
    let (open, members) = (open?, [one?, two?]);
    let router = open.router().context("no router")?;
    router.run(&format!(
        "nft add rule ip nat pre iifname eth0 udp dport 51820 dnat to {}",
        open.inside()
    ))?;
    let member = |site| Member { site, options: options.clone() };
    let members = [open].into_iter().chain(members).map(member).collect();
    let group = Group::start_with(&ground.lab, "port", members, |n, conf| {
        if n == 1 {
            conf.extra.push("ListenPort = 51820".to_owned());
        }
    })?;
    group.settles(Path::Direct)?;
    for other in [2, 3] {
        eventually("a direct path of the open port", LIMIT, || {
            let (path, detail) = group.path(1, other)?;
            ensure!(path == Path::Direct && detail.contains(":51820\""), "{path} {detail}");
            let (path, detail) = group.path(other, 1)?;
            let port = format!("{}:51820", group.site(1)?.outside());
            ensure!(path == Path::Direct && detail.contains(&port), "{path} {detail}");
            Ok(())
        })
        .with_context(|| group.logs())?;
    }
    ground.lab.passed();
    Ok(())
}

/// Both ends with a fixed port: sessions that replace each other have the same two addresses.
#[test]
fn two_open_ports_carry_the_sessions_that_replace_each_other() -> Result<()> {
    let ground = Ground::new()?;
    let options = ground.servers.options();
    let site = || ground.of_kind(Kind::Open);
    let members = [site()?, site()?].map(|site| Member { site, options: options.clone() });
    let mut group = Group::start_with(&ground.lab, "ports", members.into(), |_, conf| {
        conf.extra.push("ListenPort = 51820".to_owned());
    })?;
    group.settles(Path::Direct)?;
    for round in [1, 2] {
        group.restart(round)?;
        group.settles(Path::Direct)?;
        let (_, detail) = group.path(1, 2)?;
        ensure!(detail.matches(":51820\"").count() == 2, "{detail}");
    }
    ground.lab.passed();
    Ok(())
}

/// Whoever takes the port keeps nobody apart, and is told of.
#[test]
fn status_says_that_the_listen_port_is_taken_and_what_to_do() -> Result<()> {
    let ground = Ground::new()?;
    let options = ground.servers.options();
    let site = || ground.of_kind(Kind::Open);
    let sites = [site()?, site()?];
    let taken = join(sites[0].place().thread(|| Ok(UdpSocket::bind("0.0.0.0:51820")?)))?;
    let members = sites.map(|site| Member { site, options: options.clone() });
    let mut group = Group::start_with(&ground.lab, "taken", members.into(), |_, conf| {
        conf.extra.push("ListenPort = 51820".to_owned());
    })?;
    group.settles(Path::Direct)?;
    let place = group.daemon(1)?.place();
    let port = |n| anyhow::Ok(group.daemon(n)?.status()?.field("listen_port")?.clone());
    let own = group.site(1)?.outside();
    let said = port(1)?;
    let error = said["error"].as_str().unwrap_or_default();
    ensure!(said["port"] == 51820 && error.contains(own) && error.contains("another"), "{said}");
    ensure!(port(2)? == serde_json::json!({ "port": 51820, "error": null }), "{}", port(2)?);
    let text = qanahctl(place, &["status"])?.out;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let advice = "end that one (`ss -ulnp sport = :51820` names it) or choose another ListenPort";
    ensure!(text.contains("ListenPort 51820 is taken") && text.contains(advice), "{text}");
    ensure!(place.run("ss -ulnp sport = :51820")?.contains(":51820"), "nobody has it");
    // As it says: it is ended, and the tunnel started anew.
    drop(taken);
    group.restart(1)?;
    group.settles(Path::Direct)?;
    let status = group.daemon(1)?.status()?;
    ensure!(status.field("listen_port")?["error"].is_null(), "{status}");
    let text = qanahctl(place, &["status"])?.out;
    ensure!(!text.contains("ListenPort"), "{text}");
    ground.lab.passed();
    Ok(())
}

#[test]
fn status_says_why_there_is_no_path_and_what_would_help() -> Result<()> {
    let ground = Ground::new()?;
    let cases = [
        (Kind::Symmetric, Kind::Symmetric, "address_dependent", "both sides are symmetric"),
        (Kind::Symmetric, Kind::PortRestricted, "address_dependent", "the NAT here is symmetric"),
        (Kind::PortRestricted, Kind::Symmetric, "endpoint_independent", "peer's NAT is symmetric"),
        (Kind::NoUdp, Kind::PortRestricted, "no_udp", "no UDP gets out of this network"),
        (Kind::PortRestricted, Kind::NoUdp, "endpoint_independent", "outside of its own network"),
    ];
    let done = all(cases.to_vec(), |(a, b, nat, words)| {
        let sites = [ground.of_kind(a)?, ground.of_kind(b)?];
        let group = ground.start(&format!("why-{a}-{b}"), sites, ground.servers.options())?;
        eventually(&format!("{a} to {b}: {words}"), 2 * LIMIT, || {
            let status = group.daemon(1)?.status()?;
            let reason = status.peer(&name(2))?.reason();
            ensure!(reason.contains(words) && reason.contains("TURN server"), "{reason:?}");
            ensure!(status.field("nat")? == nat, "{status}");
            Ok(())
        })
        .with_context(|| group.logs())
    })?;
    done.into_iter().collect::<Result<()>>()?;
    ground.lab.passed();
    Ok(())
}

#[test]
fn only_the_interfaces_that_are_allowed_are_used() -> Result<()> {
    let ground = Ground::new()?;
    let site = || ground.site(|lab, number| Site::bare(lab, number, Family::V4));
    let sites = [site()?, site()?];
    // A second way to the same place: the first gets another candidate by it.
    let second = "172.31.9.241";
    ground.lab.hub().shell(&format!(
        "ip link add second type veth peer name usb0 netns {}; ip link set second master br0 up",
        sites[0].place().holder()
    ))?;
    sites[0].place().shell(&format!(
        "ip addr add {second}/32 dev usb0; ip link set usb0 up
         ip route add {} dev usb0 src {second}",
        sites[1].outside()
    ))?;
    let [one, two] = sites;
    let first = one.outside().to_owned();
    let options = ground.servers.options();
    let only = options.clone().and(&["--interface", "usb?", "--exclude-interface", "eth*"]);
    let members =
        vec![Member { site: one, options: only }, Member { site: two, options: options.clone() }];
    let group = Group::start(&ground.lab, "usb", members)?;
    group.settles(Path::Direct)?;
    let (_, detail) = group.path(1, 2)?;
    ensure!(detail.contains(second), "{detail}");
    // The other one was not merely slower: the peer was never told of it.
    let told = |address: &str| format!("candidate of the peer address={address}:");
    let log = group.daemon(2)?.log();
    ensure!(log.contains(&told(second)) && !log.contains(&told(&first)), "{first}: {log}");
    // No interface at all is told as such.
    let none = options.and(&["--interface", "nothing*"]);
    let sites = [site()?, site()?];
    let group = ground.start("none", sites, none)?;
    eventually("no address is told", LIMIT, || {
        let said = qanahctl(group.daemon(1)?.place(), &["status"])?.out;
        let text = said.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains("no local address"), "{text}");
        Ok(())
    })
    .with_context(|| group.logs())?;
    ground.lab.passed();
    Ok(())
}
