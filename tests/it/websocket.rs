//! Upgraded connections: a pipe after upstream's 101 to this client's key, and nothing before it.

use crate::client::{Request, read_answer};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn switching(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Version-Id: 11.6.0\r\n\r\n"
    )
    .into_bytes()
}

fn handshake() -> Request {
    Request::get("/api/v4/websocket?connection_id=&sequence_number=0")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY)
        .header("Origin", "https://chat.example")
}

/// Asks for an upgrade and sends `early` right behind it.
async fn connect(proxy: SocketAddr, early: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let bytes = [&handshake().bytes("chat.example")[..], early].concat();
    stream.write_all(&bytes).await.expect("the request is taken");
    stream
}

/// Answers the upgrade with `answer`, then sends back whatever comes and tells of it; nothing is the end.
async fn echoing(answer: Vec<u8>) -> (Upstream, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tells, told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let (answer, tells) = (answer.clone(), tells.clone());
        async move {
            let mut buffer = answer;
            loop {
                let _ = stream.write_all(&buffer).await;
                buffer.clear();
                let read = stream.read_buf(&mut buffer).await.unwrap_or(0);
                let _ = tells.send(buffer.clone());
                if read == 0 {
                    return;
                }
            }
        }
    })
    .await;
    (upstream, told)
}

#[actix_web::test]
async fn f38_silence_is_no_reason_to_end_a_tunnel() {
    let (upstream, _told) = echoing(switching(ACCEPT)).await;
    let limit = Duration::from_millis(100);
    let proxy = Proxy::with(upstream.address, |config| {
        let server = &mut config.server;
        (server.head_timeout, server.keep_alive) = (limit, limit);
        (server.body_idle_timeout, server.write_idle_timeout) = (limit, limit);
        config.upstream.idle_timeout = limit;
    });
    let mut stream = connect(proxy.address, b"").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 101);
    for _ in 0..3 {
        tokio::time::sleep(10 * limit).await;
        stream.write_all(b"still there?").await.expect("taken");
        let mut echo = [0; 12];
        stream.read_exact(&mut echo).await.expect("the tunnel is there");
    }
}

#[actix_web::test]
async fn messages_cross_both_ways() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        let key = seen.header("sec-websocket-key").expect("a key");
        let _ = stream.write_all(&switching(&derive_accept_key(key.as_bytes()))).await;
        let mut server = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        server.send(Message::text("hello")).await.expect("the client listens");
        while let Some(Ok(message)) = server.next().await {
            if message.is_close() || server.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let url = "ws://chat.example/api/v4/websocket";
    let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.expect("upgraded");

    assert_eq!(client.next().await.expect("a message").expect("whole"), Message::text("hello"));
    for message in [Message::text("{\"seq\":1}"), Message::binary(vec![9; 300_000]), Message::text("")] {
        client.send(message.clone()).await.expect("taken");
        assert_eq!(client.next().await.expect("a message").expect("whole"), message);
    }

    let seen = upstream.seen().pop().expect("asked");
    assert_eq!((seen.header("upgrade"), seen.header("host")), (Some("websocket"), Some("chat.example")));
    assert!(seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
}

#[actix_web::test]
async fn bytes_cross_as_they_are_early_ones_included() {
    let (upstream, _told) = echoing(switching(ACCEPT)).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(proxy.address, b"early").await;

    let switched = read_answer(&mut stream, "GET").await;
    assert_eq!((switched.status, switched.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!((switched.header("upgrade"), switched.header("x-version-id")), (Some("websocket"), Some("11.6.0")));
    let mut echoed = switched.body.to_vec();
    while echoed.len() < 5 {
        assert_ne!(stream.read_buf(&mut echoed).await.expect("an echo"), 0);
    }
    assert_eq!(echoed, b"early");

    let sent = (0..1 << 20).map(|n: u32| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect::<Vec<_>>();
    let (mut reads, mut writes) = stream.split();
    let mut echoed = vec![0; sent.len()];
    let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut echoed));
    written.expect("taken");
    read.expect("an echo");
    assert!(sent == echoed);
    assert_eq!(upstream.seen()[0].target(), "/api/v4/websocket?connection_id=&sequence_number=0");
}

#[actix_web::test]
async fn f38_when_one_side_ends_the_other_hears_of_it() {
    let (upstream, mut told) = echoing(switching(ACCEPT)).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(proxy.address, b"").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 101);
    drop(stream);
    assert_eq!(told.recv().await.expect("upstream hears"), b"");

    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        let _ = stream.write_all(&switching(ACCEPT)).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(proxy.address, b"").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 101);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[actix_web::test]
async fn a_101_to_another_key_opens_nothing() {
    for accept in [&derive_accept_key(b"another key")[..], "", &ACCEPT.to_ascii_lowercase()] {
        let (upstream, mut told) = echoing(switching(accept)).await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = connect(proxy.address, b"GET /smuggled HTTP/1.1\r\n\r\n").await;

        let answer = read_answer(&mut stream, "GET").await;

        assert_eq!((answer.status, answer.json()["id"].as_str()), (502, Some("avatar_proxy.upstream.broken")));
        assert_eq!(told.recv().await.expect("upstream hears"), b"", "early bytes went upstream");
    }
}

#[actix_web::test]
async fn f37_another_answer_is_passed_on_and_opens_nothing() {
    for status in ["200 OK", "400 Bad Request", "403 Forbidden"] {
        let (upstream, mut told) = echoing(answer(status, &[("X-Version-Id", "11.6.0")], b"no")).await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = connect(proxy.address, b"GET /smuggled HTTP/1.1\r\n\r\n").await;

        let answer = read_answer(&mut stream, "GET").await;

        assert_eq!((answer.status.to_string().as_str(), &answer.body[..]), (&status[..3], &b"no"[..]));
        assert_eq!((answer.header("x-version-id"), answer.header("connection")), (Some("11.6.0"), Some("close")));
        drop(stream);
        assert_eq!(told.recv().await.expect("upstream hears"), b"", "early bytes went upstream");
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[actix_web::test]
async fn f31_no_other_upgrade_is_offered() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"plain")).await;
    let proxy = Proxy::before(upstream.address);
    for request in [
        Request::get("/x").header("Upgrade", "h2c").header("Connection", "Upgrade, HTTP2-Settings"),
        Request::get("/x").header("Upgrade", "websocket, h2c").header("Connection", "Upgrade"),
    ] {
        let answer = proxy.send(&request.header("HTTP2-Settings", "AAMAAABkAAQAAP__")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"plain"[..]));
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn f31_a_handshake_with_a_body_is_refused_before_upstream_hears_of_it() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"plain")).await;
    let proxy = Proxy::before(upstream.address);
    let handshake = |method| Request::new(method, "/x").header("Upgrade", "websocket").header("Connection", "Upgrade");
    for request in [
        handshake("POST"),
        handshake("POST").body("ten bytes."),
        handshake("GET").header("Content-Length", "10"),
        handshake("GET").header("Transfer-Encoding", "chunked"),
        handshake("GET").header("Upgrade", "h2c").header("Content-Length", "10"),
    ] {
        let answer = proxy.send(&request).await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{request:?}");
        assert_eq!(answer.json()["id"], "avatar_proxy.header.upgrade");
    }
    assert_eq!(upstream.seen().len(), 0);
}
