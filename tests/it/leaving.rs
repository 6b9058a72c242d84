//! Clients that leave before they are answered, and those who never are: upstream's connection goes with the one, and a
//! time-out ends the other. Every time-out that is not the one in question is longer than a test lasts.

use crate::client::{PATIENCE, Request};
use crate::pictures::{photo, png};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, picture_answer, stalling_after, taking_all, told};
use avatar_proxy::config::Config;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const NEVER: Duration = PATIENCE.saturating_mul(2);

fn never(config: &mut Config) {
    config.upstream.head_timeout = NEVER;
    config.upstream.idle_timeout = NEVER;
    config.upstream.picture_timeout = NEVER;
    config.upstream.passthrough_timeout = NEVER;
    config.upstream.max_picture_requests = 1;
    config.server.workers = 1;
}

async fn sent(proxy: SocketAddr, request: &Request) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    stream.write_all(&request.bytes("chat.example")).await.expect("the request is taken");
    stream
}

#[actix_web::test]
async fn f23_who_leaves_before_the_head_takes_upstreams_connection_along() {
    let (upstream, mut ended) = stalling_after(b"").await;
    let proxy = Proxy::with(upstream.address, never);
    let requests = [
        Request::picture("size=32"),
        Request::get("/api/v4/posts"),
        Request::new("POST", "/api/v4/posts").body("{}"),
        // There is one place for pictures, and it is free again.
        Request::picture("size=64"),
    ];
    for (n, request) in requests.iter().enumerate() {
        for (resets, count) in [(false, 2 * n + 1), (true, 2 * n + 2)] {
            let stream = sent(proxy.address, request).await;
            upstream.has_seen(count).await;
            if resets {
                stream.set_zero_linger().expect("a socket");
            }
            drop(stream);
            told(&mut ended).await;
        }
    }
    while proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
        tokio::task::yield_now().await;
    }
}

/// What was begun for a client goes on without it; but not a body of which no more can come.
#[actix_web::test]
async fn f26_a_body_that_makes_no_sense_ends_what_was_begun_with_it() {
    let (upstream, mut taken) = taking_all().await;
    let proxy = Proxy::with(upstream.address, |config| {
        never(config);
        config.server.body_idle_timeout = NEVER;
    });
    for (n, body) in ["Z\r\n", "3\r\nabc\r\nZ\r\n"].into_iter().enumerate() {
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let head = "POST /api/v4/users/logout HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("taken");
        upstream.has_seen(n + 1).await;
        stream.write_all(body.as_bytes()).await.expect("taken");
        let seen = told(&mut taken).await;
        assert!(!seen.ends_with(b"0\r\n\r\n"), "{seen:?}");
    }
}

/// Nobody has answered it, neither well nor badly.
#[actix_web::test]
async fn f23_who_leaves_before_the_head_was_not_answered() {
    let (upstream, mut ended) = stalling_after(b"").await;
    let proxy = Proxy::with(upstream.address, never);
    let counters = [
        "avatar_proxy_requests_total{route=\"passthrough\",outcome=\"left\"}",
        "avatar_proxy_requests_total{route=\"passthrough\",outcome=\"failed\"}",
        "avatar_proxy_responses_total{route=\"passthrough\",status_class=\"4xx\"}",
        "avatar_proxy_responses_total{route=\"passthrough\",status_class=\"5xx\"}",
        "avatar_proxy_refusals_total{reason=\"malformed\"}",
    ];
    let leaves = sent(proxy.address, &Request::get("/x")).await;
    // One that leaves before is no request.
    upstream.has_seen(1).await;
    drop(leaves);
    told(&mut ended).await;
    while proxy.metric(counters[0]).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.metrics(&counters).await, [1, 0, 0, 0, 0]);

    // Who sends nonsense behind the head did not leave: it was let go, without a word.
    let nonsense = Request::new("POST", "/x").header("Transfer-Encoding", "chunked").body("nonsense\r\n");
    let mut stream = sent(proxy.address, &nonsense).await;
    let mut said = Vec::new();
    // It may be a reset.
    let _ = stream.read_to_end(&mut said).await;
    assert_eq!(said, b"");
    while proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.metrics(&counters).await, [1, 1, 0, 0, 1]);
}

#[actix_web::test]
async fn f25_who_leaves_while_a_download_stalls_takes_upstreams_connection_along() {
    let (upstream, mut ended) = stalling_after(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let proxy = Proxy::with(upstream.address, never);
    let mut stream = sent(proxy.address, &Request::get("/api/v4/files/1")).await;
    let mut read = Vec::new();
    while !read.ends_with(b"half") {
        assert!(stream.read_buf(&mut read).await.expect("an answer") > 0);
    }
    // All has been read, so this is an orderly end and no reset.
    drop(stream);
    told(&mut ended).await;
}

#[actix_web::test]
async fn f25_a_download_that_nobody_reads_any_more_is_stopped() {
    let (tells, mut ended) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n";
            let mut taken = stream.write_all(head).await;
            while taken.is_ok() {
                taken = stream.write_all(&[7; 8 << 10]).await;
            }
            let _ = tells.send(());
        }
    })
    .await;
    let proxy = Proxy::with(upstream.address, never);
    let mut stream = sent(proxy.address, &Request::get("/api/v4/files/1")).await;
    stream.read_exact(&mut [0; 10_000]).await.expect("a download");
    drop(stream);
    told(&mut ended).await;
}

#[actix_web::test]
async fn f02_silence_to_what_passes_through_is_504_in_its_own_time() {
    let (upstream, _ended) = stalling_after(b"").await;
    let proxy = Proxy::with(upstream.address, |config| {
        never(config);
        config.upstream.passthrough_timeout = SHORT;
    });
    for request in [Request::get("/api/v4/posts"), Request::new("POST", "/api/v4/posts").body("{}")] {
        let answer = proxy.send(&request).await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (504, Some("avatar_proxy.upstream.timeout")));
    }
    // What is asked once is not asked again after a time-out.
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn shared_caches_are_told_to_keep_no_picture() {
    let picture = png(&photo(1));
    let upstream = Upstream::replying(move |_, seen| match seen.target() {
        target if target.contains("/image") => picture_answer("1", &picture),
        _ => picture_answer("2", b"text"),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let seen = |answer: &crate::client::Answer| {
        let field = |name| answer.header(name).map(str::to_owned);
        (field("x-accel-expires"), field("cdn-cache-control"))
    };
    let told = (Some("0".to_owned()), Some("no-store".to_owned()));
    for query in ["size=32", "size=32", "format=original"] {
        for field in ["Via", "Forwarded", "X-Real-IP", "X-Forwarded-For"] {
            let request = Request::picture(query).header(field, "192.0.2.1");
            assert_eq!(seen(&proxy.send(&request).await), told, "{query} {field}");
        }
    }
    let again = Request::picture("format=original").header("If-None-Match", "1");
    // From memory to a client that came by itself: nobody is between.
    let direct = proxy.send(&again).await;
    assert_eq!((direct.status, seen(&direct)), (304, (None, None)));
    let again = proxy.send(&again.header("X-Forwarded-For", "192.0.2.1")).await;
    assert_eq!((again.status, seen(&again)), (304, told));
    // What passes through is none of our business.
    assert_eq!(seen(&proxy.send(&Request::get("/api/v4/posts")).await), (None, None));
}
