//! Addresses that stand for TURN servers over streams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of all of them; it means nothing.
const PORT: u16 = 3478;
/// Under `invalid`, so that no name of a server is ever like it (RFC 6761, section 6.4).
const SUFFIX: &str = ".stream.invalid";

/// `HOST:PORT` that stands for the server at this place in the settings.
pub(in crate::rtc) fn authority(index: usize) -> String {
    format!("{index}{SUFFIX}:{PORT}")
}

/// What `webrtc` is told for that server.
pub(in crate::rtc) fn url(index: usize) -> String {
    format!("turn:{}", authority(index))
}

/// The addresses of what [`url`] names, when `webrtc` asks for `HOST:PORT`: for sockets of either family.
pub(in crate::rtc) fn addresses(host_port: &str) -> Option<Vec<SocketAddr>> {
    let (host, _) = host_port.rsplit_once(':')?;
    let index: u16 = host.strip_suffix(SUFFIX)?.parse().ok()?;
    Some(of(index).to_vec())
}

/// 240.1.0.0/16 and 100::1:0/112, beside those of [`resolve`](crate::rtc::resolve) in the same prefixes.
fn of(index: u16) -> [SocketAddr; 2] {
    let [high, low] = index.to_be_bytes();
    let v4 = IpAddr::V4(Ipv4Addr::new(240, 1, high, low));
    let v6 = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 1, index));
    [v4, v6].map(|ip| SocketAddr::new(ip, PORT))
}

/// The place of the server that an address stands for.
pub(in crate::rtc) fn index(address: SocketAddr) -> Option<usize> {
    let index = match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [240, 1, high, low] => u16::from_be_bytes([high, low]),
            _ => return None,
        },
        IpAddr::V6(ip) => match ip.segments() {
            [0x100, 0, 0, 0, 0, 0, 1, index] => index,
            _ => return None,
        },
    };
    (address.port() == PORT).then_some(index.into())
}

/// Whether this is an address that can only be a placeholder, here or in `resolve`. Nobody is there: not a
/// peer, and nothing that comes from there came by the network.
pub(in crate::rtc) fn is_reserved(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [240, 0 | 1, ..]),
        // The discard prefix (RFC 6666).
        IpAddr::V6(ip) => matches!(ip.segments(), [0x100, 0, 0, 0, ..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_addresses_and_back() {
        for place in [0, 1, 255, 256, 65_535] {
            let host_port = url(place);
            let found = addresses(host_port.strip_prefix("turn:").unwrap()).unwrap();
            assert!(found[0].is_ipv4() && found[1].is_ipv6());
            for address in found {
                assert_eq!(index(address), Some(place));
                assert!(is_reserved(address.ip()));
            }
        }
        for other in ["example.com:3478", "65536.stream.invalid:1", "stream.invalid:1", "x"] {
            assert_eq!(addresses(other), None);
        }
        for other in ["240.0.0.0:3478", "[100::]:3478", "192.0.2.1:3478", "240.1.0.0:1"] {
            assert_eq!(index(other.parse().unwrap()), None, "{other}");
        }
        assert!(!is_reserved("240.2.0.0".parse().unwrap()));
        assert!(!is_reserved("100:0:0:1::".parse().unwrap()));
    }
}
