//! Which servers are believed to be who they say.
//!
//! # Invariants
//! - Authorities that are named take the place of the machine's: a server that another has certified is refused.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder};

use super::Error;

/// A builder of HTTP clients that believe the authorities in this PEM file alone; those of the machine if none is named.
///
/// # Errors
/// If the file cannot be read, or holds no certificate.
pub fn trusting(
    builder: ClientBuilder,
    authorities: Option<&Path>,
) -> Result<ClientBuilder, Error> {
    // Err: somebody installed one before, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(file) = authorities else {
        return Ok(builder);
    };
    let found = crate::tls::certificates(file).map_err(Error::Authorities)?;
    let found: Result<Vec<_>, _> = found.iter().map(|one| Certificate::from_der(one)).collect();
    Ok(builder.tls_certs_only(found.map_err(Error::Setup)?))
}
