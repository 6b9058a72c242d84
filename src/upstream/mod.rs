//! The back door: ask upstream for a picture, forward a request, open a tunnel. The only room that names the HTTP clients.
//!
//! Two clients, because they are good at different things: `reqwest` for our own fetches of pictures, whose paths are
//! canonical, and the `hyper` client that it stands on for everything that passes through: that one takes a raw URI, so
//! path bytes arrive as they came (`url::Url` folds dot segments and backslashes), and it hands out upgraded connections.

mod body;
pub mod headers;

pub use body::{Aborted, BodySender, BodyStream, RequestBody, with_idle_timeout};

use crate::source::Validator;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Below Mattermost's own 60 s, so that a pooled connection is not closed under a request (mattermost.md section 6).
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Idle connections kept to upstream by each client.
const POOL_SIZE: usize = 64;

/// What a connection that passes bodies through buffers in each direction, beside the chunk that is being handed over. With
/// what the client's side holds it stays below the mebibyte that may be in flight; a head has to fit into it, too.
const CONNECTION_BUFFER: usize = 128 << 10;

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
}

/// Why upstream gave no answer that could be passed on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made.
    #[error("upstream cannot be reached: {0}")]
    Unreachable(String),
    /// A time-out passed.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// The connection broke, or what came over it was no HTTP.
    #[error("upstream broke off: {0}")]
    Broken(String),
    /// The client broke its own request off.
    #[error("the client's body broke off")]
    ClientAborted,
    /// The client stopped sending its own request.
    #[error("the client's body stalled")]
    ClientStalled,
    /// Too many picture requests are under way and none ended in time.
    #[error("too many picture requests are under way")]
    Overloaded,
}

impl From<reqwest::Error> for UpstreamError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::Unreachable(causes(&error))
        } else {
            Self::Broken(causes(&error))
        }
    }
}

impl From<hyper_util::client::legacy::Error> for UpstreamError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        if error.is_connect() { Self::Unreachable(causes(&error)) } else { broken_or_aborted(&error) }
    }
}

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        broken_or_aborted(&error)
    }
}

impl From<headers::FramedTwice> for UpstreamError {
    fn from(error: headers::FramedTwice) -> Self {
        Self::Broken(error.to_string())
    }
}

fn broken_or_aborted(error: &(dyn std::error::Error + 'static)) -> UpstreamError {
    let chain = std::iter::successors(Some(error), |error| error.source());
    if chain.into_iter().any(<dyn std::error::Error>::is::<Aborted>) {
        UpstreamError::ClientAborted
    } else {
        UpstreamError::Broken(causes(error))
    }
}

/// An error and what caused it, in one line; addresses are told apart from anything a client sent, which is not in it.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    // reqwest's outermost text carries the URL with its query; what lies beneath does not.
    let inner = std::iter::successors(error.source(), |error| error.source());
    inner.last().map_or_else(|| "no cause named".to_owned(), ToString::to_string)
}

/// A request for a picture in the caller's name.
#[derive(Clone, Debug)]
pub struct PictureRequest {
    /// The canonical path, base path included.
    pub path: String,
    /// The query without our own parameters.
    pub query: Option<String>,
    /// The fixed list of [`headers::picture_request`], `Host` included.
    pub headers: HeaderMap,
}

/// Upstream's answer to a picture request. It occupies one of the slots for such requests until its body has been read.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header without what belongs to the connection.
    pub headers: HeaderMap,
    /// The body, not yet read.
    pub body: AnswerBody,
    slot: Option<OwnedSemaphorePermit>,
}

/// The body of an [`Answer`].
pub enum AnswerBody {
    /// All of it.
    Complete(Bytes),
    /// What was read so far, and the rest.
    Partial(Bytes, BodyStream),
}

impl Answer {
    /// The header alone; the body is not read, and the slot is free.
    #[must_use]
    pub fn into_headers(self) -> HeaderMap {
        self.headers
    }

    /// Reads the body if it is not longer than `limit` bytes; a longer one stays a stream that memory never holds.
    ///
    /// # Errors
    /// The body broke off, or stalled.
    pub async fn read_up_to(mut self, limit: u64) -> Result<Self, UpstreamError> {
        use futures_util::StreamExt;
        let AnswerBody::Partial(prefix, mut rest) = self.body else {
            return Ok(self);
        };
        let declared = headers::content_length(&self.headers);
        if declared.is_some_and(|length| length > limit) {
            self.body = AnswerBody::Partial(prefix, rest);
            return Ok(self);
        }
        let mut read = BytesMut::from(prefix);
        if let Some(length) = declared {
            read.reserve(usize::try_from(length).unwrap_or(0));
        }
        while let Some(chunk) = rest.next().await {
            read.extend_from_slice(&chunk?);
            if read.len() as u64 > limit {
                self.body = AnswerBody::Partial(read.freeze(), rest);
                return Ok(self);
            }
        }
        // A buffer that grew by doubling may be half empty, and what is kept of it is kept for long.
        self.body = AnswerBody::Complete(Bytes::copy_from_slice(&read));
        self.slot = None;
        Ok(self)
    }
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
}

impl Gateway {
    /// Prepares the way to upstream.
    ///
    /// # Errors
    /// Upstream is `https` and the platform's certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        // A second call in one process finds the provider installed; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = tls(&settings.scheme)?;
        let picture_slots = Arc::new(Semaphore::new(settings.max_picture_requests));
        Ok(Self { settings: Arc::new(settings), tls, picture_slots })
    }
}

/// A machine without certificates is no obstacle while upstream is plain `http`.
fn tls(scheme: &Scheme) -> Result<rustls::ClientConfig, BuildError> {
    use rustls_platform_verifier::ConfigVerifierExt;
    if *scheme == Scheme::HTTPS {
        return rustls::ClientConfig::with_platform_verifier().map_err(|error| BuildError(error.to_string()));
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// One worker's way to upstream. Its connections live and end with the worker: those of a shared pool would end with
/// whichever worker happened to open them, under the requests of the others.
pub struct Upstream {
    settings: Arc<Settings>,
    pictures: reqwest::Client,
    passthrough: Client<HttpsConnector<HttpConnector>, RequestBody>,
    picture_slots: Arc<Semaphore>,
}

impl Upstream {
    /// Builds both clients on one TLS configuration.
    ///
    /// # Errors
    /// The clients refuse their settings.
    pub fn new(gateway: &Gateway) -> Result<Self, BuildError> {
        let Gateway { settings, tls, picture_slots } = gateway.clone();
        let pictures = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .build()
            .map_err(|error| BuildError(causes(&error)))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let passthrough = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(CONNECTION_BUFFER)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_SIZE)
            .build(connector);
        Ok(Self { settings, pictures, passthrough, picture_slots })
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
        let sent = || timeout(self.settings.head_timeout, self.pictures.get(&uri).headers(headers.clone()).send());
        let response = match sent().await.map_err(|_| UpstreamError::TimedOut)?.map_err(UpstreamError::from) {
            // Upstream may have closed the kept connection just as this went out (F21).
            Err(UpstreamError::Broken(_)) => sent().await.map_err(|_| UpstreamError::TimedOut)??,
            response => response?,
        };
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
        let repeatable = body.length() == Some(0) && (method == Method::GET || method == Method::HEAD);
        let response = match self.send(method.clone(), target.clone(), headers.clone(), body).await {
            // Upstream may have closed the kept connection just as this went out (F21).
            Err(UpstreamError::Broken(_)) if repeatable => {
                self.send(method, target, headers, RequestBody::empty()).await?
            }
            response => response?,
        };
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
        let progress = body.progress();
        frame(&method, &mut headers, body.length());
        let mut request = http::Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri_of(target)?;
        *request.headers_mut() = headers;
        let answer = self.passthrough.request(request);
        tokio::pin!(answer);
        let mut seen = progress.load(Ordering::Relaxed);
        loop {
            if let Ok(answer) = timeout(self.settings.passthrough_timeout, &mut answer).await {
                return Ok(answer?);
            }
            // A slow upload is not a slow answer: the clock starts anew as long as chunks are taken.
            let now = progress.load(Ordering::Relaxed);
            if now == seen {
                return Err(UpstreamError::TimedOut);
            }
            seen = now;
        }
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
        Uri::builder()
            .scheme(self.settings.scheme.clone())
            .authority(self.settings.authority.clone())
            .path_and_query(target)
            .build()
            .map_err(|error| UpstreamError::Broken(error.to_string()))
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
