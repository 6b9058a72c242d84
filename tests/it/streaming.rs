//! Bodies in motion: answers that come early, chunk by chunk or not at all, readers that stop, and clients of HTTP/1.0.

use crate::client::{PATIENCE, Request, read_answer};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer, drain, send_and_close};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

const MIB: usize = 1 << 20;

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address).await.expect("the proxy listens")
}

/// Waits until what comes ends with `end`.
async fn reads_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !got.ends_with(end) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut got)).await.expect("bytes in time");
        assert_ne!(read.expect("bytes"), 0, "the end came first: {:?}", String::from_utf8_lossy(&got));
    }
    got
}

/// The head of an upload of so many bytes, and the bytes as they go over the wire.
fn upload(framing: &str, length: usize) -> (String, Vec<u8>) {
    let head = |field| format!("POST /api/v4/files HTTP/1.1\r\nHost: chat.example\r\n{field}\r\n\r\n");
    let body = vec![b'x'; length];
    if framing == "counted" {
        return (head(format!("Content-Length: {length}")), body);
    }
    let chunk = [b"10000\r\n", &body[..0x10000], b"\r\n"].concat();
    let chunks = [&chunk.repeat(length / 0x10000)[..], b"0\r\n\r\n"].concat();
    (head("Transfer-Encoding: chunked".to_owned()), chunks)
}

/// A refusal that does not wait for the upload arrives even at a client that sends all before it reads, and the connection
/// is not used again.
#[actix_web::test]
async fn an_upload_that_is_refused_early_hears_of_it() {
    for framing in ["counted", "chunked"] {
        for polite in [true, false] {
            let upstream = Upstream::scripted(move |_, _, mut stream| async move {
                let refusal = answer("413 Request Entity Too Large", &[("X-Version-Id", "11.6.0")], b"too large");
                if polite {
                    return send_and_close(&mut stream, &refusal).await;
                }
                // It says that it keeps the connection, and reads no more of it.
                let refusal = String::from_utf8(refusal).expect("text").replace("Connection: close\r\n", "");
                let _ = stream.write_all(refusal.as_bytes()).await;
                tokio::time::sleep(PATIENCE).await;
            })
            .await;
            let proxy = Proxy::before(upstream.address);
            let (head, body) = upload(framing, 8 * MIB);
            let mut stream = connect(&proxy).await;

            stream.write_all(&[head.as_bytes(), &body[..1000]].concat()).await.expect("taken");
            upstream.has_seen(1).await;
            stream.write_all(&body[1000..]).await.unwrap_or_else(|error| panic!("{framing} {polite}: {error}"));
            let got = read_answer(&mut stream, "POST").await;

            assert_eq!((got.status, &got.body[..], got.complete), (413, &b"too large"[..], true), "{framing} {polite}");
            assert_eq!((got.header("x-version-id"), got.header("connection")), (Some("11.6.0"), Some("close")));
            assert_eq!(upstream.seen().len(), 1);
        }
    }
}

/// An upstream that resets the connection under the upload may lose its own answer; the client gets one, and may end.
#[actix_web::test]
async fn an_upload_that_is_cut_off_upstream_ends() {
    let upstream = Upstream::scripted(|n, _, mut stream| async move {
        if n % 2 == 0 {
            let _ = stream.write_all(&answer("413 Request Entity Too Large", &[], b"")).await;
        }
        stream.set_zero_linger().expect("a socket");
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for framing in ["counted", "chunked"] {
        for _ in 0..4 {
            let (head, body) = upload(framing, 8 * MIB);
            let mut stream = connect(&proxy).await;
            let (mut reads, mut writes) = stream.split();
            let mut got = Vec::new();
            let sends = async {
                writes.write_all(head.as_bytes()).await.expect("taken");
                // It may be told before it has said all.
                let _ = writes.write_all(&body).await;
            };
            let hears = async {
                while got.len() < 12 {
                    assert_ne!(reads.read_buf(&mut got).await.expect("an answer"), 0, "the end came first");
                }
            };
            let told = async { tokio::join!(sends, hears) };
            tokio::time::timeout(PATIENCE, told).await.expect("an answer in time");
            let status = std::str::from_utf8(&got[9..12]).expect("a status line");
            assert!(["413", "502"].contains(&status), "{framing}: {status}");
        }
    }
}

/// Upstream goes on answering and takes no more of the upload: that ends as if upstream had fallen silent.
#[actix_web::test]
async fn f30_an_upload_of_which_upstream_takes_no_more_ends_although_it_answers() {
    for framing in ["counted", "chunked"] {
        let (tells, mut ended) = mpsc::unbounded_channel();
        let upstream = Upstream::scripted(move |_, _, mut stream| {
            let tells = tells.clone();
            async move {
                let mut taken = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                while taken.is_ok() {
                    tokio::time::sleep(SHORT / 8).await;
                    taken = stream.write_all(b"1\r\nx\r\n").await;
                }
                let _ = tells.send(());
            }
        })
        .await;
        let proxy = Proxy::impatient(upstream.address);
        let (head, body) = upload(framing, 64 * MIB);
        let mut stream = connect(&proxy).await;
        let (mut reads, mut writes) = stream.split();
        let mut got = Vec::new();
        let sends = async {
            writes.write_all(head.as_bytes()).await.expect("taken");
            let all = writes.write_all(&body).await;
            assert!(all.is_err(), "{framing}: somebody has taken all of it");
        };
        // It may be reset, with what of the upload nobody reads.
        let hears = async { _ = reads.read_to_end(&mut got).await };
        let both = async { tokio::join!(sends, hears) };
        tokio::time::timeout(PATIENCE, both).await.expect("an end in time");

        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"), "{framing}");
        assert!(!got.ends_with(b"0\r\n\r\n"), "{framing}: it looks whole");
        tokio::time::timeout(PATIENCE, ended.recv()).await.expect("upstream is let go").expect("it listens");
    }
}

/// Upstream sends back what it gets while it gets it, and the client sends only when it got that.
#[actix_web::test]
async fn an_answer_may_come_while_the_request_goes_on() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\nConnection: close\r\n\r\n").await;
        let mut word = [0; 10];
        for _ in 0..3 {
            stream.read_exact(&mut word).await.expect("a word");
            let _ = stream.write_all(&word).await;
        }
        drain(&mut stream).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(&proxy).await;
    stream.write_all(upload("counted", 30).0.as_bytes()).await.expect("taken");
    reads_until(&mut stream, b"\r\n\r\n").await;

    for word in [b"first word", b"2nd word..", b"third word"] {
        stream.write_all(word).await.expect("taken");
        assert_eq!(reads_until(&mut stream, word).await, word);
    }
}

/// Upstream answers while it reads, more than all sockets on the way hold, and the client reads nothing before it has sent
/// all.
#[actix_web::test]
async fn who_sends_all_before_it_reads_is_answered() {
    const LONG: usize = 32 * MIB;
    for framing in ["counted", "chunked"] {
        let upstream = Upstream::scripted(move |_, _, stream| async move {
            let (mut reads, mut writes) = stream.into_split();
            let (head, body) = upload(framing, LONG);
            let field = head.lines().nth(2).expect("a field").to_owned();
            let answers = async {
                writes.write_all(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n").as_bytes()).await.expect("taken");
                writes.write_all(&body).await.expect("taken");
            };
            let hears = async {
                let (mut read, mut buffer) = (0, Vec::new());
                // A chunked one comes in other chunks than it was sent in.
                while read < LONG || framing == "chunked" && !buffer.ends_with(b"\r\n0\r\n\r\n") {
                    buffer.clear();
                    buffer.reserve(MIB);
                    read += reads.read_buf(&mut buffer).await.expect("bytes");
                }
            };
            tokio::join!(answers, hears);
            send_and_close(&mut reads.reunite(writes).expect("both halves"), b"").await;
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let (head, body) = upload(framing, LONG);
        let mut stream = connect(&proxy).await;

        let sends = async { stream.write_all(&[head.as_bytes(), &body].concat()).await };
        tokio::time::timeout(PATIENCE, sends).await.expect("taken in time").expect("taken");
        let got = read_answer(&mut stream, "POST").await;

        assert_eq!((got.status, got.body.len(), got.complete), (200, LONG, true), "{framing}");
    }
}

/// The same, but that the client leaves: what was begun for it ends on both ways.
#[actix_web::test]
async fn f25_who_leaves_while_both_ways_are_under_way_takes_both_along() {
    let (tells, mut told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await.expect("taken");
            drain(&mut stream).await;
            let _ = tells.send(());
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(&proxy).await;
    let (head, body) = upload("counted", MIB);
    stream.write_all(&[head.as_bytes(), &body[..MIB / 2]].concat()).await.expect("taken");
    reads_until(&mut stream, b"1\r\nx\r\n").await;
    drop(stream);
    tokio::time::timeout(PATIENCE, told.recv()).await.expect("told in time").expect("upstream reads");
}

/// A client that waits for its 100 gets one of ours, whatever interim answers upstream sends; and a refusal instead of
/// the body when upstream does not wait for it.
#[actix_web::test]
async fn who_waits_for_a_100_gets_one_and_then_the_answer() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let upstream = Upstream::scripted(move |_, seen, mut stream| async move {
        let _ = stream.write_all(interim.as_bytes()).await;
        if seen.target() == "/taken" {
            let mut body = [0; 10];
            stream.read_exact(&mut body).await.expect("a body");
            return send_and_close(&mut stream, &answer("201 Created", &[], &body)).await;
        }
        send_and_close(&mut stream, &answer("401 Unauthorized", &[], b"no")).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for (target, status, body) in [("/taken", 201, &b"ten bytes."[..]), ("/refused", 401, b"no")] {
        let mut stream = connect(&proxy).await;
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("taken");
        if status == 201 {
            assert_eq!(reads_until(&mut stream, b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
            stream.write_all(b"ten bytes.").await.expect("taken");
        } else {
            let mut interim = [0; 25];
            stream.read_exact(&mut interim).await.expect("an interim answer");
        }
        let got = read_answer(&mut stream, "POST").await;
        assert_eq!((got.status, &got.body[..]), (status, body));
    }
}

/// Nobody is woken for a body that is there already: whoever answers has to be polled again all the same.
#[actix_web::test]
async fn a_body_in_one_packet_with_its_head_is_passed_on_at_once() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        let length = seen.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a body");
        send_and_close(&mut stream, &answer("200 OK", &[], &body)).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(&proxy).await;
    let post = |target: &str, more: &str, body: &str| {
        let length = body.len();
        format!("POST {target} HTTP/1.1\r\nHost: chat.example\r\nContent-Length: {length}\r\n{more}\r\n{body}")
    };
    let view = |body| post("/api/v4/channels/members/me/view", "", body);
    let waiting = post("/api/v4/posts", "Expect: 100-continue\r\n", "third");
    for (request, bodies) in [
        (view("first"), &["first"][..]),
        (view("second"), &["second"]),
        (waiting, &["third"]),
        (view("fourth") + &view("fifth") + &view("sixth"), &["fourth", "fifth", "sixth"]),
        // It is followed by a task of its own.
        (post("/api/v4/users/logout", "", "seventh"), &["seventh"]),
        (view("eighth"), &["eighth"]),
    ] {
        // What nobody speaks on for a while is served anew.
        if request.contains("eighth") {
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
        stream.write_all(request.as_bytes()).await.expect("taken");
        for body in bodies {
            if request.contains("Expect") {
                assert_eq!(reads_until(&mut stream, b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let got = tokio::time::timeout(PATIENCE, read_answer(&mut stream, "POST")).await.expect(body);
            assert_eq!((got.status, &got.body[..]), (200, body.as_bytes()));
        }
    }
}

/// Upstream sends the next chunk only when the client has the one before.
#[actix_web::test]
async fn every_chunk_is_flushed_at_once() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for framing in ["chunked", "counted", "until the end"] {
            let arrived = Arc::new(Notify::new());
            let released = arrived.clone();
            let upstream = Upstream::scripted(move |_, _, mut stream| {
                let released = released.clone();
                async move {
                    let field = match framing {
                        "chunked" => "Transfer-Encoding: chunked",
                        "counted" => "Content-Length: 3",
                        _ => "Connection: close",
                    };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{field}\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes()).await;
                    for event in ["a", "b", "c"] {
                        released.notified().await;
                        let chunk = if framing == "chunked" { format!("1\r\n{event}\r\n") } else { event.to_owned() };
                        let _ = stream.write_all(chunk.as_bytes()).await;
                    }
                    released.notified().await;
                    send_and_close(&mut stream, if framing == "chunked" { b"0\r\n\r\n" } else { b"" }).await;
                }
            })
            .await;
            let proxy = Proxy::before(upstream.address);
            let mut stream = connect(&proxy).await;
            let request = format!("GET /events {version}\r\nHost: chat.example\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("taken");

            let head = String::from_utf8(reads_until(&mut stream, b"\r\n\r\n").await).expect("text");
            let chunked = version == "HTTP/1.1" && framing != "counted";
            assert_eq!(head.contains("transfer-encoding: chunked"), chunked, "{head}");
            for event in ["a", "b", "c"] {
                arrived.notify_one();
                let came = if chunked { format!("1\r\n{event}\r\n") } else { event.to_owned() };
                assert_eq!(reads_until(&mut stream, came.as_bytes()).await, came.as_bytes());
            }
            arrived.notify_one();
            if chunked {
                reads_until(&mut stream, b"0\r\n\r\n").await;
            } else if version == "HTTP/1.0" {
                assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0);
            }
        }
    }
}

#[actix_web::test]
async fn clients_of_http_1_0_are_understood_and_get_no_chunks() {
    let upstream = Upstream::replying(|_, seen| match seen.target() {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
        _ => answer("200 OK", &[], b"hello"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    // Connection of the request and whether the connection is kept after it.
    for (target, fields, kept) in [
        ("/counted", "", false),
        ("/counted", "Connection: keep-alive\r\n", true),
        ("/chunked", "", false),
        ("/chunked", "Connection: keep-alive\r\n", false),
    ] {
        let mut stream = connect(&proxy).await;
        let request = format!("GET {target} HTTP/1.0\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let got = read_answer(&mut stream, "GET").await;
        assert_eq!((got.status, &got.body[..]), (200, &b"hello"[..]), "{request}");
        assert_eq!(got.header("transfer-encoding"), None);
        assert_eq!(got.header("content-length").is_some(), target == "/counted");
        assert_eq!(got.header("connection"), kept.then_some("keep-alive"), "{request}");
        assert_eq!(upstream.seen().pop().expect("asked").header("host"), Some(&*upstream.address.to_string()));
        if kept {
            stream.write_all(b"GET /counted HTTP/1.0\r\n\r\n").await.expect("taken");
            assert_eq!(read_answer(&mut stream, "GET").await.body, &b"hello"[..]);
        }
        assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0);
    }
    // It has never heard of interim answers, nor of upgrades.
    let mut stream = connect(&proxy).await;
    let head = "POST /counted HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi";
    stream.write_all(head.as_bytes()).await.expect("taken");
    assert_eq!(read_answer(&mut stream, "POST").await.status, 200);
    let mut stream = connect(&proxy).await;
    let head = "GET /ws HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("taken");
    assert_eq!(read_answer(&mut stream, "GET").await.status, 400);
}

/// Upstream stops sending when the client is gone.
#[actix_web::test]
async fn f25_who_leaves_a_download_ends_it_upstream() {
    let (tells, mut told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            let mut taken = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
            while taken.is_ok() {
                taken = stream.write_all(&[7; 1 << 14]).await;
            }
            let _ = tells.send(());
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for reset in [false, true] {
        let mut stream = connect(&proxy).await;
        stream.write_all(&Request::get("/files/1").bytes("chat.example")).await.expect("taken");
        stream.read_exact(&mut vec![0; MIB]).await.expect("a part");
        if reset {
            stream.set_zero_linger().expect("a socket");
        }
        drop(stream);
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("told in time").expect("upstream writes");
    }
}

/// Nobody waits for the answer any more: neither does upstream have to make it. Who only says no more before it is asked
/// for an answer is still there.
#[actix_web::test]
async fn f23_who_leaves_while_upstream_is_silent_takes_the_request_along() {
    let (tells, mut told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let tells = tells.clone();
        async move {
            if seen.target() == "/answered" {
                return send_and_close(&mut stream, &answer("200 OK", &[], b"ok")).await;
            }
            drain(&mut stream).await;
            let _ = tells.send(());
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    for (n, request) in [Request::get("/silent"), Request::new("POST", "/silent").body("{}")].iter().enumerate() {
        let mut stream = connect(&proxy).await;
        stream.write_all(&request.bytes("chat.example")).await.expect("taken");
        upstream.has_seen(n + 1).await;
        drop(stream);
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("told in time").expect("upstream waits");
    }
    let mut stream = connect(&proxy).await;
    stream.write_all(&Request::get("/answered").bytes("chat.example")).await.expect("taken");
    assert_eq!(read_answer(&mut stream, "GET").await.status, 200);
    stream.shutdown().await.expect("a socket");
    assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0);
}

/// How much of what one side has written is with the proxy, and not yet or no more in the sockets' own buffers.
#[cfg(target_os = "linux")]
pub(crate) mod in_flight {
    use super::{Duration, PATIENCE, Proxy, Upstream};
    use std::cell::Cell;
    use std::fs;
    use std::time::Instant;

    /// More than sockets buffer, and enough that memory would show it.
    pub(crate) const LONG: usize = 64 << 20;

    /// Waits until no more is written, and tells how many of those bytes the proxy holds.
    pub(crate) async fn held(proxy: &Proxy, upstream: &Upstream, written: &Cell<usize>) -> usize {
        let started = Instant::now();
        let mut before = usize::MAX;
        while written.get() == 0 || before != written.get() {
            assert!(started.elapsed() < PATIENCE, "it never stalls");
            before = written.get();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(before < LONG, "all of it was taken");
        before.saturating_sub(in_kernel([proxy.address.port(), upstream.address.port()]))
    }

    /// What waits in the sockets of these ports, on either side.
    fn in_kernel(ports: [u16; 2]) -> usize {
        let hex = |text: &str| usize::from_str_radix(text, 16).expect("a number");
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let ours = |row: &Vec<&str>| {
            let port = |address: &str| address.rsplit(':').next().map(hex).expect("an address");
            [row[1], row[2]].iter().any(|address| ports.iter().any(|ours| usize::from(*ours) == port(address)))
        };
        let queued = |row: Vec<&str>| row[4].split(':').map(hex).sum::<usize>();
        rows.filter(ours).map(queued).sum()
    }
}

/// Whoever stops reading stops whoever writes, within a mebibyte.
#[cfg(target_os = "linux")]
mod back_pressure {
    use super::in_flight::{LONG, held};
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    async fn writes(stream: &mut TcpStream, body: &[u8], written: &Cell<usize>) {
        for block in body.chunks(1 << 14) {
            stream.write_all(block).await.expect("taken");
            written.set(written.get() + block.len());
        }
    }

    #[actix_web::test]
    async fn f30_a_client_that_does_not_read_stops_upstream() {
        for framing in ["counted", "chunked"] {
            let written = Rc::new(Cell::new(0));
            let writer = written.clone();
            let upstream = Upstream::scripted(move |_, _, mut stream| {
                let written = writer.clone();
                async move {
                    let (head, body) = upload(framing, LONG);
                    let field = head.lines().nth(2).expect("a field");
                    let head = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.expect("taken");
                    writes(&mut stream, &body, &written).await;
                    send_and_close(&mut stream, b"").await;
                }
            })
            .await;
            let proxy = Proxy::before(upstream.address);
            let mut stream = connect(&proxy).await;
            stream.write_all(&Request::get("/files/1").bytes("chat.example")).await.expect("taken");

            let held = held(&proxy, &upstream, &written).await;

            assert!(held <= MIB, "{framing}: {held} bytes in flight");
            let got = read_answer(&mut stream, "GET").await;
            assert_eq!((got.body.len(), got.complete), (LONG, true));
        }
    }

    #[actix_web::test]
    async fn an_upstream_that_does_not_read_stops_the_client() {
        for framing in ["counted", "chunked"] {
            let reads = Arc::new(Notify::new());
            let may_read = reads.clone();
            let upstream = Upstream::scripted(move |_, _, mut stream| {
                let may_read = may_read.clone();
                async move {
                    may_read.notified().await;
                    let (mut read, mut buffer) = (0, vec![0; MIB]);
                    while read < LONG || !buffer.ends_with(b"0\r\n\r\n") && framing == "chunked" {
                        buffer.resize(MIB, 0);
                        let count = stream.read(&mut buffer).await.expect("bytes");
                        assert_ne!(count, 0, "it ends after {read}");
                        buffer.truncate(count);
                        read += count;
                    }
                    send_and_close(&mut stream, &answer("200 OK", &[], b"all")).await;
                }
            })
            .await;
            let proxy = Proxy::before(upstream.address);
            let mut stream = connect(&proxy).await;
            let (head, body) = upload(framing, LONG);
            let written = Cell::new(0);
            stream.write_all(head.as_bytes()).await.expect("taken");
            let measures = async {
                let held = held(&proxy, &upstream, &written).await;
                reads.notify_one();
                held
            };
            let (held, ()) = tokio::join!(measures, writes(&mut stream, &body, &written));

            assert!(held <= MIB, "{framing}: {held} bytes in flight");
            assert_eq!(read_answer(&mut stream, "POST").await.body, &b"all"[..]);
        }
    }
}
