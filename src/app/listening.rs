//! Where the server listens, and in which way.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::error::{Setting, StartError};
use crate::config;
use crate::http::drain::Drain;
use crate::http::entrance::{self, Entrance};
use crate::http::serve::{Patience, serve};
use crate::http::tls::{Tls, TlsError};
use crate::http::{self, App};
use crate::tasks::Tasks;

/// Where everybody is served.
pub(super) const LISTEN: Setting = Setting {
    flag: "--listen",
    variable: "TIDEWIRE_LISTEN",
};
/// Where whoever watches is.
pub(super) const METRICS_LISTEN: Setting = Setting {
    flag: "--metrics-listen",
    variable: "TIDEWIRE_METRICS_LISTEN",
};

/// TLS for clients, if the settings ask for it.
pub(super) async fn tls(config: &config::Serve, tasks: &Tasks) -> Result<Option<Tls>, TlsError> {
    let files = config.tls.clone();
    let tls = Tls::load(files.tls_cert, files.tls_key).await?;
    match &tls {
        Some(tls) => tasks.spawn_until_stop(tls.clone().watch()),
        None if !config.listen.ip().is_loopback() => tracing::warn!(
            "other machines reach this server without TLS: set TIDEWIRE_TLS_CERT and TIDEWIRE_TLS_KEY, unless a proxy before it terminates TLS"
        ),
        None => {}
    }
    Ok(tls)
}

/// `setting`: how to choose another address.
pub(super) fn listen(address: SocketAddr, setting: Setting) -> Result<TcpListener, StartError> {
    entrance::listen(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            let mut other = address;
            other.set_port(address.port().checked_add(1).unwrap_or(8080));
            StartError::PortTaken(address, setting, other)
        }
        ErrorKind::PermissionDenied => StartError::PortForbidden(address, setting),
        _ => StartError::Listen(address, setting, error),
    })
}

/// Serves whoever watches, without credentials and to the end.
pub(super) fn watched(listener: TcpListener, app: &App, patience: Patience, readers: &Tasks) {
    let (router, tasks) = (http::metrics::router(app.clone()), readers.clone());
    let drain = Drain::new(Duration::ZERO, readers.token().clone());
    readers.spawn(async move {
        let (entrance, closing) = (Entrance::new(listener), (&tasks, &drain));
        serve(entrance, None, router, patience, closing, super::DRAIN).await;
    });
}
