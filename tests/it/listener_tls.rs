//! HTTPS with clients: what they are shown, what upstream is told of it, and who does not get that far.

use crate::client::{PATIENCE, Request};
use crate::pictures::{photo, png};
use crate::process::{Folder, PROGRAM, Process};
use crate::proxy::Proxy;
use crate::tls::{FIRST, SECOND, connect, encrypted, is_shown};
use crate::upstream::{Upstream, answer};
use crate::websocket::{ACCEPT, handshake, switching};
use avatar_proxy::config::Config;
use avatar_proxy::server::{Bound, StartError};
use avatar_proxy::telemetry::Telemetry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Sends a request and reads the status and a body of known length.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &Request) -> (String, Vec<u8>) {
    stream.write_all(&request.bytes("chat.example")).await.expect("taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a body");
    (head.lines().next().expect("a status line").to_owned(), body)
}

#[actix_web::test]
async fn requests_over_tls_are_like_others_and_upstream_is_told() {
    let upstream = Upstream::answering(answer("200 OK", &[], &vec![7; 1 << 20])).await;
    let folder = Folder::new();
    let proxy = Proxy::with(upstream.address, encrypted(&folder, FIRST));
    let mut kept = Vec::new();
    for protocols in [&[][..], &["http/1.1"], &["spdy/3", "http/1.1"]] {
        let mut stream = connect(proxy.address, protocols).await;
        assert!(is_shown(&stream, FIRST));
        for _ in 0..3 {
            let (status, body) = ask(&mut stream, &Request::get("/api/v4/files/1")).await;
            assert_eq!((status.as_str(), body.len()), ("HTTP/1.1 200 OK", 1 << 20));
        }
        kept.push(stream);
    }
    for seen in upstream.seen() {
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"), "{seen:?}");
    }
    assert_eq!(proxy.metric("avatar_proxy_connections").await, 3);
}

/// And is told of the end in TLS, too.
#[actix_web::test]
async fn f27_who_was_silent_for_a_while_over_tls_is_served_as_before() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"here")).await;
    let folder = Folder::new();
    let proxy = Proxy::with(upstream.address, |config| {
        encrypted(&folder, FIRST)(config);
        config.server.keep_alive = Duration::from_secs(5);
    });
    let mut stream = connect(proxy.address, &["http/1.1"]).await;
    for _ in 0..2 {
        assert_eq!(ask(&mut stream, &Request::get("/")).await.1, b"here");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.expect("it ends");
    assert_eq!(ended.expect("and says so"), 0);
}

#[actix_web::test]
async fn f38_a_tunnel_over_tls_carries_both_ways_and_each_side_may_end_first() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        stream.write_all(&switching(ACCEPT)).await.expect("taken");
        let mut said = vec![0; 1 << 20];
        stream.read_exact(&mut said).await.expect("a mebibyte");
        stream.write_all(&said).await.expect("taken");
        said.clear();
        stream.read_to_end(&mut said).await.expect("an end");
        stream.write_all(&[b"farewell to ", &said[..]].concat()).await.expect("taken");
    })
    .await;
    let folder = Folder::new();
    let proxy = Proxy::with(upstream.address, encrypted(&folder, FIRST));
    let mut stream = connect(proxy.address, &["http/1.1"]).await;
    stream.write_all(&handshake().bytes("chat.example")).await.expect("taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");

    let said = (0..1 << 20).map(|n: u32| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect::<Vec<_>>();
    let mut echoed = vec![0; said.len()];
    let (mut reads, mut writes) = tokio::io::split(&mut stream);
    let says = async {
        writes.write_all(&said).await?;
        writes.flush().await
    };
    let (said_all, heard_all) = tokio::join!(says, reads.read_exact(&mut echoed));
    said_all.expect("taken");
    heard_all.expect("an echo");
    assert!(said == echoed);
    stream.write_all(b"one who leaves").await.expect("taken");
    stream.shutdown().await.expect("a socket");
    let mut last = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut last)).await.expect("an end").expect("an orderly one");
    assert_eq!(last, "farewell to one who leaves");
}

#[actix_web::test]
async fn f28_a_handshake_that_does_not_come_ends_the_connection() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let folder = Folder::new();
    let limit = Duration::from_millis(300);
    let proxy = Proxy::with(upstream.address, |config| {
        encrypted(&folder, FIRST)(config);
        config.server.head_timeout = limit;
    });
    // Nothing, half a record, and a record that is none.
    for begin in [&b""[..], b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n"] {
        let mut stream = TcpStream::connect(proxy.address).await.expect("it listens");
        stream.write_all(begin).await.expect("taken");
        let (started, mut said) = (Instant::now(), Vec::new());
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection ends");
        assert!(!said.starts_with(b"HTTP"), "{said:?}");
        assert!(started.elapsed() < 10 * limit, "{:?}", started.elapsed());
    }
    // What comes after it has the same limit, and is told.
    let mut stream = connect(proxy.address, &[]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost").await.expect("taken");
    let mut said = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("the connection ends").expect("well");
    assert!(said.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{said}");
    assert_eq!(upstream.seen().len(), 0);
}

#[actix_web::test]
async fn f52_a_certificate_without_its_key_stops_the_start() {
    let folder = Folder::new();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().expect("an address");
    config.admin.listen = None;
    encrypted(&folder, (FIRST.0, SECOND.1))(&mut config);

    let error = Bound::bind(config, Arc::new(Telemetry::new())).err().expect("they do not fit");

    assert!(matches!(&error, StartError::Certificate(error) if error.key == "server.tls.key"), "{error}");
    assert!(error.to_string().contains("it is not the key of the certificate in "), "{error}");
}

#[actix_web::test]
async fn a_hangup_shows_a_new_certificate_and_drops_nobody() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let folder = Folder::new();
    let (certificate, key) = (folder.put("cert.pem", FIRST.0), folder.put("key.pem", FIRST.1));
    let mut command = Process::command(PROGRAM, upstream.address);
    command.env("AVATAR_PROXY__SERVER__TLS__CERTIFICATE", &certificate).env("AVATAR_PROXY__SERVER__TLS__KEY", &key);
    let process = Process::start(&mut command);
    let mut old = connect(process.address, &[]).await;
    assert!(is_shown(&old, FIRST));

    folder.put("cert.pem", SECOND.0);
    process.signal("HUP");
    let told = process.says("the certificate stays as it was");
    assert!(told.contains("server.tls.key"), "{told}");
    assert!(is_shown(&connect(process.address, &[]).await, FIRST));

    folder.put("key.pem", SECOND.1);
    process.signal("HUP");
    process.says("the certificate was read again");
    assert!(is_shown(&connect(process.address, &[]).await, SECOND));
    assert_eq!(ask(&mut old, &Request::picture("size=32")).await.0, "HTTP/1.1 200 OK");
}
