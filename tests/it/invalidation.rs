//! Writes that may change a picture: whatever comes of them, the next request asks upstream without a condition, and a
//! read that was already on its way cannot put the old picture back.

use crate::client::{ALICE, ALICES_TOKEN, BOB, PATIENCE, Request};
use crate::pictures::{BLUE, RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, drain, not_modified, picture_answer, send_and_close};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Pictures that are not Alice's. A write makes the few that share its slots be fetched anew: one of these once in a
/// thousand runs, both once in millions.
const OTHERS: [&str; 2] = [BOB, "others0000000000000000000a"];

/// A write to Alice's picture, as the web client sends it.
fn upload() -> Request {
    Request::new("POST", &format!("/api/v4/users/{ALICE}/image")).cookie(ALICES_TOKEN).body(b"a new picture")
}

/// Upstream shows `RED` under tag 1 until the first write, and `BLUE` under tag 2 after it; `written` is what it answers
/// to writes.
async fn changing(written: Vec<u8>) -> Upstream {
    let changed = std::cell::Cell::new(false);
    Upstream::replying(move |_, seen| {
        if !seen.line.starts_with("GET ") {
            changed.set(true);
            return written.clone();
        }
        let (etag, colour) = if changed.get() { ("2", BLUE) } else { ("1", RED) };
        match seen.header("if-none-match") {
            Some(held) if held == etag => not_modified(etag),
            _ => picture_answer(etag, &png(&solid(colour))),
        }
    })
    .await
}

#[actix_web::test]
async fn f46_whatever_comes_of_a_write_the_picture_is_asked_for_anew() {
    for written in [
        answer("200 OK", &[], b"{\"status\":\"OK\"}"),
        answer("400 Bad Request", &[], b"{}"),
        answer("403 Forbidden", &[], b"{}"),
        answer("413 Request Entity Too Large", &[], b"{}"),
        answer("500 Internal Server Error", &[], b"{}"),
        b"HTTP/1.1 20".to_vec(),
        Vec::new(),
    ] {
        let upstream = changing(written.clone()).await;
        let proxy = Proxy::before(upstream.address);
        assert!(proxy.send(&Request::picture("")).await.looks(RED));

        let told = proxy.send(&upload()).await.status.to_string();

        let expected = if written.len() < 12 { b"502" } else { &written[9..12] };
        assert_eq!(told.as_bytes(), expected);
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE), "after {told}");
        assert_eq!(upstream.seen()[2].header("if-none-match"), None);
    }
}

#[actix_web::test]
async fn a_write_is_recognised_however_it_is_spelt() {
    let escaped = ALICE.replacen('g', "%67", 1);
    for (method, path) in [
        ("DELETE", format!("/api/v4/users/{ALICE}/image")),
        ("POST", format!("/api/v4/users/{escaped}/image")),
        ("DELETE", format!("/api/v4/users/{ALICE}%2Fimag%65")),
        ("PUT", format!("/api/v4/users/{ALICE}/patch")),
        ("PUT", format!("/api/v4/users/{ALICE}")),
        ("POST", format!("/api/v4/remotecluster/{ALICE}/image")),
    ] {
        let upstream = changing(answer("200 OK", &[], b"{}")).await;
        let proxy = Proxy::before(upstream.address);
        assert!(proxy.send(&Request::picture("")).await.looks(RED));

        proxy.send(&Request::new(method, &path).cookie(ALICES_TOKEN)).await;

        assert_eq!(upstream.seen()[1].line, format!("{method} {path} HTTP/1.1"));
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE), "{method} {path}");
        assert_eq!(upstream.seen()[2].header("if-none-match"), None, "{method} {path}");
    }
}

#[actix_web::test]
async fn a_write_to_one_picture_leaves_another() {
    let upstream = changing(answer("200 OK", &[], b"{}")).await;
    let proxy = Proxy::before(upstream.address);
    let looks = OTHERS.map(|other| Request::picture_of(other, "").cookie(ALICES_TOKEN));
    for look in &looks {
        proxy.send(look).await;
    }

    proxy.send(&upload()).await;
    for look in &looks {
        proxy.send(look).await;
    }

    let seen = upstream.seen();
    assert!(seen[3..].iter().any(|seen| seen.header("if-none-match") == Some("1")), "{seen:?}");
}

/// One server that is reached under two names has one picture for both.
#[actix_web::test]
async fn a_write_under_one_host_name_is_seen_under_another() {
    for method in ["POST", "DELETE"] {
        let upstream = changing(answer("200 OK", &[], b"{}")).await;
        let proxy = Proxy::granting(upstream.address);
        let at = |host: &str| Request::picture("").header("Host", host);
        for host in ["one.example", "other.example", "one.example", "other.example"] {
            assert!(proxy.send(&at(host)).await.looks(RED));
        }
        assert_eq!(upstream.seen().len(), 2);

        assert_eq!(proxy.send(&upload().method(method).header("Host", "one.example")).await.status, 200);

        for host in ["other.example", "one.example"] {
            assert!(proxy.send(&at(host)).await.looks(BLUE), "{method} {host}");
        }
    }
}

#[actix_web::test]
async fn for_me_upstream_is_asked_who_that_is() {
    let record = format!("{{\"id\":\"{ALICE}\",\"username\":\"alice\"}}");
    for (me, written, condition_of_others) in [
        (answer("200 OK", &[], record.as_bytes()), "200 OK", Some("1")),
        // Nobody knows whose picture was changed, so every picture is asked for anew.
        (answer("500 Internal Server Error", &[], b""), "200 OK", None),
        (answer("200 OK", &[], b"not a record"), "200 OK", None),
        // Refused, so nothing was changed.
        (answer("401 Unauthorized", &[], b""), "401 Unauthorized", Some("1")),
    ] {
        let upstream = Upstream::replying(move |_, seen| match seen.target() {
            "/api/v4/users/me" => me.clone(),
            "/api/v4/users/me/image" => answer(written, &[], b"{}"),
            _ if seen.header("if-none-match") == Some("1") => not_modified("1"),
            _ => picture_answer("1", &png(&solid(RED))),
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let [one, other] = OTHERS.map(|other| Request::picture_of(other, "").cookie(ALICES_TOKEN));
        let looks = [Request::picture(""), one, other];
        for look in &looks {
            assert!(proxy.send(look).await.looks(RED));
        }

        let write = Request::new("POST", "/api/v4/users/me/image").cookie(ALICES_TOKEN).body(b"a new picture");
        assert_eq!(proxy.send(&write).await.status.to_string(), written[..3]);
        for look in &looks {
            assert!(proxy.send(look).await.looks(RED));
        }

        let seen = upstream.seen();
        assert_eq!((seen[3].target(), seen[3].header("cookie")), ("/api/v4/users/me", seen[0].header("cookie")));
        assert_eq!(seen[5].header("if-none-match"), if written == "200 OK" { None } else { Some("1") });
        let conditions = [6, 7].map(|n| seen[n].header("if-none-match"));
        assert_eq!(conditions[0].or(conditions[1]), condition_of_others, "{written}");
    }
}

#[actix_web::test]
async fn f45_a_read_begun_before_a_write_cannot_put_the_old_picture_back() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |n, seen, mut stream| {
        let released = released.clone();
        async move {
            let reply = match n {
                0 => {
                    released.notified().await;
                    picture_answer("1", &png(&solid(RED)))
                }
                _ if seen.line.starts_with("POST ") => answer("200 OK", &[], b"{}"),
                _ => picture_answer("2", &png(&solid(BLUE))),
            };
            send_and_close(&mut stream, &reply).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    let early = async { proxy.send(&Request::picture("")).await };
    let write = async {
        upstream.has_seen(1).await;
        assert_eq!(proxy.send(&upload()).await.status, 200);
        // The old read still hangs, and nobody who comes now may join it.
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
        release.notify_one();
    };
    let (early, ()) = futures_util::future::join(early, write).await;

    assert!(early.looks(RED), "it was begun before");
    assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    assert_eq!(upstream.seen()[3].header("if-none-match"), Some("2"));
}

#[actix_web::test]
async fn f45_a_read_begun_while_a_write_is_under_way_is_not_kept() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |n, _, mut stream| {
        let released = released.clone();
        async move {
            let reply = match n {
                0 => {
                    released.notified().await;
                    answer("200 OK", &[], b"{}")
                }
                1 => picture_answer("1", &png(&solid(RED))),
                _ => picture_answer("2", &png(&solid(BLUE))),
            };
            send_and_close(&mut stream, &reply).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    let write = async { proxy.send(&upload()).await };
    let read = async {
        upstream.has_seen(1).await;
        assert!(proxy.send(&Request::picture("")).await.looks(RED));
        release.notify_one();
    };
    let (written, ()) = futures_util::future::join(write, read).await;

    assert_eq!(written.status, 200);
    assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    assert_eq!(upstream.seen()[2].header("if-none-match"), None);
}

#[actix_web::test]
async fn f45_nobody_joins_a_read_that_began_before_a_write() {
    let upstream = Upstream::scripted(|n, _, mut stream| async move {
        match n {
            0 | 1 => drain(&mut stream).await,
            _ => send_and_close(&mut stream, &picture_answer("2", &png(&solid(BLUE)))).await,
        }
    })
    .await;
    // Whoever joined the early read would wait for longer than this test does.
    let proxy = Proxy::with(upstream.address, |config| {
        (config.upstream.head_timeout, config.upstream.picture_timeout) = (3 * PATIENCE, 3 * PATIENCE);
    });

    let _early = sent(&proxy, &Request::picture("")).await;
    upstream.has_seen(1).await;
    let _write = sent(&proxy, &upload()).await;
    upstream.has_seen(2).await;

    assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
}

/// A connection over which a request has gone, and nobody has read the answer.
async fn sent(proxy: &Proxy, request: &Request) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    stream.write_all(&request.bytes(&proxy.address.to_string())).await.expect("the request is taken");
    stream
}
