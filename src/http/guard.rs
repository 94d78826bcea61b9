//! What every request passes: in development mode a foreign `Host` or `Origin` is refused, so that no web page can drive
//! a developer's server; every answer carries an id and a few safe headers.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use super::app::App;
use super::browser::protect;
use super::problem::{Kind, Problem};

/// The request's id, the client's or ours.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a client's request id that are kept.
const REQUEST_ID_BYTES_MAX: usize = 100;

/// See the module.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let refused = if app.access.is_development() {
        foreign(&request)
    } else {
        None
    };
    let mut response = match refused {
        Some(problem) => problem.into_response(),
        // What is logged of it names it: only here its id is known.
        None => next.run(request).instrument(request_span(&id)).await,
    };
    // A problem document names its request; only here both are known.
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let told = [header::ALLOW, header::ACCEPT_ENCODING].map(|name| {
            let value = response.headers().get(&name).cloned();
            (name, value)
        });
        response = problem.with_request_id(&id).into_response();
        for (name, value) in told {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    protect(headers);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn request_span(id: &str) -> tracing::Span {
    tracing::info_span!("request", id)
}

fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty() && text.len() <= REQUEST_ID_BYTES_MAX)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn foreign(request: &Request) -> Option<Problem> {
    let headers = request.headers();
    let host = request.uri().host().or_else(|| {
        headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .map(without_port)
    });
    if !host.is_some_and(is_loopback) {
        return Some(Problem::new(
            Kind::Forbidden,
            "development mode answers to localhost only (header Host); set TIDEWIRE_JWT_SECRET to serve other names",
        ));
    }
    let origin = headers.get(header::ORIGIN)?;
    let origin_host = origin
        .to_str()
        .ok()
        .and_then(|text| text.split_once("://"))
        .map(|(_, rest)| without_port(rest));
    if origin_host.is_some_and(is_loopback) {
        return None;
    }
    Some(Problem::new(
        Kind::Forbidden,
        "development mode takes no requests from other sites (header Origin)",
    ))
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_ours() {
        for ours in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "app.localhost:3000",
            "127.1.2.3",
        ] {
            assert!(is_loopback(without_port(ours)), "{ours}");
        }
        for foreign in [
            "example.com",
            "127.0.0.1.example.com:8080",
            "localhost.example.com",
            "10.0.0.1",
            "null",
            "",
        ] {
            assert!(!is_loopback(without_port(foreign)), "{foreign}");
        }
    }
}
