//! One stream: connects, passes messages both ways, and ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use qanah_core::servers::Host;
use qanah_core::turn::{Deframer, MAX_MESSAGE};
use rustls::pki_types::ServerName;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::outbox::Outbox;
use super::{Carrier, TurnServer, tls};
use crate::dial::Dialer;
use crate::rtc::health::Health;

/// How long it may take until messages can be sent: name, TCP, proxy and TLS. `webrtc` gives up asking for
/// an allocation after about 8 s.
const OPEN: Duration = Duration::from_secs(10);
/// How long last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes that are read at once.
const READ: usize = 16 * 1024;

/// A message, and the placeholder of the server that it came from.
pub(super) type Inbound = (SocketAddr, BytesMut);

/// What a stream is to do.
pub(super) struct Stream {
    pub(super) server: TurnServer,
    pub(super) dialer: Dialer,
    pub(super) placeholder: SocketAddr,
    pub(super) outbox: Arc<Outbox>,
    pub(super) inbox: mpsc::Sender<Inbound>,
    /// Is told that the stream lives.
    pub(super) health: Health,
}

impl Stream {
    /// Lives until the outbox is closed and empty, or the stream breaks; says why it broke.
    pub(super) async fn run(self) -> Result<(), String> {
        let opened = tokio::select! {
            biased;
            // Nothing was said yet, so there is nobody to say goodbye to.
            () = self.outbox.closed() => return Ok(()),
            opened = tokio::time::timeout(OPEN, self.open()) => opened,
        };
        let carrier =
            opened.map_err(|_| format!("no connection within {} s", OPEN.as_secs()))??;
        self.outbox.open();
        let _live = self.health.stream(&self.server.url());
        tokio::select! {
            // After a goodbye it is nobody's fault.
            ended = self.pump(carrier) => if self.outbox.is_closed() { Ok(()) } else { ended },
            () = self.last_words() => Ok(()),
        }
    }

    async fn last_words(&self) {
        self.outbox.closed().await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    async fn open(&self) -> Result<Box<dyn Carry>, String> {
        let TurnServer { host, port, carrier, .. } = &self.server;
        let stream = self.dialer.dial(host, *port).await.map_err(|error| error.to_string())?;
        let Carrier::Tls(config) = carrier else {
            return Ok(Box::new(stream));
        };
        let name = server_name(host).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| tls::explain(&error, &host.to_string()))?;
        Ok(Box::new(stream))
    }

    async fn pump(&self, carrier: Box<dyn Carry>) -> Result<(), String> {
        let (reader, writer) = tokio::io::split(carrier);
        tokio::select! {
            ended = self.read(reader) => ended,
            ended = self.write(writer) => {
                ended.map_err(|error| format!("the connection broke: {error}"))
            }
        }
    }

    async fn write(&self, mut writer: WriteHalf<Box<dyn Carry>>) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        while self.outbox.take(&mut bytes).await {
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            bytes.clear();
        }
        writer.shutdown().await
    }

    /// Ends when the server ends it, or sends what is no message. When the driver does not keep up, it
    /// waits, and with it the server.
    async fn read(&self, mut reader: ReadHalf<Box<dyn Carry>>) -> Result<(), String> {
        let mut deframer = Deframer::default();
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            // Messages that wait share it, so it is not to be taken anew for each read.
            if buffer.capacity() - buffer.len() < MAX_MESSAGE {
                buffer.reserve(READ);
            }
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
            while let Some(message) =
                deframer.next(&mut buffer).map_err(|error| error.to_string())?
            {
                // Who listened is gone; the last words go on.
                let _ = self.inbox.send((self.placeholder, message)).await;
            }
        }
    }
}

/// The name that the certificate must be for.
fn server_name(host: &Host) -> Result<ServerName<'static>, impl std::error::Error> {
    match host {
        Host::Domain(name) => {
            ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned())
        }
        Host::Ipv4(ip) => Ok(ServerName::IpAddress(std::net::IpAddr::from(*ip).into())),
        Host::Ipv6(ip) => Ok(ServerName::IpAddress(std::net::IpAddr::from(*ip).into())),
    }
}

/// TCP, or TLS over it.
trait Carry: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carry for T {}
