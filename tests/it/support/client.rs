//! Clients over real sockets: HTTP, server-sent events, WebSocket.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request as ClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a close may take, frames that come before it included: longer than a server takes to stop, or two heartbeats.
const CLOSE_PATIENCE: Duration = Duration::from_mins(2);

/// A server's API.
#[derive(Debug, Clone)]
pub struct Api {
    /// `http://127.0.0.1:port`.
    pub url: String,
    http: reqwest::Client,
    token: Option<String>,
}

impl Api {
    /// The API at `url`, without a token.
    pub fn new(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.to_owned(),
            http: reqwest::Client::new(),
            token: None,
        }
    }

    /// The same API, whose server this authority has certified (PEM).
    pub fn trusting(&self, authority: &str) -> Self {
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([authority]);
        Self {
            http: client.build().unwrap(),
            ..self.clone()
        }
    }

    /// The same API with a token.
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// A request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// GET that must succeed; its JSON.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path).await;
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// GET; status and JSON.
    pub async fn try_get(&self, path: &str) -> (StatusCode, Value) {
        json_of(
            self.request(Method::GET, path)
                .timeout(PATIENCE)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// POST of events that must be stored; the answers.
    pub async fn append(&self, events: &Value) -> Vec<Value> {
        let (status, body) = self.try_append(events).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["events"].as_array().unwrap().clone()
    }

    /// POST of events; status and JSON.
    pub async fn try_append(&self, events: &Value) -> (StatusCode, Value) {
        json_of(
            self.request(Method::POST, "/v1/events")
                .json(events)
                .timeout(PATIENCE)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// The page after `after` (a cursor, `earliest` or `latest`), with more parameters.
    pub async fn page(&self, after: &str, more: &str) -> Value {
        self.get(&format!("/v1/events?after={after}{more}")).await
    }

    /// Follows by server-sent events.
    pub async fn sse(
        &self,
        query: &str,
        last_event_id: Option<&str>,
    ) -> Result<Sse, reqwest::Error> {
        let mut request = self
            .request(Method::GET, &format!("/v1/events?{query}"))
            .header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        Ok(Sse {
            response: request.send().await?,
            buffer: Vec::new(),
            searched: 0,
        })
    }

    /// The request that opens a WebSocket, with a subprotocol if one is given.
    pub fn ws_request(
        &self,
        protocol: Option<&str>,
    ) -> Result<ClientRequest, tokio_tungstenite::tungstenite::Error> {
        let url = format!("{}/v1/ws", self.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        if let Some(token) = &self.token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(protocol) = protocol {
            headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        Ok(request)
    }

    /// Opens a WebSocket and reads its welcome.
    pub async fn ws(&self) -> Ws {
        self.try_ws().await.expect("a WebSocket")
    }

    /// Opens a WebSocket and reads its welcome.
    pub async fn try_ws(&self) -> Result<Ws, tokio_tungstenite::tungstenite::Error> {
        let request = self.ws_request(None)?;
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        let mut ws = Ws { socket };
        match ws.next().await {
            Ok(Some(welcome)) => assert_eq!(welcome["type"], "welcome"),
            Ok(None) => return Err(tokio_tungstenite::tungstenite::Error::ConnectionClosed),
            Err(error) => return Err(error),
        }
        Ok(ws)
    }
}

/// Status and JSON of a response; null if it has no JSON.
pub async fn json_of(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

/// A stream of server-sent events.
pub struct Sse {
    /// The response, for its status and headers.
    pub response: Response,
    buffer: Vec<u8>,
    /// No message ends before this place of the buffer.
    searched: usize,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseMessage {
    /// `message` if it has no name.
    pub event: String,
    /// The cursor.
    pub id: Option<String>,
    /// One line.
    pub data: String,
}

impl Sse {
    /// The next message; `None` at the end; an error if the line breaks.
    pub async fn next(&mut self) -> Result<Option<SseMessage>, reqwest::Error> {
        loop {
            let rest = &self.buffer[self.searched..];
            if let Some(found) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let end = self.searched + found;
                self.searched = 0;
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(message) = parse(std::str::from_utf8(&block).unwrap()) {
                    return Ok(Some(message));
                }
                continue;
            }
            self.searched = self.buffer.len().saturating_sub(1);
            match tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("a message or a heartbeat")?
            {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The events of the next message that has some, and its cursor.
    pub async fn events(&mut self) -> Result<Option<(Vec<Value>, String)>, reqwest::Error> {
        while let Some(message) = self.next().await? {
            if message.event == "message" {
                return Ok(Some((
                    serde_json::from_str(&message.data).unwrap(),
                    message.id.unwrap(),
                )));
            }
        }
        Ok(None)
    }
}

/// `None` for a block without data: only an id or a retry.
fn parse(block: &str) -> Option<SseMessage> {
    let mut message = SseMessage {
        event: "message".into(),
        id: None,
        data: String::new(),
    };
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", text)) => message.event = text.into(),
            Some(("id", text)) => message.id = Some(text.into()),
            Some(("data", text)) => message.data = text.into(),
            _ => {}
        }
    }
    (!message.data.is_empty()).then_some(message)
}

/// A WebSocket.
pub struct Ws {
    /// The socket itself.
    pub socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Ws {
    /// Sends a frame.
    pub async fn send(&mut self, frame: Value) {
        self.socket
            .send(Message::Text(frame.to_string().into()))
            .await
            .unwrap();
    }

    /// Sends a frame to who may have closed by now; that is then told by what is read.
    pub async fn try_send(&mut self, frame: Value) {
        let _ = self
            .socket
            .send(Message::Text(frame.to_string().into()))
            .await;
    }

    /// Subscribes to `topics` after `after`, and reads the answer.
    pub async fn subscribe(&mut self, id: &str, topics: &[&str], after: &str) -> Value {
        self.send(json!({"type": "subscribe", "id": id, "topics": topics, "after": after}))
            .await;
        self.next().await.unwrap().expect("an answer")
    }

    /// The next frame; `None` when it is closed.
    pub async fn next(&mut self) -> Result<Option<Value>, tokio_tungstenite::tungstenite::Error> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .expect("a frame in time")
            {
                Some(Ok(Message::Text(text))) => {
                    return Ok(Some(serde_json::from_str(&text).unwrap()));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// The next frame with events; `None` when it is closed.
    pub async fn until_events(
        &mut self,
    ) -> Result<Option<Value>, tokio_tungstenite::tungstenite::Error> {
        loop {
            match self.next().await? {
                Some(frame) if frame["type"] != "events" => {}
                end_or_events => return Ok(end_or_events),
            }
        }
    }

    /// The code with which the server closes: within so long, whatever it sends before, and however often.
    pub async fn close_code(&mut self) -> u16 {
        let closing = async {
            loop {
                if let Err(code) = self.frame_or_close().await {
                    return code;
                }
            }
        };
        tokio::time::timeout(CLOSE_PATIENCE, closing)
            .await
            .expect("a close in time")
    }

    /// The next frame, or the code with which the server closes.
    pub async fn frame_or_close(&mut self) -> Result<Value, u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .expect("a frame or a close in time")
            {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.code.into()),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }

    /// Reads frames until one of this type.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap().expect("the socket is open");
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}
