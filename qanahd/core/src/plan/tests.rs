//! Plans on a model of a system.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

pub(super) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A system with at most one interface of ours, that refuses what Linux refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct System {
    pub(super) link: Option<(String, u16)>,
    up: bool,
    addresses: BTreeSet<IpNet>,
    routes: BTreeSet<IpNet>,
}

impl System {
    /// What both have, apart from the interface itself.
    pub(super) fn common(&self, other: &Self) -> Self {
        Self {
            link: None,
            up: self.up && other.up,
            addresses: self.addresses.intersection(&other.addresses).copied().collect(),
            routes: self.routes.intersection(&other.routes).copied().collect(),
        }
    }

    pub(super) fn parts(&self) -> (bool, &BTreeSet<IpNet>, &BTreeSet<IpNet>) {
        (self.up, &self.addresses, &self.routes)
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::CreateTun { name, mtu } => {
                assert_eq!(self.link, None, "a second interface");
                self.link = Some((name.clone(), *mtu));
            }
            Step::AddAddress(address) => {
                assert!(self.link.is_some(), "an address without an interface");
                let same = self.addresses.iter().find(|other| other.addr() == address.addr());
                assert_eq!(same, None, "{address} twice");
                self.addresses.insert(*address);
            }
            Step::LinkUp => {
                assert!(self.link.is_some() && !self.up);
                self.up = true;
            }
            Step::AddRoute(prefix) => {
                assert!(self.up, "a route over an interface that is down");
                assert_eq!(*prefix, prefix.trunc(), "a route with host bits");
                let connected = self.addresses.iter().any(|address| address.trunc() == *prefix);
                assert!(!connected, "{prefix} is a connected route");
                assert!(self.routes.insert(*prefix), "{prefix} twice");
            }
        }
    }

    pub(super) fn undo(&mut self, undo: &Undo) {
        match undo {
            Undo::DeleteTun { name } => {
                assert!(self.addresses.is_empty() && self.routes.is_empty() && !self.up);
                assert_eq!(&self.link.take().unwrap().0, name);
            }
            Undo::RemoveAddress(address) => assert!(self.addresses.remove(address)),
            Undo::LinkDown => {
                assert!(self.up && self.routes.is_empty());
                self.up = false;
            }
            Undo::RemoveRoute(prefix) => assert!(self.routes.remove(prefix)),
        }
    }
}

#[test]
fn steps_come_in_the_order_of_wg_quick() {
    let steps = plan(
        "peer1",
        &nets(&["10.0.0.1/24", "fd00::1/64"]),
        1400,
        nets(&["10.0.0.2/32", "192.168.7.0/24", "192.168.7.128/25", "fd00:7::/48"]),
    )
    .unwrap();
    let [routed, narrow, wide] =
        ["fd00:7::/48", "192.168.7.128/25", "192.168.7.0/24"].map(|t| t.parse().unwrap());
    assert_eq!(
        steps,
        [
            Step::CreateTun { name: "peer1".to_owned(), mtu: 1400 },
            Step::AddAddress("10.0.0.1/24".parse().unwrap()),
            Step::AddAddress("fd00::1/64".parse().unwrap()),
            Step::LinkUp,
            Step::AddRoute(routed),
            Step::AddRoute(narrow),
            Step::AddRoute(wide),
        ]
    );
}

#[test]
fn a_prefix_that_an_address_covers_needs_no_route() {
    let steps = plan(
        "t",
        &nets(&["10.0.0.1/24", "fd00::1/64"]),
        1400,
        nets(&["10.0.0.0/24", "10.0.0.3/32", "fd00::3/128", "10.0.0.0/16"]),
    )
    .unwrap();
    let routes: Vec<_> = steps.iter().filter(|s| matches!(s, Step::AddRoute(_))).collect();
    assert_eq!(routes, [&Step::AddRoute("10.0.0.0/16".parse().unwrap())]);
}

#[test]
fn host_bits_and_repetitions_are_folded() {
    let steps =
        plan("t", &nets(&["10.0.0.1/32", "10.0.0.1/32"]), 1400, nets(&["10.1.2.3/8"; 3])).unwrap();
    assert_eq!(
        steps[1..],
        [
            Step::AddAddress("10.0.0.1/32".parse().unwrap()),
            Step::LinkUp,
            Step::AddRoute("10.0.0.0/8".parse().unwrap()),
        ]
    );
}

#[test]
fn what_would_do_damage_is_refused() {
    let everything = |text: &str| plan("t", &[], 1400, nets(&[text]));
    assert!(matches!(everything("0.0.0.0/0"), Err(PlanError::DefaultRoute(_))));
    assert!(matches!(everything("::/0"), Err(PlanError::DefaultRoute(_))));
    assert!(matches!(
        plan("t", &nets(&["10.0.0.1/0"]), 1400, []),
        Err(PlanError::AddressOfEverything(_))
    ));
    assert!(matches!(
        plan("t", &nets(&["10.0.0.1/24", "10.0.0.1/16"]), 1400, []),
        Err(PlanError::AddressTwice(_))
    ));
}

#[test]
fn ipv6_needs_its_mtu() {
    assert!(matches!(
        plan("t", &nets(&["fd00::1/64"]), 1279, []),
        Err(PlanError::MtuTooSmall(_, 1279))
    ));
    assert!(matches!(
        plan("t", &nets(&["10.0.0.1/24"]), 576, nets(&["fd00::/64"])),
        Err(PlanError::MtuTooSmall(_, 576))
    ));
    assert!(plan("t", &nets(&["fd00::1/64"]), 1280, []).is_ok());
    assert!(plan("t", &nets(&["10.0.0.1/24"]), 576, []).is_ok());
}

#[test]
fn names_are_those_of_wg_quick() {
    for good in ["wg0", "a", "peer_1=x+y.z-w", "123456789012345"] {
        assert!(is_interface_name(good), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a b", "tun%d", "1234567890123456", "é", "a\0"] {
        assert_eq!(plan(bad, &[], 1400, []), Err(PlanError::InvalidName(bad.to_owned())));
    }
}

#[test]
fn steps_and_inverses_describe_themselves() {
    let steps = plan("peer1", &nets(&["10.0.0.1/24"]), 1400, nets(&["10.9.0.0/16"])).unwrap();
    let words: Vec<String> =
        steps.iter().flat_map(|s| [s.describe(), s.inverse().describe()]).collect();
    assert_eq!(
        words,
        [
            "create the interface peer1 with MTU 1400",
            "delete the interface peer1",
            "add the address 10.0.0.1/24",
            "remove the address 10.0.0.1/24",
            "bring the interface up",
            "bring the interface down",
            "add the route to 10.9.0.0/16",
            "remove the route to 10.9.0.0/16",
        ]
    );
}

prop_compose! {
    // A small address space, so that prefixes meet, cover and repeat each other.
    pub(super) fn net()(v6: bool, low in 0u8..8, third in 0u8..4, long in 1u8..=16) -> IpNet {
        if v6 {
            let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, third.into(), low.into());
            Ipv6Net::new(address, 128 - 2 * long + 2).unwrap().into()
        } else {
            let address = Ipv4Addr::new(10, 0, third, low);
            Ipv4Net::new(address, 33 - long).unwrap().into()
        }
    }
}

proptest! {
    #[test]
    fn undo_reverses_every_beginning_of_a_plan(
        addresses in vec(net(), 0..5),
        allowed in vec(net(), 0..12),
        done in 0usize..20,
    ) {
        let Ok(steps) = plan("t", &addresses, 1400, allowed) else { return Ok(()) };
        let mut system = System::default();
        let done = done.min(steps.len());
        for step in &steps[..done] {
            system.apply(step);
        }
        prop_assert_eq!(system == System::default(), done == 0);
        for step in steps[..done].iter().rev() {
            system.undo(&step.inverse());
        }
        prop_assert_eq!(system, System::default());
    }

    #[test]
    fn every_allowed_prefix_reaches_the_interface(
        addresses in vec(net(), 0..5),
        allowed in vec(net(), 0..12),
    ) {
        let Ok(steps) = plan("t", &addresses, 1400, allowed.clone()) else { return Ok(()) };
        let mut system = System::default();
        for step in &steps {
            system.apply(step);
        }
        for prefix in &allowed {
            let prefix = prefix.trunc();
            let connected = system.addresses.iter().any(|a| a.contains(&prefix));
            // One of the two: a missing route loses packets, a needless one hides the
            // connected route.
            prop_assert_ne!(connected, system.routes.contains(&prefix), "{}", prefix);
        }
        for route in &system.routes {
            prop_assert!(allowed.iter().any(|prefix| prefix.trunc() == *route));
        }
        for address in &addresses {
            prop_assert!(system.addresses.contains(address));
        }
    }
}
