//! TLS between clients and the server: every transport over it, and those who do not speak it.

use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidewire::http::serve::Patience;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::authority::{Authority, Issued, shown};
use crate::support::token::{SECRET, token};
use crate::support::{Api, Process, Server, TestDb, eventually, raw};

/// By which the server is reached.
pub const NAMES: &[&str] = &["127.0.0.1", "localhost"];
/// For whatever is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Patience = Patience {
    head: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    body: Duration::from_secs(3),
    message: Duration::from_secs(3),
};

/// An authority, a certificate of it, and the words that make a server use it.
pub struct Setting {
    /// Where the server stores.
    pub db: TestDb,
    /// Who has certified it.
    pub authority: Authority,
    /// Its first certificate.
    pub issued: Issued,
    /// With the files.
    pub folder: TempDir,
    /// For `tidewire serve`.
    pub words: Vec<String>,
}

impl Setting {
    /// With everything valid.
    pub async fn new() -> Self {
        let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
        let issued = authority.issue(NAMES);
        let (certificate, key) = issued.write(folder.path());
        let path = |path: &Path| path.display().to_string();
        let words = vec![
            "--tls-cert".to_owned(),
            path(&certificate),
            "--tls-key".to_owned(),
            path(&key),
        ];
        Self {
            db: TestDb::new().await,
            authority,
            issued,
            folder,
            words,
        }
    }

    /// A server in this process.
    pub async fn server(&self, more: &[&str], patience: Patience) -> Server {
        let words = self
            .words
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied());
        let words: Vec<_> = words.collect();
        let mut server = Server::start_patient(&self.db.url, &words, patience).await;
        server.api = server.api.trusting(&self.authority.pem);
        server
    }

    /// The real program, and where it logs.
    pub async fn process(&self) -> (Process, Api) {
        let log = std::fs::File::create(self.log()).unwrap();
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        let process = Process::start_logging(&self.db.url, &words, log).await;
        let api = process.api.trusting(&self.authority.pem);
        (process, api)
    }

    /// The log of that program.
    pub fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    /// Waits for a line in the log.
    pub async fn told(&self, line: &str) {
        eventually(PATIENCE, async || {
            let log = std::fs::read_to_string(self.log()).unwrap();
            if log.contains(line) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// The certificate that a new connection is shown.
    pub async fn shown(&self, api: &Api, certificate: &Issued) -> bool {
        certificate.is(&shown(&self.authority.connect(address(api), &[]).await))
    }
}

fn address(api: &Api) -> &str {
    api.url.strip_prefix("https://").unwrap()
}

/// Reads until the server ends the connection.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A cut counts as an end.
    let _ = read.expect("the connection ends");
    answer
}

#[tokio::test]
async fn pages_streams_and_the_page_for_people() {
    let setting = Setting::new().await;
    let server = setting.server(&["--jwt-secret", SECRET], SHORT).await;
    let api = server.api.with_token(&token("acme"));
    let mut stream = api.sse("topics=*&after=earliest", None).await.unwrap();
    api.append(&json!({"id": "one", "topic": "a.b"})).await;
    let (events, _) = stream.events().await.unwrap().unwrap();
    assert_eq!(events[0]["id"], "one");
    assert_eq!(api.page("earliest", "").await["events"][0]["id"], "one");
    for (path, status) in [("/", 200), ("/livez", 200), ("/v1/nothing", 404)] {
        let answer = api.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(
            answer.headers()["strict-transport-security"],
            "max-age=31536000"
        );
        let text = answer.text().await.unwrap();
        assert_eq!(
            path == "/",
            text.contains(&format!("curl -s {}/v1/events", api.url)),
            "{text}"
        );
    }
    server.stop().await;
    let plain = Server::start(&setting.db).await;
    let answer = plain
        .api
        .request(Method::GET, "/livez")
        .send()
        .await
        .unwrap();
    assert!(!answer.headers().contains_key("strict-transport-security"));
    plain.stop().await;
}

#[tokio::test]
async fn http2_is_spoken_with_who_offers_it() {
    let setting = Setting::new().await;
    let server = setting.server(&[], SHORT).await;
    for (offered, taken) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = setting
            .authority
            .connect(address(&server.api), offered)
            .await;
        let seen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(seen.as_deref(), taken.map(str::as_bytes));
    }
    let stream = setting
        .authority
        .connect(address(&server.api), &["h2"])
        .await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    let request = axum::http::Request::get(format!("{}/livez", server.api.url)).body(());
    let (answer, _) = client.send_request(request.unwrap(), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (axum::http::StatusCode::OK, axum::http::Version::HTTP_2)
    );
    assert_eq!(
        answer.headers()["strict-transport-security"],
        "max-age=31536000"
    );
    server.stop().await;
}

/// Opens a WebSocket with an origin; its first frame.
async fn open(setting: &Setting, api: &Api, origin: Option<&str>) -> Result<Value, Error> {
    let mut request = api.ws_request(None)?;
    if let Some(origin) = origin {
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
    }
    let stream = setting.authority.connect(address(api), &["http/1.1"]).await;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let subscribe = json!({"type": "subscribe", "id": "s", "topics": ["*"], "after": "earliest"});
    socket
        .send(Message::Text(subscribe.to_string().into()))
        .await?;
    loop {
        let frame = tokio::time::timeout(PATIENCE, socket.next()).await;
        if let Message::Text(text) = frame.expect("a frame").expect("open")? {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "events" {
                return Ok(frame);
            }
        }
    }
}

#[tokio::test]
async fn websockets_from_its_own_pages_and_no_others() {
    let setting = Setting::new().await;
    let server = setting.server(&["--jwt-secret", SECRET], SHORT).await;
    let api = server.api.with_token(&token("acme"));
    api.append(&json!({"id": "one", "topic": "a.b"})).await;
    let plain = api.url.replacen("https", "http", 1);
    for (origin, is_allowed) in [
        (None, true),
        (Some(api.url.as_str()), true),
        // Whoever sits on the way could have written that page.
        (Some(plain.as_str()), false),
        (Some("https://elsewhere.example"), false),
    ] {
        match open(&setting, &api, origin).await {
            Ok(frame) => {
                assert!(is_allowed, "{origin:?}");
                assert_eq!(frame["events"][0]["id"], "one");
            }
            Err(Error::Http(answer)) => {
                assert!(!is_allowed && answer.status() == 403, "{origin:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_gets_nothing() {
    let setting = Setting::new().await;
    let server = setting.server(&[], SHORT).await;
    for request in [
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = raw::connect(&server.api).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        // At most an alert of TLS.
        assert!(
            answer.len() <= 7 && answer.first().is_none_or(|kind| *kind == 21),
            "{answer:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_and_holds_up_nobody() {
    let setting = Setting::new().await;
    let server = setting.server(&[], SHORT).await;
    // Nothing, and the beginning of a message of 512 bytes that never comes.
    let mut silent = Vec::new();
    for index in 0..100 {
        let mut stream = raw::connect(&server.api).await;
        if index % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    server.api.append(&json!({"topic": "a.b"})).await;
    for stream in &mut silent {
        assert!(read_to_end(stream).await.is_empty());
    }
    // After the handshake it is as without TLS: who then says nothing is cut as well.
    let mut stream = setting.authority.connect(address(&server.api), &[]).await;
    assert!(read_to_end(&mut stream).await.is_empty());
    // And one that comes a byte at a time, which is never idle.
    let mut stream = raw::connect(&server.api).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let trickle = async {
        stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        while stream.write_all(&[1]).await.is_ok() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle)
        .await
        .expect("it is cut");
    server.stop().await;
}

#[tokio::test]
async fn who_takes_nothing_is_cut() {
    let setting = Setting::new().await;
    let server = setting.server(&[], SHORT).await;
    let data = "x".repeat(200_000);
    for _ in 0..20 {
        let event = json!({"topic": "a.b", "data": data});
        server.api.append(&json!([event, event])).await;
    }
    for path in [
        "/v1/events?after=earliest&limit=1000",
        "/v1/events?topics=*&after=earliest",
    ] {
        let mut stream = setting.authority.connect(address(&server.api), &[]).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // Not read until the server has cut it: what is then there is not all.
        let socket = stream.get_ref().0;
        eventually(PATIENCE, async || connection_state(socket)).await;
    }
    server.stop().await;
}

/// `Ok` once the other side has ended the connection.
fn connection_state(socket: &TcpStream) -> Result<(), String> {
    let ours = socket.local_addr().unwrap();
    let theirs = socket.peer_addr().unwrap();
    let hex = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // Of the server's end: local address, remote address, state.
    let line = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = line.into_iter().find(|cells| {
        cells.len() > 3 && cells[1].ends_with(&hex(theirs)) && cells[2].ends_with(&hex(ours))
    });
    match line {
        // 01: established.
        Some(cells) if cells[3] == "01" => Err(cells.join(" ")),
        _ => Ok(()),
    }
}
