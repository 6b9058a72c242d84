//! Upstream misbehaves on its connection: what the client gets, and that nothing of it stays.

use crate::client::{Answer, PATIENCE, Request};
use crate::pictures::{photo, png};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer, drain, picture_answer, send_and_close};
use futures_util::future::join_all;
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// An error of ours: never kept by anybody, in Mattermost's shape.
fn check_error(answer: &Answer, status: u16, id: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["id"], id);
    assert_eq!(answer.json()["status_code"], status);
}

/// Upstream answers the first request with `fault` and all others with a whole picture, which must be asked for without
/// a condition: nothing of the fault was kept.
pub(crate) async fn check_not_kept(fault: Vec<u8>, seen_by_client: impl FnOnce(&Answer)) {
    let picture = png(&photo(1));
    let whole = picture_answer("2", &picture);
    let upstream = Upstream::replying(move |n, _| if n == 0 { fault.clone() } else { whole.clone() }).await;
    let proxy = Proxy::before(upstream.address);

    seen_by_client(&proxy.send(&Request::picture("size=32")).await);
    let next = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((next.status, next.dimensions()), (200, (32, 32)));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("if-none-match"), None);
}

fn cut(mut bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - by);
    bytes
}

#[actix_web::test]
async fn f01_refused_is_502_whatever_is_in_memory() {
    let mut upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);

    upstream.refuse().await;

    for query in ["size=32", "size=64"] {
        check_error(&proxy.send(&Request::picture(query)).await, 502, "avatar_proxy.upstream.unreachable");
    }
    let passed = proxy.send(&Request::get("/api/v4/config/client")).await;
    check_error(&passed, 502, "avatar_proxy.upstream.unreachable");
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"upstream_unreachable\"}").await, 3);
}

#[actix_web::test]
async fn f02_silence_is_504_for_all_who_wait() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move { drain(&mut stream).await }).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.upstream.head_timeout = SHORT;
        config.upstream.picture_timeout = 50 * SHORT;
    });
    let started = Instant::now();

    let answers = join_all((0..40).map(|_| async { proxy.send(&Request::picture("size=32")).await })).await;

    for answer in &answers {
        check_error(answer, 504, "avatar_proxy.upstream.timeout");
    }
    assert!(started.elapsed() < 20 * SHORT, "one after another: {:?}", started.elapsed());
}

#[actix_web::test]
async fn f03_a_body_that_hangs_is_504_or_ends_the_connection() {
    let half = cut(picture_answer("1", &png(&photo(1))), 1000);
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let half = half.clone();
        async move {
            let _ = stream.write_all(&half).await;
            drain(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::impatient(upstream.address);

    check_error(&proxy.send(&Request::picture("size=32")).await, 504, "avatar_proxy.upstream.timeout");
    let streamed = proxy.send(&Request::get("/files/1")).await;
    assert_eq!((streamed.status, streamed.complete), (200, false));
}

#[actix_web::test]
async fn f04_a_reset_in_the_body_is_502_and_nothing_is_kept() {
    let whole = picture_answer("1", &png(&photo(1)));
    let upstream = Upstream::scripted(move |n, _, mut stream| {
        let whole = whole.clone();
        async move {
            if n > 0 {
                return send_and_close(&mut stream, &whole).await;
            }
            let _ = stream.write_all(&whole[..whole.len() / 2]).await;
            stream.set_zero_linger().expect("a socket");
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    check_error(&proxy.send(&Request::picture("size=32")).await, 502, "avatar_proxy.upstream.broken");
    assert_eq!(proxy.send(&Request::picture("size=32")).await.dimensions(), (32, 32));
    assert_eq!(upstream.seen()[1].header("if-none-match"), None);
}

#[actix_web::test]
async fn f05_a_short_body_is_502_and_nothing_is_kept() {
    let broken = |answer: &Answer| check_error(answer, 502, "avatar_proxy.upstream.broken");
    check_not_kept(cut(picture_answer("1", &png(&photo(1))), 100), broken).await;

    let picture = png(&photo(1));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: 1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        picture.len()
    );
    check_not_kept([head.as_bytes(), &picture, b"\r\n"].concat(), broken).await;
}

/// What is only seen by its client is known to whoever runs the proxy, too.
#[actix_web::test]
async fn f04_a_body_that_breaks_off_on_its_way_is_counted() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        if seen.target() == "/stalls" {
            drain(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::impatient(upstream.address);
    let counters = [
        "avatar_proxy_faults_total{fault=\"answer_broken\"}",
        "avatar_proxy_faults_total{fault=\"answer_stalled\"}",
        "avatar_proxy_requests_total{route=\"passthrough\",outcome=\"failed\"}",
        "avatar_proxy_requests_total{route=\"passthrough\",outcome=\"passed\"}",
    ];
    for (target, expected) in [("/breaks", [1, 0, 1, 0]), ("/stalls", [1, 1, 2, 0])] {
        let got = proxy.send(&Request::get(target)).await;
        assert_eq!((got.status, &got.body[..], got.complete), (200, &b"half"[..], false));
        while proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.metrics(&counters).await, expected, "{target}");
    }
}

/// Nobody asked for it, and what would come behind it is no HTTP.
#[actix_web::test]
async fn a_101_to_a_question_of_ours_is_no_answer() {
    let upstream = Upstream::answering(
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"[..],
    )
    .await;
    let proxy = Proxy::before(upstream.address);
    for request in [Request::picture("size=32"), Request::get("/x")] {
        check_error(&proxy.send(&request).await, 502, "avatar_proxy.upstream.broken");
    }
}

#[actix_web::test]
async fn f05_a_short_body_that_passes_through_never_looks_whole() {
    let upstream = Upstream::replying(|_, seen| match seen.target() {
        "/counted" => cut(answer("200 OK", &[], &[7; 5000]), 1),
        _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    for target in ["/counted", "/chunked"] {
        let answer = proxy.send(&Request::get(target)).await;
        assert_eq!((answer.status, answer.complete), (200, false), "{target}");
    }
}

#[actix_web::test]
async fn f06_bytes_after_the_body_end_only_the_connection() {
    let picture = png(&photo(1));
    let kept_open =
        format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: 1\r\nContent-Length: {}\r\n\r\n", picture.len());
    let stray = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let bytes = [kept_open.as_bytes(), &picture, stray].concat();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(&bytes).await;
            drain(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    for size in [32, 64] {
        let answer = proxy.send(&Request::picture(&format!("size={size}"))).await;
        assert_eq!((answer.status, answer.dimensions()), (200, (size, size)));
    }
    // Each on a connection of its own: this upstream answers but once on any.
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn f11_a_picture_that_trickles_in_is_504() {
    let picture = png(&photo(1));
    let head = cut(picture_answer("1", &picture), picture.len());
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let (head, picture) = (head.clone(), picture.clone());
        async move {
            let mut beat = tokio::time::interval(SHORT / 8);
            let mut taken = stream.write_all(&head).await;
            for byte in &picture {
                if taken.is_err() {
                    return;
                }
                beat.tick().await;
                taken = stream.write_all(&[*byte]).await;
            }
        }
    })
    .await;
    let proxy = Proxy::impatient(upstream.address);
    let started = Instant::now();

    check_error(&proxy.send(&Request::picture("size=32")).await, 504, "avatar_proxy.upstream.timeout");
    assert!(started.elapsed() >= 4 * SHORT, "before the time for the whole picture was over");
}

#[actix_web::test]
async fn f20_a_part_of_a_picture_is_never_kept() {
    let fields = [("Content-Type", "image/png"), ("Content-Range", "bytes 0-3/9"), ("Etag", "1")];
    check_not_kept(answer("206 Partial Content", &fields, b"\x89PNG"), |answer| {
        assert_eq!((answer.status, &answer.body[..]), (206, &b"\x89PNG"[..]));
        assert_eq!(answer.header("content-range"), Some("bytes 0-3/9"));
    })
    .await;
}

#[actix_web::test]
async fn f20_a_strange_head_is_read_or_502() {
    let whole = picture_answer("1", &png(&photo(1)));
    let with = |lines: &str| {
        let rest = whole.strip_prefix(b"HTTP/1.1 200 OK\r\n").expect("a status line");
        [b"HTTP/1.1 200 OK\r\n", lines.as_bytes(), rest].concat()
    };
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(5);
    let lines = |count| "X-Line: 1\r\n".repeat(count);
    for (strange, status) in [
        ([interim.as_bytes(), &whole].concat(), 200),
        // With its own these are a hundred.
        (with(&lines(93)), 200),
        (with(&lines(94)), 502),
        (with(&lines(200)), 502),
        (with(&format!("X-Long: {}\r\n", "x".repeat(64 << 10))), 200),
        (with("X-Odd: a\0b\r\n"), 502),
        (b"nonsense\r\n\r\n".to_vec(), 502),
    ] {
        let upstream = Upstream::answering(strange).await;
        let proxy = Proxy::before(upstream.address);
        for request in [Request::picture("size=32"), Request::get("/api/v4/posts")] {
            assert_eq!(proxy.send(&request).await.status, status, "{request:?}");
        }
    }
}

/// They are thrown away as they come, so a storm holds no memory; it costs what an endless body would, and has an end.
#[actix_web::test]
async fn f20_a_few_interim_answers_are_swallowed_and_a_storm_of_them_is_502() {
    const BROKEN: &str = "avatar_proxy_refusals_total{reason=\"upstream_broken\"}";
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let (tells, mut ended) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let tells = tells.clone();
        async move {
            let count = if seen.target().contains("few") { 16 } else { 17 };
            let _ = stream.write_all(&HINTS.repeat(count)).await;
            if count == 16 {
                return send_and_close(&mut stream, &answer("404 Not Found", &[], b"")).await;
            }
            drain(&mut stream).await;
            let _ = tells.send(());
        }
    })
    .await;
    // With time for a storm to be endless.
    let proxy = Proxy::before(upstream.address);
    for (n, (few, storm)) in [
        (Request::get("/few"), Request::get("/api/v4/posts")),
        (Request::new("POST", "/few").body("{}"), Request::new("POST", "/api/v4/posts").body("{}")),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(proxy.send(few).await.status, 404, "{few:?}");
        check_error(&proxy.send(storm).await, 502, "avatar_proxy.upstream.broken");
        timeout(PATIENCE, ended.recv()).await.expect("in time").expect("the connection is let go");
        assert_eq!(proxy.metric(BROKEN).await, n as u64 + 1);
    }
}

/// A picture is asked for by a client that counts no interim answers.
#[actix_web::test]
async fn f20_a_storm_of_interim_answers_instead_of_a_picture_ends_with_the_time_for_the_head() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        let storm = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100);
        while stream.write_all(&storm).await.is_ok() {}
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.upstream.head_timeout = SHORT);
    check_error(&proxy.send(&Request::picture("size=32")).await, 504, "avatar_proxy.upstream.timeout");
}

#[actix_web::test]
async fn f20_repeated_fields_keep_their_order() {
    let cookies = ["MMAUTHTOKEN=a; Path=/; HttpOnly", "MMUSERID=b; Path=/", "MMCSRF=c; Path=/", "MMAUTHTOKEN=d"];
    let between = ["Vary", "Link", "X-Version-Id", "Warning"];
    let fields: Vec<_> =
        cookies.iter().zip(between).flat_map(|(it, name)| [("Set-Cookie", *it), (name, "1")]).collect();
    let upstream = Upstream::answering(answer("401 Unauthorized", &fields, b"{}")).await;
    let proxy = Proxy::before(upstream.address);
    for request in [Request::picture("size=32"), Request::new("POST", "/api/v4/users/login").body("{}")] {
        let answer = proxy.send(&request).await;
        assert_eq!((answer.status, answer.all("set-cookie")), (401, cookies.to_vec()), "{request:?}");
    }
}
