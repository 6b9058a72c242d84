//! An upstream that costs little: answers made once, and bodies that nobody looks at.

use crate::message::{body_of, length_of};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long [`SLOW`] takes.
const THINKS: Duration = Duration::from_millis(20);
/// The target that is answered late.
pub(crate) const SLOW: &str = "/slow";
/// What comes before the number of bytes of a target that is answered with so many.
pub(crate) const DOWN: &str = "/down/";

/// A channel, as Mattermost 11 sends it.
const CHANNEL: &str = concat!(
    r#"{"id":"oq3p7mxkr3yz8mh9fq1s5rsw6a","create_at":1795434304405,"update_at":1795434304405,"delete_at":0,"#,
    r#""team_id":"6n5b3cqkbtyh9fe8ndgbpwmqwe","type":"O","display_name":"Release Engineering","name":"release-engineering","#,
    r#""header":"Builds: https://ci.example.com | On call: @erin","purpose":"Everything about getting builds out","#,
    r#""last_post_at":1795434999123,"total_msg_count":18231,"extra_update_at":0,"creator_id":"ge45wmpse3g8umtziei4q749th","#,
    r#""scheme_id":"","props":null,"group_constrained":null,"shared":null,"total_msg_count_root":9120}"#
);
/// The header of its answers.
const FIELDS: &str = concat!(
    "Content-Type: application/json\r\n",
    "Etag: 11.6.0.oq3p7mxkr3yz8mh9fq1s5rsw6a.1795434304405\r\n",
    "Expires: 0\r\n",
    "Permissions-Policy: \r\n",
    "Referrer-Policy: no-referrer\r\n",
    "Vary: Accept-Encoding\r\n",
    "X-Content-Type-Options: nosniff\r\n",
    "X-Request-Id: 4dwh1rs38prz7eaxuxdasej88a\r\n",
    "X-Version-Id: 11.6.0.dev.10ccc139158137a46645a2e13e81db3ba93b2d8b2ddc97900709476a4cd69741.false\r\n",
    "Date: Mon, 23 Nov 2026 11:45:04 GMT\r\n",
);
/// The answer to the key that every handshake of the load has (RFC 6455 section 1.3).
const SWITCHED: &str = concat!(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
);
/// What each WebSocket hears first.
const HELLO: &str = r#"{"event":"hello","data":{"connection_id":"1tnuu5p6otgn9k9id1ui8bmq9h"},"broadcast":{},"seq":0}"#;

/// Serves on this thread for as long as its tasks are driven.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks is the load's to notice.
            tokio::task::spawn_local(async { _ = serve(stream).await });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let channel = format!("HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: {}\r\n\r\n{CHANNEL}", CHANNEL.len());
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let body = loop {
            if let Some(body) = body_of(&buffer) {
                break body;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let target = target_of(&buffer).to_owned();
        let mut left = length_of(&buffer[..body]).saturating_sub(buffer.len() - body);
        buffer.clear();
        if left > 0 {
            swallow(&mut stream, &mut left).await?;
        }
        if target.ends_with("/websocket") {
            return hold(stream).await;
        } else if let Some(length) = target.strip_prefix(DOWN) {
            send(&mut stream, length.parse().expect("a number")).await?;
        } else {
            if target == SLOW {
                tokio::time::sleep(THINKS).await;
            }
            stream.write_all(channel.as_bytes()).await?;
        }
    }
}

fn target_of(head: &[u8]) -> &str {
    let line = head.split(|byte| *byte == b'\r').next().expect("a first line");
    std::str::from_utf8(line).ok().and_then(|line| line.split(' ').nth(1)).expect("a target")
}

async fn swallow(stream: &mut TcpStream, left: &mut usize) -> io::Result<()> {
    let mut waste = vec![0; BLOCK.min(*left)];
    while *left > 0 {
        let room = waste.len().min(*left);
        match stream.read(&mut waste[..room]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => *left -= read,
        }
    }
    Ok(())
}

/// How much of a long body is read or written at once.
const BLOCK: usize = 256 << 10;

async fn send(stream: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {left}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let block = vec![b'x'; BLOCK.min(left)];
    while left > 0 {
        let part = &block[..block.len().min(left)];
        stream.write_all(part).await?;
        left -= part.len();
    }
    Ok(())
}

/// A WebSocket that says one thing and then nothing.
async fn hold(mut stream: TcpStream) -> io::Result<()> {
    let length = u8::try_from(HELLO.len()).expect("a short frame");
    // One unmasked text frame (RFC 6455 section 5.2).
    let said = [SWITCHED.as_bytes(), &[0x81, length], HELLO.as_bytes()].concat();
    stream.write_all(&said).await?;
    while stream.read(&mut [0; 256]).await? > 0 {}
    Ok(())
}
