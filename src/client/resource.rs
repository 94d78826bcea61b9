//! Requests that are asked once and answered with one JSON document: what administrators do.
//!
//! # Invariants
//! - Nothing here is sent again by itself: to create something twice is not to create it once.

use reqwest::Method;
use serde_json::Value;

use super::{Client, Error};

impl Client {
    /// GET.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or does not answer in JSON.
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Error> {
        self.ask(Method::GET, path, query, None).await
    }

    /// POST of a document.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or does not answer in JSON.
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Error> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// PUT of a document; null if the answer has no body.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or does not answer in JSON.
    pub async fn put(&self, path: &[&str], body: &Value) -> Result<Value, Error> {
        self.ask(Method::PUT, path, &[], Some(body)).await
    }

    /// DELETE; null if the answer has no body.
    ///
    /// # Errors
    /// If the server refuses, cannot be reached, or does not answer in JSON.
    pub async fn delete(&self, path: &[&str]) -> Result<Value, Error> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let mut request = self.request(method, path).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.send(request).await.map_err(|failure| failure.error)?;
        let text = response.bytes().await.map_err(|error| self.broken(error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text)
            .map_err(|error| Error::Contract(format!("the answer is no JSON: {error}")))
    }
}
