//! CloudEvents in, events of the log, CloudEvents out.

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::Payload;
use crate::event::encode::{self, Stored, timestamp};
use crate::http::ingest::{Media, decode};
use crate::http::problem::Kind;

const LIMITS: IngestLimits = IngestLimits {
    array_events: 10,
    data_bytes: 1000,
};

fn structured(event: &Value) -> Result<NewEvent, (Kind, String)> {
    decode_structured(event.to_string().as_bytes(), &LIMITS)
        .map(|mut decoded| decoded.events.remove(0))
        .map_err(|problem| (problem.kind, problem.detail.into_owned()))
}

fn minimal(more: Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b"});
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    event
}

fn binary(headers: &[(&str, &str)], body: &[u8]) -> Result<NewEvent, Kind> {
    let mut map = HeaderMap::new();
    let required = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
    ];
    for (name, value) in required.iter().chain(headers) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let decoded = decode(Media::CloudEventsBinary, &map, body, &LIMITS);
    decoded
        .map(|mut decoded| decoded.events.remove(0))
        .map_err(|problem| problem.kind)
}

fn payload(event: &NewEvent) -> (String, Option<&str>) {
    match &event.payload {
        Payload::None => (String::new(), None),
        Payload::Json(text) => (text.get().to_owned(), None),
        Payload::Bytes {
            bytes,
            content_type,
        } => (
            String::from_utf8_lossy(bytes).into_owned(),
            Some(content_type.as_str()),
        ),
    }
}

#[test]
fn attributes_become_fields() {
    let event = structured(&minimal(json!({
        "subject": "deal-7", "time": "2026-11-20T10:00:00.5+01:00", "priority": "high", "region": "eu",
        "gdprconsent": true, "gdprbasis": "contract", "partitionkey": "other", "sequence": "9", "recordedtime": "x",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "dataschema": "http://x/y", "unknown": {"a": 1}, "data": {"n": 1},
    })))
    .unwrap();
    assert_eq!(event.id.as_ref().unwrap().as_str(), "1");
    assert_eq!(event.topic.as_str(), "a.b");
    assert_eq!(event.subject.as_ref().unwrap().as_str(), "deal-7");
    assert_eq!(
        timestamp(event.occurred_at.unwrap()),
        "2026-11-20T09:00:00.500Z"
    );
    assert_eq!(
        event.gdpr.as_ref().unwrap().get(),
        r#"{"consent":true,"basis":"contract"}"#
    );
    assert!(event.trace.is_some());
    let keyed = structured(&minimal(
        json!({"partitionkey": "p", "gdprconsent": "false"}),
    ))
    .unwrap();
    assert_eq!(keyed.subject.unwrap().as_str(), "p");
    assert_eq!(keyed.gdpr.unwrap().get(), r#"{"consent":false}"#);
}

#[test]
fn what_is_refused_says_why() {
    for (name, text) in [
        ("specversion", "0.3"),
        ("type", "Order.x"),
        ("type", "a b"),
        ("source", ""),
        ("gdprconsent", "yes"),
        ("time", "now"),
        ("traceparent", "x"),
    ] {
        let (kind, detail) = structured(&minimal(json!({name: text}))).unwrap_err();
        assert_eq!(kind, Kind::InvalidEvent);
        assert!(detail.starts_with(name), "{detail}");
    }
    for name in ["specversion", "id", "source", "type"] {
        let (_, detail) = structured(&minimal(json!({name: null}))).unwrap_err();
        assert_eq!(
            detail,
            format!("{name}: is missing: CloudEvents requires it")
        );
    }
    let (_, detail) =
        structured(&minimal(json!({"type": "com.example.Order.created"}))).unwrap_err();
    assert!(detail.contains("upper-case"));
    assert_eq!(
        structured(&minimal(json!({"id": 1}))).unwrap_err().0,
        Kind::InvalidEvent
    );
    assert_eq!(
        structured(&json!([minimal(json!({}))])).unwrap_err().0,
        Kind::InvalidEvent
    );
    assert_eq!(
        structured(&minimal(json!({"data": 1, "data_base64": "AA=="})))
            .unwrap_err()
            .0,
        Kind::InvalidEvent
    );
}

#[test]
fn data_is_json_text_or_bytes() {
    let of = |more| {
        let event = structured(&minimal(more)).unwrap();
        let (text, content_type) = payload(&event);
        (text, content_type.map(str::to_owned))
    };
    assert_eq!(of(json!({"data": [1]})), ("[1]".into(), None));
    assert_eq!(of(json!({"data": null})), ("null".into(), None));
    assert_eq!(
        of(json!({"data": {}, "datacontenttype": "application/x+json"})),
        ("{}".into(), None)
    );
    assert_eq!(
        of(json!({"data": "hi", "datacontenttype": "text/plain"})),
        ("hi".into(), Some("text/plain".into()))
    );
    assert_eq!(
        of(json!({"data_base64": "aGk="})),
        ("hi".into(), Some(OCTET_STREAM.into()))
    );
    assert_eq!(
        of(json!({"data_base64": "aGk=", "datacontenttype": "image/x"})),
        ("hi".into(), Some("image/x".into()))
    );
    assert_eq!(
        of(json!({"datacontenttype": "text/plain"})),
        (String::new(), None)
    );
    assert!(
        structured(&minimal(
            json!({"data": 1, "datacontenttype": "text/plain"})
        ))
        .is_err()
    );
}

#[test]
fn a_batch_is_an_array() {
    let two = json!([minimal(json!({})), minimal(json!({"id": "2"}))]).to_string();
    let decoded = decode_batch(two.as_bytes(), &LIMITS).unwrap();
    assert_eq!((decoded.events.len(), decoded.is_array), (2, true));
    let kind = |text: &str| decode_batch(text.as_bytes(), &LIMITS).unwrap_err().kind;
    assert_eq!(kind("{}"), Kind::Malformed);
    assert_eq!(kind("[{}]"), Kind::InvalidEvent);
    assert_eq!(kind("[]"), Kind::InvalidEvent);
}

#[test]
fn the_body_of_binary_mode_is_the_data() {
    let of = |headers: &[(&str, &str)], body: &[u8]| {
        let event = binary(headers, body)?;
        let (text, content_type) = payload(&event);
        Ok((text, content_type.map(str::to_owned)))
    };
    let json = ("content-type", "application/json; charset=utf-8");
    assert_eq!(of(&[json], b" {\"a\":1} "), Ok((r#"{"a":1}"#.into(), None)));
    assert_eq!(of(&[json], b"{"), Err(Kind::Malformed));
    assert_eq!(of(&[json], b""), Ok((String::new(), None)));
    assert_eq!(of(&[], b"[1]"), Ok(("[1]".into(), None)));
    assert_eq!(of(&[], b"hi"), Ok(("hi".into(), Some(OCTET_STREAM.into()))));
    assert_eq!(
        of(&[("content-type", "text/plain")], b"1"),
        Ok(("1".into(), Some("text/plain".into())))
    );
    assert_eq!(
        of(&[("ce-datacontenttype", "text/plain")], b"1"),
        Ok(("1".into(), Some("text/plain".into())))
    );
    assert_eq!(of(&[json], &[b'1'; 2000]), Err(Kind::TooLarge));
    assert_eq!(of(&[("ce-type", "A")], b""), Err(Kind::InvalidEvent));
    let event = binary(&[("ce-subject", "Zo%C3%AB"), ("ce-other", "%ff")], b"").unwrap();
    assert_eq!(event.subject.unwrap().as_str(), "Zoë");
}

#[test]
fn an_event_without_a_source_gets_one_and_odd_sources_become_uris() {
    let source = |event: Value| {
        let out = to_cloudevent(event.to_string().as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&out).unwrap()["source"].clone()
    };
    assert_eq!(source(json!({"topic": "a"})), "tidewire");
    assert_eq!(
        source(json!({"source": "manager 1/é%20%"})),
        "manager%201/%C3%A9%20%25"
    );
    assert_eq!(to_cloudevent(b"[]"), None);
    assert_eq!(to_cloudevent(b"\xff"), None);
}

prop_compose! {
    fn stored_texts()(
        id in "\\PC{1,20}", topic in "[a-z]{1,5}(\\.[a-z0-9_-]{1,5}){0,3}", subject in "\\PC{1,20}",
        source in "[a-z:/._-]{1,20}", region in "\\PC{1,10}", basis in "\\PC{0,10}", data in "\\PC{0,10}",
        mask in 0_u32..512, at in 0_i64..4_000_000_000_000_000,
    ) -> (Vec<String>, u32, i64) {
        (vec![id, topic, subject, source, region, basis, data], mask, at)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((texts, mask, at) in stored_texts()) {
        let has = |bit: u32| mask & (1 << bit) != 0;
        let at = chrono::DateTime::from_timestamp_micros(at).unwrap();
        let gdpr = json!({"consent": has(7), "basis": texts[5]}).to_string();
        let data = json!({"text": texts[6], "n": 1}).to_string();
        let stored = Stored {
            id: &texts[0],
            cursor: "0123",
            topic: &texts[1],
            subject: has(0).then_some(texts[2].as_str()),
            source: Some(&texts[3]),
            priority: "low",
            occurred_at: has(1).then_some(at),
            recorded_at: at,
            region: has(2).then_some(texts[4].as_str()),
            gdpr: has(3).then_some(gdpr.as_str()),
            trace: has(4).then_some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            data: (has(5) && !has(6)).then_some(data.as_str()),
            bytes: has(6).then_some(texts[6].as_bytes()),
            content_type: has(6).then_some("text/x"),
            erased_at: None,
        };
        let out = to_cloudevent(&encode::json(&stored)).unwrap();
        prop_assert!(!out.contains(&b'\n'));
        let event = decode_structured(&out, &LIMITS).unwrap().events.remove(0);
        prop_assert_eq!(event.id.as_ref().unwrap().as_str(), stored.id);
        prop_assert_eq!(event.topic.as_str(), stored.topic);
        prop_assert_eq!(event.subject.as_ref().map(Label::as_str), stored.subject);
        prop_assert_eq!(event.source.as_ref().map(Label::as_str), stored.source);
        prop_assert_eq!(event.priority.as_str(), "low");
        prop_assert_eq!(event.occurred_at, stored.occurred_at);
        prop_assert_eq!(event.region.as_ref().map(Label::as_str), stored.region);
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        prop_assert_eq!(event.gdpr.as_ref().map(|g| json(g.get())), stored.gdpr.map(json));
        prop_assert_eq!(event.trace.as_deref(), stored.trace);
        let (text, content_type) = payload(&event);
        prop_assert_eq!(content_type, stored.content_type);
        let expected = if has(6) { texts[6].as_str() } else { stored.data.unwrap_or_default() };
        prop_assert_eq!(text, expected);
    }

    #[test]
    fn any_body_gives_an_answer(body in proptest::collection::vec(any::<u8>(), 0..100), value in "[ -~é]{0,30}") {
        let _ = decode_structured(&body, &LIMITS);
        let _ = decode_batch(&body, &LIMITS);
        let _ = to_cloudevent(&body);
        let _ = binary(&[("ce-subject", &value), ("content-type", &value)], &body);
        let _ = binary(&[("ce-time", &value)], &body);
    }
}
