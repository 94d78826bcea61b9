//! Readers of the soak: each resumes from its own cursor, again and again, and must have everything once at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire::event::digest::IdsDigest;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::soak::Soak;
use crate::wire::{Http, Ws};

/// How long a reader stays before it leaves and resumes.
const LIFE: Duration = Duration::from_secs(5);
/// What a slow one rests after each frame.
const REST: Duration = Duration::from_millis(300);
/// A life that takes so much longer has hung.
const STUCK: Duration = Duration::from_secs(10);
/// How long readers may take to get the rest.
const SETTLE: Duration = Duration::from_secs(30);
/// How long a stream may be silent at the end until it has everything.
const QUIET: Duration = Duration::from_secs(2);

/// How a reader reads.
#[derive(Clone, Copy)]
pub enum Kind {
    WebSocket,
    /// A socket that rests after each frame.
    Slow,
    Sse,
    LongPoll,
}

impl Kind {
    /// Those of a soak.
    pub fn all() -> [Self; 10] {
        use Kind::{LongPoll, Slow, Sse, WebSocket};
        [
            WebSocket, WebSocket, WebSocket, Slow, Slow, Sse, Sse, Sse, LongPoll, LongPoll,
        ]
    }

    const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "socket",
            Self::Slow => "slow socket",
            Self::Sse => "stream",
            Self::LongPoll => "long-poll",
        }
    }
}

/// What a reader got.
#[derive(Default)]
pub struct Got {
    pub name: &'static str,
    pub digest: IdsDigest,
    /// Of the first reader alone.
    pub ids: Vec<String>,
    /// Events that came behind a later one.
    pub misplaced: u64,
    /// Connections.
    pub lives: u64,
    /// Of them, those in which it waited without end.
    pub stuck: u64,
    cursor: String,
    keeps_ids: bool,
}

impl Got {
    /// Takes in a page, and only then its cursor.
    fn take(&mut self, events: &[Value], cursor: &str) {
        for event in events {
            let (id, at) = (
                event["id"].as_str().unwrap(),
                event["cursor"].as_str().unwrap(),
            );
            self.digest.add(id);
            // Cursors of one life order as the log does.
            self.misplaced += u64::from(self.cursor != "earliest" && at <= self.cursor.as_str());
            at.clone_into(&mut self.cursor);
            if self.keeps_ids {
                self.ids.push(id.to_owned());
            }
        }
        cursor.clone_into(&mut self.cursor);
    }
}

/// Reads until it is over, and then what is left.
pub async fn run(soak: Arc<Soak>, kind: Kind, number: usize) -> Got {
    let mut got = Got {
        name: kind.name(),
        cursor: "earliest".into(),
        keeps_ids: number == 0,
        ..Got::default()
    };
    let mut over_since = None;
    loop {
        let (was_over, before) = (soak.is_over(), got.digest.count);
        let life = if was_over { QUIET } else { LIFE };
        got.lives += 1;
        let until = Instant::now() + life;
        let living = async {
            match kind {
                Kind::WebSocket => socket(&soak, &mut got, until, Duration::ZERO).await,
                Kind::Slow => {
                    let rest = if was_over { Duration::ZERO } else { REST };
                    socket(&soak, &mut got, until, rest).await;
                }
                Kind::Sse => stream(&soak.address, &mut got, until).await,
                Kind::LongPoll => pages(&soak.address, &mut got, until).await,
            }
        };
        let has_ended = tokio::time::timeout(life + STUCK, living).await.is_ok();
        got.stuck += u64::from(!has_ended);
        if number == 0 {
            got.cursor.clone_into(&mut soak.cursor.lock().unwrap());
        }
        // A whole life after the last append, and nothing came in it; or it takes too long.
        let over = over_since.get_or_insert_with(Instant::now);
        if was_over && (got.digest.count == before || over.elapsed() > SETTLE) {
            return got;
        }
        if !was_over {
            over_since = None;
        }
    }
}

async fn socket(soak: &Soak, got: &mut Got, until: Instant, rest: Duration) {
    let mut ws = Ws::connect(&soak.address).await;
    ws.subscribe("soak.*", &got.cursor).await;
    // Abandoned in the middle of a frame, as by a client that dies: what it has not counted it gets again.
    while let Ok(frame) = tokio::time::timeout_at(until.into(), ws.next()).await {
        if frame.starts_with(b"{\"type\":\"events\"") {
            let page: Value = serde_json::from_slice(frame).unwrap();
            got.take(
                page["events"].as_array().unwrap(),
                page["cursor"].as_str().unwrap(),
            );
        }
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

async fn open_stream(address: &str, cursor: &str) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let request = format!(
        "GET /v1/events?topics=soak.*&after={cursor} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n"
    );
    stream
        .get_mut()
        .write_all(request.as_bytes())
        .await
        .unwrap();
    stream
}

/// Opens a stream, gets one message, and leaves.
pub async fn stream_once(address: &str, cursor: &str) {
    let mut stream = open_stream(address, cursor).await;
    let mut line = String::new();
    while !line.starts_with("data: [") {
        line.clear();
        assert!(
            stream.read_line(&mut line).await.unwrap() > 0,
            "the stream ended"
        );
    }
}

/// Lines of data and of ids; what frames the chunks of the transfer is passed over.
async fn stream(address: &str, got: &mut Got, until: Instant) {
    let mut stream = open_stream(address, &got.cursor).await;
    let (mut line, mut id) = (String::new(), String::new());
    while let Ok(read) = tokio::time::timeout_at(until.into(), stream.read_line(&mut line)).await {
        assert!(read.unwrap() > 0, "the stream ended");
        if let Some(cursor) = line.strip_prefix("id: ") {
            cursor.trim().clone_into(&mut id);
        } else if let Some(data) = line.strip_prefix("data: [") {
            let events: Vec<Value> = serde_json::from_str(&format!("[{data}")).unwrap();
            got.take(&events, &id);
        }
        line.clear();
    }
}

async fn pages(address: &str, got: &mut Got, until: Instant) {
    let mut http = Http::connect(address).await;
    while Instant::now() < until {
        let path = format!(
            "/v1/events?topics=soak.*&after={}&wait=1&limit=1000",
            got.cursor
        );
        let (status, body) = http.send(&Http::get(address, &path)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let page: Value = serde_json::from_slice(&body).unwrap();
        got.take(
            page["events"].as_array().unwrap(),
            page["cursor"].as_str().unwrap(),
        );
    }
}

/// Reads history again and again: a few pages from the beginning of the log, which the window no longer holds.
pub async fn history(soak: Arc<Soak>) {
    let mut http = Http::connect(&soak.address).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    while !soak.is_over() {
        let mut after = "earliest".to_owned();
        for _ in 0..5 {
            ticks.tick().await;
            let path = format!("/v1/events?topics=soak.*&after={after}&limit=500");
            let (status, body) = http.send(&Http::get(&soak.address, &path)).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            let page: Value = serde_json::from_slice(&body).unwrap();
            page["cursor"].as_str().unwrap().clone_into(&mut after);
        }
    }
}
