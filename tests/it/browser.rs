//! What browsers are told about the pages for people, and that the pages need no more than that.

use base64::Engine as _;
use reqwest::{Method, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Server, TestDb};

/// The policy for pages that run and load nothing.
const STRICT: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn pages_are_shut_and_still_work() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/problems", "text/plain; charset=utf-8"),
        ("/problems/not-found", "text/plain; charset=utf-8"),
    ] {
        let request = server
            .api
            .request(Method::GET, path)
            .header("accept", "text/html");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        for (name, value) in [
            ("content-type", kind),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(header(&answer, name), value, "{path}: {name}");
        }
        for feature in ["camera=()", "geolocation=()", "microphone=()"] {
            assert!(
                header(&answer, "permissions-policy").contains(feature),
                "{path}"
            );
        }
        let policies: Vec<_> = answer
            .headers()
            .get_all("content-security-policy")
            .iter()
            .collect();
        assert_eq!(policies.len(), 1, "{path}");
        let policy = header(&answer, "content-security-policy").to_owned();
        assert!(
            policy.starts_with(STRICT) && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        let text = answer.text().await.unwrap();
        if path == "/" {
            works_under(&policy, &text);
        } else {
            assert_eq!(policy, STRICT);
        }
    }
    server.stop().await;
}

/// The page needs its style alone, which is the one whose hash the policy has.
fn works_under(policy: &str, page: &str) {
    let (_, rest) = page.split_once("<style>").unwrap();
    let (style, rest) = rest.split_once("</style>").unwrap();
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
    assert_eq!(policy, format!("{STRICT}; style-src 'sha256-{hash}'"));
    for other in [
        "<style", "<script", "<link", "<img", "<form", "<base", "<iframe", " style=", " src=",
        " on",
    ] {
        let is_there = rest.match_indices(other).any(|(at, _)| {
            // Of a tag: what stands in the text is text.
            other.starts_with('<') || rest[..at].rfind('<') > rest[..at].rfind('>')
        });
        assert!(!is_there, "{other} in {rest}");
    }
}

#[tokio::test]
async fn whatever_is_no_page_is_what_its_type_says() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "a.b"})).await;
    for (path, status) in [
        ("/v1/events?after=earliest", 200),
        ("/openapi.json", 200),
        ("/livez", 200),
        ("/nowhere", 404),
        ("/v1/events?after=nonsense", 400),
    ] {
        let answer = server.api.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(
            header(&answer, "x-content-type-options"),
            "nosniff",
            "{path}"
        );
        assert!(
            !header(&answer, "content-type").starts_with("text/html"),
            "{path}"
        );
    }
    server.stop().await;
}
