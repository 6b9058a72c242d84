//! What is around a tunnel: what becomes of a handshake that comes to nothing, and how a tunnel is bounded and counted.

use crate::client::{Connection, PATIENCE, Request, read_answer};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer, drain, send_and_close, stalling_after, told};
use crate::websocket::{ACCEPT, agreeing, connect, echoing, handshake, rest, switching, tunnel};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

const IN_FLIGHT: &str = "avatar_proxy_in_flight_requests";
const CONNECTIONS: &str = "avatar_proxy_connections";

#[actix_web::test]
async fn f23_who_leaves_a_handshake_takes_upstreams_connection_along() {
    // Without a word of upstream's, and in the midst of what it says instead of a 101.
    for beginning in [&b""[..], b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf"] {
        let (upstream, mut ended) = stalling_after(beginning).await;
        let proxy = Proxy::before(upstream.address);
        for (early, count) in [(&b""[..], 1), (b"more", 2)] {
            let stream = connect(proxy.address, early).await;
            // One that leaves before is no matter of upstream's.
            upstream.has_seen(count).await;
            drop(stream);
            told(&mut ended).await;
        }
        while proxy.metric(IN_FLIGHT).await > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[actix_web::test]
async fn f37_what_is_said_instead_of_a_101_arrives_whole_and_ends_the_connection() {
    let body = vec![7; 3 << 20];
    let long = answer("403 Forbidden", &[], &body);
    let chunked =
        [&b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n"[..], &body, b"\r\n0\r\n\r\n"];
    for (said, is_counted) in [(long, true), (chunked.concat(), false)] {
        let upstream = Upstream::answering(said).await;
        let proxy = Proxy::before(upstream.address);
        // What it sends meanwhile must not reset the connection before all has arrived.
        let mut stream = connect(proxy.address, &[0x55; 16_000]).await;
        let got = read_answer(&mut stream, "GET").await;
        assert_eq!((got.status, got.body.len(), got.complete), (403, body.len(), true));
        assert_eq!((got.header("connection"), got.header("transfer-encoding")), (Some("close"), None));
        assert_eq!(got.header("content-length").is_some(), is_counted);
    }
}

/// A handshake that came with the request before it, and with frames behind it.
#[actix_web::test]
async fn a_handshake_that_does_not_wait_for_the_answer_before_it_has_its_turn() {
    let may_answer = Arc::new(Notify::new());
    let waits = may_answer.clone();
    let upstream = Upstream::scripted(move |n, _, mut stream| {
        let waits = waits.clone();
        async move {
            if n == 0 {
                waits.notified().await;
                return send_and_close(&mut stream, &answer("200 OK", &[], b"first")).await;
            }
            stream.write_all(&switching(ACCEPT)).await.expect("taken");
            let mut early = [0; 5];
            stream.read_exact(&mut early).await.expect("what was said early");
            let _ = stream.write_all(&early).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let [first, second] = [Request::get("/first"), handshake()].map(|request| request.bytes("chat.example"));
    stream.write_all(&[&first[..], &second, b"early"].concat()).await.expect("taken");
    upstream.has_seen(1).await;
    may_answer.notify_one();

    let answers = String::from_utf8(rest(&mut stream).await).expect("text");

    assert!(answers.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
    let (_, switched) = answers.split_once("first").expect("the first answer");
    assert!(switched.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answers}");
    assert!(switched.ends_with("\r\n\r\nearly"), "{switched}");
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn a_connection_that_served_before_may_become_a_tunnel() {
    let upstream = Upstream::scripted(|n, _, mut stream| async move {
        if n < 3 {
            return send_and_close(&mut stream, &answer("200 OK", &[], b"plain")).await;
        }
        stream.write_all(&switching(ACCEPT)).await.expect("taken");
        drain(&mut stream).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut client = Connection::to(proxy.address).await;
    for _ in 0..3 {
        assert_eq!(client.send(&Request::get("/api/v4/posts")).await.status, 200);
    }
    assert_eq!(client.send(&handshake()).await.status, 101);
    assert_eq!(proxy.metrics(&[CONNECTIONS, IN_FLIGHT]).await, [1, 1]);
}

#[actix_web::test]
async fn f37_however_much_is_said_early_it_goes_after_the_101_and_first() {
    let may_agree = Arc::new(Notify::new());
    let waits = may_agree.clone();
    let (tells, mut heard) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let (waits, tells) = (waits.clone(), tells.clone());
        async move {
            waits.notified().await;
            // Nothing came behind the head.
            let _ = tells.send(seen.raw.ends_with(b"\r\n\r\n") && stream.try_read(&mut [0]).is_err());
            let _ = stream.write_all(&switching(ACCEPT)).await;
            let mut said = vec![0; 300_000];
            stream.read_exact(&mut said).await.expect("all of it");
            let _ = stream.write_all(&said).await;
            drain(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let early = (0..300_000).map(|n: u32| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect::<Vec<_>>();
    let stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let (mut reads, mut writes) = stream.into_split();
    let all = [&handshake().bytes("chat.example")[..], &early].concat();
    let says = actix_web::rt::spawn(async move { writes.write_all(&all).await.map(|()| writes) });
    upstream.has_seen(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    may_agree.notify_one();
    assert!(told(&mut heard).await, "early bytes went upstream");
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(reads.read_u8().await.expect("a head"));
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    let mut echoed = vec![0; early.len()];
    tokio::time::timeout(PATIENCE, reads.read_exact(&mut echoed)).await.expect("in time").expect("an echo");
    assert!(echoed == early);
    says.await.expect("no panic").expect("taken");
}

#[actix_web::test]
async fn f30_a_client_that_takes_nothing_of_a_tunnel_is_left() {
    let (tells, mut ended) = mpsc::unbounded_channel();
    let upstream = agreeing(move |mut stream| {
        let tells = tells.clone();
        async move {
            while stream.write_all(&[7; 8 << 10]).await.is_ok() {}
            let _ = tells.send(());
        }
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.server.write_idle_timeout = SHORT);
    let stream = connect(proxy.address, b"").await;
    told(&mut ended).await;
    while proxy.metric(CONNECTIONS).await > 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
}

/// Upstream is waited for when the client has said its last, but not for ever: nobody reads that client any more.
#[actix_web::test]
async fn f38_who_has_said_its_last_is_not_waited_for_longer_than_upstream_may_be_silent() {
    let (tells, mut heard) = mpsc::unbounded_channel();
    let upstream = agreeing(move |mut stream| {
        let tells = tells.clone();
        async move {
            let _ = tells.send(rest(&mut stream).await);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.upstream.idle_timeout = SHORT);
    let mut stream = tunnel(&proxy).await;
    stream.write_all(b"last words").await.expect("taken");
    stream.shutdown().await.expect("a socket");
    assert_eq!(told(&mut heard).await, b"last words");
    assert_eq!(rest(&mut stream).await, b"");
    while proxy.metric(CONNECTIONS).await > 0 {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn a_tunnel_is_one_request_as_long_as_it_lasts() {
    let (upstream, _told) = echoing(switching(ACCEPT)).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = tunnel(&proxy).await;
    stream.write_all(&[7; 16_000]).await.expect("taken");
    stream.read_exact(&mut [0; 16_000]).await.expect("an echo");
    let answered = "avatar_proxy_requests_total{route=\"websocket\",outcome=\"passed\"}";
    let passed = "avatar_proxy_client_bytes_total{route=\"websocket\"}";
    assert_eq!(proxy.metrics(&[IN_FLIGHT, CONNECTIONS, answered]).await, [1, 1, 0]);
    drop(stream);
    while proxy.metric(IN_FLIGHT).await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.metrics(&[answered, passed]).await, [1, 16_000]);
}
