//! Certificates and private keys in PEM files, for those who are connected to and for those who connect.
//!
//! # Invariants
//! - A chain and a key that do not belong together, and a certificate that is not valid now, are never a pair.
//! - No error and no `Debug` holds anything of a key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// The cryptography that all of TLS here uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What is wrong with a file; whoever reports it adds which setting names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {0} ({1})")]
    Unreadable(PathBuf, std::io::Error),
    /// No certificate in it, or a damaged one.
    #[error(
        "{0} holds no certificate that can be used: it must be PEM, which begins with -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate(PathBuf),
    /// No key in it, or a damaged one.
    #[error(
        "{0} holds no private key that can be used: it must be PEM, which begins with -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY"
    )]
    NoKey(PathBuf),
    /// The key needs a passphrase.
    #[error("the private key in {0} is encrypted: write it without a passphrase (openssl pkey)")]
    Encrypted(PathBuf),
    /// Certificate and key are of two pairs.
    #[error("the private key in {1} does not belong to the certificate in {0}")]
    Mismatch(PathBuf, PathBuf),
    /// Not valid any more.
    #[error("the certificate in {0} expired on {1}: renew it")]
    Expired(PathBuf, Instant),
    /// Not valid yet.
    #[error("the certificate in {0} is not valid before {1}: is this machine's clock right?")]
    Early(PathBuf, Instant),
}

/// A moment that a certificate names; shown in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(x509_cert::time::Time);

impl fmt::Display for Instant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// A certificate with its issuers, and its key.
#[derive(Debug)]
pub struct Pair {
    /// The own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PrivateKeyDer<'static>,
    /// When the own certificate ends.
    pub expires: Instant,
}

impl Pair {
    /// Reads both files. They are small, so that a thread may wait for them.
    ///
    /// # Errors
    /// If one cannot be read or used, they do not belong together, or the certificate is not valid now.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, FileError> {
        Self::parse(
            (certificate, &bytes(certificate)?),
            (key, &bytes(key)?),
            SystemTime::now(),
        )
    }

    /// The pair of these files' contents, at a given time.
    ///
    /// # Errors
    /// As [`Pair::read`], but for reading.
    pub fn parse(
        (certificate_path, certificate): (&Path, &[u8]),
        (key_path, key): (&Path, &[u8]),
        now: SystemTime,
    ) -> Result<Self, FileError> {
        let chain = parse_certificates(certificate_path, certificate)?;
        let key = parse_key(key_path, key)?;
        let no_certificate = || FileError::NoCertificate(certificate_path.to_owned());
        let own = chain.first().ok_or_else(no_certificate)?;
        let (begins, expires) = validity(own).ok_or_else(no_certificate)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    FileError::Mismatch(certificate_path.to_owned(), key_path.to_owned())
                }
                rustls::Error::InvalidCertificate(_) => no_certificate(),
                _ => FileError::NoKey(key_path.to_owned()),
            }
        })?;
        if expires.0.to_system_time() < now {
            return Err(FileError::Expired(certificate_path.to_owned(), expires));
        }
        if begins.0.to_system_time() > now {
            return Err(FileError::Early(certificate_path.to_owned(), begins));
        }
        Ok(Self {
            chain,
            key,
            expires,
        })
    }
}

/// The certificates of a file, at least one.
///
/// # Errors
/// If it cannot be read, or one of them cannot be used.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    parse_certificates(path, &bytes(path)?)
}

/// From when and until when it is valid; `None` if it is no certificate.
#[must_use]
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(Instant, Instant)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate.validity;
    Some((Instant(validity.not_before), Instant(validity.not_after)))
}

/// Whether a certificate's time has come and is not over; `false` if it is none.
#[must_use]
pub fn is_valid_at(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    validity(certificate).is_some_and(|(begins, expires)| {
        begins.0.to_system_time() <= now && now <= expires.0.to_system_time()
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|error| FileError::Unreadable(path.to_owned(), error))
}

fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(found) if !found.is_empty() && found.iter().all(|one| validity(one).is_some()) => {
            Ok(found)
        }
        _ => Err(FileError::NoCertificate(path.to_owned())),
    }
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    // PKCS#8 says it in the heading, PKCS#1 and SEC1 in a line below.
    if [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b",ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|part| part == *mark))
    {
        return Err(FileError::Encrypted(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|_| FileError::NoKey(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn parse(certificate: &str, key: &str, now: SystemTime) -> Result<Pair, FileError> {
        let path = Path::new("cert.pem");
        let certificate = (path, certificate.as_bytes());
        Pair::parse(certificate, (Path::new("key.pem"), key.as_bytes()), now)
    }

    #[test]
    fn a_pair_is_whole_and_valid_now() {
        let ((certificate, key), now) = (pair(), SystemTime::now());
        let shown = format!("{:?}", parse(&certificate, &key, now).unwrap());
        assert!(!shown.contains(&key[40..60]), "{shown}");
        let half = &certificate[..certificate.len() / 2];
        let half = parse(half, &key, now);
        assert!(matches!(half, Err(FileError::NoCertificate(_))), "{half:?}");
        let half = parse(&certificate, &key[..key.len() / 2], now);
        assert!(matches!(half, Err(FileError::NoKey(_))), "{half:?}");
        let other = parse(&certificate, &pair().1, now);
        assert!(matches!(other, Err(FileError::Mismatch(..))), "{other:?}");
        let late = now + Duration::from_secs(1 << 40);
        let late = parse(&certificate, &key, late);
        assert!(matches!(late, Err(FileError::Expired(..))), "{late:?}");
        let early = parse(&certificate, &key, SystemTime::UNIX_EPOCH);
        assert!(matches!(early, Err(FileError::Early(..))), "{early:?}");
    }

    #[test]
    fn an_encrypted_key_is_known_as_one() {
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        ] {
            let read = parse(&pair().0, text, SystemTime::now());
            assert!(matches!(read, Err(FileError::Encrypted(_))), "{read:?}");
        }
    }
}
