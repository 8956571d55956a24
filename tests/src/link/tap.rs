//! A TAP device of our own: Ethernet frames with the header of virtio before them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::libc;

use super::frame::{Frame, VNET_LEN};

/// The largest frame there is: a header of virtio, one of Ethernet and an IP packet of 64 KiB.
pub(super) const LARGEST: usize = VNET_LEN + 14 + 65_535;

/// Offloads of `linux/if_tun.h`: checksums, TCP and UDP segmentation. (TCP with ECN goes with them.)
const OFFLOADS: libc::c_uint = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;

mod ioctls {
    #![allow(unsafe_code, missing_docs)]
    use nix::libc;

    // TUNSETIFF takes a pointer, though its number says an integer (tun.c).
    nix::ioctl_write_ptr_bad!(set_interface, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_int!(set_offload, b'T', 208);
}

/// What became of a frame that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has it.
    Taken,
    /// The device is down, as a cable that is not plugged in.
    Down,
    /// There was no room.
    Full,
}

/// The device; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Tap(File);

impl Tap {
    /// Makes a device of that name in the network namespace of this thread.
    pub(super) fn open(name: &str) -> Result<Self> {
        let file = std::os::unix::fs::OpenOptionsExt::custom_flags(
            File::options().read(true).write(true),
            OFlag::O_NONBLOCK.bits(),
        )
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
        let mut chars = [0; libc::IFNAMSIZ];
        ensure!(name.len() < chars.len(), "the name {name} is too long");
        for (to, from) in chars.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::try_from(from)?;
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let request = libc::ifreq {
            ifr_name: chars,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::c_short::try_from(flags)? },
        };
        // SAFETY: the descriptor is open, and the kernel reads one `ifreq` that lives until then.
        #[allow(unsafe_code)]
        unsafe { ioctls::set_interface(file.as_raw_fd(), &raw const request) }
            .context("TUNSETIFF")?;
        // SAFETY: the descriptor is open; the argument is a number.
        #[allow(unsafe_code)]
        unsafe { ioctls::set_offload(file.as_raw_fd(), OFFLOADS.into()) }
            .context("TUNSETOFFLOAD")?;
        Ok(Self(file))
    }

    /// One frame, or `None` when there is none (or the device is down).
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Frame>> {
        match (&self.0).read(buffer) {
            Ok(n) => Ok(buffer.get(..n).and_then(Frame::parse)),
            Err(error) if idle(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a frame over.
    pub(super) fn send(&self, frame: &Frame) -> io::Result<Sent> {
        match (&self.0).write(frame.as_bytes()) {
            Ok(_) => Ok(Sent::Taken),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Sent::Down),
            Err(error) if idle(&error) => Ok(Sent::Full),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nothing to read, no room to write, or the device is down (EIO).
fn idle(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOBUFS))
}
