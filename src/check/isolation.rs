//! Whether tenants are apart.

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::live::{Live, Wire};
use super::probe::{Probe, ids, page, tenant_of};
use super::report::Figures;
use super::tally::Tally;
use crate::client::{Client, Selection, Span};

const NAME: &str = "isolation";

/// Both write the same id to the same topic; each reads its own, on every transport.
pub(super) async fn tenants(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let Some(other) = &probe.other else {
        return Err(Flaw::Skipped(
            "it takes a credential of another tenant: --other-token".to_owned(),
        ));
    };
    let names = (probe.tenant().await, tenant_of(other).await?);
    if names.0 == names.1 {
        return Err(Flaw::Skipped(format!(
            "both credentials are of the tenant {}: give one of another",
            names.0
        )));
    }
    figures.insert("other".to_owned(), json!(names.1));
    let (topics, latest) = (probe.topic("*"), [("after", "latest"), ("limit", "1")]);
    let (_, from, _) = page(other, &topics, &latest).await?;
    let mut stream = Live::open(Wire::Sse, other, &topics, &from).await?;
    let mut socket = Live::open(Wire::WebSocket, other, &topics, &from).await?;
    let own = probe.events(NAME, 5);
    probe.append(&own).await?;
    let theirs = theirs(probe);
    let body = (
        "application/json",
        Value::from(theirs.clone()).to_string().into_bytes(),
    );
    let answer = other.try_post(&["v1", "events"], Some(body)).await?;
    if answer.status != 201 {
        return Err(Flaw::answer("the other tenant's append", "201", &answer));
    }
    let stored = answer.json();
    if stored.pointer("/events/0/duplicate") != Some(&Value::Bool(false)) {
        return Err(leak("an id of one tenant is a duplicate in the other"));
    }
    let at = stored.pointer("/events/0/cursor").and_then(Value::as_str);
    let query = [
        ("after", from.as_str()),
        ("at_least", at.unwrap_or_default()),
    ];
    let (paged, ..) = page(other, &topics, &query).await?;
    let last = probe.id(NAME, 0);
    for (what, seen) in [
        ("a page", paged),
        ("server-sent events", stream.until(&last).await?.0),
        ("a WebSocket", socket.until(&last).await?.0),
    ] {
        if seen
            .iter()
            .any(|event| event.get("data") != Some(&json!("theirs")))
        {
            return Err(leak(&format!(
                "{what} shows one tenant's events to the other"
            )));
        }
        Tally::of(ids(&theirs), ids(&seen)).demand(&format!("the other tenant's {what}"))?;
    }
    let counted = counted(other, topics, (&from, at.unwrap_or("latest"))).await?;
    if counted != 1 {
        return Err(leak(&format!(
            "of 1 event of the other tenant its audit counts {counted}"
        )));
    }
    let read = probe.read(NAME, &from, at).await?;
    if read
        .iter()
        .any(|event| event.get("data") == Some(&json!("theirs")))
    {
        return Err(leak("a page shows the other tenant's event"));
    }
    Tally::of(ids(&own), ids(&read)).demand("the tenant's own events")
}

/// Of the same id as the tenant's own, and not a duplicate: it is another's.
fn theirs(probe: &Probe) -> Vec<Value> {
    vec![json!({
        "id": probe.id(NAME, 0),
        "topic": probe.topic(NAME),
        "subject": probe.subject(),
        "gdpr": { "consent": true, "basis": "contract" },
        "data": "theirs",
    })]
}

/// How many events of the topics there are for this credential.
async fn counted(
    client: &Client,
    topics: String,
    (after, until): (&str, &str),
) -> Result<u64, Flaw> {
    let selection = Selection {
        topics: vec![topics],
        subjects: Vec::new(),
    };
    let span = Span {
        selection: &selection,
        after: Some(after),
        until,
        consumer: None,
    };
    Ok(client.committed(&span).await?.count)
}

fn leak(cause: &str) -> Flaw {
    Flaw::failed(
        cause,
        "Stop serving: tenants are not apart. Does a cache in between answer without regard to Authorization? If not, report this.",
    )
}
