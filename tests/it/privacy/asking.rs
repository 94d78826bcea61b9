//! Who may have a subject erased, and how it may be called.

use serde_json::json;
use tidewire::access::{Claims, Role};

use super::fixture::{PERSON, all, encoded, erase, events, try_erase};
use crate::support::credentials::admin;
use crate::support::reader::Transport;
use crate::support::token::{WITH_TOKENS, claims, issue};
use crate::support::{Server, TestDb};

#[tokio::test]
async fn only_administrators_of_the_tenant_erase_and_what_they_erase_is_its_own() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    acme.append(&events()).await;
    let before = all(&acme, Transport::Pages).await;
    let of = |claims: Claims| server.api.with_token(&issue(&claims));
    for role in [Role::Agent, Role::Dashboard, Role::Analyst] {
        let (status, _) = try_erase(
            &of(Claims {
                role,
                ..claims("acme")
            }),
            PERSON,
        )
        .await;
        assert_eq!(status, 403, "{role:?}");
    }
    let narrow = of(Claims {
        write: vec!["deal.*".into()],
        ..claims("acme")
    });
    let (status, problem) = try_erase(&narrow, PERSON).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (403, &json!("/problems/forbidden-topic"))
    );
    assert_eq!(try_erase(&server.api, PERSON).await.0, 401);
    assert_eq!(erase(&beta, PERSON).await, 0, "it has none");
    assert_eq!(all(&acme, Transport::Pages).await, before);
    assert_eq!(erase(&acme, "nobody").await, 0);
    server.stop().await;
}

#[tokio::test]
async fn whatever_a_subject_is_called_it_is_the_one_that_is_erased() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let long = "ä".repeat(127);
    let names = [
        "a/b",
        "..",
        ".",
        "%2F",
        "a%",
        "?x=1",
        "#",
        "'; DROP TABLE x --",
        "\"",
        "\\",
        "名前",
        " ",
        "a b",
        "+",
        "*",
        "{subject}",
        &long,
        "e\u{301}",
        "é",
    ];
    for name in names {
        acme.append(&json!([{"topic": "a", "subject": name, "data": "theirs"}, {"topic": "a", "subject": format!("{name}."), "data": 1}]))
            .await;
    }
    for (at, name) in names.iter().enumerate() {
        if *name == "." || *name == ".." {
            continue; // clients resolve these within a path, in any writing
        }
        assert_eq!(erase(&acme, name).await, 1, "{at}: {name:?}");
        assert_eq!(erase(&acme, name).await, 0, "{name:?}");
    }
    let left = "SELECT count(*) FROM tidewire.events WHERE data = '\"theirs\"'";
    let left: i64 = db
        .connect()
        .await
        .query_one(left, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 2);
    for (bad, status) in [
        (encoded(&"x".repeat(256)), 400),
        (encoded("a\nb"), 400),
        ("%FF%FE".to_owned(), 400),
        (String::new(), 404),
        ("a/b".to_owned(), 404),
    ] {
        let path = format!("/v1/subjects/{bad}");
        let answer = acme
            .request(reqwest::Method::DELETE, &path)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{bad}");
    }
    server.stop().await;
}
