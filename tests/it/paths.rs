//! Targets on their way: every byte that may stand in one, long ones, and a site under a path.

use crate::client::{ALICE, ALICES_TOKEN, Request, read_answer};
use crate::pictures::{BLUE, RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, not_modified, picture_answer};
use crate::wire::Wire;
use avatar_proxy::config::BasePath;
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a target byte for byte; the status of the answer.
async fn asks(proxy: &Proxy, method: &str, target: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let cookie = format!("Cookie: MMAUTHTOKEN={ALICES_TOKEN}");
    let rest = format!(" HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n{cookie}\r\n\r\n");
    let request = [method.as_bytes(), b" ", target, rest.as_bytes()].concat();
    stream.write_all(&request).await.expect("taken");
    let mut got = Vec::new();
    // What is not read of a request may reset the connection under the answer.
    let _ = stream.read_to_end(&mut got).await;
    let status = got.get(9..12).unwrap_or_else(|| panic!("no answer to {}", target.escape_ascii()));
    std::str::from_utf8(status).expect("a status line").parse().expect("a number")
}

fn target(seen: &Seen) -> &[u8] {
    seen.raw.split(|byte| *byte == b' ').nth(1).expect("a request line")
}

/// The bytes that are refused in a path, and those in a query: there is no third way but `#`, which no target holds and at
/// which actix cuts it off.
#[actix_web::test]
async fn m1_every_byte_of_a_target_is_refused_or_crosses_as_it_is() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for (before, refused) in [(&b"/a"[..], &b" <>\\`"[..]), (b"/a?b=", b" \"<>")] {
        let mut got = Vec::new();
        for byte in (0..=0xff).filter(|byte| !b"\n?#".contains(byte)) {
            let asked = [before, &[byte], b"z"].concat();
            let earlier = upstream.seen().len();
            match asks(&proxy, "GET", &asked).await {
                200 => assert_eq!(target(upstream.seen().last().expect("asked")), asked, "{}", asked.escape_ascii()),
                400 => {
                    assert_eq!(upstream.seen().len(), earlier, "{}", asked.escape_ascii());
                    got.push(byte);
                }
                status => panic!("{status}: {}", asked.escape_ascii()),
            }
        }
        let expected = (0..=0xff)
            .filter(|byte: &u8| !b"\n?#".contains(byte))
            .filter(|byte| byte.is_ascii_control() || !byte.is_ascii() || refused.contains(byte));
        assert_eq!(got.escape_ascii().to_string(), expected.collect::<Vec<_>>().escape_ascii().to_string());
    }
    assert_eq!(asks(&proxy, "GET", b"/a#b?c").await, 200);
    assert_eq!(target(upstream.seen().last().expect("asked")), b"/a");
}

/// What our own fetch of a picture makes of a query that is not ours: all of it reads the same.
#[actix_web::test]
async fn m1_what_is_spelt_anew_in_the_query_of_a_picture() {
    let upstream = Upstream::answering(picture_answer("1", &png(&photo(1)))).await;
    let proxy = Proxy::before(upstream.address);
    let mut anew = Vec::new();
    for byte in (0x21..0x7f).filter(|byte| !b"\"#<>&".contains(byte)) {
        let asked = [format!("/api/v4/users/{ALICE}/image?b=").as_bytes(), &[byte], b"z"].concat();
        assert_eq!(asks(&proxy, "GET", &asked).await, 200, "{}", asked.escape_ascii());
        let seen = upstream.seen().pop().expect("asked");
        if target(&seen) != asked {
            let spelt = seen.target().rsplit_once("b=").expect("a query").1.strip_suffix('z').expect("its end");
            assert_eq!(spelt, format!("%{byte:02X}"));
            anew.push(byte);
        }
    }
    assert_eq!(anew, b"'", "{}", anew.escape_ascii());
}

#[actix_web::test]
async fn f31_what_is_asked_of_the_server_itself_goes_through() {
    let upstream = Upstream::answering(answer("200 OK", &[("Allow", "GET")], b"")).await;
    let proxy = Proxy::before(upstream.address);
    for (method, asked) in [("OPTIONS", "*"), ("TRACE", "/x"), ("get", "/x"), ("M-SEARCH", "/x"), ("PRI", "/x")] {
        assert_eq!(asks(&proxy, method, asked.as_bytes()).await, 200, "{method} {asked}");
        assert_eq!(upstream.seen().pop().expect("asked").line, format!("{method} {asked} HTTP/1.1"));
    }
    // None of them has a path that could be upstream's.
    for asked in ["x", "evil.example:80", "@evil.example/x", "?x=1", "x/y", "mailto:x", ":", "http:///x", "*x"] {
        assert_eq!(asks(&proxy, "GET", asked.as_bytes()).await, 400, "{asked}");
    }
    assert_eq!(upstream.seen().len(), 5);
}

/// Whose site is meant is said twice, and has to be said the same (RFC 9112 section 3.2.2).
#[actix_web::test]
async fn f35_a_target_with_another_host_is_refused() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for (asked, status) in [
        ("http://chat.example/x?y", 200),
        ("https://CHAT.example/x?y", 200),
        ("http://evil.example/x?y", 400),
        ("http://chat.example:80/x?y", 400),
        ("http://me@chat.example/x?y", 400),
        ("http://chat.example@evil.example/x?y", 400),
        ("http://evil.example", 400),
    ] {
        let earlier = upstream.seen().len();
        assert_eq!(asks(&proxy, "GET", asked.as_bytes()).await, status, "{asked}");
        let asked_upstream = &upstream.seen()[earlier..];
        assert_eq!(asked_upstream.len(), usize::from(status == 200), "{asked}");
        assert!(asked_upstream.iter().all(|seen| seen.target() == "/x?y"), "{asked_upstream:?}");
    }
    // HTTP/1.0 need not say it at all.
    let mut wire = Wire::to(proxy.address).await;
    wire.send(b"GET http://chat.example/x?y HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.answer("GET").await.expect("an answer").second(), "200");
}

/// What is in memory is nobody's on another site.
#[actix_web::test]
async fn f35_a_picture_in_memory_is_not_shown_to_a_target_with_another_host() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::granting(upstream.address);
    let path = format!("/api/v4/users/{ALICE}/image?size=32");
    for (asked, status) in [
        (path.clone(), 200),
        (path.clone(), 200),
        (format!("http://chat.example{path}"), 200),
        (format!("http://evil.example{path}"), 400),
    ] {
        assert_eq!(asks(&proxy, "GET", asked.as_bytes()).await, status, "{asked}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[actix_web::test]
async fn f31_how_far_a_request_goes_is_counted_down() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"upstream says")).await;
    let proxy = Proxy::before(upstream.address);
    for (method, given, seen) in [
        ("OPTIONS", "2", Some("1")),
        ("TRACE", "1", Some("0")),
        ("TRACE", "soon", Some("soon")),
        ("GET", "0", Some("0")),
        ("OPTIONS", "0", None),
        ("TRACE", "0", None),
    ] {
        let earlier = upstream.seen().len();
        let secret = Request::new(method, "/x").header("Max-Forwards", given).cookie(ALICES_TOKEN);
        let got = proxy.send(&secret).await;
        let asked = upstream.seen().get(earlier).map(|seen| seen.header("max-forwards").unwrap_or_default().to_owned());
        assert_eq!(asked.as_deref(), seen, "{method} {given}");
        if seen.is_some() {
            assert_eq!((got.status, &got.body[..]), (200, &b"upstream says"[..]), "{method} {given}");
            continue;
        }
        assert_eq!(got.status, if method == "TRACE" { 405 } else { 200 });
        assert!(got.header("allow").is_some_and(|allowed| allowed.contains("GET, HEAD") && !allowed.contains("TRACE")));
        assert!(!String::from_utf8_lossy(&got.body).contains(ALICES_TOKEN));
    }
}

/// A lower-case method is another method, and no picture.
#[actix_web::test]
async fn methods_know_their_case() {
    let upstream = Upstream::answering(picture_answer("1", &png(&photo(1)))).await;
    let proxy = Proxy::before(upstream.address);
    let path = format!("/api/v4/users/{ALICE}/image?size=32");
    for (method, seen) in [("get", 32), ("GET", 0)] {
        assert_eq!(asks(&proxy, method, path.as_bytes()).await, 200);
        assert_eq!(upstream.seen().pop().expect("asked").target().ends_with("size=32"), seen == 32, "{method}");
    }
}

#[actix_web::test]
async fn f32_long_heads_and_targets_pass_up_to_a_limit() {
    let too_long = Request::get(&"/x".repeat(1024));
    let upstream = Upstream::replying(|_, seen| match seen.target().len() {
        ..=2048 => answer("200 OK", &[], b"ok"),
        _ => answer("414 URI Too Long", &[], b"upstream says"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let fields = |count: usize, length| {
        (0..count).fold(Request::get("/x"), |request, n| request.header(&format!("X-{n}"), &"v".repeat(length)))
    };
    let long = |length| Request::get(&format!("/{}", "x".repeat(length)));
    for (request, status) in [
        (fields(1, 16 << 10), 200),
        (fields(90, 170), 200),
        (fields(1, 200 << 10), 431),
        (fields(200, 10), 431),
        (too_long, 200),
        (long(2048), 414),
        (long(8 << 10), 414),
        (long(60 << 10), 414),
        // More than the types of actix hold.
        (long(64 << 10), 400),
    ] {
        let earlier = upstream.seen().len();
        let bytes = request.bytes("chat.example");
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        // It may be refused before it is all there.
        let _ = stream.write_all(&bytes).await;
        let answer = read_answer(&mut stream, "GET").await;
        assert_eq!(answer.status, status, "{} bytes", bytes.len());
        let ours = [400, 431].contains(&status);
        assert_eq!(upstream.seen().len() - earlier, usize::from(!ours));
        if ours {
            assert_eq!(answer.header("connection"), Some("close"));
        } else {
            assert!(bytes.starts_with(upstream.seen().pop().expect("asked").line.as_bytes()));
        }
    }
}

/// As long as the first may be.
#[actix_web::test]
async fn f32_a_later_head_has_the_same_limit() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for (length, status) in [(100 << 10, "200"), (200 << 10, "431")] {
        let mut wire = Wire::to(proxy.address).await;
        let long = Request::get("/").header("X-Long", &"v".repeat(length));
        wire.send(&[Request::get("/").bytes("a"), long.bytes("a")].concat()).await;
        for expected in ["200", status] {
            assert_eq!(wire.answer("GET").await.expect("an answer").second(), expected, "{length}");
        }
    }
}

/// `SiteURL` with a path: pictures, changes and what passes through.
#[actix_web::test]
async fn a_site_under_a_path_is_served_there() {
    let shown = Rc::new(Cell::new(RED));
    let shows = shown.clone();
    let upstream = Upstream::replying(move |_, seen| match seen.header("if-none-match") {
        _ if !seen.target().ends_with("/image") => answer("200 OK", &[], b"passed"),
        _ if seen.line.starts_with("POST") => answer("200 OK", &[], b"{}"),
        Some("1") => not_modified("1"),
        _ => picture_answer("1", &png(&solid(shows.get()))),
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.server.base_path = BasePath::parse("/chat/mm").expect("a path");
        config.grants.ttl = std::time::Duration::from_secs(3600);
    });
    let path = format!("/chat/mm/api/v4/users/{ALICE}/image");
    let look = Request::get(&format!("{path}?size=32")).cookie(ALICES_TOKEN);
    for colour in [RED, BLUE] {
        shown.set(colour);
        for _ in 0..2 {
            let answer = proxy.send(&look).await;
            assert_eq!((answer.status, answer.dimensions(), answer.looks(colour)), (200, (32, 32), true));
            assert_eq!(upstream.seen().last().expect("asked").target(), path);
        }
        proxy.send(&Request::new("POST", &path).cookie(ALICES_TOKEN).body("x")).await;
    }
    assert_eq!(upstream.seen().len(), 4, "each picture once, and each change");
    for outside in ["/", "/chat", "/chat/mm", "/chat/mmm/api/v4/x", "/api/v4/users/me", "/static/x.js"] {
        assert_eq!(proxy.send(&Request::get(outside)).await.body, &b"passed"[..]);
        assert_eq!(upstream.seen().pop().expect("asked").target(), outside);
    }
}
