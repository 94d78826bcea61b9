//! Whether a caller's events may be written, as an answer.
//!
//! # Invariants
//! - What costs little is checked at once, on the thread that serves; what costs more in turns of tenants (`checks`), a slice at
//!   a time. A request that has gone has no further slice checked.

use std::vec;

use super::app::App;
use super::credentials;
use super::problem::{ERRORS_MAX, Kind, MemberError, Problem};
use crate::access::{COST_AT_ONCE_MAX, Policy, Principal, Refused};
use crate::event::NewEvent;

/// What is checked in one turn, in the units of [`Policy::cost`]: some ten milliseconds at worst, or one event.
const SLICE_COST: usize = 200_000;

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
/// 403 or 422 that lists every event which is refused as the first is, as far as there is room.
pub async fn admit(
    app: &App,
    policy: &Policy,
    events: Vec<NewEvent>,
) -> Result<Vec<NewEvent>, Problem> {
    let mut admitted = Vec::with_capacity(events.len());
    let mut refused: Option<Problem> = None;
    let mut rest = events.into_iter();
    let mut index = 0_usize;
    while rest.len() > 0 {
        for (event, why) in ask_some(app, policy, &mut rest).await? {
            if let Some(why) = why {
                refuse(&mut refused, index, why, &event);
            }
            index = index.saturating_add(1);
            admitted.push(event);
        }
        if refused
            .as_ref()
            .is_some_and(|one| one.errors.len() >= ERRORS_MAX)
        {
            break;
        }
    }
    refused.map_or(Ok(admitted), Err)
}

/// Checks one that costs little.
///
/// # Errors
/// 403 or 422.
pub fn admit_at_once(policy: &Policy, mut event: NewEvent) -> Result<NewEvent, Problem> {
    match policy.admit(&mut event) {
        Ok(()) => Ok(event),
        Err(why) => Err(alone(why, &event)),
    }
}

/// Checks each by itself.
pub async fn admit_each(
    app: &App,
    policy: &Policy,
    events: Vec<NewEvent>,
) -> Vec<Result<NewEvent, Problem>> {
    let mut admitted = Vec::with_capacity(events.len());
    let count = events.len();
    let mut rest = events.into_iter();
    while rest.len() > 0 {
        match ask_some(app, policy, &mut rest).await {
            Ok(asked) => admitted.extend(asked.into_iter().map(|(event, why)| match why {
                None => Ok(event),
                Some(why) => Err(alone(why, &event)),
            })),
            Err(problem) => admitted.resize_with(count, || Err(problem.clone())),
        }
    }
    admitted
}

/// What one event that is refused is answered.
fn alone(why: Refused, event: &NewEvent) -> Problem {
    let (kind, detail, faults) = explain(why, event);
    let mut problem = Problem::new(kind, detail);
    list(&mut problem, 0, faults);
    problem
}

/// Adds why an event is refused, if that is as with those before.
fn refuse(refused: &mut Option<Problem>, index: usize, why: Refused, event: &NewEvent) {
    let (kind, detail, faults) = explain(why, event);
    let problem = refused.get_or_insert_with(|| Problem::new(kind, detail));
    if problem.kind == kind {
        list(problem, index, faults);
    }
}

fn list(problem: &mut Problem, index: usize, faults: Faults) {
    let faults = faults.into_iter().map(|(field, reason)| MemberError {
        index: Some(index),
        field,
        reason,
    });
    problem.errors.extend(faults);
    problem.errors.truncate(ERRORS_MAX);
}

/// An event, and why it is refused if it is.
type Asked = (NewEvent, Option<Refused>);

/// Asks of the next events: here of as many as cost little, or where it keeps nobody of a slice.
async fn ask_some(
    app: &App,
    policy: &Policy,
    rest: &mut vec::IntoIter<NewEvent>,
) -> Result<Vec<Asked>, Problem> {
    let ask = |policy: &Policy, mut event: NewEvent| {
        let why = policy.admit(&mut event).err();
        (event, why)
    };
    if are_cheap(policy, rest.as_slice()) {
        return Ok(rest.map(|event| ask(policy, event)).collect());
    }
    let mut cost = 0_usize;
    let mut slice = Vec::new();
    while cost < SLICE_COST
        && let Some(event) = rest.next()
    {
        cost = cost.saturating_add(policy.cost(&event));
        slice.push(event);
    }
    let (own, tenant) = (policy.clone(), &policy.principal.tenant);
    let work = move || slice.into_iter().map(|event| ask(&own, event)).collect();
    app.checks.run(tenant, work).await
}

fn are_cheap(policy: &Policy, events: &[NewEvent]) -> bool {
    let mut cost = 0_usize;
    events.iter().all(|event| {
        cost = cost.saturating_add(policy.cost(event));
        cost <= COST_AT_ONCE_MAX
    })
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
