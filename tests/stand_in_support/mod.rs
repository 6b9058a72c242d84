//! Raw sockets for `stand_in.rs`: requests byte for byte as recorded, answers with their headers as they are spelled.

pub(crate) mod bodies;
mod steering;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// What `system_user` may do on the recorded server once `view_members` is taken from it.
const WITHOUT_VIEW_MEMBERS: [&str; 12] = [
    "create_custom_group",
    "create_direct_channel",
    "create_emojis",
    "create_group_channel",
    "create_team",
    "delete_custom_group",
    "delete_emojis",
    "edit_custom_group",
    "join_public_teams",
    "list_public_teams",
    "manage_custom_group_members",
    "restore_custom_group",
];

/// The patch that takes `view_members` from `system_user`.
pub(crate) fn without_view_members() -> String {
    json!({ "permissions": WITHOUT_VIEW_MEMBERS }).to_string()
}

/// The patch that gives it back.
pub(crate) fn with_view_members() -> String {
    let all = [WITHOUT_VIEW_MEMBERS.as_slice(), &["view_members"]].concat();
    json!({ "permissions": all }).to_string()
}

/// One of the recorded bodies.
pub(crate) fn recording_body(file: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/bodies").join(file);
    std::fs::read(path).expect("the recorded bodies are in the repository").into()
}

/// A request as it goes over the wire.
pub(crate) struct Wire {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Wire {
    /// A recorded request, with the body that stands for the recorded one.
    pub(crate) fn new(request: &Value, body: Option<Vec<u8>>) -> Self {
        let text = |field: &str| request[field].as_str().expect("a recorded request").to_owned();
        Self {
            method: text("method"),
            target: text("path"),
            version: text("http"),
            headers: header_list(&request["headers"]),
            body: body.unwrap_or_default(),
        }
    }

    /// What a client without a browser sends to open a WebSocket.
    pub(crate) fn websocket(token: &str) -> Self {
        let mut wire = Self::act(token, "GET", "/api/v4/websocket", None);
        for (name, value) in [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "rh5OcsBafacOXi03RvRqtg=="),
        ] {
            wire.headers.push((name.to_owned(), value.to_owned()));
        }
        wire
    }

    /// A plain request of somebody.
    pub(crate) fn act(token: &str, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Self {
        let mut headers =
            vec![("Host".to_owned(), "127.0.0.1".to_owned()), ("Authorization".to_owned(), format!("Bearer {token}"))];
        let (content_type, body) = body.unwrap_or_default();
        if !content_type.is_empty() {
            headers.push(("Content-Type".to_owned(), content_type.to_owned()));
            headers.push(("Content-Length".to_owned(), String::new()));
        }
        Self { method: method.to_owned(), target: path.to_owned(), version: "HTTP/1.1".to_owned(), headers, body }
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces placeholders in the target, the headers and a JSON body.
    pub(crate) fn translate(&mut self, mut translate: impl FnMut(&str) -> String) {
        self.target = translate(&self.target);
        for (_, value) in &mut self.headers {
            *value = translate(value);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        let mut chunked = false;
        for (name, value) in &self.headers {
            let length = self.body.len().to_string();
            let value = if name == "Content-Length" { &length } else { value };
            chunked |= name == "Transfer-Encoding";
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        if chunked {
            bytes.extend(format!("{:x}\r\n", self.body.len()).into_bytes());
            bytes.extend(&self.body);
            bytes.extend(b"\r\n0\r\n\r\n");
        } else {
            bytes.extend(&self.body);
        }
        bytes
    }
}

/// An answer: recorded, or read off a socket.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) status: u64,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: String,
    /// Without gzip.
    pub(crate) body: Vec<u8>,
    pub(crate) json: Option<Value>,
    pub(crate) text: Option<String>,
    pub(crate) picture: Option<Bytes>,
}

impl Response {
    pub(crate) fn recorded(response: &Value) -> Self {
        let text = |field: &str| response[field].as_str().map(str::to_owned);
        let picture = text("body_file").and_then(|file| {
            // A gzipped body is kept under the name of its gzipped form; the plain one is kept as well.
            let plain = response["decoded_sha256"].as_str().map(|hash| format!("{}.png", &hash[..16]));
            let file = file.strip_prefix("bodies/").unwrap_or(&file).to_owned();
            let file = plain.unwrap_or(file);
            (!file.contains(".gz")).then(|| recording_body(&file))
        });
        Self {
            status: response["status"].as_u64().expect("a recorded status"),
            reason: text("reason").unwrap_or_default(),
            headers: header_list(&response["headers"]),
            framing: text("framing").unwrap_or_default(),
            body: Vec::new(),
            json: response.get("json").cloned(),
            text: text("text"),
            picture,
        }
    }

    /// The lines of a header; the name in any case.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }
}

fn header_list(headers: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a header is text").to_owned();
    headers.as_array().expect("a list of headers").iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// Sends one request on a connection of its own and reads the answer.
pub(crate) fn exchange(address: SocketAddr, wire: &Wire) -> Result<Response, String> {
    let mut reader = connect(address, wire)?;
    let mut response = head(&mut reader)?;
    read_body(&mut reader, wire, &mut response)?;
    Ok(response)
}

fn connect(address: SocketAddr, wire: &Wire) -> Result<BufReader<TcpStream>, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(text)?;
    stream.write_all(&wire.bytes()).map_err(text)?;
    Ok(BufReader::new(stream))
}

/// The head of the answer; interim ones are passed over.
fn head(reader: &mut BufReader<TcpStream>) -> Result<Response, String> {
    loop {
        let status_line = line(reader)?;
        let mut parts = status_line.splitn(3, ' ').skip(1);
        let status =
            parts.next().and_then(|code| code.parse().ok()).ok_or_else(|| format!("no status: {status_line:?}"))?;
        let mut response =
            Response { status, reason: parts.next().unwrap_or_default().to_owned(), ..Response::default() };
        loop {
            let header = line(reader)?;
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            response.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if status != 100 {
            return Ok(response);
        }
    }
}

fn line(reader: &mut impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|error| error.to_string())?;
    if line.is_empty() {
        Err("the connection ended".to_owned())
    } else {
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn read_body(reader: &mut BufReader<TcpStream>, wire: &Wire, response: &mut Response) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut body = Vec::new();
    let framing = if wire.method == "HEAD" || [101, 204, 304].contains(&response.status) {
        "none"
    } else if response.value("Transfer-Encoding") == Some("chunked") {
        loop {
            let length = usize::from_str_radix(&line(reader)?, 16).map_err(|error| error.to_string())?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk).map_err(text)?;
            body.extend(&chunk[..length]);
            if length == 0 {
                break "chunked";
            }
        }
    } else if let Some(length) = response.value("Content-Length").map(str::to_owned) {
        body.resize(length.parse().map_err(|_| format!("a length of {length:?}"))?, 0);
        reader.read_exact(&mut body).map_err(text)?;
        "content-length"
    } else {
        reader.read_to_end(&mut body).map_err(text)?;
        "until-close"
    };
    framing.clone_into(&mut response.framing);
    if response.value("Content-Encoding") == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).map_err(text)?;
        body = plain;
    }
    response.body = body;
    Ok(())
}

/// A WebSocket, or the refusal to open one.
pub(crate) struct Socket {
    pub(crate) response: Response,
    reader: BufReader<TcpStream>,
}

impl Socket {
    pub(crate) fn open(address: SocketAddr, wire: &Wire) -> Result<Self, String> {
        let mut reader = connect(address, wire)?;
        let mut response = head(&mut reader)?;
        read_body(&mut reader, wire, &mut response)?;
        Ok(Self { response, reader })
    }

    /// Sends a masked frame.
    pub(crate) fn say(&mut self, opcode: &Value, text: &str) -> Result<(), String> {
        let (first, payload) = match opcode.as_str() {
            Some("text") => (0x81, text.as_bytes()),
            Some("ping") => (0x89, b"".as_slice()),
            other => return Err(format!("an opcode of {other:?}")),
        };
        let length = u16::try_from(payload.len()).map_err(|error| error.to_string())?;
        let mut frame = vec![first];
        match u8::try_from(length) {
            Ok(short) if short < 126 => frame.push(0x80 | short),
            _ => {
                frame.push(0xfe);
                frame.extend(length.to_be_bytes());
            }
        }
        // A mask of zeros leaves the payload as it is.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.reader.get_mut().write_all(&frame).map_err(|error| error.to_string())
    }

    /// The next frame, in the form of the recordings.
    pub(crate) fn hear(&mut self, patience: Duration) -> Result<Value, String> {
        let text = |error: std::io::Error| error.to_string();
        self.reader.get_mut().set_read_timeout(Some(patience)).map_err(text)?;
        if self.reader.fill_buf().map_err(text)?.is_empty() {
            return Ok(json!({"opcode": "closed"}));
        }
        let mut start = [0; 2];
        self.reader.read_exact(&mut start).map_err(text)?;
        let length = match start[1] {
            126 => {
                let mut length = [0; 2];
                self.reader.read_exact(&mut length).map_err(text)?;
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).map_err(text)?;
        Ok(match start[0] {
            0x81 => {
                json!({"opcode": "text", "json": serde_json::from_slice::<Value>(&payload).map_err(|error| error.to_string())?})
            }
            0x88 => {
                json!({"opcode": "close", "close_code": payload.iter().fold(0_u64, |sum, byte| sum * 256 + u64::from(*byte))})
            }
            0x8a => json!({"opcode": "pong"}),
            other => json!({"opcode": other}),
        })
    }
}
