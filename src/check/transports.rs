//! Whether each way of reading delivers every event once, in order.

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::live::{Live, Wire, refused};
use super::probe::{Probe, contract, ids};
use super::report::Figures;
use super::tally::Tally;

const EVENTS: usize = 50;
/// Fewer than there are, so that there is more than one page.
const PAGE: &str = "7";

/// Page by page.
pub(super) async fn page(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let name = "page";
    let mut from = probe.end().await?;
    let events = probe.events(name, EVENTS);
    let cursors = probe.append(&events).await?;
    let last = cursors.last().map_or("", String::as_str);
    let (mut read, mut pages) = (Vec::new(), 0_usize);
    loop {
        let query = [
            ("after", from.as_str()),
            ("limit", PAGE),
            ("at_least", last),
        ];
        let (some, cursor, has_more) = probe.page(&query).await?;
        read.extend(some);
        pages = pages.saturating_add(1);
        if !has_more {
            break;
        }
        from = cursor;
    }
    figures.insert("pages".to_owned(), json!(pages));
    Tally::of(ids(&events), ids(&read)).demand("pages")
}

/// Asked before there is anything.
pub(super) async fn long_poll(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let events = [probe.event("poll", 0)];
    let query = [("after", from.as_str()), ("wait", "5")];
    let (polled, appended) =
        futures_util::future::join(probe.page(&query), probe.append(&events)).await;
    appended?;
    let (read, ..) = polled?;
    Tally::of(ids(&events), ids(&read)).demand("a long-poll")
}

/// By server-sent events.
pub(super) async fn sse(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    live(probe, Wire::Sse, "sse").await
}

/// Over a WebSocket.
pub(super) async fn websocket(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    live(probe, Wire::WebSocket, "websocket").await
}

/// Written by the way that others read.
pub(super) async fn websocket_append(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let (name, from) = ("socket", probe.end().await?);
    let events = probe.events(name, 3);
    let mut socket = probe.client.socket().await?;
    let append = json!({ "type": "append", "ref": name, "events": events });
    socket.send(&append).await?;
    let last = loop {
        let frame = socket.next().await?;
        match frame.get("type").and_then(Value::as_str) {
            Some("appended") if frame.get("ref") == Some(&json!(name)) => {
                let stored = frame.get("events").and_then(Value::as_array);
                let last = stored.and_then(|stored| stored.last()?.get("cursor")?.as_str());
                let last = last.map(str::to_owned);
                break last.ok_or_else(|| contract("an appended frame without cursors"))?;
            }
            Some("error") => return Err(refused(&frame)),
            _ => {}
        }
    };
    let read = probe.read(name, &from, Some(&last)).await?;
    Tally::of(ids(&events), ids(&read)).demand("an append over a WebSocket")
}

/// Half of them are there when the reader comes, half come while it reads.
async fn live(probe: &Probe, wire: Wire, name: &str) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let events = probe.events(name, EVENTS.saturating_mul(2));
    let (before, after) = events.split_at(EVENTS);
    probe.append(before).await?;
    let mut reader = Live::open(wire, &probe.client, &probe.topic(name), &from).await?;
    let writing = async {
        for event in after {
            probe.append(std::slice::from_ref(event)).await?;
        }
        Ok::<_, Flaw>(())
    };
    let last = probe.id(name, events.len().saturating_sub(1));
    let (read, written) = futures_util::future::join(reader.until(&last), writing).await;
    written?;
    Tally::of(ids(&events), ids(&read?.0)).demand(name)
}
