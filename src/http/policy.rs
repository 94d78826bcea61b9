//! Whether a caller's events may be written, as an answer.

use super::app::App;
use super::credentials;
use super::problem::{ERRORS_MAX, Kind, MemberError, Problem};
use crate::access::{Policy, Principal, Refused};
use crate::event::NewEvent;

/// What is asked whether events of the principal may be written.
///
/// # Errors
/// 503 if the tenant's settings cannot be read now.
pub async fn of(app: &App, principal: &Principal) -> Result<Policy, Problem> {
    let policy = app.access.policy(principal).await;
    policy.map_err(credentials::problem)
}

/// Checks what the caller may write, and names the source.
///
/// # Errors
/// 403 or 422 that lists every event which is refused as the first is.
pub fn admit(policy: &Policy, events: &mut [NewEvent]) -> Result<(), Problem> {
    let mut refused: Option<Problem> = None;
    for (index, event) in events.iter_mut().enumerate() {
        let Err(why) = policy.admit(event) else {
            continue;
        };
        let (kind, detail, faults) = explain(why, event);
        let problem = refused.get_or_insert_with(|| Problem::new(kind, detail));
        if problem.kind == kind {
            let faults = faults.into_iter().map(|(field, reason)| MemberError {
                index: Some(index),
                field,
                reason,
            });
            problem.errors.extend(faults);
            problem.errors.truncate(ERRORS_MAX);
        }
    }
    refused.map_or(Ok(()), Err)
}

type Faults = Vec<(String, String)>;

fn explain(why: Refused, event: &NewEvent) -> (Kind, &'static str, Faults) {
    let topic = &event.topic;
    let one = |field: &str, reason: String| vec![(field.to_owned(), reason)];
    match why {
        Refused::Forbidden => (
            Kind::ForbiddenTopic,
            "this credential may not write to the topic",
            one("topic", format!("this credential may not write {topic}")),
        ),
        Refused::Undeclared => (
            Kind::UndeclaredTopic,
            "the tenant has not declared the topic",
            one("topic", format!("{topic} is not declared")),
        ),
        Refused::Schema(faults) => (
            Kind::SchemaViolation,
            "the data is not what the topic's schema says",
            faults
                .into_iter()
                .map(|fault| (format!("data{}", fault.pointer), fault.reason))
                .collect(),
        ),
        Refused::NoConsent => (
            Kind::ConsentRequired,
            "the tenant takes no such events without consent",
            one("gdpr", "must hold \"consent\": true".to_owned()),
        ),
    }
}
