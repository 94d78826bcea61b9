//! Every way in which a request can fail, in one table: code, title, status, what happened, what to do.
//!
//! # Invariants
//! - A code is never reused and never changes its status: clients branch on it.
//! - The documents, `GET /problems/{code}` and the API description are made from this table.

use axum::http::StatusCode;

/// A way to fail. Its code is the last part of the problem's `type` and the `code` of a WebSocket error frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "the table below says what each one is, in the words that users read"
)]
pub enum Kind {
    Malformed,
    InvalidParameter,
    MalformedCursor,
    Unauthenticated,
    Forbidden,
    ForbiddenTopic,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    TooMany,
    CursorUnknown,
    IdempotencyInProgress,
    CursorExpired,
    TooLarge,
    UnsupportedMediaType,
    InvalidEvent,
    UnstorableData,
    UndeclaredTopic,
    SchemaViolation,
    InvalidSchema,
    ConsentRequired,
    IdempotencyConflict,
    RateLimited,
    Internal,
    Overloaded,
    Unavailable,
}

/// What the table says of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The stable word.
    pub code: &'static str,
    /// A few words for people, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened.
    pub meaning: &'static str,
    /// What the client can do.
    pub remedy: &'static str,
}

const fn entry(
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry {
        code,
        title,
        status,
        meaning,
        remedy,
    }
}

impl Kind {
    /// All of them, by status.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::InvalidParameter,
        Self::MalformedCursor,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::ForbiddenTopic,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::Conflict,
        Self::TooMany,
        Self::CursorUnknown,
        Self::IdempotencyInProgress,
        Self::CursorExpired,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidEvent,
        Self::UnstorableData,
        Self::UndeclaredTopic,
        Self::SchemaViolation,
        Self::InvalidSchema,
        Self::ConsentRequired,
        Self::IdempotencyConflict,
        Self::RateLimited,
        Self::Internal,
        Self::Overloaded,
        Self::Unavailable,
    ];

    /// The kind's line of the table.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    pub const fn entry(self) -> Entry {
        match self {
            Self::Malformed => entry(
                "malformed",
                StatusCode::BAD_REQUEST,
                "The request cannot be read",
                "The body or a header is not what its media type or its definition says: broken JSON, cut-off MessagePack, an unfinished quoted string.",
                "Correct the request; `detail` says where reading stopped. Sending the same again fails again.",
            ),
            Self::InvalidParameter => entry(
                "invalid-parameter",
                StatusCode::BAD_REQUEST,
                "A parameter is not valid",
                "A query parameter or a part of the path is unknown, stands twice or has a value it cannot have.",
                "Correct the parameter that `errors` names.",
            ),
            Self::MalformedCursor => entry(
                "malformed-cursor",
                StatusCode::BAD_REQUEST,
                "That is not a cursor",
                "A cursor is 32 characters of 0-9 and a-v; this text is something else.",
                "Send a cursor exactly as an answer gave it, or `earliest` or `latest`. Cursors are opaque: never build one.",
            ),
            Self::Unauthenticated => entry(
                "unauthenticated",
                StatusCode::UNAUTHORIZED,
                "No valid credential",
                "The request has no token, or the token is unknown, expired, revoked or wrongly signed.",
                "Send `Authorization: Bearer <token>` with a valid token; on WebSocket and SSE `?token=` will do. Resume with your last cursor: nothing is lost.",
            ),
            Self::Forbidden => entry(
                "forbidden",
                StatusCode::FORBIDDEN,
                "The credential does not allow this",
                "The credential is valid, but its role does not allow this action; or a web page of a foreign origin sent the request to a server in development mode.",
                "Use a credential with the role that the action needs.",
            ),
            Self::ForbiddenTopic => entry(
                "forbidden-topic",
                StatusCode::FORBIDDEN,
                "The credential does not cover this topic",
                "The credential's `read` or `write` patterns do not cover every topic of the request.",
                "Ask for fewer topics, or for a credential whose patterns cover them.",
            ),
            Self::NotFound => entry(
                "not-found",
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "No such path, or no such resource within your tenant.",
                "Check the path against /openapi.json and the id against what you created.",
            ),
            Self::MethodNotAllowed => entry(
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The path does not know this method",
                "The path exists, but not with this method.",
                "Use one of the methods in the `Allow` header.",
            ),
            Self::NotAcceptable => entry(
                "not-acceptable",
                StatusCode::NOT_ACCEPTABLE,
                "No such representation",
                "The `Accept` header allows no media type in which this resource can be given.",
                "Leave out `Accept`, or name one of the types that `detail` lists.",
            ),
            Self::RequestTimeout => entry(
                "request-timeout",
                StatusCode::REQUEST_TIMEOUT,
                "The request took too long to arrive",
                "The body stopped arriving before it was complete. Nothing of it was stored, but for the NDJSON chunks already answered.",
                "Send it again; events with an id are stored once only.",
            ),
            Self::Conflict => entry(
                "conflict",
                StatusCode::CONFLICT,
                "The subject has moved on",
                "`expect` does not name the subject's newest event. Nothing of the request was stored.",
                "Read the subject up to `current_cursor`, decide again, and send with that cursor as `expect`.",
            ),
            Self::TooMany => entry(
                "too-many",
                StatusCode::CONFLICT,
                "There are as many as there may be",
                "The tenant has as many credentials, revocations or declared topics as it may have.",
                "Remove what is not needed any more; `detail` says how many there may be.",
            ),
            Self::CursorUnknown => entry(
                "cursor-unknown",
                StatusCode::CONFLICT,
                "This log never issued that cursor",
                "The cursor belongs to another log, was altered, or lies ahead of this log, as after the restore of an older backup.",
                "Drop what you derived from it and start again from `GET /v1/state` and the cursor it gives, or from `earliest`.",
            ),
            Self::IdempotencyInProgress => entry(
                "idempotency-in-progress",
                StatusCode::CONFLICT,
                "The same id or subject is being written",
                "A request or a transaction that stores the same id, or an event of the same subject, has not ended yet.",
                "Wait as long as `Retry-After` says and send the same request again: it then gets the first one's answer.",
            ),
            Self::CursorExpired => entry(
                "cursor-expired",
                StatusCode::GONE,
                "Retention has overtaken that cursor",
                "Events that follow the cursor have been removed by retention, so reading on from it would skip them.",
                "Start again from `GET /v1/state`, or read on from `earliest_cursor` knowing that a part is missing.",
            ),
            Self::TooLarge => entry(
                "too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too large",
                "The body, an event's data or the number of events of an array is beyond its bound.",
                "Send less at once; application/x-ndjson takes a stream of any length. Keep large objects elsewhere and send a reference.",
            ),
            Self::UnsupportedMediaType => entry(
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body's media type is not taken here",
                "The Content-Type is missing, unknown, or names a charset other than UTF-8.",
                "Send one of the types in the `Accept` header of this answer, for JSON: `Content-Type: application/json`.",
            ),
            Self::InvalidEvent => entry(
                "invalid-event",
                StatusCode::UNPROCESSABLE_ENTITY,
                "An event breaks a rule",
                "The body could be read, but at least one event in it is not valid. Nothing of the request was stored.",
                "Correct the events that `errors` names by index and field. Sending the same again fails again.",
            ),
            Self::UnstorableData => entry(
                "unstorable-data",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The data is JSON that the database cannot hold",
                "The data holds \\u0000 or half of a surrogate pair, is nested too deeply, or has a number of extreme size.",
                "Clean the data, or send it as bytes: `data_base64` with `content_type`.",
            ),
            Self::UndeclaredTopic => entry(
                "undeclared-topic",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The topic is not declared",
                "The tenant takes events of declared topics only, and this is none of them.",
                "Check the spelling, or have an administrator declare the topic: `PUT /v1/topics/{pattern}`.",
            ),
            Self::SchemaViolation => entry(
                "schema-violation",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The data is not what the topic's schema says",
                "The topic was declared with a JSON Schema, and the event's data does not keep to it.",
                "Correct what `errors` names: each `field` is `data` and a JSON pointer into it.",
            ),
            Self::InvalidSchema => entry(
                "invalid-schema",
                StatusCode::UNPROCESSABLE_ENTITY,
                "This is no schema that can be declared",
                "The schema is no JSON Schema, refers to itself or to something elsewhere, or is too large.",
                "Correct it; `detail` says what is in the way.",
            ),
            Self::ConsentRequired => entry(
                "consent-required",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The event lacks consent",
                "The tenant takes events of this topic only if their `gdpr` says `\"consent\": true`.",
                "Say so in the event if it is so; else do not store it.",
            ),
            Self::IdempotencyConflict => entry(
                "idempotency-conflict",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The id was used for another event",
                "An event with this id and other content was stored within the deduplication window.",
                "Give a new fact a new id. If it was meant as a retry, send what was sent the first time.",
            ),
            Self::RateLimited => entry(
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests",
                "The credential or its tenant has used up a rate (events, bytes, reads of history), or holds as many connections or subscriptions as it may.",
                "Wait as long as `Retry-After` says and send the same again. An upload as NDJSON is slowed down instead.",
            ),
            Self::Internal => entry(
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The server failed",
                "Something failed that should not. Whether the request took effect is unknown.",
                "Retry with the same ids: what was stored is not stored twice. Tell the operator the `request_id`.",
            ),
            Self::Overloaded => entry(
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is busy",
                "A queue or a limit of connections is full, and this request was turned away before any work was done.",
                "Wait as long as `Retry-After` says. Critical events are turned away last.",
            ),
            Self::Unavailable => entry(
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The log cannot be reached",
                "The database does not answer, or not in time. Whether a write took effect is unknown.",
                "Retry after `Retry-After` with the same ids: what was stored is not stored twice.",
            ),
        }
    }

    /// The stable word.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.entry().code
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// Whether the same request may succeed later, so that the answer says when.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::IdempotencyInProgress | Self::RateLimited | Self::Overloaded | Self::Unavailable
        )
    }

    /// The kind with this code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }
}
