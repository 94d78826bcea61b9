//! `Content-Encoding` of requests: what is taken, and how much it may grow.
//!
//! # Invariants
//! - A coding that is not taken is refused, never read as if it were none.
//! - Only codings whose memory is small: brotli and zstd let a few bytes reserve megabytes of window.
//! - What was received is counted before it is inflated, so that a body can be told from a bomb.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::problem::{Kind, Problem};
use crate::event::limits::{INFLATED_BYTES_FREE, INFLATION_MAX};

/// What is taken, as a header has it.
const TAKEN: &str = "gzip, deflate";

/// Bytes of a compressed body that have come in.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// Whether `inflated` bytes are more than an honest body makes of what has come in.
    #[must_use]
    pub fn is_bomb(&self, inflated: u64) -> bool {
        let fair = self.0.load(Ordering::Relaxed).saturating_mul(INFLATION_MAX);
        inflated > fair.max(INFLATED_BYTES_FREE)
    }
}

/// Refuses codings that are not taken; of the others it counts what comes in.
pub async fn admit(mut request: Request, next: Next) -> Response {
    match coding(request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(coding)) => {
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            next.run(count(request)).await
        }
        Err(problem) => {
            let mut response = problem.into_response();
            let headers = response.headers_mut();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(TAKEN));
            response
        }
    }
}

fn coding(headers: &HeaderMap) -> Result<Option<&'static str>, Problem> {
    let mut declared = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = declared.next() else {
        return Ok(None);
    };
    let first = first.to_str().unwrap_or_default().trim();
    match first.to_ascii_lowercase().as_str() {
        _ if declared.next().is_some() => Err(refuse()),
        "identity" => Ok(None),
        "gzip" => Ok(Some("gzip")),
        "deflate" => Ok(Some("deflate")),
        _ => Err(refuse()),
    }
}

fn refuse() -> Problem {
    let detail = format!("Content-Encoding is one of {TAKEN}, or absent");
    Problem::new(Kind::UnsupportedMediaType, detail)
}

fn count(request: Request) -> Request {
    let received = Received::default();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(received.clone());
    let counted = body.into_data_stream().inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, Bytes::len);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        received.0.fetch_add(length, Ordering::Relaxed);
    });
    Request::from_parts(parts, Body::from_stream(counted))
}
