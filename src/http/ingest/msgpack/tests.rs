//! MessagePack gives the events that the same JSON gives, and any bytes give an answer.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::Payload;
use crate::http::problem::Kind;

const LIMITS: IngestLimits = IngestLimits {
    array_events: 10,
    data_bytes: 1000,
};

fn encode(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

/// `{"topic": "a", "data": <value>}`
fn with_data(value: &[u8]) -> Vec<u8> {
    [b"\x82\xa5topic\xa1a\xa4data", value].concat()
}

fn data(body: &[u8]) -> Result<String, (Kind, String)> {
    let decoded = decode(body, &LIMITS).map_err(|p| (p.kind, p.detail.into_owned()))?;
    match &decoded.events[0].payload {
        Payload::Json(text) => Ok(text.get().to_owned()),
        other => Ok(format!("{other:?}")),
    }
}

#[test]
fn an_event_or_an_array_of_events() {
    let event =
        json!({"id": "1", "topic": "a.b", "subject": "s", "data": {"n": [1, -2, 1.5, null]}});
    let one = decode(&encode(&event), &LIMITS).unwrap();
    assert!(!one.is_array);
    assert_eq!(one.events[0].id.as_ref().unwrap().as_str(), "1");
    assert_eq!(data(&encode(&event)).unwrap(), r#"{"n":[1,-2,1.5,null]}"#);
    let two = decode(&encode(&json!([event, event])), &LIMITS).unwrap();
    assert!(two.is_array);
    assert_eq!(two.events.len(), 2);
}

#[test]
fn binary_data_is_a_payload_of_bytes() {
    let body = b"\x83\xa5topic\xa1a\xa4data\xc4\x02\x00\xff\xaccontent_type\xa9image/png";
    let decoded = decode(body, &LIMITS).unwrap();
    let Payload::Bytes {
        bytes,
        content_type,
    } = &decoded.events[0].payload
    else {
        panic!("data is bytes")
    };
    assert_eq!(
        (&bytes[..], content_type.as_str()),
        (&[0, 255][..], "image/png")
    );
}

#[test]
fn what_json_has_no_word_for_is_refused() {
    let kind = |value: &[u8]| data(&with_data(value)).unwrap_err();
    assert!(kind(b"\x91\xc4\x01\x00").1.contains("binary within JSON"));
    assert!(kind(b"\xd6\xff\x00\x00\x00\x00").1.contains("RFC 3339"));
    assert!(
        kind(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00")
            .1
            .contains("NaN")
    );
    assert!(kind(b"\xca\x7f\x80\x00\x00").1.contains("NaN"));
    assert!(kind(b"\x81\x01\x02").1.contains("keys of a map"));
    assert!(kind(b"\xa1\xff").1.contains("UTF-8"));
    assert_eq!(kind(b"\xa1\x00").0, Kind::UnstorableData);
    assert_eq!(kind(&encode(&json!("x".repeat(1001)))).0, Kind::TooLarge);
    assert_eq!(kind(&encode(&json!(vec![true; 500]))).0, Kind::TooLarge);
    assert_eq!(data(&encode(&json!(7))).unwrap_err().0, Kind::InvalidEvent);
    assert_eq!(
        data(&encode(&json!({"topic": "a", "x": 1}))).unwrap_err().0,
        Kind::InvalidEvent
    );
    assert!(
        data(b"\x82\xa5topic\xa1a\xa5topic\xa1a")
            .unwrap_err()
            .1
            .contains("twice")
    );
}

#[test]
fn what_is_not_messagepack_is_malformed() {
    let kind = |body: &[u8]| data(body).unwrap_err().0;
    assert_eq!(kind(b""), Kind::Malformed);
    assert_eq!(kind(b"\xc1"), Kind::Malformed);
    assert_eq!(kind(b"{\"topic\":\"a\"}"), Kind::Malformed);
    let mut longer = encode(&json!({"topic": "a"}));
    longer.push(0);
    assert_eq!(kind(&longer), Kind::Malformed);
    assert_eq!(kind(b"\x90"), Kind::InvalidEvent);
}

#[test]
fn claims_and_depth_are_bounded() {
    let started = Instant::now();
    assert_eq!(data(b"\xdd\xff\xff\xff\xff").unwrap_err().0, Kind::TooLarge);
    assert_eq!(
        data(b"\xdf\xff\xff\xff\xff").unwrap_err().0,
        Kind::Malformed
    );
    assert_eq!(
        data(&with_data(b"\xdd\xff\xff\xff\xff")).unwrap_err().0,
        Kind::Malformed
    );
    assert_eq!(
        data(&with_data(b"\xdb\xff\xff\xff\xff")).unwrap_err().0,
        Kind::Malformed
    );
    let mut deep = vec![0x91; 10_000_000];
    assert_eq!(data(&with_data(&deep)).unwrap_err().0, Kind::Malformed);
    deep.push(0xc0);
    assert_eq!(data(&with_data(&deep)).unwrap_err().0, Kind::UnstorableData);
    assert_eq!(
        data(&[[0xdc, 0, 2].as_slice(), &deep, &deep].concat())
            .unwrap_err()
            .0,
        Kind::InvalidEvent
    );
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_body_cut_anywhere_is_malformed() {
    let body =
        encode(&json!([{"topic": "a.b", "data": {"x": ["é", 70_000, 1.5, {}]}}, {"topic": "c"}]));
    for end in 0..body.len() {
        assert_eq!(
            data(&body[..end]).unwrap_err().0,
            Kind::Malformed,
            "cut at {end}"
        );
    }
    assert!(data(&body).is_ok());
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        "[^\\x00]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[^\\x00]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn data_is_the_json_it_stands_for(value in values()) {
        let body = encode(&json!({"topic": "a", "data": value}));
        if let Ok(text) = data(&body) {
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        } else {
            prop_assert!(value.to_string().len() > 1000);
        }
    }

    #[test]
    fn any_bytes_give_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&body, &LIMITS);
        let _ = decode(&with_data(&body), &LIMITS);
    }

    #[test]
    fn any_changed_byte_gives_an_answer(at in 0_usize..60, to in any::<u8>()) {
        let mut body = encode(&json!([{"topic": "a.b", "data": {"x": ["é", 7, 1.5, {}]}}, {"topic": "c"}]));
        if let Some(byte) = body.get_mut(at) {
            *byte = to;
        }
        let _ = decode(&body, &LIMITS);
    }
}
