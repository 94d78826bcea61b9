//! The operator's collector: HTTP to it, and what it says of what it was sent.
//!
//! # Invariants
//! - It is not trusted: what it answers is bounded, and so is what is kept of it.
//! - An answer that says that spans were rejected is a success of HTTP: whoever counts has to ask ([`Said::take`]).

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of what it says of rejected spans.
const MESSAGE_CHARS_MAX: usize = 200;

/// The collector, as the exporter sees it.
#[derive(Debug)]
pub(super) struct Collector {
    client: reqwest::Client,
    said: Said,
}

impl Collector {
    pub(super) const fn new(client: reqwest::Client, said: Said) -> Self {
        Self { client, said }
    }
}

/// What the collector does not take of a request that it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partial {
    /// Spans.
    pub(super) rejected: u64,
    /// Why, or a warning if none was rejected.
    pub(super) message: String,
}

/// What the last answer said. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<Option<Partial>>>);

impl Said {
    /// Takes it; none if all is well.
    pub(super) fn take(&self) -> Option<Partial> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.take()
    }

    fn put(&self, partial: Option<Partial>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = partial;
    }
}

/// What an answer says; an answer that is none of the protocol says nothing.
fn partial(body: &[u8]) -> Option<Partial> {
    let answer = ExportTraceServiceResponse::decode(body).ok()?;
    let partial = answer.partial_success?;
    let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
    let message = partial.error_message;
    (rejected > 0 || !message.is_empty()).then(|| Partial {
        rejected,
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
    })
}

/// More than an answer may hold.
#[derive(Debug, thiserror::Error)]
#[error("the collector's answer is longer than {ANSWER_BYTES_MAX} bytes")]
struct TooLong;

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.said.put(None);
        let mut answer = self.client.execute(request.try_into()?).await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            if body.len().saturating_add(piece.len()) > ANSWER_BYTES_MAX {
                return Err(TooLong.into());
            }
            body.extend_from_slice(&piece);
        }
        if answer.status().is_success() {
            self.said.put(partial(&body));
        }
        let mut response = Response::new(body.into());
        *response.status_mut() = answer.status();
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn answer(rejected_spans: i64, error_message: &str) -> Vec<u8> {
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: error_message.to_owned(),
        });
        ExportTraceServiceResponse { partial_success }.encode_to_vec()
    }

    #[test]
    fn what_is_rejected_and_what_is_warned_of_is_heard_and_bounded() {
        assert_eq!(partial(&[]), None);
        assert_eq!(partial(b"\xff no answer"), None);
        assert_eq!(partial(&answer(0, "")), None);
        let heard = |rejected, message: &str| {
            let message = message.to_owned();
            Some(Partial { rejected, message })
        };
        assert_eq!(partial(&answer(3, "too old")), heard(3, "too old"));
        assert_eq!(partial(&answer(0, "soon full")), heard(0, "soon full"));
        assert_eq!(partial(&answer(-3, "less")), heard(0, "less"));
        let long = "ü".repeat(10_000);
        let kept = partial(&answer(1, &long)).unwrap().message;
        assert_eq!(kept.chars().count(), MESSAGE_CHARS_MAX);
    }
}
