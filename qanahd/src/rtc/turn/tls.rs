//! Whom TLS to a TURN server trusts.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// A CA file larger than this in bytes is not one.
const MAX_CA_FILE: u64 = 1 << 20;

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The CA file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA file is something else.
    #[error("{} holds no PEM certificate that can be used: {reason}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is nobody to trust.
    #[error(
        "the system has no CA certificates; install them (Debian: ca-certificates), or give those of \
         the server"
    )]
    Nobody,
    /// TLS itself.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 with the system's CA certificates and those of a file beside them. Chain and name of
/// the server are verified.
///
/// # Errors
/// See [`TrustError`].
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "reading the system's CA certificates");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        for certificate in read(path)? {
            let bad = |error: rustls::Error| no_certificate(path, error);
            roots.add(certificate).map_err(bad)?;
        }
    }
    if roots.is_empty() {
        return Err(TrustError::Nobody);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn no_certificate(path: &Path, reason: impl ToString) -> TrustError {
    TrustError::NoCertificate { path: path.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_CA_FILE).read_to_end(&mut text).map_err(failed)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(no_certificate(path, "there is no `-----BEGIN CERTIFICATE-----` in it")),
        Err(error) => Err(no_certificate(path, error)),
    }
}

/// Why a handshake failed, for people.
pub(super) fn explain(error: &std::io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(error) = inner else {
        return format!("the TLS handshake broke off: {error}");
    };
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return format!("the TLS handshake failed: {error}");
    };
    match wrong {
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by a CA that is trusted here (see --turn-ca)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {host}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}
