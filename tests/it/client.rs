//! A client that sends just the bytes it is told to, and an answer taken apart: what a library would tidy up is seen.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any time-out in these tests: a test that meets it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Two users' ids, and the tokens of their sessions.
pub(crate) const ALICE: &str = "ge45wmpse3g8umtziei4q749th";
pub(crate) const BOB: &str = "xmz5hjyoqfb1bxjhyixzfmgr1c";
pub(crate) const ALICES_TOKEN: &str = "8a1xz5ri6bgwmq4m6xo7cnjdhe";
pub(crate) const BOBS_TOKEN: &str = "n9o3ksfsz7ywxpyq1pxfjh5g1r";

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Whether the body came as it was announced; `false` when the connection broke before its end.
    pub(crate) complete: bool,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Alice asks for her own picture; the query comes without its `?`.
    pub(crate) fn picture(query: &str) -> Self {
        Self::picture_of(ALICE, query).cookie(ALICES_TOKEN)
    }

    /// Nobody in particular asks for a user's picture.
    pub(crate) fn picture_of(user: &str, query: &str) -> Self {
        let mark = if query.is_empty() { "" } else { "?" };
        Self::get(&format!("/api/v4/users/{user}/image{mark}{query}"))
    }

    /// The same about the thing of this id, where the target leaves it open as `{id}`.
    pub(crate) fn about(mut self, id: &str) -> Self {
        self.target = self.target.replace("{id}", id);
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The token as browsers send it.
    pub(crate) fn cookie(self, token: &str) -> Self {
        self.header("Cookie", &format!("MMAUTHTOKEN={token}"))
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn accept(self, accept: &str) -> Self {
        self.header("Accept", accept)
    }

    /// The request as bytes. `Host` and `Content-Length` are added unless they were given.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(each, _)| each.eq_ignore_ascii_case(name));
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.target)];
        if !has("host") {
            lines.push(format!("Host: {host}"));
        }
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if !self.body.is_empty() && !has("content-length") && !has("transfer-encoding") {
            lines.push(format!("Content-Length: {}", self.body.len()));
        }
        [lines.join("\r\n").as_bytes(), b"\r\n\r\n", &self.body].concat()
    }

    /// The request as HTTP/2 has it, without its body, and that.
    pub(crate) fn http2(&self) -> (http::Request<()>, Bytes) {
        let uri = format!("https://chat.example{}", self.target);
        let mut request = http::Request::builder().method(&*self.method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        (request.body(()).expect("a request"), self.body.clone().into())
    }

    /// Sends the request on a connection of its own and reads the answer to its end.
    pub(crate) async fn send(&self, to: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(to).await.expect("the server listens");
        stream.write_all(&self.bytes(&to.to_string())).await.expect("the request is taken");
        read_answer(&mut stream, &self.method).await
    }
}

/// A connection that is kept from one request to the next.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Answer {
        self.0.write_all(&request.bytes("chat.example")).await.expect("the request is taken");
        read_answer(&mut self.0, &request.method).await
    }
}

/// Reads one answer; a body without length ends with the connection.
pub(crate) async fn read_answer(stream: &mut TcpStream, method: &str) -> Answer {
    tokio::time::timeout(PATIENCE, read(stream, method)).await.expect("an answer in time")
}

async fn read(stream: &mut TcpStream, method: &str) -> Answer {
    let mut buffer = Vec::new();
    let head_len = loop {
        if let Some(end) = find(&buffer, b"\r\n\r\n") {
            break end + 4;
        }
        assert!(
            more(stream, &mut buffer).await,
            "the connection ended in the head: {:?}",
            String::from_utf8_lossy(&buffer)
        );
    };
    let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect::<Vec<_>>();
    let mut answer = Answer { status, headers, body: Bytes::new(), complete: true };
    let mut rest = buffer.split_off(head_len);
    if status == 101 {
        // What the other side of the pipe said meanwhile.
        answer.body = rest.into();
        return answer;
    }
    if method == "HEAD" || status == 304 || status == 204 {
        return answer;
    }
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let (body, complete) = read_chunks(stream, rest).await;
        (answer.body, answer.complete) = (body.into(), complete);
        return answer;
    }
    let length = answer.header("content-length").map(|length| length.parse::<usize>().expect("a number"));
    while length.is_none_or(|length| rest.len() < length) {
        if !more(stream, &mut rest).await {
            answer.complete = length.is_none();
            break;
        }
    }
    // What comes after it is no part of it.
    rest.truncate(length.unwrap_or(rest.len()));
    answer.body = rest.into();
    answer
}

async fn read_chunks(stream: &mut TcpStream, mut raw: Vec<u8>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = find(&raw, b"\r\n") else {
            if more(stream, &mut raw).await {
                continue;
            }
            return (body, false);
        };
        let size = std::str::from_utf8(&raw[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk size");
        while raw.len() < end + 2 + size + 2 {
            if !more(stream, &mut raw).await {
                return (body, false);
            }
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw.drain(..end + 2 + size + 2);
        if size == 0 {
            return (body, true);
        }
    }
}

/// `false` at the end of the connection, a reset included.
async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(read) if read > 0)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

impl Answer {
    /// The value of a field that is there at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    /// Every value of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Width and height of the picture in the body.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        let picture = image::load_from_memory(&self.body).expect("a picture");
        (picture.width(), picture.height())
    }

    /// Whether the picture in the body has this colour in its middle, give or take what an encoder does to it.
    pub(crate) fn looks(&self, colour: [u8; 3]) -> bool {
        let picture = image::load_from_memory(&self.body).expect("a picture").to_rgb8();
        let middle = picture.get_pixel(picture.width() / 2, picture.height() / 2);
        middle.0.iter().zip(colour).all(|(shown, wanted)| shown.abs_diff(wanted) <= 8)
    }
}
