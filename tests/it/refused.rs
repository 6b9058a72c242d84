//! What is no request is answered like everything else that we refuse: in Mattermost's shape, counted, and the connection
//! ends with it.

use crate::client::{Answer, PATIENCE, Request, read_answer};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::Upstream;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn refused(proxy: &Proxy, reason: &str) -> u64 {
    proxy.metric(&format!("avatar_proxy_refusals_total{{reason=\"{reason}\"}}")).await
}

/// That an answer is one of ours, of this kind, and the last of its connection.
async fn check_last(mut stream: TcpStream, answer: &Answer, status: u16, id: &str) {
    assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{answer:?}");
    assert_eq!(
        (answer.header("content-type"), answer.header("cache-control")),
        (Some("application/json"), Some("no-store"))
    );
    assert_eq!(answer.json()["id"], id);
    assert_eq!(answer.json()["request_id"], answer.header("x-request-id").expect("a name"));
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    assert_eq!(rest, b"");
}

#[actix_web::test]
async fn f32_what_is_no_request_is_refused_and_counted() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: x\r\n".repeat(200));
    for (count, (sent, status, id, reason)) in [
        ("NONSENSE\r\n\r\n", 400, "avatar_proxy.request.malformed", "malformed"),
        ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", 400, "avatar_proxy.request.malformed", "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "avatar_proxy.request.malformed", "malformed"),
        (&long, 431, "avatar_proxy.request.head_too_large", "long_head"),
        (&many, 431, "avatar_proxy.request.head_too_large", "long_head"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        // It may hang up before all is sent.
        let _ = stream.write_all(sent.as_bytes()).await;
        let answer = read_answer(&mut stream, "GET").await;
        check_last(stream, &answer, status, id).await;
        assert_eq!(
            refused(&proxy, reason).await,
            u64::try_from(if count < 3 { count + 1 } else { count - 2 }).expect("few")
        );
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[actix_web::test]
async fn nonsense_behind_a_request_is_counted_and_does_not_touch_its_answer() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::granting(upstream.address);
    let request = Request::picture("size=32").bytes("chat.example");
    proxy.send(&Request::picture("size=32")).await;
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        let before = refused(&proxy, "malformed").await;
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let sent = if pause.is_zero() { [&request[..], b"NONSENSE\r\n\r\n"].concat() } else { request.clone() };
        stream.write_all(&sent).await.expect("taken");
        let answer = read_answer(&mut stream, "GET").await;
        assert_eq!((answer.status, answer.complete), (200, true));
        assert_eq!(answer.dimensions(), (32, 32));
        if !pause.is_zero() {
            stream.write_all(b"NONSENSE\r\n\r\n").await.expect("taken");
            let answer = read_answer(&mut stream, "GET").await;
            check_last(stream, &answer, 400, "avatar_proxy.request.malformed").await;
        }
        while refused(&proxy, "malformed").await == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(refused(&proxy, "malformed").await, before + 1);
    }
}

#[actix_web::test]
async fn f28_a_head_that_does_not_become_whole_is_answered_408() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::with(upstream.address, |config| config.server.head_timeout = Duration::from_millis(200));
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.expect("taken");
    let answer = read_answer(&mut stream, "GET").await;
    check_last(stream, &answer, 408, "avatar_proxy.request.timeout").await;
    assert_eq!(refused(&proxy, "slow_head").await, 1);
}
