//! WireGuard configurations for the nodes of a lab.

use std::fmt;

use qanah_core::key::{PublicKey, SecretKey};
use rand_core::{OsRng, RngCore};

/// A key pair in text form.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Private key, base64.
    pub private: String,
    /// Public key, base64.
    pub public: String,
}

impl Identity {
    /// Makes a new one.
    pub fn generate() -> Self {
        let secret = SecretKey::generate(&mut OsRng);
        Self { private: base64(*secret.expose()), public: secret.public_key().to_string() }
    }
}

/// A new preshared key, base64.
pub fn preshared_key() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    base64(bytes)
}

/// All 32-byte keys have the same text form, and that of public keys is the one that prints.
fn base64(bytes: [u8; 32]) -> String {
    PublicKey::from_bytes(bytes).to_string()
}

/// One configuration file.
#[derive(Debug, Clone)]
pub struct Conf {
    /// Stem of the file and name of the interface.
    pub name: String,
    /// `PrivateKey`.
    pub private: String,
    /// `Address` lines.
    pub addresses: Vec<String>,
    /// More lines of `[Interface]`.
    pub extra: Vec<String>,
    /// The `[Peer]` sections.
    pub peers: Vec<PeerConf>,
}

/// One `[Peer]`.
#[derive(Debug, Clone)]
pub struct PeerConf {
    /// `# Name =`.
    pub name: String,
    /// `PublicKey`.
    pub public: String,
    /// `PresharedKey`.
    pub preshared: Option<String>,
    /// `AllowedIPs`.
    pub allowed: Vec<String>,
}

impl fmt::Display for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[Interface]\nPrivateKey = {}", self.private)?;
        for address in &self.addresses {
            writeln!(f, "Address = {address}")?;
        }
        for line in &self.extra {
            writeln!(f, "{line}")?;
        }
        for peer in &self.peers {
            writeln!(f, "\n[Peer]\n# Name = {}\nPublicKey = {}", peer.name, peer.public)?;
            if let Some(key) = &peer.preshared {
                writeln!(f, "PresharedKey = {key}")?;
            }
            writeln!(f, "AllowedIPs = {}", peer.allowed.join(", "))?;
        }
        Ok(())
    }
}

/// The inner IPv4 address of node `n`, counted from 1.
pub fn inner4(n: usize) -> String {
    format!("10.0.0.{n}")
}

/// The inner IPv6 address of node `n`, counted from 1.
pub fn inner6(n: usize) -> String {
    format!("fd00::{n}")
}

/// The name of the tunnel of node `n`, counted from 1.
pub fn name(n: usize) -> String {
    format!("peer{n}")
}

/// Configurations of a full mesh: everybody knows everybody.
pub fn mesh(identities: &[Identity]) -> Vec<Conf> {
    let numbered = || identities.iter().zip(1..);
    numbered()
        .map(|(own, n)| Conf {
            name: name(n),
            private: own.private.clone(),
            addresses: vec![format!("{}/24", inner4(n)), format!("{}/64", inner6(n))],
            extra: Vec::new(),
            peers: numbered()
                .filter(|(_, m)| *m != n)
                .map(|(other, m)| PeerConf {
                    name: name(m),
                    public: other.public.clone(),
                    preshared: None,
                    allowed: vec![format!("{}/32", inner4(m)), format!("{}/128", inner6(m))],
                })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_names_every_other_peer() {
        let identities: Vec<_> = (0..3).map(|_| Identity::generate()).collect();
        let confs = mesh(&identities);
        let text = confs[1].to_string();
        assert!(text.starts_with("[Interface]\nPrivateKey = "));
        assert!(text.contains("Address = 10.0.0.2/24\nAddress = fd00::2/64\n"));
        assert!(text.contains(&identities[2].public) && !text.contains(&identities[2].private));
        assert!(text.contains("AllowedIPs = 10.0.0.3/32, fd00::3/128"));
        assert_eq!(text.matches("[Peer]").count(), 2);
        assert_eq!(preshared_key().len(), 44);
    }
}
