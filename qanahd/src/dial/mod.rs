//! Outgoing TCP connections: straight, or through an HTTP proxy.
//!
//! Names are looked up by a [`Resolver`], so that no lookup can hold up the runtime. With a proxy the
//! name of the server is not looked up here at all: the proxy does it, and where only a proxy leads
//! out there is often no DNS either.

mod connect;
mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

use qanah_core::servers::{Host, ProxyChoice};
use tokio::net::TcpStream;

use crate::rtc::Resolver;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name is not known.
    #[error("cannot find the address of {0}")]
    Name(String),
    /// No address of it takes a connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The name of the proxy is not known, or it takes no connection.
    #[error("the proxy {proxy}: {error}")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
        /// Why it is of no use.
        error: Box<DialError>,
    },
    /// The proxy did not answer as a proxy does, or not at all.
    #[error("its answer cannot be used: {0}")]
    Answer(&'static str),
    /// It closed the connection, or that broke.
    #[error("no answer: {0}")]
    Silent(#[source] io::Error),
    /// It was given no password.
    #[error("it wants a user and a password ({status}); write them into its address")]
    NoLogin {
        /// The status of HTTP.
        status: u16,
    },
    /// It does not know this user with this password.
    #[error("it does not accept the user and the password ({status})")]
    WrongLogin {
        /// The status of HTTP.
        status: u16,
    },
    /// It forbids it.
    #[error("it does not let us connect to {target} ({status})")]
    Forbidden {
        /// Where to.
        target: String,
        /// The status of HTTP.
        status: u16,
    },
    /// It cannot do it.
    #[error("it cannot reach {target} ({status})")]
    Unreached {
        /// Where to.
        target: String,
        /// The status of HTTP.
        status: u16,
    },
}

/// Makes connections. Clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Dialer {
    /// Which connections go through a proxy.
    pub(crate) proxies: ProxyChoice,
    /// Looks up names.
    pub(crate) resolver: Resolver,
    /// Firewall mark of all packets (`SO_MARK`).
    pub(crate) fw_mark: Option<u32>,
}

impl Dialer {
    /// Whether connections to this server go through a proxy.
    pub(crate) fn is_proxied(&self, host: &Host, port: u16) -> bool {
        self.proxies.to(host, port).is_some()
    }

    /// Connects. There is no limit of time in here but those of the kernel; dropping the future ends
    /// the attempt.
    ///
    /// # Errors
    /// See [`DialError`].
    pub(crate) async fn dial(&self, host: &Host, port: u16) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.proxies.to(host, port) else {
            return self.straight(host, port).await;
        };
        let through = async {
            let mut stream = self.straight(proxy.host(), proxy.port()).await?;
            let target = format!("{host}:{port}");
            connect::through(&mut stream, &target, proxy.authorization()).await?;
            Ok(stream)
        };
        through.await.map_err(|error: DialError| DialError::Proxy {
            proxy: proxy.to_string(),
            error: Box::new(error),
        })
    }

    /// Connects to the first of these addresses that answers, in this order, without a proxy. As for time, see
    /// [`dial`](Self::dial).
    ///
    /// # Errors
    /// See [`DialError::Connect`].
    pub(crate) async fn dial_addresses(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<TcpStream, DialError> {
        tcp::connect_any(addresses, self.fw_mark).await.map_err(DialError::Connect)
    }

    async fn straight(&self, host: &Host, port: u16) -> Result<TcpStream, DialError> {
        let addresses = self.resolver.wait_for(&format!("{host}:{port}")).await;
        let mut addresses = addresses.map_err(|_| DialError::Name(host.to_string()))?.to_vec();
        addresses.sort_by_key(SocketAddr::is_ipv4);
        self.dial_addresses(&addresses).await
    }
}
