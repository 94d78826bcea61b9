//! Requests that are wrong in every way: each gets a precise problem document, and nothing is stored.

use serde_json::{Value, json};

use crate::support::raw::gzip;
use crate::support::refused::{post, refused};
use crate::support::{Server, TestDb, raw};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn bodies_that_are_no_events_are_refused_with_the_reason() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let event = |data: &str| format!(r#"{{"topic":"a","data":{data}}}"#);
    let many = format!("[{}]", vec![event("1"); 1_001].join(","));
    let table: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"".to_vec(), 400, "malformed"),
        (b"{".to_vec(), 400, "malformed"),
        (b"[{\"topic\":\"a\"},".to_vec(), 400, "malformed"),
        (b"{\"topic\":\"a\"} {}".to_vec(), 400, "malformed"),
        (b"{\"topic\":\"a\",}".to_vec(), 400, "malformed"),
        (b"{\"topic\":'a'}".to_vec(), 400, "malformed"),
        (event("{\"a\":{\"b\":{\"c\":}}}").into(), 400, "malformed"),
        (event("[1,[2,[3,]]]").into(), 400, "malformed"),
        (event("tru").into(), 400, "malformed"),
        (event("01").into(), 400, "malformed"),
        (event("NaN").into(), 400, "malformed"),
        (event("\"a\nb\"").into(), 400, "malformed"),
        (
            b"{\"topic\":\"a\",\"data\":\"\xff\"}".to_vec(),
            400,
            "malformed",
        ),
        (
            b"{\"topic\":\"a\",\"data\":\"\xed\xa0\x80\"}".to_vec(),
            400,
            "malformed",
        ),
        ("[".repeat(5_000_000).into(), 400, "malformed"),
        (
            format!("{}{}", "[".repeat(4_000_000), "]".repeat(4_000_000)).into(),
            422,
            "invalid-event",
        ),
        (b"7".to_vec(), 422, "invalid-event"),
        (b"null".to_vec(), 422, "invalid-event"),
        (b"[]".to_vec(), 422, "invalid-event"),
        (b"[[]]".to_vec(), 422, "invalid-event"),
        (b"{}".to_vec(), 422, "invalid-event"),
        (br#"{"topic":7}"#.to_vec(), 422, "invalid-event"),
        (br#"{"topic":"A"}"#.to_vec(), 422, "invalid-event"),
        (br#"{"topic":"a..b"}"#.to_vec(), 422, "invalid-event"),
        (br#"{"topic":"a.*"}"#.to_vec(), 422, "invalid-event"),
        (
            br#"{"topic":"a.b.c.d.e.f.g.h.i"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (
            format!(r#"{{"topic":"{}"}}"#, "a".repeat(256)).into(),
            422,
            "invalid-event",
        ),
        (
            br#"{"topic":"a","tenant":"other"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (br#"{"topic":"a","seq":1}"#.to_vec(), 422, "invalid-event"),
        (br#"{"topic":"a","id":""}"#.to_vec(), 422, "invalid-event"),
        (
            br#"{"topic":"a","subject":"x\u0000"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (
            br#"{"topic":"a","priority":"urgent"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (
            br#"{"topic":"a","occurred_at":"yesterday"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (
            br#"{"topic":"a","data_base64":"?"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (
            br#"{"topic":"a","expect":"none"}"#.to_vec(),
            422,
            "invalid-event",
        ),
        (event(r#""\u0000""#).into(), 422, "unstorable-data"),
        (event(r#"{"\u0000":1}"#).into(), 422, "unstorable-data"),
        (event(r#""\ud800""#).into(), 422, "unstorable-data"),
        (event("1e999999").into(), 422, "unstorable-data"),
        (event("-1e-999999").into(), 422, "unstorable-data"),
        (
            event(&format!("{}{}", "[".repeat(129), "]".repeat(129))).into(),
            422,
            "unstorable-data",
        ),
        (
            event(&format!("{:?}", "x".repeat(300 * 1024))).into(),
            413,
            "too-large",
        ),
        (many.into(), 413, "too-large"),
        (vec![b' '; 8 * 1024 * 1024 + 1], 413, "too-large"),
    ];
    for (body, status, code) in table {
        let what = String::from_utf8_lossy(&body)
            .chars()
            .take(80)
            .collect::<String>();
        refused(
            post(&server.api, "application/json", body),
            status,
            code,
            &what,
        )
        .await;
    }
    let one_bad = json!([{"topic": "a"}, {"topic": "A"}, {"topic": "a", "id": 7}]);
    let problem = refused(
        post(&server.api, "application/json", one_bad.to_string()),
        422,
        "invalid-event",
        "one bad",
    )
    .await;
    let at: Vec<(&Value, &Value)> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["index"], &e["field"]))
        .collect();
    assert_eq!(
        at,
        [(&json!(1), &json!("topic")), (&json!(2), &json!("id"))]
    );
    assert!(db.log().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn media_types_encodings_and_bombs_are_refused() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let event = r#"{"topic":"a"}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/cloudevents+avro",
        "json",
        "",
    ] {
        refused(
            post(&server.api, kind, event),
            415,
            "unsupported-media-type",
            kind,
        )
        .await;
    }
    for body in [
        &b"\xc1"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa5topic",
        b"\x91\x91\x91",
        b"\x80",
    ] {
        let response = post(&server.api, "application/msgpack", body.to_vec())
            .send()
            .await
            .unwrap();
        assert!(
            response.status().is_client_error(),
            "{body:?}: {}",
            response.status()
        );
    }
    let mut deep = vec![0x91_u8; 1_000_000];
    deep.push(0x01);
    let response = post(&server.api, "application/msgpack", deep)
        .send()
        .await
        .unwrap();
    assert!(response.status().is_client_error());
    let bomb = gzip(vec![b' '; 64 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024, "{}", bomb.len());
    let request = post(&server.api, "application/json", bomb).header("content-encoding", "gzip");
    refused(request, 413, "too-large", "a gzip bomb").await;
    let request = post(&server.api, "application/json", event).header("content-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 400, "no gzip at all");
    assert!(db.log().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_anywhere_stores_nothing() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let body = r#"[{"id":"é","topic":"a.b","data":{"k":[1,2,"x"]}},{"topic":"c"}]"#;
    let host = server.api.url.trim_start_matches("http://");
    for end in 0..body.len() {
        let mut request = format!(
            "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(&body.as_bytes()[..end]);
        let answer = raw::send(&server.api, &request).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{end}: {answer}"
        );
        // The same bytes as a whole body.
        let text = body.as_bytes()[..end].to_vec();
        refused(
            post(&server.api, "application/json", text),
            400,
            "malformed",
            &end.to_string(),
        )
        .await;
    }
    for junk in [
        &b"GET"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"POST /v1/events HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        &vec![b'x'; 100_000],
    ] {
        let answer = raw::send(&server.api, junk).await;
        assert!(
            !answer.contains(" 200 ") && !answer.contains(" 201 "),
            "{answer}"
        );
    }
    assert!(db.log().await.is_empty());
    server.api.append(&json!({"topic": "a"})).await;
    server.stop().await;
}
