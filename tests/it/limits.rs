//! How much a tenant and a credential may ask: told, slowed down or closed, on every transport, and nobody else notices.

pub mod administration;
mod places;
mod rates;
mod reads;
mod shown;
mod uploads;

use std::time::Duration;

use reqwest::Response;
use tidewire::access::Claims;

use crate::support::token::{WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb};

/// A server that demands tokens, with these limits.
async fn server(db: &TestDb, limits: &[&str]) -> Server {
    Server::start_with(&db.url, &[WITH_TOKENS, limits].concat()).await
}

/// A caller of this tenant, by a credential of this name.
fn caller(server: &Server, tenant: &str, name: &str) -> Api {
    let token = issue(&Claims {
        sub: name.into(),
        ..claims(tenant)
    });
    server.api.with_token(&token)
}

/// Waits as long as the answer says, and no longer.
async fn wait_as_told(answer: &Response) {
    let seconds = header(answer, "retry-after").parse().unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    tokio::time::sleep_until(until).await;
}

fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    let value = value.unwrap_or_else(|| panic!("{name} of {answer:?}"));
    value.to_str().unwrap().to_owned()
}

/// A list of structured fields (RFC 9651) whose members are strings with parameters: name, and number by parameter.
fn structured(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let member = |member: &str| {
        let mut parts = member.split(';');
        let name = parts.next().unwrap();
        let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
        let parameters = parts.map(|part| {
            let (key, value) = part.split_once('=').unwrap();
            assert!(key.bytes().all(|b| b.is_ascii_lowercase()), "{text}");
            let is_number = value.bytes().all(|b| b.is_ascii_digit()) && value.len() <= 15;
            assert!(is_number || value.starts_with('"'), "{text}");
            (key.to_owned(), value.to_owned())
        });
        (name.expect("a string").to_owned(), parameters.collect())
    };
    text.split(", ").map(member).collect()
}
