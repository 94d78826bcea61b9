//! The problem document (RFC 9457) that every refusal comes as.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a server refused something. Members this client does not know are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable URI path under `/problems/`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The kind, for people.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// This occurrence, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// Everything else: `request_id`, `earliest`, …
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// One field at fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which event of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Which field.
    #[serde(default)]
    pub field: String,
    /// What is wrong with it.
    #[serde(default)]
    pub reason: String,
}

impl Problem {
    /// A refusal by this client, before anything was sent.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self {
            kind: "/problems/malformed".to_owned(),
            title: "Malformed".to_owned(),
            status: 400,
            detail: detail.into(),
            ..Self::default()
        }
    }

    /// The last segment of the type: `cursor-expired`.
    #[must_use]
    pub fn code(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        is_passing(self.status)
    }
}

/// Whether the same request may succeed later: overload, drain, a gateway without its server.
#[must_use]
pub const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 502..=504)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match (self.title.as_str(), self.code()) {
            ("", "") => "refused",
            ("", code) => code,
            (title, _) => title,
        };
        f.write_str(title)?;
        // A detail that only repeats the field at fault is said once.
        let mut said = String::new();
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
            said.clone_from(&self.detail);
        }
        for fault in &self.errors {
            if !said.contains(&fault.reason) {
                write!(f, "; {}: {}", fault.field, fault.reason)?;
            }
        }
        if let Some(serde_json::Value::String(id)) = self.more.get("request_id") {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_are_kept_and_missing_ones_are_no_error() {
        let text = r#"{"type":"/problems/cursor-expired","status":410,"earliest":"00a"}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.code(), "cursor-expired");
        assert_eq!(problem.more["earliest"], "00a");
        assert_eq!(problem.to_string(), "cursor-expired");
        assert!(serde_json::from_str::<Problem>("{}").is_ok());
    }
}
