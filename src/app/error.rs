//! Why a server did not start, in sentences that say what to do.

use std::fmt;
use std::net::SocketAddr;

use super::credentials::CredentialsError;
use crate::access::RegistryError;
use crate::config::NoHome;
use crate::http::tls::TlsError;
use crate::log::Unavailable;
use crate::pg::ConnectError;
use crate::pg::embedded::EmbeddedError;
use crate::pg::schema::SchemaError;
use crate::telemetry::{ExporterError, NotASampler};

/// What is to be changed so that it starts.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// On the command line.
    pub flag: &'static str,
    /// In the environment.
    pub variable: &'static str,
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.flag, self.variable)
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken.
    #[error(
        "{0} is taken by another program: stop it, or choose another port with {flag} {2} ({variable})", flag = .1.flag, variable = .1.variable
    )]
    PortTaken(SocketAddr, Setting, SocketAddr),
    /// The port may not be used.
    #[error("may not listen on {0}: ports below 1024 need root; choose another with {1}")]
    PortForbidden(SocketAddr, Setting),
    /// The address is not this machine's.
    #[error("cannot listen on {0} ({2}): is this an address of this machine? See {1}")]
    Listen(SocketAddr, Setting, std::io::Error),
    /// The credentials' settings are not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate's settings are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No home folder.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The embedded database did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema could not be applied.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// What the database knows of credentials cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Spans cannot be exported.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    /// It is not known which traces to record.
    #[error("OTEL_TRACES_SAMPLER: {0}")]
    Sampler(#[from] NotASampler),
    /// The log does not answer.
    #[error("the log does not answer: {0}")]
    Log(#[from] Unavailable),
}
