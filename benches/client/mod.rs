//! One keep-alive connection to a server, one request at a time, and the same at the other end of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A client that sends the same fields with every request.
pub(crate) struct Client {
    connection: Connection,
    fields: String,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// `fields` are whole lines, `Host` among them.
    pub(crate) fn connect(to: SocketAddr, fields: &str) -> Self {
        let stream = TcpStream::connect(to).expect("the server listens");
        Self { connection: Connection::new(stream), fields: fields.to_owned() }
    }

    /// Asks for `target`, with `further` lines.
    pub(crate) fn get(&mut self, target: &str, further: &str) -> Answer {
        let request = format!("GET {target} HTTP/1.1\r\n{}{further}\r\n", self.fields);
        self.connection.send(request.as_bytes()).expect("the server listens");
        let head = self.connection.head().expect("an answer");
        let status = head.0[9..12].parse().expect("a status line");
        let length = head.field("content-length").map_or(0, |length| length.parse().expect("a number"));
        Answer { status, head, body: self.connection.body(length).expect("a whole body") }
    }
}

/// Either end of a connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a fresh socket");
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next head; `None` at the end of the connection.
    pub(crate) fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Some(Head(String::from_utf8(head).expect("an ASCII head")));
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// A body of this length; `None` when it broke off.
    fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// `false` at the end of the connection, a reset included.
    fn more(&mut self) -> bool {
        let mut chunk = [0; 16_384];
        let read = self.stream.read(&mut chunk).unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }
}

/// The head of a request or an answer, its empty line included.
pub(crate) struct Head(String);

impl Head {
    /// What a request is for.
    pub(crate) fn target(&self) -> &str {
        self.0.split(' ').nth(1).expect("a request line")
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// An answer with a body, after which the connection is kept; further fields may follow the type.
pub(crate) fn whole(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
