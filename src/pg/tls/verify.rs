//! Whether the one who answers is the database.
//!
//! # Invariants
//! - That it holds the key of the certificate which it shows is seen to at every depth.
//! - A certificate that is itself among the roots needs no issuer, but it must be valid now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::TlsError;
use crate::tls::{is_valid_at, provider};

/// How far is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Who has issued the certificate, and when.
    Issuer,
    /// That, and for which name.
    Name,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    /// None: whoever answers is believed.
    trust: Option<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Trust {
    depth: Depth,
    issuers: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Believes whoever answers.
    pub(super) fn believing() -> Self {
        Self {
            trust: None,
            algorithms: provider().signature_verification_algorithms,
        }
    }

    /// Believes those whom the issuers have certified, and the roots themselves.
    pub(super) fn new(
        depth: Depth,
        issuers: Arc<RootCertStore>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let issuers = WebPkiServerVerifier::builder_with_provider(issuers, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            trust: Some(Trust {
                depth,
                issuers,
                roots,
            }),
            ..Self::believing()
        })
    }
}

impl Trust {
    /// One that has signed itself and was named as its own root, as PostgreSQL's manual makes them: for the verifier an
    /// authority, which must not stand for a server.
    fn verify_root(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs()));
        if !now.is_some_and(|now| is_valid_at(shown, now)) {
            return Err(CertificateError::Expired.into());
        }
        match self.depth {
            Depth::Issuer => Ok(()),
            Depth::Name => verify_server_name(&ParsedCertificate::try_from(shown)?, name),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if trust.roots.iter().any(|root| root == shown) {
            trust.verify_root(shown, name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let verified = trust
            .issuers
            .verify_server_cert(shown, intermediates, name, ocsp, now);
        match verified {
            // The name comes last: issuer and time are right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if trust.depth == Depth::Issuer => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
