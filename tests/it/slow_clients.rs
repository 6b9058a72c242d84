//! Clients that take their time: each phase of a connection has a limit that fires, and what only waits is left alone.

use crate::client::{Connection, PATIENCE, Request, read_answer};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, drain, send_and_close};
use crate::websocket::{ACCEPT, handshake, switching};
use avatar_proxy::config::Config;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What every limit of these tests is, but those that a test is not about.
const LIMIT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3600);

fn patient(config: &mut Config) {
    let server = &mut config.server;
    (server.head_timeout, server.keep_alive) = (LONG, LONG);
    (server.body_idle_timeout, server.write_idle_timeout) = (LONG, LONG);
}

fn hurried(config: &mut Config) {
    let server = &mut config.server;
    (server.head_timeout, server.keep_alive) = (LIMIT, LIMIT);
    (server.body_idle_timeout, server.write_idle_timeout) = (LIMIT, LIMIT);
}

/// Reads until the connection ends: what came, and how long that took.
async fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let (started, mut said) = (Instant::now(), Vec::new());
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the connection ends");
    (String::from_utf8_lossy(&said).into_owned(), started.elapsed())
}

async fn connect(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("the proxy listens");
    stream.write_all(bytes).await.expect("taken");
    stream
}

/// That this took as long as it should. Only a machine that stands still makes it much longer.
fn check_took(took: Duration) {
    // The client's clock starts a moment after the proxy's.
    assert!(took + Duration::from_millis(50) > LIMIT && took < 10 * LIMIT, "{took:?}");
}

async fn pictures() -> Upstream {
    Upstream::showing("1", png(&photo(1))).await
}

#[actix_web::test]
async fn f28_a_head_that_does_not_come_ends_the_connection() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.head_timeout = LIMIT;
    });
    for begin in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut stream = connect(proxy.address, begin.as_bytes()).await;
        check_took(until_closed(&mut stream).await.1);
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[actix_web::test]
async fn f28_a_head_that_trickles_ends_the_connection() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.head_timeout = LIMIT;
    });
    let (mut reader, mut writer) = connect(proxy.address, b"GET / HTTP/1.1\r\nX: ").await.into_split();
    let trickle = actix_web::rt::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (started, mut said) = (Instant::now(), Vec::new());
    let _ = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut said)).await.expect("the connection ends");
    check_took(started.elapsed());
    trickle.await.expect("it ends as well");
}

#[actix_web::test]
async fn f28_a_later_head_has_the_same_limit_from_its_first_byte() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.head_timeout = LIMIT;
    });
    let counted = Request::new("POST", "/api/v4/posts").body("{}");
    let chunked =
        Request::new("POST", "/api/v4/posts").header("Transfer-Encoding", "chunked").body("2\r\n{}\r\n0\r\n\r\n");
    for first in [Request::picture("size=32"), counted, chunked] {
        let mut stream = connect(proxy.address, &first.bytes("chat.example")).await;
        assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
        // Nothing yet, so no head is late.
        tokio::time::sleep(3 * LIMIT).await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("the connection is there");
        check_took(until_closed(&mut stream).await.1);
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[actix_web::test]
async fn f27_idle_connections_end_and_are_counted() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.keep_alive = LIMIT;
    });
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(proxy.address, &Request::picture("size=32").bytes("chat.example")).await;
        assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
        idle.push(stream);
    }
    let last = idle.last_mut().expect("a hundred");
    let (said, took) = until_closed(last).await;
    assert_eq!(said, "");
    check_took(took);
    for stream in &mut idle {
        until_closed(stream).await;
    }
    while proxy.metric("avatar_proxy_connections").await > 0 {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn f27_a_connection_that_is_used_is_kept() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.keep_alive = 2 * LIMIT;
        config.server.head_timeout = 2 * LIMIT;
    });
    let mut connection = Connection::to(proxy.address).await;
    for _ in 0..8 {
        assert_eq!(connection.send(&Request::picture("size=32")).await.status, 200);
        tokio::time::sleep(LIMIT / 2).await;
    }
}

/// An upstream that echoes what is said over a tunnel, and answers everything else.
async fn echoing_or_not() -> Upstream {
    Upstream::scripted(|_, seen, mut stream| async move {
        if seen.header("upgrade").is_none() {
            return send_and_close(&mut stream, &answer("200 OK", &[], b"here")).await;
        }
        stream.write_all(&switching(ACCEPT)).await.expect("taken");
        let mut word = [0; 5];
        while stream.read_exact(&mut word).await.is_ok() && stream.write_all(&word).await.is_ok() {}
    })
    .await
}

/// What is held for a connection is let go of when nothing is said over it for a while, and nobody notices.
#[actix_web::test]
async fn f27_who_was_silent_for_a_while_is_served_as_before() {
    const A_WHILE: Duration = Duration::from_secs(3);
    let upstream = echoing_or_not().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.head_timeout = 3 * LIMIT;
    });
    let (get, post) = (Request::get("/api/v4/config/client"), Request::new("POST", "/api/v4/posts").body("{}"));
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut stream = connect(proxy.address, &get.bytes("chat.example")).await;
        assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
        silent.push(stream);
    }
    tokio::time::sleep(A_WHILE).await;
    let [whole, pieces, together, tunnel, half, leaves] = &mut silent[..] else { panic!("six") };

    for _ in 0..2 {
        whole.write_all(&get.bytes("chat.example")).await.expect("taken");
        assert_eq!(&read_answer(whole, "GET").await.body[..], b"here");
    }
    for byte in post.bytes("chat.example") {
        pieces.write_all(&[byte]).await.expect("taken");
    }
    assert_eq!(&read_answer(pieces, "POST").await.body[..], b"here");
    together.write_all(&[post.bytes("chat.example"), get.bytes("chat.example")].concat()).await.expect("taken");
    for method in ["POST", "GET"] {
        assert_eq!(&read_answer(together, method).await.body[..], b"here");
    }
    tunnel.write_all(&[&handshake().bytes("chat.example")[..], b"early"].concat()).await.expect("taken");
    let switched = read_answer(tunnel, "GET").await;
    assert_eq!(switched.status, 101);
    // The echo may have come with it.
    let mut word = switched.body.to_vec();
    while word.len() < 5 {
        assert!(tunnel.read_buf(&mut word).await.expect("an echo") > 0);
    }
    assert_eq!(word, b"early");
    half.write_all(b"GET / HTTP/1.1\r\n").await.expect("taken");
    assert!(until_closed(half).await.0.starts_with("HTTP/1.1 408 "));
    leaves.shutdown().await.expect("a socket");
    assert_eq!(until_closed(leaves).await.0, "");
    while proxy.metric("avatar_proxy_connections").await > 4 {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn f27_who_stays_silent_is_let_go() {
    let upstream = echoing_or_not().await;
    for drains in [true, false] {
        let mut proxy = Proxy::with(upstream.address, |config| {
            patient(config);
            config.server.shutdown_timeout = LONG;
            config.server.keep_alive = if drains { LONG } else { Duration::from_secs(4) };
        });
        let mut stream = connect(proxy.address, &Request::get("/").bytes("chat.example")).await;
        assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
        if drains {
            tokio::time::sleep(Duration::from_secs(3)).await;
            proxy.begin_stop();
        }
        assert_eq!(until_closed(&mut stream).await.0, "");
    }
}

#[actix_web::test]
async fn f29_a_body_that_stalls_is_answered_408() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move { drain(&mut stream).await }).await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        (config.server.body_idle_timeout, config.server.keep_alive) = (LIMIT, LIMIT);
    });
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let head = format!("POST /api/v4/posts HTTP/1.1\r\nHost: chat.example\r\n{framing}");
        let mut stream = connect(proxy.address, head.as_bytes()).await;
        let started = Instant::now();
        let answer = read_answer(&mut stream, "POST").await;
        check_took(started.elapsed());
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{framing}");
        assert_eq!(answer.json()["id"], "avatar_proxy.request.timeout");
        until_closed(&mut stream).await;
    }
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"client_stalled\"}").await, 2);
}

#[actix_web::test]
async fn f29_a_body_that_only_trickles_passes() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        let mut body = [0; 10];
        stream.read_exact(&mut body).await.expect("a body");
        send_and_close(&mut stream, &answer("200 OK", &[], &body)).await;
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| {
        hurried(config);
        config.server.body_idle_timeout = 2 * LIMIT;
    });
    let head = "POST /api/v4/posts HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 10\r\n\r\n";
    let mut stream = connect(proxy.address, head.as_bytes()).await;
    for byte in b"0123456789" {
        tokio::time::sleep(LIMIT / 3).await;
        stream.write_all(&[*byte]).await.expect("taken");
    }
    assert_eq!(read_answer(&mut stream, "POST").await.body, "0123456789");
}

/// actix reads what it may not keep: when the head of a next request is due, that is none.
#[actix_web::test]
async fn f29_the_rest_of_a_body_that_was_refused_is_no_head() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        (config.server.head_timeout, config.server.keep_alive) = (LIMIT / 3, 2 * LIMIT);
    });
    for (framing, begin, rest) in [
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        // The end of it never comes.
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "5\r\nhel"),
        ("Content-Length: 10", "hello", "hello"),
        ("Content-Length: 10", "hello", "hel"),
    ] {
        let head = format!("POST /a/../b HTTP/1.1\r\nHost: chat.example\r\n{framing}\r\n\r\n{begin}");
        let mut stream = connect(proxy.address, head.as_bytes()).await;
        assert_eq!(read_answer(&mut stream, "POST").await.status, 400);
        // It may be over already.
        let _ = stream.write_all(rest.as_bytes()).await;
        let (said, _) = until_closed(&mut stream).await;
        assert_eq!(said, "", "{framing} {rest}");
    }
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"slow_head\"}").await, 0);
    assert_eq!(upstream.seen().len(), 0);
}

/// It would be read for as long as it comes.
#[actix_web::test]
async fn f29_a_body_that_nobody_takes_is_not_read_for_ever() {
    let upstream = pictures().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.keep_alive = LIMIT;
    });
    let head = "POST /a/../b HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = connect(proxy.address, head.as_bytes()).await;
    assert_eq!(read_answer(&mut stream, "POST").await.status, 400);
    let (started, chunk) = (Instant::now(), "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n");
    while stream.write_all(chunk.as_bytes()).await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "it is still read");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends without end; how much upstream got rid of is told.
async fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = sent.clone();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let counts = counts.clone();
        async move {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
            let chunk = vec![7; 1 << 16];
            let _ = stream.write_all(head).await;
            while let Ok(written) = stream.write(&chunk).await {
                counts.fetch_add(written, Ordering::Relaxed);
            }
        }
    })
    .await;
    (upstream, sent)
}

#[actix_web::test]
async fn f30_who_takes_nothing_is_left() {
    let (upstream, sent) = endless().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.write_idle_timeout = LIMIT;
    });
    let mut stream = connect(proxy.address, &Request::get("/api/v4/files/1").bytes("chat.example")).await;
    let started = Instant::now();
    while proxy.metric("avatar_proxy_connections").await > 0 || started.elapsed() < LIMIT {
        assert!(started.elapsed() < PATIENCE, "the connection is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The kernel's buffers of two connections, and ours.
    let (said, _) = until_closed(&mut stream).await;
    assert!(said.len() < 100_000_000 / 2, "{}", said.len());
    assert!(sent.load(Ordering::Relaxed) < 100_000_000 / 2, "upstream was not held back: {sent:?}");
}

#[actix_web::test]
async fn f30_who_takes_little_gets_it_all() {
    let upstream = Upstream::answering(answer("200 OK", &[], &vec![7; 8 << 20])).await;
    let proxy = Proxy::with(upstream.address, hurried);
    let mut stream = connect(proxy.address, &Request::get("/api/v4/files/1").bytes("chat.example")).await;
    let (mut all, mut buffer) = (0, vec![0; 1 << 20]);
    while all < 8 << 20 {
        tokio::time::sleep(LIMIT / 6).await;
        let read = stream.read(&mut buffer).await.expect("the connection is there");
        assert!(read > 0, "it ended after {all}");
        all += read;
    }
}

/// The kernel would take megabytes ahead, and have room again only when a third of them is gone.
#[actix_web::test]
async fn f30_who_reads_slowly_and_steadily_is_not_left() {
    let (upstream, _) = endless().await;
    let proxy = Proxy::with(upstream.address, |config| {
        patient(config);
        config.server.write_idle_timeout = 3 * LIMIT;
    });
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a socket");
    let mut stream = socket.connect(proxy.address).await.expect("the proxy listens");
    stream.write_all(&Request::get("/api/v4/files/1").bytes("chat.example")).await.expect("taken");
    let (started, mut buffer) = (Instant::now(), vec![0; 8 << 10]);
    while started.elapsed() < 12 * LIMIT {
        tokio::time::sleep(LIMIT / 10).await;
        assert!(stream.read(&mut buffer).await.expect("the connection is there") > 0);
        // The kernel goes on with what it took, whatever has become of the connection.
        assert_eq!(proxy.metric("avatar_proxy_connections").await, 1, "after {:?}", started.elapsed());
    }

    // It stands still from now on.
    while proxy.metric("avatar_proxy_connections").await > 0 {
        assert!(started.elapsed() < PATIENCE, "the connection is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn a_request_that_waits_for_upstream_is_left_alone() {
    let upstream = Upstream::scripted(|n, _, mut stream| async move {
        tokio::time::sleep(5 * LIMIT).await;
        if n > 0 {
            // Half an answer, then another pause.
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.expect("taken");
            tokio::time::sleep(5 * LIMIT).await;
            return send_and_close(&mut stream, b"cd").await;
        }
        send_and_close(&mut stream, &answer("200 OK", &[], b"abcd")).await;
    })
    .await;
    let proxy = Proxy::with(upstream.address, hurried);
    for _ in 0..2 {
        let answer = proxy.send(&Request::get("/api/v4/slow")).await;
        assert_eq!((answer.status, &answer.body[..], answer.complete), (200, &b"abcd"[..], true));
    }
}
