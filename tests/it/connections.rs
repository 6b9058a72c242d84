//! The way to upstream: TLS and whom it trusts, names, how many connections there are, and what happens to a request whose
//! connection dies.

use crate::client::{Answer, Connection, PATIENCE, Request};
use crate::pictures::{photo, png};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Kept, Upstream, answer, drain, keeping, kept_answer, picture_answer};
use avatar_proxy::config::{Config, TlsName, UpstreamUrl};
use avatar_proxy::upstream::Roots;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What goes out by each of the two clients.
fn one_by_each_client() -> [Request; 2] {
    [Request::picture("size=32"), Request::get("/api/v4/config/client")]
}

/// An authority that nobody has heard of, in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a root");
        let name = format!("avatar-proxy-ca-{}-{}.pem", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, issuer.pem()).expect("a temporary file");
        Self { issuer, file }
    }

    /// What a server for `name` needs.
    fn certify(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("what ring can do")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a key for its certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Takes TLS off what comes for `upstream`, and tells which name each client asked for.
async fn behind_tls(upstream: SocketAddr, tls: TlsAcceptor) -> (SocketAddr, mpsc::UnboundedReceiver<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tells, named) = mpsc::unbounded_channel();
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, tells) = (tls.clone(), tells.clone());
            actix_web::rt::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else { return };
                let _ = tells.send(stream.get_ref().1.server_name().map(str::to_owned));
                let mut plain = TcpStream::connect(upstream).await.expect("upstream listens");
                let _ = copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    (address, named)
}

fn at(config: &mut Config, url: &str) {
    config.upstream.url = UpstreamUrl::parse(url).expect("a URL");
}

/// Nothing was sent, and the client is told so.
fn check_unreachable(answer: &Answer) {
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.json()["id"], "avatar_proxy.upstream.unreachable");
}

#[actix_web::test]
async fn tls_trusts_the_file_and_names_the_host_of_the_url() {
    let authority = Authority::new();
    let picture = png(&photo(1));
    let upstream = Upstream::replying(move |_, _| picture_answer("1", &picture)).await;
    let (address, mut named) = behind_tls(upstream.address, authority.certify("localhost")).await;
    let proxy = Proxy::with(address, |config| {
        at(config, &format!("https://localhost:{}", address.port()));
        config.upstream.ca_file = Some(Roots::read(&authority.file).expect("a root"));
    });

    for request in one_by_each_client() {
        assert_eq!(proxy.send(&request.header("Host", "chat.example")).await.status, 200);
        assert_eq!(named.recv().await.expect("a handshake").as_deref(), Some("localhost"));
    }
    // The client's Host goes through TLS as it goes without.
    assert!(upstream.seen().iter().all(|seen| seen.header("host") == Some("chat.example")), "{:?}", upstream.seen());
}

/// The address of upstream is dialled, and called by the name that is configured.
#[actix_web::test]
async fn tls_names_what_is_configured() {
    let authority = Authority::new();
    let picture = png(&photo(1));
    let upstream = Upstream::replying(move |_, _| picture_answer("1", &picture)).await;
    for (certified, named_in_config, is_trusted) in
        [("chat.example", "chat.example", true), ("other.example", "chat.example", false)]
    {
        let (address, mut named) = behind_tls(upstream.address, authority.certify(certified)).await;
        for host in ["127.0.0.1", "localhost"] {
            let proxy = Proxy::with(address, |config| {
                at(config, &format!("https://{host}:{}", address.port()));
                config.upstream.ca_file = Some(Roots::read(&authority.file).expect("a root"));
                config.upstream.tls_name = Some(TlsName::parse(named_in_config).expect("a name"));
            });
            for request in one_by_each_client() {
                let answer = proxy.send(&request.header("Host", "talk.example")).await;
                if is_trusted {
                    assert_eq!(answer.status, 200, "{host}");
                    assert_eq!(named.recv().await.expect("a handshake").as_deref(), Some("chat.example"));
                } else {
                    check_unreachable(&answer);
                }
            }
        }
    }
    // Not a word of it in what is asked.
    assert!(upstream.seen().iter().all(|seen| seen.header("host") == Some("talk.example")), "{:?}", upstream.seen());
    assert_eq!(upstream.seen().len(), 4);
}

#[actix_web::test]
async fn tls_trusts_nobody_else() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = Upstream::answering(answer("200 OK", &[], b"")).await;
    for (issuer, name) in [(&stranger, "localhost"), (&authority, "elsewhere.example")] {
        let (address, _) = behind_tls(upstream.address, issuer.certify(name)).await;
        let proxy = Proxy::with(address, |config| {
            at(config, &format!("https://localhost:{}", address.port()));
            config.upstream.ca_file = Some(Roots::read(&authority.file).expect("a root"));
        });
        for request in one_by_each_client() {
            check_unreachable(&proxy.send(&request).await);
        }
    }
    assert!(upstream.seen().is_empty());
}

#[actix_web::test]
async fn f01_a_handshake_that_stalls_counts_as_connecting() {
    let authority = Authority::new();
    // It accepts and never says a word of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound");
    let proxy = Proxy::with(address, |config| {
        at(config, &format!("https://localhost:{}", address.port()));
        config.upstream.ca_file = Some(Roots::read(&authority.file).expect("a root"));
        config.upstream.connect_timeout = SHORT;
        // Neither of these is to fire.
        config.upstream.head_timeout = 2 * PATIENCE;
        config.upstream.picture_timeout = 2 * PATIENCE;
        config.upstream.passthrough_timeout = 2 * PATIENCE;
    });
    for request in one_by_each_client() {
        check_unreachable(&proxy.send(&request).await);
    }
}

/// Where `localhost` is two addresses, the first that is tried refuses.
#[actix_web::test]
async fn a_name_leads_to_whoever_listens() {
    let picture = png(&photo(1));
    let upstream = Upstream::replying(move |_, _| picture_answer("1", &picture)).await;
    let port = upstream.address.port();
    let proxy = Proxy::with(upstream.address, |config| at(config, &format!("http://localhost:{port}")));
    for request in one_by_each_client() {
        assert_eq!(proxy.send(&request).await.status, 200);
    }
}

#[actix_web::test]
async fn one_connection_too_many_is_503_and_passes_by_itself() {
    let upstream = Upstream::scripted(|n, _, mut stream| async move {
        if n > 0 {
            let _ = stream.write_all(&answer("200 OK", &[], b"")).await;
        }
        drain(&mut stream).await;
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.upstream.max_connections = 1;
        config.server.workers = 1;
        config.admin.listen = Some(config.server.listen);
    });
    let mut silent = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    silent.write_all(&Request::get("/silent").bytes("chat.example")).await.expect("taken");
    upstream.has_seen(1).await;

    let refused = proxy.send(&Request::get("/next")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")), "{refused:?}");
    assert_eq!(refused.json()["id"], "avatar_proxy.overloaded");
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"overloaded\"}").await, 1);
    // Whoever asks whether the process is of use does not wait for clients.
    assert_eq!(Request::get("/readyz").send(proxy.admin).await.status, 200);

    silent.set_zero_linger().expect("a socket");
    drop(silent);
    while proxy.send(&Request::get("/next")).await.status == 503 {
        tokio::task::yield_now().await;
    }
    let pings = upstream.seen().iter().filter(|seen| seen.target() == "/api/v4/system/ping").count();
    assert_eq!(upstream.seen().len(), 2 + pings);
}

/// Each worker keeps connections of its own, and the limit is one for all of them.
#[actix_web::test]
async fn what_one_worker_keeps_for_nothing_another_may_have() {
    let upstream = keeping(|_| kept_answer("200 OK", &[], b"{}")).await;
    let proxy = Proxy::with(upstream, |config| {
        config.upstream.max_connections = 1;
        config.server.workers = 3;
    });
    // Each comes over a connection of its own, and the workers take turns.
    for n in 0..12 {
        let answer = proxy.send(&Request::get("/api/v4/config/client")).await;
        assert_eq!(answer.status, 200, "{n}: {answer:?}");
    }
}

/// What may not be sent twice must not meet a connection of which it is known that it has ended.
#[actix_web::test]
async fn f21_a_connection_that_has_ended_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tells, mut closed) = mpsc::unbounded_channel();
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = Kept::new(stream);
            if connection.next().await.is_some() {
                connection.send(&kept_answer("200 OK", &[], b"{}")).await;
            }
            drop(connection);
            let _ = tells.send(());
        }
    });
    let proxy = Proxy::with(address, |config| config.server.workers = 1);
    for _ in 0..5 {
        assert_eq!(proxy.send(&Request::new("POST", "/api/v4/posts")).await.status, 200);
        closed.recv().await.expect("it listens");
    }
}

/// An upstream that answers the first request on each connection and hangs up on the second, which is what a client meets
/// whose request crosses the end of an idle connection.
struct Fickle {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Fickle {
    /// Says `last` before it hangs up.
    async fn saying(last: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (tells, requests) = mpsc::unbounded_channel();
        let picture = png(&photo(1));
        let length = picture.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: 1\r\nContent-Length: {length}\r\n\r\n");
        let answer = Arc::new([head.as_bytes(), &picture].concat());
        actix_web::rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, tells) = (answer.clone(), tells.clone());
                actix_web::rt::spawn(async move {
                    for reply in [&answer[..], last] {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            let Ok(byte) = stream.read_u8().await else { return };
                            head.push(byte);
                        }
                        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                        let _ = tells.send(line);
                        let _ = stream.write_all(reply).await;
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// How many requests have come since this was asked last.
    fn count(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }
}

/// Sends `request` when the only kept connection is one that will die under it. What comes of it, and how often upstream
/// saw it.
async fn on_a_dying_connection(request: &Request, last: &'static [u8]) -> (u16, usize) {
    let mut upstream = Fickle::saying(last).await;
    let proxy = Proxy::with(upstream.address, |config| config.server.workers = 1);
    let mut client = Connection::to(proxy.address).await;
    let first =
        if request.bytes("").starts_with(b"GET /api/v4/users/") { Request::picture("") } else { Request::get("/") };
    assert_eq!(client.send(&first).await.status, 200);
    assert_eq!(upstream.count(), 1);
    let answer = client.send(request).await;
    (answer.status, upstream.count())
}

#[actix_web::test]
async fn f21_what_is_safe_is_sent_once_more_and_nothing_else() {
    for (request, expected) in [
        (Request::get("/api/v4/config/client"), (200, 2)),
        (Request::new("HEAD", "/api/v4/config/client"), (200, 2)),
        (Request::new("OPTIONS", "/api/v4/config/client"), (200, 2)),
        (Request::picture("size=32"), (200, 2)),
        (Request::get("/api/v4/config/client").body("a GET with a body"), (502, 1)),
        (Request::new("POST", "/api/v4/posts").body("{}"), (502, 1)),
        (Request::new("POST", "/api/v4/users/logout"), (502, 1)),
        (Request::new("PUT", "/api/v4/posts/1").body("{}"), (502, 1)),
        (Request::new("PATCH", "/api/v4/posts/1").body("{}"), (502, 1)),
        (Request::new("DELETE", "/api/v4/posts/1"), (502, 1)),
    ] {
        assert_eq!(on_a_dying_connection(&request, b"").await, expected, "{request:?}");
    }
}

#[actix_web::test]
async fn f21_what_was_answered_with_nonsense_is_not_sent_again() {
    for request in [Request::get("/api/v4/config/client"), Request::picture("size=32")] {
        assert_eq!(on_a_dying_connection(&request, b"nonsense\r\n\r\n").await, (502, 1), "{request:?}");
    }
}

#[actix_web::test]
async fn f01_a_new_connection_that_dies_is_not_tried_again() {
    let upstream = Upstream::scripted(|_, _, stream| async move { drop(stream) }).await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&Request::get("/api/v4/config/client")).await;

    assert_eq!((answer.status, upstream.seen().len()), (502, 1));
    // reqwest does not tell whether its connection was new: a picture is asked for twice at most.
    assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 502);
    assert_eq!(upstream.seen().len(), 1 + 2);
}
