//! The messages of signaling as values. How they look as bytes is `codec`'s business.

use std::fmt;
use std::net::SocketAddr;

use rand_core::CryptoRngCore;

/// Names one attempt to connect and the session that it becomes. Chosen at random by the offerer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

/// A random value that a fresh message must echo: the proof that its sender is alive now.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Challenge(pub [u8; 16]);

macro_rules! random_id {
    ($type:ident) => {
        impl $type {
            /// Draws a new one.
            pub fn random(rng: &mut impl CryptoRngCore) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

random_id!(SessionId);
random_id!(Challenge);

/// One signaling message, after it was opened and parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "I am here": proves freshness, starts everything.
    Hello(Hello),
    /// The first half of a handshake, with a description in it.
    Offer(Offer),
    /// The second half.
    Answer(Answer),
    /// More candidates for a session, or new ICE credentials for it (an ICE restart).
    Candidates(Candidates),
    /// The sender has closed this session.
    Bye(Bye),
    /// Hello, offer, answer or bye of the session that goes by a relay. It has challenges and ids of its
    /// own, so that neither session of a pair disturbs the other.
    Relayed(Box<Message>),
}

/// "I am here."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's current challenge.
    pub challenge: Challenge,
    /// The receiver's challenge, where the sender has heard it.
    pub echo: Option<Challenge>,
    /// The attempt that the sender waits for (answered, not confirmed yet); without one, the
    /// session that it holds to be alive. So a hello does not end what is under way.
    pub session: Option<SessionId>,
}

/// The first half of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the attempt.
    pub session: SessionId,
    /// The answerer's challenge; absent in an offer by hand.
    pub echo: Option<Challenge>,
    /// By hand: for how long the offer is open, in seconds. The answerer waits so long to be
    /// accepted.
    pub lifetime: Option<u32>,
    /// Noise message 1; its payload is a [`Description`].
    pub noise: Vec<u8>,
}

/// The second half of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The session of the offer.
    pub session: SessionId,
    /// Noise message 2; its payload is a [`Description`].
    pub noise: Vec<u8>,
}

/// Candidates that were found after the description was sent, or an ICE restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The session they belong to.
    pub session: SessionId,
    /// 0 for the credentials of the description, one more for each ICE restart.
    pub generation: u32,
    /// The credentials of a generation above 0.
    pub credentials: Option<IceCredentials>,
    /// At most 32.
    pub candidates: Vec<Candidate>,
    /// No more will follow for this generation.
    pub end: bool,
    /// Proof by the session's keys; required where `generation` is above 0.
    pub mac: Option<[u8; 16]>,
}

impl Candidates {
    /// What the MAC of a restart covers: session, generation, and both credentials with their
    /// lengths before them, so that the end of one cannot be read as the start of the next.
    pub fn mac_input(&self) -> Vec<u8> {
        let mut input = self.session.0.to_vec();
        input.extend(self.generation.to_be_bytes());
        let (ufrag, pwd) = self.credentials.as_ref().map_or(("", ""), |ice| (&ice.ufrag, &ice.pwd));
        for text in [ufrag, pwd] {
            // The codec refuses longer ones before a MAC is looked at.
            input.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            input.extend(text.bytes());
        }
        input
    }
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye {
    /// The session that ended.
    pub session: SessionId,
    /// Proof by the session's keys.
    pub mac: [u8; 16],
}

impl Bye {
    /// What the MAC covers: the session id.
    pub fn mac_input(&self) -> Vec<u8> {
        self.session.0.to_vec()
    }
}

/// What each end of a session tells the other in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The receiver index that frames to the sender of this description carry.
    pub index: u32,
    /// What the sender can do.
    pub capabilities: Capabilities,
    /// How to make a data channel to the sender; absent where a relay passes the frames on.
    pub rtc: Option<RtcDescription>,
}

/// What an SDP would say, in its few fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcDescription {
    /// ICE user name fragment and password.
    pub ice: IceCredentials,
    /// SHA-256 of the DTLS certificate.
    pub fingerprint: [u8; 32],
    /// Who begins DTLS.
    pub role: DtlsRole,
    /// SCTP port in the DTLS association.
    pub sctp_port: u16,
    /// Largest data channel message that the sender takes, in bytes.
    pub max_message_size: u32,
    /// Largest SCTP packet that the sender will send, in bytes, where that is more than fits every
    /// path and is to be proved first.
    pub packet_size: Option<u16>,
    /// Candidates known so far; at most 32.
    pub candidates: Vec<Candidate>,
}

/// ICE user name fragment and password: ice-chars only (RFC 8839, section 5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 32 characters.
    pub ufrag: String,
    /// 22 to 64 characters.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({}, redacted)", self.ufrag)
    }
}

/// Who begins the DTLS handshake (RFC 8842).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// Either; only an offer says so.
    ActPass,
    /// The sender of the description begins.
    Active,
    /// The receiver of the description begins.
    Passive,
}

/// What a peer can do beyond one sealed IP packet a frame. All zeros is a valid, plain peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Largest frame the peer opens, in bytes; 0 means: one packet of the tunnel's MTU.
    pub max_frame: u32,
    /// Most IP packets in one frame; 0 means one.
    pub max_packets: u16,
    /// Takes whole TCP segments (offload frames).
    pub tcp_segments: bool,
    /// Takes whole UDP segments (offload frames).
    pub udp_segments: bool,
    /// Takes sealed datagrams beside the data channel.
    pub datagrams: bool,
    /// Passes frames on for others.
    pub relay: bool,
    /// Takes a new handshake inside the session.
    pub rekey: bool,
    /// Passes signaling on for others.
    pub mesh_signaling: bool,
    /// Lets a session go that carries nothing. Only where both ends say so is one ended for that.
    pub lazy: bool,
    /// Takes offers of sessions with larger SCTP packets, and pings that are as large.
    pub path_mtu: bool,
}

/// What kind of address a candidate is (RFC 8445, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of the machine itself.
    Host,
    /// The address that a STUN server saw.
    ServerReflexive,
    /// The address that a peer saw.
    PeerReflexive,
    /// An address at a TURN server.
    Relayed,
}

/// One UDP candidate of component 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its kind.
    pub kind: CandidateKind,
    /// Its ICE priority.
    pub priority: u32,
    /// Where it is reached.
    pub address: SocketAddr,
}
