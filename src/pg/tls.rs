//! TLS to the database, as `sslmode`, `sslrootcert`, `sslcert` and `sslkey` of its URL ask for it; libpq's words.
//!
//! # Invariants
//! - Where the mode asks for TLS nothing is sent without it, but for the question whether the database speaks it.
//! - Once a certificate is refused the connection fails; no mode goes on without TLS because of it.
//! - The files are read for each connection: what is renewed is used by the next one.

mod parameters;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::{FileError, Pair, certificates, provider};
pub(super) use parameters::split;
use verify::{Depth, Verifier};

/// What is spoken within TLS (ALPN); PostgreSQL 17 demands it where TLS begins without a question.
const PROTOCOL: &[u8] = b"postgresql";

/// Why TLS to the database cannot be what the URL asks for. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A mode that there is not.
    #[error("sslmode in DATABASE_URL must be disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// Verify by whom?
    #[error(
        "sslmode={0} in DATABASE_URL verifies the database's certificate: say by whom it is issued with sslrootcert=/path/to/ca.pem, or sslrootcert=system for the authorities that this machine trusts"
    )]
    NoRoot(&'static str),
    /// The machine's authorities certify anybody.
    #[error(
        "sslrootcert=system in DATABASE_URL needs sslmode=verify-full: this machine's authorities certify anybody, so the name must be verified as well"
    )]
    WeakRoot,
    /// One of two.
    #[error("sslcert and sslkey in DATABASE_URL belong together: give both, or neither")]
    Alone,
    /// What a file holds is not usable.
    #[error("{0}; see sslrootcert, sslcert and sslkey in DATABASE_URL")]
    File(FileError),
    /// The machine trusts nobody.
    #[error(
        "this machine has no root certificates for sslrootcert=system in DATABASE_URL: install them (on Debian: apt install ca-certificates), or name a file"
    )]
    NoSystemRoots,
    /// The cryptography refuses it.
    #[error("TLS to the database cannot be set up ({0}); see sslmode in DATABASE_URL")]
    Setup(#[from] rustls::Error),
}

impl From<FileError> for TlsError {
    // No source: the sentence holds it already.
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// How much TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// None.
    Disable,
    /// If the database speaks it; whoever answers is believed.
    #[default]
    Prefer,
    /// Always; whoever answers is believed, unless there is a root.
    Require,
    /// Always, with a certificate of the root.
    VerifyCa,
    /// Always, with a certificate of the root for the host's name.
    VerifyFull,
}

/// Who may have issued the database's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The authorities that the machine trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// What a URL asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// `sslmode`.
    pub mode: Mode,
    /// `sslrootcert`.
    pub root: Option<Root>,
    /// `sslcert` and `sslkey`.
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    demand: Demand,
    system: Option<Arc<RootCertStore>>,
}

impl Tls {
    /// TLS as it is asked for; reads the files to see that it can be had.
    ///
    /// # Errors
    /// If a file is not usable, or what is asked for makes no sense.
    pub fn new(demand: Demand) -> Result<Self, TlsError> {
        let system = match &demand.root {
            Some(Root::System) if demand.mode != Mode::Disable => Some(system_roots()?),
            _ => None,
        };
        let tls = Self { demand, system };
        if tls.demand.mode != Mode::Disable {
            tls.config()?;
        }
        Ok(tls)
    }

    /// What the driver knows of the mode.
    #[must_use]
    pub const fn ssl_mode(&self) -> SslMode {
        match self.demand.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier()?));
        let mut config = match &self.demand.pair {
            Some((certificate, key)) => {
                let pair = Pair::read(certificate, key)?;
                builder.with_client_auth_cert(pair.chain, pair.key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }

    fn verifier(&self) -> Result<Verifier, TlsError> {
        let depth = match (self.demand.mode, &self.demand.root) {
            (Mode::VerifyFull, _) => Depth::Name,
            (Mode::VerifyCa, _) | (_, Some(_)) => Depth::Issuer,
            (_, None) => return Ok(Verifier::believing()),
        };
        if let Some(Root::File(path)) = &self.demand.root {
            let found = certificates(path)?;
            let mut roots = RootCertStore::empty();
            for one in &found {
                let unusable = |_| FileError::NoCertificate(path.clone());
                roots.add(one.clone()).map_err(unusable)?;
            }
            return Verifier::new(depth, Arc::new(roots), found);
        }
        let roots = self.system.clone().ok_or(TlsError::NoSystemRoots)?;
        Verifier::new(depth, roots, Vec::new())
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs().certs;
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(Arc::new(roots))
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut maker = MakeRustlsConnect::new(self.config()?);
        Ok(MakeTlsConnect::<Socket>::make_tls_connect(
            &mut maker, host,
        )?)
    }
}
