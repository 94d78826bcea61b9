//! The shape of problem documents.

use std::collections::HashSet;

use axum::body::to_bytes;
use axum::extract::Path;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn document(problem: &Problem) -> Value {
    serde_json::from_str(&problem.to_json()).unwrap()
}

#[test]
fn codes_are_unique_words_that_lead_back() {
    let codes: HashSet<&str> = catalog().iter().map(|kind| kind.code()).collect();
    assert_eq!(codes.len(), catalog().len());
    for kind in catalog() {
        assert_eq!(Kind::parse(kind.code()), Some(*kind));
        assert!(
            kind.code()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'-')
        );
        assert!(kind.status().is_client_error() || kind.status().is_server_error());
        assert!(!kind.entry().meaning.is_empty() && !kind.entry().remedy.is_empty());
    }
}

#[test]
fn a_document_has_the_members_of_the_contract() {
    let refusal = Refusal::new(Fault::Invalid, "topic", "is missing");
    let problem = Problem::refused(3, &refusal).with_request_id("r-1");
    assert_eq!(
        document(&problem),
        json!({
            "type": "/problems/invalid-event", "title": "An event breaks a rule", "status": 422,
            "detail": "topic: is missing", "request_id": "r-1",
            "errors": [{"index": 3, "field": "topic", "reason": "is missing"}],
        })
    );
    assert_eq!(
        document(&Problem::cursor_expired("00ab"))["earliest_cursor"],
        "00ab"
    );
    assert_eq!(
        document(&Problem::conflict(None, "x"))["current_cursor"],
        "none"
    );
    let parameter = document(&Problem::parameter("limit", "must be 1 to 1000"));
    assert_eq!(
        parameter["errors"],
        json!([{"field": "limit", "reason": "must be 1 to 1000"}])
    );
}

#[test]
fn the_status_says_how_all_are_at_fault() {
    let refusal = |fault| (0, Refusal::new(fault, "data", "x"));
    let kind = |faults: &[Fault]| {
        let listed: Vec<_> = faults.iter().copied().map(refusal).collect();
        Problem::refusals(&listed, listed.len()).kind
    };
    assert_eq!(kind(&[Fault::TooLarge, Fault::TooLarge]), Kind::TooLarge);
    assert_eq!(kind(&[Fault::Unstorable]), Kind::UnstorableData);
    assert_eq!(
        kind(&[Fault::Unstorable, Fault::TooLarge]),
        Kind::InvalidEvent
    );
    assert_eq!(kind(&[Fault::Malformed]), Kind::InvalidEvent);
}

#[test]
fn headers_repeat_what_the_document_says() {
    let header = |problem: Problem, name: &str| {
        let response = problem.into_response();
        response
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let of = |kind| Problem::new(kind, "");
    let wait = Duration::from_millis(2_001);
    assert_eq!(
        header(of(Kind::RateLimited).with_retry_after(wait), "retry-after"),
        Some("3".into())
    );
    assert_eq!(
        header(of(Kind::Unavailable), "retry-after"),
        Some("1".into())
    );
    assert_eq!(header(of(Kind::NotFound), "retry-after"), None);
    assert_eq!(
        header(of(Kind::Unauthenticated), "www-authenticate"),
        Some("Bearer".into())
    );
    assert_eq!(
        header(Problem::method_not_allowed("GET, HEAD"), "allow"),
        Some("GET, HEAD".into())
    );
    assert_eq!(
        header(of(Kind::NotFound), "content-type"),
        Some("application/problem+json".into())
    );
    assert_eq!(
        header(of(Kind::NotFound), "cache-control"),
        Some("no-store".into())
    );
}

#[test]
fn the_response_carries_the_problem_for_the_layers_above() {
    let response = Problem::new(Kind::Internal, "x").into_response();
    assert_eq!(
        response.extensions().get::<Problem>().unwrap().kind,
        Kind::Internal
    );
}

#[tokio::test]
async fn every_type_leads_to_an_explanation() {
    for kind in catalog() {
        let response = explain(Path(kind.code().to_owned())).await;
        assert_eq!(response.status(), 200);
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert!(
            std::str::from_utf8(&body)
                .unwrap()
                .contains(kind.entry().remedy)
        );
    }
    assert_eq!(explain(Path("nothing".into())).await.status(), 404);
    assert_eq!(index().await.status(), 200);
}

proptest! {
    #[test]
    fn any_texts_give_a_bounded_document_on_one_line(
        field in "(\\PC|\\n){0,300}", reason in "(\\PC|\\n|\"){0,900}", count in 0_usize..150,
    ) {
        let refusals: Vec<_> = (0..count)
            .map(|n| (n, Refusal::new(Fault::Invalid, field.clone(), &reason)))
            .collect();
        let problem = Problem::refusals(&refusals, count);
        let text = problem.to_json();
        prop_assert!(!text.contains('\n'));
        prop_assert!(text.len() < 300_000);
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value["status"].as_u64(), Some(u64::from(problem.kind.status().as_u16())));
        prop_assert_eq!(problem.errors.len(), count.min(ERRORS_MAX));
    }
}
