//! Which path two sites can have.

use std::fmt;

use super::probe::{Behaviour, Dependence};
use super::{Family, Kind};

/// How packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Straight, perhaps through a punched hole.
    Direct,
    /// Through a TURN server.
    Turn,
    /// Through another peer.
    Relay,
    /// There is none.
    Nothing,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Turn => "TURN",
            Self::Relay => "relay",
            Self::Nothing => "none",
        })
    }
}

/// What the probe must find at a site of this kind (RFC 4787, sections 4.1 and 5).
pub const fn behaviour(kind: Kind) -> Behaviour {
    use Dependence::{Address, AddressAndPort, Independent};
    let (translated, mapping, filtering) = match kind {
        Kind::Open => (false, Independent, Independent),
        Kind::FullCone => (true, Independent, Independent),
        Kind::AddressRestricted => (true, Independent, Address),
        Kind::PortRestricted | Kind::CarrierGrade => (true, Independent, AddressAndPort),
        Kind::Symmetric => (true, AddressAndPort, AddressAndPort),
        Kind::NoUdp => return Behaviour { udp: None, tcp_443: true, tcp_other: true },
        Kind::Only443 => return Behaviour { udp: None, tcp_443: true, tcp_other: false },
    };
    let udp = super::probe::Udp { translated, mapping, filtering };
    Behaviour { udp: Some(udp), tcp_443: true, tcp_other: true }
}

/// Whether a hole can be punched. The side whose mapping differs for each destination cannot tell where
/// it will come from, so the other side must let it in by its address alone, or altogether.
const fn punches(a: Kind, b: Kind) -> bool {
    const fn guessed(mapped: Dependence, filtering: Dependence) -> bool {
        matches!(mapped, Dependence::Independent)
            || !matches!(filtering, Dependence::AddressAndPort)
    }
    match (behaviour(a).udp, behaviour(b).udp) {
        (Some(a), Some(b)) => guessed(a.mapping, b.filtering) && guessed(b.mapping, a.filtering),
        _ => false,
    }
}

/// The best path of two sites, with a TURN server and no other peer.
pub const fn with_turn(a: Kind, b: Kind) -> Path {
    if punches(a, b) { Path::Direct } else { Path::Turn }
}

/// The best path of two sites with a third peer that both can reach, and no TURN server.
pub const fn with_relay(a: Kind, b: Kind) -> Path {
    match (behaviour(a).udp, behaviour(b).udp) {
        (Some(_), Some(_)) if punches(a, b) => Path::Direct,
        (Some(_), Some(_)) => Path::Relay,
        _ => Path::Nothing,
    }
}

/// The best path of two sites without NAT, with a TURN server that has addresses of both families.
pub const fn between(a: Family, b: Family) -> Path {
    match (a, b) {
        (Family::V4, Family::V6) | (Family::V6, Family::V4) => Path::Turn,
        _ => Path::Direct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_punched_where_the_text_books_say_so() {
        use Kind::*;
        let pair = |a, b| {
            assert_eq!(with_turn(a, b), with_turn(b, a), "{a} {b}");
            with_turn(a, b)
        };
        assert_eq!(pair(PortRestricted, PortRestricted), Path::Direct);
        assert_eq!(pair(CarrierGrade, PortRestricted), Path::Direct);
        assert_eq!(pair(Symmetric, AddressRestricted), Path::Direct);
        assert_eq!(pair(Symmetric, FullCone), Path::Direct);
        assert_eq!(pair(Symmetric, PortRestricted), Path::Turn);
        assert_eq!(pair(Symmetric, CarrierGrade), Path::Turn);
        assert_eq!(pair(Symmetric, Symmetric), Path::Turn);
        assert_eq!(pair(NoUdp, Open), Path::Turn);
        assert_eq!(with_relay(Symmetric, Symmetric), Path::Relay);
        assert_eq!(with_relay(Only443, Open), Path::Nothing);
    }
}
