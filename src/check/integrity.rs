//! Whether what was written is what was committed is what was delivered: to the byte, by digest.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::flaw::Flaw;
use super::live::{Live, Wire};
use super::probe::{Probe, ids};
use super::report::Figures;
use super::tally::Tally;
use crate::client::{IdsDigest, Selection, Span};

/// Events of one array.
const BATCH: usize = 100;
const NAME: &str = "digests";

/// Written, read from the log, and delivered by both kinds of stream.
pub(super) async fn digests(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let topic = probe.topic(NAME);
    let mut sse = Live::open(Wire::Sse, &probe.client, &topic, &from).await?;
    let mut socket = Live::open(Wire::WebSocket, &probe.client, &topic, &from).await?;
    let events = probe.events(NAME, probe.depth.events());
    let writing = async {
        let mut last = String::new();
        for batch in events.chunks(BATCH) {
            last = probe.append(batch).await?.pop().unwrap_or(last);
        }
        Ok::<_, Flaw>(last)
    };
    let last = probe.id(NAME, events.len().saturating_sub(1));
    let (written, streamed, pushed) =
        futures_util::future::join3(writing, sse.until(&last), socket.until(&last)).await;
    let written = written?;
    let committed = probe.read(NAME, &from, Some(&written)).await?;
    let (streamed, pushed) = (streamed?.0, pushed?.0);
    figures.insert("events".to_owned(), json!(events.len()));
    let own = digest(&events);
    figures.insert("sha256".to_owned(), json!(own));
    for (what, got) in [
        ("what is in the log", &committed),
        ("what came by server-sent events", &streamed),
        ("what came over the WebSocket", &pushed),
    ] {
        Tally::of(ids(&events), ids(got)).demand(what)?;
        if digest(got) != own {
            return Err(Flaw::failed(
                format!("{what} has the events' ids and order, but not their content"),
                "Does a proxy in between change what it passes on? If not, keep the server's log and report this.",
            ));
        }
    }
    counted(probe, &events, (&from, &written)).await
}

/// What the server counts of what its database holds.
async fn counted(probe: &Probe, events: &[Value], (from, until): (&str, &str)) -> Result<(), Flaw> {
    let mut own = IdsDigest::default();
    ids(events).for_each(|id| own.add(id));
    let selection = Selection {
        topics: vec![probe.topic(NAME)],
        subjects: Vec::new(),
    };
    let span = Span {
        selection: &selection,
        after: Some(from),
        until,
        consumer: None,
    };
    let counted = probe.client.committed(&span).await?;
    if (counted.count, counted.digest) == (own.count, own.to_string()) {
        return Ok(());
    }
    Err(Flaw::failed(
        format!(
            "of {} events that were acknowledged the server's audit counts {}, or others",
            own.count, counted.count
        ),
        "Keep the server's log and the database as they are, and report this: events that were acknowledged are not what is committed.",
    ))
}

/// Of id, topic, subject and data, in order.
fn digest(events: &[Value]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        for field in ["id", "topic", "subject", "data"] {
            let value = event.get(field).unwrap_or(&Value::Null);
            hash.update(value.to_string());
            hash.update([0]);
        }
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_order_count() {
        let (one, two) = (
            json!({"id": "a", "data": {"x": 1, "y": 2}}),
            json!({"id": "b", "data": 1}),
        );
        let same = json!({"data": {"y": 2, "x": 1}, "id": "a", "cursor": "c"});
        let own = digest(&[one.clone(), two.clone()]);
        assert_eq!(digest(&[same, two.clone()]), own);
        assert_ne!(digest(&[two.clone(), one.clone()]), own);
        assert_ne!(digest(&[one, json!({"id": "b", "data": 2})]), own);
    }
}
