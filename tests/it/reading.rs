//! One table of scenarios, read through every transport.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::reader::{Seen, Transport, Wanted, read};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Server, TestDb};

fn ids(seen: &Seen) -> Vec<&str> {
    let ids = seen.events.iter().map(|e| e["id"].as_str().unwrap());
    ids.collect()
}

fn event(id: usize, topic: &str, subject: Option<&str>) -> Value {
    let mut event = json!({"id": format!("e{id}"), "topic": topic, "data": {"n": id}});
    if let Some(subject) = subject {
        event["subject"] = subject.into();
    }
    event
}

/// Six events, `e1` to `e6`; returns their cursors.
async fn six(server: &Server) -> Vec<String> {
    let events = json!([
        event(1, "deal.stage.won", Some("deal-1")),
        event(2, "deal.stage.lost", Some("deal-2")),
        event(3, "agent.task.failed", None),
        event(4, "build.task.failed", Some("deal-1")),
        event(5, "deal", None),
        event(6, "deal.stage.won.twice", Some("ünï/日本")),
    ]);
    let answers = server.api.append(&events).await;
    let cursors: Vec<String> = answers
        .iter()
        .map(|answer| answer["cursor"].as_str().unwrap().to_owned())
        .collect();
    server
        .api
        .page("earliest", &format!("&at_least={}", cursors[5]))
        .await;
    cursors
}

#[tokio::test]
async fn every_transport_reads_the_same() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let cursors = six(&server).await;
    let at = |index: usize| cursors[index].clone();
    let from = |topics, subjects, after: String| Wanted {
        topics,
        subjects,
        after,
    };
    let earliest = || "earliest".to_owned();
    let all: &[usize] = &[1, 2, 3, 4, 5, 6];
    let table: Vec<(Wanted, &[usize])> = vec![
        (from("", "", earliest()), all),
        (from("*", "", earliest()), all),
        (from("", "", "latest".into()), &[]),
        (from("", "", at(2)), &[4, 5, 6]),
        (from("", "", at(5)), &[]),
        (from("deal.stage.won", "", earliest()), &[1]),
        (from("deal.stage.*", "", earliest()), &[1, 2, 6]),
        (from("deal.*", "", earliest()), &[1, 2, 6]),
        (from("*.task.failed", "", earliest()), &[3, 4]),
        (from("deal,agent.*", "", at(1)), &[3, 5]),
        (from("", "deal-1", earliest()), &[1, 4]),
        (from("", "deal-1,ünï/日本", earliest()), &[1, 4, 6]),
        (from("deal.*", "deal-1", earliest()), &[1]),
        (from("nothing.*", "", earliest()), &[]),
        (from("", "nobody", at(0)), &[]),
    ];
    for (wanted, expected) in &table {
        let expected: Vec<String> = expected.iter().map(|id| format!("e{id}")).collect();
        for transport in Transport::ALL {
            let seen = read(&server.api, transport, wanted).await;
            assert_eq!(ids(&seen), expected, "{transport:?} {wanted:?}");
            assert!(
                seen.cursor >= cursors[5],
                "{transport:?} {wanted:?}: the cursor moves past what did not match"
            );
        }
    }
    // A cursor is valid on every transport, for every filter.
    for transport in Transport::ALL {
        let seen = read(&server.api, transport, &from("nothing.*", "", earliest())).await;
        server
            .api
            .append(&json!({"id": format!("{transport:?}"), "topic": "next"}))
            .await;
        for other in Transport::ALL {
            let wanted = from("next", "", seen.cursor.clone());
            let mut next = read(&server.api, other, &wanted).await;
            if next.events.is_empty() {
                next = read(&server.api, Transport::Poll, &wanted).await;
            }
            assert_eq!(ids(&next), [format!("{transport:?}")], "{other:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_written_is_what_is_read() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let bytes = base64::engine::general_purpose::STANDARD.encode([0_u8, 255, 1, 254, 10, 13]);
    let events = json!([
        {"id": "ünïcødé 😀 \" \\", "topic": "a", "subject": "日本語/\u{2028}", "data": {"😀": "\u{7f} \u{2029} \n\r\t", "n": [1, -0.5, null, true]}},
        {"id": "bytes", "topic": "b", "data_base64": bytes, "content_type": "application/x-thing; v=1"},
        {"id": "critical", "topic": "c", "priority": "critical"},
        {"id": "high", "topic": "c", "priority": "high", "data": "text"},
        {"id": "normal", "topic": "c", "priority": "normal", "data": 9_007_199_254_740_993_i64},
        {"id": "low", "topic": "c", "priority": "low", "data": [], "region": "eu-west-1", "source": "me",
         "occurred_at": "2020-02-29T12:00:00.123Z", "gdpr": {"consent": true, "basis": "contract"},
         "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ]);
    let answers = server.api.append(&events).await;
    let last = answers[5]["cursor"].as_str().unwrap();
    server
        .api
        .page("earliest", &format!("&at_least={last}"))
        .await;
    let wanted = Wanted {
        after: "earliest".into(),
        ..Wanted::default()
    };
    for transport in Transport::ALL {
        let seen = read(&server.api, transport, &wanted).await;
        assert_eq!(seen.events.len(), 6, "{transport:?}");
        for (written, read) in events.as_array().unwrap().iter().zip(&seen.events) {
            for (name, value) in written.as_object().unwrap() {
                assert_eq!(read[name], *value, "{transport:?} {name}");
            }
            let absent = ["subject", "region", "gdpr", "trace", "content_type"];
            for name in absent {
                assert_eq!(
                    written.get(name).is_some(),
                    read.get(name).is_some(),
                    "{transport:?}: absent fields are left out"
                );
            }
            assert_eq!(
                read["priority"],
                *written.get("priority").unwrap_or(&json!("normal"))
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_window_has_lost_is_read_from_history() {
    let db = TestDb::new().await;
    db.connect()
        .await
        .batch_execute(
            "INSERT INTO tidewire.events (tenant, id, topic, subject)
             SELECT 'dev', 'n' || i, CASE WHEN i % 500 = 0 THEN 'rare' ELSE 'often' END, 's' || i % 3
               FROM generate_series(1, 7000) AS i",
        )
        .await
        .unwrap();
    let server = Server::start_with(&db.url, &["--window-events", "2000"]).await;
    let log = db.log().await;
    for transport in Transport::ALL {
        let mut wanted = Wanted {
            after: "earliest".into(),
            ..Wanted::default()
        };
        let seen = read(&server.api, transport, &wanted).await;
        let all: Vec<&str> = log.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids(&seen), all, "{transport:?}");
        let middle = seen.events[2_999]["cursor"].as_str().unwrap();
        wanted.after = middle.to_owned();
        assert_eq!(
            ids(&read(&server.api, transport, &wanted).await),
            all[3_000..]
        );
        wanted.topics = "rare";
        let rare = read(&server.api, transport, &wanted).await;
        assert_eq!(rare.events.len(), 8, "{transport:?}");
        wanted.subjects = "s0";
        let rarer = read(&server.api, transport, &wanted).await;
        assert_eq!(ids(&rarer), ["n4500", "n6000"], "{transport:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn two_tenants_see_nothing_of_each_other() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, rival) = (
        server.api.with_token(&token("acme")),
        server.api.with_token(&token("rival")),
    );
    let mut cursors = Vec::new();
    for round in 0..3 {
        for (api, name) in [(&acme, "acme"), (&rival, "rival")] {
            let id = format!("{name}-{round}");
            let answers = api
                .append(&json!([{"id": id, "topic": "a", "subject": "s"}, {"id": "same", "topic": "a", "subject": "s"}]))
                .await;
            assert_eq!(answers[1]["duplicate"], round > 0);
            cursors.push(answers[0]["cursor"].as_str().unwrap().to_owned());
        }
    }
    acme.page("earliest", &format!("&at_least={}", cursors[5]))
        .await;
    for transport in Transport::ALL {
        for (api, name) in [(&acme, "acme"), (&rival, "rival")] {
            let mut wanted = Wanted {
                after: "earliest".into(),
                ..Wanted::default()
            };
            let own = ["0", "same", "1", "2"].map(|id| match id {
                "same" => id.to_owned(),
                round => format!("{name}-{round}"),
            });
            assert_eq!(
                ids(&read(api, transport, &wanted).await),
                own,
                "{transport:?}"
            );
            // The other's cursor is a place in the log, and tells nothing of what lies around it.
            for cursor in &cursors {
                wanted.after.clone_from(cursor);
                let seen = read(api, transport, &wanted).await;
                assert!(
                    ids(&seen).iter().all(|id| own.iter().any(|o| o == id)),
                    "{transport:?}"
                );
            }
        }
    }
    let (status, problem) = acme
        .try_append(&json!({"topic": "a", "subject": "only-rivals", "expect": cursors[1]}))
        .await;
    assert_eq!(
        (status.as_u16(), &problem["current_cursor"]),
        (409, &json!("none"))
    );
    server.stop().await;
}
