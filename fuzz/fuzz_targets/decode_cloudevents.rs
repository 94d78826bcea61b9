//! CloudEvents: any headers and any body give events or a problem; what goes out comes back.
#![no_main]

use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tidewire::http::ingest::{
    IngestLimits, Media, decode, idempotency_key, media_type, to_cloudevent,
};

const LIMITS: IngestLimits = IngestLimits {
    array_events: 20,
    data_bytes: 4096,
};

fuzz_target!(|input: (&[u8], &[u8], &[u8])| {
    let (body, attribute, content_type) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for name in [
        "ce-subject",
        "ce-gdprbasis",
        "ce-time",
        "idempotency-key",
        "traceparent",
    ] {
        if let Ok(value) = HeaderValue::from_bytes(attribute) {
            headers.insert(name, value);
        }
        if name != "ce-time" {
            let _ = decode(Media::CloudEventsBinary, &headers, body, &LIMITS);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(content_type) {
        headers.insert("content-type", value);
    }
    let _ = (media_type(&headers), idempotency_key(&headers));
    for media in [
        Media::CloudEventsBinary,
        Media::CloudEventsStructured,
        Media::CloudEventsBatch,
    ] {
        let _ = decode(media, &headers, body, &LIMITS);
    }
    let is_event = decode(Media::Json, &HeaderMap::new(), body, &LIMITS)
        .is_ok_and(|d| !d.is_array && d.events.iter().all(|e| e.id.is_some()));
    let event = std::str::from_utf8(body).ok().filter(|_| is_event);
    if let Some(out) =
        event.and_then(|text| to_cloudevent(text.trim_start_matches('\u{feff}').as_bytes()))
    {
        assert!(serde_json::from_slice::<Box<serde_json::value::RawValue>>(&out).is_ok());
    }
});
