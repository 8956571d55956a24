//! CONNECT: a tunnel through an HTTP proxy (RFC 9110, section 9.3.6).

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::DialError;

/// Longest head of an answer in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Most headers in it.
const MAX_HEADERS: usize = 64;

/// Asks the proxy at the other end for a tunnel to `target` (`HOST:PORT`). Afterwards the stream is
/// that to the target.
///
/// # Errors
/// When the proxy refuses or does not answer as one.
pub(super) async fn through(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    authorization: Option<Zeroizing<String>>,
) -> Result<(), DialError> {
    let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some(value) = &authorization {
        // Grown once, so that no half of it stays in memory that was given back.
        request.reserve_exact(value.len() + 32);
        request.push_str("Proxy-Authorization: ");
        request.push_str(value);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(DialError::Silent)?;
    let status = read_status(stream).await?;
    let target = target.to_owned();
    match status {
        200..300 => Ok(()),
        // 401 is for servers, but tinyproxy says that of a wrong password.
        401 | 407 if authorization.is_some() => Err(DialError::WrongLogin { status }),
        401 | 407 => Err(DialError::NoLogin { status }),
        400..500 => Err(DialError::Forbidden { target, status }),
        _ => Err(DialError::Unreached { target, status }),
    }
}

/// Reads the head of the answer. What comes with it is read too: after a yes that is an error, after a no it is
/// the page that tells why, and of no use.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, DialError> {
    let mut head = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await.map_err(DialError::Silent)?;
        if length == 0 {
            return Err(DialError::Silent(std::io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(piece.get(..length).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed = answer.parse(&head);
        match (parsed, answer.code) {
            (Ok(httparse::Status::Complete(end)), Some(status)) => {
                // Nobody who is spoken to through a proxy speaks first. With an error there is a page.
                if end < head.len() && (200..300).contains(&status) {
                    return Err(DialError::Answer("there is more in it than there should be"));
                }
                return Ok(status);
            }
            (Ok(_), _) if head.len() > MAX_HEAD => {
                return Err(DialError::Answer("it is too long"));
            }
            (Ok(_), _) => {}
            (Err(_), _) => return Err(DialError::Answer("it is not HTTP")),
        }
    }
}
