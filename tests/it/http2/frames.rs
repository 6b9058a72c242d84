//! A client of HTTP/2 that sends just the frames it is told to (RFC 9113 section 4).

use crate::client::PATIENCE;
use crate::tls::connect;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A connection with a preface behind it.
pub(super) struct Frames(TlsStream<TcpStream>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The fields of a request, none of them compressed (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("below 16 KiB").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// With a prefix of seven bits (RFC 7541 section 5.1).
fn integer(number: usize, into: &mut Vec<u8>) {
    if number < 127 {
        return into.push(u8::try_from(number).expect("below"));
    }
    into.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        into.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    into.push(u8::try_from(rest).expect("below"));
}

/// What a plain request says of itself.
pub(super) const PLAIN: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "chat.example"), (":path", "/plain")];

impl Frames {
    pub(super) async fn to(address: SocketAddr) -> Self {
        let mut frames = Self(connect(address, &["h2"]).await);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("taken");
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Whether the frame was taken.
    pub(super) async fn try_send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&frame(kind, flags, stream, payload)).await.is_ok()
    }

    /// Asks for something and takes that back with the same packet; whether it was taken.
    pub(super) async fn try_take_back(&mut self, stream: u32) -> bool {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&PLAIN));
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        self.0.write_all(&[ask, reset].concat()).await.is_ok()
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        assert!(self.try_send(kind, flags, stream, payload).await, "taken");
    }

    /// Asks for something, with more fields.
    pub(super) async fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&[&PLAIN, fields].concat())).await;
    }

    pub(super) async fn try_ask(&mut self, stream: u32) -> bool {
        self.try_send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&PLAIN)).await
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a frame in time")
    }

    /// The next frame of this stream, or the last word about the connection.
    pub(super) async fn next_of(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.stream == stream && frame.kind != WINDOW_UPDATE || frame.kind == GOAWAY {
                return Some(frame);
            }
        }
    }

    /// Reads to the end of the connection: why it ended, if that was said.
    pub(super) async fn goes_away(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = frame.payload[4..8].try_into().ok().map(u32::from_be_bytes);
            }
        }
        reason
    }
}
