//! HTTP/1.1 and WebSocket with as little of the machine as possible: the load shares two cores with what is measured.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Http {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Http {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            line: Vec::new(),
        }
    }

    pub fn post(address: &str, content_type: &str, body: &str) -> Vec<u8> {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    pub fn get(address: &str, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes()
    }

    /// Sends a request and reads its answer: the status and the body.
    pub async fn send(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.stream.get_mut().write_all(request).await.unwrap();
        self.read().await
    }

    /// The same, if the line holds.
    pub async fn try_send(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(request).await?;
        self.try_read().await
    }

    async fn read(&mut self) -> (u16, Vec<u8>) {
        self.try_read().await.unwrap()
    }

    async fn try_read(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1);
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?.parse().unwrap();
        let mut length = 0;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((status, body))
    }

    async fn line(&mut self) -> io::Result<String> {
        use tokio::io::AsyncBufReadExt as _;
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).await?;
        Ok(String::from_utf8_lossy(&self.line).trim_end().to_owned())
    }

    /// Sends a streaming upload and reads until the server closes.
    pub async fn upload(address: &str, body: Vec<u8>) -> Vec<u8> {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\nprefer: return=minimal\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let writing = tokio::spawn(async move {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&body).await.unwrap();
            write
        });
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        writing.await.unwrap();
        answer
    }
}

/// A WebSocket that knows frames, and no more.
pub struct Ws {
    stream: BufReader<TcpStream>,
    pub frame: Vec<u8>,
}

impl Ws {
    pub async fn connect(address: &str) -> Self {
        Self::connect_as(address, None).await
    }

    pub async fn connect_as(address: &str, token: Option<&str>) -> Self {
        use tokio::io::AsyncBufReadExt as _;
        let mut stream =
            BufReader::with_capacity(2_048, TcpStream::connect(address).await.unwrap());
        stream.get_ref().set_nodelay(true).unwrap();
        let authorization = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n{authorization}\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        let mut ws = Self {
            stream,
            frame: Vec::new(),
        };
        ws.next().await;
        assert!(ws.frame.starts_with(b"{"), "a welcome");
        ws
    }

    /// Subscribes and waits until the subscription is live.
    pub async fn subscribe(&mut self, topics: &str, after: &str) {
        let frame =
            format!(r#"{{"type":"subscribe","id":"s1","topics":["{topics}"],"after":"{after}"}}"#);
        self.send(&frame).await;
    }

    pub async fn until_live(&mut self) {
        while !self
            .next()
            .await
            .windows(13)
            .any(|part| part == br#""type":"live""#)
        {}
    }

    pub async fn send(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream.get_mut().write_all(&frame).await.unwrap();
    }

    /// The next text frame; pings are passed over.
    pub async fn next(&mut self) -> &[u8] {
        assert!(
            self.is_answered().await,
            "closed: {}",
            String::from_utf8_lossy(&self.frame[2..])
        );
        &self.frame
    }

    /// Whether there is a next text frame, and not the end.
    pub async fn is_answered(&mut self) -> bool {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).await.unwrap();
            let length = match head[1] & 0x7f {
                126 => u64::from(self.stream.read_u16().await.unwrap()),
                127 => self.stream.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            self.frame.resize(length as usize, 0);
            self.stream.read_exact(&mut self.frame).await.unwrap();
            match head[0] & 0x0f {
                1 => return true,
                8 => return false,
                _ => {}
            }
        }
    }
}
