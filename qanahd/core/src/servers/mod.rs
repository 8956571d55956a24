//! Addresses of brokers, STUN and TURN servers and proxies as users write them.
//!
//! Reading them has no effects: no name is looked up here.

mod broker;
#[cfg(test)]
mod broker_tests;
mod host;
mod ice;
mod no_proxy;
mod proxy;
mod userinfo;

use thiserror::Error;

pub use broker::{BrokerScheme, BrokerUrl, DEFAULT_BROKER, SignalServer};
pub(crate) use host::host_and_port;
pub use ice::{DEFAULT_STUN, StunUrl, TurnScheme, TurnTransport, TurnUrl};
pub use no_proxy::NoProxy;
pub use proxy::{ProxyChoice, ProxyUrl};
pub use url::Host;

/// Longest address of a server that is read, in bytes.
pub const MAX_URL_LEN: usize = 2048;

/// Why a text is not the address of a server. Passwords are never quoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}, expected {expected}")]
pub struct ServerError {
    what: String,
    expected: &'static str,
}

impl ServerError {
    fn new(what: impl Into<String>, expected: &'static str) -> Self {
        Self { what: what.into(), expected }
    }
}

/// Why a server cannot be used although its address is understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{server} cannot be used: {why}")]
pub struct Unsupported {
    server: String,
    why: &'static str,
}

/// Refuses what no address holds and what the readers of addresses treat in odd ways: white
/// space and control characters, and great length.
fn check_text(text: &str, expected: &'static str) -> Result<(), ServerError> {
    if text.is_empty() {
        return Err(ServerError::new("it is empty", expected));
    }
    if text.len() > MAX_URL_LEN {
        return Err(ServerError::new("it is longer than 2048 bytes", expected));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(ServerError::new(
            "it contains white space, a control character or a backslash",
            expected,
        ));
    }
    Ok(())
}
