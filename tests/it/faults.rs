//! Upstream misbehaves on the picture route: what the client gets, and that nothing of it stays.

use crate::client::{Answer, Request};
use crate::pictures::{BLUE, RED, jpeg, photo, png, solid};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer, drain, not_modified, picture_answer, send_and_close};
use avatar_proxy::config::ByteSize;
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// An error of ours: never kept by anybody, in Mattermost's shape.
fn check_error(answer: &Answer, status: u16, id: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["id"], id);
    assert_eq!(answer.json()["status_code"], status);
}

/// A broken picture as it has to be relayed: the same bytes, and no browser keeps them.
fn check_broken(answer: &Answer, body: &[u8]) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("etag"), None);
}

/// Upstream answers the first request with `fault` and all others with a whole picture, which must be asked for without
/// a condition: nothing of the fault was kept.
async fn check_not_kept(fault: Vec<u8>, seen_by_client: impl FnOnce(&Answer)) {
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
async fn f07_a_broken_picture_is_asked_for_twice_and_relayed_as_it_is() {
    let whole = png(&photo(1));
    for body in [&b"no picture at all"[..], b"", &whole[..4096], &whole[..whole.len() - 20]] {
        let upstream = Upstream::answering(picture_answer("1", body)).await;
        let proxy = Proxy::before(upstream.address);

        check_broken(&proxy.send(&Request::picture("size=32")).await, body);
        assert_eq!(upstream.seen().len(), 2);
        check_broken(&proxy.send(&Request::picture("size=64")).await, body);

        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"broken_picture\"}").await, 1, "one decode a hash");
        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"retried\"}").await, 2);
        assert!(upstream.seen().iter().all(|seen| seen.header("if-none-match").is_none()), "nothing was kept");
    }
}

#[actix_web::test]
async fn f07_whole_on_the_second_try_is_a_good_answer() {
    let whole = png(&photo(1));
    let upstream =
        Upstream::replying(move |n, _| picture_answer("1", if n == 0 { &whole[..4096] } else { &whole })).await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
    assert_eq!(answer.header("cache-control"), Some("max-age=86400, private"));
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn f07_refused_on_the_second_try_is_refused() {
    let upstream = Upstream::replying(|n, _| match n {
        0 => picture_answer("1", b"broken"),
        _ => answer("404 Not Found", &[], b"gone"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((answer.status, &answer.body[..]), (404, &b"gone"[..]));
}

#[actix_web::test]
async fn f08_a_page_is_no_picture() {
    let page = answer("200 OK", &[("Content-Type", "text/html"), ("ETag", "\"p\"")], b"<html>sign on</html>");
    check_not_kept(page, |answer| {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"<html>sign on</html>"[..]));
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("etag"), Some("\"p\""));
    })
    .await;
}

#[actix_web::test]
async fn f09_errors_of_upstream_are_relayed_whole() {
    for status in ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"] {
        let fault = answer(status, &[("Content-Type", "application/json"), ("X-Request-Id", "abc")], b"{\"id\":\"x\"}");
        check_not_kept(fault, |answer| {
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(answer.body, &b"{\"id\":\"x\"}"[..]);
            assert_eq!(answer.all("x-request-id"), ["abc"]);
        })
        .await;
    }
}

#[actix_web::test]
async fn f10_too_many_requests_is_relayed_with_its_pause() {
    check_not_kept(answer("429 Too Many Requests", &[("Retry-After", "7")], b"limit exceeded"), |answer| {
        assert_eq!((answer.status, &answer.body[..]), (429, &b"limit exceeded"[..]));
        assert_eq!(answer.header("retry-after"), Some("7"));
    })
    .await;
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
async fn f12_a_redirect_is_relayed_and_not_followed() {
    let redirect = answer(
        "302 Found",
        &[("Location", "https://sso.example/login?to=/"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")],
        b"",
    );
    check_not_kept(redirect, |answer| {
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("location"), Some("https://sso.example/login?to=/"));
        assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    })
    .await;
}

#[actix_web::test]
async fn f13_a_body_over_the_limit_is_relayed_whole_and_not_kept() {
    let picture = png(&photo(1));
    let open_ended = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: 1\r\nConnection: close\r\n\r\n";
    for answer in [picture_answer("1", &picture), [open_ended, &picture[..]].concat()] {
        let upstream = Upstream::answering(answer).await;
        let proxy = Proxy::with(upstream.address, |config| config.limits.source = ByteSize::new(4096));

        for _ in 0..2 {
            let answer = proxy.send(&Request::picture("size=32")).await;
            assert_eq!((answer.status, answer.complete, answer.header("etag")), (200, true, Some("1")));
            assert_eq!(answer.body, picture);
        }

        assert!(upstream.seen().iter().all(|seen| seen.header("if-none-match").is_none()));
        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"over_limit\"}").await, 2);
    }
}

#[actix_web::test]
async fn f14_the_first_bytes_and_not_the_declared_type_say_what_it_is() {
    let picture = jpeg(&photo(1));
    let upstream = Upstream::answering(picture_answer("1", &picture)).await;
    let proxy = Proxy::before(upstream.address);

    let untouched = proxy.send(&Request::picture("format=original")).await;
    assert_eq!((untouched.header("content-type"), &untouched.body[..]), (Some("image/jpeg"), &picture[..]));
    let resized = proxy.send(&Request::picture("size=32&format=webp")).await;
    assert_eq!((resized.header("content-type"), resized.dimensions()), (Some("image/webp"), (32, 32)));
}

#[actix_web::test]
async fn f14_a_drawing_is_relayed_untouched_and_may_run_nothing() {
    let drawing = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    let fields = [("Content-Type", "image/svg+xml"), ("ETag", "\"d\""), ("Cache-Control", "max-age=60, private")];
    let upstream = Upstream::answering(answer("200 OK", &fields, drawing)).await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((answer.status, &answer.body[..]), (200, &drawing[..]));
    assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
    assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'"));
    assert_eq!(answer.header("cache-control"), Some("max-age=60, private"));
    assert_eq!(upstream.seen().len(), 1, "nothing is broken about it");
}

#[actix_web::test]
async fn f15_a_compressed_body_is_passed_with_its_encoding() {
    let fields = [("Content-Type", "image/png"), ("Content-Encoding", "gzip"), ("ETag", "1")];
    check_not_kept(answer("200 OK", &fields, b"\x1f\x8b not looked at"), |answer| {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"\x1f\x8b not looked at"[..]));
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
    })
    .await;
}

#[actix_web::test]
async fn f16_a_source_that_was_evicted_is_asked_for_again() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        // Room for what is known of a picture, but not for its bytes.
        config.cache.sources = ByteSize::new(8 << 10);
        config.cache.variants = ByteSize::new(0);
    });
    let evicted_and_fetched = async {
        // moka lets go in its own time.
        while proxy.metric("avatar_proxy_faults_total{fault=\"evicted_refetch\"}").await < 1 {
            let answer = proxy.send(&Request::picture("size=32")).await;
            assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), evicted_and_fetched).await.expect("the source is let go");

    let seen = upstream.seen();
    let [.., asked, again] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((asked.header("if-none-match"), again.header("if-none-match")), (Some("1"), None));
    assert_eq!(asked.header("cookie"), again.header("cookie"));
}

#[actix_web::test]
async fn f17_a_304_under_another_tag_releases_nothing() {
    let (old, new) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |n, _| match n {
        0 => picture_answer("1", &old),
        1 => not_modified("2"),
        _ => picture_answer("2", &new),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    assert!(proxy.send(&Request::picture("")).await.looks(RED));
    assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    assert_eq!(upstream.seen()[2].header("if-none-match"), None);
    assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"validator_mismatch\"}").await, 1);
}

#[actix_web::test]
async fn f17_new_bytes_under_the_same_tag_win() {
    let (old, new) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |n, _| match n {
        0 => picture_answer("1", &old),
        1 => picture_answer("1", &new),
        _ => not_modified("1"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    assert!(proxy.send(&Request::picture("")).await.looks(RED));
    for _ in 0..2 {
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    }
}

#[actix_web::test]
async fn f18_a_picture_without_tag_is_asked_for_in_full_and_rendered_once() {
    let fields = [("Content-Type", "image/png"), ("Cache-Control", "max-age=300, private")];
    let upstream = Upstream::answering(answer("200 OK", &fields, &png(&photo(1)))).await;
    let proxy = Proxy::before(upstream.address);

    let first = proxy.send(&Request::picture("size=32")).await;
    let second = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((first.dimensions(), &first.body), ((32, 32), &second.body));
    assert_eq!(first.header("cache-control"), Some("max-age=300, private"));
    assert!(upstream.seen().iter().all(|seen| seen.header("if-none-match").is_none()));
    assert_eq!(proxy.metric("avatar_proxy_render_duration_seconds_count{stage=\"resize_encode\"}").await, 1);
}

#[actix_web::test]
async fn f19_refusals_are_relayed_whole() {
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        let fields =
            [("Set-Cookie", "MMAUTHTOKEN=; Max-Age=0"), ("Set-Cookie", "x=1"), ("Content-Type", "application/json")];
        check_not_kept(answer(status, &fields, b"{\"id\":\"api.context\"}"), |answer| {
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(answer.all("set-cookie"), ["MMAUTHTOKEN=; Max-Age=0", "x=1"]);
            assert_eq!(answer.body, &b"{\"id\":\"api.context\"}"[..]);
        })
        .await;
    }
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
        (with(&lines(90)), 200),
        (with(&lines(200)), 502),
        (with(&format!("X-Long: {}\r\n", "x".repeat(64 << 10))), 200),
        (with("X-Odd: a\0b\r\n"), 502),
        (b"nonsense\r\n\r\n".to_vec(), 502),
    ] {
        let upstream = Upstream::answering(strange).await;
        let proxy = Proxy::before(upstream.address);
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, status);
    }
}
