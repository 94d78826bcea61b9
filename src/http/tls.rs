//! TLS for clients: the certificate in force, and who changes it.
//!
//! # Invariants
//! - A certificate that is not whole, not its key's or not valid is never in force: the one before stays.
//! - Every handshake that begins after a change sees the new certificate; sessions of the one before are not resumed.
//! - Connections live on with the certificate that they began with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;
use crate::tls::{FileError, Instant, Pair, provider};

/// The files are looked at this often.
const INTERVAL: Duration = Duration::from_secs(2);
/// What is spoken within TLS (ALPN), the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why clients cannot be served by TLS. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate without a key.
    #[error(
        "--tls-cert (TIDEWIRE_TLS_CERT) is set, but --tls-key (TIDEWIRE_TLS_KEY) is not: set both, or neither to serve without TLS"
    )]
    NoKey,
    /// A key without a certificate.
    #[error(
        "--tls-key (TIDEWIRE_TLS_KEY) is set, but --tls-cert (TIDEWIRE_TLS_CERT) is not: set both, or neither to serve without TLS"
    )]
    NoCertificate,
    /// What the files hold is not usable.
    #[error("{0}; see --tls-cert (TIDEWIRE_TLS_CERT) and --tls-key (TIDEWIRE_TLS_KEY)")]
    Files(FileError),
    /// The cryptography refuses it.
    #[error(
        "TLS cannot be set up with this certificate ({0}); see --tls-cert (TIDEWIRE_TLS_CERT) and --tls-key (TIDEWIRE_TLS_KEY)"
    )]
    Setup(rustls::Error),
}

/// Says of a request that it came over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted;

/// See the module. Cheap to clone; clones share the certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<RwLock<Current>>,
}

/// What is in force.
#[derive(Debug)]
struct Current {
    /// With a store of sessions of its own.
    config: Arc<ServerConfig>,
    /// Of the files that it was read from.
    digest: Digest,
}

type Digest = [u8; 32];

/// What the two files hold, or why they cannot be read.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Result<Vec<u8>, io::ErrorKind>,
    key: Result<Vec<u8>, io::ErrorKind>,
}

impl Tls {
    /// Reads the files that the settings name; `None` if they name none.
    ///
    /// # Errors
    /// If they name one of two, or the files are not usable.
    pub async fn load(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(TlsError::NoKey),
            (None, Some(_)) => return Err(TlsError::NoCertificate),
        };
        let contents = Contents::read(&certificate, &key).await;
        let (current, expires) = contents.parse(&certificate, &key)?;
        tracing::info!(certificate = %certificate.display(), %expires, "clients are served by TLS");
        Ok(Some(Self {
            certificate,
            key,
            current: Arc::new(RwLock::new(current)),
        }))
    }

    /// The server's side of a handshake. It takes as long as the client lets it: whoever calls sets the bound.
    ///
    /// # Errors
    /// If the client speaks no TLS, none that is known here, or goes away.
    pub(super) async fn accept(&self, wire: Wire) -> io::Result<TlsStream<Wire>> {
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&current.config)
        };
        TlsAcceptor::from(config).accept(wire).await
    }

    /// Takes over what the files hold whenever that changes, and on SIGHUP; for ever.
    pub async fn watch(self) {
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut refused = None;
        loop {
            let is_asked = tokio::select! {
                _ = ticks.tick() => false,
                () = hangup(&mut hangups) => true,
            };
            let contents = Contents::read(&self.certificate, &self.key).await;
            if is_asked {
                refused = None;
            }
            // What was refused once is not told again every two seconds.
            if refused.as_ref() != Some(&contents) {
                refused = self.take_over(&contents).is_err().then_some(contents);
            }
        }
    }

    fn take_over(&self, contents: &Contents) -> Result<(), ()> {
        let read = contents.parse(&self.certificate, &self.key);
        let (read, expires) = read.map_err(|error| {
            tracing::warn!(%error, "the certificate cannot be read again: the one before stays in force");
        })?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.digest != read.digest {
            *current = read;
            let certificate = self.certificate.display();
            tracing::info!(%certificate, %expires, "a new certificate is in force");
        }
        Ok(())
    }
}

impl Contents {
    async fn read(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = tokio::join!(tokio::fs::read(certificate), tokio::fs::read(key));
        Self {
            certificate: certificate.map_err(|error| error.kind()),
            key: key.map_err(|error| error.kind()),
        }
    }

    fn parse(&self, certificate: &Path, key: &Path) -> Result<(Current, Instant), TlsError> {
        let part = |path: &Path, part: &Result<Vec<u8>, io::ErrorKind>| {
            let unreadable = |kind: io::ErrorKind| FileError::Unreadable(path.into(), kind.into());
            part.clone().map_err(unreadable).map_err(TlsError::Files)
        };
        let chain_text = part(certificate, &self.certificate)?;
        let key_text = part(key, &self.key)?;
        let files = ((certificate, &chain_text[..]), (key, &key_text[..]));
        let pair = Pair::parse(files.0, files.1, SystemTime::now()).map_err(TlsError::Files)?;
        let digest = Sha256::new()
            .chain_update(chain_text.len().to_be_bytes())
            .chain_update(&chain_text)
            .chain_update(&key_text)
            .finalize()
            .into();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_single_cert(pair.chain, pair.key)
            .map_err(TlsError::Setup)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let config = Arc::new(config);
        Ok((Current { config, digest }, pair.expires))
    }
}

/// The next SIGHUP; never, where the machine gives none.
async fn hangup(hangups: &mut Option<Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}
