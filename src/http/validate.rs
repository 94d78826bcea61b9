//! `POST /v1/validate`: the server checks itself, while it serves.
//!
//! # Invariants
//! - It loads the whole server, so it is for operators, and one runs at a time.
//! - Who runs the checks is given from above: this floor knows no client of itself (decision 0027).
//! - What was begun goes to its end, and is cleaned up, whether or not anybody waits for it: also when the credential of whoever began it
//!   ends, who then hears no more of it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::acted::acted;
use super::admin::Operator;
use super::app::App;
use super::caller;
use super::credentials::read;
use super::problem::{Kind, Problem};
use crate::access::Principal;

/// Runs the checks against this server.
pub trait Validator: fmt::Debug + Send + Sync {
    /// Begins those of a `type`. The lines say how far it is; the last one is `{"report":{…}}`.
    ///
    /// # Errors
    /// If there is no such type, or one is running.
    fn begin(
        &self,
        app: &App,
        by: &Principal,
        depth: &str,
    ) -> Result<mpsc::Receiver<Value>, NotBegun>;
}

/// Why nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBegun {
    /// No such type: what it must be.
    Unknown(&'static str),
    /// One is running; it ends in so long at the latest.
    Running(Duration),
}

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(rename = "type")]
    depth: String,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The report alone, in the end.
    Report,
    /// A line as it comes.
    Lines,
    /// A message as it comes.
    Sse,
}

/// `POST /v1/validate`: 200 with a report, whether or not it `passed`.
///
/// # Errors
/// 400, 401 also when the credential ends meanwhile, 403, 429 also while one is running. Lines end with the credential.
pub async fn post(
    State(app): State<App>,
    Operator(principal): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let form = form(&request);
    let Wanted { depth } = read(&app, &principal, request).await?;
    let lease = caller::lease(&app, &principal).await?;
    let begun = app.validator.begin(&app, &principal, &depth);
    let mut lines = begun.map_err(|why| match why {
        NotBegun::Unknown(reason) => Problem::parameter("type", reason),
        NotBegun::Running(left) => {
            let detail = "the server is being checked already: one at a time";
            Problem::new(Kind::RateLimited, detail).with_retry_after(left)
        }
    })?;
    let did = json!({ "type": depth });
    acted(&app, &principal, "tidewire.audit.validation.begun", &did);
    if form == Form::Report {
        return caller::under(&lease, report(&mut lines)).await;
    }
    let (media_type, before, after) = match form {
        Form::Sse => ("text/event-stream", "data: ", "\n\n"),
        _ => ("application/x-ndjson", "", "\n"),
    };
    let ended = Box::pin(lease.ended());
    let lines = ReceiverStream::new(lines)
        .take_until(ended)
        .map(move |line| {
            // Let go when nobody reads any more.
            let _ = &lease;
            Ok::<_, Infallible>(Bytes::from(format!("{before}{line}{after}")))
        });
    let headers = [(CONTENT_TYPE, media_type), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

async fn report(lines: &mut mpsc::Receiver<Value>) -> Result<Response, Problem> {
    while let Some(line) = lines.recv().await {
        if let Some(report) = line.get("report") {
            return Ok(axum::Json(report).into_response());
        }
    }
    let detail = "the checks were cut short: the server is stopping, or its log says why";
    Err(super::errors::unavailable(detail))
}

fn form(request: &Request) -> Form {
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let accept = accept.unwrap_or_default();
    if accept.contains("application/x-ndjson") {
        Form::Lines
    } else if accept.contains("text/event-stream") {
        Form::Sse
    } else {
        Form::Report
    }
}
