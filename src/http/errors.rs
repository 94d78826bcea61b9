//! What errors of the floors below mean on the wire.
//!
//! # Invariants
//! - A fault of ours is logged once, here, and tells the client nothing internal.

use std::borrow::Cow;
use std::time::Duration;

use rand::RngExt as _;

use super::admission::too_often;
use super::problem::{ERRORS_MAX, Kind, MemberError, Problem};
use crate::event::cursor::CursorError;
use crate::feed::FollowError;
use crate::log::breaker::Tripped;
use crate::log::{AppendError, Identity, ReadError, Unavailable};
use crate::telemetry::Seldom;

/// When to try again while the database is away; jittered, so that clients do not come back in step.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

fn jittered(around: Duration) -> Duration {
    around
        .mul_f64(rand::rng().random_range(0.5..1.5))
        .max(Duration::from_secs(1))
}

/// The problem of several members of one append: that of the first, with all members that have the same.
#[must_use]
pub fn members(failed: &[AppendError], identity: &Identity) -> Problem {
    let mut problems = failed.iter().map(|error| append(error, identity));
    let Some(mut problem) = problems.next() else {
        return Problem::new(Kind::Internal, "storing events failed");
    };
    let same = problems.filter(|other| other.kind == problem.kind);
    let more: Vec<_> = same.flat_map(|other| other.errors).collect();
    problem.errors.extend(more);
    problem.errors.truncate(ERRORS_MAX);
    problem
}

/// The problem of an append.
#[must_use]
pub fn append(error: &AppendError, identity: &Identity) -> Problem {
    let member = |kind, index: usize, field: &str, reason: &str| {
        let mut problem = Problem::new(kind, error.to_string());
        problem.errors = vec![MemberError {
            index: Some(index),
            field: field.to_owned(),
            reason: reason.to_owned(),
        }];
        problem
    };
    match error {
        AppendError::IdConflict { index } => member(
            Kind::IdempotencyConflict,
            *index,
            "id",
            "was used with other content within the deduplication window",
        ),
        AppendError::ExpectConflict { index, newest } => {
            let current =
                newest.map_or_else(|| "none".to_owned(), |position| identity.encode(position));
            let mut problem = Problem::conflict(Some(&current), error.to_string());
            let reason = format!("the subject's newest event is {current}");
            problem.errors = vec![MemberError {
                index: Some(*index),
                field: "expect".into(),
                reason,
            }];
            problem
        }
        AppendError::ExpectedCursor { index, error } => {
            member(cursor_kind(*error), *index, "expect", &error.to_string())
        }
        AppendError::Refused { reason } => Problem::new(
            Kind::InvalidEvent,
            format!("the log refused the event: {reason}"),
        ),
        AppendError::Skipped => Problem::new(Kind::InvalidEvent, error.to_string()),
        AppendError::Blocked => Problem::new(
            Kind::IdempotencyInProgress,
            "another transaction is storing this id, or an event of this subject",
        )
        .with_retry_after(jittered(UNAVAILABLE_RETRY)),
        AppendError::Overloaded { retry_after } => {
            Problem::new(Kind::Overloaded, error.to_string()).with_retry_after(*retry_after)
        }
        AppendError::Tripped(tripped) => left_alone(*tripped, |why| {
            format!(
                "{why} and is left alone for a while: sending the same ids again is safe, and `Prefer: wait=<seconds>` holds them until it answers"
            )
        }),
        AppendError::Clock(text) => {
            tracing::error!(error = text, "the log refuses events");
            Problem::new(
                Kind::Unavailable,
                "the database's clock is wrong: an operator must set it right",
            )
            .with_retry_after(jittered(Duration::from_mins(1)))
        }
        AppendError::Unavailable(cause) => late(cause),
        AppendError::Internal(text) => internal(text),
    }
}

/// Not stored in time, for this cause.
fn late(cause: &Unavailable) -> Problem {
    static LATE: Seldom = Seldom::new();
    if let Some(count) = LATE.due() {
        tracing::warn!(error = %cause, count, "appends were not stored in time");
    }
    let why = match cause {
        Unavailable::Lacking(resource) => format!("; {}", resource.lack()),
        _ => String::new(),
    };
    unavailable(format!(
        "not stored in time; the outcome may be unknown: sending the same ids again is safe{why}",
    ))
}

/// The database has failed, and nobody asks it for a while: `detail` of why.
fn left_alone(tripped: Tripped, detail: impl FnOnce(&str) -> String) -> Problem {
    let why = match tripped.lacking {
        Some(resource) => resource.lack(),
        None => tripped.trouble.text(),
    };
    let later = tripped
        .retry_after
        .mul_f64(rand::rng().random_range(1.0..1.25));
    Problem::new(Kind::Unavailable, detail(why)).with_retry_after(later.max(Duration::from_secs(1)))
}

/// The problem of a reader.
#[must_use]
pub fn follow(error: &FollowError, identity: &Identity) -> Problem {
    let error = match error {
        FollowError::Read(error) => error,
        FollowError::Lagging => return overloaded("this reader fell too far behind"),
        FollowError::TooOften { wait } => return too_often(*wait),
    };
    match error.as_ref() {
        ReadError::Expired { earliest } => Problem::cursor_expired(&identity.encode(*earliest)),
        ReadError::Ahead => Problem::new(Kind::CursorUnknown, error.to_string()),
        ReadError::Crowded => crowded(),
        ReadError::Unavailable(Unavailable::Tripped(tripped)) => left_alone(*tripped, |why| {
            format!("this lies before what is held in memory; {why} and is left alone for a while")
        }),
        ReadError::Unavailable(cause) => {
            static UNREAD: Seldom = Seldom::new();
            if let Some(count) = UNREAD.due() {
                tracing::warn!(error = %cause, count, "pages could not be read");
            }
            unavailable("the database does not answer at the moment")
        }
        ReadError::Internal(_) => internal(&error.to_string()),
    }
}

/// The problem of a cursor's text.
#[must_use]
pub fn cursor(error: CursorError) -> Problem {
    Problem::new(cursor_kind(error), error.to_string())
}

const fn cursor_kind(error: CursorError) -> Kind {
    match error {
        CursorError::Malformed => Kind::MalformedCursor,
        CursorError::Unknown => Kind::CursorUnknown,
    }
}

/// The database is away.
#[must_use]
pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::Unavailable, detail).with_retry_after(jittered(UNAVAILABLE_RETRY))
}

/// A tenant's administrators ask for more at once than may wait.
#[must_use]
pub fn crowded() -> Problem {
    let detail =
        "as many administrative requests of this tenant are waiting as may: send fewer at once";
    Problem::new(Kind::RateLimited, detail).with_retry_after(jittered(UNAVAILABLE_RETRY))
}

/// The server is full or draining.
#[must_use]
pub fn overloaded(detail: &'static str) -> Problem {
    Problem::new(Kind::Overloaded, detail).with_retry_after(jittered(UNAVAILABLE_RETRY))
}

/// There is no room for another session, or for what it wants to hold.
#[must_use]
pub fn full() -> Problem {
    overloaded("the memory for sessions is in use: come back later, or read pages")
}

/// A fault of ours.
#[must_use]
pub fn internal(cause: &str) -> Problem {
    tracing::error!(error = cause, "a request failed");
    Problem::new(
        Kind::Internal,
        "the server failed; its log says why, under this request's id",
    )
}
