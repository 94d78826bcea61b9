//! Tenants whose events speak of the same person.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::json_of;
use crate::support::reader::{Seen, Transport, Wanted, read};
use crate::support::token::WITH_TOKENS;
use crate::support::{Api, Server, TestDb};

/// Stands in everything that is the person's.
pub const PERSON: &str = "s3ntinel";

/// Servers of one log.
pub async fn servers(db: &TestDb) -> [Server; 2] {
    [
        Server::start_with(&db.url, WITH_TOKENS).await,
        Server::start_with(&db.url, WITH_TOKENS).await,
    ]
}

/// Events about the person, by it, and about others.
pub fn events() -> Value {
    json!([
        {"id": "before", "topic": "deal.won", "subject": "deal-1", "data": {"n": 1}},
        {"id": "s3ntinel-1", "topic": "person.seen", "subject": PERSON, "source": "s3ntinel-app", "region": "s3ntinel-land",
         "occurred_at": "2001-02-03T04:05:06Z", "gdpr": {"consent": true, "of": PERSON}, "data": {"name": PERSON}, "priority": "high"},
        {"id": "s3ntinel-2", "topic": "person.photo", "subject": PERSON, "data_base64": "czNudGluZWw=", "content_type": "image/s3ntinel"},
        {"id": "s3ntinel-3", "topic": "deal.lost", "subject": "deal-2", "source": PERSON, "data": {"n": 2}},
        {"id": "s3ntinel-4", "topic": "heart.rate", "source": PERSON, "data": {"name": PERSON}},
        {"id": "after", "topic": "deal.won", "subject": "deal-3", "data": {"n": 3}},
    ])
}

/// DELETE of a subject: status and answer.
pub async fn try_erase(admin: &Api, subject: &str) -> (StatusCode, Value) {
    let path = format!("/v1/subjects/{}", encoded(subject));
    json_of(admin.request(Method::DELETE, &path).send().await.unwrap()).await
}

/// Erases a subject, however many requests that takes; how many events were changed.
pub async fn erase(admin: &Api, subject: &str) -> u64 {
    let mut erased = 0;
    loop {
        let (status, answer) = try_erase(admin, subject).await;
        erased += answer["events"]
            .as_u64()
            .unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(answer["is_complete"], status == StatusCode::OK, "{answer}");
        if status == StatusCode::OK {
            return erased;
        }
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
}

/// As a segment of a path.
pub fn encoded(text: &str) -> String {
    let hex = data_encoding::HEXUPPER.encode(text.as_bytes());
    let pairs = hex.as_bytes().chunks(2);
    pairs.fold(String::new(), |path, pair| {
        path + "%" + std::str::from_utf8(pair).unwrap()
    })
}

/// All of a tenant's events, by this transport.
pub async fn all(api: &Api, transport: Transport) -> Vec<Value> {
    from(api, transport, "earliest").await.events
}

/// All after a cursor, the log's own included.
pub async fn from(api: &Api, transport: Transport, after: &str) -> Seen {
    let wanted = Wanted {
        topics: "*,tidewire.*",
        after: after.to_owned(),
        ..Wanted::default()
    };
    read(api, transport, &wanted).await
}

/// The word in any writing that an answer or a dump might use.
pub fn speaks_of(text: &str) -> bool {
    let hex = data_encoding::HEXLOWER.encode(PERSON.as_bytes());
    [PERSON, hex.as_str(), "czNudGluZW"]
        .iter()
        .any(|word| text.contains(word))
}
