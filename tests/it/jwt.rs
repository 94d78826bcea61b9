//! Tokens of an identity provider: which are let in, under which keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::keys::KeyPair;
use crate::support::token::in_seconds;
use crate::support::{Server, TestDb, eventually};

/// What a company's provider says of an agent.
fn claims(company: &str) -> Value {
    json!({
        "iss": "https://id.example", "aud": ["tidewire", "others"], "sub": "agent-1", "exp": in_seconds(600),
        "company_id": company, "role": "admin", "access": {"read": "deal.* agent.state.*", "write": ["deal.*"]},
    })
}

const NAMES: &[&str] = &[
    "--jwt-issuer",
    "https://id.example",
    "--jwt-audience",
    "tidewire",
    "--jwt-tenant-claim",
    "company_id",
    "--jwt-read-claim",
    "/access/read",
    "--jwt-write-claim",
    "/access/write",
];

/// The claims with some replaced, or left out where null.
fn changed(changes: &Value) -> Value {
    let mut claims = claims("acme");
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

async fn status(server: &Server, token: &str) -> (StatusCode, Value) {
    let api = server.api.with_token(token);
    api.try_append(&json!({"topic": "deal.won"})).await
}

async fn refused(server: &Server, token: &str, why: &str) {
    let (status, problem) = status(server, token).await;
    assert_eq!(status, 401, "{why}: {problem}");
    assert_eq!(problem["type"], "/problems/unauthenticated", "{why}");
}

#[tokio::test]
async fn each_kind_of_public_key_lets_its_own_tokens_in_and_no_others() {
    let db = TestDb::new().await;
    let (rsa, ec, ed) = (KeyPair::rsa(2048), KeyPair::ec(), KeyPair::ed());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let paths = [
        file("rsa.pem", &rsa.public_pem),
        file(
            "others.pem",
            &format!("Two keys:\n{}{}", ec.public_pem, ed.public_pem),
        ),
    ]
    .join(",");
    let mut arguments = vec!["--jwt-public-keys", &paths];
    arguments.extend(NAMES);
    let server = Server::start_with(&db.url, &arguments).await;
    for pair in [&rsa, &ec, &ed] {
        let (status, body) = status(&server, &pair.sign(Some("any"), &claims("acme"))).await;
        assert_eq!(status, 201, "{:?}: {body}", pair.algorithm);
    }
    let tenants = "SELECT count(*) FROM tidewire.events WHERE tenant = 'acme'";
    let tenants: i64 = db
        .connect()
        .await
        .query_one(tenants, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(tenants, 3, "by the claim that the settings name");

    // The public key, which everybody knows, as a secret.
    let confused = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims("acme"),
        &EncodingKey::from_secret(rsa.public_pem.as_bytes()),
    )
    .unwrap();
    let good = ec.sign(None, &claims("acme"));
    let [head, payload, _] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let unsigned = format!("{head}.{payload}.");
    let critical = ec.sign_critical(&claims("acme"));
    let wrong = [
        ("the public key as a secret", confused),
        ("alg none", none),
        ("without a signature", unsigned),
        ("what must be understood", critical),
        ("another's key", KeyPair::ec().sign(None, &claims("acme"))),
        (
            "another's RSA key",
            KeyPair::rsa(2048).sign(None, &claims("acme")),
        ),
    ];
    for (why, token) in wrong {
        refused(&server, &token, why).await;
    }
    assert_eq!(db.log().await.len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_let_in_for_what_its_claims_say_and_only_if_they_say_it() {
    let db = TestDb::new().await;
    let ec = KeyPair::ec();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, &ec.public_pem).unwrap();
    let path = path.display().to_string();
    let mut arguments = vec!["--jwt-public-keys", &path];
    arguments.extend(NAMES);
    let server = Server::start_with(&db.url, &arguments).await;
    for (why, changes) in [
        ("another issuer", json!({"iss": "https://id.example.com"})),
        ("no issuer", json!({"iss": null})),
        ("another audience", json!({"aud": "others"})),
        ("no audience", json!({"aud": null})),
        ("an audience that is no text", json!({"aud": 5})),
        (
            "an id that is neither text nor number",
            json!({"jti": ["a"]}),
        ),
        ("expired", json!({"exp": in_seconds(-60)})),
        ("no end", json!({"exp": null})),
        ("an end that is no time", json!({"exp": "never"})),
        ("not yet", json!({"nbf": in_seconds(60)})),
        ("no company", json!({"company_id": null})),
        ("a company that is no name", json!({"company_id": "a/b"})),
        ("no role", json!({"role": null})),
        ("a role that is none", json!({"role": "root"})),
        (
            "patterns that are none",
            json!({"access": {"read": "Deal", "write": []}}),
        ),
    ] {
        refused(&server, &ec.sign(None, &changed(&changes)), why).await;
    }
    assert_eq!(db.log().await.len(), 0);
    let granted = server.api.with_token(&ec.sign(None, &claims("acme")));
    let (status, problem) = granted
        .try_append(&json!({"topic": "agent.state.updated"}))
        .await;
    assert_eq!(status, 403, "it may read this, not write it: {problem}");
    let (status, _) = granted
        .try_get("/v1/events?topics=agent.state.*,deal.*")
        .await;
    assert_eq!(status, 200);
    let (status, _) = granted.try_get("/v1/events?topics=agent.command.*").await;
    assert_eq!(status, 403);
    server.stop().await;
}

/// An identity provider that publishes a key set, and counts how often it is asked.
struct Provider {
    url: String,
    keys: watch::Sender<Option<Value>>,
    asked: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Provider {
    async fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (sender, keys) = watch::channel(Some(keys));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = match &*keys.borrow() {
                    Some(keys) => {
                        let text = keys.to_string();
                        format!(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                            text.len()
                        )
                    }
                    None => "HTTP/1.1 503 Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            url,
            keys: sender,
            asked,
            _running: running,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_may_change_its_keys_and_may_be_away() {
    let db = TestDb::new().await;
    let (old, new, encrypting) = (KeyPair::rsa(2048), KeyPair::ed(), KeyPair::ec());
    let mut not_for_us = encrypting.jwk("encrypting");
    not_for_us["use"] = json!("enc");
    let unknown = json!({"kty": "AKP", "kid": "of tomorrow", "alg": "ML-DSA-44", "pub": "AA"});
    let secret = json!({"kty": "oct", "kid": "no secret", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"});
    let provider =
        Provider::start(json!({"keys": [unknown, secret, not_for_us, old.jwk("old")]})).await;
    let mut arguments = vec!["--jwks-url", &provider.url];
    arguments.extend(NAMES);
    let server = Server::start_with(&db.url, &arguments).await;
    let of_old = old.sign(Some("old"), &claims("acme"));
    assert_eq!(status(&server, &of_old).await.0, 201);
    let asked = provider.asked.load(Ordering::Relaxed);

    // Keys that nobody has: however many ask, the provider hears of it once in a while only.
    let mut strangers = JoinSet::new();
    for n in 0..200 {
        let token = new.sign(Some(&format!("unknown-{n}")), &claims("acme"));
        let api = server.api.with_token(&token);
        strangers.spawn(async move { api.try_append(&json!({"topic": "deal.won"})).await.0 });
    }
    for status in strangers.join_all().await {
        assert_eq!(status, 401);
    }
    let more = provider.asked.load(Ordering::Relaxed) - asked;
    assert!(more <= 2, "asked {more} times");
    for token in [
        encrypting.sign(Some("encrypting"), &claims("acme")),
        jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims("acme"),
            &EncodingKey::from_secret(b"secret-secret-secret-secret-secret"),
        )
        .unwrap(),
    ] {
        assert_eq!(status(&server, &token).await.0, 401);
    }

    // A new key is taken as soon as a token names it, without a restart; an old one ends when it is no longer published.
    provider
        .keys
        .send_replace(Some(json!({"keys": [new.jwk("new")]})));
    let of_new = new.sign(Some("new"), &claims("acme"));
    while status(&server, &of_new).await.0 != 201 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&server, &of_old).await.0, 401);

    // While the provider is away, what it said last holds.
    provider.keys.send_replace(None);
    assert_eq!(status(&server, &of_old).await.0, 401);
    assert_eq!(status(&server, &of_new).await.0, 201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_turns_nobody_away_for_good() {
    let db = TestDb::new().await;
    let pair = KeyPair::ed();
    let set = json!({"keys": [pair.jwk("one")]});
    let provider = Provider::start(set.clone()).await;
    provider.keys.send_replace(None);
    let mut arguments = vec!["--jwks-url", &provider.url];
    arguments.extend(NAMES);
    let server = Server::start_with(&db.url, &arguments).await;
    let token = pair.sign(Some("one"), &claims("acme"));
    let (before, problem) = status(&server, &token).await;
    assert_eq!(before, 503, "{problem}");
    let stream = server.api.with_token(&token);
    let mut stream = stream
        .sse("after=latest&topics=deal.*", Some(""))
        .await
        .unwrap();
    assert!(
        stream.next().await.unwrap().is_none(),
        "no final error: it comes back"
    );
    // A secret is never published: that is final.
    let secret = EncodingKey::from_secret(b"secret-secret-secret-secret-secret");
    let hs = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims("acme"), &secret);
    assert_eq!(status(&server, &hs.unwrap()).await.0, 401);
    provider.keys.send_replace(Some(set));
    eventually(Duration::from_secs(20), || async {
        let (status, problem) = status(&server, &token).await;
        (status == 201).then_some(()).ok_or(problem)
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_withdraws_all_its_keys_lets_nobody_in() {
    let db = TestDb::new().await;
    let (pair, other) = (KeyPair::ed(), KeyPair::ed());
    let provider = Provider::start(json!({"keys": [pair.jwk("one")]})).await;
    let mut arguments = vec!["--jwks-url", &provider.url];
    arguments.extend(NAMES);
    let server = Server::start_with(&db.url, &arguments).await;
    let token = pair.sign(Some("one"), &claims("acme"));
    assert_eq!(status(&server, &token).await.0, 201);
    provider.keys.send_replace(Some(json!({"keys": []})));
    // Asked for at the latest after the interval; a token of a key that is not known makes it sooner.
    let unknown = other.sign(Some("other"), &claims("acme"));
    eventually(Duration::from_secs(20), || async {
        assert_eq!(status(&server, &unknown).await.0, 401);
        let (status, answer) = status(&server, &token).await;
        (status == 401).then_some(()).ok_or(answer)
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_ends_nobody_elses_question_for_a_key() {
    async fn asked(listener: &TcpListener) -> tokio::net::TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert_ne!(stream.read(&mut head).await.unwrap(), 0);
        stream
    }
    let db = TestDb::new().await;
    let pair = KeyPair::ed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let mut arguments = vec!["--jwks-url", &url];
    arguments.extend(NAMES);
    let (server, first) = tokio::join!(Server::start_with(&db.url, &arguments), asked(&listener));
    drop(first);
    let token = pair.sign(Some("one"), &claims("acme"));
    let mut impatient = JoinSet::new();
    let api = server.api.with_token(&token);
    impatient.spawn(async move {
        loop {
            api.try_append(&json!({"topic": "deal.won"})).await;
        }
    });
    let mut provider = asked(&listener).await;
    impatient.shutdown().await;
    let patient = status(&server, &token);
    let answer = async {
        let set = json!({"keys": [pair.jwk("one")]}).to_string();
        let length = set.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{set}"
        );
        provider.write_all(answer.as_bytes()).await.unwrap();
    };
    let ((status, problem), ()) = tokio::join!(patient, answer);
    assert_eq!(status, 201, "{problem}");
    server.stop().await;
}
