//! All limits in force, where clients and operators see them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{caller, server};
use crate::support::TestDb;

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// What the schema says is what is sent, at every depth.
fn compare(schema: &Value, sent: &Value, path: &str) {
    let properties = &schema["properties"];
    assert_eq!(keys(properties), keys(sent), "{path}");
    for (name, value) in sent.as_object().unwrap() {
        let schema = &properties[name];
        if value.is_object() {
            compare(schema, value, &format!("{path}.{name}"));
        } else {
            assert_eq!(schema["type"], "integer", "{path}.{name}");
        }
    }
}

#[tokio::test]
async fn welcome_and_status_show_the_same_limits_and_the_documents_describe_them() {
    let db = TestDb::new().await;
    let mut limits = Vec::new();
    for who in ["tenant", "credential"] {
        for what in ["events", "bytes", "reads", "administration"] {
            limits.extend([format!("--{who}-{what}-rate"), "1000:3000".into()]);
        }
        for what in ["connections", "subscriptions"] {
            limits.extend([format!("--{who}-{what}-max"), "70".into()]);
        }
    }
    let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
    let server = server(&db, &limits).await;
    let api = caller(&server, "acme", "one");
    let (mut ws, _) = tokio_tungstenite::connect_async(api.ws_request(None).unwrap())
        .await
        .unwrap();
    let welcome = futures_util::StreamExt::next(&mut ws)
        .await
        .unwrap()
        .unwrap();
    let welcome: Value = serde_json::from_str(welcome.to_text().unwrap()).unwrap();
    let shown = &welcome["limits"];
    assert_eq!(*shown, api.get("/v1/status").await["limits"]);
    assert_eq!(
        shown["tenant"]["events"],
        json!({"per_second": 1000, "burst": 3000})
    );
    assert_eq!(shown["credential"]["connections"], 70);
    let asyncapi = api.get("/asyncapi.json").await;
    compare(
        &asyncapi["components"]["schemas"]["Limits"],
        shown,
        "limits",
    );
    let openapi = api.get("/openapi.json").await;
    assert_eq!(
        openapi["components"]["schemas"]["Limits"],
        asyncapi["components"]["schemas"]["Limits"]
    );
    server.stop().await;
}
