//! One kept connection of the load, and what it asks.

use crate::message::{body_of, length_of};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a browser says with every request to Mattermost.
const FIELDS: &str = concat!(
    "Host: chat.example.com\r\n",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n",
    "Accept: */*\r\n",
    "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n",
    "Accept-Encoding: gzip, deflate, br, zstd\r\n",
    "X-Requested-With: XMLHttpRequest\r\n",
    "X-CSRF-Token: 8o5q4k5xmbgkxpwhgmsa6j4p1o\r\n",
    "Referer: https://chat.example.com/engineering/channels/release-engineering\r\n",
    "Sec-Fetch-Dest: empty\r\n",
    "Sec-Fetch-Mode: cors\r\n",
    "Sec-Fetch-Site: same-origin\r\n",
    "Connection: keep-alive\r\n",
    "Cookie: MMAUTHTOKEN=ur7pxgb5jfbbufz3c1x1qnoskr; MMUSERID=ge45wmpse3g8umtziei4q749th; ",
    "MMCSRF=8o5q4k5xmbgkxpwhgmsa6j4p1o; rl_anonymous_id=%22c2b8-4f1e%22\r\n",
);

/// A small answer, of a route of which nothing is learned.
pub(crate) const SMALL: &str = "/api/v4/channels/oq3p7mxkr3yz8mh9fq1s5rsw6a";
/// What a client reports when a channel is opened.
pub(crate) const VIEWED: &str =
    r#"{"channel_id":"oq3p7mxkr3yz8mh9fq1s5rsw6a","prev_channel_id":"6n5b3cqkbtyh9fe8ndgbpwmqwe"}"#;

/// A request without a body.
pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{FIELDS}\r\n").into_bytes()
}

/// The head of a request with `length` bytes to follow.
pub(crate) fn post(target: &str, length: usize) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\n{FIELDS}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
        .into_bytes()
}

/// A small request with a body.
pub(crate) fn report() -> Vec<u8> {
    let mut request = post("/api/v4/channels/members/me/view", VIEWED.len());
    request.extend(VIEWED.as_bytes());
    request
}

/// A handshake with the key of RFC 6455 section 1.3.
pub(crate) fn handshake() -> Vec<u8> {
    let fields = FIELDS.replace("Connection: keep-alive", "Connection: Upgrade");
    let websocket =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    format!("GET /api/v4/websocket HTTP/1.1\r\n{fields}{websocket}\r\n").into_bytes()
}

/// How far an answer came.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Not one byte of it.
    BeforeTheAnswer,
    /// Some of it.
    InTheAnswer,
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends `request` and reads the whole of its answer, which has to be a success.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(request).await.map_err(|_| Broken::BeforeTheAnswer)?;
        self.answer().await
    }

    /// Reads an answer, which has to be a success, and throws its body away.
    pub(crate) async fn answer(&mut self) -> Result<(), Broken> {
        self.buffer.clear();
        let body = loop {
            if let Some(body) = body_of(&self.buffer) {
                break body;
            }
            let nothing = self.buffer.is_empty();
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return Err(if nothing { Broken::BeforeTheAnswer } else { Broken::InTheAnswer });
            }
        };
        let head = &self.buffer[..body];
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(head));
        let mut left = length_of(head).saturating_sub(self.buffer.len() - body);
        if left > 0 {
            self.buffer.resize(BLOCK.min(left), 0);
        }
        while left > 0 {
            let room = self.buffer.len().min(left);
            match self.stream.read(&mut self.buffer[..room]).await {
                Ok(read @ 1..) => left -= read,
                Ok(0) | Err(_) => return Err(Broken::InTheAnswer),
            }
        }
        Ok(())
    }

    /// Asks for the upgrade and waits for the first event.
    pub(crate) async fn upgrade(&mut self, handshake: &[u8]) -> io::Result<()> {
        self.stream.write_all(handshake).await?;
        self.buffer.clear();
        while body_of(&self.buffer).is_none_or(|body| !self.buffer[body..].ends_with(b"}")) {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&self.buffer));
        // Thousands of them are kept.
        self.buffer = Vec::new();
        Ok(())
    }
}

/// How much of a long body is read at once.
const BLOCK: usize = 256 << 10;
