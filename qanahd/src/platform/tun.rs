//! The TUN device of a tunnel.
//!
//! The device is not persistent: the kernel removes it, with its addresses and routes, when the
//! last descriptor closes. That covers `kill -9` (see [`super::cleanup`]).

use std::fs::OpenOptions;
use std::io;

use nix::errno::Errno;
use qanah_core::plan::is_interface_name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::PlatformError;

/// The device node of the TUN driver.
const TUN_NODE: &str = "/dev/net/tun";

/// An open TUN device. A read or a write is one whole IP packet, without any header before it.
///
/// All methods take `&self`: share it by `Rc` or `Arc` between the tasks that read and write.
/// It belongs to the runtime on which it was created.
pub(crate) struct TunDevice {
    /// Not the crate's own asynchronous device: that one waits for `EPOLLIN` alone, and a device
    /// that is deleted says `EPOLLERR`, so its reader would wait for ever.
    inner: AsyncFd<tun::Device>,
    name: String,
}

impl TunDevice {
    /// Create the interface `name`: down, without addresses, with the kernel's default MTU. Those
    /// come by netlink. Must be called on the runtime that will read from the device.
    ///
    /// # Errors
    /// [`PlatformError::InvalidName`], [`PlatformError::NameTaken`] (where the kernel says so; an
    /// existing *persistent* TUN device would be joined, so look for the name first),
    /// [`PlatformError::NoTunDevice`], [`PlatformError::TunDeviceDenied`],
    /// [`PlatformError::NotPermitted`].
    pub(crate) fn create(name: &str) -> Result<Self, PlatformError> {
        if !is_interface_name(name) {
            return Err(PlatformError::InvalidName(name.to_owned()));
        }
        check_node(TUN_NODE)?;
        let mut config = tun::Configuration::default();
        config.tun_name(name).layer(tun::Layer::L3);
        // The crate would set addresses by ioctl, which knows one IPv4 address and no IPv6.
        config.platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        let device = tun::create(&config).map_err(|error| creation_error(name, error))?;
        let inner = register(device).map_err(|error| {
            PlatformError::of(format!("wait for packets of the interface {name}"), error)
        })?;
        Ok(Self { inner, name: name.to_owned() })
    }

    /// The name of the interface.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Wait for a packet from the kernel and return its length. A packet longer than `buf` is
    /// cut: give at least the MTU. May be cancelled without losing a packet.
    ///
    /// # Errors
    /// Whatever the kernel says; `EBADFD` once the interface was deleted, and then for ever.
    pub(crate) async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.inner.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(result) = ready.try_io(|device| device.get_ref().recv(buf)) {
                return result;
            }
        }
    }

    /// A packet that is waiting already, or [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// As [`Self::recv`].
    #[cfg(test)]
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.get_ref().recv(buf)
    }

    /// Hand one IP packet to the kernel. Never waits: the kernel takes the packet or drops it.
    ///
    /// # Errors
    /// `EINVAL` where the first nibble is no IP version, `EIO` while the interface is down,
    /// `EBADFD` once it was deleted. The packet is lost; count it and go on.
    pub(crate) fn try_send(&self, packet: &[u8]) -> io::Result<()> {
        let written = self.inner.get_ref().send(packet)?;
        if written == packet.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::WriteZero, "the kernel took a part of a packet"))
        }
    }
}

/// Register the device with the reactor of the current runtime.
fn register(device: tun::Device) -> io::Result<AsyncFd<tun::Device>> {
    device.set_nonblock()?;
    let interest = Interest::READABLE | Interest::ERROR;
    // SAFETY: the device owns its descriptor, opened in `create`, until it is dropped, and always
    // returns that one; nothing here closes or replaces it.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register_with_interest(device, interest) };
    registered.map_err(|error| error.into_parts().1)
}

/// Whether the device node can be opened. The crate does not say whether it was the node or the
/// creation that failed, and the ways out differ.
fn check_node(path: &str) -> Result<(), PlatformError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(node_error(error)),
    }
}

/// Why the device node cannot be opened, in words.
fn node_error(error: io::Error) -> PlatformError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::ENOTDIR) => {
            PlatformError::NoTunDevice
        }
        // A container's device filter says EPERM even to root.
        Some(Errno::EACCES | Errno::EPERM) => PlatformError::TunDeviceDenied,
        _ => PlatformError::of(format!("open {TUN_NODE}"), error),
    }
}

/// What `TUNSETIFF` said, in words.
fn creation_error(name: &str, error: tun::Error) -> PlatformError {
    let error = io::Error::from(error);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => PlatformError::NameTaken {
            name: name.to_owned(),
            kind: "a TUN device of another process".to_owned(),
        },
        Some(Errno::EINVAL | Errno::EEXIST) => PlatformError::NameTaken {
            name: name.to_owned(),
            kind: "an interface of another kind".to_owned(),
        },
        _ => PlatformError::of(format!("create the interface {name}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_namespace;
    use super::*;

    #[test]
    fn a_missing_node_and_a_denied_node_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("tun");
        assert!(matches!(check_node(missing.to_str().unwrap()), Err(PlatformError::NoTunDevice)));
        // A socket is a node that nobody serves: ENXIO, as of a node without its driver.
        let orphan = directory.path().join("orphan");
        let _listener = std::os::unix::net::UnixListener::bind(&orphan).unwrap();
        assert!(matches!(check_node(orphan.to_str().unwrap()), Err(PlatformError::NoTunDevice)));
        assert!(check_node("/dev/null").is_ok());

        let denied = node_error(Errno::EPERM.into());
        assert!(matches!(denied, PlatformError::TunDeviceDenied));
        assert!(denied.to_string().contains("--device /dev/net/tun"));
    }

    #[test]
    fn without_the_capability_the_error_says_run_as_root() {
        let error = creation_error("peer1", io::Error::from(Errno::EPERM).into());
        assert!(error.to_string().contains("create the interface peer1"), "{error}");
        assert!(error.to_string().contains("run as root"), "{error}");
    }

    #[test]
    fn a_name_with_a_pattern_is_refused() {
        in_namespace(|| async {
            for name in ["tun%d", "", "a/b", "1234567890123456"] {
                assert!(matches!(
                    TunDevice::create(name).err(),
                    Some(PlatformError::InvalidName(_))
                ));
            }
        });
    }

    #[test]
    fn a_name_in_use_is_named_as_such() {
        in_namespace(|| async {
            let first = TunDevice::create("peer1").unwrap();
            assert_eq!(first.name(), "peer1");
            let error = TunDevice::create("peer1").err().unwrap().to_string();
            assert!(error.contains("taken by a TUN device of another process"), "{error}");
            let error = TunDevice::create("lo").err().unwrap().to_string();
            assert!(error.contains("taken by an interface of another kind"), "{error}");
            drop(first);
            TunDevice::create("peer1").expect("the name is free again");
        });
    }
}
