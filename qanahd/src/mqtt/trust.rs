//! Whom TLS to a broker trusts, and who we are.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::MqttError;
use super::identity::Identity;

/// A CA file larger than this in bytes is not one.
const MAX_CA_FILE: u64 = 1 << 20;

/// Whom to trust, and who we are: files, which are read anew for each connection, because certificates are
/// replaced when they are about to expire.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// A PEM file that is trusted beside the system's certificates.
    pub(super) ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub(super) identity: Option<Identity>,
    /// A file in the place of the system's certificates.
    #[cfg(test)]
    pub(super) system: Option<PathBuf>,
}

impl Trust {
    /// Looks at the file.
    ///
    /// # Errors
    /// When it cannot be read or holds no certificate.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, MqttError> {
        let Some(path) = ca_file else {
            return Ok(Self::default());
        };
        // It is read again later, perhaps from another directory.
        let absolute = std::path::absolute(path)
            .map_err(|source| MqttError::CaFile { path: path.to_owned(), source })?;
        roots(&absolute, &mut RootCertStore::empty())?;
        Ok(Self { ca_file: Some(absolute), ..Self::default() })
    }

    /// TLS 1.2 and 1.3. Chain and name of the broker are verified.
    ///
    /// # Errors
    /// When a file cannot be used any more, or there is nobody to trust.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, MqttError> {
        let mut trusted = RootCertStore::empty();
        self.add_system(&mut trusted);
        if let Some(path) = &self.ca_file {
            roots(path, &mut trusted)?;
        }
        if trusted.is_empty() {
            return Err(MqttError::Nobody);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted);
        Ok(Arc::new(match &self.identity {
            Some(identity) => {
                let (chain, key) = identity.load()?;
                config.with_client_auth_cert(chain, key)?
            }
            None => config.with_no_client_auth(),
        }))
    }

    fn add_system(&self, trusted: &mut RootCertStore) {
        #[cfg(test)]
        if let Some(path) = &self.system {
            return roots(path, trusted).unwrap();
        }
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::debug!(%error, "reading the system's CA certificates");
        }
        trusted.add_parsable_certificates(system.certs);
    }
}

fn roots(path: &Path, trusted: &mut RootCertStore) -> Result<(), MqttError> {
    let failed = |source| MqttError::CaFile { path: path.to_owned(), source };
    let none = || MqttError::NoCertificate { path: path.to_owned() };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_CA_FILE).read_to_end(&mut text).map_err(failed)?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        trusted.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
        found += 1;
    }
    if found == 0 { Err(none()) } else { Ok(()) }
}

/// Why TLS failed, for people.
pub(super) fn explain(error: &io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(error) = inner else {
        return format!("the TLS handshake broke off: {error}");
    };
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return format!("TLS: {error}");
    };
    let why = match wrong {
        CertificateError::UnknownIssuer => {
            "it is not signed by a CA that is trusted here (see --signal-ca)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {host}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is that of a CA; a broker needs one of its own, signed by the CA".to_owned()
        }
        other => format!("it cannot be used: {other}"),
    };
    format!("certificate verify failed: {why}")
}
