//! What a test of refusals needs.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use super::Api;

/// Sends it; the answer must be this problem.
pub async fn refused(request: RequestBuilder, status: u16, code: &str, what: &str) -> Value {
    let response: Response = request
        .timeout(Duration::from_secs(30))
        .send()
        .await
        .unwrap();
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let seen = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(
        (seen, kind.as_str()),
        (status, "application/problem+json"),
        "{what:.80}: {text}"
    );
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        problem["type"],
        format!("/problems/{code}"),
        "{what:.80}: {text}"
    );
    assert_eq!(problem["status"], status);
    assert!(text.len() < 100_000, "a problem is bounded");
    for word in ["tidewire.events", "SELECT", "panicked", "src/"] {
        assert!(!text.contains(word), "{text}");
    }
    problem
}

/// A POST of this body.
pub fn post(api: &Api, kind: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    api.request(Method::POST, "/v1/events")
        .header("content-type", kind)
        .body(body)
}
