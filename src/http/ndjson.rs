//! `POST /v1/events` with `application/x-ndjson`: a stream of any length, committed chunk by chunk.
//!
//! # Invariants
//! - Bounded memory: a chunk is being committed while the next is being read, and no more.
//! - Order in the log is the order of the lines. One result line an event, in order; a line that is refused does not hold
//!   up the others.
//! - When the log cannot take a chunk the stream ends with an error on that chunk's lines: what has no result line was
//!   not stored, or may be sent again with the same ids.

use std::io::Write as _;
use std::pin::pin;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::app::App;
use super::append::{Answer, admit};
use super::errors;
use super::ingest::{self, LineSplitter};
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::event::NewEvent;
use crate::event::limits::{CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, LINE_BYTES_MAX};

#[derive(Serialize)]
struct Stored<'a> {
    line: u64,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// Lines that are committed together, each with its number, or why it is no event.
type Chunk = Vec<(u64, Result<NewEvent, Problem>)>;

/// Streams the result lines; `Prefer: return=minimal` gives refused lines and a summary only.
pub fn post(app: App, principal: Principal, key: Option<String>, request: Request) -> Response {
    let is_minimal = request.headers().get_all("prefer").iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.to_ascii_lowercase().contains("return=minimal"))
    });
    let (parts, body) = request.into_parts();
    let trace = ingest::traceparent(&parts.headers).map(str::to_owned);
    let (results, receiver) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(2);
    let tasks = app.tasks.clone();
    let reader = Reader {
        lines: LineSplitter::new(LINE_BYTES_MAX),
        body: body.into_data_stream(),
        app,
        principal,
        key,
        trace,
        ended: false,
    };
    let reporter = Reporter {
        is_minimal,
        summary: Summary::default(),
    };
    tasks.spawn_until_stop(async move { run(reader, reporter, &results).await });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        body,
    )
        .into_response()
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    stored: usize,
    duplicates: usize,
    refused: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Reads lines and makes events of them.
struct Reader {
    lines: LineSplitter,
    body: BodyDataStream,
    app: App,
    principal: Principal,
    key: Option<String>,
    trace: Option<String>,
    ended: bool,
}

/// Writes result lines.
struct Reporter {
    is_minimal: bool,
    summary: Summary,
}

async fn run(
    mut reader: Reader,
    mut reporter: Reporter,
    results: &mpsc::Sender<Result<Bytes, std::convert::Infallible>>,
) {
    let (app, principal) = (reader.app.clone(), reader.principal.clone());
    let mut next = reader.chunk().await;
    while let Some(chunk) = next {
        // The next chunk is read while this one is committed, but its results do not wait for it: a client may send
        // one line at a time.
        let committing = pin!(commit(&app, &principal, chunk));
        let mut reading = pin!(reader.chunk());
        let (committed, following) = match select(committing, &mut reading).await {
            Either::Left((committed, _)) => (committed, None),
            Either::Right((following, committing)) => (committing.await, Some(following)),
        };
        let (lines, is_over) = reporter.report(committed);
        if results.send(Ok(lines)).await.is_err() || is_over {
            return;
        }
        next = match following {
            Some(following) => following,
            None => reading.await,
        };
    }
    if reporter.is_minimal {
        let mut line = serde_json::json!({ "summary": reporter.summary }).to_string();
        line.push('\n');
        let _ = results.send(Ok(line.into())).await;
    }
}

impl Reader {
    /// The next lines: as many as are there, at least one; `None` at the end.
    async fn chunk(&mut self) -> Option<Chunk> {
        let mut chunk = Chunk::new();
        let mut bytes = 0_usize;
        while chunk.len() < CHUNK_EVENTS_MAX && bytes < CHUNK_BYTES_MAX {
            match self.lines.next_line() {
                Some(line) => {
                    bytes = bytes.saturating_add(line.as_ref().map_or(0, |line| line.bytes.len()));
                    chunk.push(self.event(line));
                }
                None if self.ended => match self.lines.finish() {
                    Some(line) => chunk.push(self.event(line)),
                    None => break,
                },
                None => {
                    let more = if chunk.is_empty() {
                        self.body.next().await
                    } else {
                        // Whatever has arrived meanwhile; what is there is not held up for what may come.
                        match self.body.next().now_or_never() {
                            Some(more) => more,
                            None => break,
                        }
                    };
                    match more {
                        Some(Ok(data)) => self.lines.push(data),
                        // A broken upload: whole lines count, a part of one does not.
                        Some(Err(_)) => return (!chunk.is_empty()).then_some(chunk),
                        None => self.ended = true,
                    }
                }
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    fn event(
        &self,
        line: Result<ingest::Line, ingest::LineTooLong>,
    ) -> (u64, Result<NewEvent, Problem>) {
        let line = match line {
            Ok(line) => line,
            Err(long) => {
                let detail = format!("a line is at most {LINE_BYTES_MAX} bytes");
                return (long.number, Err(Problem::new(Kind::TooLarge, detail)));
            }
        };
        let event = ingest::decode_line(&line.bytes, &self.app.ingest)
            .map_err(|refusal| Problem::refused(0, &refusal));
        let event = event.and_then(|event| {
            let mut one = [event];
            if let Some(key) = &self.key {
                let first = usize::try_from(line.number.saturating_sub(1)).unwrap_or(usize::MAX);
                ingest::assign_ids(&mut one, key, first);
            }
            if let Some(trace) = &self.trace {
                ingest::apply_trace(&mut one, trace);
            }
            admit(&self.principal, &mut one)?;
            let [event] = one;
            Ok(event)
        });
        (line.number, event)
    }
}

impl Reporter {
    /// The result lines of a chunk, and whether the stream must end.
    fn report(&mut self, committed: Vec<(u64, Result<Answer, Problem>)>) -> (Bytes, bool) {
        let mut out = BytesMut::with_capacity(committed.len().saturating_mul(128));
        let mut is_over = false;
        for (line, outcome) in committed {
            match outcome {
                Ok(answer) => {
                    let counter = if answer.duplicate {
                        &mut self.summary.duplicates
                    } else {
                        &mut self.summary.stored
                    };
                    *counter = counter.saturating_add(1);
                    if !self.is_minimal {
                        write_line(
                            &mut out,
                            &Stored {
                                line,
                                answer: &answer,
                            },
                        );
                    }
                    self.summary.cursor = Some(answer.cursor);
                }
                Err(problem) => {
                    self.summary.refused = self.summary.refused.saturating_add(1);
                    is_over |= problem.kind.is_transient();
                    out.extend_from_slice(
                        format!("{{\"line\":{line},\"error\":{}}}\n", problem.to_json()).as_bytes(),
                    );
                }
            }
        }
        (out.freeze(), is_over)
    }
}

fn write_line(out: &mut BytesMut, line: &impl Serialize) {
    use bytes::BufMut as _;
    let mut writer = out.writer();
    // Writing to memory cannot fail, and these types always serialise.
    let _ = serde_json::to_writer(&mut writer, line);
    let _ = writer.write_all(b"\n");
}

/// Stores the events of a chunk in their order and puts every line's answer into its place.
async fn commit(
    app: &App,
    principal: &Principal,
    chunk: Chunk,
) -> Vec<(u64, Result<Answer, Problem>)> {
    let mut events = Vec::with_capacity(chunk.len());
    let mut lines: Vec<(u64, Option<Problem>)> = Vec::with_capacity(chunk.len());
    for (line, event) in chunk {
        match event {
            Ok(event) => {
                events.push(event);
                lines.push((line, None));
            }
            Err(problem) => lines.push((line, Some(problem))),
        }
    }
    let identity = app.hub.identity();
    let answers = if events.is_empty() {
        Ok(Vec::new())
    } else {
        app.appender.append_each(&principal.tenant, events).await
    };
    let mut answers = match answers {
        Ok(answers) => answers.into_iter(),
        Err(error) => {
            let problem = errors::append(&error, identity);
            return lines
                .into_iter()
                .map(|(line, own)| (line, Err(own.unwrap_or_else(|| problem.clone()))))
                .collect();
        }
    };
    lines
        .into_iter()
        .map(|(line, own)| {
            let outcome = match own {
                Some(problem) => Err(problem),
                None => match answers.next() {
                    Some(Ok(appended)) => Ok(Answer::new(&appended, identity)),
                    Some(Err(error)) => Err(errors::append(&error.at(0), identity)),
                    None => Err(errors::unavailable("the log did not answer for this line")),
                },
            };
            (line, outcome)
        })
        .collect()
}
