//! Good requests close behind one another: each gets its own answer, in order, whoever gives it and however early.

use super::{asks, named, next_answer, somebody_else};
use crate::client::{ALICE, ALICES_TOKEN, Request};
use crate::pictures::{RED, png, solid};
use crate::proxy::Proxy;
use crate::recorder::{Recorder, Reply};
use crate::upstream::{Upstream, answer, send_and_close};
use crate::wire::{Message, Wire};
use std::rc::Rc;
use tokio::sync::Notify;

/// Alice's picture, with these lines and what follows them.
fn picture(rest: &str) -> String {
    let head = format!("GET /api/v4/users/{ALICE}/image HTTP/1.1\r\nHost: chat.example\r\n");
    format!("{head}Cookie: MMAUTHTOKEN={ALICES_TOKEN}\r\n{rest}")
}

/// An upstream that has a picture and else names what it is asked, and a proxy that has the picture in memory.
async fn with_a_picture_in_memory() -> (Recorder, Proxy) {
    let body = png(&solid(RED));
    let upstream = Recorder::answering(move |request| {
        if request.second().ends_with("/image") {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: 1\r\nCache-Control: max-age=86400, private\r\n";
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            return Reply::next([head.as_bytes(), &body].concat());
        }
        named(request)
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.server.workers = 1;
        config.grants.ttl = std::time::Duration::from_secs(3600);
    });
    let first = Request::picture("").header("Host", "chat.example").send(proxy.address).await;
    assert_eq!((first.status, upstream.take().len()), (200, 1));
    (upstream, proxy)
}

fn is_picture(answer: &Message) -> bool {
    answer.second() == "200" && answer.faults.is_empty() && image::load_from_memory(&answer.body).is_ok()
}

#[actix_web::test]
async fn a_hundred_at_once_are_answered_in_order() {
    let (upstream, proxy) = with_a_picture_in_memory().await;
    let mut wire = Wire::to(proxy.address).await;
    let all = (0..100).map(|n| match n % 4 {
        0 => picture("\r\n"),
        1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        2 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        _ => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
    });
    wire.send(all.collect::<String>().as_bytes()).await;

    for n in 0..100 {
        let answer = next_answer(&mut wire, "GET").await.expect("an answer");
        let own = if n % 4 == 0 { is_picture(&answer) } else { answer.body == format!("/{n}").as_bytes() };
        assert!(own, "{n}: {answer:?}");
    }
    assert_eq!(asks(&mut wire, "/next").await.as_deref(), Some("/next"));
    let gists = upstream.take().iter().map(Message::gist).collect::<Vec<_>>();
    assert_eq!(gists.len(), 76, "the pictures came from memory");
    assert_eq!(gists[..3], ["POST /1 Counted hello", "POST /2 Chunked hello", "GET /3"]);
}

/// What is said of one request is not what the next is answered by, though it has come already.
#[actix_web::test]
async fn an_answer_is_that_to_its_own_request_whatever_comes_behind() {
    const KINDS: [(&str, &str, &str); 7] = [
        ("GET", "HTTP/1.1", ""),
        ("HEAD", "HTTP/1.1", ""),
        ("GET", "HTTP/1.0", "Connection: keep-alive\r\n"),
        ("HEAD", "HTTP/1.0", "Connection: keep-alive\r\n"),
        ("POST", "HTTP/1.1", "Content-Length: 5\r\n"),
        ("POST", "HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        ("GET", "HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    ];
    let upstream = Recorder::answering(|request| match request.second().starts_with("/chunked") {
        true if request.start.starts_with("HEAD") => {
            Reply::next("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
        true => Reply::next("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        false if request.start.starts_with("HEAD") => Reply::next("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        false => Reply::next("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for path in ["/counted", "/chunked"] {
        for first in KINDS {
            for second in KINDS {
                let mut wire = Wire::to(proxy.address).await;
                let all = [first, second, KINDS[0]].map(|(method, version, fields)| {
                    let body = match fields {
                        "Content-Length: 5\r\n" => "hello",
                        "Transfer-Encoding: chunked\r\n" => "5\r\nhello\r\n0\r\n\r\n",
                        _ => "",
                    };
                    format!("{method} {path} {version}\r\nHost: a\r\n{fields}\r\n{body}")
                });
                wire.send(all.concat().as_bytes()).await;
                for (method, version, fields) in [first, second, KINDS[0]] {
                    let answer = wire.answer(method).await;
                    let answer =
                        answer.unwrap_or_else(|| panic!("no answer: {path} {first:?} {second:?} {method} {version}"));
                    let what = format!("{path} {first:?} {second:?}: {answer:?}");
                    assert_eq!(
                        (answer.start.as_str(), answer.faults.len()),
                        (&*format!("{version} 200 OK"), 0),
                        "{what}"
                    );
                    assert_eq!(answer.body, if method == "HEAD" { &b""[..] } else { b"body" }, "{what}");
                    let is_chunked = answer.all("transfer-encoding") == ["chunked"];
                    let has_chunks = path == "/chunked" && version == "HTTP/1.1" && method != "HEAD";
                    assert_eq!(is_chunked, has_chunks, "{what}");
                    let is_last =
                        fields.contains("h2c") || version == "HTTP/1.0" && path == "/chunked" && method == "GET";
                    // HTTP/1.0 takes that for granted.
                    let says_so = is_last && version == "HTTP/1.1";
                    assert_eq!(answer.all("connection").contains(&"close"), says_so, "{what}");
                    if is_last {
                        assert_eq!(wire.answer("GET").await, None, "{what}");
                        break;
                    }
                }
            }
        }
    }
}

#[actix_web::test]
async fn a_body_that_nobody_wanted_is_no_request() {
    let (upstream, proxy) = with_a_picture_in_memory().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len();
    for rest in [
        format!("Content-Length: {length}\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{smuggled}\r\n0\r\n\r\n"),
        // Only the beginning of it comes.
        format!("Content-Length: {}\r\n\r\n{smuggled}", length + 1000),
    ] {
        let mut wire = Wire::to(proxy.address).await;
        wire.send(picture(&rest).as_bytes()).await;
        assert!(is_picture(&next_answer(&mut wire, "GET").await.expect("an answer")), "{rest}");
        let next = asks(&mut wire, "/next").await;
        assert!(next.as_deref().is_none_or(|id| id == "/next"), "{rest}: {next:?}");
        let mut seen = somebody_else(proxy.address, &upstream, "/other").await;
        seen.retain(|request| request.second() != "/next");
        assert!(seen.is_empty(), "{rest}: {seen:?}");
    }
}

#[actix_web::test]
async fn an_answer_before_the_end_of_the_upload_is_the_last_on_its_connection_or_in_step() {
    for close in [true, false] {
        let refused = Rc::new(Notify::new());
        let tells = refused.clone();
        let upstream = Upstream::scripted(move |_, seen, mut stream| {
            let tells = tells.clone();
            async move {
                if seen.target() == "/upload" {
                    send_and_close(&mut stream, &answer("413 Too Much", &[("X-Id", "/upload")], b"/upload")).await;
                    tells.notify_one();
                } else {
                    let id = seen.target().to_owned();
                    send_and_close(&mut stream, &answer("200 OK", &[("X-Id", &id)], id.as_bytes())).await;
                }
            }
        })
        .await;
        let proxy = Proxy::with(upstream.address, |config| config.server.workers = 1);
        let mut wire = Wire::to(proxy.address).await;
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nthe beginning").await;

        let answer = next_answer(&mut wire, "POST").await.expect("an answer");
        assert_eq!((answer.second(), &*answer.body, answer.faults.len()), ("413", &b"/upload"[..], 0));
        if close {
            drop(wire);
            refused.notified().await;
            wire = Wire::to(proxy.address).await;
        } else {
            // A client that goes on to the end all the same.
            wire.send(&b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3000)[..100_000 - 13]).await;
        }
        let next = asks(&mut wire, "/next").await;
        assert!(next.as_deref().is_none_or(|id| id == "/next"), "{next:?}");
        assert_eq!(asks(&mut Wire::to(proxy.address).await, "/other").await.as_deref(), Some("/other"));
        assert!(upstream.seen().iter().all(|seen| seen.target() != "/smuggled"));
    }
}

/// RFC 9112 section 9.6, whoever said that it is the last: the client, a client of HTTP/1.0 by saying nothing, or we.
#[actix_web::test]
async fn what_comes_behind_the_last_request_is_not_looked_at() {
    let (upstream, proxy) = with_a_picture_in_memory().await;
    let memory = picture("Connection: close\r\n\r\n");
    for (last, own) in [
        (&*memory, None),
        ("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some("/last")),
        ("GET /last HTTP/1.0\r\nHost: a\r\n\r\n", Some("/last")),
        ("POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", Some("/last")),
        ("GET /last HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", Some("/last")),
    ] {
        for (behind, times) in [
            ("POST /behind HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 3),
            ("GET /behind HTTP/1.1\r\nHost: a\r\n\r\n", 30),
        ] {
            let mut wire = Wire::to(proxy.address).await;
            wire.send(format!("{last}{}", behind.repeat(times)).as_bytes()).await;

            let answer = next_answer(&mut wire, "GET").await.expect("an answer");

            // HTTP/1.0 takes that for granted.
            let says_so = if last.contains("HTTP/1.0") { &[][..] } else { &["close"] };
            assert_eq!(answer.all("connection"), says_so, "{last} {behind}: {answer:?}");
            let is_own = own.map_or_else(|| is_picture(&answer), |id| answer.body == id.as_bytes());
            assert!(is_own, "{last} {behind}: {answer:?}");
            assert_eq!(next_answer(&mut wire, "GET").await, None, "{last} {behind}");
            let seen = somebody_else(proxy.address, &upstream, "/other").await;
            assert!(seen.iter().all(|request| request.second() == "/last"), "{last} {behind}: {seen:?}");
        }
    }
}
