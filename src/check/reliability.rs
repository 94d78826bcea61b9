//! Whether what breaks is mended: retries, reconnects, the breaker around the database.

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::live::{Live, Wire};
use super::probe::{Probe, contract, ids};
use super::report::Figures;
use super::tally::Tally;

/// Requests with the same event at once.
const RETRIES: usize = 8;
const EVENTS: usize = 30;

/// Sent again, also while the first is under way.
pub(super) async fn retry(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let (name, from) = ("retry", probe.end().await?);
    let event = [probe.event(name, 0)];
    let sent = futures_util::future::join_all((0..RETRIES).map(|_| probe.send(&event))).await;
    let (mut cursors, mut stored) = (Vec::new(), 0_usize);
    for answer in sent {
        let answer = answer?;
        if answer.status != 201 {
            return Err(Flaw::answer(
                "an append that was sent several times",
                "201",
                &answer,
            ));
        }
        let answer = answer.json();
        let is_new = answer.pointer("/events/0/duplicate") == Some(&Value::Bool(false));
        stored = stored.saturating_add(usize::from(is_new));
        cursors.extend(
            answer
                .pointer("/events/0/cursor")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
    }
    let is_one = cursors.iter().all(|cursor| Some(cursor) == cursors.first());
    figures.insert("requests".to_owned(), json!(RETRIES));
    if stored != 1 || !is_one || cursors.len() != RETRIES {
        return Err(contract(&format!(
            "of {RETRIES} requests with one id {stored} were answered as new, or with another cursor"
        )));
    }
    let read = probe
        .read(name, &from, cursors.first().map(String::as_str))
        .await?;
    Tally::of(ids(&event), ids(&read)).demand("an event that was sent several times")
}

/// A stream is cut and resumed.
pub(super) async fn reconnect_sse(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    reconnect(probe, Wire::Sse, "resume.sse").await
}

/// A WebSocket is cut and resumed.
pub(super) async fn reconnect_websocket(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    reconnect(probe, Wire::WebSocket, "resume.websocket").await
}

/// A third is seen before the line is cut, a third is written while nobody listens, a third afterwards.
async fn reconnect(probe: &Probe, wire: Wire, name: &str) -> Result<(), Flaw> {
    let (topic, from) = (probe.topic(name), probe.end().await?);
    let events = probe.events(name, EVENTS.saturating_mul(3));
    let mut thirds = events.chunks(EVENTS);
    let (mut seen, mut at) = (Vec::new(), from);
    for (n, third) in (1..).zip(&mut thirds) {
        // The second is written with no reader there.
        let reader = match n {
            2 => None,
            _ => Some(Live::open(wire, &probe.client, &topic, &at).await?),
        };
        probe.append(third).await?;
        if let (Some(mut reader), Some(last)) = (reader, ids(third).last()) {
            let (some, cursor) = reader.until(last).await?;
            seen.extend(some);
            at = cursor;
        }
    }
    Tally::of(ids(&events), ids(&seen)).demand(&format!("a reader that came back ({name})"))
}

/// As `/v1/status` has it.
pub(super) async fn breaker(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let state = state(probe).await?;
    figures.insert("state".to_owned(), json!(state));
    if state == "closed" {
        return Ok(());
    }
    Err(Flaw::failed(
        format!("the breaker is {state}: appends are refused, or tried one by one"),
        "The database is or was away: GET /v1/status says more. It closes by itself once the database answers.",
    ))
}

/// Does nothing to one that is closed, and is not asked for otherwise.
pub(super) async fn breaker_reset(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let state = state(probe).await?;
    if state != "closed" {
        return Err(Flaw::Skipped(format!(
            "the breaker is {state}: it is left alone"
        )));
    }
    let path = ["v1", "admin", "breaker", "reset"];
    let answer = probe.client.try_post(&path, None).await?;
    match answer.status {
        200 if answer.json().get("state") == Some(&json!("closed")) => Ok(()),
        403 => Err(Flaw::Skipped(
            "it takes an administrator of the operators' tenant (--operator-tenant)".to_owned(),
        )),
        _ => Err(Flaw::answer("a reset of the breaker", "200", &answer)),
    }
}

async fn state(probe: &Probe) -> Result<String, Flaw> {
    let answer = probe.client.try_get(&["v1", "status"], &[]).await?;
    match answer.status {
        200 => {
            let status = answer.json();
            let state = status.pointer("/breaker/state").and_then(Value::as_str);
            state
                .map(str::to_owned)
                .ok_or_else(|| contract("the status does not name the breaker"))
        }
        403 => Err(Flaw::Skipped("the status is for administrators".to_owned())),
        _ => Err(Flaw::answer("the status", "200", &answer)),
    }
}
