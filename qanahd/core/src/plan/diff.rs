//! From one plan to another while the interface lives on.

use std::collections::HashSet;

use super::{Step, Undo};

/// One change between two plans of the same interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// Do this; it is not in the old plan.
    Do(Step),
    /// Take this back; it is not in the new plan.
    Undo(Undo),
    /// Give the interface this MTU, in bytes.
    SetMtu {
        /// The MTU that it has.
        from: u16,
        /// The MTU that it is to have.
        to: u16,
    },
}

impl Change {
    /// The change in words, for logs and errors; it continues "cannot ...".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Do(step) => step.describe(),
            Self::Undo(undo) => undo.describe(),
            Self::SetMtu { to, .. } => format!("set the MTU to {to}"),
        }
    }
}

/// The steps that are in force after one change of those in `steps`: what to compare with when a
/// row of changes was broken off.
pub fn after(steps: &mut Vec<Step>, change: &Change) {
    match change {
        // Routes are the last of a plan, addresses the first after the interface.
        Change::Do(step @ Step::AddAddress(_)) => steps.insert(1.min(steps.len()), step.clone()),
        Change::Do(step) => steps.push(step.clone()),
        Change::Undo(undo) => steps.retain(|step| step.inverse() != *undo),
        Change::SetMtu { to, .. } => {
            if let Some(Step::CreateTun { mtu, .. }) = steps.first_mut() {
                *mtu = *to;
            }
        }
    }
}

/// Why one plan cannot become the other while the interface lives on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the interface would have another name; take the tunnel down and bring it up again")]
pub struct OtherInterface;

/// The changes from the plan `old` to the plan `new`, in an order in which what both have works all
/// the time: a wider MTU first, then what is new, then what is gone, then a smaller MTU.
///
/// Two kinds of addresses go before anything new comes, because Linux would refuse the new:
/// one that only changes its prefix length (IPv6 takes an address once), and one whose connected
/// route becomes a route of its own.
///
/// # Errors
/// When the plans are for interfaces of different names, or one has no interface.
pub fn diff(old: &[Step], new: &[Step]) -> Result<Vec<Change>, OtherInterface> {
    let (Some(Step::CreateTun { name: was, mtu: from }), Some(Step::CreateTun { name, mtu: to })) =
        (old.first(), new.first())
    else {
        return Err(OtherInterface);
    };
    if was != name {
        return Err(OtherInterface);
    }
    let mtu = Change::SetMtu { from: *from, to: *to };
    let before: HashSet<&Step> = old.iter().skip(1).collect();
    let after: HashSet<&Step> = new.iter().skip(1).collect();
    let added: Vec<&Step> = new.iter().skip(1).filter(|step| !before.contains(step)).collect();
    let gone = old.iter().skip(1).filter(|step| !after.contains(step));
    let (early, late): (Vec<&Step>, Vec<&Step>) =
        gone.partition(|step| is_in_the_way(step, &added));

    let mut changes = Vec::new();
    changes.extend((to > from).then(|| mtu.clone()));
    changes.extend(early.into_iter().map(|step| Change::Undo(step.inverse())));
    changes.extend(added.into_iter().map(|step| Change::Do(step.clone())));
    // Backwards, as a plan is taken back: routes before addresses.
    changes.extend(late.into_iter().rev().map(|step| Change::Undo(step.inverse())));
    changes.extend((to < from).then_some(mtu));
    Ok(changes)
}

/// Whether an old step keeps one of the new ones from being done.
fn is_in_the_way(old: &Step, added: &[&Step]) -> bool {
    let Step::AddAddress(old) = old else {
        return false;
    };
    added.iter().any(|new| match new {
        Step::AddAddress(new) => new.addr() == old.addr(),
        Step::AddRoute(prefix) => *prefix == old.trunc(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::plan;
    use super::super::tests::{System, net, nets};
    use super::*;

    fn apply(system: &mut System, change: &Change) {
        match change {
            Change::Do(step) => system.apply(step),
            Change::Undo(undo) => system.undo(undo),
            Change::SetMtu { from, to } => {
                let (_, mtu) = system.link.as_mut().unwrap();
                assert_eq!(mtu, from);
                *mtu = *to;
            }
        }
    }

    fn made(steps: &[Step]) -> System {
        let mut system = System::default();
        steps.iter().for_each(|step| system.apply(step));
        system
    }

    #[test]
    fn what_is_new_comes_before_what_is_gone_leaves() {
        let old = plan("t", &nets(&["10.0.0.1/24"]), 1400, nets(&["10.1.0.0/16"])).unwrap();
        let new = plan("t", &nets(&["10.0.9.1/24"]), 1300, nets(&["10.2.0.0/16"])).unwrap();
        let words: Vec<String> = diff(&old, &new).unwrap().iter().map(Change::describe).collect();
        assert_eq!(
            words,
            [
                "add the address 10.0.9.1/24",
                "add the route to 10.2.0.0/16",
                "remove the route to 10.1.0.0/16",
                "remove the address 10.0.0.1/24",
                "set the MTU to 1300",
            ]
        );
        assert_eq!(diff(&old, &old), Ok(Vec::new()));
    }

    #[test]
    fn another_interface_is_refused() {
        let steps = |name| plan(name, &[], 1400, []).unwrap();
        assert_eq!(diff(&steps("a"), &steps("b")), Err(OtherInterface));
        assert_eq!(diff(&[], &steps("b")), Err(OtherInterface));
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_new_system_and_one_broken_off_leads_back(
            (a1, a2) in (vec(net(), 0..5), vec(net(), 0..5)),
            (p1, p2) in (vec(net(), 0..12), vec(net(), 0..12)),
            (m1, m2) in (1280u16..1500, 1280u16..1500),
            broken_off in 0usize..20,
        ) {
            let (Ok(old), Ok(new)) = (plan("t", &a1, m1, p1), plan("t", &a2, m2, p2)) else {
                return Ok(());
            };
            let changes = diff(&old, &new).unwrap();
            let kept = made(&old).common(&made(&new));
            let mut system = made(&old);
            for change in &changes {
                apply(&mut system, change);
                // What both have is there all the time.
                let left = kept.common(&system);
                prop_assert_eq!(left.parts(), kept.parts());
            }
            prop_assert_eq!(&system, &made(&new));

            let (mut system, mut steps) = (made(&old), old.clone());
            for change in changes.iter().take(broken_off) {
                apply(&mut system, change);
                after(&mut steps, change);
            }
            for change in diff(&steps, &old).unwrap() {
                apply(&mut system, &change);
            }
            prop_assert_eq!(system, made(&old));
        }
    }
}
