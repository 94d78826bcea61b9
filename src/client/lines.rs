//! An answer that comes line by line, each a JSON document.
//!
//! # Invariants
//! - Nothing is sent again by itself.
//! - A line is bounded; what grows beyond is an error and not a buffer.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde_json::Value;

use super::{Client, Error};

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Lines as they come.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    response: Response,
    buffer: Vec<u8>,
    silence_max: Duration,
}

impl Client {
    /// POST of a document whose answer is NDJSON, no line of which may take longer than `silence_max`.
    ///
    /// # Errors
    /// If the server refuses or cannot be reached.
    pub async fn post_lines(
        &self,
        path: &[&str],
        body: &Value,
        silence_max: Duration,
    ) -> Result<Lines, Error> {
        let request = self
            .request(Method::POST, path)
            .header(ACCEPT, "application/x-ndjson")
            .json(body);
        let response = self.send(request).await.map_err(|failure| failure.error)?;
        Ok(Lines {
            client: self.clone(),
            response,
            buffer: Vec::new(),
            silence_max,
        })
    }
}

impl Lines {
    /// The next line; none at the end.
    ///
    /// # Errors
    /// If the connection breaks, nothing comes for too long, or a line is no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end.saturating_add(1));
                let line = std::mem::replace(&mut self.buffer, rest);
                let read = serde_json::from_slice(&line);
                return read
                    .map(Some)
                    .map_err(|error| Error::Contract(format!("a line is no JSON: {error}")));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Error::Contract("a line is longer than 1 MiB".into()));
            }
            let chunk = self
                .client
                .chunk(&mut self.response, self.silence_max)
                .await;
            match chunk.map_err(|failure| failure.error)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}
