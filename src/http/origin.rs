//! From which web pages the server may be used.
//!
//! # Invariants
//! - A page of another origin reads no answer and opens no socket unless the settings name its origin; in development mode
//!   the pages of this machine may.
//! - Programs that are no browsers name no origin and are not concerned.

use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::admission::{RATE_LIMIT, RATE_LIMIT_POLICY};
use super::guard::{REQUEST_ID, is_loopback, without_port};
use super::problem::{Kind, Problem};
use super::tls::Encrypted;
use crate::event::limits::PREFLIGHT_MAX_AGE;

/// The origins whose pages may use the server.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// As a browser writes them: `https://app.example`, or `*` for all.
    pub allowed: Vec<String>,
    /// Development mode: the pages of this machine as well.
    pub is_development: bool,
}

impl Origins {
    /// Refuses a request that a page of an origin that is not allowed has made.
    ///
    /// # Errors
    /// 403.
    pub fn check(&self, parts: &Parts) -> Result<(), Problem> {
        match parts.headers.get(header::ORIGIN) {
            Some(origin) if !self.allow(origin, parts) => Err(Problem::new(
                Kind::Forbidden,
                "pages of this origin may not open a socket here (header Origin); the operator allows it with TIDEWIRE_ALLOWED_ORIGINS",
            )),
            _ => Ok(()),
        }
    }

    /// What browsers are told (Fetch, CORS protocol). No cookies: credentials are tokens.
    pub fn cors(self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, parts| {
                self.allow(origin, parts)
            }))
            .allow_methods([
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([
                header::ETAG,
                header::RETRY_AFTER,
                header::ALLOW,
                header::ACCEPT,
                header::ACCEPT_ENCODING,
                header::WWW_AUTHENTICATE,
                RATE_LIMIT,
                RATE_LIMIT_POLICY,
                header::HeaderName::from_static("idempotency-replayed"),
                header::HeaderName::from_static("tidewire-cursor"),
                REQUEST_ID,
            ])
            .max_age(PREFLIGHT_MAX_AGE)
    }

    fn allow(&self, origin: &HeaderValue, parts: &Parts) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let is_named = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        if self.allowed.iter().any(is_named) {
            return true;
        }
        let Some((scheme, place)) = origin.split_once("://") else {
            return false;
        };
        // Behind a proxy its own pages may be https where this server sees none; but what came by TLS is never http.
        let is_encrypted = parts.extensions.get::<Encrypted>().is_some();
        if is_encrypted && !scheme.eq_ignore_ascii_case("https") && !self.is_development {
            return false;
        }
        let host = parts.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.or_else(|| {
            parts
                .uri
                .authority()
                .map(axum::http::uri::Authority::as_str)
        });
        host.is_some_and(|host| host.eq_ignore_ascii_case(place))
            || (self.is_development && is_loopback(without_port(place)))
    }
}
