//! Whether the log does what it is for.

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::probe::{Probe, contract, ids};
use super::report::Figures;
use super::tally::Tally;

const STORE: &str = "store";
const SELECT: &str = "select";
const EXPECT: &str = "expect";

/// One event goes in and comes out with everything it said.
pub(super) async fn store(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let event = probe.event(STORE, 0);
    let cursors = probe.append(std::slice::from_ref(&event)).await?;
    let read = probe
        .read(STORE, &from, cursors.first().map(String::as_str))
        .await?;
    Tally::of(ids(std::slice::from_ref(&event)), ids(&read))
        .demand("an event that was acknowledged")?;
    let back = read.first().unwrap_or(&Value::Null);
    for field in ["topic", "subject", "data", "gdpr"] {
        if back.get(field) != event.get(field) {
            return Err(contract(&format!("{field} is read back as another")));
        }
    }
    if back.get("cursor").and_then(Value::as_str) != cursors.first().map(String::as_str) {
        return Err(contract("an event is read back with another cursor"));
    }
    Ok(())
}

/// A filter takes what matches and nothing else.
pub(super) async fn select(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let mut events = probe.events(SELECT, 4);
    for (n, event) in events.iter_mut().enumerate() {
        let name = if n % 2 == 0 {
            "select.even"
        } else {
            "select.odd"
        };
        if let Some(topic) = event.get_mut("topic") {
            *topic = json!(probe.topic(name));
        }
    }
    let cursors = probe.append(&events).await?;
    let last = cursors.last().map(String::as_str);
    let even = probe.read("select.even", &from, last).await?;
    let wanted = [probe.id(SELECT, 0), probe.id(SELECT, 2)];
    Tally::of(wanted.iter().map(String::as_str), ids(&even)).demand("a topic")?;
    let both = probe.read("select.*", &from, last).await?;
    Tally::of(ids(&events), ids(&both)).demand("a topic pattern")?;
    let query = [("after", from.as_str()), ("subjects", "check-nobody")];
    let (none, ..) = probe.page(&query).await?;
    Tally::of([], ids(&none)).demand("a subject that nothing is about")
}

/// Of two writers that expect the same, one is told.
pub(super) async fn expect(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let first = probe.append(&[probe.event(EXPECT, 0)]).await?;
    let expecting = |n| {
        let mut event = probe.event(EXPECT, n);
        if let (Some(fields), Some(cursor)) = (event.as_object_mut(), first.first()) {
            fields.insert("expect".to_owned(), json!(cursor));
        }
        event
    };
    let second = [expecting(1)];
    probe.append(&second).await?;
    let late = probe.send(&[expecting(2)]).await?;
    if (late.status, late.problem().as_str()) == (409, "conflict") {
        Ok(())
    } else {
        Err(Flaw::answer(
            "an expectation that no longer holds",
            "409 conflict",
            &late,
        ))
    }
}
