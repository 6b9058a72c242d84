//! What a thread does with a client that connects: HTTP/1.1 by actix, over a connection of ours, or HTTP/2.

use super::certificate::Certificate;
use super::crowd::Crowd;
use super::farewell::written;
use super::http2::{self, Http2};
use super::pulse::{LINGER, Limits, Pulse};
use super::stream::{Socket, Stream, Then};
use super::sweep::Connections;
use super::{Refusal, Stage, upgrade};
use crate::telemetry::{Reason, Telemetry};
use actix_codec::Framed;
use actix_http::error::{DispatchError, ParseError};
use actix_http::h1::Codec;
use actix_http::{ConnectionType, HttpService, KeepAlive, Protocol, Request};
use actix_web::HttpResponse;
use actix_web::dev::{Service, ServiceFactory, fn_factory, fn_service};
use actix_web::http::Version;
use socket2::SockRef;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How much the kernel takes that it cannot send yet, in bytes; there is room for more when it is half of that. Whether the
/// client takes anything is seen by that room: where the kernel filled the megabytes that it allows itself, a slow reader
/// would look like one that stands still, and would be held in as much memory.
const NOT_SENT: u32 = 128 << 10;

/// What each thread needs to serve connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a connection may stay in each phase.
    pub limits: Limits,
    /// Where the process stands.
    pub stage: watch::Receiver<Stage>,
    /// Counts the connections.
    pub telemetry: Arc<Telemetry>,
    /// How many of them each address has.
    pub crowd: Arc<Crowd>,
    /// How many requests each address has under way over HTTP/2, where one connection can have a hundred.
    pub streams: Arc<Crowd>,
    /// Shown to clients; without one they speak plain HTTP.
    pub certificate: Option<Certificate>,
}

/// Serves each connection of a thread with `answer`, which is the thread's own. What asks for an upgrade to WebSocket, or is
/// a CONNECT, may be answered by a 101 with a [`Switch`](super::Switch); any other answer to it is the connection's last.
/// `refuse` counts what is no request, and makes the answer to it.
pub fn serve<A, F, R>(
    settings: &Settings,
    answer: A,
    refuse: R,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = Infallible, InitError = ()> + use<A, F, R>
where
    R: Fn(Refusal) -> HttpResponse + 'static,
    A: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let Settings { limits, stage, telemetry, crowd, streams, certificate } = settings.clone();
    let acceptor = certificate.map(|certificate| TlsAcceptor::from(certificate.server()));
    let refuse = Rc::new(refuse);
    let refuses = refuse.clone();
    let connections = Connections::looked_after(limits, stage.clone(), Rc::new(move |why| written(refuses(why))));
    let http2 = Rc::new(Http2 { answer: answer.clone(), refuse, streams, write_idle: limits.write_idle, stage });
    let (among, upgrade) = (connections.clone(), answer.clone());
    let http = HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .on_connect_ext(|stream: &Stream, data| _ = data.insert(stream.pulse().clone()))
        .upgrade(fn_service(move |(request, framed): (Request, Framed<Stream, Codec>)| {
            let answer = upgrade.clone();
            async move {
                upgrade::serve(request, framed, answer).await;
                Ok::<_, Infallible>(())
            }
        }))
        .finish(fn_service(move |request: Request| {
            // actix says `Connection: upgrade` in every answer to a request that says so, and keeps no such connection;
            // but nothing is upgraded here (RFC 9110 section 7.8).
            let wants_upgrade = request.head().connection_type() == ConnectionType::Upgrade;
            let wants_close = request.head().connection_type() == ConnectionType::Close;
            let pulse = request.conn_data::<Rc<Pulse>>().cloned().expect("each connection brings its own");
            let (asked, among) = (answer(request), among.clone());
            async move {
                let mut response = asked.await;
                // actix uses the heads of answers again, and leaves in them the version that the last one was sent with: in
                // HTTP/1.0 an answer that says nothing is the last.
                response.head_mut().version = Version::HTTP_11;
                let closes = among.drain() || wants_upgrade || wants_close;
                if closes {
                    response.head_mut().set_connection_type(ConnectionType::Close);
                }
                if response.head().connection_type() == ConnectionType::Close {
                    pulse.says_last();
                }
                if !response.head().chunked() {
                    pulse.ends_answer_with_connection();
                }
                Ok::<_, Infallible>(response)
            }
        }));
    fn_factory(move || {
        let (http, connections, telemetry) = (http.new_service(()), connections.clone(), telemetry.clone());
        let (acceptor, http2, crowd) = (acceptor.clone(), http2.clone(), crowd.clone());
        async move {
            let http = Rc::new(http.await?);
            Ok(fn_service(move |tcp: TcpStream| {
                let (http, acceptor, among) = (http.clone(), acceptor.clone(), connections.clone());
                let http2 = http2.clone();
                // A connection that cannot be set so is about to break anyway.
                let _ = tcp.set_nodelay(true);
                let _ = SockRef::from(&tcp).set_tcp_notsent_lowat(NOT_SENT);
                let peer = tcp.peer_addr().ok();
                let place = crowd.admit(peer);
                if place.is_none() {
                    telemetry.refused(Reason::Crowd);
                    tracing::debug!(client.address = ?peer, "connection refused: its address has as many as it may");
                    // It is not to cost us even the memory of its end.
                    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
                }
                let socket = Socket::new(tcp, connections.admit(telemetry.connection()));
                async move {
                    let Some(_place) = place else { return Ok(()) };
                    let stream = match acceptor {
                        None => Stream::plain(socket),
                        // On the heap, as everything that a plain connection does without.
                        Some(acceptor) => match Box::pin(encrypted(socket, acceptor, http2, peer)).await {
                            Some(stream) => stream,
                            None => return Ok(()),
                        },
                    };
                    let serve = |stream| http.call((stream, Protocol::Http1, peer));
                    if let Some(DispatchError::Parse(error)) = carry(stream, serve).await {
                        // actix has said it right behind an answer of ours, where it could not be put better.
                        let _ = (among.refuse)(match error {
                            ParseError::TooLarge => Refusal::LongHead,
                            _ => Refusal::Malformed,
                        });
                    }
                    Ok(())
                }
            }))
        }
    })
}

/// The connection once keys are agreed upon; `None` when they are not, or it was one of HTTP/2 and has ended.
async fn encrypted<A, F, R>(
    socket: Socket,
    acceptor: TlsAcceptor,
    http2: Rc<Http2<A, R>>,
    peer: Option<SocketAddr>,
) -> Option<Stream>
where
    R: Fn(Refusal) -> HttpResponse + 'static,
    A: Fn(Request) -> F + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let tls = socket.encrypted(&acceptor).await?;
    if http2::is_chosen(&tls) {
        http2.serve(tls, peer).await;
        return None;
    }
    Some(Stream::encrypted(tls))
}

/// Has `serve` serve a connection until it ends, anew each time when its client has said nothing for a while: what actix holds
/// for a connection is many times the connection. What went wrong is returned, if nobody was told of it.
async fn carry<F>(mut stream: Stream, serve: impl Fn(Stream) -> F) -> Option<DispatchError>
where
    F: Future<Output = Result<(), DispatchError>>,
{
    loop {
        let (pulse, sequel) = (stream.pulse().clone(), stream.sequel().clone());
        // On the heap, to be let go while it goes on as something else.
        let mut served = Box::pin(serve(stream));
        let ended = poll_fn(|context| match served.as_mut().poll(context) {
            Poll::Pending if pulse.falls_asleep() => Poll::Ready(None),
            polled => polled.map(Some),
        });
        let ended = ended.await;
        drop(served);
        match (ended, sequel.take()) {
            (None, Some(Then::Remains(transport, held))) => stream = transport.wakes(held).await?,
            (_, Some(Then::Becomes(sequel))) => {
                sequel.await;
                return None;
            }
            (ended, _) => return ended.and_then(Result::err).filter(|_| pulse.refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::pipeline::Framing;
    use crate::listen::pulse::Exchange;
    use bytes::Bytes;
    use std::cell::Cell;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(3600),
        keep_alive: Duration::from_secs(3600),
        write_idle: Duration::from_secs(3600),
    };

    /// A client, and its connection as it is served, as long as the first of these is kept.
    async fn connected() -> (watch::Sender<Stage>, TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (tcp, _) = listener.accept().await.expect("a client");
        let (keeps, stage) = watch::channel(Stage::Serving);
        let connections = Connections::looked_after(LIMITS, stage, Rc::new(|_| Bytes::new()));
        (keeps, client, Stream::plain(Socket::new(tcp, connections.admit(Telemetry::new().connection()))))
    }

    /// What lets one connection of each address in.
    fn one_of_each(telemetry: &Arc<Telemetry>) -> (watch::Sender<Stage>, Settings) {
        let (keeps, stage) = watch::channel(Stage::Serving);
        let crowd = Crowd::new(1, |_| false);
        let (telemetry, streams) = (telemetry.clone(), crowd.clone());
        (keeps, Settings { limits: LIMITS, stage, telemetry, crowd, streams, certificate: None })
    }

    /// What serves a connection is gone while its client says nothing, and what the client says then is read from its first
    /// byte.
    #[actix_web::test]
    async fn a_connection_is_served_anew_when_its_client_speaks_again() {
        let (_keeps, mut client, stream) = connected().await;
        let pulse = stream.pulse().clone();
        // Whoever serves holds a part of it.
        let held = Rc::new(());
        let served = Rc::new(Cell::new(0));
        let (holds, counts) = (held.clone(), served.clone());
        let serve = move |mut stream: Stream| {
            let (holds, counts) = (holds.clone(), counts.clone());
            async move {
                while let Ok(byte) = stream.read_u8().await
                    && byte != b'.'
                {
                    drop(Exchange::begin(stream.pulse(), Framing::None));
                    stream.write_u8(byte).await.expect("taken");
                    stream.flush().await.expect("taken");
                    counts.set(counts.get() + 1);
                }
                drop(holds);
                Ok(())
            }
        };
        let carried = actix_web::rt::spawn(async move { carry(stream, serve).await });
        for round in 1..=3 {
            client.write_all(b"a").await.expect("taken");
            assert_eq!((client.read_u8().await.expect("an answer"), served.get()), (b'a', round));
            assert_eq!(Rc::strong_count(&held), 3);

            let now = Instant::now();
            pulse.sweep(&LIMITS, false, now + Duration::from_secs(round * 10));
            pulse.sweep(&LIMITS, false, now + Duration::from_secs(round * 10 + 5));
            while Rc::strong_count(&held) > 2 {
                tokio::task::yield_now().await;
            }
        }
        client.write_all(b".").await.expect("taken");
        assert!(carried.await.expect("no panic").is_none());
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    }

    /// The sweeper may take a connection for idle just when two requests come together.
    #[actix_web::test]
    async fn what_is_held_when_a_connection_falls_asleep_is_served_when_it_wakes() {
        let (_keeps, mut client, stream) = connected().await;
        let served = Rc::new(Cell::new(0));
        let counts = served.clone();
        let serve = move |mut stream: Stream| {
            counts.set(counts.get() + 1);
            async move {
                let mut head = [0; 100];
                while let Ok(1..) = stream.read(&mut head).await {
                    drop(Exchange::begin(stream.pulse(), Framing::None));
                    stream.write_u8(b'a').await.expect("taken");
                    stream.flush().await.expect("taken");
                    for seconds in [10, 20] {
                        stream.pulse().sweep(&LIMITS, false, Instant::now() + Duration::from_secs(seconds));
                    }
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        };
        client.write_all(&b"GET / HTTP/1.1\r\n\r\n".repeat(3)).await.expect("taken");
        actix_web::rt::spawn(async move { carry(stream, serve).await });
        for round in 1..=3 {
            let said = tokio::time::timeout(Duration::from_secs(60), client.read_u8()).await;
            assert_eq!(said.expect("an answer").expect("a byte"), b'a', "{round}");
        }
        assert_eq!(served.get(), 3, "it slept in between");
    }

    /// What a connection takes whose client says nothing is, but for the socket, the state of this future.
    #[actix_web::test]
    async fn a_plain_connection_does_not_carry_what_others_need() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (_keeps, settings) = one_of_each(&Arc::new(Telemetry::new()));
        let answer = |_: Request| async { HttpResponse::Ok().finish() };
        let service = serve(&settings, answer, |_| HttpResponse::BadRequest().finish());
        let service = service.new_service(()).await.expect("it cannot fail");
        let served = service.call(listener.accept().await.expect("a client").0);
        assert!(size_of_val(&served) <= 1280, "{} bytes", size_of_val(&served));
    }

    #[actix_web::test]
    async fn an_address_with_as_many_connections_as_it_may_have_gets_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let telemetry = Arc::new(Telemetry::new());
        let (_keeps, settings) = one_of_each(&telemetry);
        let answer = |_: Request| async { HttpResponse::Ok().finish() };
        let service = serve(&settings, answer, |_| HttpResponse::BadRequest().finish());
        let service = service.new_service(()).await.expect("it cannot fail");
        let connect = async || {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            actix_web::rt::spawn(service.call(listener.accept().await.expect("a client").0));
            // It may be gone already.
            let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut said = [0; 12];
            client.read_exact(&mut said).await.map(|_| (client, said))
        };
        let (first, said) = connect().await.expect("an answer");
        assert_eq!(&said, b"HTTP/1.1 200");

        assert_eq!(connect().await.map(drop).expect_err("one is enough").kind(), std::io::ErrorKind::ConnectionReset);
        let counted = telemetry.encode(&crate::telemetry::CacheLevels::default());
        assert!(counted.contains("avatar_proxy_refusals_total{reason=\"crowd\"} 1\n"), "{counted}");

        drop(first);
        while connect().await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
