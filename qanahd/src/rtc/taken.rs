//! Where `ListenPort` could not be had, to say so to people.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::port::lock;

/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 32;

/// The port of a tunnel as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortReport {
    /// Its number.
    pub(crate) port: u16,
    /// Why connections do not have it, and what helps; nothing where all have it.
    pub(crate) trouble: Option<String>,
}

/// Where a port could not be had the last time that it was asked for. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Taken(Arc<Mutex<BTreeMap<IpAddr, Refused>>>);

enum Refused {
    /// Somebody else has it.
    Taken,
    Error(String),
}

impl Taken {
    /// It was asked for at this address.
    pub(super) fn note(&self, ip: IpAddr, error: Option<&io::Error>) {
        let mut refused = lock(&self.0);
        let Some(error) = error else {
            refused.remove(&ip);
            return;
        };
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        let why = if taken { Refused::Taken } else { Refused::Error(error.to_string()) };
        refused.insert(ip, why);
        if refused.len() > MAX_ADDRESSES {
            refused.pop_first();
        }
    }

    /// What was at other addresses than these is of no interest any more.
    pub(super) fn keep(&self, addresses: &[IpAddr]) {
        lock(&self.0).retain(|ip, _| addresses.contains(ip));
    }

    /// What is wrong, and what helps.
    pub(super) fn trouble(&self, port: u16) -> Option<String> {
        let refused = lock(&self.0);
        let (mut taken, mut troubles) = (Vec::new(), Vec::new());
        for (ip, why) in refused.iter() {
            match why {
                Refused::Taken => taken.push(ip.to_string()),
                Refused::Error(error) => troubles.push(format!("cannot be used at {ip}: {error}")),
            }
        }
        if !taken.is_empty() {
            troubles.push(format!(
                "is taken by another program or tunnel at {}, so connections from there have other \
                 ports; end that one (`ss -ulnp sport = :{port}` names it) or choose another \
                 ListenPort, then take the tunnel down and up again",
                taken.join(", ")
            ));
        }
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_seen_last() {
        let ip = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let taken = Taken::default();
        assert_eq!(taken.trouble(7), None);
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        taken.note(ip(1), Some(&in_use));
        taken.note(ip(2), Some(&in_use));
        taken.note(ip(3), Some(&denied));
        let text = taken.trouble(7).unwrap();
        for part in ["at 2001:db8::1, 2001:db8::2, so", "sport = :7`", "at 2001:db8::3: permission"]
        {
            assert!(text.contains(part), "{text}");
        }
        taken.note(ip(1), None);
        taken.keep(&[ip(1), ip(2)]);
        let text = taken.trouble(7).unwrap();
        assert!(text.starts_with("is taken") && !text.contains("::1") && !text.contains("::3"));
        for last in 0..1000 {
            taken.note(ip(last), Some(&in_use));
        }
        assert_eq!(lock(&taken.0).len(), MAX_ADDRESSES);
    }
}
