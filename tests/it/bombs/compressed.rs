//! Gzip that grows, is cut off or damaged.

use std::process::Stdio;

use serde_json::Value;

use super::{process, too_large, unharmed};
use crate::support::TestDb;
use crate::support::refused::{post, refused};

/// The output of a shell's line.
async fn shell(line: &str) -> Vec<u8> {
    let output = tokio::process::Command::new("sh")
        .args(["-c", line])
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{line}");
    output.stdout
}

#[tokio::test]
async fn a_gigabyte_that_arrives_as_a_megabyte_is_never_held() {
    let db = TestDb::new().await;
    let (server, before) = process(&db).await;
    let bomb = shell("head -c 1073741824 /dev/zero | gzip -c9").await;
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    for kind in [
        "application/json",
        "application/msgpack",
        "application/cloudevents+json",
    ] {
        too_large(&server, kind, &["Content-Encoding: gzip"], &bomb).await;
    }
    // A stream has no bound of its own, but each of its lines has; and so has what it inflates to.
    let request =
        post(&server.api, "application/x-ndjson", bomb).header("content-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    for line in text.lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        assert_eq!(result["error"]["type"], "/problems/too-large", "{text}");
    }
    assert!(text.starts_with("{\"line\":1,"), "{text}");
    unharmed(&db, &server, before).await;
}

#[tokio::test]
async fn gzip_that_is_cut_off_or_damaged_stores_nothing() {
    let db = TestDb::new().await;
    let (server, before) = process(&db).await;
    let whole = shell(r#"printf '[{"topic":"a"},{"topic":"b","data":[1,2,3]}]' | gzip -cn"#).await;
    let send = async |body: Vec<u8>, what: &str| {
        let request =
            post(&server.api, "application/json", body).header("content-encoding", "gzip");
        refused(request, 400, "malformed", what).await
    };
    for end in 0..whole.len() {
        send(whole[..end].to_vec(), &format!("cut at {end}")).await;
    }
    // The last eight bytes are the checksum and the length.
    for at in [0, whole.len() - 20, whole.len() - 8, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        send(damaged, &format!("damaged at {at}")).await;
    }
    unharmed(&db, &server, before).await;
}
