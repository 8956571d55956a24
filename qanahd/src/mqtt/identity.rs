//! The certificate by which a broker knows us.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use zeroize::Zeroizing;

/// Files larger than this in bytes are something else.
const MAX_FILE: u64 = 1 << 20;
/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub(crate) struct IdentityError {
    file: PathBuf,
    reason: String,
}

impl IdentityError {
    fn new(file: &Path, reason: impl ToString) -> Self {
        Self { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// A certificate and its private key: files.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// A PEM file: our certificate and those that lead to its CA.
    cert_file: PathBuf,
    /// A PEM file.
    key_file: PathBuf,
}

impl Identity {
    /// Looks whether these files can be used.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub(super) fn new(cert_file: &Path, key_file: &Path) -> Result<Self, IdentityError> {
        let identity = Self { cert_file: absolute(cert_file)?, key_file: absolute(key_file)? };
        identity.load()?;
        Ok(identity)
    }

    /// What is in the files now.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else, when others than its owner (root or the user of
    /// the daemon) may read the key, when the key has a password, is of a kind that is not known here, or is that of
    /// another certificate.
    pub(super) fn load(&self) -> Result<Pair, IdentityError> {
        let Self { cert_file, key_file } = self;
        let text = read(cert_file, |_| Ok(()))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|error| IdentityError::new(cert_file, error))?;
        if chain.is_empty() {
            return Err(IdentityError::new(cert_file, "there is no PEM certificate in it"));
        }
        let text = read(key_file, is_private)?;
        let marker = b"ENCRYPTED";
        if text.windows(marker.len()).any(|window| window == marker) {
            let reason = "the key has a password; take it off (openssl pkey -in OLD -out NEW)";
            return Err(IdentityError::new(key_file, reason));
        }
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| IdentityError::new(key_file, "there is no PEM private key in it"))?;
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok((chain, key)),
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let reason = format!("the key is not that of {}", cert_file.display());
                Err(IdentityError::new(key_file, reason))
            }
            Err(error) => Err(IdentityError::new(key_file, error)),
        }
    }
}

/// Our certificate, with those that lead to its CA, and its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn is_private(file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| error.to_string())?;
    if found.mode() & OTHERS != 0 {
        return Err("others may read the key; `chmod 600` it".to_owned());
    }
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err("the key belongs to another user; `chown root` it".to_owned());
    }
    Ok(())
}

fn read(
    path: &Path,
    check: impl Fn(&File) -> Result<(), String>,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let failed = |error: std::io::Error| IdentityError::new(path, error);
    let file = File::open(path).map_err(failed)?;
    check(&file).map_err(|reason| IdentityError::new(path, reason))?;
    // Room from the start: a buffer that grows leaves copies of the key behind.
    let size = file.metadata().map_err(failed)?.len().min(MAX_FILE);
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// The file is opened again at each connect, perhaps from another directory.
fn absolute(path: &Path) -> Result<PathBuf, IdentityError> {
    std::path::absolute(path).map_err(|error| IdentityError::new(path, error))
}
