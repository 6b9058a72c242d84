//! HTTP/1 messages read from a socket by the letter of RFC 9112: whatever a tolerant parser would forgive is written down.

use std::fmt::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    None,
    /// By `Content-Length`.
    Counted,
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// A request or an answer as it came. Text holds one character for each byte, whatever the byte is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// The fields in their order; values without the blanks around them.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    /// The lines of the chunk sizes, and the trailer.
    pub(crate) chunks: Vec<String>,
    /// What breaks RFC 9112.
    pub(crate) faults: Vec<String>,
}

impl Message {
    /// The values of a field in their order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
    }

    /// The second word of the first line: a request's target, an answer's status.
    pub(crate) fn second(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The method and target of a request, and its body.
    pub(crate) fn gist(&self) -> String {
        let mut gist = self.start.rsplit_once(' ').map_or(&*self.start, |(gist, _)| gist).to_owned();
        if self.framing != Framing::None {
            write!(gist, " {:?} {}", self.framing, text(&self.body)).expect("a string takes all");
        }
        gist
    }

    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }
}

/// Bytes as text, one character each.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// A connection with what was read ahead.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) async fn to(address: std::net::SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("somebody listens"))
    }

    /// Sends what the other side may not want any more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads a request; `None` when the connection ends before one begins. One that waits for a 100 gets it.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut request = self.head().await?;
        let parts = request.start.split(' ').collect::<Vec<_>>();
        let version = parts.last().copied().unwrap_or_default();
        if parts.len() != 3 || parts.iter().any(|part| part.is_empty()) || !["HTTP/1.1", "HTTP/1.0"].contains(&version)
        {
            let start = request.start.clone();
            request.fault(format!("the request line {start:?}"));
        } else if version == "HTTP/1.1" && request.all("host").len() != 1 {
            request.fault("not one Host");
        }
        if request.all("expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let framing = declared(&mut request).unwrap_or(Framing::None);
        self.body(&mut request, framing).await;
        Some(request)
    }

    /// Reads an answer, an interim one included; `None` when the connection ends before one begins.
    pub(crate) async fn answer(&mut self, method: &str) -> Option<Message> {
        let mut answer = self.head().await?;
        let status = answer.second().to_owned();
        if !answer.start.starts_with("HTTP/1.") || status.len() != 3 {
            let start = answer.start.clone();
            answer.fault(format!("the status line {start:?}"));
        }
        let bodiless = method == "HEAD" || status.starts_with('1') || status == "204" || status == "304";
        let framing = declared(&mut answer).unwrap_or(Framing::UntilClose);
        self.body(&mut answer, if bodiless { Framing::None } else { framing }).await;
        Some(answer)
    }

    /// As many bytes as come before `len`.
    pub(crate) async fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len && self.more().await {}
        self.ahead.drain(..len.min(self.ahead.len())).collect()
    }

    /// Whether the other side has hung up and said nothing more.
    pub(crate) async fn ends(&mut self) -> bool {
        self.ahead.is_empty() && !self.more().await
    }

    async fn head(&mut self) -> Option<Message> {
        let mut message = Message::default();
        message.start = self.line(&mut message).await?;
        loop {
            let Some(line) = self.line(&mut message).await else {
                message.fault("cut off in the head");
                return Some(message);
            };
            if line.is_empty() {
                return Some(message);
            }
            let Some((name, value)) = line.split_once(':') else {
                message.fault(format!("a line without a colon: {line:?}"));
                continue;
            };
            if name.is_empty() || !name.bytes().all(is_token) {
                message.fault(format!("a name that is none: {name:?}"));
            }
            message.fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    async fn body(&mut self, message: &mut Message, framing: Framing) {
        message.framing = framing;
        match framing {
            Framing::None => {}
            Framing::Counted => {
                let len = message.all("content-length").first().and_then(|len| len.parse().ok()).unwrap_or(0);
                message.body = self.bytes(len).await;
                if message.body.len() < len {
                    message.fault("cut off in the body");
                }
            }
            Framing::Chunked => self.chunks(message).await,
            Framing::UntilClose => {
                while self.more().await {}
                message.body = std::mem::take(&mut self.ahead);
            }
        }
    }

    async fn chunks(&mut self, message: &mut Message) {
        loop {
            let Some(line) = self.line(message).await else { return message.fault("cut off in the chunks") };
            let size = line.split(';').next().expect("the first of a split");
            let Ok(len) = usize::from_str_radix(size, 16) else {
                return message.fault(format!("a chunk size {line:?}"));
            };
            if !size.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                message.fault(format!("a chunk size {line:?}"));
            }
            message.chunks.push(line);
            if len == 0 {
                break;
            }
            let chunk = self.bytes(len).await;
            message.body.extend_from_slice(&chunk);
            if chunk.len() < len || self.bytes(2).await != b"\r\n" {
                return message.fault("a chunk that does not end");
            }
        }
        loop {
            match self.line(message).await {
                None => return message.fault("cut off in the trailer"),
                Some(line) if line.is_empty() => return,
                Some(line) => message.chunks.push(line),
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self, message: &mut Message) -> Option<String> {
        let end = loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            if !self.more().await {
                if !self.ahead.is_empty() {
                    message.fault(format!("half a line: {:?}", text(&self.ahead)));
                }
                return None;
            }
        };
        let mut line = self.ahead.drain(..=end).collect::<Vec<_>>();
        line.pop();
        if line.pop_if(|last| *last == b'\r').is_none() {
            message.fault("a bare LF");
        }
        if line.iter().any(|byte| *byte == b'\r' || *byte == 0) {
            message.fault("a bare CR or a NUL");
        }
        Some(text(&line))
    }

    /// `false` at the end of the connection, a reset included.
    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.ahead).await, Ok(read) if read > 0)
    }
}

/// The framing that the header declares, if any; two opinions are a fault.
fn declared(message: &mut Message) -> Option<Framing> {
    let lengths = message.all("content-length").into_iter().map(str::to_owned).collect::<Vec<_>>();
    let codings = message.all("transfer-encoding").into_iter().map(str::to_owned).collect::<Vec<_>>();
    if lengths.len() + codings.len() > 1 {
        message.fault(format!("framed twice: {lengths:?} {codings:?}"));
    }
    if lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|digit| digit.is_ascii_digit())) {
        message.fault(format!("a length {lengths:?}"));
    }
    if codings.iter().any(|coding| coding != "chunked") {
        message.fault(format!("a coding {codings:?}"));
    }
    if codings.is_empty() { (!lengths.is_empty()).then_some(Framing::Counted) } else { Some(Framing::Chunked) }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
