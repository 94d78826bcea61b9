//! Whether many at once are stored as the contract says.

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::probe::{Probe, ids};
use super::report::Figures;
use super::tally::Tally;

/// All or nothing, in order.
pub(super) async fn array(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let (name, from) = ("array", probe.end().await?);
    let events = probe.events(name, 500);
    let cursors = probe.append(&events).await?;
    let last = cursors.last().map(String::as_str);
    let mut broken = vec![
        probe.event("array.broken", 0),
        probe.event("array.broken", 1),
    ];
    if let Some(topic) = broken.last_mut().and_then(|event| event.get_mut("topic")) {
        *topic = json!("Not A Topic");
    }
    let refused = probe.send(&broken).await?;
    if refused.status != 422 {
        return Err(Flaw::answer(
            "an array with an event at fault",
            "422",
            &refused,
        ));
    }
    let read = probe.read(name, &from, last).await?;
    figures.insert("events".to_owned(), json!(events.len()));
    Tally::of(ids(&events), ids(&read)).demand("an array")?;
    let none = probe.read("array.broken", &from, None).await?;
    Tally::of([], ids(&none)).demand("an array that was refused")
}

/// A line, an answer; one at fault does not hold up the others.
pub(super) async fn ndjson(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let (name, from) = ("ndjson", probe.end().await?);
    let events = probe.events(name, 300);
    let mut lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let at_fault = lines.len() / 2;
    lines.insert(at_fault, "{".to_owned());
    let body = lines.join("\n").into_bytes();
    let answer = probe.post(("application/x-ndjson", body)).await?;
    if answer.status != 200 {
        return Err(Flaw::answer("an upload", "200", &answer));
    }
    let text = String::from_utf8_lossy(&answer.body);
    let answers: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let refused = answers.iter().filter(|one| one.get("error").is_some());
    let is_answered = answers.len() == lines.len() && refused.count() == 1;
    if !is_answered {
        let cause = format!(
            "{} lines, one of them at fault, got {} answers",
            lines.len(),
            answers.len()
        );
        return Err(Flaw::failed(
            cause,
            "Does a proxy in between hold back or cut streamed answers?",
        ));
    }
    let last = answers.last().and_then(|one| one.get("cursor")?.as_str());
    let read = probe.read(name, &from, last).await?;
    figures.insert("lines".to_owned(), json!(lines.len()));
    Tally::of(ids(&events), ids(&read)).demand("an upload")
}
