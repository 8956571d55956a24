//! The connection to a broker: TCP, TLS, WebSocket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::super::settings::BrokerAddress;
use super::super::trust;
use crate::dial::Dialer;

/// Bytes that are read at once.
const PIECE: usize = 4096;
/// Longest WebSocket message in bytes, and longest frame; a longer one ends the connection. A broker may put many packets into
/// one, and one with a long message that somebody published: that is no packet for us, but no reason to end either.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Where a broker is and how it is reached.
pub(crate) struct Way {
    /// Makes the connection when there is a proxy.
    pub(crate) dialer: Dialer,
    /// The broker.
    pub(crate) address: BrokerAddress,
    /// Where its name leads; empty when the proxy shall find out.
    pub(crate) found: Vec<SocketAddr>,
    /// Whom TLS trusts, where it is spoken.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Bare = Box<dyn Stream>;

/// A connection to a broker.
pub(crate) enum Wire {
    Bare(Bare, String),
    WebSocket(Box<WebSocketStream<Bare>>, String),
}

/// What comes from the broker. With its name, for errors.
pub(crate) enum Inward {
    Bare(ReadHalf<Bare>, String),
    WebSocket(SplitStream<WebSocketStream<Bare>>, String),
}

/// What goes to the broker.
pub(crate) enum Outward {
    Bare(WriteHalf<Bare>),
    WebSocket(SplitSink<WebSocketStream<Bare>, Message>),
}

/// Connects, with all that the scheme of the broker wants. There is no limit of time in here. Gives the ends
/// of the TCP connection too: there and here.
///
/// # Errors
/// Why it cannot be had, for people.
pub(super) async fn reach(way: &Way) -> Result<((SocketAddr, IpAddr), Wire), String> {
    let Way { dialer, address, found, tls } = way;
    let dialled = if found.is_empty() {
        dialer.dial(&address.parsed_host(), address.port).await
    } else {
        dialer.dial_addresses(found).await
    };
    let stream = dialled.map_err(|error| error.to_string())?;
    let ends = stream.peer_addr().and_then(|there| Ok((there, stream.local_addr()?.ip())));
    let ends = ends.map_err(|error| error.to_string())?;
    let name = address.host.clone();
    let bare: Bare = match tls {
        None => Box::new(stream),
        Some(config) => {
            let host = ServerName::try_from(name.clone())
                .map_err(|_| format!("no certificate can be for {name}"))?;
            let shaken = TlsConnector::from(Arc::clone(config)).connect(host, stream).await;
            Box::new(shaken.map_err(|error| trust::explain(&error, &name))?)
        }
    };
    if !address.scheme.is_websocket() {
        return Ok((ends, Wire::Bare(bare, name)));
    }
    let request = request(address).map_err(|_| "its path cannot be used".to_owned())?;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = PIECE;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = MAX_MESSAGE;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let shaken = client_async_with_config(request, bare, Some(config)).await;
    let (stream, _) = shaken.map_err(|error| explain(error, &name))?;
    Ok((ends, Wire::WebSocket(Box::new(stream), name)))
}

/// What asks for MQTT in WebSocket (MQTT 5, section 6).
fn request(
    address: &BrokerAddress,
) -> Result<Request, tokio_tungstenite::tungstenite::http::Error> {
    let uri = address.uri();
    let host = format!("{}:{}", address.parsed_host(), address.port);
    Request::builder()
        .uri(uri.as_str())
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Protocol", "mqtt")
        .body(())
}

impl Wire {
    /// The two ways, which do not wait for each other.
    pub(super) fn split(self) -> (Inward, Outward) {
        match self {
            Self::Bare(bare, name) => {
                let (inward, outward) = tokio::io::split(bare);
                (Inward::Bare(inward, name), Outward::Bare(outward))
            }
            Self::WebSocket(stream, name) => {
                let (outward, inward) = (*stream).split();
                (Inward::WebSocket(inward, name), Outward::WebSocket(outward))
            }
        }
    }
}

impl Inward {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Why the connection is no more, for people.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Bare(stream, name) => {
                let mut piece = BytesMut::with_capacity(PIECE);
                match stream.read_buf(&mut piece).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(piece.freeze())),
                    Err(error) => Err(broken(&error, name)),
                }
            }
            Self::WebSocket(stream, name) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes)),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    // MQTT 5, section 6: that is an error.
                    Some(Ok(Message::Text(_))) => {
                        return Err("the broker sends text where MQTT should be".to_owned());
                    }
                    Some(Err(
                        WsError::ConnectionClosed
                        | WsError::AlreadyClosed
                        | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                    )) => return Ok(None),
                    Some(Err(error)) => return Err(explain(error, name)),
                }
            },
        }
    }
}

impl Outward {
    /// Whether the broker takes it, as far as known.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Bare(stream) => {
                stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
            }
            Self::WebSocket(sink) => {
                sink.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.is_ok()
            }
        }
    }

    /// Says that there is no more.
    pub(super) async fn close(&mut self) {
        let _ = match self {
            Self::Bare(stream) => stream.shutdown().await.is_ok(),
            Self::WebSocket(sink) => sink.close().await.is_ok(),
        };
    }
}

/// Why a connection broke, for people. A broker may refuse our certificate only when the handshake is over.
fn broken(error: &io::Error, name: &str) -> String {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if is_tls { trust::explain(error, name) } else { format!("connection lost: {error}") }
}

fn explain(error: WsError, name: &str) -> String {
    match error {
        WsError::Http(answer) => format!("the broker refuses WebSocket ({})", answer.status()),
        WsError::Io(error) => broken(&error, name),
        WsError::Capacity(_) => {
            format!("the broker sends a WebSocket message of more than {MAX_MESSAGE} bytes")
        }
        error => format!("WebSocket: {error}"),
    }
}
