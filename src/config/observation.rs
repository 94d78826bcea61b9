//! Settings: how the server is watched.

use std::net::SocketAddr;

use clap::Args;

/// How the server is watched.
#[derive(Debug, Clone, Args)]
pub struct Observation {
    /// Address and port where `/metrics`, `/livez` and `/readyz` are served without credentials; absent: `/metrics` is for
    /// administrators.
    #[arg(long, env = "TIDEWIRE_METRICS_LISTEN", value_parser = super::address, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
}
