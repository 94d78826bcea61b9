//! One request, one answer, whatever its status: for whoever looks at how a server answers.
//!
//! # Invariants
//! - Nothing is sent again, and no status is an error.
//! - An answer is bounded; what grows beyond is an error and not a buffer.

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::{Client, Error};

/// Bytes of an answer. A page is of 1 MiB, or of one event that is larger.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request's body and its media type.
pub type Content<'a> = (&'a str, Vec<u8>);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The HTTP status.
    pub status: u16,
    /// The body's media type; empty if it has none.
    pub media_type: String,
    /// `Retry-After`, if there is one.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Exchange {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of the problem document that it is; empty if it is none.
    #[must_use]
    pub fn problem(&self) -> String {
        if !self.media_type.starts_with("application/problem+json") {
            return String::new();
        }
        let document = self.json();
        let kind = document.get("type").and_then(Value::as_str);
        kind.and_then(|kind| kind.rsplit('/').next())
            .unwrap_or_default()
            .to_owned()
    }
}

impl Client {
    /// GET.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Exchange, Error> {
        self.exchange(self.request(Method::GET, path).query(query))
            .await
    }

    /// POST of a body with its media type, or of none.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_post(
        &self,
        path: &[&str],
        content: Option<Content<'_>>,
    ) -> Result<Exchange, Error> {
        let mut request = self.request(Method::POST, path);
        if let Some((media_type, body)) = content {
            request = request.header(CONTENT_TYPE, media_type).body(body);
        }
        self.exchange(request).await
    }

    /// PUT of a document.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_put(&self, path: &[&str], body: &Value) -> Result<Exchange, Error> {
        self.exchange(self.request(Method::PUT, path).json(body))
            .await
    }

    /// DELETE.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_delete(&self, path: &[&str]) -> Result<Exchange, Error> {
        self.exchange(self.request(Method::DELETE, path)).await
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Exchange, Error> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let text = |headers: &HeaderMap, name| {
            let value = headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let headers = response.headers();
        let (media_type, retry_after) = (text(headers, CONTENT_TYPE), text(headers, RETRY_AFTER));
        let (status, mut response, mut body) = (response.status(), response, Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(Error::Contract("an answer is larger than 16 MiB".into()));
            }
        }
        Ok(Exchange {
            status: status.as_u16(),
            media_type: media_type.unwrap_or_default(),
            retry_after,
            body,
        })
    }
}
