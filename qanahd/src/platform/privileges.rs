//! What the process may do, and giving up what it does not need.

use std::fs;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tracing::{debug, warn};

/// CAP_NET_ADMIN in the masks of `/proc/PID/status` (capabilities(7)).
const NET_ADMIN: u32 = 12;

/// The daemon may not set up interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("qanahd sets up interfaces and needs root: run it with sudo, or as a service")]
pub(crate) struct NotPrivileged;

/// Whether the process may set up interfaces; asked first, because everything that fails for want
/// of it fails with a message about something else.
///
/// # Errors
/// [`NotPrivileged`].
pub(crate) fn check() -> Result<(), NotPrivileged> {
    // Without /proc the first thing that is not permitted will say so.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(mask) if mask & (1 << NET_ADMIN) == 0 => Err(NotPrivileged),
        _ => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Keeps keys in memory from others: no core dump, and no look into the process by anybody but a root
/// that may trace. To be called before a key is read.
pub(crate) fn close_memory() {
    if let Err(error) = prctl::set_dumpable(false) {
        warn!("the memory of the process cannot be closed to others: {error}");
    }
    // A pipe as core_pattern gets a dump of whatever size; the flag above keeps it from that.
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        warn!("core dumps cannot be switched off: {error}");
    }
}

/// What a daemon is to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Only its own work. It cannot get anything back, and neither can what it runs.
    NoHooks,
    /// To run hooks, which get what it was started with, as root's commands do.
    Hooks,
}

impl Needs {
    /// Gives up all capabilities of this thread, and of those that it starts, except what the work needs:
    /// CAP_NET_ADMIN for interfaces and routes, and CAP_DAC_READ_SEARCH to read again what root named
    /// on the command line (a configuration in a closed directory, CA certificates). The latter opens
    /// no more than uid 0 does by itself almost everywhere.
    ///
    /// The control socket must be there: giving it to the group needs CAP_CHOWN. What cannot be given up
    /// is logged; a service has hardly anything left to give up.
    pub(crate) fn keep(self) {
        let kept: CapsHashSet =
            [Capability::CAP_NET_ADMIN, Capability::CAP_DAC_READ_SEARCH].into_iter().collect();
        if let Err(error) = self.reduce(&kept) {
            warn!("not all privileges could be given up: {error}");
        }
    }

    fn reduce(self, kept: &CapsHashSet) -> Result<(), Box<dyn std::error::Error>> {
        if self == Self::NoHooks {
            prctl::set_no_new_privs()?;
        }
        // A service: its system call filter may not even allow to say so once more.
        if caps::read(None, CapSet::Permitted)?.is_subset(kept)
            && caps::read(None, CapSet::Inheritable)?.is_empty()
        {
            return Ok(());
        }
        // First, while the capability to do so is there.
        if self == Self::NoHooks {
            let bounding = caps::read(None, CapSet::Bounding)?;
            if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
                for capability in bounding.difference(kept) {
                    caps::drop(None, CapSet::Bounding, *capability)?;
                }
            }
        }
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        let permitted = caps::read(None, CapSet::Permitted)?;
        let left: CapsHashSet = permitted.intersection(kept).copied().collect();
        caps::set(None, CapSet::Effective, &left)?;
        caps::set(None, CapSet::Permitted, &left)?;
        debug!("capabilities left: {left:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::require_root;
    use super::*;

    #[test]
    fn the_mask_is_read() {
        let status =
            "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t00000000a80425fb\nSeccomp:\t0\n";
        assert_eq!(effective(status), Some(0xa804_25fb));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    /// What a shell that is started now can do. All of it is of one thread, which ends with the test.
    fn of_a_child() -> u64 {
        let child = std::process::Command::new("cat").arg("/proc/self/status").output().unwrap();
        effective(&String::from_utf8(child.stdout).unwrap()).unwrap()
    }

    #[test]
    fn without_hooks_nothing_comes_back_and_with_them_they_get_all() {
        require_root();
        let whole = of_a_child();
        for (needs, child) in [(Needs::Hooks, whole), (Needs::NoHooks, 1 << 12 | 1 << 2)] {
            let work = move || {
                needs.keep();
                let left = caps::read(None, CapSet::Permitted).unwrap();
                assert_eq!(left.len(), 2, "{left:?}");
                assert!(left.contains(&Capability::CAP_NET_ADMIN));
                assert_eq!(caps::read(None, CapSet::Effective).unwrap(), left);
                // Twice is no error.
                needs.keep();
                of_a_child()
            };
            assert_eq!(std::thread::spawn(work).join().unwrap(), child & whole, "{needs:?}");
        }
        assert_eq!(of_a_child(), whole, "other threads keep theirs");
    }
}
