//! The certificate that clients are shown: two files, read at start and again when somebody says so.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// What a client that would speak HTTP/2 calls it (RFC 9113 section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";

/// Where certificate and key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and after it those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {told}", file.display())]
pub struct CertificateError {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, and what was expected.
    pub told: String,
}

impl CertificateError {
    fn certificate(file: &Path, told: impl Into<String>) -> Self {
        Self { key: "server.tls.certificate", file: file.to_owned(), told: told.into() }
    }

    fn key(file: &Path, told: impl Into<String>) -> Self {
        Self { key: "server.tls.key", file: file.to_owned(), told: told.into() }
    }
}

/// The certificate of this process; clones are the same.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// One cannot be read, is not what it should be, or does not fit the other.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(Arc::new(read(&files, &provider)?));
        Ok(Self(Arc::new(Shown { files, provider, current })))
    }

    /// Reads both files again, for connections that come from now on. When they are no good, what was good stays.
    ///
    /// # Errors
    /// As [`Certificate::load`].
    pub fn reload(&self) -> Result<(), CertificateError> {
        let Self(shown) = self;
        let read = Arc::new(read(&shown.files, &shown.provider)?);
        *shown.current.write().expect("nobody panics who holds it") = read;
        Ok(())
    }

    /// How a server with this certificate speaks TLS 1.2 and 1.3, and HTTP/2 or HTTP/1.1 over it, as the client likes.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let Self(shown) = self;
        let mut config = ServerConfig::builder_with_provider(shown.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().expect("nobody panics who holds it").clone())
    }
}

fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let CertificateFiles { certificate, key } = files;
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| CertificateError::certificate(certificate, format!("it cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(CertificateError::certificate(certificate, "there is no certificate in it; expected PEM"));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| CertificateError::key(key, format!("no private key can be read from it: {error}")))?;
    let signs = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| CertificateError::key(key, format!("this kind of key is not known: {error}")))?;
    let certified = CertifiedKey::new(chain, signs);
    match certified.keys_match() {
        // Where a key does not tell its public half, clients will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let told = format!("it is not the key of the certificate in {}", certificate.display());
            Err(CertificateError::key(key, told))
        }
        Err(error) => Err(CertificateError::certificate(certificate, format!("it is no certificate: {error}"))),
    }
}
