//! The back door: ask upstream for a picture, forward a request, open a tunnel. The only room that names the HTTP clients.
//!
//! Two clients, because they are good at different things: `reqwest` for our own fetches of pictures, whose paths are
//! canonical, and the `hyper` client that it stands on for everything that passes through: that one takes a raw URI, so
//! path bytes arrive as they came (`url::Url` folds dot segments and backslashes), and it hands out upgraded connections.

mod body;
mod connect;
mod error;
mod exchange;
pub mod headers;
mod picture;
mod roots;

pub use body::{Aborted, BodySender, BodyStream, RequestBody, with_idle_timeout};
pub use error::UpstreamError;
pub use picture::{Answer, AnswerBody, PictureRequest};
pub use roots::{Roots, RootsError};

use crate::source::Validator;
use bytes::Bytes;
use connect::Connector;
use error::causes;
use exchange::{Exchange, Head, lost_connection};
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Below Mattermost's own 60 s, so that a pooled connection is not closed under a request (mattermost.md section 6).
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Idle connections kept to upstream by each client.
const POOL_SIZE: usize = 64;

/// Where upstream is and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port: the only address that is ever dialled.
    pub authority: Authority,
    /// The `Host` sent upstream instead of the client's.
    pub host: Option<HeaderValue>,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until the head of the answer to a picture request is there.
    pub head_timeout: Duration,
    /// Between two chunks of any body.
    pub idle_timeout: Duration,
    /// For a picture as a whole.
    pub picture_timeout: Duration,
    /// Until the head of an answer that passes through is there, counted from the last byte of the request.
    pub passthrough_timeout: Duration,
    /// Picture requests at once.
    pub max_picture_requests: usize,
    /// Connections at once for what passes through, tunnels and idle ones included.
    pub max_connections: usize,
    /// Root certificates beside those of the platform.
    pub roots: Option<Roots>,
}

/// An upgraded connection to upstream.
pub type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

/// Upstream's answer to a request for an upgrade.
pub enum UpgradeAnswer {
    /// 101: the header, and the connection.
    Switched(HeaderMap, Tunnel),
    /// Anything else is an ordinary answer.
    Declined(http::Response<BodyStream>),
}

/// What all workers share of the way to upstream.
#[derive(Clone)]
pub struct Gateway {
    settings: Arc<Settings>,
    tls: rustls::ClientConfig,
    picture_slots: Arc<Semaphore>,
    connection_slots: Arc<Semaphore>,
}

impl Gateway {
    /// Prepares the way to upstream.
    ///
    /// # Errors
    /// Upstream is `https`, and its host or the certificates at hand cannot be used.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        // A second call in one process finds the provider installed; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = connect::tls(&settings)?;
        let picture_slots = Arc::new(Semaphore::new(settings.max_picture_requests));
        let connection_slots = Arc::new(Semaphore::new(settings.max_connections));
        Ok(Self { settings: Arc::new(settings), tls, picture_slots, connection_slots })
    }

    /// The same way with connections of its own, for a question that must not wait for clients: one, and one more for when
    /// the kept one has just died.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { connection_slots: Arc::new(Semaphore::new(2)), ..self.clone() }
    }
}

/// One worker's way to upstream. Its connections live and end with the worker: those of a shared pool would end with
/// whichever worker happened to open them, under the requests of the others.
pub struct Upstream {
    settings: Arc<Settings>,
    pictures: reqwest::Client,
    /// Keeps no connection, so each of its requests goes out on a new one.
    pictures_afresh: reqwest::Client,
    passthrough: Exchange,
    picture_slots: Arc<Semaphore>,
}

impl Upstream {
    /// Builds both clients on one TLS configuration.
    ///
    /// # Errors
    /// The clients refuse their settings.
    pub fn new(gateway: &Gateway) -> Result<Self, BuildError> {
        let Gateway { settings, tls, picture_slots, connection_slots } = gateway.clone();
        let pictures = |idle| {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .http1_only()
                .tcp_nodelay(true)
                .connect_timeout(settings.connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(idle);
            client.build().map_err(|error| BuildError(causes(&error)))
        };
        let connector = Connector::new(&settings, tls.clone(), connection_slots);
        Ok(Self {
            pictures: pictures(POOL_SIZE)?,
            pictures_afresh: pictures(0)?,
            passthrough: Exchange::new(&connector, POOL_SIZE, POOL_IDLE, settings.passthrough_timeout),
            picture_slots,
            settings,
        })
    }

    /// The `Host` that is sent upstream for a request that came with `client_host`.
    #[must_use]
    pub fn host_for(&self, client_host: Option<&HeaderValue>) -> HeaderValue {
        let fixed = self.settings.host.as_ref().or(client_host);
        fixed.cloned().unwrap_or_else(|| self.authority_value())
    }

    /// [`Upstream::host_for`] as bytes.
    #[must_use]
    pub fn host_of<'a>(&'a self, client_host: Option<&'a [u8]>) -> &'a [u8] {
        let fixed = self.settings.host.as_ref().map(HeaderValue::as_bytes);
        fixed.or(client_host).unwrap_or(self.settings.authority.as_str().as_bytes())
    }

    fn authority_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.settings.authority.as_str()).expect("an authority is a field value")
    }

    /// The time that any body may pause.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// The time that a whole picture may take.
    #[must_use]
    pub fn picture_timeout(&self) -> Duration {
        self.settings.picture_timeout
    }

    /// Asks for a picture, if `validator` is given only on the condition that it no longer holds.
    ///
    /// # Errors
    /// No answer, or not in time.
    pub async fn picture(
        &self,
        request: &PictureRequest,
        validator: Option<&Validator>,
    ) -> Result<Answer, UpstreamError> {
        let slot = timeout(self.settings.head_timeout, self.picture_slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| UpstreamError::Overloaded)?.expect("the slots are never closed");
        let uri = self.uri(&request.path, request.query.as_deref())?.to_string();
        let mut headers = request.headers.clone();
        if let Some(validator) = validator {
            let raw = HeaderValue::from_bytes(validator.as_bytes()).expect("it came as a field value");
            headers.insert(header::IF_NONE_MATCH, raw);
        }
        let asked = async {
            match self.pictures.get(&uri).headers(headers.clone()).send().await {
                // The rule of `exchange`, but that reqwest does not tell a kept connection from a new one.
                Err(error) if lost_connection(&error) && !error.is_connect() => {
                    self.pictures_afresh.get(&uri).headers(headers).send().await
                }
                response => response,
            }
        };
        let response = timeout(self.settings.head_timeout, asked).await.map_err(|_| UpstreamError::TimedOut)??;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && validator.is_none() {
            return Err(UpstreamError::Broken("a 304 to an unconditional request".to_owned()));
        }
        let mut headers = response.headers().clone();
        headers::check_answer_framing(&headers)?;
        headers::strip_response_hop_by_hop(&mut headers);
        let chunks = stream::unfold(response, |mut response| async move {
            match response.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), response)),
                Ok(None) => None,
                Err(error) => Some((Err(UpstreamError::from(error)), response)),
            }
        });
        let rest = with_idle_timeout(Box::pin(chunks), self.settings.idle_timeout);
        Ok(Answer { status, headers, body: AnswerBody::Partial(Bytes::new(), rest), slot: Some(slot) })
    }

    /// Forwards a request whose path and query are sent byte for byte.
    ///
    /// # Errors
    /// No answer, or not in time; [`UpstreamError::ClientAborted`] when the client's body broke off.
    pub async fn forward(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<http::Response<BodyStream>, UpstreamError> {
        let response = self.send(method, target, headers, body).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Broken("a 101 that nobody asked for".to_owned()));
        }
        self.streamed(response)
    }

    /// Asks for an upgrade of the connection. Not one byte of the client's is sent before upstream's 101.
    ///
    /// # Errors
    /// No answer, or not in time.
    pub async fn upgrade(&self, target: PathAndQuery, headers: HeaderMap) -> Result<UpgradeAnswer, UpstreamError> {
        let mut response = self.send(Method::GET, target, headers, RequestBody::empty()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(UpgradeAnswer::Declined(self.streamed(response)?));
        }
        let upgraded = timeout(self.settings.head_timeout, hyper::upgrade::on(&mut response)).await;
        let upgraded = upgraded.map_err(|_| UpstreamError::TimedOut)??;
        Ok(UpgradeAnswer::Switched(response.headers().clone(), TokioIo::new(upgraded)))
    }

    /// Whether upstream answers its health route (`getSystemPing` in `server/channels/api4/system.go`).
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn ping(&self, base_path: &str) -> Result<(), UpstreamError> {
        let path = format!("{base_path}/api/v4/system/ping");
        let target = PathAndQuery::try_from(path).map_err(|error| UpstreamError::Broken(error.to_string()))?;
        let headers = HeaderMap::from_iter([(header::HOST, self.host_for(None))]);
        let sent = self.send(Method::GET, target, headers, RequestBody::empty());
        let response = timeout(self.settings.head_timeout, sent).await.map_err(|_| UpstreamError::TimedOut)??;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(UpstreamError::Broken(format!("the health route answers {}", response.status())))
        }
    }

    async fn send(
        &self,
        method: Method,
        target: PathAndQuery,
        mut headers: HeaderMap,
        body: RequestBody,
    ) -> Result<http::Response<Incoming>, UpstreamError> {
        frame(&method, &mut headers, body.length());
        let uri = self.uri_of(target)?;
        self.passthrough.send(Head { method, uri, headers }, body).await
    }

    fn streamed(&self, response: http::Response<Incoming>) -> Result<http::Response<BodyStream>, UpstreamError> {
        let (mut head, body) = response.into_parts();
        headers::check_answer_framing(&head.headers)?;
        headers::strip_response_hop_by_hop(&mut head.headers);
        let chunks = http_body_util::BodyDataStream::new(body);
        Ok(http::Response::from_parts(head, with_idle_timeout(chunks, self.settings.idle_timeout)))
    }

    fn uri(&self, path: &str, query: Option<&str>) -> Result<Uri, UpstreamError> {
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let target = PathAndQuery::try_from(target).map_err(|error| UpstreamError::Broken(error.to_string()))?;
        self.uri_of(target)
    }

    /// Scheme and authority come from the configuration only, path and query from the request: never joined as text.
    fn uri_of(&self, target: PathAndQuery) -> Result<Uri, UpstreamError> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.settings.authority.clone());
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).map_err(|error| UpstreamError::Broken(error.to_string()))
    }
}

/// Frames a request anew by what really follows its head. The client's own `Content-Length` is not believed: hyper would
/// send it beside a body of another length, and the next request on that connection would be read as part of this one.
fn frame(method: &Method, headers: &mut HeaderMap, length: Option<u64>) {
    headers.remove(header::CONTENT_LENGTH);
    let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    match length {
        Some(0) if !expects_body => {}
        Some(length) => _ = headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => _ = headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    }
}

/// The clients could not be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP clients cannot be built: {0}")]
pub struct BuildError(String);
