//! Why a check did not pass.

use crate::client::{Error, Exchange};

/// What a check that did not pass says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// The server does not do what it must.
    Failed {
        /// What was seen.
        cause: String,
        /// What to do.
        advice: String,
    },
    /// It could not be checked, for this reason.
    Skipped(String),
}

impl Flaw {
    /// A failure.
    #[must_use]
    pub fn failed(cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Failed {
            cause: cause.into(),
            advice: advice.into(),
        }
    }

    /// An answer that is none of those that were expected.
    #[must_use]
    pub fn answer(what: &str, wanted: &str, got: &Exchange) -> Self {
        let document = got.json();
        let detail = document.get("detail").and_then(serde_json::Value::as_str);
        let cause = format!(
            "{what} was answered with {} {}, not with {wanted}{}",
            got.status,
            got.problem(),
            detail.map_or(String::new(), |detail| format!(": {detail}"))
        );
        let advice = match got.status {
            401 => "Use a credential that is valid.",
            403 => "Use a credential that may read and write check.*.",
            429 => {
                "The tenant's rates are used up: check when less is going on, or raise them (--tenant-events-rate and others)."
            }
            503 => "The server is overloaded, or its database is away: GET /v1/status says which.",
            422 => {
                "Does the tenant take topics under check.*? If its topics are declared, declare check.* or use another tenant."
            }
            _ => {
                "Look into the server's log, and whether a proxy in between changes requests or answers."
            }
        };
        Self::failed(cause, advice)
    }
}

impl From<Error> for Flaw {
    fn from(error: Error) -> Self {
        Self::failed(
            error.to_string(),
            "Look into the server's log, and at whatever stands between: proxies, their timeouts, whether they let WebSocket and streams through.",
        )
    }
}
