//! What the process may do.

use std::fs;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read() {
        let status =
            "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t00000000a80425fb\nSeccomp:\t0\n";
        assert_eq!(effective(status), Some(0xa804_25fb));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
