//! Everything that is not a picture: it goes through as it came, streamed both ways.

use crate::client::{Answer, Connection, PATIENCE, Request, read_answer};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, drain, send_and_close};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

/// The fields of a request without those that the proxy has to add, in order.
fn own_fields(seen: &Seen) -> Vec<(String, String)> {
    let ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "cdn-loop"];
    let fields = seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields = fields.filter(|(name, _)| !ours.contains(&&**name)).collect::<Vec<_>>();
    fields.sort();
    fields
}

/// Who has forwarded a request so far, by its own account.
fn hops(seen: &Seen) -> Vec<&str> {
    let lines = seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cdn-loop"));
    lines.map(|(_, value)| &**value).collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
    fields.sort();
    fields
}

#[actix_web::test]
async fn every_method_and_every_target_goes_through_byte_for_byte() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "REPORT"] {
        for target in
            ["/", "/api/v4/posts?page=0&per_page=60", "/a%20b/%C3%BC;x=1//y/?q=%22%2F&&=&e", "/plugins/p/?x=[1]"]
        {
            let answer = proxy.send(&Request::new(method, target)).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]), "{method} {target}");
            assert_eq!(upstream.seen().pop().expect("asked").line, format!("{method} {target} HTTP/1.1"));
        }
    }
}

#[actix_web::test]
async fn f31_connect_is_405_and_ends_the_connection() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    stream.write_all(b"CONNECT chat.example:443 HTTP/1.1\r\nHost: chat.example:443\r\n\r\n").await.expect("taken");

    let answer = read_answer(&mut stream, "CONNECT").await;

    assert_eq!((answer.status, answer.header("connection")), (405, Some("close")));
    assert_eq!(answer.json()["id"], "avatar_proxy.method.connect");
    assert!(upstream.seen().is_empty());
}

#[actix_web::test]
async fn nothing_is_added_but_the_forwarding_fields_and_the_hop() {
    let fields = [
        ("content-type", "text/plain"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "b=2; HttpOnly"),
        ("set-cookie", "a=3"),
        ("vary", "Accept-Encoding"),
        ("vary", "Origin"),
        ("etag", "W/\"x\""),
        ("cache-control", "public, max-age=31536000"),
        ("x-version-id", "11.6.0"),
        ("date", "Mon, 23 Nov 2026 11:45:04 GMT"),
    ];
    let hops = [("Keep-Alive", "timeout=5"), ("Proxy-Authenticate", "Basic")];
    let upstream = Upstream::answering(answer("201 Created", &[&fields[..], &hops].concat(), b"done")).await;
    let proxy = Proxy::before(upstream.address);
    let sent = [
        ("host", "chat.example"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer x"),
        ("cookie", "MMAUTHTOKEN=x; theme=dark"),
        ("cookie", "more=1"),
        ("if-none-match", "1234"),
        ("range", "bytes=1-2"),
        ("x-csrf-token", "t"),
    ];
    let request =
        sent.iter().fold(Request::get("/api/v4/users/me"), |request, (name, value)| request.header(name, value));

    let answer = proxy.send(&request.header("TE", "trailers").header("Proxy-Authorization", "Basic x")).await;

    let seen = upstream.seen().pop().expect("asked");
    assert_eq!(own_fields(&seen), pairs(&sent));
    assert_eq!((answer.status, &answer.body[..]), (201, &b"done"[..]));
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2; HttpOnly", "a=3"]);
    let mut got =
        answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect::<Vec<_>>();
    got.sort();
    assert_eq!(got, pairs(&[&fields[..], &[("content-length", "4")]].concat()));
}

#[actix_web::test]
async fn bodies_come_down_as_they_were_framed() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n";
    let until_close = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdefg";
    for (raw, length) in [(&chunked[..], None), (until_close, None), (&answer("200 OK", &[], b"abcdefg"), Some("7"))] {
        let upstream = Upstream::answering(raw).await;
        let proxy = Proxy::before(upstream.address);
        let answer = proxy.send(&Request::get("/files/1")).await;
        assert_eq!((&answer.body[..], answer.complete), (&b"abcdefg"[..], true));
        assert_eq!(answer.header("content-length"), length);
    }
}

#[actix_web::test]
async fn answers_without_a_body_have_none() {
    for (method, raw, status, length) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"[..], 200, Some("12345")),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, None),
        ("DELETE", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0")),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n", 404, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, None),
        ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205, Some("0")),
    ] {
        let upstream = Upstream::answering(raw).await;
        let proxy = Proxy::before(upstream.address);
        let answer = proxy.send(&Request::new(method, "/files/1")).await;
        assert_eq!((answer.status, answer.header("content-length")), (status, length), "{method}");
        assert_eq!(answer.header("transfer-encoding"), None, "{method}");
    }
}

/// Ranges, codings and conditions are upstream's business, and so are the bytes.
#[actix_web::test]
async fn what_upstream_made_of_a_request_is_left_alone() {
    let part = [("Content-Range", "bytes 2-4/9"), ("Accept-Ranges", "bytes")];
    let parts = [("Content-Type", "multipart/byteranges; boundary=x")];
    let coded = |coding| [("Content-Encoding", coding), ("Vary", "Accept-Encoding")];
    for (asked, status, fields, body) in [
        (&[("Range", "bytes=2-4"), ("If-Range", "\"x\"")][..], "206 Partial Content", &part[..], &b"cde"[..]),
        (&[("Range", "bytes=0-1,3-4")], "206 Partial Content", &parts, b"--x\r\n\r\nab\r\n--x--"),
        (&[("Range", "bytes=99-")], "416 Range Not Satisfiable", &[("Content-Range", "bytes */9")], b""),
        (&[("Accept-Encoding", "gzip, br, zstd")], "200 OK", &coded("gzip"), b"\x1f\x8b\x08\0garbage"),
        (&[("Accept-Encoding", "br;q=1.0, *;q=0")], "200 OK", &coded("br"), b"\x0b\x02\x80"),
        (&[("Accept-Encoding", "zstd")], "203 Non-Authoritative", &coded("zstd"), b"\x28\xb5\x2f\xfd"),
        (&[("If-Match", "\"a\", W/\"b\"")], "412 Precondition Failed", &[("ETag", "1234")], b"no"),
        (&[("If-Modified-Since", "Mon, 23 Nov 2026 11:45:04 GMT")], "299 Odd", &[("Age", "7")], b"\0\xff"),
    ] {
        let upstream = Upstream::answering(answer(status, fields, body)).await;
        let proxy = Proxy::before(upstream.address);
        let request = asked.iter().fold(Request::get("/files/1"), |request, (name, value)| request.header(name, value));

        let answer = proxy.send(&request).await;

        let seen = upstream.seen().pop().expect("asked");
        assert!(asked.iter().all(|(name, value)| seen.all(name) == [*value]), "{seen:?}");
        assert_eq!((answer.status.to_string().as_str(), &answer.body[..]), (&status[..3], body));
        assert!(fields.iter().all(|(name, value)| answer.all(name) == [*value]), "{answer:?}");
    }
}

#[actix_web::test]
async fn f12_a_redirect_is_passed_on_and_not_followed() {
    let fields = [
        ("Location", "https://sso.example/?next=%2F&x='"),
        ("Set-Cookie", "MMAUTHTOKEN=; Path=/; Max-Age=0"),
        ("Set-Cookie", "MMSSO=1; Path=/"),
    ];
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let upstream = Upstream::answering(answer(status, &fields, b"over there")).await;
        let proxy = Proxy::before(upstream.address);
        for request in [Request::get("/login"), Request::new("POST", "/login").body("x")] {
            let answer = proxy.send(&request).await;
            assert_eq!((answer.status.to_string().as_str(), &answer.body[..]), (&status[..3], &b"over there"[..]));
            assert_eq!(answer.header("location"), Some(fields[0].1));
            assert_eq!(answer.all("set-cookie"), [fields[1].1, fields[2].1]);
        }
        assert_eq!(upstream.seen().len(), 2);
    }
}

#[actix_web::test]
async fn f04_a_reset_in_a_body_that_passes_through_never_looks_whole() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        let framing = if seen.target() == "/counted" { "Content-Length: 99" } else { "Transfer-Encoding: chunked" };
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        // The client has the beginning: now it can only be told by the end of its connection.
        let _ = stream.read_u8().await;
        stream.set_zero_linger().expect("a socket");
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for target in ["/counted", "/chunked"] {
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let request = Request::new("POST", target).header("Content-Length", "1").bytes("chat.example");
        stream.write_all(&request).await.expect("taken");
        let mut begun = Vec::new();
        while !begun.windows(5).any(|word| word == b"hello") {
            assert_ne!(stream.read_buf(&mut begun).await.expect("bytes"), 0);
        }
        stream.write_all(b"x").await.expect("taken");
        let mut end = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut end)).await.expect("an end");
        assert!(!end.ends_with(b"0\r\n\r\n") && end.len() < 90, "{target}: {}", end.escape_ascii());
    }
}

/// Upstream keeps the connection and says more than it was asked for: nobody hears it.
#[actix_web::test]
async fn f06_bytes_after_a_body_that_passes_through_reach_nobody() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let upstream = Upstream::scripted(move |_, seen, mut stream| async move {
        let path = seen.target();
        let own = match path {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n".to_owned(),
            "/chunked" => {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{path}\r\n0\r\n\r\n", path.len())
            }
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()),
        };
        let _ = stream.write_all([own.as_bytes(), stray.as_bytes()].concat().as_slice()).await;
        drain(&mut stream).await;
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.server.workers = 1);
    let mut connection = Connection::to(proxy.address).await;
    for n in 0..3 {
        for path in ["/204", "/304", "/chunked", "/counted", "/head"] {
            let method = if path == "/head" { "HEAD" } else { "GET" };
            let answer = connection.send(&Request::new(method, path)).await;
            let status = path[1..].parse().unwrap_or(200);
            let expected = if status == 200 && method == "GET" { path } else { "" };
            assert_eq!((answer.status, &answer.body[..]), (status, expected.as_bytes()), "{path}, round {n}");
        }
    }
    assert_eq!(upstream.seen().len(), 15, "each on a connection of its own");
}

#[actix_web::test]
async fn a_body_comes_down_while_upstream_still_sends() {
    let more = Arc::new(Notify::new());
    let asked_for_more = more.clone();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let asked_for_more = asked_for_more.clone();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
            asked_for_more.notified().await;
            send_and_close(&mut stream, b"later").await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    stream.write_all(&Request::get("/events").bytes("chat.example")).await.expect("taken");

    let mut got = Vec::new();
    while !got.ends_with(b"first") {
        assert!(stream.read_buf(&mut got).await.expect("bytes") > 0);
    }
    more.notify_one();
    while !got.ends_with(b"later") {
        assert!(stream.read_buf(&mut got).await.expect("bytes") > 0);
    }
}

/// Upstream reads a request's body to its end and tells of every read, with 0 for the end of the connection.
async fn reading_upstream(until: usize) -> (Upstream, mpsc::UnboundedReceiver<usize>) {
    let (tells, told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            let mut body = Vec::new();
            while body.len() < until {
                let read = stream.read_buf(&mut body).await.unwrap_or(0);
                tells.send(read).expect("the test listens");
                if read == 0 {
                    return;
                }
            }
            send_and_close(&mut stream, &answer("200 OK", &[], &body)).await;
        }
    })
    .await;
    (upstream, told)
}

/// How many bytes of a body upstream reads until the connection ends.
async fn until_the_end(told: &mut mpsc::UnboundedReceiver<usize>) -> usize {
    let mut received = 0;
    loop {
        let read = tokio::time::timeout(PATIENCE, told.recv()).await.expect("an end in time");
        match read.expect("upstream reads") {
            0 => return received,
            read => received += read,
        }
    }
}

/// A connection over which the head and the first half of an upload have gone.
async fn half_sent(proxy: SocketAddr, target: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let whole = Request::new("POST", target).body(body).bytes("chat.example");
    stream.write_all(&whole[..whole.len() - body.len() / 2]).await.expect("taken");
    stream
}

#[actix_web::test]
async fn an_upload_is_streamed() {
    let body = (0..1 << 20).map(|n: u32| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect::<Vec<_>>();
    let (upstream, mut told) = reading_upstream(body.len()).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = half_sent(proxy.address, "/api/v4/files", &body).await;
    // Upstream has something before the client has sent all.
    assert!(told.recv().await.expect("upstream reads") > 0);

    stream.write_all(&body[body.len() - body.len() / 2..]).await.expect("taken");
    let answer = read_answer(&mut stream, "POST").await;

    assert_eq!((answer.status, answer.body == body), (200, true));
    let seen = upstream.seen().pop().expect("asked");
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("1048576"), None));
}

#[actix_web::test]
async fn a_chunked_upload_stays_chunked() {
    let (upstream, _told) = reading_upstream(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".len()).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let head = b"POST /api/v4/files HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(&[&head[..], b"5\r\nhello\r\n"].concat()).await.expect("taken");
    upstream.has_seen(1).await;
    stream.write_all(b"6\r\n world\r\n0\r\n\r\n").await.expect("taken");

    let answer = read_answer(&mut stream, "POST").await;

    let seen = upstream.seen().pop().expect("asked");
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (Some("chunked"), None));
    assert!(answer.body.ends_with(b"0\r\n\r\n"), "{:?}", answer.body);
    let text = String::from_utf8_lossy(&answer.body).replace("\r\n", "");
    assert!(text.contains("hello") && text.contains("world"), "{text}");
}

#[actix_web::test]
async fn f26_an_upload_that_breaks_off_is_seen_as_broken_off() {
    let body = vec![7; 64 << 10];
    for target in ["/api/v4/files", "/api/v4/users/ge45wmpse3g8umtziei4q749th/image"] {
        let (upstream, mut told) = reading_upstream(body.len()).await;
        let proxy = Proxy::before(upstream.address);
        let stream = half_sent(proxy.address, target, &body).await;
        upstream.has_seen(1).await;

        drop(stream);

        let received = until_the_end(&mut told).await;
        assert!(received < body.len(), "{target}: a whole body of {received}");
        assert_eq!(upstream.seen()[0].header("content-length"), Some("65536"));
    }
}

#[actix_web::test]
async fn f26_a_chunked_upload_that_breaks_off_gets_no_last_chunk() {
    let (upstream, mut told) = reading_upstream(1 << 20).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let head = b"POST /api/v4/files HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(&[&head[..], b"5\r\nhello\r\n"].concat()).await.expect("taken");
    upstream.has_seen(1).await;

    drop(stream);

    let received = until_the_end(&mut told).await;
    assert!(received <= b"5\r\nhello\r\n".len(), "it looks whole");
}

#[actix_web::test]
async fn f52_a_loop_is_met_with_508() {
    let back: Arc<OnceLock<SocketAddr>> = Arc::default();
    let proxy_address = back.clone();
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let proxy = *proxy_address.get().expect("set before the first request");
        async move {
            let again = hops(&seen)
                .iter()
                .fold(Request::get(seen.target()).cookie("t"), |request, hop| request.header("CDN-Loop", hop));
            let Answer { status, body, .. } = again.send(proxy).await;
            send_and_close(&mut stream, &answer(&format!("{status} Again"), &[], &body)).await;
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    back.set(proxy.address).expect("set once");

    for target in ["/api/v4/config", "/api/v4/users/ge45wmpse3g8umtziei4q749th/image"] {
        let answer = proxy.send(&Request::get(target).cookie("t").header("CDN-Loop", "other-cdn")).await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (508, Some("avatar_proxy.loop")), "{target}");
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(matches!(hops(&seen[0])[..], ["other-cdn", ours] if ours.starts_with("avatar-proxy;id=")));
}
