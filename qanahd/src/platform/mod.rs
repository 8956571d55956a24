//! What is done to the machine, and what is learnt from it: the TUN device, addresses and routes
//! by netlink, and the machine's own addresses. No `ip` commands.

pub(crate) mod addresses;
pub(crate) mod cleanup;
pub(crate) mod config_dir;
mod error;
pub(crate) mod hooks;
pub(crate) mod interfaces;
pub(crate) mod netlink;
pub(crate) mod privileges;
mod query;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tun;
pub(crate) mod watch;

pub(crate) use error::PlatformError;
