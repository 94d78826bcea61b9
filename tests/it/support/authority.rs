//! A certificate authority of the test's own, and TLS clients that trust it alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS#8.
    pub key: String,
}

impl Authority {
    /// One of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for a name that is an authority and has signed itself, valid for a day around this moment.
    pub fn itself(name: &str, moment: SystemTime) -> Issued {
        let half = Duration::from_hours(12);
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = (moment - half).into();
        params.not_after = (moment + half).into();
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_at(names, SystemTime::now())
    }

    /// One that is valid for a day around this moment.
    pub fn issue_at(&self, names: &[&str], moment: SystemTime) -> Issued {
        let half = Duration::from_hours(12);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = names.first().cloned().unwrap_or_default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = (moment - half).into();
        params.not_after = (moment + half).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A handshake with the server at `host:port`, by its first address, for that host's name.
    pub async fn connect(&self, address: &str, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(own).unwrap();
        let mut config = ClientConfig::builder_with_provider(tidewire::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let (host, _) = address.rsplit_once(':').unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.unwrap()
    }
}

/// The certificate that the other side shows, whoever it is; none if the handshake fails.
pub async fn peek(socket: TcpStream) -> Option<Vec<u8>> {
    let seen = Arc::new(Mutex::new(None));
    let config = ClientConfig::builder_with_provider(tidewire::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Peek(Arc::clone(&seen))))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    // It ends with the certificate, which is never accepted.
    let _ = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await;
    seen.lock().unwrap().take()
}

#[derive(Debug)]
struct Peek(Arc<Mutex<Option<Vec<u8>>>>);

impl ServerCertVerifier for Peek {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(shown.to_vec());
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("no certificate is accepted")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("no certificate is accepted")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = tidewire::tls::provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The certificate that the other side has shown, as PEM would hold it.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].clone().into_owned()
}

impl Issued {
    /// Writes both into a folder, under these names.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let paths = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&paths.0, &self.certificate).unwrap();
        std::fs::write(&paths.1, &self.key).unwrap();
        paths
    }

    /// Whether this is the certificate.
    pub fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap() == *certificate
    }
}
