//! The frame that carries events: what is inside was encoded once already.

use std::sync::Arc;

use axum::extract::ws::Message;
use bytes::Bytes;

use super::frame::Encoding;
use crate::event::Event;
use crate::event::encode::push_string;
use crate::http::msgpack;

/// `{"type":"events","id":…,"events":[…],"cursor":…}`, with `"conflated":…` if some were left out for newer ones.
#[must_use]
pub fn events(
    encoding: Encoding,
    id: &str,
    events: &[Arc<Event>],
    cursor: &str,
    left_out: u64,
) -> Message {
    match encoding {
        Encoding::Json => {
            let bytes: usize = events
                .iter()
                .map(|event| event.json.len().saturating_add(1))
                .sum();
            let mut out = String::with_capacity(bytes.saturating_add(id.len()).saturating_add(96));
            out.push_str("{\"type\":\"events\",\"id\":");
            push_string(&mut out, id);
            out.push_str(",\"events\":[");
            for (index, event) in events.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                // Written by this program or the database as text: always UTF-8.
                out.push_str(std::str::from_utf8(&event.json).unwrap_or("null"));
            }
            out.push_str("],\"cursor\":\"");
            out.push_str(cursor);
            out.push('"');
            if left_out > 0 {
                out.push_str(",\"conflated\":");
                out.push_str(&left_out.to_string());
            }
            out.push('}');
            Message::Text(out.into())
        }
        Encoding::Msgpack => {
            let mut out = vec![if left_out > 0 { 0x85 } else { 0x84 }];
            if left_out > 0 {
                msgpack::text(&mut out, "conflated");
                msgpack::number(&mut out, left_out);
            }
            for (name, value) in [("type", "events"), ("id", id), ("cursor", cursor)] {
                msgpack::text(&mut out, name);
                msgpack::text(&mut out, value);
            }
            msgpack::text(&mut out, "events");
            msgpack::array(&mut out, events.len());
            for event in events {
                out.extend_from_slice(event.msgpack());
            }
            Message::Binary(Bytes::from(out))
        }
    }
}
