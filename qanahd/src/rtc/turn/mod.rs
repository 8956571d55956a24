//! TURN servers (RFC 8656): over UDP by `webrtc` itself, over TCP and TLS by streams of ours.
//!
//! `webrtc` skips every TURN server that is not spoken to over UDP. So it is told of such a server as if it
//! were one over UDP, at an address that does not exist ([`placeholder`]). What it sends there, our socket
//! gives to a stream to the real server ([`streams`]), and what comes out of that the socket gives back
//! as if it came from the placeholder. One stream for each server and connection: an allocation belongs
//! to its stream, so peers cannot share one.

mod outbox;
pub(super) mod placeholder;
mod stream;
pub(super) mod streams;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::SystemTime;

use qanah_core::servers::Host;
use qanah_core::turn::time_limited;
use rustls::ClientConfig;
use zeroize::Zeroizing;

pub(crate) use self::tls::{TrustError, client_config};

/// A TURN server and how to log in.
#[derive(Clone)]
pub(crate) struct TurnServer {
    /// Its host.
    pub(crate) host: Host,
    /// Its port.
    pub(crate) port: u16,
    /// What carries the messages.
    pub(crate) carrier: Carrier,
    /// How to log in.
    pub(crate) login: Login,
}

/// What carries the messages to a TURN server.
#[derive(Clone)]
pub(crate) enum Carrier {
    /// Datagrams.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS, with these certificates trusted.
    Tls(Arc<ClientConfig>),
}

/// How to log in at a TURN server.
#[derive(Clone)]
pub(crate) enum Login {
    /// A user and a password.
    Password {
        /// User name.
        username: String,
        /// Password.
        credential: Zeroizing<String>,
    },
    /// A secret that the server has too, from which a password is made for each connection.
    Secret {
        /// What stands in the user name beside the time.
        name: Option<String>,
        /// The secret.
        secret: Zeroizing<String>,
    },
}

impl TurnServer {
    /// Its URL, as users write it (RFC 7065). It holds no secret.
    pub(crate) fn url(&self) -> String {
        let (scheme, transport) = match self.carrier {
            Carrier::Udp => ("turn", "udp"),
            Carrier::Tcp => ("turn", "tcp"),
            Carrier::Tls(_) => ("turns", "tcp"),
        };
        format!("{scheme}:{}:{}?transport={transport}", self.host, self.port)
    }

    /// Whether its messages go over a stream of ours.
    pub(crate) const fn is_stream(&self) -> bool {
        !matches!(self.carrier, Carrier::Udp)
    }

    /// Whether its passwords are made from a secret, and end.
    pub(super) const fn has_secret(&self) -> bool {
        matches!(self.login, Login::Secret { .. })
    }

    /// User name and password for a connection that is made now.
    pub(super) fn credentials(&self) -> (String, String) {
        match &self.login {
            Login::Password { username, credential } => {
                (username.clone(), credential.as_str().to_owned())
            }
            Login::Secret { name, secret } => {
                // A clock before 1970 gives a password that has ended; the server says so.
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let made = time_limited(secret, name.as_deref(), now.unwrap_or_default());
                (made.username, made.credential.as_str().to_owned())
            }
        }
    }
}
