//! Being told to stop: what is in flight is finished, nothing new is taken.

use crate::client::{PATIENCE, Request, read_answer};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, drain, picture_answer, send_and_close, taking_all};
use crate::websocket::{ACCEPT, agreeing, handshake, switching, tunnel};
use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// The grace of a proxy that is in a hurry.
const GRACE: Duration = Duration::from_millis(300);

/// An upstream that shows a picture to one request each time it is told to.
async fn showing_when_told() -> (Upstream, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let released = released.clone();
        async move {
            released.notified().await;
            send_and_close(&mut stream, &picture_answer("1", &png(&photo(1)))).await;
        }
    })
    .await;
    (upstream, release)
}

#[actix_web::test]
async fn f50_what_is_in_flight_is_finished() {
    let (upstream, release) = showing_when_told().await;
    let mut proxy = Proxy::before(upstream.address);
    let address = proxy.address;

    let in_flight = async { Request::picture("size=32").send(address).await };
    let stopping = async {
        upstream.has_seen(1).await;
        proxy.begin_stop();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        release.notify_one();
    };
    let (answer, ()) = futures_util::future::join(in_flight, stopping).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.dimensions(), (32, 32));
    assert_eq!(answer.header("connection"), Some("close"));
    proxy.wait().expect("it ends well");
}

#[actix_web::test]
async fn f50_a_second_signal_ends_the_drain() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move { drain(&mut stream).await }).await;
    let mut proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = Duration::from_secs(600));
    let mut in_flight = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    in_flight.write_all(&Request::get("/events").bytes("chat.example")).await.expect("taken");
    upstream.has_seen(1).await;
    let started = Instant::now();

    proxy.begin_stop();
    proxy.stop_at_once();
    proxy.wait().expect("it ends well");

    assert!(started.elapsed() < Duration::from_secs(60));
}

/// Waits for the end of a proxy while the test's own servers go on.
async fn ended(proxy: Proxy) {
    let ended = tokio::time::timeout(PATIENCE, spawn_blocking(|| proxy.wait())).await.expect("it ends");
    ended.expect("no panic").expect("it ends well");
}

#[actix_web::test]
async fn f50_who_waits_for_nothing_holds_nothing_up() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let mut proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = Duration::from_secs(600));
    let mut idle = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    idle.write_all(&Request::picture("size=32").bytes("chat.example")).await.expect("taken");
    assert_eq!(read_answer(&mut idle, "GET").await.status, 200);
    let _silent = TcpStream::connect(proxy.address).await.expect("the proxy listens");

    proxy.begin_stop();
    ended(proxy).await;

    assert_eq!(idle.read(&mut [0; 1]).await.expect("closed, not reset"), 0);
}

#[actix_web::test]
async fn readiness_tells_what_stands_in_its_way() {
    let unwell = Upstream::answering(answer("503 Service Unavailable", &[], b"")).await;
    let broken = Upstream::answering(&b"nonsense\r\n\r\n"[..]).await;
    for (upstream, reason) in
        [(&unwell, "upstream answered 503 Service Unavailable"), (&broken, "upstream is unreachable")]
    {
        let proxy = Proxy::before(upstream.address);
        let ready = Request::get("/readyz").send(proxy.admin).await;
        assert_eq!((ready.status, ready.json()["reason"].as_str()), (503, Some(reason)));
    }
}

#[actix_web::test]
async fn f50_readiness_fails_while_the_rest_is_finished() {
    let (upstream, release) = showing_when_told().await;
    let mut proxy = Proxy::before(upstream.address);
    let mut in_flight = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    in_flight.write_all(&Request::picture("size=32").bytes("chat.example")).await.expect("taken");
    upstream.has_seen(1).await;
    proxy.begin_stop();
    loop {
        let ready = Request::get("/readyz").send(proxy.admin).await;
        if ready.status == 503 && ready.json()["reason"] == "draining" {
            break;
        }
    }
    assert_eq!(Request::get("/healthz").send(proxy.admin).await.status, 200);
    release.notify_one();
    assert_eq!(read_answer(&mut in_flight, "GET").await.status, 200);
    ended(proxy).await;
}

/// An upstream that agrees to become a pipe, and says this much.
async fn tunnelling(says: &'static [u8]) -> Upstream {
    Upstream::scripted(move |_, _, mut stream| async move {
        stream.write_all(&[&switching(ACCEPT), says].concat()).await.expect("taken");
        drain(&mut stream).await;
    })
    .await
}

/// A proxy before `upstream` that gives itself this much time to stop, a client of it with an open tunnel over which
/// upstream has said `says`, and what the client has heard of it.
async fn with_a_tunnel(upstream: &Upstream, says: &[u8], grace: Duration) -> (Proxy, TcpStream, Vec<u8>) {
    let proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = grace);
    let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    client.write_all(&handshake().bytes("chat.example")).await.expect("taken");
    let mut heard = read_answer(&mut client, "GET").await.body.to_vec();
    while heard.len() < says.len() {
        client.read_buf(&mut heard).await.expect("the tunnel is there");
    }
    (proxy, client, heard)
}

#[actix_web::test]
async fn f50_a_tunnel_is_told_of_the_end_when_nothing_else_is_left() {
    for (says, hears) in [
        (&b"\x81\x02hi"[..], &b"\x81\x02hi\x88\x02\x03\xe9"[..]),
        (b"", b"\x88\x02\x03\xe9"),
        // In the midst of a frame nothing can be said.
        (b"\x81\x04hi", b"\x81\x04hi"),
    ] {
        let upstream = tunnelling(says).await;
        let (mut proxy, mut client, mut heard) = with_a_tunnel(&upstream, says, Duration::from_secs(3600)).await;
        // Who waits for nothing is no reason to wait.
        let mut idle = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        idle.write_all(b"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("taken");
        assert_eq!(read_answer(&mut idle, "GET").await.status, 400);
        assert_eq!(proxy.metric("avatar_proxy_websockets").await, 1);

        proxy.begin_stop();
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut heard)).await.expect("the tunnel ends");

        assert_eq!(heard, hears);
        ended(proxy).await;
    }
}

/// Over a tunnel on which there is always something to be said, too.
#[actix_web::test]
async fn f50_a_tunnel_that_is_never_silent_is_told_as_well() {
    let pings = [0x89, 0].repeat(1 << 15);
    let mut told = 0;
    // Whether the end comes between two frames, where it can be told of, is for the sockets to say.
    for _ in 0..4 {
        let pings = pings.clone();
        let upstream = agreeing(move |mut stream| {
            let pings = pings.clone();
            async move { while stream.write_all(&pings).await.is_ok() {} }
        })
        .await;
        let hour = Duration::from_secs(3600);
        let mut proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = hour);
        let mut client = tunnel(&proxy).await;
        proxy.begin_stop();
        let (mut heard, mut last) = (0, Vec::new());
        let listens = async {
            let mut buffer = vec![0; 1 << 14];
            loop {
                match client.read(&mut buffer).await {
                    Ok(read) if read > 0 => {
                        heard += read;
                        last.extend_from_slice(&buffer[..read]);
                        last.drain(..last.len().saturating_sub(4));
                        // Slower than upstream speaks, so that there is always more.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    ended => return ended.is_ok(),
                }
            }
        };
        let ended_well = tokio::time::timeout(PATIENCE, listens).await.expect("it ends");
        told += usize::from(ended_well && heard > 4 && last == b"\x88\x02\x03\xe9");
        self::ended(proxy).await;
    }
    assert!(told > 0);
}

#[actix_web::test]
async fn f50_a_tunnel_is_open_as_long_as_a_request_is_answered_and_there_is_time() {
    let (goes_on, may_go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    for has_time in [true, false] {
        let (begins, waits) = (goes_on.clone(), may_go_on.clone());
        let upstream = Upstream::scripted(move |_, seen, mut stream| {
            let (begins, waits) = (begins.clone(), waits.clone());
            async move {
                if seen.header("upgrade").is_some() {
                    stream.write_all(&switching(ACCEPT)).await.expect("taken");
                    return drain(&mut stream).await;
                }
                begins.notify_one();
                waits.notified().await;
                send_and_close(&mut stream, &answer("200 OK", &[], b"at last")).await;
            }
        })
        .await;
        let grace = if has_time { Duration::from_secs(3600) } else { GRACE };
        let (mut proxy, mut client, mut heard) = with_a_tunnel(&upstream, b"", grace).await;
        let mut in_flight = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        in_flight.write_all(&Request::get("/slow").bytes("chat.example")).await.expect("taken");
        goes_on.notified().await;

        let started = Instant::now();
        proxy.begin_stop();
        if has_time {
            while TcpStream::connect(proxy.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            let silence = tokio::time::timeout(GRACE, client.read_buf(&mut heard)).await;
            assert!(silence.is_err(), "it was told too early: {heard:?}");
            may_go_on.notify_one();
            assert_eq!(read_answer(&mut in_flight, "GET").await.body, &b"at last"[..]);
        }
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut heard)).await.expect("the tunnel ends");

        assert_eq!(heard, b"\x88\x02\x03\xe9");
        assert!(has_time || started.elapsed() >= GRACE);
        ended(proxy).await;
    }
}

#[actix_web::test]
async fn f50_an_upload_that_takes_longer_than_there_is_time_is_broken_off() {
    let (upstream, mut told) = taking_all().await;
    let mut proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = GRACE);
    let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let head = "POST /api/v4/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    client.write_all(head.as_bytes()).await.expect("taken");
    upstream.has_seen(1).await;

    proxy.begin_stop();
    ended(proxy).await;

    let body = tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time").expect("upstream listens");
    assert!(!body.ends_with(b"0\r\n\r\n"), "{body:?}");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
}

/// A client as RFC 9112 section 9.3.1 wants it: it asks again when it was refused a connection, and when one that it had
/// used before ended without a byte.
struct Persistent {
    to: SocketAddr,
    kept: Option<TcpStream>,
    failures: Rc<RefCell<Vec<String>>>,
}

impl Persistent {
    async fn ask(&mut self, keep: bool) {
        let request = Request::picture("size=32").bytes("chat.example");
        loop {
            let is_fresh = self.kept.is_none();
            let mut stream = match self.kept.take() {
                Some(kept) => kept,
                None => match TcpStream::connect(self.to).await {
                    Ok(stream) => stream,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    Err(error) => return self.failures.borrow_mut().push(format!("connect: {error}")),
                },
            };
            let begins = match stream.write_all(&request).await {
                Ok(()) => stream.readable().await.and_then(|()| peeked(&stream)),
                Err(error) => Err(error),
            };
            match begins {
                Ok(true) => {}
                _ if !is_fresh => continue,
                begins => return self.failures.borrow_mut().push(format!("a new connection: {begins:?}")),
            }
            let answer = read_answer(&mut stream, "GET").await;
            if answer.status != 200 || !answer.complete {
                self.failures.borrow_mut().push(format!("{answer:?}"));
            }
            self.kept = Some(stream).filter(|_| keep && answer.header("connection").is_none());
            return;
        }
    }
}

/// Whether anything has come; `false` at the end.
fn peeked(stream: &TcpStream) -> std::io::Result<bool> {
    let standard = socket2::SockRef::from(stream);
    standard.peek(&mut [std::mem::MaybeUninit::uninit(); 1]).map(|read| read > 0)
}

#[actix_web::test]
async fn f50_nobody_who_asks_again_notices_a_restart() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let mut proxy = Proxy::granting(upstream.address);
    let to = proxy.address;
    let (failures, answered, over) = (Rc::default(), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let clients = (0..8).map(|n| {
        let mut client = Persistent { to, kept: None, failures: Rc::clone(&failures) };
        let (answered, over) = (answered.clone(), over.clone());
        actix_web::rt::spawn(async move {
            while !over.get() {
                // Some of them always connect anew.
                client.ask(n % 4 > 0).await;
                answered.set(answered.get() + 1);
            }
        })
    });
    let clients = clients.collect::<Vec<_>>();
    for restart in 1..=5 {
        while answered.get() < 200 * restart {
            tokio::task::yield_now().await;
        }
        proxy.begin_stop();
        ended(proxy).await;
        proxy = Proxy::with(upstream.address, |config| {
            config.server.listen = to;
            config.grants.ttl = Duration::from_secs(3600);
        });
    }
    over.set(true);
    for client in clients {
        client.await.expect("no panic");
    }
    assert_eq!(*failures.borrow(), Vec::<String>::new(), "of {}", answered.get());
}
