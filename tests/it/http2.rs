//! HTTP/2 with clients: the same answers as over HTTP/1.1, and what bounds a connection with many requests.

mod frames;

use crate::client::{ALICES_TOKEN, Answer, BOBS_TOKEN, PATIENCE, Request};
use crate::mattermost::{BROWSER, looks_at, town};
use crate::pictures::{photo, png};
use crate::process::Folder;
use crate::proxy::{Proxy, SHORT};
use crate::tls::{FIRST, connect, encrypted};
use crate::upstream::{
    Kept, Upstream, answer, keeping, kept_answer, picture_answer, send_and_close, stalling_after, taking_all, told,
};
use avatar_proxy::config::Config;
use bytes::Bytes;
use frames::{END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PLAIN, RST_STREAM, block};
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// A proxy that shows a certificate.
fn proxy_with(upstream: SocketAddr, configure: impl FnOnce(&mut Config)) -> Proxy {
    let folder = Folder::new();
    Proxy::with(upstream, |config| {
        encrypted(&folder, FIRST)(config);
        configure(config);
    })
}

fn proxy_before(upstream: SocketAddr) -> Proxy {
    proxy_with(upstream, |_| ())
}

/// One connection.
struct Client {
    send: SendRequest<Bytes>,
    ended: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    async fn to(address: SocketAddr) -> Self {
        Self::by(address, &h2::client::Builder::new()).await
    }

    async fn by(address: SocketAddr, settings: &h2::client::Builder) -> Self {
        let tls = connect(address, &["h2", "http/1.1"]).await;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = settings.handshake(tls).await.expect("it speaks HTTP/2");
        let ended = actix_web::rt::spawn(connection);
        Self { send, ended }
    }

    /// Begins a request.
    async fn begin(&self, request: &Request) -> (ResponseFuture, SendStream<Bytes>) {
        let (head, body) = request.http2();
        let mut send = self.send.clone().ready().await.expect("requests are taken");
        let (response, mut stream) = send.send_request(head, body.is_empty()).expect("a request");
        if !body.is_empty() {
            stream.send_data(body, true).expect("taken");
        }
        (response, stream)
    }

    async fn ask(&self, request: &Request) -> Answer {
        let (response, _) = self.begin(request).await;
        read(response).await.expect("an answer")
    }

    /// Waits until the connection is ended, and not for a fault of this side.
    async fn ended(self) {
        let ended = timeout(PATIENCE, self.ended).await.expect("the connection ends").expect("no panic");
        // Its last word may come too late.
        assert!(ended.as_ref().err().is_none_or(h2::Error::is_io), "{ended:?}");
        // A client that wants nothing more would end it itself.
        drop(self.send);
    }
}

/// Reads an answer to its end.
async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let read = async {
        let (head, mut stream) = response.await?.into_parts();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let (mut body, mut complete) = (Vec::new(), true);
        while let Some(chunk) = stream.data().await {
            let Ok(chunk) = chunk else {
                complete = false;
                break;
            };
            stream.flow_control().release_capacity(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: head.status.as_u16(), headers, body: body.into(), complete })
    };
    timeout(PATIENCE, read).await.expect("an answer in time")
}

/// An upstream that holds back every answer until it is told to give one.
async fn holding_back() -> (Upstream, Arc<Semaphore>) {
    let release = Arc::new(Semaphore::new(0));
    let released = release.clone();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let released = released.clone();
        async move {
            released.acquire().await.expect("open").forget();
            send_and_close(&mut stream, &answer("200 OK", &[], b"here")).await;
        }
    })
    .await;
    (upstream, release)
}

/// Name and value of each field, sorted, without those of HTTP/1.1 alone and those that change with the moment.
fn fields(answer: &Answer) -> Vec<(String, String)> {
    let momentary = ["connection", "transfer-encoding", "date", "age", "x-request-id"];
    let mut fields =
        answer.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect::<Vec<_>>();
    fields.retain(|(name, _)| !momentary.contains(&&**name));
    fields.sort();
    fields
}

#[actix_web::test]
async fn pictures_are_those_of_http_1() {
    let town = town();
    let plain = Proxy::granting(town.address());
    let proxy = proxy_with(town.address(), |config| config.grants.ttl = Duration::from_secs(3600));
    let client = Client::to(proxy.address).await;
    let look = looks_at(&town, "bob", "nova", "size=64");
    let first = client.ask(&look).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    for (request, status) in [
        (look.clone(), 200),
        (look.clone().method("HEAD"), 200),
        (look.clone().header("If-None-Match", &tag), 304),
        (look.clone().method("HEAD").header("If-None-Match", &tag), 304),
        (looks_at(&town, "bob", "nova", "size=0"), 400),
    ] {
        let asked = town.count().picture_requests;
        let got = client.ask(&request).await;
        assert_eq!(town.count().picture_requests, asked, "{request:?}: by the grant");
        let _ = plain.send(&request).await;
        let expected = plain.send(&request).await;
        assert_eq!((got.status, fields(&got)), (status, fields(&expected)), "{request:?}");
        assert_eq!(got.body.len(), expected.body.len(), "{request:?}");
        assert!(status == 400 || got.body == expected.body, "{request:?}");
        assert!(got.header("date").is_some() && got.header("connection").is_none(), "{got:?}");
    }
}

#[actix_web::test]
async fn what_passes_through_is_that_of_http_1() {
    let upstream = Upstream::replying(|_, seen| match seen.target() {
        "/chunks" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()
        }
        "/empty" => answer("200 OK", &[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], b""),
        "/nothing" => b"HTTP/1.1 204 No Content\r\nX-A: 1\r\nConnection: close\r\n\r\n".into(),
        "/unchanged" => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nConnection: close\r\n\r\n".into(),
        "/hop" => answer("200 OK", &[("Keep-Alive", "timeout=5"), ("Upgrade", "h2c"), ("Proxy-Connection", "x")], b"x"),
        "/lost" => answer("404 Not Found", &[("X-Latin", "gr\u{fc}n")], b"lost"),
        _ => answer("201 Created", &[], &vec![b'y'; MIB]),
    })
    .await;
    let (plain, proxy) = (Proxy::before(upstream.address), proxy_before(upstream.address));
    let client = Client::to(proxy.address).await;
    for target in ["/chunks", "/empty", "/nothing", "/unchanged", "/hop", "/lost", "/large?a=%2f&b#c", "/a//b;c=~"] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let request = Request::new(method, target).bearer(ALICES_TOKEN);
            let request = if method == "POST" { request.header("Content-Length", "6").body("a body") } else { request };
            let (got, expected) =
                (client.ask(&request).await, plain.send(&request.header("Host", "chat.example")).await);
            assert_eq!((got.status, fields(&got)), (expected.status, fields(&expected)), "{method} {target}");
            assert_eq!((&got.body, got.complete), (&expected.body, true), "{method} {target}");
            let seen = upstream.seen();
            let [one, other] = &seen[seen.len() - 2..] else { panic!("two requests") };
            assert_eq!(one.line, other.line);
            let strange = |seen: &crate::upstream::Seen| {
                let mut headers = seen.headers.clone();
                headers.retain(|(name, _)| !["x-forwarded-proto", "cdn-loop"].contains(&&*name.to_lowercase()));
                headers.sort();
                headers
            };
            assert_eq!(strange(one), strange(other), "{method} {target}");
            assert_eq!(one.header("x-forwarded-proto"), Some("https"));
        }
    }
}

#[actix_web::test]
async fn a_cookie_in_crumbs_is_one() {
    let town = town();
    let proxy = proxy_with(town.address(), |config| config.grants.ttl = Duration::from_secs(3600));
    let client = Client::to(proxy.address).await;
    let (token, id) = (town.token("bob"), town.id("nova"));
    let look = || Request::picture_of(&id, "size=32").accept(BROWSER);
    let whole = look().header("Cookie", &format!("a=1; MMAUTHTOKEN={token}; b=2"));
    assert_eq!(client.ask(&whole).await.status, 200);
    let asked = town.count().picture_requests;
    let crumbs = look().header("Cookie", "a=1").cookie(&token).header("Cookie", "b=2");
    assert_eq!(client.ask(&crumbs).await.status, 200);
    assert_eq!(town.count().picture_requests, asked, "it is the same caller");
    // And two tokens in crumbs are two, of which nobody knows what upstream makes.
    let two = look().cookie(&token).cookie(BOBS_TOKEN);
    client.ask(&two).await;
    assert_eq!(town.count().picture_requests, asked + 1);

    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    client.ask(&Request::get("/").header("Cookie", "a=1").header("X-A", "y").header("Cookie", "b=2")).await;
    assert_eq!(upstream.seen()[0].all("cookie"), ["a=1; b=2"]);
}

#[actix_web::test]
async fn an_upload_goes_as_fast_as_upstream_takes_it() {
    let (tells, mut taken) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let (tells, released) = (tells.clone(), released.clone());
        async move {
            assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, Some("chunked")));
            released.notified().await;
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n0\r\n\r\n") {
                assert!(stream.read_buf(&mut body).await.expect("a body") > 0);
            }
            let _ = tells.send(body.split(|byte| *byte != b'x').map(<[u8]>::len).sum::<usize>());
            send_and_close(&mut stream, &answer("201 Created", &[], b"")).await;
        }
    })
    .await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let (head, _) = Request::new("POST", "/api/v4/files").http2();
    let (response, mut body) = client.send.clone().send_request(head, false).expect("a request");
    body.reserve_capacity(5 * MIB);
    let mut sent = 0;
    // Until nothing more is wanted, for some while.
    while let Ok(room) = timeout(SHORT, std::future::poll_fn(|context| body.poll_capacity(context))).await {
        let room = room.expect("it goes on").expect("it goes on");
        body.send_data(vec![b'x'; room].into(), false).expect("taken");
        sent += room;
        body.reserve_capacity(5 * MIB - sent);
    }
    // What upstream's socket holds is not ours.
    assert!(sent < 5 * MIB, "{sent}");
    // Others are served meanwhile.
    let refused = client.ask(&Request::new("GET", "/api/v4/users/../x")).await;
    assert_eq!(refused.status, 400);
    release.notify_one();
    body.send_data(vec![b'x'; 5 * MIB - sent].into(), true).expect("taken");
    assert_eq!(read(response).await.expect("an answer").status, 201);
    assert_eq!(taken.recv().await, Some(5 * MIB));
}

#[actix_web::test]
async fn an_upload_of_known_length_says_so_and_is_so_long() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("6"), None));
        let mut body = Vec::new();
        while body.len() < 6 && stream.read_buf(&mut body).await.is_ok_and(|read| read > 0) {}
        send_and_close(&mut stream, &answer("200 OK", &[], &body)).await;
    })
    .await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let upload = |body: &str| Request::new("PUT", "/x").header("Content-Length", "6").body(body);
    assert_eq!(&client.ask(&upload("a body")).await.body[..], b"a body");
    for body in ["a bod", "a body!"] {
        let (response, _) = client.begin(&upload(body)).await;
        assert_eq!(read(response).await.expect_err("no request").reason(), Some(Reason::PROTOCOL_ERROR), "{body}");
    }
    let waits = upload("a body").header("Expect", "100-continue");
    assert_eq!(&client.ask(&waits).await.body[..], b"a body");
    assert_eq!(upstream.seen().last().expect("requests").header("expect"), None);
}

#[actix_web::test]
async fn an_answer_that_was_taken_whole_leaves_upstreams_connection_to_the_next() {
    let upstream = Upstream::scripted(|_, _, stream| async move {
        let whole = kept_answer("200 OK", &[], &vec![b'x'; MIB]);
        let mut kept = Kept::new(stream);
        kept.send(&whole).await;
        while kept.next().await.is_some() {
            kept.send(&whole).await;
        }
    })
    .await;
    let proxy = proxy_with(upstream.address, |config| config.server.workers = 1);
    let client = Client::to(proxy.address).await;
    for _ in 0..3 {
        let answer = client.ask(&Request::new("GET", "/api/v4/files/x")).await;
        assert_eq!((answer.status, answer.body.len()), (200, MIB));
    }
    assert_eq!(upstream.seen().len(), 1, "the first request of each connection");
}

#[actix_web::test]
async fn a_hundred_requests_are_answered_at_once_and_the_next_waits() {
    let (upstream, release) = holding_back().await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    // So that the client has heard of the limit.
    assert_eq!(client.ask(&Request::get("/..")).await.status, 400);
    let requests = (0..101).map(|n| Request::get(&format!("/{n}"))).collect::<Vec<_>>();
    let answers = join_all(requests.iter().map(|request| client.ask(request)));
    let watch = async {
        upstream.has_seen(100).await;
        assert_eq!(proxy.metric("avatar_proxy_in_flight_requests").await, 100);
        assert_eq!(upstream.seen().len(), 100);
        release.add_permits(1);
        upstream.has_seen(101).await;
        release.add_permits(100);
    };
    let (answers, ()) = futures_util::future::join(answers, watch).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(proxy.metric("avatar_proxy_connections").await, 1);
}

#[actix_web::test]
async fn f23_a_stream_that_is_reset_takes_its_upstream_request_along() {
    for beginning in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning"] {
        let (upstream, mut ended) = stalling_after(beginning).await;
        let proxy = proxy_with(upstream.address, |config| config.upstream.max_picture_requests = 1);
        let client = Client::to(proxy.address).await;
        for (n, request) in [
            Request::picture("size=32"),
            Request::get("/api/v4/posts"),
            Request::new("POST", "/api/v4/posts").body("{}"),
            Request::picture("size=64"),
        ]
        .iter()
        .enumerate()
        {
            let (response, mut stream) = client.begin(request).await;
            upstream.has_seen(n + 1).await;
            stream.send_reset(Reason::CANCEL);
            told(&mut ended).await;
            drop(response);
        }
        // And so does a client that is gone.
        let _begun = client.begin(&Request::get("/last")).await;
        upstream.has_seen(5).await;
        client.ended.abort();
        told(&mut ended).await;
    }
}

#[actix_web::test]
async fn f26_an_upload_that_is_reset_looks_broken_upstream() {
    let (upstream, mut ends) = taking_all().await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let (head, _) = Request::new("POST", "/api/v4/files").http2();
    let (_response, mut body) = client.send.clone().send_request(head, false).expect("a request");
    body.send_data(Bytes::from_static(b"half of"), false).expect("taken");
    upstream.has_seen(1).await;
    body.send_reset(Reason::CANCEL);
    let seen = timeout(PATIENCE, ends.recv()).await.expect("an end in time").expect("upstream listens");
    assert!(!seen.ends_with(b"0\r\n\r\n"), "{seen:?}");
}

#[actix_web::test]
async fn f04_an_answer_that_breaks_off_is_reset() {
    for broken in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = Upstream::answering(broken).await;
        let proxy = proxy_before(upstream.address);
        let client = Client::to(proxy.address).await;
        let got = client.ask(&Request::get("/files")).await;
        assert_eq!((got.status, got.complete), (200, false));
        assert_eq!(client.ask(&Request::get("/..")).await.status, 400, "the connection goes on");
    }
}

#[actix_web::test]
async fn f29_a_body_that_stalls_ends_its_stream_alone() {
    let (upstream, _ended) = stalling_after(b"").await;
    let proxy = proxy_with(upstream.address, |config| config.server.body_idle_timeout = SHORT);
    let client = Client::to(proxy.address).await;
    let (head, _) = Request::new("POST", "/api/v4/files").http2();
    let (response, mut body) = client.send.clone().send_request(head, false).expect("a request");
    body.send_data(Bytes::from_static(b"half of"), false).expect("taken");
    let got = read(response).await.expect("an answer");
    assert_eq!((got.status, got.json()["id"].as_str()), (408, Some("avatar_proxy.request.timeout")));
    assert_eq!(client.ask(&Request::get("/..")).await.status, 400, "the connection goes on");
}

#[actix_web::test]
async fn f30_a_stream_that_is_not_read_ends_alone() {
    let upstream = Upstream::answering(answer("200 OK", &[], &vec![1; 8 * MIB])).await;
    let proxy = proxy_with(upstream.address, |config| config.server.write_idle_timeout = SHORT);
    let client = Client::to(proxy.address).await;
    let (response, _) = client.begin(&Request::get("/large")).await;
    let mut unread = response.await.expect("an answer").into_body();
    // The window of the connection is that of one stream: nobody else gets anything before this one ends.
    let ended = async {
        loop {
            match unread.data().await.expect("it does not come whole") {
                Ok(_) => {}
                Err(error) => return error.reason(),
            }
        }
    };
    assert_eq!(timeout(PATIENCE, ended).await.expect("in time"), Some(Reason::CANCEL));
    assert_eq!(client.ask(&Request::get("/..")).await.status, 400, "the connection goes on");
}

/// It takes something all the time, and not enough to be waited for.
#[actix_web::test]
async fn f30_a_stream_that_is_read_byte_by_byte_ends_alone() {
    let upstream = Upstream::answering(answer("200 OK", &[], &vec![1; 8 * MIB])).await;
    let proxy = proxy_with(upstream.address, |config| config.server.write_idle_timeout = SHORT);
    let mut settings = h2::client::Builder::new();
    let client = Client::by(proxy.address, settings.initial_window_size(26)).await;
    let (response, _) = client.begin(&Request::get("/large")).await;
    let mut trickle = response.await.expect("an answer").into_body();
    let ended = async {
        loop {
            match trickle.data().await.expect("it does not come whole") {
                Ok(chunk) => {
                    tokio::time::sleep(SHORT / 20).await;
                    trickle.flow_control().release_capacity(chunk.len()).expect("it is there");
                }
                Err(error) => return error.reason(),
            }
        }
    };
    assert_eq!(timeout(PATIENCE, ended).await.expect("in time"), Some(Reason::CANCEL));
    let small = Request::get("/..");
    assert_eq!(client.begin(&small).await.0.await.expect("an answer").status().as_u16(), 400, "the connection goes on");
}

/// Mattermost's no to a picture is short. Whoever does not read it holds none of the few requests for pictures.
#[actix_web::test]
async fn refusals_that_are_not_read_keep_no_picture_from_others() {
    let upstream = Upstream::replying(|_, seen| match seen.header("authorization") {
        Some("Bearer none") => answer("401 Unauthorized", &[("Content-Type", "application/json")], br#"{"id":"no"}"#),
        _ => picture_answer("\"1\"", &png(&photo(64))),
    })
    .await;
    let proxy = proxy_with(upstream.address, |config| {
        config.upstream.max_picture_requests = 1;
        config.upstream.head_timeout = SHORT;
        config.server.write_idle_timeout = 2 * PATIENCE;
    });
    let mut settings = h2::client::Builder::new();
    let reads_nothing = Client::by(proxy.address, settings.initial_window_size(0)).await;
    let mut unread = Vec::new();
    for n in 0..3 {
        let asked = Request::get(&format!("/api/v4/users/{n:026}/image")).header("Authorization", "Bearer none");
        let response = reads_nothing.begin(&asked).await.0.await.expect("an answer");
        assert_eq!(response.status().as_u16(), 401, "{n}");
        unread.push(response);
    }
    let other = Client::to(proxy.address).await;
    assert_eq!(other.ask(&Request::picture("size=32")).await.status, 200);
}

/// A hundred downloads, of each of which its client takes some and then no more.
#[actix_web::test]
async fn downloads_that_are_not_read_hold_no_more_than_a_mebibyte() {
    const STREAMS: usize = 100;
    const TAKEN: usize = 200 << 10;
    let upstream = Upstream::scripted(|_, _, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let part = vec![7; 64 << 10];
        while stream.write_all(&part).await.is_ok() {}
    })
    .await;
    let proxy = proxy_before(upstream.address);
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(u32::try_from(TAKEN).expect("small"));
    settings.initial_connection_window_size(u32::try_from(STREAMS * TAKEN).expect("small"));
    let client = Client::by(proxy.address, &settings).await;
    let downloads = join_all((0..STREAMS).map(async |_| {
        let (response, _) = client.begin(&Request::get("/large")).await;
        let (mut body, mut taken) = (response.await.expect("an answer").into_body(), 0);
        while taken < TAKEN {
            taken += body.data().await.expect("it goes on").expect("it goes on").len();
        }
        (body, taken)
    }));
    let downloads = timeout(PATIENCE, downloads).await.expect("in time");
    assert!(downloads.iter().all(|(_, taken)| *taken == TAKEN));
    client.ended.abort();
    drop((client.send, downloads));
    while proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
        tokio::task::yield_now().await;
    }

    let passed = proxy.metric("avatar_proxy_client_bytes_total{route=\"passthrough\"}").await;
    let held = usize::try_from(passed).expect("small") - STREAMS * TAKEN;

    assert!(held <= MIB, "{held} bytes");
}

#[actix_web::test]
async fn f30_a_connection_that_is_not_read_ends() {
    let upstream = Upstream::answering(answer("200 OK", &[], &vec![1; 64 * MIB])).await;
    let proxy = proxy_with(upstream.address, |config| config.server.write_idle_timeout = SHORT);
    let mut frames = Frames::to(proxy.address).await;
    // All the room that there is, and not one byte of it is read.
    frames.send(frames::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
    frames.send(frames::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    frames.ask(1, &[]).await;
    upstream.has_seen(1).await;
    let ended = async {
        while proxy.metric("avatar_proxy_connections").await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it is let go");
}

#[actix_web::test]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let (upstream, _release) = holding_back().await;
    let proxy = proxy_before(upstream.address);
    let other = Client::to(proxy.address).await;
    for pause in [false, true] {
        let mut frames = Frames::to(proxy.address).await;
        let mut sent = 0;
        for n in 0..10_000 {
            let stream = 2 * n + 1;
            if !frames.try_ask(stream).await || !frames.try_send(RST_STREAM, 0, stream, &[0, 0, 0, 8]).await {
                break;
            }
            if pause && n % 16 == 0 {
                // So that each batch is begun before it is taken back.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sent = n;
        }
        assert_eq!(frames.goes_away().await, Some(11), "ENHANCE_YOUR_CALM, {sent}");
        assert_eq!(other.ask(&Request::get("/..")).await.status, 400);
        let gone = async {
            while proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("all are dropped");
        assert!(upstream.seen().len() <= 600, "{}", upstream.seen().len());
    }
}

/// What is taken back in the same breath is not begun, and the connection ends all the same.
#[actix_web::test]
async fn a_request_that_was_taken_back_before_it_was_read_reaches_nobody() {
    let asked = Rc::<RefCell<Vec<String>>>::default();
    let keeps = asked.clone();
    let upstream = keeping(move |seen| {
        keeps.borrow_mut().push(seen.target().to_owned());
        kept_answer("200 OK", &[], b"here")
    })
    .await;
    let proxy = proxy_with(upstream, |config| config.server.workers = 1);
    for pause in [false, true] {
        // So that there is a connection to upstream over which a request would go out at once.
        assert_eq!(Client::to(proxy.address).await.ask(&Request::get("/first")).await.status, 200);
        let mut frames = Frames::to(proxy.address).await;
        for n in 0..10_000 {
            if !frames.try_take_back(2 * n + 1).await {
                break;
            }
            if pause {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(frames.goes_away().await, Some(11), "ENHANCE_YOUR_CALM");
    }
    assert_eq!(Client::to(proxy.address).await.ask(&Request::get("/last")).await.status, 200);
    assert_eq!(*asked.borrow(), ["/first", "/first", "/last"]);
}

/// Answers that cost us little, and upstream nothing, buy nobody the right to take more requests back.
#[actix_web::test]
async fn rapid_resets_between_answers_of_our_own_end_the_connection() {
    let (upstream, _release) = holding_back().await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let mut taken_back = 0;
    while let Ok(mut send) = client.send.clone().ready().await {
        let Ok((response, mut stream)) = send.send_request(Request::get("/slow").http2().0, true) else { break };
        tokio::select! {
            () = upstream.has_seen(taken_back + 1) => taken_back += 1,
            ended = response => {
                assert!(ended.is_err(), "upstream does not answer");
                break;
            }
        }
        stream.send_reset(Reason::CANCEL);
        let Ok((refused, _)) = send.send_request(Request::get("/..").http2().0, true) else { break };
        match read(refused).await {
            Ok(refused) => assert_eq!(refused.status, 400),
            Err(_) => break,
        }
    }
    assert!((200..=201).contains(&taken_back), "{taken_back}");
}

#[actix_web::test]
async fn who_looks_away_from_many_pictures_is_still_served() {
    let (upstream, release) = holding_back().await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    for n in 0..20 {
        let begun = join_all(
            (0..20)
                .map(|n| Request::get(&format!("/{n}")))
                .collect::<Vec<_>>()
                .iter()
                .map(|request| client.begin(request)),
        )
        .await;
        upstream.has_seen(21 * n + 20).await;
        for (_, mut stream) in begun {
            stream.send_reset(Reason::CANCEL);
        }
        release.add_permits(21);
        assert_eq!(client.ask(&Request::get("/one")).await.status, 200);
    }
}

/// How a request of these fields is answered: with a status, or by a reset for some reason.
async fn said_to(frames: &mut Frames, stream: u32, fields: &[(&str, &str)]) -> Result<u8, u8> {
    frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields)).await;
    let frame = frames.next_of(stream).await.expect("the connection goes on");
    let said = match frame.kind {
        // The places of a few statuses in the table that everybody knows (RFC 7541 appendix A).
        HEADERS => Ok(frame.payload[0]),
        RST_STREAM => Err(frame.payload[3]),
        kind => panic!("{kind}: {frame:?}"),
    };
    if frame.kind == HEADERS && frame.flags & END_STREAM == 0 {
        while frames.next_of(stream).await.expect("a body").flags & END_STREAM == 0 {}
    }
    said
}

#[actix_web::test]
async fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    const OK: Result<u8, u8> = Ok(0x88);
    const BAD_REQUEST: Result<u8, u8> = Ok(0x8c);
    const PROTOCOL_ERROR: Result<u8, u8> = Err(1);
    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    let proxy = proxy_before(upstream.address);
    let mut frames = Frames::to(proxy.address).await;
    let (mut stream, mut wrong) = (1, Vec::new());
    let [method, scheme, authority, path] = PLAIN;
    let with = |fields: &[(&'static str, &'static str)]| [&PLAIN, fields].concat();
    for (fields, expected) in [
        (PLAIN.to_vec(), OK),
        (with(&[("host", "chat.example")]), OK),
        (with(&[("host", "CHAT.example")]), OK),
        (vec![method, scheme, path, ("host", "chat.example")], OK),
        (with(&[("te", "trailers")]), OK),
        // Whose site is meant is not clear.
        (with(&[("host", "other.example")]), BAD_REQUEST),
        (vec![method, scheme, path], BAD_REQUEST),
        (vec![method, scheme, path, ("host", "a.example"), ("host", "b.example")], BAD_REQUEST),
        (vec![method, scheme, (":authority", "mallory@chat.example"), path], BAD_REQUEST),
        // It is no path of this site, or one that upstream would read differently.
        (vec![method, scheme, authority, (":path", "plain")], PROTOCOL_ERROR),
        (vec![method, scheme, authority, (":path", "https://other.example/")], PROTOCOL_ERROR),
        (vec![method, scheme, authority, (":path", "?a")], BAD_REQUEST),
        (vec![method, scheme, authority, (":path", "/a/../b")], BAD_REQUEST),
        (vec![method, scheme, authority, (":path", "/a/%2e%2E/b")], BAD_REQUEST),
        (vec![method, scheme, authority, (":path", "/a\\b")], BAD_REQUEST),
        (vec![method, scheme, authority, (":path", "//other.example/")], OK),
        (vec![(":method", "OPTIONS"), scheme, authority, (":path", "*")], OK),
        // What RFC 9113 calls malformed (section 8.1.1).
        (vec![method, scheme, authority, (":path", "")], PROTOCOL_ERROR),
        (vec![method, scheme, authority, (":path", "/a b")], PROTOCOL_ERROR),
        (vec![method, scheme, authority, (":path", "/a\r\nX: y")], PROTOCOL_ERROR),
        (vec![method, authority, path], PROTOCOL_ERROR),
        (vec![scheme, authority, path], PROTOCOL_ERROR),
        (vec![method, method, scheme, authority, path], PROTOCOL_ERROR),
        (vec![method, scheme, authority, path, path], PROTOCOL_ERROR),
        (with(&[(":status", "200")]), PROTOCOL_ERROR),
        (with(&[(":protocol", "websocket")]), PROTOCOL_ERROR),
        (vec![method, scheme, authority, ("x-a", "y"), path], PROTOCOL_ERROR),
        (with(&[("connection", "cookie")]), PROTOCOL_ERROR),
        (with(&[("transfer-encoding", "chunked")]), PROTOCOL_ERROR),
        (with(&[("upgrade", "websocket")]), PROTOCOL_ERROR),
        (with(&[("keep-alive", "timeout=5")]), PROTOCOL_ERROR),
        (with(&[("proxy-connection", "keep-alive")]), PROTOCOL_ERROR),
        (with(&[("te", "gzip")]), PROTOCOL_ERROR),
        (with(&[("content-length", "5")]), PROTOCOL_ERROR),
        (with(&[("content-length", "0"), ("content-length", "1")]), PROTOCOL_ERROR),
        (with(&[("content-length", "+0")]), PROTOCOL_ERROR),
    ] {
        let said = said_to(&mut frames, stream, &fields).await;
        if said != expected {
            wrong.push((fields, said));
        }
        stream += 2;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is no field at all ends the connection.
    for field in [("X-A", "y"), ("x a", "y"), ("", "y"), ("x-a", "y\r\nx-b: z"), ("x-a", "y\0")] {
        let mut frames = Frames::to(proxy.address).await;
        frames.ask(1, &[field]).await;
        assert_eq!(frames.goes_away().await, Some(1), "PROTOCOL_ERROR: {field:?}");
    }
    for seen in upstream.seen() {
        assert!(matches!(&seen.all("host")[..], [host] if host.eq_ignore_ascii_case("chat.example")), "{seen:?}");
        assert_eq!((seen.header("te"), seen.header("connection")), (None, None), "{seen:?}");
    }
}

#[actix_web::test]
async fn f31_connect_is_refused() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let connect = http::Request::connect("chat.example:443").body(()).expect("a request");
    let (response, _stream) = client.send.clone().send_request(connect, false).expect("a request");
    let got = read(response).await.expect("an answer");
    assert_eq!((got.status, got.json()["id"].as_str()), (405, Some("avatar_proxy.method.connect")));
    assert_eq!(upstream.seen().len(), 0);
}

#[actix_web::test]
async fn f32_a_head_may_be_long_and_no_longer() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    let proxy = proxy_before(upstream.address);
    let client = Client::to(proxy.address).await;
    let many = |count| (0..count).fold(Request::get("/"), |request, n| request.header(&format!("x-{n}"), "y"));
    let long = |length: usize| {
        Request::get("/").header("x-a", &"y".repeat(length / 8)).header("x-b", &"y".repeat(length / 8 * 7))
    };
    let crumbs = (0..300).fold(Request::get("/"), |request, n| request.header("Cookie", &format!("a{n}=1")));
    for (request, expected) in [
        (many(95), 200),
        (many(96), 431),
        (crumbs, 200),
        (long(16 << 10), 200),
        (long(31 << 10), 200),
        (long(34 << 10), 431),
    ] {
        let got = client.ask(&request).await;
        assert_eq!(got.status, expected, "{} fields", upstream.seen().len());
        if expected == 431 {
            assert_eq!(got.json()["id"].as_str(), Some("avatar_proxy.request.head_too_large"));
        }
    }
    // What is far longer is refused as soon as that is known.
    assert_eq!(client.ask(&long(60 << 10)).await.status, 431);
    assert_eq!(client.ask(&Request::get("/")).await.status, 200, "the connection goes on");
}

/// A field that was sent once is named by one byte from then on (RFC 7541 section 6.1).
#[actix_web::test]
async fn heads_that_are_cheap_for_their_client_are_bounded() {
    // It never answers.
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = proxy_before(upstream.local_addr().expect("bound"));
    let mut frames = Frames::to(proxy.address).await;
    let large = "y".repeat(3900);
    // A field that goes into the table, and is its only one.
    let mut indexed = block(&[("x-a", &large)]);
    indexed[0] = 0x40;
    let bomb = [&block(&PLAIN)[..], &indexed, &[0x80 + 62; 6]].concat();
    for n in 0..50 {
        frames.send(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &bomb).await;
    }
    // Of 27 KiB each there is room for 38.
    let mut refused = Vec::new();
    while refused.len() < 12 {
        let frame = frames.next().await.expect("the connection goes on");
        if frame.kind == HEADERS {
            refused.push(frame.stream);
        }
    }
    assert_eq!(proxy.metric("avatar_proxy_in_flight_requests").await, 38, "{refused:?}");
}

#[actix_web::test]
async fn f27_who_asks_for_nothing_is_let_go() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    let proxy = proxy_with(upstream.address, |config| {
        config.server.keep_alive = SHORT;
        config.server.head_timeout = SHORT;
    });
    // With and without a request before.
    for asks in [true, false] {
        let client = Client::to(proxy.address).await;
        let started = Instant::now();
        if asks {
            assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        }
        client.ended().await;
        assert!(started.elapsed() + Duration::from_millis(50) > SHORT, "{:?}", started.elapsed());
    }
    // A preface that does not come.
    let mut tls = connect(proxy.address, &["h2"]).await;
    tls.write_all(b"PRI * HTTP/2.0\r\n").await.expect("taken");
    let _ = timeout(PATIENCE, tls.read_to_end(&mut Vec::new())).await.expect("the connection ends");
    // Who says that it is there, but neither asks nor answers, is not waited for.
    let mut frames = Frames::to(proxy.address).await;
    while frames.try_send(PING, 0, 0, &[0; 8]).await {
        tokio::time::sleep(SHORT / 20).await;
    }
    assert_eq!(frames.goes_away().await, Some(0), "NO_ERROR");
}

#[actix_web::test]
async fn a_connection_with_a_request_in_progress_is_not_idle() {
    let (upstream, release) = holding_back().await;
    let proxy = proxy_with(upstream.address, |config| {
        config.server.keep_alive = SHORT / 4;
        config.server.head_timeout = SHORT / 4;
    });
    let client = Client::to(proxy.address).await;
    let waits = async {
        upstream.has_seen(1).await;
        tokio::time::sleep(SHORT).await;
        release.add_permits(1);
    };
    let (got, ()) = futures_util::future::join(client.ask(&Request::get("/")), waits).await;
    assert_eq!(got.status, 200);
}

#[actix_web::test]
async fn f50_a_stream_in_flight_is_finished_and_no_further_one_is_taken() {
    let (upstream, release) = holding_back().await;
    let mut proxy = proxy_before(upstream.address);
    let (busy, idle) = (Client::to(proxy.address).await, Client::to(proxy.address).await);
    let mut frames = Frames::to(proxy.address).await;
    frames.ask(1, &[]).await;
    assert_eq!(idle.ask(&Request::get("/..")).await.status, 400);
    let (response, _) = busy.begin(&Request::get("/")).await;
    upstream.has_seen(2).await;
    proxy.begin_stop();
    idle.ended().await;
    // The client is told before its answer is there.
    let goaway = frames.next_of(u32::MAX).await.expect("a last word");
    assert_eq!((goaway.kind, &goaway.payload[4..8]), (GOAWAY, &[0; 4][..]));
    // Until it knows, what it asks for is answered.
    frames.ask(3, &[]).await;
    upstream.has_seen(3).await;
    release.add_permits(3);
    assert_eq!(read(response).await.expect("an answer").status, 200);
    busy.ended().await;
    let mut whole = Vec::new();
    while whole.len() < 2 {
        let frame = frames.next().await.expect("an answer");
        if frame.kind == HEADERS {
            assert_eq!(frame.payload[0], 0x88, "{frame:?}");
        }
        if frame.stream != 0 && frame.flags & END_STREAM != 0 {
            whole.push(frame.stream);
        }
    }
    drop(frames);
    let ended = tokio::task::spawn_blocking(|| proxy.wait()).await.expect("no panic");
    ended.expect("it ends well");
}
