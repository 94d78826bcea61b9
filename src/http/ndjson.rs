//! `POST /v1/events` with `application/x-ndjson`: a stream of any length, committed chunk by chunk.
//!
//! # Invariants
//! - Bounded memory: a chunk is being committed while the next is being read, and no more. Both count with all bodies.
//! - Order in the log is the order of the lines. One result line an event, in order; a line that is refused does not hold
//!   up the others.
//! - Who is over a rate is slowed down: a chunk waits for its rate before it is stored, and nothing more is read meanwhile.
//! - Whatever comes, blank lines without end too, others get to work in between.
//! - When the log cannot take a chunk, or nobody may write it any more, the stream ends with an error on that chunk's lines: what
//!   has no result line was not stored, or may be sent again with the same ids.

mod line;
mod report;
mod sent;
mod unchecked;

use super::prefer::Preferences;
use crate::log::AppendOptions;
use crate::telemetry::RequestSpan;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::admission::Admission;
use super::app::{App, Seat};
use super::budget::Share;
use super::caller;
use super::coding::Received;
use super::errors;
use super::holding;
use super::ingest::{self, LineSplitter};
use super::problem::{Kind, Problem};
use super::serve::Patience;
use crate::access::limits::Quantity;
use crate::access::{Lease, Policy};
use crate::event::NewEvent;
use crate::event::limits::{
    CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, INFLATION_MAX, LINE_BYTES_MAX, UPLOAD_TURN_BYTES,
};
use report::{Reporter, Summary};
use sent::{Sent, are_stored, settle};
use unchecked::Unchecked;

/// Lines that are committed together.
type Chunk = Vec<Numbered>;
/// A line with its number, or why it is no event.
type Numbered = (u64, Result<NewEvent, Problem>);

/// Who uploads.
pub struct Upload {
    /// The caller, and what its tenant has decided.
    pub policy: Policy,
    /// What it may ask for.
    pub admission: Admission,
    /// For as long as it lasts.
    pub lease: Arc<Lease>,
    /// And what it takes up.
    pub _seat: Seat,
}

/// Streams the result lines; `Prefer: return=minimal` gives refused lines and a summary only.
pub fn post(app: App, upload: Upload, key: Option<String>, request: Request) -> Response {
    let Preferences { is_minimal, wait } = Preferences::of(request.headers());
    let (parts, body) = request.into_parts();
    let trace = ingest::traceparent(&parts.headers).map(str::to_owned);
    let received = parts.extensions.get::<Received>().cloned();
    let patience = parts.extensions.get::<Patience>().copied();
    let (results, lines) = mpsc::channel::<Result<Bytes, Infallible>>(2);
    let tasks = app.tasks.clone();
    let reader = Reader {
        wait,
        lines: LineSplitter::new(LINE_BYTES_MAX),
        body: body.into_data_stream(),
        share: app.bodies.share(&upload.admission.tenant),
        chunk_max: (
            app.limits.in_a_moment(Quantity::Events, CHUNK_EVENTS_MAX),
            app.limits.in_a_moment(Quantity::Bytes, CHUNK_BYTES_MAX),
        ),
        app,
        upload,
        key,
        trace,
        span: parts.extensions.get().copied(),
        chunk: Chunk::new(),
        chunk_bytes: 0,
        unchecked: Unchecked::default(),
        unasked: None,
        passed_bytes: 0,
        line: (0, Instant::now()),
        turn_bytes: 0,
        received,
        patience: patience.unwrap_or_default(),
        inflated: 0,
        ended: false,
        is_broken: false,
    };
    let reporter = Reporter {
        is_minimal,
        summary: Summary::default(),
    };
    tasks.spawn_until_stop(async move { run(reader, reporter, &results).await });
    let body = Body::from_stream(ReceiverStream::new(lines));
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        body,
    )
        .into_response()
}

/// Reads lines and makes events of them.
struct Reader {
    /// How long a chunk is held while the database is away.
    wait: Option<std::time::Duration>,
    lines: LineSplitter,
    body: BodyDataStream,
    app: App,
    upload: Upload,
    key: Option<String>,
    trace: Option<String>,
    /// The request, if it is traced.
    span: Option<RequestSpan>,
    /// What has been read and not been taken.
    chunk: Chunk,
    chunk_bytes: usize,
    /// Of them, those that are to be checked yet.
    unchecked: Unchecked,
    /// The event after them, of which is yet to be asked what the tenant has decided.
    unasked: Option<(u64, NewEvent)>,
    /// Events and bytes of a chunk: few if the caller's rate is low, so that none waits for long, and others of the tenant
    /// get their tokens in between.
    chunk_max: (usize, usize),
    /// What came in since the last chunk was taken, blank lines included.
    passed_bytes: usize,
    /// What counts of the lines that have been read and not been taken.
    share: Share,
    /// The number of the line at hand, and since when it is waited for.
    line: (u64, Instant),
    /// What was worked through since others got to work.
    turn_bytes: usize,
    /// What came in before it was inflated, if it was compressed, and what became of it.
    received: Option<Received>,
    inflated: u64,
    /// How long the client is waited for, to send or to take results.
    patience: Patience,
    ended: bool,
    is_broken: bool,
}

async fn run(
    mut reader: Reader,
    mut reporter: Reporter,
    results: &mpsc::Sender<Result<Bytes, Infallible>>,
) {
    let (app, lease) = (reader.app.clone(), Arc::clone(&reader.upload.lease));
    let admission = reader.upload.admission.clone();
    let principal = reader.upload.policy.principal.clone();
    let identity = app.hub.identity();
    let options = AppendOptions {
        sequence: None,
        wait: reader.wait,
        request: reader.span,
        leave: Some(holding::leave(
            &app,
            Arc::clone(&lease),
            reader.wait.is_some(),
        )),
    };
    let submit = |(chunk, bytes, share)| {
        let pace = (&admission, Arc::clone(&lease), bytes, options.clone());
        Sent::new(&app, &principal, pace, chunk, share)
    };
    reader.read_some(results).await;
    let mut next = reader.take().await.map(submit);
    while let Some(mut sent) = next {
        // The next chunk is read while this one is committed, but its results do not wait for it: a client may send
        // one line at a time.
        let is_full = {
            let filled = pin!(reader.fill());
            matches!(select(&mut sent.answers, filled).await, Either::Right(_))
        };
        let mut following = reader.take().await.map(submit);
        if is_full {
            (&mut sent.answers).await;
        }
        let answers = sent.answers.as_mut().take_output();
        // On its way before the results of this one are written: the database is not kept waiting.
        let is_on_its_way = are_stored(answers.as_ref());
        if let Some(following) = following.as_mut().filter(|_| is_on_its_way) {
            let _ = futures_util::poll!(&mut following.answers);
        }
        let denied = caller::check(&lease).err();
        let committed = settle(sent.lines, answers, denied.as_ref(), identity);
        let (lines, is_over) = reporter.report(committed, identity);
        // Nobody reads them for ever either.
        let taken = tokio::time::timeout(reader.patience.idle, results.send(Ok(lines))).await;
        if !matches!(taken, Ok(Ok(()))) || is_over {
            return;
        }
        next = if following.is_some() {
            following
        } else {
            reader.read_some(results).await;
            reader.take().await.map(submit)
        };
    }
    // Without a summary the upload was not complete.
    if reporter.is_minimal && !reader.is_broken {
        let mut line = serde_json::json!({ "summary": reporter.summary }).to_string();
        line.push('\n');
        let _ = tokio::time::timeout(reader.patience.idle, results.send(Ok(line.into()))).await;
    }
}

impl Reader {
    /// Reads lines until the chunk is full or the stream ends. What has been read stays if this is dropped.
    async fn fill(&mut self) {
        while self.take_lines().await && !self.ended && !self.is_enough() && !self.is_tight() {
            self.wait_for_more().await;
            self.let_others_work().await;
        }
    }

    /// Waits for a line, and takes along what has arrived with it; the chunk stays empty at the end, or when nobody waits
    /// for results.
    async fn read_some(&mut self, results: &mpsc::Sender<Result<Bytes, Infallible>>) {
        while self.take_lines().await && !self.ended && !self.is_enough() {
            if self.chunk.is_empty() {
                self.wait_for_more().await;
            } else {
                match self.body.next().now_or_never() {
                    Some(more) => self.push(more),
                    None => return,
                }
            }
            self.let_others_work().await;
            if self.chunk.is_empty() && results.is_closed() {
                return;
            }
        }
    }

    /// Reads on; who sends nothing for too long, or makes a line last for too long, has ended the upload.
    async fn wait_for_more(&mut self) {
        let number = self.lines.number();
        if self.line.0 != number || !self.lines.is_within_line() {
            self.line = (number, Instant::now());
        }
        let left = self.patience.body.saturating_sub(self.line.1.elapsed());
        let patience = self.patience.idle.min(left);
        let next = tokio::time::timeout(patience, self.body.next());
        let next = match self.upload.lease.check() {
            Ok(()) => self.upload.lease.run(next).await,
            Err(denied) => Err(denied),
        };
        match next {
            Err(denied) => self.cut(caller::denied(&denied)),
            Ok(Ok(more)) => self.push(more),
            Ok(Err(_)) => self.cut(Problem::new(
                Kind::RequestTimeout,
                "nothing came for too long, or the line was not complete in time",
            )),
        }
    }

    /// Ends the upload with an error on the line at hand, from which on nothing is kept.
    fn cut(&mut self, problem: Problem) {
        self.cut_at(self.lines.number(), problem);
    }

    /// The same, on this line.
    fn cut_at(&mut self, number: u64, problem: Problem) {
        self.chunk.push((number, Err(problem)));
        self.lines = LineSplitter::new(LINE_BYTES_MAX);
        (self.ended, self.is_broken) = (true, true);
    }

    /// Takes what is held from the budget of all bodies, or ends the upload.
    fn count(&mut self) {
        let places = self.chunk.capacity().saturating_mul(size_of::<Numbered>());
        let bytes = self.lines.bytes().saturating_add(self.chunk_bytes);
        if !self.share.resize(bytes.saturating_add(places)) && !self.is_broken {
            self.cut(errors::overloaded("too much is being received at once"));
        }
    }

    /// Whether the lines at hand have waited for enough of what follows them.
    const fn is_enough(&self) -> bool {
        !self.chunk.is_empty() && self.passed_bytes >= CHUNK_BYTES_MAX
    }

    /// A few bytes that inflate to gigabytes are always there to be read: the runtime would not interrupt it.
    async fn let_others_work(&mut self) {
        if self.turn_bytes >= UPLOAD_TURN_BYTES {
            self.turn_bytes = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Whether others of the tenant need the room to read ahead.
    fn is_tight(&self) -> bool {
        self.app.bodies.is_tight(&self.upload.admission.tenant)
    }

    /// The lines that were read, if there are any, and their bytes. Not to be dropped before its end.
    async fn take(&mut self) -> Option<(Chunk, usize, Share)> {
        let bytes = std::mem::take(&mut self.chunk_bytes);
        self.passed_bytes = 0;
        let mut chunk = Some(std::mem::take(&mut self.chunk)).filter(|chunk| !chunk.is_empty())?;
        let unchecked = std::mem::take(&mut self.unchecked);
        if !unchecked.check(&self.app, &self.upload, &mut chunk).await {
            (self.ended, self.is_broken) = (true, true);
        }
        Some((chunk, bytes, self.share.split(self.lines.bytes())))
    }

    fn push(&mut self, more: Option<Result<Bytes, axum::Error>>) {
        match more {
            Some(Ok(data)) if self.is_bomb(data.len()) => {
                let detail = format!("the body is more than {INFLATION_MAX} times what was sent");
                self.cut(Problem::new(Kind::TooLarge, detail));
            }
            Some(Ok(data)) => self.lines.push(data),
            // A broken upload: whole lines count, a part of one does not.
            Some(Err(_)) => (self.ended, self.is_broken) = (true, true),
            None => self.ended = true,
        }
    }

    /// Counts what came in.
    fn is_bomb(&mut self, length: usize) -> bool {
        self.passed_bytes = self.passed_bytes.saturating_add(length);
        self.turn_bytes = self.turn_bytes.saturating_add(length);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.inflated = self.inflated.saturating_add(length);
        let received = self.received.as_ref();
        received.is_some_and(|received| received.is_bomb(self.inflated))
    }
}
