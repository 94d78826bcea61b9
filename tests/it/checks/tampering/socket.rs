//! The proxy's way for sockets: frame by frame.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::harm::{Doing, Harm};

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Whether a request wants one.
pub fn is_asked_for(request: &Request) -> bool {
    request.headers().contains_key("sec-websocket-key")
}

/// Opens one at the server, and passes frames on.
pub async fn forward(
    upstream: &str,
    (harm, is_told_alone): (Option<Harm>, bool),
    request: Request,
) -> Response {
    let (mut parts, _) = request.into_parts();
    let url = upstream.replacen("http", "ws", 1) + &parts.uri.to_string();
    let mut asked = url.into_client_request().unwrap();
    for name in ["authorization", "sec-websocket-protocol"] {
        if let Some(value) = parts.headers.get(name) {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    let opened = match connect_async(asked).await {
        Ok((opened, _)) => opened,
        Err(Error::Http(refused)) => return refused.status().into_response(),
        Err(error) => panic!("{error}"),
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.unwrap().protocols(["tidewire.v1.json"]);
    upgrade.on_upgrade(move |client| carry(client, opened, Doing::new(harm), is_told_alone))
}

/// Until either ends. `is_told_alone`: appends are acknowledged, and not passed on.
async fn carry(
    mut client: WebSocket,
    mut upstream: Upstream,
    mut doing: Doing,
    is_told_alone: bool,
) {
    let mut end = Value::Null;
    // The welcome, before anything that is asked.
    if let Some(Ok(tungstenite::Message::Text(text))) = upstream.next().await {
        let text = spoilt(&text, &mut doing, &mut end);
        client.send(Message::Text(text.into())).await.unwrap();
    }
    loop {
        let is_open = tokio::select! {
            asked = client.recv() => match asked {
                Some(Ok(Message::Text(text))) => {
                    if let Some(told) = acknowledged(&text, &end).filter(|_| is_told_alone) {
                        client.send(Message::Text(told.into())).await.unwrap();
                        continue;
                    }
                    let text = tungstenite::Message::text(text.as_str());
                    upstream.send(text).await.is_ok()
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
                _ => false,
            },
            told = upstream.next() => match told {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    let text = spoilt(&text, &mut doing, &mut end);
                    client.send(Message::Text(text.into())).await.is_ok()
                }
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => true,
                _ => false,
            },
        };
        if !is_open {
            return;
        }
    }
}

/// The answer to an append, as if it had been stored where the log ended when the socket was opened.
fn acknowledged(text: &str, end: &Value) -> Option<String> {
    let frame: Value = serde_json::from_str(text).ok()?;
    let events = frame["events"].as_array()?.iter();
    let told = events.map(|event| json!({"id": event["id"], "cursor": end, "duplicate": false}));
    let told: Vec<Value> = told.collect();
    (frame["type"] == "append")
        .then(|| json!({"type": "appended", "ref": frame["ref"], "events": told}).to_string())
}

fn spoilt(text: &str, doing: &mut Doing, end: &mut Value) -> String {
    let mut frame: Value = serde_json::from_str(text).unwrap();
    if frame["type"] == "welcome" {
        *end = frame["cursor"].clone();
    }
    if frame["type"] == "events" {
        let events = frame["events"].take();
        let Value::Array(events) = events else {
            panic!("{frame}")
        };
        frame["events"] = Value::from(doing.with(events));
    }
    frame.to_string()
}
