//! Credentials of every kind.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::credentials::{create_key_with, revoke, revoke_key};
use crate::support::token::{SECRET, in_seconds};
use crate::support::{Api, Server, TestDb};

pub const ROLES: [&str; 4] = ["agent", "dashboard", "analyst", "admin"];

/// What every event, key and topic of the tenant `acme` holds: nobody else may see it.
pub const SENTINEL: &str = "acme-sentinel-7f3a";

/// Settings of the server under test.
pub const SETTINGS: &[&str] = &[
    "--jwt-secret",
    SECRET,
    "--jwt-audience",
    "tidewire",
    "--jwt-issuer",
    "https://id.example",
    "--jwt-leeway-s",
    "0",
    "--operator-tenant",
    "acme",
];

fn claims(tenant: &str, role: &str) -> Value {
    json!({
        "iss": "https://id.example", "aud": "tidewire", "sub": format!("{tenant}-{role}"), "exp": in_seconds(600),
        "iat": in_seconds(-60), "jti": uuid::Uuid::now_v7(), "tenant": tenant, "role": role,
        "read": ["*"], "write": ["*"],
    })
}

fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn changed(tenant: &str, role: &str, changes: &Value) -> Value {
    let mut claims = claims(tenant, role);
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// A token that is valid.
pub fn valid(tenant: &str, role: &str) -> String {
    sign(&claims(tenant, role), SECRET)
}

/// One that is valid until then, in seconds since 1970.
pub fn until(tenant: &str, role: &str, expires_at: u64) -> String {
    sign(&changed(tenant, role, &json!({"exp": expires_at})), SECRET)
}

/// One that is valid, and its id.
pub fn revocable(tenant: &str, role: &str) -> (String, Value) {
    let claims = claims(tenant, role);
    (sign(&claims, SECRET), claims["jti"].clone())
}

/// One that is valid and covers other topics only.
pub fn narrow(tenant: &str, role: &str) -> String {
    let other = json!({"read": ["other.*"], "write": ["other.*"]});
    sign(&changed(tenant, role, &other), SECRET)
}

/// A server with two tenants, one of which has something to hide.
pub struct Setting {
    pub server: Server,
    pub db: TestDb,
    /// An API key's id, of `acme`.
    pub key_id: String,
    /// And itself.
    pub key: String,
}

impl Setting {
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let server = Server::start_with(&db.url, SETTINGS).await;
        let admin = server.api.with_token(&valid("acme", "admin"));
        let secret =
            json!({"topic": "deal.won", "subject": SENTINEL, "id": SENTINEL, "data": SENTINEL});
        admin.append(&secret).await;
        let (key_id, key) = create_key(&admin, SENTINEL).await;
        let path = format!("/v1/topics/deal.{SENTINEL}");
        let declare = admin
            .request(Method::PUT, &path)
            .json(&json!({"description": SENTINEL}));
        assert_eq!(declare.send().await.unwrap().status(), 204);
        // Of everything that can be deleted there is one under this name.
        revoke(&admin, &json!({"jti": format!("deal.{SENTINEL}")})).await;
        let path = format!("/v1/retention/deal.{SENTINEL}");
        let rule = admin.request(Method::PUT, &path).json(&json!({"days": 9}));
        assert_eq!(rule.send().await.unwrap().status(), 200);
        Self {
            server,
            db,
            key_id,
            key,
        }
    }

    pub fn api(&self, credential: &str) -> Api {
        self.server.api.with_token(credential)
    }

    /// Credentials of `acme` in this role that let nobody in, each with its name.
    pub async fn bad(&self, role: &str) -> Vec<(&'static str, String)> {
        let admin = self.api(&valid("acme", "admin"));
        let good = valid("acme", role);
        let (content, signature) = good.rsplit_once('.').unwrap();
        let header = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        let payload = content.split_once('.').unwrap().1;
        let (revoked, jti) = revocable("acme", role);
        revoke(&admin, &json!({"jti": jti})).await;
        let gone = changed("acme", role, &json!({"sub": format!("gone-{role}")}));
        revoke(&admin, &json!({"sub": format!("gone-{role}")})).await;
        let (key_id, key) = create_key(&admin, role).await;
        revoke_key(&admin, &key_id).await;
        let signed = |changes: &Value| sign(&changed("acme", role, changes), SECRET);
        vec![
            ("expired", signed(&json!({"exp": in_seconds(-5)}))),
            ("not valid yet", signed(&json!({"nbf": in_seconds(600)}))),
            (
                "of another audience",
                signed(&json!({"aud": "somebody else"})),
            ),
            (
                "of another issuer",
                signed(&json!({"iss": "https://evil.example"})),
            ),
            ("without a tenant", signed(&json!({"tenant": null}))),
            ("of no known role", signed(&json!({"role": "root"}))),
            ("revoked by its id", revoked),
            ("revoked by its subject", sign(&gone, SECRET)),
            ("a revoked API key", key),
            (
                "an API key with another secret",
                format!("{}{}", &self.key[..20], "A".repeat(43)),
            ),
            (
                "signed with another secret",
                sign(
                    &claims("acme", role),
                    "another secret, of which nobody here knows",
                ),
            ),
            (
                "alg none",
                format!("{}.{payload}.", header(r#"{"alg":"none","typ":"JWT"}"#)),
            ),
            (
                "alg none with a signature",
                format!("{}.{payload}.{signature}", header(r#"{"alg":"none"}"#)),
            ),
            (
                "alg RS256 of a shared secret",
                format!("{}.{payload}.{signature}", header(r#"{"alg":"RS256"}"#)),
            ),
            ("without its signature", content.to_owned()),
            ("no token at all", "nonsense".to_owned()),
        ]
    }
}

/// A key of the administrator's tenant: its id, and itself.
pub async fn create_key(admin: &Api, name: &str) -> (String, String) {
    let wanted = json!({"name": name, "role": "agent", "read": ["deal.*"], "write": ["deal.*"]});
    create_key_with(admin, &wanted).await
}
