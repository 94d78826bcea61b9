//! Settings of TLS.

use std::path::PathBuf;

use clap::Args;

/// With which certificate clients are served. Without: no TLS.
#[derive(Debug, Clone, Args)]
pub struct Tls {
    /// PEM file with this server's certificate, then those of its issuers; read again when it changes.
    #[arg(long, env = "TIDEWIRE_TLS_CERT", value_name = "PATH")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the certificate's private key, not encrypted.
    #[arg(long, env = "TIDEWIRE_TLS_KEY", value_name = "PATH")]
    pub tls_key: Option<PathBuf>,
}
