//! Appending a stream of lines, each answered once.
//!
//! # Invariants
//! - One request at a time, holding whatever had arrived while the last was under way: input order is log order, a
//!   lone event never waits for company, and no proxy on the way can bring the stream to a halt.
//! - A line is held until it is answered. What is not is sent again, in order, under the same ids: the log stores and
//!   delivers it once.
//! - Memory: one batch, `BATCH_LINES_MAX` lines and `BATCH_BYTES_MAX` bytes (and one line more), and its copy on the wire.
//! - `next` may be abandoned and called again; a request under way is then sent once more.

use std::collections::VecDeque;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};
use tokio::time::Instant;

use super::answer::{Answer, Reply, Sending, refused};
use super::backoff::{Backoff, pause_until};
use super::error::Failure;
use super::http::{GIVE_UP_AFTER, SILENCE_MAX};
use super::{Client, Error, Line, line};

/// Lines of one request. More wait where they come from.
pub const BATCH_LINES_MAX: usize = 2_000;
/// Bytes of one request.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Lines on their way into the log.
#[derive(Debug)]
pub struct Appender<S> {
    client: Client,
    lines: S,
    has_ended: bool,
    /// Read and not answered, in order; refused ones among them are answered here.
    held: VecDeque<Line>,
    /// Turned away for now; they go before `held` into the next request.
    deferred: VecDeque<Line>,
    under_way: Option<UnderWay>,
    /// Answers that the caller has not got yet.
    answered: Vec<Answer>,
    /// What happened after them.
    failed: Option<Failure>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    failing_since: Option<Instant>,
    was_reached: bool,
}

#[derive(Debug)]
struct UnderWay {
    response: Response,
    received: Vec<u8>,
    /// The number that the next answer bears.
    next: u64,
    /// Why a line was turned away for now, if one was.
    turned_away: Option<Failure>,
}

impl Client {
    /// Appends `lines`. Nothing is read or sent before [`Appender::next`] is called.
    pub fn append<S: Stream<Item = Line> + Unpin>(&self, lines: S) -> Appender<S> {
        Appender {
            client: self.clone(),
            lines,
            has_ended: false,
            held: VecDeque::new(),
            deferred: VecDeque::new(),
            under_way: None,
            answered: Vec::new(),
            failed: None,
            retry_at: None,
            backoff: Backoff::default(),
            failing_since: None,
            was_reached: false,
        }
    }
}

impl<S: Stream<Item = Line> + Unpin> Appender<S> {
    /// The next answers, in the order of the lines, or word of a failed attempt; `None` when every line has its answer.
    ///
    /// # Errors
    /// If the server was never reached, refuses the request as a whole, or stays away for minutes. What had been
    /// answered is stored; of the rest nothing is known, and sending it again does no harm.
    pub async fn next(&mut self) -> Result<Option<Sending>, Error> {
        loop {
            self.answer_refused();
            if !self.answered.is_empty() {
                let answered = std::mem::take(&mut self.answered);
                return Ok(Some(Sending::Answered(answered)));
            }
            if let Some(failure) = self.failed.take() {
                return self.fail(failure).map(Some);
            }
            if let Some(moment) = self.retry_at {
                pause_until(moment).await;
                self.retry_at = None;
            }
            match self.advance().await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // Only after what it came with has been handed out.
                Err(failure) => self.failed = Some(failure),
            }
        }
    }

    /// Lines that are held, waiting for an answer.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len().saturating_add(self.deferred.len())
    }

    /// Refused lines at the front need no server.
    fn answer_refused(&mut self) {
        while let Some(line) = self.held.pop_front_if(|line| line.event.is_err()) {
            if let Err(problem) = line.event.clone() {
                let result = Err(problem);
                self.answered.push(Answer { line, result });
            }
        }
    }

    /// One step; false at the end.
    async fn advance(&mut self) -> Result<bool, Failure> {
        let Some(under_way) = &mut self.under_way else {
            while let Some(line) = self.deferred.pop_back() {
                self.held.push_front(line);
            }
            if self.held.is_empty() {
                // Lines refused here are answered before anything is sent.
                self.gather().await;
                return Ok(!self.held.is_empty());
            }
            self.post().await?;
            return Ok(true);
        };
        let chunk = self
            .client
            .chunk(&mut under_way.response, SILENCE_MAX)
            .await?;
        match chunk {
            Some(chunk) => under_way.received.extend_from_slice(&chunk),
            // The last line may come without a line feed.
            None if line::is_json(&under_way.received) => under_way.received.push(b'\n'),
            None => {
                self.end_request()?;
                return Ok(true);
            }
        }
        self.read_answers()?;
        Ok(true)
    }

    /// Takes what has arrived, and waits only if nothing has.
    async fn gather(&mut self) {
        let mut bytes = 0_usize;
        while !self.has_ended && self.held.len() < BATCH_LINES_MAX && bytes < BATCH_BYTES_MAX {
            let next = if self.held.is_empty() {
                self.lines.next().await
            } else {
                match self.lines.next().now_or_never() {
                    Some(next) => next,
                    None => return,
                }
            };
            match next {
                Some(line) => {
                    let line = line.ensure_id();
                    bytes = bytes.saturating_add(line.weight());
                    self.held.push_back(line);
                }
                None => self.has_ended = true,
            }
        }
    }

    async fn post(&mut self) -> Result<(), Failure> {
        let request = self
            .client
            .request(Method::POST, &["v1", "events"])
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(line::body(&self.held));
        let response = self.client.send(request).await?;
        self.was_reached = true;
        self.under_way = Some(UnderWay {
            response,
            received: Vec::new(),
            next: 1,
            turned_away: None,
        });
        Ok(())
    }

    fn read_answers(&mut self) -> Result<(), Failure> {
        let Some(under_way) = &mut self.under_way else {
            return Ok(());
        };
        let mut whole = std::mem::take(&mut under_way.received);
        let end = whole.iter().rposition(|byte| *byte == b'\n');
        under_way.received = whole.split_off(end.map_or(0, |at| at.saturating_add(1)));
        if under_way.received.len() > ANSWER_BYTES_MAX {
            return Err(Failure::contract("an answer is longer than 64 KiB"));
        }
        for text in whole.split(|byte| *byte == b'\n') {
            if !text.trim_ascii().is_empty() {
                let reply: Reply = serde_json::from_slice(text)
                    .map_err(|err| Failure::contract(format!("not an answer: {err}")))?;
                self.settle(reply)?;
            }
        }
        Ok(())
    }

    /// Gives the next line its answer.
    fn settle(&mut self, reply: Reply) -> Result<(), Failure> {
        self.answer_refused();
        let Some(under_way) = &mut self.under_way else {
            return Ok(());
        };
        if let (None, Some(problem)) = (reply.line, &reply.error) {
            // Not about a line: the request as a whole has failed from here on.
            return Err(refused(problem.clone()));
        }
        if reply.line != Some(under_way.next) {
            return Err(Failure::contract(
                "answers are not in the order of the lines",
            ));
        }
        let Some(line) = self.held.pop_front() else {
            return Err(Failure::contract("more answers than lines"));
        };
        under_way.next = under_way.next.saturating_add(1);
        let result = match (reply.error, reply.stored) {
            (Some(problem), _) if problem.is_passing() => {
                under_way.turned_away = Some(refused(problem));
                self.deferred.push_back(line);
                return Ok(());
            }
            (Some(problem), _) => Err(problem),
            (None, Some(stored)) => Ok(stored),
            (None, None) => return Err(Failure::contract("an answer without id and cursor")),
        };
        self.backoff.reset();
        self.failing_since = None;
        self.answered.push(Answer { line, result });
        Ok(())
    }

    fn end_request(&mut self) -> Result<(), Failure> {
        match self.under_way.take() {
            Some(_) if self.held.iter().any(|line| line.event.is_ok()) => {
                Err(Failure::passing(self.client.ended()))
            }
            Some(UnderWay {
                turned_away: Some(failure),
                ..
            }) => Err(failure),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, failure: Failure) -> Result<Sending, Error> {
        self.under_way = None;
        let is_lost = matches!(failure.error, Error::Unreachable { .. }) && !self.was_reached;
        if !failure.passes || is_lost {
            return Err(failure.error);
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() > GIVE_UP_AFTER {
            return Err(Error::GaveUp {
                after: since.elapsed(),
                last: Box::new(failure.error),
            });
        }
        let delay = self.backoff.delay(failure.retry_after);
        self.retry_at = Some(Instant::now() + delay);
        Ok(Sending::Retrying {
            why: failure.error,
            delay,
        })
    }
}
