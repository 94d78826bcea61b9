//! Numbers of connections and subscriptions.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{caller, header, server};
use crate::support::credentials::create_key;
use crate::support::{Api, TestDb, eventually};

async fn status_of(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

async fn open_status(api: &Api) -> u16 {
    match api.try_ws().await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            assert!(answer.headers().contains_key("retry-after"));
            answer.status().as_u16()
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn connections_of_every_kind_count_and_one_that_ends_makes_room() {
    let db = TestDb::new().await;
    let limits = [
        "--credential-connections-max",
        "2",
        "--tenant-connections-max",
        "3",
    ];
    let server = server(&db, &limits).await;
    let api = caller(&server, "acme", "one");
    let _stream = api.sse("after=latest", None).await.unwrap();
    let socket = api.ws().await;
    let get = |path: &str| api.request(Method::GET, path);
    assert_eq!(open_status(&api).await, 429);
    assert_eq!(status_of(get("/v1/events?after=latest&wait=5")).await, 429);
    let sse = get("/v1/events").header("accept", "text/event-stream");
    assert_eq!(status_of(sse).await, 429);
    let upload = api
        .request(Method::POST, "/v1/events")
        .body("{\"topic\":\"a.b\"}\n");
    assert_eq!(
        status_of(upload.header("content-type", "application/x-ndjson")).await,
        429
    );
    // A browser that resumes would give up for good on 429.
    let cursor = api.page("latest", "").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let resuming = get("/v1/events")
        .header("accept", "text/event-stream")
        .header("last-event-id", cursor);
    let answer = resuming.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "text/event-stream");
    assert!(answer.text().await.unwrap().starts_with("retry: "));
    // Pages and appends do not last, and are not concerned.
    api.append(&json!({"topic": "a.b"})).await;
    // The tenant has one left, and others have theirs.
    let second = caller(&server, "acme", "two").ws().await;
    assert_eq!(open_status(&caller(&server, "acme", "two")).await, 429);
    assert_eq!(open_status(&caller(&server, "other", "one")).await, 101);
    drop(socket);
    let again = eventually(Duration::from_secs(10), || async {
        match open_status(&api).await {
            101 => Ok(()),
            status => Err(status),
        }
    });
    again.await;
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn no_tenant_gets_all_places() {
    let db = TestDb::new().await;
    let server = server(&db, &["--connections-max", "8"]).await;
    let mut held = Vec::new();
    let api = caller(&server, "loud", "one");
    while let Ok(ws) = api.try_ws().await {
        held.push(ws);
    }
    assert_eq!(held.len(), 6);
    held.push(caller(&server, "quiet", "one").ws().await);
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_count_over_all_sockets() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-subscriptions-max", "2"]).await;
    let api = caller(&server, "acme", "one");
    let (mut one, mut other) = (api.ws().await, api.ws().await);
    one.subscribe("s1", &["a.*"], "latest").await;
    other.subscribe("s2", &["a.*"], "latest").await;
    let wanted = json!({"type": "subscribe", "id": "s3", "topics": ["a.*"]});
    one.send(wanted.clone()).await;
    let error = one.until("error").await;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("rate-limited"), &json!("s3"))
    );
    let mut stranger = caller(&server, "other", "one").ws().await;
    stranger.subscribe("s1", &["a.*"], "latest").await;
    other.send(json!({"type": "unsubscribe", "id": "s2"})).await;
    other.until("unsubscribed").await;
    one.send(wanted).await;
    one.until("subscribed").await;
    server.stop().await;
}

#[tokio::test]
async fn a_new_credential_takes_its_own_places_and_frees_the_old_ones() {
    let db = TestDb::new().await;
    let limits = [
        "--credential-connections-max",
        "2",
        "--credential-subscriptions-max",
        "2",
    ];
    let server = server(&db, &limits).await;
    let admin = caller(&server, "acme", "admin");
    let (_, old) = create_key(&admin).await;
    let (_, new) = create_key(&admin).await;
    let (holder, renewed) = (server.api.with_token(&old), server.api.with_token(&new));
    let mut sockets = [holder.ws().await, holder.ws().await];
    for ws in &mut sockets {
        ws.subscribe("s", &["deal.*"], "latest").await;
        ws.send(json!({"type": "auth", "token": new})).await;
        assert_eq!(ws.until("notice").await["code"], "authenticated");
    }
    assert!(renewed.try_ws().await.is_err(), "both are the new one's");
    let mut third = holder.ws().await;
    third.subscribe("s", &["deal.*"], "latest").await;
    // There is no room for a third of the new one's.
    third.send(json!({"type": "auth", "token": new})).await;
    assert_eq!(third.close_code().await, 4429);
    server.stop().await;
}

/// A socket that changes its credential stays one connection of its tenant, and its subscriptions as many.
#[tokio::test]
async fn a_new_credential_is_taken_where_the_tenant_has_no_place_left() {
    for (what, limits) in [
        ("connections", &["--tenant-connections-max", "2"]),
        ("subscriptions", &["--tenant-subscriptions-max", "4"]),
        ("connections of all", &["--connections-max", "2"]),
    ] {
        let db = TestDb::new().await;
        let server = server(&db, limits).await;
        let admin = caller(&server, "acme", "admin");
        let (_, old) = create_key(&admin).await;
        let (new_id, new) = create_key(&admin).await;
        let holder = server.api.with_token(&old);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let mut ws = holder.ws().await;
            for id in ["s1", "s2"] {
                ws.send(json!({"type": "subscribe", "id": id, "topics": ["deal.*"]}))
                    .await;
                ws.until("subscribed").await;
            }
            sockets.push(ws);
        }
        for ws in &mut sockets {
            ws.send(json!({"type": "auth", "token": new})).await;
            match ws.frame_or_close().await {
                Ok(mut frame) => {
                    while frame["type"] != "notice" {
                        frame = ws.frame_or_close().await.unwrap();
                    }
                    assert_eq!(frame["code"], "authenticated", "{what}");
                }
                Err(code) => panic!("{what}: {code}"),
            }
        }
        let status = admin.get("/v1/status").await;
        assert_eq!(
            status["readers"],
            json!({"connections": 2, "subscriptions": 4}),
            "{what}"
        );
        // They end with the new one, and all places are free.
        let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{new_id}"));
        assert_eq!(status_of(request).await, 204);
        for ws in &mut sockets {
            assert_eq!(ws.close_code().await, 4401);
        }
        eventually(Duration::from_secs(10), || async {
            let readers = admin.get("/v1/status").await["readers"].clone();
            let none = json!({"connections": 0, "subscriptions": 0});
            (readers == none).then_some(()).ok_or(readers)
        })
        .await;
        server.stop().await;
    }
}
