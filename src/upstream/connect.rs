//! How a connection to upstream comes about: to one of the addresses behind its name, with TLS where that is asked for, all
//! of it within one time, and no more of them at once than are allowed.

use super::slots::{Slot, Slots};
use super::{BuildError, Settings};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::rt::TokioIo;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto};
use rustls_platform_verifier::Verifier;
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// There are as many as are allowed.
    #[error("too many connections")]
    TooMany,
    /// Not in time.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// Refused, no address, no trust, whatever.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Makes connections, each of which counts until it ends, idle ones and tunnels too.
#[derive(Clone)]
pub(super) struct Connector<Resolver = GaiResolver> {
    dial: HttpsConnector<HttpConnector<Resolver>>,
    upstream: Uri,
    timeout: Duration,
    pub(super) slots: Arc<Slots>,
}

impl Connector {
    /// Asks the system where a name leads.
    pub(super) fn new(settings: &Settings, tls: ClientConfig) -> Result<Self, BuildError> {
        Self::resolving_by(GaiResolver::new(), settings, tls)
    }
}

impl<Resolver> Connector<Resolver> {
    fn resolving_by(resolver: Resolver, settings: &Settings, tls: ClientConfig) -> Result<Self, BuildError> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among the addresses of a name, so that one that swallows everything leaves time for the next.
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        let dial = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let dial = match &settings.tls_name {
            Some(name) => dial.with_server_name_resolver(FixedServerNameResolver::new(server_name(name)?)),
            None => dial,
        };
        let dial = dial.enable_http1().wrap_connector(tcp);
        let upstream = Uri::builder()
            .scheme(settings.scheme.clone())
            .authority(settings.authority.clone())
            .path_and_query(PathAndQuery::from_static("/"))
            .build()
            .map_err(|error| BuildError(error.to_string()))?;
        let slots = Arc::new(Slots::new(settings.max_connections));
        Ok(Self { dial, upstream, timeout: settings.connect_timeout, slots })
    }
}

impl<Resolver> Connector<Resolver>
where
    HttpConnector<Resolver>:
        Service<Uri, Response = TokioIo<TcpStream>, Error: Into<Box<dyn Error + Send + Sync>>, Future: Send + 'static>,
    Resolver: Clone + Send + Sync + 'static,
{
    /// A connection that counts.
    pub(super) async fn connect(&self) -> Result<Link, ConnectError> {
        let slot = self.slots.take().await.ok_or(ConnectError::TooMany)?;
        self.dial(Some(slot)).await
    }

    /// A connection that is not counted, for a question of our own that is to be answered however many there are.
    pub(super) async fn connect_uncounted(&self) -> Result<Link, ConnectError> {
        self.dial(None).await
    }

    async fn dial(&self, slot: Option<Slot>) -> Result<Link, ConnectError> {
        let mut dial = self.dial.clone();
        let dialled = async {
            poll_fn(|context| dial.poll_ready(context)).await?;
            dial.call(self.upstream.clone()).await
        };
        // All of it: the name, each address, and the handshake of TLS.
        let dialled = tokio::time::timeout(self.timeout, dialled).await;
        let dialled = dialled.map_err(|_| ConnectError::TimedOut(self.timeout))?;
        Ok(Link { transport: Transport::of(dialled.map_err(ConnectError::Failed)?), _slot: slot })
    }
}

/// A connection to upstream.
pub(super) struct Link {
    transport: Transport,
    _slot: Option<Slot>,
}

enum Transport {
    Plain(TcpStream),
    /// On the heap: a plain connection does without more than a kilobyte.
    Tls(Box<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>),
}

impl Transport {
    fn of(stream: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        match stream {
            MaybeHttpsStream::Http(stream) => Self::Plain(stream.into_inner()),
            tls @ MaybeHttpsStream::Https(_) => Self::Tls(Box::new(TokioIo::new(tls))),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }
}

/// How upstream's certificate is judged: by the roots of the platform and those of `upstream.ca_file`, for
/// `upstream.tls_name` or else the host of `upstream.url`, which is also what SNI names (RFC 6066 section 3).
pub(super) fn tls(settings: &Settings) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError(error.to_string()))?;
    // A machine without certificates is no obstacle while upstream is plain `http`.
    if settings.scheme != Scheme::HTTPS {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    server_name(settings.tls_name.as_deref().unwrap_or_else(|| host(&settings.authority)))?;
    let extra = settings.roots.iter().flat_map(|roots| roots.certificates().iter().cloned());
    let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| BuildError(error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn server_name(name: &str) -> Result<ServerName<'static>, BuildError> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|error| BuildError(format!("{name} is no name for TLS: {error}")))
}

fn host(authority: &Authority) -> &str {
    authority.host().trim_matches(['[', ']'])
}

/// What the URLs name that upstream is asked for by the client that takes the name for TLS from there.
pub(super) fn named(settings: &Settings) -> Result<Authority, BuildError> {
    let Some(name) = &settings.tls_name else { return Ok(settings.authority.clone()) };
    let named = settings.authority.port_u16().map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
    named.parse().map_err(|error| BuildError(format!("{named}: {error}")))
}

/// Where every name leads, for such a client: to the one host that is ever dialled.
pub(super) struct Leading(String);

impl Leading {
    pub(super) fn to(authority: &Authority) -> Self {
        Self(host(authority).to_owned())
    }
}

impl Resolve for Leading {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is that of the URL.
            let addresses = tokio::net::lookup_host((host, 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::client::legacy::connect::dns::Name as HyperName;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::vec::IntoIter;
    use tokio::net::TcpListener;

    /// A name that leads to these addresses.
    #[derive(Clone)]
    struct Towards(Vec<SocketAddr>);

    impl Service<HyperName> for Towards {
        type Response = IntoIter<SocketAddr>;
        type Error = Infallible;
        type Future = Ready<Result<IntoIter<SocketAddr>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: HyperName) -> Self::Future {
            ready(Ok(self.0.clone().into_iter()))
        }
    }

    fn settings(scheme: Scheme, authority: &str, connect_timeout: Duration) -> Settings {
        Settings {
            scheme,
            authority: authority.parse().expect("an authority"),
            host: None,
            tls_name: None,
            connect_timeout,
            head_timeout: connect_timeout,
            idle_timeout: connect_timeout,
            picture_timeout: connect_timeout,
            passthrough_timeout: connect_timeout,
            max_picture_requests: 1,
            picture_connections_kept: 1,
            max_connections: 1,
            roots: None,
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    /// A port on which nobody listens.
    async fn refusing() -> SocketAddr {
        listener().await.1
    }

    /// Connects once to a name that leads to `addresses`.
    async fn connect(addresses: Vec<SocketAddr>, limit: Duration) -> Result<Link, ConnectError> {
        let settings = settings(Scheme::HTTP, "mattermost", limit);
        let tls = tls(&settings).expect("no TLS to speak of");
        let connector = Connector::resolving_by(Towards(addresses), &settings, tls).expect("an address");
        connector.connect().await
    }

    #[tokio::test]
    async fn when_an_address_refuses_the_next_is_tried() {
        let (_listener, listening) = listener().await;
        let dead = [refusing().await, refusing().await];
        assert!(connect(vec![dead[0], dead[1], listening], LONG).await.is_ok());
        assert!(matches!(connect(dead.to_vec(), LONG).await, Err(ConnectError::Failed(_))));
        assert!(matches!(connect(Vec::new(), LONG).await, Err(ConnectError::Failed(_))));
    }

    #[tokio::test]
    async fn there_are_no_more_connections_than_allowed() {
        let (_listener, listening) = listener().await;
        let settings = Settings { max_connections: 2, ..settings(Scheme::HTTP, "mattermost", LONG) };
        let tls = tls(&settings).expect("no TLS to speak of");
        let connector = Connector::resolving_by(Towards(vec![listening]), &settings, tls).expect("an address");
        let connect = || connector.connect();

        let (one, _other) = (connect().await, connect().await);
        assert!(matches!(connect().await, Err(ConnectError::TooMany)));
        assert!(connector.connect_uncounted().await.is_ok());
        drop(one);
        assert!(connect().await.is_ok());
    }

    #[test]
    fn a_host_that_tls_cannot_name_stops_the_start() {
        for (host, fits) in
            [("mattermost", true), ("127.0.0.1", true), ("[::1]:8065", true), ("a..b", false), ("-a", false)]
        {
            let built = tls(&settings(Scheme::HTTPS, host, LONG)).map(|_| ()).map_err(|error| error.to_string());
            // A machine for tests may have no certificates, which is another matter.
            let told = built.as_ref().is_err_and(|told| told.contains("is no name for TLS"));
            assert_eq!(told, !fits, "{host}: {built:?}");
        }
    }
}
