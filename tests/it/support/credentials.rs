//! What administrators do with credentials, and how the servers hear of it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::client::json_of;
use super::token::token;
use super::{Api, Server};

/// An administrator of this tenant at this server.
pub fn admin(server: &Server, tenant: &str) -> Api {
    server.api.with_token(&token(tenant))
}

/// Creates a key; status and answer.
pub async fn try_create_key(admin: &Api, wanted: &Value) -> (StatusCode, Value) {
    let request = admin.request(Method::POST, "/v1/api-keys").json(wanted);
    json_of(request.send().await.unwrap()).await
}

/// Creates a key, which must be given: its id, and itself.
pub async fn create_key_with(admin: &Api, wanted: &Value) -> (String, String) {
    let (status, answer) = try_create_key(admin, wanted).await;
    assert_eq!(status, 201, "{answer}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

/// An agent's key for `deal.*`: its id, and itself.
pub async fn create_key(admin: &Api) -> (String, String) {
    let wanted =
        json!({"name": "agent-7", "role": "agent", "read": ["deal.*"], "write": ["deal.*"]});
    create_key_with(admin, &wanted).await
}

/// Revokes a key; the status.
pub async fn try_revoke_key(admin: &Api, id: &str) -> StatusCode {
    let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
    request.send().await.unwrap().status()
}

/// Revokes a key that is there.
pub async fn revoke_key(admin: &Api, id: &str) {
    assert_eq!(try_revoke_key(admin, id).await, 204);
}

/// Revokes tokens, by `jti` or `sub`; status and answer.
pub async fn try_revoke(admin: &Api, what: &Value) -> (StatusCode, Value) {
    let request = admin.request(Method::POST, "/v1/revocations").json(what);
    json_of(request.send().await.unwrap()).await
}

/// Revokes tokens, by `jti` or `sub`.
pub async fn revoke(admin: &Api, what: &Value) {
    let (status, answer) = try_revoke(admin, what).await;
    assert_eq!(status, 201, "{answer}");
}

/// Changes of credentials that are marked: each makes the servers read what has changed.
pub async fn marks(client: &Client) -> i64 {
    let marks = "SELECT count(*) FROM tidewire.credential_changes";
    client.query_one(marks, &[]).await.unwrap().get(0)
}
