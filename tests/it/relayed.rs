//! Answers of upstream's that are relayed on the picture route: no pictures, broken ones, refusals, and what is too long.

use crate::client::{Answer, Request};
use crate::faults::check_not_kept;
use crate::pictures::{jpeg, photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, picture_answer};
use avatar_proxy::config::ByteSize;

/// A broken picture as it has to be relayed: the same bytes, and no browser keeps them.
fn check_broken(answer: &Answer, body: &[u8]) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("etag"), None);
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
        // Upstream has nothing better, unless it is emptiness, which says nothing of the next answer.
        let retried = if body.is_empty() { 2 } else { 1 };
        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"retried\"}").await, retried);
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
async fn f07_the_second_try_needs_no_second_place() {
    let whole = png(&photo(1));
    let upstream = Upstream::replying(move |n, _| picture_answer("1", if n == 0 { b"" } else { &whole })).await;
    let proxy = Proxy::with(upstream.address, |config| config.upstream.max_picture_requests = 1);

    let answer = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
}

#[actix_web::test]
async fn what_is_relayed_saves_nothing_and_what_is_not_sent_neither() {
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
    let upstream = Upstream::answering(answer("200 OK", &[("Content-Type", "image/svg+xml")], svg)).await;
    let proxy = Proxy::before(upstream.address);
    proxy.send(&Request::picture("")).await;
    let bytes = u64::try_from(svg.len()).expect("a few");
    for total in [
        "original_bytes_total",
        "client_bytes_total{route=\"user_picture\"}",
        "upstream_bytes_total{route=\"user_picture\"}",
    ] {
        assert_eq!(proxy.metric(&format!("avatar_proxy_{total}")).await, bytes, "{total}");
    }

    let upstream = Upstream::answering(picture_answer("1", &png(&photo(1)))).await;
    let proxy = Proxy::before(upstream.address);
    assert_eq!(proxy.send(&Request::picture("size=32").method("HEAD")).await.status, 200);
    assert_eq!(proxy.metric("avatar_proxy_original_bytes_total").await, 0);
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
async fn f10_too_many_requests_without_a_pause_is_relayed_and_not_kept() {
    check_not_kept(answer("429 Too Many Requests", &[], b"limit exceeded"), |answer| {
        assert_eq!((answer.status, &answer.body[..]), (429, &b"limit exceeded"[..]));
    })
    .await;
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
