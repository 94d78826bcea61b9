//! Following the log: every event that matches, in order, across whatever happens to the line.
//!
//! # Invariants
//! - A step's cursor covers all events up to and including that step's: whoever keeps it and comes back with it misses
//!   nothing and, as long as this value lives, sees nothing twice.
//! - Reconnects resume after the last whole message; a message cut short was never seen.
//! - `latest` is turned into a cursor before anything else: a line that breaks early does not move the beginning.
//! - Every await may be abandoned and called again (`select!`, timeouts) without losing a step.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Response, StatusCode};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::refused;
use super::backoff::{Backoff, pause_until};
use super::error::Failure;
use super::sse::{Message, Parser};
use super::{Client, Error, Problem, Selection, Start};

/// A stream without a byte for this long is dead: three of the server's heartbeats.
pub const WATCHDOG: Duration = Duration::from_secs(45);

/// What following brings.
#[derive(Debug)]
pub enum Step {
    /// Events, as the server wrote them.
    Events {
        /// In log order.
        events: Vec<Box<RawValue>>,
        /// Everything up to here has been seen.
        cursor: String,
    },
    /// Nothing matched, but the cursor moved (or is known for the first time).
    Moved {
        /// Everything up to here has been seen.
        cursor: String,
    },
    /// The line is gone; the next call tries again after `delay`.
    Retrying {
        /// What happened.
        why: Error,
        /// When it goes on.
        delay: Duration,
    },
}

/// A reader on its way through the log.
#[derive(Debug)]
pub struct Following {
    client: Client,
    selection: Selection,
    start: Start,
    stream: Option<(Response, Parser)>,
    messages: VecDeque<Message>,
    backoff: Backoff,
    retry: Option<Duration>,
    retry_at: Option<Instant>,
    was_reached: bool,
}

impl Client {
    /// Follows what matches `selection` from `start` on.
    #[must_use]
    pub fn follow(&self, selection: Selection, start: Start) -> Following {
        Following {
            client: self.clone(),
            selection,
            start,
            stream: None,
            messages: VecDeque::new(),
            backoff: Backoff::default(),
            retry: None,
            retry_at: None,
            was_reached: false,
        }
    }
}

impl Following {
    /// Opens the stream now rather than with the first step: what is written from here on is delivered live. A server that
    /// cannot take it at the moment is asked again with the next step.
    ///
    /// # Errors
    /// As [`Following::next`].
    pub async fn open(&mut self) -> Result<(), Error> {
        if self.stream.is_some() || self.start == Start::Latest {
            return Ok(());
        }
        match self.connect().await {
            Ok(_) => Ok(()),
            Err(failure) => self.fail(failure).map(drop),
        }
    }

    /// The next step; `None` when the server says that there is no more to come.
    ///
    /// # Errors
    /// If the server was never reached, or refuses for good: credentials, a cursor that is unknown or expired.
    pub async fn next(&mut self) -> Result<Option<Step>, Error> {
        if let Some(moment) = self.retry_at {
            pause_until(moment).await;
            self.retry_at = None;
        }
        match self.advance().await {
            Ok(step) => Ok(step),
            Err(failure) => self.fail(failure).map(Some),
        }
    }

    async fn advance(&mut self) -> Result<Option<Step>, Failure> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                match self.read(message)? {
                    Some(step) => return Ok(Some(step)),
                    None => continue,
                }
            }
            let Some((response, parser)) = &mut self.stream else {
                if self.start == Start::Latest {
                    return self.resolve_latest().await.map(Some);
                }
                if !self.connect().await? {
                    return Ok(None);
                }
                continue;
            };
            let chunk = self.client.chunk(response, WATCHDOG).await?;
            let Some(chunk) = chunk else {
                return Err(Failure::passing(self.client.ended()));
            };
            parser
                .push(&chunk, &mut self.messages)
                .map_err(|err| Failure::contract(err.to_string()))?;
            self.retry = parser.take_retry().or(self.retry);
        }
    }

    async fn resolve_latest(&mut self) -> Result<Step, Failure> {
        let page = self.client.page(&self.selection, &Start::Latest, 1).await;
        let cursor = page.map_err(Failure::lasting)?.cursor;
        self.was_reached = true;
        self.start = Start::After(cursor.clone());
        Ok(Step::Moved { cursor })
    }

    /// Opens the stream. False: there is nothing more to come.
    async fn connect(&mut self) -> Result<bool, Failure> {
        let mut request = self
            .client
            .read(&self.selection, &self.start)
            .header(ACCEPT, "text/event-stream");
        if let Start::After(cursor) = &self.start {
            request = request.header("Last-Event-ID", cursor);
        }
        let response = self.client.send(request).await?;
        self.was_reached = true;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(false);
        }
        self.stream = Some((response, Parser::default()));
        Ok(true)
    }

    fn read(&mut self, message: Message) -> Result<Option<Step>, Failure> {
        let Message { event, data, id } = message;
        match event.as_str() {
            "" | "message" => {
                let events: Vec<Box<RawValue>> = serde_json::from_str(&data).map_err(|err| {
                    Failure::contract(format!("a message is no array of events: {err}"))
                })?;
                let cursor = self
                    .pass(id)
                    .ok_or_else(|| Failure::contract("a message without an id"))?;
                Ok(Some(Step::Events { events, cursor }))
            }
            "error" => {
                let problem: Problem = serde_json::from_str(&data).map_err(|err| {
                    Failure::contract(format!("an error is no problem document: {err}"))
                })?;
                Err(refused(problem))
            }
            // Heartbeats, and names of a later server: what counts is the id.
            _ => Ok(self.pass(id).map(|cursor| Step::Moved { cursor })),
        }
    }

    /// Everything up to `id` has been seen.
    fn pass(&mut self, id: String) -> Option<String> {
        self.backoff.reset();
        if id.is_empty() {
            return None;
        }
        self.start = Start::After(id.clone());
        Some(id)
    }

    fn fail(&mut self, failure: Failure) -> Result<Step, Error> {
        self.stream = None;
        self.messages.clear();
        let is_lost = matches!(failure.error, Error::Unreachable { .. }) && !self.was_reached;
        if !failure.passes || is_lost {
            return Err(failure.error);
        }
        let delay = self
            .backoff
            .delay(failure.retry_after.or(self.retry.take()));
        self.retry_at = Some(Instant::now() + delay);
        Ok(Step::Retrying {
            why: failure.error,
            delay,
        })
    }
}
