//! MessagePack bodies: any bytes give events or a problem, as a body and as the data of an event.
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
    let within = [b"\x82\xa5topic\xa1a\xa4data", body].concat();
    for body in [body, within.as_slice()] {
        match decode(Media::Msgpack, &HeaderMap::new(), body, &LIMITS) {
            Ok(decoded) => {
                for event in decoded.events {
                    if let Payload::Json(text) = event.payload {
                        assert!(json::check(text.get(), LIMITS.data_bytes).is_ok());
                        assert!(!text.get().contains('\n'));
                    }
                }
            }
            Err(problem) => assert!(problem.kind.status().is_client_error()),
        }
    }
});
