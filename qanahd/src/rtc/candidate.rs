//! Candidates between our type and the ones of `webrtc`.

use std::net::{IpAddr, SocketAddr};

use qanah_core::signal::{Candidate, CandidateKind, may_be_peer};
use webrtc::peer_connection::{
    RTCIceCandidate, RTCIceCandidateInit, RTCIceCandidateType, RTCIceProtocol,
};

use super::SelectedCandidate;
use super::turn::placeholder;

/// The kind, where it is one that we know.
fn kind(from: RTCIceCandidateType) -> Option<CandidateKind> {
    match from {
        RTCIceCandidateType::Host => Some(CandidateKind::Host),
        RTCIceCandidateType::Srflx => Some(CandidateKind::ServerReflexive),
        RTCIceCandidateType::Prflx => Some(CandidateKind::PeerReflexive),
        RTCIceCandidateType::Relay => Some(CandidateKind::Relayed),
        _ => None,
    }
}

/// A candidate of our own to tell the other side; `None` for what is not UDP.
pub(super) fn from_local(candidate: &RTCIceCandidate) -> Option<Candidate> {
    if candidate.protocol != RTCIceProtocol::Udp || candidate.component != 1 {
        return None;
    }
    let selected = selected(candidate)?;
    Some(Candidate { kind: selected.kind, priority: candidate.priority, address: selected.address })
}

/// One end of a chosen pair.
pub(super) fn selected(candidate: &RTCIceCandidate) -> Option<SelectedCandidate> {
    let address: IpAddr = candidate.address.parse().ok()?;
    Some(SelectedCandidate {
        kind: kind(candidate.typ)?,
        address: SocketAddr::new(address, candidate.port),
    })
}

/// Whether checks may be sent there at all: a peer must not make us send to ourselves, to a group or to nobody.
/// What is sent to a placeholder goes to a server of ours, whoever named it.
pub(super) fn is_sane(address: SocketAddr) -> bool {
    may_be_peer(address) && !placeholder::is_reserved(address.ip())
}

/// What an address of IPv4 has less in the local preference of its priority (RFC 8445, section 5.1.2.1).
const IPV4_LESS: u32 = 0x2000 << 8;

/// The priority of a candidate of the other side, so that of two pairs of one kind that with IPv6 is
/// the better one (RFC 8421, section 4). `webrtc` gives all local candidates of a kind the same; the lesser
/// one of a pair decides.
fn preferred(candidate: &Candidate) -> u32 {
    let local_preference = candidate.priority & 0x00ff_ff00;
    if candidate.address.is_ipv4() && local_preference >= IPV4_LESS {
        candidate.priority - IPV4_LESS
    } else {
        candidate.priority
    }
}

/// A candidate of the other side as `webrtc` wants it (RFC 8839, section 5.1); `None` for an
/// address that no check may go to.
pub(super) fn to_remote(candidate: &Candidate) -> Option<RTCIceCandidateInit> {
    if !is_sane(candidate.address) {
        return None;
    }
    let (foundation, typ) = match candidate.kind {
        CandidateKind::Host => (1, "host"),
        CandidateKind::ServerReflexive => (2, "srflx"),
        CandidateKind::PeerReflexive => (3, "prflx"),
        CandidateKind::Relayed => (4, "relay"),
    };
    Some(RTCIceCandidateInit {
        candidate: format!(
            "candidate:{foundation} 1 udp {} {} {} typ {typ}",
            preferred(candidate),
            candidate.address.ip(),
            candidate.address.port(),
        ),
        sdp_mid: Some(super::sdp::MID.to_owned()),
        ..RTCIceCandidateInit::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_that_no_check_may_go_to() {
        for address in [
            "0.0.0.0:1",
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.1:0",
            "[::]:1",
            "[ff02::1]:1",
            "[::ffff:192.0.2.1]:1",
            "240.0.0.1:3478",
            "240.1.0.0:3478",
            "[100::1]:3478",
            "[100::1:0]:3478",
        ] {
            let candidate = Candidate {
                kind: CandidateKind::Host,
                priority: 1,
                address: address.parse().unwrap(),
            };
            assert!(to_remote(&candidate).is_none(), "{address}");
        }
    }

    #[test]
    fn ipv6_comes_first_among_candidates_of_a_kind() {
        let of = |address: &str, kind, priority| {
            let candidate = Candidate { kind, priority, address: address.parse().unwrap() };
            preferred(&candidate)
        };
        let host = CandidateKind::Host;
        let [four, six] = ["192.0.2.1:1", "[2001:db8::1]:1"].map(|it| of(it, host, 0x7eff_ffff));
        assert!(four < six && six == 0x7eff_ffff);
        // A kind is never taken for a lesser one, whatever the other side says.
        assert!(four > of("[2001:db8::1]:1", CandidateKind::PeerReflexive, 0x6eff_ffff));
        for priority in [0, 1, 0x6e00_0001, IPV4_LESS - 1] {
            assert_eq!(of("192.0.2.1:1", host, priority), priority);
        }
    }

    #[test]
    fn writes_a_candidate_line() {
        let candidate = Candidate {
            kind: CandidateKind::Relayed,
            priority: 77,
            address: "[2001:db8::1]:4000".parse().unwrap(),
        };
        assert_eq!(
            to_remote(&candidate).unwrap().candidate,
            "candidate:4 1 udp 77 2001:db8::1 4000 typ relay"
        );
    }
}
