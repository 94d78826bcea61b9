//! One way to read the log, whatever the transport: the same scenarios run through all of them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use futures_util::{SinkExt as _, StreamExt as _};

use super::Api;

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Page after page, of MessagePack every other one.
    Pages,
    /// Long-poll.
    Poll,
    /// Server-sent events.
    Sse,
    /// WebSocket with text frames.
    WsJson,
    /// WebSocket with binary frames.
    WsMsgpack,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pages,
        Self::Poll,
        Self::Sse,
        Self::WsJson,
        Self::WsMsgpack,
    ];
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Topic patterns, separated by commas.
    pub topics: &'static str,
    /// Subjects, separated by commas.
    pub subjects: &'static str,
    /// A cursor, `earliest` or `latest`.
    pub after: String,
}

impl Wanted {
    fn query(&self, after: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("after", after);
        for (name, value) in [("topics", self.topics), ("subjects", self.subjects)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    fn frame(&self) -> Value {
        let list = |text: &str| -> Vec<String> {
            text.split(',')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect()
        };
        json!({"type": "subscribe", "id": "s", "topics": list(self.topics), "subjects": list(self.subjects), "after": self.after})
    }
}

/// What was read, and the cursor to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// In the order of arrival.
    pub events: Vec<Value>,
    /// Everything up to here has been seen.
    pub cursor: String,
}

/// Reads until the present end.
pub async fn read(api: &Api, transport: Transport, wanted: &Wanted) -> Seen {
    match transport {
        Transport::Pages => pages(api, wanted, "").await,
        Transport::Poll => pages(api, wanted, "&wait=0.2").await,
        Transport::Sse => sse(api, wanted).await,
        Transport::WsJson => ws(api, wanted, "tidewire.v1.json").await,
        Transport::WsMsgpack => ws(api, wanted, "tidewire.v1.msgpack").await,
    }
}

async fn pages(api: &Api, wanted: &Wanted, more: &str) -> Seen {
    let mut events = Vec::new();
    let mut cursor = wanted.after.clone();
    for round in 0.. {
        let path = format!("/v1/events?{}&limit=1000{more}", wanted.query(&cursor));
        let accept = if round % 2 == 0 {
            "application/json"
        } else {
            "application/msgpack"
        };
        let request = api.request(Method::GET, &path).header("accept", accept);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], accept);
        let body = response.bytes().await.unwrap();
        let page: Value = if round % 2 == 0 {
            serde_json::from_slice(&body).unwrap()
        } else {
            rmp_serde::from_slice(&body).unwrap()
        };
        let some = page["events"].as_array().unwrap().clone();
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        let is_end = page["has_more"] == false && (more.is_empty() || some.is_empty());
        events.extend(some);
        if is_end {
            break;
        }
    }
    Seen { events, cursor }
}

async fn sse(api: &Api, wanted: &Wanted) -> Seen {
    let mut stream = api.sse(&wanted.query(&wanted.after), None).await.unwrap();
    assert_eq!(stream.response.status(), StatusCode::OK);
    let mut events = Vec::new();
    loop {
        let message = stream.next().await.unwrap().expect("the stream goes on");
        let cursor = message.id.clone().expect("every message has a cursor");
        match message.event.as_str() {
            "message" => events.extend(serde_json::from_str::<Vec<Value>>(&message.data).unwrap()),
            "live" => return Seen { events, cursor },
            "heartbeat" => {}
            other => panic!("{other}: {}", message.data),
        }
        // A stream that has always been live says so once, before or after what it had to say.
    }
}

async fn ws(api: &Api, wanted: &Wanted, protocol: &str) -> Seen {
    let request = api.ws_request(Some(protocol)).unwrap();
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let is_json = protocol.ends_with("json");
    let frame = wanted.frame();
    let message = if is_json {
        Message::Text(frame.to_string().into())
    } else {
        Message::Binary(rmp_serde::to_vec_named(&frame).unwrap().into())
    };
    socket.send(message).await.unwrap();
    let mut events = Vec::new();
    loop {
        let frame: Value = match socket.next().await.unwrap().unwrap() {
            Message::Text(text) if is_json => serde_json::from_str(&text).unwrap(),
            Message::Binary(bytes) if !is_json => rmp_serde::from_slice(&bytes).unwrap(),
            Message::Ping(_) => continue,
            other => panic!("{other:?}"),
        };
        match frame["type"].as_str().unwrap() {
            "welcome" | "subscribed" => {}
            "events" => events.extend(frame["events"].as_array().unwrap().clone()),
            "live" => {
                let cursor = frame["cursor"].as_str().unwrap().to_owned();
                return Seen { events, cursor };
            }
            other => panic!("{other}: {frame}"),
        }
    }
}
