//! Credentials for servers that demand them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidewire::access::jwt::{self, Claims};
use tidewire::access::{Role, Secret};

/// The secret of the servers under test.
pub const SECRET: &str = "a secret of the tests, which nobody else knows";

/// Arguments that make a server demand tokens.
pub const WITH_TOKENS: &[&str] = &["--jwt-secret", SECRET];

/// What an administrator's token says.
pub fn claims(tenant: &str) -> Claims {
    Claims {
        sub: "test".into(),
        exp: in_seconds(3_600),
        tenant: tenant.into(),
        role: Role::Admin,
        read: vec!["*".into()],
        write: vec!["*".into()],
    }
}

/// A time from now, as a claim; negative: it has passed.
pub fn in_seconds(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().checked_add_signed(seconds).unwrap()
}

/// A token with these claims.
pub fn issue(claims: &Claims) -> String {
    jwt::issue(&Secret::new(SECRET), claims).unwrap()
}

/// An administrator of this tenant.
pub fn token(tenant: &str) -> String {
    issue(&claims(tenant))
}

/// A token with these claims, whatever they are, signed with the servers' secret.
pub fn sign(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// An administrator of this tenant, by a token of this id.
pub fn with_jti(tenant: &str, jti: &str) -> String {
    let mut claims = serde_json::to_value(claims(tenant)).unwrap();
    claims["jti"] = jti.into();
    sign(&claims)
}
