//! How large a packet the beginning of a path takes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt as options;

/// IPv6 and UDP headers, and what DTLS 1.2 with AES-GCM puts around an SCTP packet (13 + 8 + 16), in bytes. Also
/// over IPv4, where it is 20 less: the next connection may find its path over the other one.
const HEADERS: u32 = 40 + 8 + 37;
/// More is not asked of any path: `webrtc` takes no larger datagrams.
const LARGEST_MTU: u32 = 1500;

/// The largest SCTP packet, in bytes, that leaves here for the other end of a path without being cut. The kernel is
/// asked, which knows the interface, the route, and what routers have said of the path.
///
/// # Errors
/// When there is no way from the one address to the other.
pub(crate) fn packet_room(
    local: IpAddr,
    remote: SocketAddr,
    fw_mark: Option<u32>,
) -> io::Result<u16> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    if let Some(mark) = fw_mark {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    // Nothing is sent by this.
    socket.connect(remote)?;
    let mtu = match remote {
        SocketAddr::V4(_) => options::ip_mtu(&socket)?,
        SocketAddr::V6(_) => options::ipv6_mtu(&socket)?,
    };
    Ok(room(mtu))
}

/// SCTP packets have whole multiples of 4 bytes.
fn room(mtu: u32) -> u16 {
    let room = mtu.min(LARGEST_MTU).saturating_sub(HEADERS) & !3;
    u16::try_from(room).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_what_the_headers_leave() {
        assert_eq!([1500, 9000, 1280, 1492, 60].map(room), [1412, 1412, 1192, 1404, 0]);
    }

    #[test]
    fn the_kernel_knows_the_loopback() {
        let loopbacks = [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()];
        for ip in loopbacks {
            match packet_room(ip, SocketAddr::new(ip, 9), None) {
                Ok(room) => assert_eq!(room, 1412, "{ip}"),
                // A machine without IPv6.
                Err(error) => assert!(ip.is_ipv6(), "{error}"),
            }
        }
        let there = SocketAddr::from(([192, 0, 2, 1], 9));
        assert!(packet_room("::1".parse().unwrap(), there, None).is_err());
    }
}
