//! Which events a reader wants, and reading them page by page.

use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::backoff::{Backoff, pause};
use super::error::Failure;
use super::http::{GIVE_UP_AFTER, SILENCE_MAX};
use super::{Client, Error};

/// Bytes of one page. The contract's are of 1 MiB, or one event that is larger.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Topic patterns and subjects; none means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Topic patterns.
    pub topics: Vec<String>,
    /// Subjects.
    pub subjects: Vec<String>,
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Before the first event that is kept.
    Earliest,
    /// After the last one at the time of asking.
    Latest,
    /// After a cursor.
    After(String),
    /// At a time, RFC 3339.
    Since(String),
}

/// One page of the log.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The events, as the server wrote them.
    pub events: Vec<Box<RawValue>>,
    /// Everything up to here has been seen.
    pub cursor: String,
    /// Whether there is more already.
    #[serde(default)]
    pub has_more: bool,
}

impl Client {
    /// One page of what is there already. A line that breaks or a server that is overloaded is asked again.
    ///
    /// # Errors
    /// If the server refuses, was never reached, or stays away for minutes.
    pub async fn page(
        &self,
        selection: &Selection,
        start: &Start,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut backoff = Backoff::default();
        let since = Instant::now();
        loop {
            let failure = match self.try_page(selection, start, limit).await {
                Ok(page) => return Ok(page),
                Err(failure) => failure,
            };
            if !failure.passes || matches!(failure.error, Error::Unreachable { .. }) {
                return Err(failure.error);
            }
            if since.elapsed() > GIVE_UP_AFTER {
                return Err(Error::GaveUp {
                    after: since.elapsed(),
                    last: Box::new(failure.error),
                });
            }
            pause(backoff.delay(failure.retry_after)).await;
        }
    }

    async fn try_page(
        &self,
        selection: &Selection,
        start: &Start,
        limit: usize,
    ) -> Result<Page, Failure> {
        let request = self
            .read(selection, start)
            .query(&[("limit", limit.to_string())]);
        let mut response = self.send(request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, SILENCE_MAX).await? {
            body.extend_from_slice(&chunk);
            if body.len() > PAGE_BYTES_MAX {
                return Err(Failure::contract("a page is larger than 16 MiB"));
            }
        }
        serde_json::from_slice(&body).map_err(|err| Failure::contract(format!("not a page: {err}")))
    }

    /// A request for what follows `start`, in whichever form.
    pub(super) fn read(&self, selection: &Selection, start: &Start) -> RequestBuilder {
        let mut query: Vec<(&str, String)> = Vec::with_capacity(3);
        if !selection.topics.is_empty() {
            query.push(("topics", selection.topics.join(",")));
        }
        if !selection.subjects.is_empty() {
            query.push(("subjects", selection.subjects.join(",")));
        }
        query.push(match start {
            Start::Earliest => ("after", "earliest".to_owned()),
            Start::Latest => ("after", "latest".to_owned()),
            Start::After(cursor) => ("after", cursor.clone()),
            Start::Since(time) => ("since", time.clone()),
        });
        self.request(Method::GET, &["v1", "events"]).query(&query)
    }
}
