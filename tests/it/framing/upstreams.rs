//! Hostile upstreams: what the client gets of an answer that is no good, and that nobody gets what is left of it.

use super::{named, next_answer, somebody_else};
use crate::proxy::Proxy;
use crate::recorder::{Recorder, Reply, Then};
use crate::wire::{Framing, Message, Wire};

/// What the client gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gets {
    /// This, whole.
    Whole(u16, &'static str),
    /// The beginning of a 200 that does not look whole, or not even that.
    Broken,
}
use Gets::{Broken, Whole};

/// Name, method, the answer, what the client gets.
type Case = (&'static str, &'static str, String, Gets);

/// An answer to somebody else, left behind on the connection.
const POISON: &str = "HTTP/1.1 200 OK\r\nX-Id: /poison\r\nContent-Length: 7\r\n\r\n/poison";
const BAD: Gets = Whole(502, "avatar_proxy.upstream.broken");

fn lengths_and_codings() -> Vec<Case> {
    let got = |name, lines: &str, body: &str, gets| -> Case {
        (name, "GET", format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}"), gets)
    };
    let chunked = |name, chunks: &str, gets| got(name, "Transfer-Encoding: chunked", chunks, gets);
    vec![
        got("two lengths", "Content-Length: 5\r\nContent-Length: 6", "hello!", BAD),
        got("a list of lengths", "Content-Length: 5, 6", "hello!", BAD),
        got("a length with a plus", "Content-Length: +5", "hello", BAD),
        got("a negative length", "Content-Length: -5", "hello", BAD),
        got("a length of base sixteen", "Content-Length: 0x5", "hello", BAD),
        got("no number", "Content-Length: x", "hello", BAD),
        got("a length of 2^64", "Content-Length: 18446744073709551616", "hello", BAD),
        got("twice the same length", "Content-Length: 5\r\nContent-Length: 5", "hello", Whole(200, "hello")),
        got("a length and chunks", "Content-Length: 3\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", BAD),
        got("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 3", "5\r\nhello\r\n0\r\n\r\n", BAD),
        got("two codings", "Transfer-Encoding: gzip, chunked", "5\r\nhello\r\n0\r\n\r\n", BAD),
        got("bytes after the end", "Content-Length: 5", "hello and more", Whole(200, "hello")),
        got("an answer after the end", "Content-Length: 5", &format!("hello{POISON}"), Whole(200, "hello")),
        chunked("an answer after the chunks", &format!("5\r\nhello\r\n0\r\n\r\n{POISON}"), Whole(200, "hello")),
        chunked("an answer in the trailer", &format!("5\r\nhello\r\n0\r\n{POISON}\r\n\r\n"), Broken),
        chunked("a chunk size that is none", "5\r\nhello\r\nx\r\n", Broken),
        chunked("a chunk that is too long", "5\r\nhello!\r\n0\r\n\r\n", Broken),
        chunked("a size that ends with LF", "5\nhello\r\n0\r\n\r\n", Broken),
        chunked("a size of 2^64", "5\r\nhello\r\n10000000000000000\r\nx", Broken),
        chunked("LF in an extension", "5;a\nhello\r\n0\r\n\r\n", Broken),
        chunked("an extension of 100 kB", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(100_000)), Broken),
    ]
}

fn bodiless() -> Vec<Case> {
    let hello = "Content-Length: 5\r\n\r\nhello";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = |status: &str, rest: &str| format!("HTTP/1.1 {status}\r\n{rest}");
    vec![
        ("a 304 with a body", "GET", answer("304 Not Modified", hello), Whole(304, "")),
        ("a 304 with chunks", "GET", answer("304 Not Modified", chunks), Whole(304, "")),
        ("a 304 and an answer", "GET", answer("304 Not Modified", &format!("\r\n{POISON}")), Whole(304, "")),
        ("a 204 with a body", "GET", answer("204 No Content", hello), Whole(204, "")),
        ("a 204 with chunks", "GET", answer("204 No Content", chunks), Whole(204, "")),
        ("a 204 and an answer", "GET", answer("204 No Content", &format!("\r\n{POISON}")), Whole(204, "")),
        ("a HEAD with a body", "HEAD", answer("200 OK", hello), Whole(200, "")),
        ("a HEAD with chunks", "HEAD", answer("200 OK", chunks), Whole(200, "")),
        (
            "a HEAD and an answer",
            "HEAD",
            answer("200 OK", &format!("Content-Length: 5\r\n\r\n{POISON}")),
            Whole(200, ""),
        ),
        ("a 205 with a body", "GET", answer("205 Reset Content", hello), Whole(205, "hello")),
        ("a 101 that nobody asked for", "GET", answer("101 Switching Protocols", &format!("\r\n{POISON}")), BAD),
        ("a 101 to h2c", "GET", answer("101 Switching Protocols", "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"), BAD),
        (
            "a 101 to a POST",
            "POST",
            answer("101 Switching Protocols", "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            BAD,
        ),
    ]
}

fn heads() -> Vec<Case> {
    let got =
        |name, head: &str, gets| -> Case { (name, "GET", format!("{head}\r\nContent-Length: 2\r\n\r\nok"), gets) };
    let field = |name, field: &str, gets| got(name, &format!("HTTP/1.1 200 OK\r\n{field}"), gets);
    let long = format!("X: {}", "v".repeat(1_000_000));
    vec![
        field("a bare CR in a value", "X: a\rSet-Cookie: evil=1", BAD),
        field("NUL in a value", "X: a\0b", BAD),
        field("DEL in a value", "X: a\x7fb", BAD),
        field("a blank in a name", "X Y: a", BAD),
        field("no colon", "X", BAD),
        field("no name", ": a", BAD),
        field("a blank before the colon", "X : a", BAD),
        field("a folded value", "X: a\r\n Set-Cookie: evil=1", BAD),
        field("a head of 1 MB", &long, BAD),
        // Go's own servers never end a line so; those that do mean a line.
        field("a bare LF", "X: a\nSet-Cookie: b=1", Whole(200, "ok")),
        got("HTTP/1.2", "HTTP/1.2 200 OK", BAD),
        got("HTTP/2", "HTTP/2 200 OK", BAD),
        got("another protocol", "ICY 200 OK", BAD),
        got("a status of two digits", "HTTP/1.1 99 Odd", BAD),
        got("a status of four digits", "HTTP/1.1 2000 Odd", BAD),
        got("a status that is none", "HTTP/1.1 abc Odd", BAD),
        got("a request", "GET /x HTTP/1.1", BAD),
        ("no head at all", "GET", "hello, all\r\n\r\n".to_owned(), BAD),
    ]
}

/// What the client got, in the words of the table.
fn gist(method: &str, answer: &Message) -> (u16, String, bool) {
    let status = answer.second().parse().unwrap_or(0);
    let ours = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let body = ours.and_then(|ours| ours["id"].as_str().map(str::to_owned));
    let body = body.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    // What ends with the connection looks whole however it ends.
    let whole = status > 0 && answer.faults.is_empty() && answer.framing != Framing::UntilClose;
    (status, body, whole)
}

async fn check_all(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (name, method, bytes, gets) in cases {
        // A connection that is left open has what the client may not get still on it.
        for then in [Then::Next, Then::Close] {
            let bytes = bytes.clone();
            let upstream = Recorder::answering(move |request| match request.second() {
                "/hostile" => Reply { bytes: bytes.clone().into_bytes(), then },
                _ => named(request),
            })
            .await;
            let proxy = Proxy::with(upstream.address, |config| {
                config.server.workers = 1;
                config.upstream.passthrough_timeout = crate::proxy::SHORT;
                config.upstream.idle_timeout = crate::proxy::SHORT;
            });
            let mut wire = Wire::to(proxy.address).await;
            wire.send(format!("{method} /hostile HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
            let answer = next_answer(&mut wire, method).await.unwrap_or_default();
            let (status, body, whole) = gist(method, &answer);
            let right = match gets {
                Whole(wanted, text) => (status, &*body, whole) == (wanted, text, true),
                Broken => [0, 200].contains(&status) && !whole,
            };
            if !right || answer.all("x-id") == ["/poison"] {
                wrong.push(format!("{name}, {then:?}: {answer:?} {body}"));
            }
            for target in ["/one", "/two"] {
                somebody_else(proxy.address, &upstream, target).await;
            }
        }
    }
    assert!(wrong.is_empty(), "{} otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[actix_web::test]
async fn an_answer_ends_where_it_says_or_breaks_off() {
    check_all(lengths_and_codings()).await;
}

#[actix_web::test]
async fn what_has_no_body_gets_none() {
    check_all(bodiless()).await;
}

#[actix_web::test]
async fn a_head_that_is_none_is_502() {
    check_all(heads()).await;
}
