//! Tests of whole configurations.

mod errors;
mod examples;
mod good;
mod notes;
mod properties;
mod values;

use super::{Config, ConfigError, Parsed};

/// Keys of RFC 7748, section 6.1.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const BOB_PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
/// Just 32 bytes.
const CAROL_PUBLIC: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn parse(text: &str) -> Result<Parsed, ConfigError> {
    Config::parse("t.conf", text.as_bytes())
}

fn good(text: &str) -> Parsed {
    parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// A configuration with these lines in its `[Interface]` section, from line 3 on.
fn with_interface(lines: &str) -> String {
    format!("[Interface]\nPrivateKey = {ALICE}\n{lines}\n")
}

/// A configuration with these lines in its `[Peer]` section, from line 6 on.
fn with_peer(lines: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {ALICE}\nAddress = 10.0.0.1\n[Peer]\nPublicKey = {BOB_PUBLIC}\n{lines}\n"
    )
}
