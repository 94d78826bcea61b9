//! What a token says, under whatever names the identity provider says it.

use serde_json::{Map, Value};

use super::principal::Credential;
use super::{Principal, Role};
use crate::event::{Label, Tenant, TopicPattern};

/// Where the claims stand. A name that begins with `/` is a JSON pointer: `/realm_access/tenant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// Whose events.
    pub tenant: String,
    /// What it is for.
    pub role: String,
    /// Topic patterns it may read: an array, or a text with spaces between.
    pub read: String,
    /// The same for writing.
    pub write: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            tenant: "tenant".into(),
            role: "role".into(),
            read: "read".into(),
            write: "write".into(),
        }
    }
}

impl ClaimNames {
    /// Who the holder of a token with these claims is; the claim that is missing or is not what it should be.
    ///
    /// # Errors
    /// The name of the claim.
    pub fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, String> {
        let text = |name: &str| {
            let value = claim(claims, name).and_then(Value::as_str);
            value.ok_or_else(|| name.to_owned())
        };
        let patterns = |name: &str| patterns(claim(claims, name)).ok_or_else(|| name.to_owned());
        let subject = text("sub")?;
        let expires_at = claims.get("exp").and_then(seconds).ok_or("exp")?;
        Ok(Principal {
            tenant: Tenant::parse(text(&self.tenant)?).map_err(|_| self.tenant.clone())?,
            name: Label::parse(subject).map_err(|_| "sub".to_owned())?,
            role: Role::parse(text(&self.role)?).ok_or_else(|| self.role.clone())?,
            read: patterns(&self.read)?,
            write: patterns(&self.write)?,
            expires_at: Some(expires_at),
            credential: Credential::Token {
                id: id(claims)?,
                issued_at: claims.get("iat").and_then(seconds),
            },
        })
    }
}

/// By what a token is revoked alone: a text, by RFC 7519, or a number, as some issuers have it.
fn id(claims: &Map<String, Value>) -> Result<Option<Box<str>>, String> {
    match claims.get("jti") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.as_str().into())),
        Some(Value::Number(id)) => Ok(Some(id.to_string().into())),
        Some(_) => Err("jti".to_owned()),
    }
}

fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else {
        return claims.get(name);
    };
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() {
        return Some(first);
    }
    first.pointer(&format!("/{rest}"))
}

/// Absent: none.
fn patterns(claim: Option<&Value>) -> Option<Vec<TopicPattern>> {
    let texts: Vec<&str> = match claim {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    texts
        .into_iter()
        .map(|text| TopicPattern::parse(text).ok())
        .collect()
}

/// A `NumericDate`, which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value
            .as_f64()
            .filter(|seconds| (0.0..1e15).contains(seconds))?;
        std::time::Duration::try_from_secs_f64(seconds)
            .ok()
            .map(|since| since.as_secs())
    })
}
