//! A WebSocket to the server: frames of JSON, one at a time.
//!
//! # Invariants
//! - It goes over the same connections as every request of the client: same authorities, same credential, no redirects.
//! - A frame is bounded; pings are answered by whoever waits for the next frame.
//! - Dropped, its connection is gone at once, without a close: as when a client dies.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use reqwest::{Method, StatusCode, Upgraded};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::{Client, Error};

/// Bytes of a frame. A server's are of 1 MiB, or one event that is larger.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<Upgraded>,
    url: String,
}

impl Client {
    /// Opens a WebSocket. The first frame is the server's `welcome`.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn socket(&self) -> Result<Socket, Error> {
        let key = generate_key();
        let request = self
            .request(Method::GET, &["v1", "ws"])
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key)
            .header("Sec-WebSocket-Protocol", "tidewire.v1.json");
        // 101 is no success to `send`, and every refusal is its business.
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Foreign {
                url: self.address(),
                status: response.status().as_u16(),
            });
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|value| value != derive_accept_key(key.as_bytes()).as_str()) {
            return Err(Error::Contract("it accepts another WebSocket".into()));
        }
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|error| self.broken(error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Socket {
            stream,
            url: self.address(),
        })
    }
}

impl Socket {
    /// Sends a frame.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, frame: &Value) -> Result<(), Error> {
        let message = Message::Text(frame.to_string().into());
        let sent = self.stream.send(message).await;
        sent.map_err(|_| self.ended())
    }

    /// The next frame.
    ///
    /// # Errors
    /// If the connection is gone or closed, or a frame is no JSON.
    pub async fn next(&mut self) -> Result<Value, Error> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text)
                        .map_err(|error| Error::Contract(format!("a frame is no JSON: {error}")));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(self.ended()),
                Some(Ok(_)) => {}
            }
        }
    }

    fn ended(&self) -> Error {
        Error::Ended {
            url: self.url.clone(),
        }
    }
}
