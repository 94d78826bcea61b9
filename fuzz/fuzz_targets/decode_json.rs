//! JSON and NDJSON bodies: any bytes give events whose data the database takes, or a problem.
#![no_main]

use axum::http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use tidewire::event::{Payload, json};
use tidewire::http::ingest::{IngestLimits, Media, decode};

const LIMITS: IngestLimits = IngestLimits {
    array_events: 20,
    data_bytes: 4096,
};

fuzz_target!(|body: &[u8]| {
    for media in [Media::Json, Media::Ndjson] {
        match decode(media, &HeaderMap::new(), body, &LIMITS) {
            Ok(decoded) => {
                assert!((1..=LIMITS.array_events).contains(&decoded.events.len()));
                for event in decoded.events {
                    if let Payload::Json(text) = event.payload {
                        assert!(json::check(text.get(), LIMITS.data_bytes).is_ok());
                        assert!(
                            serde_json::from_str::<Box<serde_json::value::RawValue>>(text.get())
                                .is_ok()
                        );
                    }
                }
            }
            Err(problem) => {
                assert!(problem.kind.status().is_client_error());
                assert!(problem.to_json().len() < 200_000);
            }
        }
    }
});
