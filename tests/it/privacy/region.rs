//! The region of events that name none.

use serde_json::json;
use tidewire::cli::Cli;

use super::fixture::all;
use crate::support::reader::Transport;
use crate::support::{Server, TestDb};

#[tokio::test]
async fn events_that_name_no_region_get_the_servers() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--region", "eu-central-1"]).await;
    let own = json!({"id": "own", "topic": "a", "region": "us-east-1"});
    server
        .api
        .append(&json!([{"id": "none", "topic": "a"}, own]))
        .await;
    let lines = "{\"id\":\"line\",\"topic\":\"a\"}\n";
    let upload = server
        .api
        .request(reqwest::Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .body(lines);
    let answered = upload.send().await.unwrap().text().await.unwrap();
    assert!(answered.contains("\"id\":\"line\""), "{answered}");
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "append", "ref": "r", "events": [{"id": "frame", "topic": "a"}]}))
        .await;
    ws.until("appended").await;
    let seen = all(&server.api, Transport::Pages).await;
    let regions: Vec<_> = seen
        .iter()
        .map(|event| {
            (
                event["id"].as_str().unwrap(),
                event["region"].as_str().unwrap(),
            )
        })
        .collect();
    let here = "eu-central-1";
    assert_eq!(
        regions,
        [
            ("none", here),
            ("own", "us-east-1"),
            ("line", here),
            ("frame", here)
        ]
    );
    // Sent again by a server of another region it is the same event.
    let other = Server::start_with(&db.url, &["--region", "ap-south-1"]).await;
    assert_eq!(
        other.api.append(&json!({"id": "none", "topic": "a"})).await[0]["duplicate"],
        true
    );
    other.stop().await;
    server.stop().await;
}

#[test]
fn a_region_has_a_bound() {
    use clap::Parser as _;
    for bad in ["", &"x".repeat(65), "a\nb"] {
        let line = ["tidewire", "serve", "--region", bad];
        assert!(Cli::try_parse_from(line).is_err(), "{bad:?}");
    }
}
