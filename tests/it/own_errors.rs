//! Our own errors: each reason by the request that has it, in Mattermost's shape, never kept, counted once.

use crate::client::{ALICE, ALICES_TOKEN, BOB, BOBS_TOKEN, Request, read_answer};
use crate::pictures::{photo, png};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer, drain, picture_answer, send_and_close};
use avatar_proxy::config::{Config, Rate};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Whoever has this is asked for a pause.
const BUSY_TOKEN: &str = "busybusybusybusybusybusy00";

/// An upstream for every way to fail: silent, breaking off, or showing a picture.
async fn failing() -> Upstream {
    Upstream::scripted(|_, seen, mut stream| async move {
        match seen.target() {
            "/silent" => drain(&mut stream).await,
            "/broken" => send_and_close(&mut stream, b"HTTP/1.1 nonsense\r\n\r\n").await,
            default if default.ends_with("/default") => {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n").await;
                drain(&mut stream).await;
            }
            _ if seen.header("cookie").is_some_and(|cookie| cookie.contains(BUSY_TOKEN)) => {
                let pause = answer("429 Too Many Requests", &[("Retry-After", "1000")], b"limit exceeded");
                send_and_close(&mut stream, &pause).await;
            }
            _ => send_and_close(&mut stream, &picture_answer("1", &png(&photo(1)))).await,
        }
    })
    .await
}

fn sparing(config: &mut Config) {
    config.upstream.head_timeout = SHORT;
    config.upstream.passthrough_timeout = SHORT;
    config.server.body_idle_timeout = SHORT / 4;
    config.upstream.max_picture_requests = 1;
    config.limits.caller_misses = Some(Rate { count: 2, per: Duration::from_secs(3600) });
}

/// How often each reason has been counted.
async fn refusals(proxy: &Proxy) -> BTreeMap<String, u64> {
    let text = String::from_utf8(Request::get("/metrics").send(proxy.admin).await.body.to_vec()).expect("text");
    let rows = text.lines().filter_map(|line| line.strip_prefix("avatar_proxy_refusals_total{reason=\""));
    rows.map(|row| {
        let (reason, count) = row.split_once("\"} ").expect("a counter");
        (reason.to_owned(), count.parse().expect("a number"))
    })
    .collect()
}

/// Sends the request that has an error, and checks everything that all of them have in common.
async fn check(proxy: &Proxy, request: &Request, status: u16, id: &str, reason: &str) {
    let before = refusals(proxy).await;

    let answer = proxy.send(request).await;

    assert_eq!((answer.status, answer.complete), (status, true), "{reason}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{reason}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{reason}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{reason}");
    let told = answer.json();
    let keys = told.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(keys, ["detailed_error", "id", "message", "request_id", "status_code"], "{reason}");
    assert_eq!((told["id"].as_str(), told["status_code"].as_u64()), (Some(id), Some(status.into())), "{reason}");
    assert!(told["message"].as_str().is_some_and(|message| !message.contains("127.0.0.1")), "{told}");
    let request_id = told["request_id"].as_str().expect("text");
    assert_eq!((request_id.len(), answer.header("x-request-id")), (26, Some(request_id)), "{reason}");
    let asks_again = [429, 503].contains(&status);
    assert_eq!(answer.header("retry-after").is_some(), asks_again, "{reason}");

    let mut expected = before;
    *expected.get_mut(reason).expect("a reason") += 1;
    assert_eq!(refusals(proxy).await, expected, "{reason}");
}

#[actix_web::test]
async fn every_error_of_ours_has_its_shape_and_is_counted_by_its_reason() {
    let mut upstream = failing().await;
    let proxy = Proxy::with(upstream.address, sparing);
    let picture = |query| Request::picture_of(ALICE, query).cookie(ALICES_TOKEN);
    let ws = Request::new("POST", "/x").header("Upgrade", "websocket").header("Connection", "Upgrade");
    let cookie = Request::get("/x").header("Connection", "cookie");
    let stalled = Request::new("POST", "/silent").header("Content-Length", "10").body("half");
    for (request, status, id, reason) in [
        (picture("size=abc"), 400, "avatar_proxy.query.value", "query"),
        (Request::get("/a/../b"), 400, "avatar_proxy.path.ambiguous", "path"),
        (Request::new("CONNECT", "chat.example:443"), 405, "avatar_proxy.method.connect", "method"),
        (Request::new("TRACE", "/x").header("Max-Forwards", "0"), 405, "avatar_proxy.method.trace", "method"),
        (Request::get("http://evil.example/x"), 400, "avatar_proxy.path.authority", "path"),
        (cookie, 400, "avatar_proxy.header.connection", "header"),
        (ws, 400, "avatar_proxy.header.upgrade", "header"),
        (Request::get("/silent"), 504, "avatar_proxy.upstream.timeout", "upstream_timeout"),
        (Request::get("/broken"), 502, "avatar_proxy.upstream.broken", "upstream_broken"),
        (stalled, 408, "avatar_proxy.request.timeout", "client_stalled"),
        (picture("").header("Cache-Control", "only-if-cached"), 504, "avatar_proxy.only_if_cached", "only_if_cached"),
    ] {
        check(&proxy, &request, status, id, reason).await;
    }
    // Two pictures are left to the caller, then none.
    for _ in 0..2 {
        assert_eq!(proxy.send(&picture("")).await.status, 200);
    }
    check(&proxy, &picture(""), 429, "avatar_proxy.too_many_requests", "too_many").await;
    // Upstream has asked for a pause.
    let busy = Request::picture_of(BOB, "").cookie(BUSY_TOKEN);
    assert_eq!(proxy.send(&busy).await.body, &b"limit exceeded"[..]);
    check(&proxy, &busy, 429, "avatar_proxy.held_back", "held_back").await;
    // The hop that this proxy marks its requests with comes back.
    let hop = upstream.seen().pop().expect("asked").header("cdn-loop").expect("a mark").to_owned();
    check(&proxy, &Request::get("/x").header("CDN-Loop", &hop), 508, "avatar_proxy.loop", "loop").await;

    // The client's body ends before its length: its last word is heard, and it is told.
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let cut = Request::new("POST", "/silent").header("Content-Length", "10").body("half");
    stream.write_all(&cut.bytes("chat.example")).await.expect("taken");
    stream.shutdown().await.expect("a socket");
    let told = read_answer(&mut stream, "POST").await;
    assert_eq!((told.status, told.json()["id"].as_str()), (400, Some("avatar_proxy.request.aborted")));
    assert_eq!(refusals(&proxy).await["client_aborted"], 1);

    // The one place is taken by a picture that does not come.
    let holder = Request::get(&format!("/api/v4/users/{ALICE}/image/default")).cookie(BOBS_TOKEN);
    let mut holding = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let asked = upstream.seen().len();
    holding.write_all(&holder.bytes("chat.example")).await.expect("taken");
    upstream.has_seen(asked + 1).await;
    let waiting = Request::picture_of(BOB, "").cookie(BOBS_TOKEN);
    check(&proxy, &waiting, 503, "avatar_proxy.overloaded", "overloaded").await;
    drop(holding);

    upstream.refuse().await;
    check(&proxy, &Request::get("/x"), 502, "avatar_proxy.upstream.unreachable", "upstream_unreachable").await;
    // What becomes no request has no answer of this shape.
    let never = refusals(&proxy).await.into_iter().filter(|(_, count)| *count == 0).map(|(reason, _)| reason);
    assert_eq!(
        never.collect::<Vec<_>>(),
        ["crowd", "long_head", "malformed", "slow_head"],
        "a reason without its request"
    );
}

/// A name that upstream gave a request is passed on; where it gave none, none is made up.
#[actix_web::test]
async fn a_request_keeps_the_name_that_upstream_gave_it() {
    let upstream = Upstream::replying(|_, seen| {
        let fields = if seen.target() == "/named" { &[("X-Request-Id", "upstreams")][..] } else { &[] };
        answer("404 Not Found", fields, b"{}")
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for (target, named) in [("/named", Some("upstreams")), ("/unnamed", None)] {
        let answer = proxy.send(&Request::get(target).header("X-Request-Id", "clients")).await;
        assert_eq!((answer.status, answer.header("x-request-id")), (404, named));
        assert_eq!(upstream.seen().pop().expect("asked").header("x-request-id"), Some("clients"));
    }
}
