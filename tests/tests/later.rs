//! What the machines have only later: an interface, an address, IPv6.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qanah_tests::conf::{inner4, name};
use qanah_tests::lab::{Lab, Underlay, in_lab_over};
use qanah_tests::mesh::{CONNECT, Mesh, RECOVER};
use qanah_tests::talk::Talk;
use qanah_tests::wait::eventually;

/// Waits until both ends of the path from one node to another have addresses of this kind.
fn path_is(
    mesh: &Mesh,
    (own, other): (usize, usize),
    ends: (&str, &str),
    limit: Duration,
) -> Result<()> {
    let quoted =
        |end: &str| if end.contains(':') { format!("\"[{end}]:") } else { format!("\"{end}:") };
    let (local, remote) = (quoted(ends.0), quoted(ends.1));
    eventually(&format!("the path of {own} to {other} is {local} to {remote}"), limit, || {
        let status = mesh.daemon(own)?.status()?;
        let peer = status.peer(&name(other))?;
        let path = peer.path();
        ensure!(peer.connected()? && peer.is_direct(), "{status}");
        ensure!(path.contains(&local) && path.contains(&remote), "{path}");
        Ok(())
    })
}

/// Puts another interface of a node on the bridge, with the other address that it may have there.
fn plug_in(lab: &Lab, n: usize) -> Result<()> {
    let node = lab.node(n)?;
    lab.hub().shell(&format!(
        "ip link add u{n} type veth peer name usb0 netns {}; ip link set u{n} master br0 up",
        node.place().holder()
    ))?;
    let address = node.other4();
    node.place().shell(&format!("ip link set usb0 up; ip addr add {address}/24 dev usb0"))?;
    Ok(())
}

#[test]
fn a_session_by_ipv4_moves_to_ipv6_when_both_have_it_and_back() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let mesh = Mesh::start(lab)?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        let by_ipv4 = |limit| {
            path_is(&mesh, (1, 2), (&one.outer4(), &two.outer4()), limit)?;
            path_is(&mesh, (2, 1), (&two.outer4(), &one.outer4()), limit)
        };
        by_ipv4(CONNECT)?;
        let mut talk = Talk::begin(one.place(), two.place(), &inner4(2))?;
        talk.goes_on()?;
        // One has it a little before the other.
        for node in [two, one] {
            node.place().run(&format!("ip addr add {}/64 dev eth0 nodad", node.outer6()))?;
        }
        path_is(&mesh, (1, 2), (&one.outer6(), &two.outer6()), RECOVER)?;
        path_is(&mesh, (2, 1), (&two.outer6(), &one.outer6()), RECOVER)?;
        talk.goes_on()?;
        one.place().run(&format!("ip addr del {}/64 dev eth0", one.outer6()))?;
        by_ipv4(RECOVER)?;
        talk.goes_on()
    })
}

#[test]
fn peers_connect_over_an_interface_that_comes_later() -> Result<()> {
    // None at all, or one that leads nowhere.
    for before in ["ip link set eth0 down", "ip addr add 192.168.77.1/24 dev eth0"] {
        in_lab_over(Underlay::V4, 2, |lab| {
            let (one, two) = (lab.node(1)?, lab.node(2)?);
            one.place().shell(&format!("ip addr flush dev eth0; {before}"))?;
            let mut mesh = Mesh::prepare(lab)?;
            mesh.up(lab, 1)?;
            mesh.up(lab, 2)?;
            mesh.daemon(2)?.status()?;
            ensure!(!mesh.daemon(1)?.status()?.peer("peer2")?.connected()?, "{before}: by what?");
            plug_in(lab, 1)?;
            path_is(&mesh, (1, 2), (&one.other4(), &two.outer4()), RECOVER)?;
            path_is(&mesh, (2, 1), (&two.outer4(), &one.other4()), RECOVER)?;
            mesh.ping_all()
        })
        .with_context(|| before.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_session_moves_to_an_interface_that_came_later_when_its_own_goes() -> Result<()> {
    in_lab_over(Underlay::V4, 2, |lab| {
        let mesh = Mesh::start(lab)?;
        let (one, two) = (lab.node(1)?, lab.node(2)?);
        path_is(&mesh, (1, 2), (&one.outer4(), &two.outer4()), CONNECT)?;
        let mut talk = Talk::begin(one.place(), two.place(), &inner4(2))?;
        talk.goes_on()?;
        plug_in(lab, 1)?;
        talk.goes_on()?;
        one.link_down()?;
        path_is(&mesh, (1, 2), (&one.other4(), &two.outer4()), RECOVER)?;
        path_is(&mesh, (2, 1), (&two.outer4(), &one.other4()), RECOVER)?;
        talk.goes_on()
    })
}
