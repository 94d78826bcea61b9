//! Frames of a client: any bytes, as a text or a binary frame, are a frame of the contract or an error that says why.
#![no_main]

use axum::extract::ws::Message;
use libfuzzer_sys::fuzz_target;
use tidewire::http::ws::{ClientFrame, Encoding, read_frame};

fuzz_target!(|bytes: &[u8]| {
    let binary = Message::Binary(bytes.to_vec().into());
    check(Encoding::Msgpack, &binary);
    assert!(read_frame(Encoding::Json, &binary).is_err());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let text = Message::Text(text.into());
        check(Encoding::Json, &text);
        assert!(read_frame(Encoding::Msgpack, &text).is_err());
    }
});

fn check(encoding: Encoding, message: &Message) {
    match read_frame(encoding, message) {
        Ok(Some(frame)) => {
            // What is kept raw is handed on as JSON.
            let raw = match &frame {
                ClientFrame::Append { events, .. } => Some(events),
                ClientFrame::Command { params, .. } => params.as_ref(),
                ClientFrame::Ping { timestamp } => timestamp.as_ref(),
                _ => None,
            };
            if let Some(raw) = raw {
                serde_json::from_str::<Box<serde_json::value::RawValue>>(raw.get())
                    .expect("raw members are JSON");
            }
        }
        Ok(None) => panic!("a data frame is a frame of the contract or an error"),
        Err(error) => assert!(error.to_string().len() < 100_000),
    }
}
