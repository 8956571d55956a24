//! Descriptions and candidates as bytes (PROTOCOL.md, sections 4.2 and 4.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use prost::Message as _;

use super::{MAX_CANDIDATES, MAX_DESCRIPTION, Malformed};
use crate::signal::message::{
    Candidate, CandidateKind, Capabilities, Description, DtlsRole, IceCredentials, RtcDescription,
};

/// One sealed packet of the smallest MTU that IPv6 allows (1280 bytes, 16 header, 16 tag): who
/// takes less is no peer.
const MIN_MESSAGE_SIZE: u32 = 1312;

#[derive(Clone, PartialEq, prost::Message)]
struct WireDescription {
    #[prost(string, tag = "1")]
    ufrag: String,
    #[prost(string, tag = "2")]
    pwd: String,
    #[prost(bytes = "vec", tag = "3")]
    fingerprint: Vec<u8>,
    #[prost(uint32, tag = "4")]
    role: u32,
    #[prost(uint32, tag = "5")]
    sctp_port: u32,
    #[prost(uint32, tag = "6")]
    max_message_size: u32,
    #[prost(fixed32, tag = "7")]
    index: u32,
    #[prost(message, optional, tag = "8")]
    capabilities: Option<WireCapabilities>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    candidates: Vec<Vec<u8>>,
    #[prost(uint32, tag = "10")]
    packet_size: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCapabilities {
    #[prost(uint32, tag = "1")]
    max_frame: u32,
    #[prost(uint32, tag = "2")]
    max_packets: u32,
    #[prost(bool, tag = "3")]
    tcp_segments: bool,
    #[prost(bool, tag = "4")]
    udp_segments: bool,
    #[prost(bool, tag = "5")]
    datagrams: bool,
    #[prost(bool, tag = "6")]
    relay: bool,
    #[prost(bool, tag = "7")]
    rekey: bool,
    #[prost(bool, tag = "8")]
    mesh_signaling: bool,
    #[prost(bool, tag = "9")]
    lazy: bool,
    #[prost(bool, tag = "10")]
    path_mtu: bool,
}

impl From<Capabilities> for WireCapabilities {
    fn from(own: Capabilities) -> Self {
        Self {
            max_frame: own.max_frame,
            max_packets: own.max_packets.into(),
            tcp_segments: own.tcp_segments,
            udp_segments: own.udp_segments,
            datagrams: own.datagrams,
            relay: own.relay,
            rekey: own.rekey,
            mesh_signaling: own.mesh_signaling,
            lazy: own.lazy,
            path_mtu: own.path_mtu,
        }
    }
}

impl From<WireCapabilities> for Capabilities {
    fn from(wire: WireCapabilities) -> Self {
        Self {
            max_frame: wire.max_frame,
            // A peer that takes more packets in a frame than we can count takes many.
            max_packets: u16::try_from(wire.max_packets).unwrap_or(u16::MAX),
            tcp_segments: wire.tcp_segments,
            udp_segments: wire.udp_segments,
            datagrams: wire.datagrams,
            relay: wire.relay,
            rekey: wire.rekey,
            mesh_signaling: wire.mesh_signaling,
            lazy: wire.lazy,
            path_mtu: wire.path_mtu,
        }
    }
}

/// Turns a description into the payload of a Noise message.
pub(crate) fn encode_description(description: &Description) -> Result<Vec<u8>, Malformed> {
    let mut wire = WireDescription {
        index: description.index,
        capabilities: (description.capabilities != Capabilities::default())
            .then(|| description.capabilities.into()),
        ..WireDescription::default()
    };
    if let Some(rtc) = &description.rtc {
        check_rtc(rtc)?;
        wire.ufrag.clone_from(&rtc.ice.ufrag);
        wire.pwd.clone_from(&rtc.ice.pwd);
        wire.fingerprint = rtc.fingerprint.to_vec();
        wire.role = match rtc.role {
            DtlsRole::ActPass => 0,
            DtlsRole::Active => 1,
            DtlsRole::Passive => 2,
        };
        wire.sctp_port = rtc.sctp_port.into();
        wire.max_message_size = rtc.max_message_size;
        wire.packet_size = rtc.packet_size.unwrap_or_default().into();
        wire.candidates = write_candidates(&rtc.candidates);
    }
    let bytes = wire.encode_to_vec();
    if bytes.len() > MAX_DESCRIPTION {
        return Err(Malformed("the description is too long"));
    }
    Ok(bytes)
}

/// Reads the payload of a Noise message.
pub(crate) fn decode_description(bytes: &[u8]) -> Result<Description, Malformed> {
    if bytes.len() > MAX_DESCRIPTION {
        return Err(Malformed("the description is too long"));
    }
    let wire =
        WireDescription::decode(bytes).map_err(|_| Malformed("the description is not protobuf"))?;
    let is_bare = WireDescription { index: 0, capabilities: None, ..wire.clone() }
        == WireDescription::default();
    Ok(Description {
        index: wire.index,
        capabilities: wire.capabilities.clone().unwrap_or_default().into(),
        rtc: if is_bare { None } else { Some(read_rtc(wire)?) },
    })
}

fn read_rtc(wire: WireDescription) -> Result<RtcDescription, Malformed> {
    let rtc = RtcDescription {
        ice: IceCredentials { ufrag: wire.ufrag, pwd: wire.pwd },
        fingerprint: wire
            .fingerprint
            .try_into()
            .map_err(|_| Malformed("the fingerprint is not 32 bytes"))?,
        role: match wire.role {
            0 => DtlsRole::ActPass,
            1 => DtlsRole::Active,
            2 => DtlsRole::Passive,
            _ => return Err(Malformed("unknown DTLS role")),
        },
        sctp_port: u16::try_from(wire.sctp_port)
            .map_err(|_| Malformed("the SCTP port is above 65535"))?,
        max_message_size: wire.max_message_size,
        // More than an IP packet can hold is as good as that.
        packet_size: match wire.packet_size {
            0 => None,
            size => Some(u16::try_from(size).unwrap_or(u16::MAX)),
        },
        candidates: read_candidates(&wire.candidates)?,
    };
    check_rtc(&rtc)?;
    Ok(rtc)
}

fn check_rtc(rtc: &RtcDescription) -> Result<(), Malformed> {
    check_credentials(&rtc.ice)?;
    if rtc.sctp_port == 0 {
        return Err(Malformed("the SCTP port is 0"));
    }
    if rtc.max_message_size < MIN_MESSAGE_SIZE {
        return Err(Malformed("the largest message is below 1312 bytes"));
    }
    if rtc.candidates.len() > MAX_CANDIDATES {
        return Err(Malformed("more than 32 candidates"));
    }
    Ok(())
}

/// Letters, digits, `+` and `/` only (RFC 8839, section 5.4): the text goes into an SDP template,
/// so a line break in it would be a line of a stranger.
pub(super) fn check_credentials(ice: &IceCredentials) -> Result<(), Malformed> {
    let fits = |text: &str, min, max| {
        (min..=max).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
    };
    if !fits(&ice.ufrag, 4, 32) {
        return Err(Malformed("the ICE user name fragment is not 4 to 32 ice-chars"));
    }
    if !fits(&ice.pwd, 22, 64) {
        return Err(Malformed("the ICE password is not 22 to 64 ice-chars"));
    }
    Ok(())
}

impl Candidate {
    /// Whether a peer may name this address: [`may_be_peer`].
    ///
    /// A candidate that is not usable is neither sent nor taken; the message around it is.
    pub fn is_usable(&self) -> bool {
        may_be_peer(self.address)
    }
}

/// Whether a peer may be at this address: no port 0, and nothing that is unspecified, loopback, multicast, broadcast or
/// IPv4 in the disguise of IPv6 (which would dodge these rules). Nothing is sent elsewhere because a peer says so.
pub fn may_be_peer(address: SocketAddr) -> bool {
    let is_good = match address.ip() {
        IpAddr::V4(v4) => {
            let this_network = v4.octets().starts_with(&[0]);
            !(this_network || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let v4_compatible = v6.octets().starts_with(&[0; 12]);
            !(v4_compatible || v6.to_ipv4_mapped().is_some() || v6.is_multicast())
        }
    };
    is_good && address.port() != 0
}

/// Kind, priority, address (4 or 16 bytes), port. The scope of a link-local address means nothing
/// to others and is left out.
pub(super) fn write_candidates(candidates: &[Candidate]) -> Vec<Vec<u8>> {
    candidates
        .iter()
        .filter(|candidate| candidate.is_usable())
        .map(|candidate| {
            let mut bytes = vec![match candidate.kind {
                CandidateKind::Host => 1,
                CandidateKind::ServerReflexive => 2,
                CandidateKind::PeerReflexive => 3,
                CandidateKind::Relayed => 4,
            }];
            bytes.extend(candidate.priority.to_be_bytes());
            match candidate.address.ip() {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
            bytes.extend(candidate.address.port().to_be_bytes());
            bytes
        })
        .collect()
}

/// The cap counts before anything is left out: a flood is no less a flood for being useless.
pub(super) fn read_candidates(wire: &[Vec<u8>]) -> Result<Vec<Candidate>, Malformed> {
    if wire.len() > MAX_CANDIDATES {
        return Err(Malformed("more than 32 candidates"));
    }
    let mut candidates = Vec::with_capacity(wire.len());
    for bytes in wire {
        candidates.extend(read_candidate(bytes)?.filter(Candidate::is_usable));
    }
    Ok(candidates)
}

/// `None` for a kind that is not known here.
fn read_candidate(bytes: &[u8]) -> Result<Option<Candidate>, Malformed> {
    const SHAPE: Malformed = Malformed("a candidate has a wrong length");
    let (kind, rest) = bytes.split_first().ok_or(SHAPE)?;
    let kind = match kind {
        1 => CandidateKind::Host,
        2 => CandidateKind::ServerReflexive,
        3 => CandidateKind::PeerReflexive,
        4 => CandidateKind::Relayed,
        _ => return Ok(None),
    };
    let (priority, rest) = rest.split_first_chunk::<4>().ok_or(SHAPE)?;
    let (address, port) = rest.split_last_chunk::<2>().ok_or(SHAPE)?;
    let address = if let Ok(v4) = <[u8; 4]>::try_from(address) {
        Ipv4Addr::from(v4).into()
    } else if let Ok(v6) = <[u8; 16]>::try_from(address) {
        Ipv6Addr::from(v6).into()
    } else {
        return Err(SHAPE);
    };
    Ok(Some(Candidate {
        kind,
        priority: u32::from_be_bytes(*priority),
        address: SocketAddr::new(address, u16::from_be_bytes(*port)),
    }))
}
