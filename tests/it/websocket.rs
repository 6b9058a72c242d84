//! Upgraded connections: a pipe after upstream's 101 to this client's key, and nothing before it.

use crate::client::{PATIENCE, Request, read_answer};
use crate::mattermost::{looks_at, town};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, answer};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The fault table says a second; a busy machine may need some more.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn switching(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Version-Id: 11.6.0\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn handshake() -> Request {
    Request::get("/api/v4/websocket?connection_id=&sequence_number=0")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY)
        .header("Origin", "https://chat.example")
}

/// Asks for an upgrade and sends `early` right behind it.
pub(crate) async fn connect(proxy: SocketAddr, early: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let bytes = [&handshake().bytes("chat.example")[..], early].concat();
    stream.write_all(&bytes).await.expect("the request is taken");
    stream
}

/// Answers the upgrade with `answer`, then sends back whatever comes and tells of it; nothing is the end.
pub(crate) async fn echoing(answer: Vec<u8>) -> (Upstream, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tells, told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let (answer, tells) = (answer.clone(), tells.clone());
        async move {
            let mut buffer = answer;
            loop {
                let _ = stream.write_all(&buffer).await;
                buffer.clear();
                let read = stream.read_buf(&mut buffer).await.unwrap_or(0);
                let _ = tells.send(buffer.clone());
                if read == 0 {
                    return;
                }
            }
        }
    })
    .await;
    (upstream, told)
}

#[actix_web::test]
async fn f38_silence_is_no_reason_to_end_a_tunnel() {
    let (upstream, _told) = echoing(switching(ACCEPT)).await;
    let limit = Duration::from_millis(100);
    let proxy = Proxy::with(upstream.address, |config| {
        let server = &mut config.server;
        (server.head_timeout, server.keep_alive) = (limit, limit);
        (server.body_idle_timeout, server.write_idle_timeout) = (limit, limit);
        (config.upstream.head_timeout, config.upstream.idle_timeout) = (limit, limit);
        (config.upstream.passthrough_timeout, config.upstream.picture_timeout) = (limit, limit);
    });
    let mut stream = connect(proxy.address, b"").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 101);
    for _ in 0..3 {
        tokio::time::sleep(10 * limit).await;
        stream.write_all(b"still there?").await.expect("taken");
        let mut echo = [0; 12];
        stream.read_exact(&mut echo).await.expect("the tunnel is there");
    }
}

#[actix_web::test]
async fn messages_cross_both_ways() {
    let upstream = Upstream::scripted(|_, seen, mut stream| async move {
        let key = seen.header("sec-websocket-key").expect("a key");
        let _ = stream.write_all(&switching(&derive_accept_key(key.as_bytes()))).await;
        let mut server = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        server.send(Message::text("hello")).await.expect("the client listens");
        while let Some(Ok(message)) = server.next().await {
            if message.is_close() || server.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let url = "ws://chat.example/api/v4/websocket";
    let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.expect("upgraded");

    assert_eq!(client.next().await.expect("a message").expect("whole"), Message::text("hello"));
    for message in [Message::text("{\"seq\":1}"), Message::binary(vec![9; 300_000]), Message::text("")] {
        client.send(message.clone()).await.expect("taken");
        assert_eq!(client.next().await.expect("a message").expect("whole"), message);
    }

    let seen = upstream.seen().pop().expect("asked");
    assert_eq!((seen.header("upgrade"), seen.header("host")), (Some("websocket"), Some("chat.example")));
    assert!(seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
}

#[actix_web::test]
async fn bytes_cross_as_they_are_early_ones_included() {
    let (upstream, _told) = echoing(switching(ACCEPT)).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = connect(proxy.address, b"early").await;

    let switched = read_answer(&mut stream, "GET").await;
    assert_eq!((switched.status, switched.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!((switched.header("upgrade"), switched.header("x-version-id")), (Some("websocket"), Some("11.6.0")));
    let mut echoed = switched.body.to_vec();
    while echoed.len() < 5 {
        assert_ne!(stream.read_buf(&mut echoed).await.expect("an echo"), 0);
    }
    assert_eq!(echoed, b"early");

    let sent = (0..1 << 20).map(|n: u32| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect::<Vec<_>>();
    let (mut reads, mut writes) = stream.split();
    let mut echoed = vec![0; sent.len()];
    let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut echoed));
    written.expect("taken");
    read.expect("an echo");
    assert!(sent == echoed);
    assert_eq!(upstream.seen()[0].target(), "/api/v4/websocket?connection_id=&sequence_number=0");
}

/// Upstream agrees, then does as `script` says.
pub(crate) async fn agreeing<F: Future<Output = ()> + 'static>(script: impl Fn(TcpStream) -> F + 'static) -> Upstream {
    let script = Rc::new(script);
    Upstream::scripted(move |_, _, mut stream| {
        let script = script.clone();
        async move {
            stream.write_all(&switching(ACCEPT)).await.expect("the proxy listens");
            script(stream).await;
        }
    })
    .await
}

/// A tunnel over which nothing has gone.
pub(crate) async fn tunnel(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy.address, b"").await;
    assert_eq!(read_answer(&mut stream, "GET").await.status, 101);
    stream
}

/// Reads to the end of a connection, however it ends.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    bytes
}

#[actix_web::test]
async fn f38_when_one_side_dies_the_other_hears_of_it() {
    for reset in [false, true] {
        let (tells, mut told) = mpsc::unbounded_channel();
        let upstream = agreeing(move |mut stream| {
            let tells = tells.clone();
            async move {
                rest(&mut stream).await;
                let _ = tells.send(());
            }
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let stream = tunnel(&proxy).await;
        if reset {
            stream.set_zero_linger().expect("a socket");
        }
        let died = Instant::now();
        drop(stream);
        told.recv().await.expect("upstream hears");
        assert!(died.elapsed() < SOON, "upstream heard after {:?}", died.elapsed());

        let upstream = agreeing(move |mut stream| async move {
            stream.read_u8().await.expect("a word");
            if reset {
                stream.set_zero_linger().expect("a socket");
            }
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = tunnel(&proxy).await;
        stream.write_u8(0).await.expect("taken");
        let died = Instant::now();
        assert_eq!(rest(&mut stream).await, b"");
        assert!(died.elapsed() < SOON, "the client heard after {:?}", died.elapsed());
    }
}

/// Silence is no end, but what is said must be heard: else a client keeps what it has of us for as long as it likes.
#[actix_web::test]
async fn f38_when_upstream_hears_no_more_the_tunnel_ends() {
    let upstream = agreeing(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.upstream.idle_timeout = SHORT);
    let stream = tunnel(&proxy).await;
    let (mut read, mut write) = stream.into_split();
    let talk = vec![0x55; 64 << 10];
    let talks = actix_web::rt::spawn(async move { while write.write_all(&talk).await.is_ok() {} });
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, read.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the tunnel is still there");
    talks.await.expect("no panic");
}

/// Whoever has said its last still hears the other's.
#[actix_web::test]
async fn f38_half_of_a_tunnel_may_end_first() {
    let upstream = agreeing(|mut stream| async move {
        let last = rest(&mut stream).await;
        let _ = stream.write_all(&[b"farewell to ", &last[..]].concat()).await;
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = tunnel(&proxy).await;
    stream.write_all(b"one who leaves").await.expect("taken");
    stream.shutdown().await.expect("a socket");
    assert_eq!(rest(&mut stream).await, b"farewell to one who leaves");

    let (tells, mut told) = mpsc::unbounded_channel();
    let upstream = agreeing(move |mut stream| {
        let tells = tells.clone();
        async move {
            stream.read_u8().await.expect("a word");
            stream.write_all(b"I leave").await.expect("taken");
            stream.shutdown().await.expect("a socket");
            let _ = tells.send(rest(&mut stream).await);
        }
    })
    .await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = tunnel(&proxy).await;
    stream.write_u8(0).await.expect("taken");
    let mut last = [0; 7];
    stream.read_exact(&mut last).await.expect("upstream's last");
    stream.write_all(b"farewell").await.expect("taken");
    let left = Instant::now();
    assert_eq!((&last, rest(&mut stream).await), (b"I leave", Vec::new()));
    assert!(left.elapsed() < SOON, "the client heard after {:?}", left.elapsed());
    assert_eq!(told.recv().await.expect("upstream hears"), b"farewell");
}

/// For as long as there is something to hear, and not much longer.
#[actix_web::test]
async fn f38_who_has_said_its_last_hears_the_other_out() {
    let upstream = agreeing(|mut stream| async move {
        rest(&mut stream).await;
        for word in 0..20 {
            let _ = stream.write_u8(word).await;
            tokio::time::sleep(SHORT / 5).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| config.upstream.idle_timeout = SHORT);
    let mut stream = tunnel(&proxy).await;
    stream.shutdown().await.expect("a socket");

    assert_eq!(rest(&mut stream).await, (0..20).collect::<Vec<_>>());
}

#[actix_web::test]
async fn pings_are_for_the_other_side() {
    let (upstream, mut told) = echoing(switching(ACCEPT)).await;
    let proxy = Proxy::before(upstream.address);
    let mut stream = tunnel(&proxy).await;
    // Masked, as clients send it.
    let ping = b"\x89\x84\x01\x02\x03\x04qkmc";
    stream.write_all(ping).await.expect("taken");
    let mut back = vec![0; ping.len()];
    stream.read_exact(&mut back).await.expect("an echo");
    assert_eq!((&back[..], told.recv().await), (&ping[..], Some(ping.to_vec())));
}

#[actix_web::test]
async fn what_a_handshake_agrees_on_is_between_the_two_sides() {
    let agreed = "Keep-Alive: timeout=5\r\nTrailer: x\r\nSec-WebSocket-Protocol: mm.v2\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n";
    let head = String::from_utf8(switching(ACCEPT)).expect("text");
    let (upstream, _told) = echoing(format!("{}\r\n{agreed}", head.trim_end()).into_bytes()).await;
    let proxy = Proxy::before(upstream.address);
    for target in ["/api/v4/websocket", "/chat/mm/api/v4/websocket?x=%20", "/plugins/playbooks/ws"] {
        let offered = [
            ("sec-websocket-protocol", "mm.v1, mm.v2"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("sec-websocket-extensions", "x-other"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
            ("origin", "https://chat.example"),
            ("cookie", "MMAUTHTOKEN=x"),
        ];
        let request = Request::get(target).header("Connection", "keep-alive, Upgrade").header("Upgrade", "WebSocket");
        let request = offered.iter().fold(request, |request, (name, value)| request.header(name, value));

        let answer = proxy.send(&request).await;

        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("mm.v2")));
        assert_eq!(answer.all("sec-websocket-extensions"), ["permessage-deflate; client_no_context_takeover"]);
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
        for hop in ["content-length", "transfer-encoding", "keep-alive", "trailer"] {
            assert_eq!(answer.header(hop), None);
        }
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!(seen.target(), target);
        for (name, _) in offered {
            let sent = offered.iter().filter(|(each, _)| *each == name).map(|(_, value)| *value);
            assert_eq!(seen.all(name), sent.collect::<Vec<_>>(), "{name}");
        }
    }
}

/// A frame of 64 MiB, in memory at neither end of the proxy.
#[cfg(target_os = "linux")]
mod long_frames {
    use super::*;
    use crate::streaming::in_flight::{LONG, held};
    use std::cell::Cell;
    use std::sync::Arc;
    use tokio::sync::Notify;

    /// The n-th block of a frame: no two alike, so that none can take another's place.
    fn block(n: usize) -> Vec<u8> {
        let n = u64::try_from(n).expect("a number").wrapping_mul(0x9e37_79b9_7f4a_7c15);
        n.to_be_bytes().repeat(1 << 11)
    }

    async fn writes(stream: &mut TcpStream, written: &Cell<usize>) {
        let head = [&[0x82, 127][..], &(LONG as u64).to_be_bytes()].concat();
        stream.write_all(&head).await.expect("taken");
        for n in 0..LONG >> 14 {
            stream.write_all(&block(n)).await.expect("taken");
            written.set(written.get() + (1 << 14));
        }
    }

    async fn reads(stream: &mut TcpStream) {
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.expect("a head");
        let mut got = vec![0; 1 << 14];
        for n in 0..LONG >> 14 {
            stream.read_exact(&mut got).await.expect("a block");
            assert!(got == block(n), "block {n} is not what was sent");
        }
    }

    /// Upstream agrees, and does as `script` says once it is told to.
    async fn agreeing_when_told(script: impl AsyncFn(TcpStream) + 'static) -> (Upstream, Arc<Notify>) {
        let tells = Arc::new(Notify::new());
        let (told, script) = (tells.clone(), Rc::new(script));
        let upstream = agreeing(move |stream| {
            let (told, script) = (told.clone(), script.clone());
            async move {
                told.notified().await;
                script(stream).await;
            }
        })
        .await;
        (upstream, tells)
    }

    /// Writes until nobody takes any more, and tells how much was taken.
    async fn fills(stream: &mut TcpStream) -> usize {
        let mut taken = 0;
        while let Ok(written) = tokio::time::timeout(SHORT, stream.write(&[7; 8 << 10])).await {
            taken += written.expect("the tunnel is there");
        }
        taken
    }

    /// The client hangs up while the proxy holds what upstream has not taken.
    #[actix_web::test]
    async fn f38_what_the_client_said_before_its_end_arrives() {
        let (upstream, may_read) = agreeing_when_told(async |mut stream| {
            let got = rest(&mut stream).await.len();
            let _ = stream.write_all(got.to_string().as_bytes()).await;
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = tunnel(&proxy).await;
        let written = fills(&mut stream).await;

        stream.shutdown().await.expect("a socket");
        may_read.notify_one();

        assert_eq!(String::from_utf8(rest(&mut stream).await).expect("text"), written.to_string());
    }

    /// Upstream hangs up while the proxy holds what the client has not taken, and the client takes its time.
    #[actix_web::test]
    async fn f38_what_upstream_said_before_its_end_arrives() {
        let (tells, mut told) = mpsc::unbounded_channel();
        let upstream = agreeing(move |mut stream| {
            let tells = tells.clone();
            async move {
                stream.read_u8().await.expect("a word");
                let _ = tells.send(fills(&mut stream).await);
            }
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = tunnel(&proxy).await;
        stream.write_u8(0).await.expect("taken");
        let written = told.recv().await.expect("upstream is held back");
        tokio::time::sleep(SHORT).await;

        assert_eq!(rest(&mut stream).await.len(), written);
    }

    #[actix_web::test]
    async fn f38_a_frame_of_64_mebibytes_comes_down_through_a_narrow_pipe() {
        let written = Rc::new(Cell::new(0));
        let writer = written.clone();
        let upstream = agreeing(move |mut stream| {
            let written = writer.clone();
            async move {
                stream.read_u8().await.expect("a word");
                writes(&mut stream, &written).await;
                rest(&mut stream).await;
            }
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = tunnel(&proxy).await;
        stream.write_u8(0).await.expect("taken");
        upstream.has_seen(1).await;

        let held = held(&proxy, &upstream, &written).await;

        assert!(held <= 1 << 20, "{held} bytes in flight");
        reads(&mut stream).await;
    }

    #[actix_web::test]
    async fn f38_a_frame_of_64_mebibytes_goes_up_through_a_narrow_pipe() {
        let (upstream, may_read) = agreeing_when_told(async |mut stream| {
            reads(&mut stream).await;
            let _ = stream.write_all(b"all").await;
        })
        .await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = tunnel(&proxy).await;
        let written = Cell::new(0);
        let measures = async {
            let held = held(&proxy, &upstream, &written).await;
            may_read.notify_one();
            held
        };

        let (held, ()) = tokio::join!(measures, writes(&mut stream, &written));

        assert!(held <= 1 << 20, "{held} bytes in flight");
        assert_eq!(rest(&mut stream).await, b"all");
    }
}

/// Pictures are answered while many tunnels are open, and all of those still carry.
#[actix_web::test]
async fn f39_pictures_are_served_beside_many_tunnels() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    let (echo, _told) = echoing(switching(ACCEPT)).await;
    let tunnels = Proxy::before(echo.address);
    let opened = join_all((0..100).map(|_| tunnel(&tunnels))).await;
    for _ in 0..100 {
        assert_eq!(proxy.send(&look).await.status, 200);
    }
    for mut stream in opened {
        stream.write_all(b"still?").await.expect("taken");
        let mut echoed = [0; 6];
        stream.read_exact(&mut echoed).await.expect("an echo");
        assert_eq!(&echoed, b"still?");
    }
}

#[actix_web::test]
async fn a_101_to_another_key_opens_nothing() {
    let head = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").into_bytes();
    let answers = [&derive_accept_key(b"another key")[..], "", &ACCEPT.to_ascii_lowercase()].map(switching);
    let without = [
        head("Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        head(&format!("Connection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")),
        head(&format!("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")),
        head(""),
    ];
    for answer in answers.into_iter().chain(without) {
        let (upstream, mut told) = echoing(answer).await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = connect(proxy.address, b"GET /smuggled HTTP/1.1\r\n\r\n").await;

        let answer = read_answer(&mut stream, "GET").await;

        assert_eq!((answer.status, answer.json()["id"].as_str()), (502, Some("avatar_proxy.upstream.broken")));
        assert_eq!(told.recv().await.expect("upstream hears"), b"", "early bytes went upstream");
    }
}

#[actix_web::test]
async fn f37_another_answer_is_passed_on_and_opens_nothing() {
    for status in ["200 OK", "400 Bad Request", "403 Forbidden", "426 Upgrade Required", "500 Internal Server Error"] {
        let (upstream, mut told) = echoing(answer(status, &[("X-Version-Id", "11.6.0")], b"no")).await;
        let proxy = Proxy::before(upstream.address);
        let mut stream = connect(proxy.address, b"GET /smuggled HTTP/1.1\r\n\r\n").await;

        let answer = read_answer(&mut stream, "GET").await;

        assert_eq!((answer.status.to_string().as_str(), &answer.body[..]), (&status[..3], &b"no"[..]));
        assert_eq!((answer.header("x-version-id"), answer.header("connection")), (Some("11.6.0"), Some("close")));
        drop(stream);
        assert_eq!(told.recv().await.expect("upstream hears"), b"", "early bytes went upstream");
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[actix_web::test]
async fn f31_no_other_upgrade_is_offered() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"plain")).await;
    let proxy = Proxy::before(upstream.address);
    for request in [
        Request::get("/x").header("Upgrade", "h2c").header("Connection", "Upgrade, HTTP2-Settings"),
        Request::get("/x").header("Upgrade", "websocket, h2c").header("Connection", "Upgrade"),
    ] {
        let answer = proxy.send(&request.header("HTTP2-Settings", "AAMAAABkAAQAAP__")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"plain"[..]));
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[actix_web::test]
async fn f31_what_is_no_handshake_is_refused_before_upstream_hears_of_it() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"plain")).await;
    let proxy = Proxy::before(upstream.address);
    let handshake = |method| Request::new(method, "/x").header("Upgrade", "websocket").header("Connection", "Upgrade");
    for request in [
        handshake("POST"),
        handshake("POST").body("ten bytes."),
        handshake("GET").header("Content-Length", "10"),
        handshake("GET").header("Transfer-Encoding", "chunked"),
        handshake("GET").header("Upgrade", "h2c").header("Content-Length", "10"),
        // Its connection has not been told: an upgrade that somebody on the way forgot to drop.
        Request::get("/x").header("Upgrade", "websocket"),
        Request::get("/x").header("Upgrade", "websocket").header("Connection", "keep-alive"),
    ] {
        let answer = proxy.send(&request).await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{request:?}");
        assert_eq!(answer.json()["id"], "avatar_proxy.header.upgrade");
    }
    assert_eq!(upstream.seen().len(), 0);
}
