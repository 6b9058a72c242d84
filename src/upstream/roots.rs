//! The certificates of `upstream.ca_file`: read once, with the configuration, so that a bad file stops the start.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Several times what a platform's whole bundle has.
const BYTES_AT_MOST: u64 = 4 << 20;

/// Root certificates beside those of the platform, and the file that they are from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

/// Why a file holds no root certificates.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is far longer than any list of certificates.
    #[error("it is longer than 4MiB")]
    TooLong,
    /// Something in it begins like PEM (RFC 7468) and is none.
    #[error("it is not PEM: {0}")]
    NotPem(pem::Error),
    /// There is no certificate in it.
    #[error("it holds no certificate in PEM form")]
    Empty,
    /// What it holds is no certificate that could be a root.
    #[error("its certificate number {0} cannot be used: {1}")]
    Unfit(usize, rustls::Error),
}

impl Roots {
    /// Reads a file of certificates in PEM form; what else is in it, a key for example, is skipped.
    ///
    /// # Errors
    /// See [`RootsError`]; none of its texts repeats what is in the file.
    pub fn read(path: &Path) -> Result<Self, RootsError> {
        let mut text = Vec::new();
        File::open(path)?.take(BYTES_AT_MOST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > BYTES_AT_MOST {
            return Err(RootsError::TooLong);
        }
        let certificates = Self::in_pem(&text)?;
        Ok(Self { path: path.to_owned(), certificates })
    }

    fn in_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, RootsError> {
        let found: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(RootsError::NotPem)?;
        let mut store = RootCertStore::empty();
        for (place, certificate) in found.iter().enumerate() {
            store.add(certificate.clone()).map_err(|error| RootsError::Unfit(place + 1, error))?;
        }
        if found.is_empty() { Err(RootsError::Empty) } else { Ok(found) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate() -> String {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::new(Vec::new()).expect("no names").self_signed(&key).expect("a certificate").pem()
    }

    fn check(text: &str, expected: Result<usize, &str>) {
        let found = Roots::in_pem(text.as_bytes()).map(|found| found.len()).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(count), Ok(expected)) => assert_eq!(*count, expected, "{text}"),
            (Err(told), Err(expected)) => assert!(told.starts_with(expected), "{text}: {told}"),
            _ => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn certificates_are_found_among_other_things() {
        let one = certificate();
        let key = KeyPair::generate().expect("a key").serialize_pem();
        check(&one, Ok(1));
        check(&format!("# a comment\n{one}{key}{}", certificate()), Ok(2));
        check("", Err("it holds no certificate"));
        check("nothing here", Err("it holds no certificate"));
        check(&key, Err("it holds no certificate"));
        check(&one[..one.len() / 2], Err("it is not PEM"));
        check("-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n", Err("it is not PEM"));
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(&format!("{one}{hollow}"), Err("its certificate number 2 cannot be used"));
    }

    #[test]
    fn files_that_cannot_be_are_told() {
        assert!(matches!(Roots::read(Path::new("/nowhere/ca.pem")), Err(RootsError::Unreadable(_))));
        assert!(matches!(Roots::read(&std::env::temp_dir()), Err(RootsError::Unreadable(_))));
        #[cfg(unix)]
        assert!(matches!(Roots::read(Path::new("/dev/zero")), Err(RootsError::TooLong)));
    }
}
