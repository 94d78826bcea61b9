//! Whether what is wrong is refused, in the words of the contract.

use serde_json::json;

use super::flaw::Flaw;
use super::probe::Probe;
use super::report::Figures;
use crate::client::{Client, Exchange, Secret};

/// Events of an array, by the contract.
const ARRAY_MAX: usize = 1_000;

/// No JSON, and no topic.
pub(super) async fn malformed(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let broken = probe
        .post(("application/json", b"{\"topic\":".to_vec()))
        .await?;
    refused("a body that is cut short", &broken, 400, "malformed")?;
    let bare = probe.post(("application/json", b"{}".to_vec())).await?;
    refused("an event without a topic", &bare, 422, "invalid-event")?;
    let query = [("topic", "misspelt")];
    let misspelt = probe.client.try_get(&["v1", "events"], &query).await?;
    refused(
        "a parameter that is not known",
        &misspelt,
        400,
        "invalid-parameter",
    )
}

/// One that no log has given, and one that cannot be.
pub(super) async fn cursor(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let own = probe.end().await?;
    // The tag is at its end.
    let altered: String = own
        .char_indices()
        .map(|(at, one)| match (at == own.len().saturating_sub(1), one) {
            (true, '0') => '1',
            (true, _) => '0',
            (false, one) => one,
        })
        .collect();
    let path = ["v1", "events"];
    let unknown = probe.client.try_get(&path, &[("after", &altered)]).await?;
    refused(
        "a cursor that no log has given",
        &unknown,
        409,
        "cursor-unknown",
    )?;
    let broken = probe
        .client
        .try_get(&path, &[("after", "no-cursor")])
        .await?;
    refused("what is no cursor", &broken, 400, "malformed-cursor")
}

/// The same id with other content.
pub(super) async fn conflict(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let mut event = probe.event("conflict", 0);
    probe.append(std::slice::from_ref(&event)).await?;
    if let Some(data) = event.get_mut("data") {
        *data = json!("another");
    }
    let answer = probe.send(&[event]).await?;
    refused(
        "an id with other content",
        &answer,
        422,
        "idempotency-conflict",
    )
}

/// One more than an array may hold.
pub(super) async fn too_many(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let events = probe.events("too-many", ARRAY_MAX.saturating_add(1));
    let answer = probe.send(&events).await?;
    refused("an array that is too long", &answer, 413, "too-large")
}

/// A key that nobody has made.
pub(super) async fn credential(probe: &Probe, _: &mut Figures) -> Result<(), Flaw> {
    let nobody = Secret::new(&format!("tw_{}_{}", "0".repeat(16), "A".repeat(43)));
    let stranger: Client = probe.client.with_token(&nobody)?;
    let answer = stranger.try_get(&["v1", "events"], &[]).await?;
    refused("a credential that is none", &answer, 401, "unauthenticated")
}

fn refused(what: &str, answer: &Exchange, status: u16, code: &str) -> Result<(), Flaw> {
    if answer.status == status && answer.problem() == code {
        Ok(())
    } else {
        Err(Flaw::answer(what, &format!("{status} {code}"), answer))
    }
}
