//! SDP (RFC 8866, RFC 8829, RFC 8841) between fields and text.
//!
//! Remote descriptions are written from checked fields; local ones are read for the few fields that
//! travel. Candidates are never in the SDP, they are trickled.

use std::fmt::Write as _;

use qanah_core::signal::{DtlsRole, IceCredentials};
use webrtc::peer_connection::{RTCSdpType, RTCSessionDescription};

use super::RtcError;

/// The one media section.
pub(super) const MID: &str = "0";

/// What a remote description says besides the ICE credentials. It holds for the whole connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) fingerprint: [u8; 32],
    pub(super) role: DtlsRole,
    pub(super) max_message_size: u32,
}

/// Whether the text of an SDP may hold it as it is: ice-chars only, and lengths as in RFC 8839, section 5.4.
pub(super) fn is_valid(ice: &IceCredentials) -> bool {
    let ice_chars = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
    };
    (4..=32).contains(&ice.ufrag.len())
        && (22..=64).contains(&ice.pwd.len())
        && ice_chars(&ice.ufrag)
        && ice_chars(&ice.pwd)
}

/// Writes a remote description. `role` is what the `setup` attribute says.
fn write(ice: &IceCredentials, remote: &Remote, role: DtlsRole) -> Result<String, RtcError> {
    if !is_valid(ice) {
        return Err(RtcError::Unsupported("ICE credentials"));
    }
    let mut fingerprint = String::with_capacity(95);
    for (index, byte) in remote.fingerprint.iter().enumerate() {
        let separator = if index == 0 { "" } else { ":" };
        let _ = write!(fingerprint, "{separator}{byte:02x}");
    }
    let setup = match role {
        DtlsRole::ActPass => "actpass",
        DtlsRole::Active => "active",
        DtlsRole::Passive => "passive",
    };
    Ok(format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE {MID}\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n\
         a=ice-options:trickle\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
         c=IN IP4 0.0.0.0\r\n\
         a=mid:{MID}\r\na=sendrecv\r\na=setup:{setup}\r\n\
         a=sctp-port:{port}\r\na=max-message-size:{size}\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n",
        port = super::SCTP_PORT,
        size = remote.max_message_size,
        ufrag = ice.ufrag,
        pwd = ice.pwd,
    ))
}

/// A remote offer.
///
/// # Errors
/// Credentials that are not ice-chars of the right length.
pub(super) fn offer(
    ice: &IceCredentials,
    remote: &Remote,
) -> Result<RTCSessionDescription, RtcError> {
    let text = write(ice, remote, DtlsRole::ActPass)?;
    Ok(RTCSessionDescription::offer(text)?)
}

/// A remote answer.
///
/// # Errors
/// Credentials that are not ice-chars of the right length; an answer that leaves the role open.
pub(super) fn answer(
    ice: &IceCredentials,
    remote: &Remote,
) -> Result<RTCSessionDescription, RtcError> {
    // In an answer to an ICE restart the role is only a formality: DTLS goes on as it is.
    let role = match remote.role {
        DtlsRole::ActPass => DtlsRole::Active,
        role => role,
    };
    let text = write(ice, remote, role)?;
    Ok(RTCSessionDescription::answer(text)?)
}

/// The withdrawal of our own offer (RFC 8829, section 4.1.10.2).
pub(super) fn rollback() -> RTCSessionDescription {
    let mut description = RTCSessionDescription::default();
    description.sdp_type = RTCSdpType::Rollback;
    description
}

/// The value of the first `a=NAME:VALUE` line.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines()
        .filter_map(|line| line.strip_prefix("a="))
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key == name).then_some(value.trim()))
}

/// Our ICE credentials in a local description.
///
/// # Errors
/// When `webrtc` wrote none.
pub(super) fn credentials(sdp: &str) -> Result<IceCredentials, RtcError> {
    let field = |name| attribute(sdp, name).map(str::to_owned);
    let ice = IceCredentials {
        ufrag: field("ice-ufrag").ok_or(RtcError::LocalDescription("ice-ufrag"))?,
        pwd: field("ice-pwd").ok_or(RtcError::LocalDescription("ice-pwd"))?,
    };
    if is_valid(&ice) { Ok(ice) } else { Err(RtcError::LocalDescription("valid ICE credentials")) }
}

/// The SHA-256 fingerprint in a local description.
///
/// # Errors
/// When `webrtc` wrote none, or of another hash.
pub(super) fn fingerprint(sdp: &str) -> Result<[u8; 32], RtcError> {
    const MISSING: RtcError = RtcError::LocalDescription("fingerprint");
    let text = attribute(sdp, "fingerprint")
        .and_then(|value| value.strip_prefix("sha-256 "))
        .ok_or(MISSING)?;
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| MISSING)?;
    bytes.try_into().map_err(|_| MISSING)
}

/// The DTLS role in a local description.
///
/// # Errors
/// When `webrtc` wrote none.
pub(super) fn role(sdp: &str) -> Result<DtlsRole, RtcError> {
    match attribute(sdp, "setup") {
        Some("actpass") => Ok(DtlsRole::ActPass),
        Some("active") => Ok(DtlsRole::Active),
        Some("passive") => Ok(DtlsRole::Passive),
        _ => Err(RtcError::LocalDescription("setup")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        let mut fingerprint = [0; 32];
        for (byte, value) in fingerprint.iter_mut().zip(200..) {
            *byte = value;
        }
        Remote { fingerprint, role: DtlsRole::Passive, max_message_size: 65536 }
    }

    fn ice(ufrag: &str, pwd: &str) -> IceCredentials {
        IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() }
    }

    #[test]
    fn reads_back_what_it_writes() {
        let ice = ice("abcd", "abcdefghijklmnopqrstu+/0");
        let answer = answer(&ice, &remote()).unwrap();
        assert_eq!(credentials(&answer.sdp).unwrap(), ice);
        assert_eq!(fingerprint(&answer.sdp).unwrap(), remote().fingerprint);
        assert_eq!(role(&answer.sdp).unwrap(), DtlsRole::Passive);
        let offer = offer(&ice, &remote()).unwrap();
        assert_eq!(role(&offer.sdp).unwrap(), DtlsRole::ActPass);
    }

    #[test]
    fn lets_no_other_line_in() {
        for (ufrag, pwd) in [
            ("abcd\r\na=x", "abcdefghijklmnopqrstuvwx"),
            ("abcd", "abcdefghijklmnopqrstuvwx\n"),
            ("abc", "abcdefghijklmnopqrstuvwx"),
            ("abcd", "short"),
            ("ab d", "abcdefghijklmnopqrstuvwx"),
        ] {
            assert!(offer(&ice(ufrag, pwd), &remote()).is_err(), "{ufrag:?} {pwd:?}");
            assert!(answer(&ice(ufrag, pwd), &remote()).is_err());
        }
    }
}
