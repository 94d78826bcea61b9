//! JSON and NDJSON bodies: what is taken, what is refused and how, and that every body ends.

use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;

const LIMITS: IngestLimits = IngestLimits {
    array_events: 150,
    data_bytes: 1000,
};

fn json(body: impl AsRef<[u8]>) -> Result<Decoded, Problem> {
    decode(Media::Json, &HeaderMap::new(), body.as_ref(), &LIMITS)
}

fn kind(body: impl AsRef<[u8]>) -> Kind {
    json(body).unwrap_err().kind
}

#[test]
fn an_event_or_an_array_of_events() {
    let one = json("\u{feff} {\"topic\":\"a\"} ").unwrap();
    assert_eq!((one.events.len(), one.is_array), (1, false));
    let two = json(r#" [{"topic":"a"}, {"topic":"b","data":1.10}]"#).unwrap();
    assert_eq!((two.events.len(), two.is_array), (2, true));
    assert_eq!(kind("[]"), Kind::InvalidEvent);
    assert_eq!(kind(""), Kind::Malformed);
    assert_eq!(kind(" \n"), Kind::Malformed);
    assert_eq!(kind(b"{\"topic\":\"\xff\"}"), Kind::Malformed);
    assert_eq!(kind("7"), Kind::InvalidEvent);
    assert_eq!(kind(r#"{"topic":"a","topic":"a"}"#), Kind::InvalidEvent);
}

#[test]
fn broken_json_is_placed() {
    let problem = json("[{\"topic\":\"a\"},\n {\"topic\":}]").unwrap_err();
    assert_eq!(problem.kind, Kind::Malformed);
    assert!(
        problem.detail.contains("line 2 column 11"),
        "{}",
        problem.detail
    );
    assert_eq!(kind(r#"{"topic":"a"} x"#), Kind::Malformed);
    assert_eq!(kind(r#"[{"topic":"a"}] []"#), Kind::Malformed);
}

#[test]
fn every_event_at_fault_is_named() {
    let problem = json(
        r#"[{"topic":"A"},{"topic":"a"},{"topic":"a","x":1},[],{"topic":"a","data":"\u0000"}]"#,
    )
    .unwrap_err();
    assert_eq!(problem.kind, Kind::InvalidEvent);
    let named: Vec<_> = problem
        .errors
        .iter()
        .map(|e| (e.index.unwrap(), e.field.as_str()))
        .collect();
    assert_eq!(named, [(0, "topic"), (2, "x"), (3, ""), (4, "data")]);
    assert_eq!(problem.detail, "4 events were refused");
    let many = json(format!("[{}1]", "1,".repeat(149))).unwrap_err();
    assert_eq!(many.errors.len(), 100);
    assert_eq!(
        many.detail,
        "150 events were refused, the first 100 are listed"
    );
}

#[test]
fn the_status_follows_the_fault() {
    assert_eq!(
        kind(r#"[{"topic":"a","data":"\ud800"}]"#),
        Kind::UnstorableData
    );
    assert_eq!(
        kind(format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat(1000))),
        Kind::TooLarge
    );
    assert_eq!(kind(format!("[{}1]", "1,".repeat(150))), Kind::TooLarge);
}

#[test]
fn depth_costs_neither_stack_nor_minutes() {
    let started = Instant::now();
    let depth = 10_000_000;
    let open = "[".repeat(depth);
    let closed = format!("{open}{}", "]".repeat(depth));
    assert_eq!(kind(&open), Kind::Malformed);
    assert_eq!(kind(&closed), Kind::InvalidEvent);
    assert_eq!(
        kind(format!(r#"{{"topic":"a","data":{open}"#)),
        Kind::Malformed
    );
    assert_eq!(
        kind(format!(r#"{{"topic":"a","data":{closed}}}"#)),
        Kind::UnstorableData
    );
    assert_eq!(
        kind(format!(r#"[{{"topic":"a","gdpr":{closed}}}]"#)),
        Kind::InvalidEvent
    );
    let object = format!("{}1{}", r#"{"a":"#.repeat(1_000_000), "}".repeat(1_000_000));
    assert_eq!(
        kind(format!(r#"{{"topic":"a","data":{object}}}"#)),
        Kind::UnstorableData
    );
    assert_eq!(kind(&object), Kind::InvalidEvent);
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn texts_of_the_client_are_cut() {
    let long = "y".repeat(1_000_000);
    for body in [
        format!("\"{long}\""),
        format!("{{\"{long}\":1}}"),
        format!("{{\"{long}\":1,\"{long}\":1}}"),
    ] {
        assert!(json(&body).unwrap_err().to_json().len() < 2_000);
    }
}

const SAMPLE: &str = r#"[{"id":"1","topic":"a.b","subject":"s\u00e9é","priority":"low","occurred_at":"2026-11-20T10:00:00Z","data":{"a":[1.5e3,true,null,"\ud83d\ude00"]}},{"topic":"c","data_base64":"aGk=","content_type":"x/y"}]"#;

#[test]
fn a_body_cut_anywhere_is_malformed() {
    for end in 0..SAMPLE.len() {
        assert_eq!(
            kind(&SAMPLE.as_bytes()[..end]),
            Kind::Malformed,
            "cut at {end}"
        );
    }
    assert_eq!(json(SAMPLE).unwrap().events.len(), 2);
}

#[test]
fn the_traceparent_header_fills_gaps() {
    let mut headers = HeaderMap::new();
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let own = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let body = format!(r#"[{{"topic":"a"}},{{"topic":"a","trace":"{own}"}}]"#);
    let traces = |headers: &HeaderMap| {
        let decoded = decode(Media::Json, headers, body.as_bytes(), &LIMITS).unwrap();
        decoded
            .events
            .into_iter()
            .map(|e| e.trace)
            .collect::<Vec<_>>()
    };
    headers.insert("traceparent", HeaderValue::from_static(valid));
    assert_eq!(
        traces(&headers),
        [Some(valid.to_owned()), Some(own.to_owned())]
    );
    headers.append("traceparent", HeaderValue::from_static(valid));
    assert_eq!(traces(&headers), [None, Some(own.to_owned())]);
    headers.insert("traceparent", HeaderValue::from_static("00-0AF7-1-01"));
    assert_eq!(traces(&headers), [None, Some(own.to_owned())]);
}

#[test]
fn lines_are_events() {
    let decode = |body: &str| decode(Media::Ndjson, &HeaderMap::new(), body.as_bytes(), &LIMITS);
    assert_eq!(
        decode("{\"topic\":\"a\"}\r\n\n{\"topic\":\"b\"}")
            .unwrap()
            .events
            .len(),
        2
    );
    let problem = decode("{\"topic\":\"a\"}\n{\"topic\"\n").unwrap_err();
    assert_eq!(
        (problem.kind, problem.errors[0].index),
        (Kind::InvalidEvent, Some(1))
    );
    assert_eq!(decode("\n").unwrap_err().kind, Kind::InvalidEvent);
    assert_eq!(decode(&"1\n".repeat(151)).unwrap_err().kind, Kind::TooLarge);
    assert_eq!(
        decode_line(b"\xff", &LIMITS).unwrap_err().fault,
        Fault::Malformed
    );
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let headers = HeaderMap::new();
        for media in [Media::Json, Media::Ndjson, Media::Msgpack, Media::CloudEventsStructured, Media::CloudEventsBatch, Media::CloudEventsBinary] {
            if let Err(problem) = decode(media, &headers, &body, &LIMITS) {
                prop_assert!(problem.kind.status().is_client_error());
            }
        }
    }

    #[test]
    fn any_changed_byte_gives_an_answer(at in 0..SAMPLE.len(), to in any::<u8>()) {
        let mut body = SAMPLE.as_bytes().to_vec();
        body[at] = to;
        if let Err(problem) = json(&body) {
            prop_assert!(matches!(problem.kind, Kind::Malformed | Kind::InvalidEvent | Kind::UnstorableData));
        }
    }

    #[test]
    fn text_like_json_gives_an_answer(body in r#"[\[\]{}:,"\\a-c0-9 .eE+-]{0,80}"#) {
        let _ = json(&body);
    }
}
