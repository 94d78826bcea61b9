//! Bodies that are not streamed, whole in memory.
//!
//! # Invariants
//! - A body is bounded by itself, and with all others at once: what its buffer grows to is taken from their budget first.
//! - It comes within a bounded time, however often a byte of it does, and within the life of the caller's credential.

use std::ops::Deref;

use axum::body::{Body, BodyDataStream};
use axum::http::header;
use axum::http::request::Parts;
use futures_util::StreamExt as _;

use super::admission::Admission;
use super::app::App;
use super::budget::Share;
use super::caller::under;
use super::errors;
use super::problem::{Kind, Problem};
use super::serve::Patience;
use crate::access::limits::Quantity;
use crate::access::{Lease, Principal};
use crate::event::limits::BODY_BYTES_MAX;

/// A body, which counts until it is dropped: when its request is answered.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    bytes_max: usize,
    share: Share,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body of at most `bytes_max` to its end.
///
/// # Errors
/// 413 if it is longer than the bound, 408 if nothing comes for a while or it takes too long, 400 if it breaks off, 401 if
/// the credential ends before it has come, 503 if there is no room for it.
pub async fn read(
    app: &App,
    (principal, lease): (&Principal, &Lease),
    parts: &Parts,
    body: Body,
    bytes_max: usize,
) -> Result<Whole, Problem> {
    let declared = declared(parts);
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let patience = parts.extensions.get::<Patience>();
    let patience = patience.copied().unwrap_or_default();
    let whole = Whole {
        bytes: Vec::new(),
        bytes_max,
        share: app.bodies.share(&principal.tenant),
    };
    let reading = whole.fill(body.into_data_stream(), patience);
    // The client decides how long it takes; its credential may end before it does.
    under(lease, async {
        let read = tokio::time::timeout(patience.body, reading).await;
        read.unwrap_or_else(|_| Err(too_slow()))
    })
    .await
}

/// Reads a body that counts against the caller's rate: before it is read, if its length is known.
///
/// # Errors
/// As [`read`], and 429.
pub async fn admitted(
    app: &App,
    (principal, lease): (&Principal, &Lease),
    admission: &Admission,
    parts: &Parts,
    body: Body,
) -> Result<Whole, Problem> {
    let declared = declared(parts).filter(|length| *length <= BODY_BYTES_MAX);
    if let Some(length) = declared {
        admission.take(Quantity::Bytes, length)?;
    }
    let whole = read(app, (principal, lease), parts, body, BODY_BYTES_MAX).await?;
    if declared.is_none() {
        admission.take(Quantity::Bytes, whole.len())?;
    }
    Ok(whole)
}

fn declared(parts: &Parts) -> Option<usize> {
    let length = parts.headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

impl Whole {
    async fn fill(
        mut self,
        mut pieces: BodyDataStream,
        patience: Patience,
    ) -> Result<Self, Problem> {
        loop {
            match tokio::time::timeout(patience.idle, pieces.next()).await {
                Ok(None) => return Ok(self),
                Ok(Some(Ok(piece))) => self.keep(&piece)?,
                Ok(Some(Err(_))) => {
                    let detail = "the body ended before it was complete";
                    return Err(Problem::new(Kind::Malformed, detail));
                }
                Err(_) => return Err(too_slow()),
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let length = self.bytes.len().saturating_add(piece.len());
        if length > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            // What the buffer grows to counts, not what is in it, so it does not grow by itself.
            let wanted = length.max(capacity.saturating_mul(2)).min(self.bytes_max);
            if !self.share.resize(wanted) {
                return Err(errors::overloaded("too much is being received at once"));
            }
            let more = wanted.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(more);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let mut detail = format!("a body is at most {bytes_max} bytes here");
    if bytes_max == BODY_BYTES_MAX {
        detail.push_str("; longer ones go as application/x-ndjson");
    }
    Problem::new(Kind::TooLarge, detail)
}

fn too_slow() -> Problem {
    Problem::new(Kind::RequestTimeout, "the body did not come in time")
}
