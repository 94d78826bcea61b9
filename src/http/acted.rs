//! What operators did, as events of their own tenant's log: `tidewire.audit.admin.*`.
//!
//! # Invariants
//! - Nobody waits for it, since it may be what brings the log back; it is tried until the log takes it, or the server stops.
//! - Until then it stands in the log lines, with who did what.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::audit::draft;
use crate::access::Principal;
use crate::event::limits::APPEND_WAIT_MAX;
use crate::log::{AppendError, AppendOptions};
use crate::tasks::pause;

/// How long what an operator did waits until it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes what an operator did, as soon as the log takes it: nobody waits for it, since it may be what brings the log back.
pub fn acted(app: &App, by: &Principal, topic: &str, did: &Value) {
    let data = json!({ "by": by.name.as_str(), "role": by.role.as_str(), "did": did });
    let Some(event) = draft(topic, &by.name, &data) else {
        return;
    };
    let (app, tenant) = (app.clone(), by.tenant.clone());
    let (topic, by, did) = (topic.to_owned(), by.name.clone(), did.to_string());
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        loop {
            let held = AppendOptions {
                wait: Some(APPEND_WAIT_MAX),
                ..AppendOptions::default()
            };
            let stored = app.appender.append(&tenant, vec![event.clone()], held);
            let Err(errors) = stored.await else {
                return;
            };
            let error = errors.first().map(ToString::to_string);
            let (topic, by) = (topic.as_str(), by.as_str());
            tracing::error!(
                topic,
                by,
                did,
                error,
                "what an operator did is in no audit yet but this line"
            );
            let is_final = !errors.iter().any(AppendError::is_temporary);
            let stop = app.tasks.token().clone();
            if is_final || stop.run_until_cancelled(pause(AGAIN)).await.is_none() {
                return;
            }
        }
    });
}
