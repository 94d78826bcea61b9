//! What a client is told when something fails: an RFC 9457 problem document. On SSE and WebSocket the same document,
//! or its code and detail, travels within the stream.
//!
//! # Invariants
//! - Nothing internal stands in one: no SQL, no stack, nothing of another tenant.
//! - Its size is bounded, however long the texts are that a client sent: texts are cut, lists end after
//!   [`ERRORS_MAX`] members and the detail says how many there were.
//! - What may succeed later always says when (`Retry-After`). No cache keeps one.

mod kind;
mod page;

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::event::new_event::{Fault, Refusal};

pub use kind::{Entry, Kind};
pub use page::{explain, index};

/// Refused events that one problem lists.
pub const ERRORS_MAX: usize = 100;
const FIELD_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 512;

/// All kinds of problems, for the documentation and the API description.
#[must_use]
pub const fn catalog() -> &'static [Kind] {
    Kind::ALL
}

/// What is wrong with one event or one parameter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemberError {
    /// The event's place in the request, from 0; none for a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The field or the parameter; empty if it is the event as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The reason, for people.
    pub reason: String,
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.code())]
pub struct Problem {
    /// Which problem.
    pub kind: Kind,
    /// What is particular to this occurrence, for people.
    pub detail: Cow<'static, str>,
    /// The events or parameters at fault.
    pub errors: Vec<MemberError>,
    /// The request, as the logs name it.
    pub request_id: Option<Box<str>>,
    /// When to come back; the caller adds the jitter. Sent in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// Extension members: `earliest_cursor`, `current_cursor`, `allow`, `accept`.
    members: Vec<(&'static str, String)>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut detail = detail.into();
        if detail.len() > REASON_BYTES_MAX {
            detail = Cow::Owned(cut(&detail, REASON_BYTES_MAX));
        }
        Self {
            kind,
            detail,
            errors: Vec::new(),
            request_id: None,
            retry_after: None,
            members: Vec::new(),
        }
    }

    /// 400: a query parameter or a part of the path.
    #[must_use]
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        let mut problem = Self::new(Kind::InvalidParameter, "");
        problem.push_error(None, name, &reason.to_string());
        problem.detail = problem
            .errors
            .first()
            .map(|e| format!("{}: {}", e.field, e.reason))
            .unwrap_or_default()
            .into();
        problem
    }

    /// 405: `allow` lists the methods that the path knows.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        Self::new(Kind::MethodNotAllowed, format!("this path knows {allow}"))
            .with_member("allow", allow)
    }

    /// 409: the subject's newest event is another; `current` is its cursor, or none if it has no event.
    #[must_use]
    pub fn conflict(current: Option<&str>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, detail).with_member("current_cursor", current.unwrap_or("none"))
    }

    /// 410: `earliest` is the earliest cursor from which nothing is missing.
    #[must_use]
    pub fn cursor_expired(earliest: &str) -> Self {
        Self::new(
            Kind::CursorExpired,
            "retention has removed events that follow this cursor",
        )
        .with_member("earliest_cursor", earliest)
    }

    /// The event at `index` was refused.
    #[must_use]
    pub fn refused(index: usize, refusal: &Refusal) -> Self {
        Self::refusals(&[(index, refusal.clone())], 1)
    }

    /// Events of a request were refused: those listed, out of `refused_count`.
    ///
    /// Where all are at fault alike the status says how (data too large, data unstorable); else they are invalid.
    #[must_use]
    pub fn refusals(listed: &[(usize, Refusal)], refused_count: usize) -> Self {
        let all = |fault: Fault| listed.iter().all(|(_, refusal)| refusal.fault == fault);
        let kind = if all(Fault::TooLarge) {
            Kind::TooLarge
        } else if all(Fault::Unstorable) {
            Kind::UnstorableData
        } else {
            Kind::InvalidEvent
        };
        let mut problem = Self::new(kind, "");
        for (index, refusal) in listed.iter().take(ERRORS_MAX) {
            problem.push_error(Some(*index), &refusal.field, &refusal.reason);
        }
        problem.detail = match (problem.errors.as_slice(), refused_count) {
            ([only], 1) if only.field.is_empty() => only.reason.clone(),
            ([only], 1) => format!("{}: {}", only.field, only.reason),
            (shown, count) if shown.len() < count => {
                format!(
                    "{count} events were refused, the first {} are listed",
                    shown.len()
                )
            }
            (_, count) => format!("{count} events were refused"),
        }
        .into();
        problem
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Says which request it was.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.request_id = Some(cut(id, FIELD_BYTES_MAX).into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The document's `type`.
    #[must_use]
    pub fn type_uri(&self) -> String {
        format!("/problems/{}", self.kind.code())
    }

    /// The document as JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// An extension member's value.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn push_error(&mut self, index: Option<usize>, field: &str, reason: &str) {
        self.errors.push(MemberError {
            index,
            field: cut(field, FIELD_BYTES_MAX),
            reason: cut(reason, REASON_BYTES_MAX),
        });
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self.retry_after {
            Some(wait) => Some(
                wait.as_secs()
                    .saturating_add(u64::from(wait.subsec_nanos() > 0)),
            ),
            None => self.kind.is_transient().then_some(1),
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max);
    format!("{}…", text.get(..end).unwrap_or_default())
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.kind.entry();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.type_uri())?;
        map.serialize_entry("title", entry.title)?;
        map.serialize_entry("status", &entry.status.as_u16())?;
        if !self.detail.is_empty() {
            map.serialize_entry("detail", &self.detail)?;
        }
        if !self.errors.is_empty() {
            map.serialize_entry("errors", &self.errors)?;
        }
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        if let Some(seconds) = self.retry_after_s() {
            map.serialize_entry("retry_after", &seconds)?;
        }
        if let Some(id) = &self.request_id {
            map.serialize_entry("request_id", id)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    /// The problem also lies in the response's extensions: the layer that knows the request's id can log it, add the id
    /// and answer anew.
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), self.to_json()).into_response();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(CONTENT_TYPE, "application/problem+json");
        set(CACHE_CONTROL, "no-store");
        if let Some(seconds) = self.retry_after_s() {
            set(RETRY_AFTER, &seconds.to_string());
        }
        if self.kind == Kind::Unauthenticated {
            set(WWW_AUTHENTICATE, "Bearer");
        }
        for (member, name) in [("allow", ALLOW), ("accept", ACCEPT)] {
            if let Some(value) = self.member(member) {
                set(name, value);
            }
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests;
