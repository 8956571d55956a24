//! The TUN device of a tunnel.
//!
//! The device is not persistent: the kernel removes it, with its addresses and routes, when the
//! last descriptor closes. That covers `kill -9` (see [`super::cleanup`]).

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{readv, writev};
use qanah_core::frame::SegmentKind;
use qanah_core::offload::{VIRTIO_HEADER_LEN, VirtioHeader};
use qanah_core::plan::is_interface_name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::PlatformError;

/// The device node of the TUN driver.
const TUN_NODE: &str = "/dev/net/tun";

/// Largest packet that a device gives, in bytes: where the kernel leaves the cutting to us it is larger than the MTU.
pub(crate) const MAX_READ: usize = 65_535;

/// What may be left to whoever has the packet next (`linux/if_tun.h`).
mod offload {
    pub(super) const CHECKSUM: i32 = 0x01;
    pub(super) const TCP: i32 = 0x02 | 0x04;
    /// Since Linux 6.2.
    pub(super) const UDP: i32 = 0x20 | 0x40;
    nix::ioctl_write_int_bad!(tunsetoffload, nix::request_code_write!(b'T', 208, size_of::<u32>()));
}

/// An open TUN device. A read or a write is one IP packet and the header that says what it lacks: see
/// [`qanah_core::offload`].
///
/// All methods take `&self`: share it by `Rc` or `Arc` between the tasks that read and write.
/// It belongs to the runtime on which it was created.
pub(crate) struct TunDevice {
    /// Not the crate's own asynchronous device: that one waits for `EPOLLIN` alone, and a device
    /// that is deleted says `EPOLLERR`, so its reader would wait for ever.
    inner: AsyncFd<tun::Device>,
    name: String,
    /// What the kernel leaves to us, and does for us with what we write.
    offloads: AtomicI32,
    mtu: AtomicUsize,
}

/// A packet that was read: how long it is, and what it lacks, if the kernel has said something known.
pub(crate) type Read = (usize, Option<VirtioHeader>);

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
            platform.ensure_root_privileges(false).vnet_hdr(true);
        });
        let device = tun::create(&config).map_err(|error| creation_error(name, error))?;
        let inner = register(device).map_err(|error| {
            PlatformError::of(format!("wait for packets of the interface {name}"), error)
        })?;
        let device = Self {
            inner,
            name: name.to_owned(),
            offloads: AtomicI32::new(0),
            mtu: AtomicUsize::new(MAX_READ),
        };
        device.offloads.store(device.agree_on_offloads(), Ordering::Relaxed);
        Ok(device)
    }

    /// As much as this kernel can. Without any, all packets are whole and within the MTU.
    fn agree_on_offloads(&self) -> i32 {
        use offload::{CHECKSUM, TCP, UDP, tunsetoffload};
        let fd = self.inner.get_ref().as_raw_fd();
        // SAFETY: the call takes a number and changes the device behind the descriptor, which is open.
        #[allow(unsafe_code)]
        let takes = |offloads: &i32| unsafe { tunsetoffload(fd, *offloads) }.is_ok();
        [CHECKSUM | TCP | UDP, CHECKSUM | TCP, CHECKSUM].into_iter().find(takes).unwrap_or(0)
    }

    /// Notes the MTU that the interface was given, in bytes.
    pub(crate) fn note_mtu(&self, mtu: u32) {
        self.mtu.store(usize::try_from(mtu).unwrap_or(MAX_READ), Ordering::Relaxed);
    }

    /// The MTU, in bytes: packets that are longer do not pass. Of a device whose MTU nobody noted: any.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Whether the kernel cuts up packets of this kind that are written.
    pub(crate) fn cuts(&self, kind: SegmentKind) -> bool {
        let needed = match kind {
            SegmentKind::Tcp => offload::TCP,
            SegmentKind::Udp => offload::UDP,
        };
        self.offloads.load(Ordering::Relaxed) & needed == needed
    }

    /// As on a kernel that can do nothing of it.
    #[cfg(test)]
    pub(crate) fn forget_offloads(&self) {
        self.offloads.store(0, Ordering::Relaxed);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device owns its descriptor, which stays open for as long as the device is borrowed here.
        #[allow(unsafe_code)]
        unsafe {
            BorrowedFd::borrow_raw(self.inner.get_ref().as_raw_fd())
        }
    }

    /// The name of the interface.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Wait for a packet from the kernel. A packet longer than `buf` is cut: give [`MAX_READ`]. May be cancelled
    /// without losing a packet.
    ///
    /// # Errors
    /// Whatever the kernel says; `EBADFD` once the interface was deleted, and then for ever.
    pub(crate) async fn recv(&self, buf: &mut [u8]) -> io::Result<Read> {
        loop {
            let mut ready = self.inner.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(result) = ready.try_io(|_| self.try_recv(buf)) {
                return result;
            }
        }
    }

    /// Whether a packet of the kernel waits to be read.
    pub(crate) fn has_packet(&self) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::ZERO);
        let readable =
            |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        ready.is_ok_and(|count| count > 0) && fds.iter().any(readable)
    }

    /// A packet that is waiting already, or [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<Read> {
        let mut header = [0; VIRTIO_HEADER_LEN];
        let read = readv(self.fd(), &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buf)])?;
        Ok(match read.checked_sub(VIRTIO_HEADER_LEN) {
            Some(len) => (len, VirtioHeader::from_bytes(header)),
            None => (0, None),
        })
    }

    /// Hand one IP packet to the kernel. Never waits: the kernel takes the packet or drops it.
    ///
    /// # Errors
    /// `EINVAL` where the first nibble is no IP version, `EIO` while the interface is down,
    /// `EBADFD` once it was deleted. The packet is lost; count it and go on.
    pub(crate) fn try_send(&self, packet: &[u8]) -> io::Result<()> {
        self.try_send_unfinished(VirtioHeader::WHOLE, packet)
    }

    /// The same with a packet that lacks something. The header is to come from
    /// [`qanah_core::offload::hand_back`], and from nowhere else.
    ///
    /// # Errors
    /// As [`Self::try_send`], and `EINVAL` where header and packet do not fit together.
    pub(crate) fn try_send_unfinished(
        &self,
        header: VirtioHeader,
        packet: &[u8],
    ) -> io::Result<()> {
        let header = header.to_bytes();
        let written = writev(self.fd(), &[IoSlice::new(&header), IoSlice::new(packet)])?;
        if written == header.len() + packet.len() {
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
